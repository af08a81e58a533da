//! The state that all connections and deliveries of one core share.
//!
//! It has no life cycle of its own: `process::worker` creates it and ends it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tracing::Level;

use crate::http::compress::Compressors;
use crate::limits::Limits;
use crate::mirror::fan_out::delivery::Delivery;
use crate::mirror::reporting::access_log::{AccessLog, WorkerAccessLog};
use crate::mirror::reporting::unknown_keys::SeenKeys;
use crate::mirror::reporting::worker_metrics::WorkerMetrics;
use crate::mirror::request::request_id::RequestId;
use crate::mirror::request::request_trace::RequestTrace;
use crate::mirror::routing::local_route::LocalRoutes;
use crate::mirror::routing::routing_table::RoutingTable;
use crate::runtime::decoding::Decoding;
use crate::runtime::in_flight::InFlight;
use crate::runtime::memory_budget::MemoryBudget;
use crate::runtime::memory_lease::SharedMemory;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::task_pool::TaskPool;
use crate::telemetry::timestamp::{HttpDate, http_date};
use crate::upstream::origin::SharedOrigin;
use crate::upstream::pool::Pool;

pub(crate) struct Core {
    /// The memory budget of all requests, of which this core leases a part.
    pub(crate) budget: Rc<MemoryBudget>,
    /// The part of the budget for requests without a known key, or whose key has not been read yet.
    pub(crate) keyless: Rc<MemoryBudget>,
    /// The tasks that run deliveries.
    pub(crate) tasks: Rc<TaskPool<Delivery>>,
    pub(crate) decoding: Decoding,
    pub(crate) compressors: RefCell<Compressors>,
    pub(crate) counters: Arc<WorkerMetrics>,
    /// The keys of rejected requests that are not reported yet.
    pub(crate) unknown_keys: RefCell<SeenKeys>,
    /// Whether the worker is so far behind that it rejects requests.
    pub(crate) is_late: Cell<bool>,
    /// Requests and fan-outs in flight.
    pub(crate) in_flight: Rc<InFlight>,
    /// The `Date` of replies, updated once a second.
    pub(crate) date: Cell<HttpDate>,
    /// Tells idle connections to close.
    pub(crate) shutdown: Rc<Shutdown>,
    access: Option<Rc<WorkerAccessLog>>,
    /// The number of requests that had a trace.
    traced: Cell<u64>,
    routing: RefCell<Rc<Routing>>,
}

impl Core {
    pub(crate) fn new(
        table: Arc<RoutingTable>,
        counters: Arc<WorkerMetrics>,
        access: Option<AccessLog>,
        memory: Arc<SharedMemory>,
    ) -> Core {
        let budget = MemoryBudget::of_worker(memory);
        let keyless = budget.part(table.limits.keyless_bytes(budget.workers()));
        let routing = Routing::new(table, &budget, counters.worker);
        Core {
            keyless,
            budget,
            tasks: TaskPool::new(),
            decoding: Decoding::default(),
            compressors: RefCell::default(),
            counters,
            unknown_keys: RefCell::default(),
            is_late: Cell::new(false),
            in_flight: Rc::default(),
            date: Cell::new(http_date(SystemTime::now())),
            shutdown: Rc::default(),
            access: access.as_ref().map(AccessLog::for_worker),
            traced: Cell::new(0),
            routing: RefCell::new(Rc::new(routing)),
        }
    }

    /// The current routing. A request keeps it until it has ended, even across a reload.
    pub(crate) fn routing(&self) -> Rc<Routing> {
        Rc::clone(&self.routing.borrow())
    }

    pub(crate) fn set_routing_table(&self, table: Arc<RoutingTable>) {
        self.budget.set_limit(table.limits.memory_bytes);
        let workers = self.budget.workers();
        self.keyless.set_limit(table.limits.keyless_bytes(workers));
        let routing = self
            .routing()
            .with_table(table, &self.budget, self.counters.worker);
        *self.routing.borrow_mut() = Rc::new(routing);
    }

    /// Queues the collected lines of the access log. The worker calls it ten times a second, and at the shutdown.
    pub(crate) fn flush_access_log(&self) {
        if let Some(access) = &self.access {
            access.flush();
        }
    }

    /// Reports the unknown keys of rejected requests to the process. The worker calls it once a second, and at
    /// the shutdown.
    pub(crate) fn report_unknown_keys(&self, now: Instant) {
        let known = &self.counters.unknown_keys;
        known.merge(&mut self.unknown_keys.borrow_mut(), now);
    }

    /// The trace of a request that began at `started`; `None` if no log needs it.
    pub(crate) fn trace(
        &self,
        peer: SocketAddr,
        client: IpAddr,
        started: Instant,
    ) -> Option<Rc<RequestTrace>> {
        if self.access.is_none() && !tracing::enabled!(Level::DEBUG) {
            return None;
        }
        let number = self.traced.get() + 1;
        self.traced.set(number);
        let id = RequestId {
            worker: self.counters.worker,
            number,
        };
        let log = self.access.as_ref();
        let entry = log.map(|log| log.entry(id, peer, client, started));
        Some(Rc::new(RequestTrace { id, entry }))
    }
}

/// The [`RoutingTable`] of the process, with the connection pools of this core.
pub(crate) struct Routing {
    pub(crate) table: Arc<RoutingTable>,
    pub(crate) routes: LocalRoutes,
    /// In the order of the table's origins.
    pub(crate) pools: Vec<Rc<Pool>>,
}

impl Routing {
    fn new(table: Arc<RoutingTable>, budget: &Rc<MemoryBudget>, worker: usize) -> Routing {
        let empty = Routing {
            table: Arc::clone(&table),
            routes: LocalRoutes::new(&table.routes),
            pools: Vec::new(),
        };
        empty.with_table(table, budget, worker)
    }

    /// The routing for another table. Origins that are in both tables keep their pool: its connections
    /// and deliveries in flight.
    fn with_table(
        &self,
        table: Arc<RoutingTable>,
        budget: &Rc<MemoryBudget>,
        worker: usize,
    ) -> Routing {
        let limits = Rc::new(Limits::clone(&table.limits));
        let known = self.pools.iter();
        let known: HashMap<*const SharedOrigin, &Rc<Pool>> = known
            .map(|pool| (Arc::as_ptr(pool.origin()), pool))
            .collect();
        let share_bytes = limits.origin_bytes(table.origins.len(), budget.workers());
        let pool = |origin: &Arc<SharedOrigin>| {
            let known = known.get(&Arc::as_ptr(origin)).copied();
            let limits = Rc::clone(&limits);
            let pool = match known {
                Some(known) => {
                    known.set_limits(limits);
                    Rc::clone(known)
                }
                None => Rc::new(Pool::new(Arc::clone(origin), limits, budget, worker)),
            };
            pool.set_memory_share(share_bytes);
            pool
        };
        let pools = table.origins.iter().map(pool).collect();
        Routing {
            routes: LocalRoutes::new(&table.routes),
            table,
            pools,
        }
    }
}
