//! What every connection and delivery of one core shares.
//!
//! There is no life cycle in here: the worker's thread, which starts and ends all this, stands above.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::http::compress::Compressors;
use crate::limits::Limits;
use crate::mirror::access_log::{AccessLog, AccessLogEntry};
use crate::mirror::delivery::Delivery;
use crate::mirror::routing_table::RoutingTable;
use crate::mirror::worker_metrics::WorkerMetrics;
use crate::runtime::decoding::Decoding;
use crate::runtime::in_flight::InFlight;
use crate::runtime::memory_budget::MemoryBudget;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::task_pool::TaskPool;
use crate::telemetry::timestamp::{HttpDate, http_date};
use crate::upstream::origin::SharedOrigin;
use crate::upstream::pool::Pool;

/// What a request needs of its core.
pub(crate) struct Core {
    /// Bytes that requests may hold.
    pub(crate) budget: Rc<MemoryBudget>,
    /// The part of them for requests whose key is not known, or not yet.
    pub(crate) keyless: Rc<MemoryBudget>,
    /// What carries deliveries.
    pub(crate) tasks: Rc<TaskPool<Delivery>>,
    pub(crate) decoding: Decoding,
    pub(crate) compressors: RefCell<Compressors>,
    pub(crate) counters: Arc<WorkerMetrics>,
    /// Requests and deliveries in flight.
    pub(crate) in_flight: Rc<InFlight>,
    /// The date of replies, made once a second.
    pub(crate) date: Cell<HttpDate>,
    /// Tells idle connections to close.
    pub(crate) shutdown: Rc<Shutdown>,
    access: Option<AccessLog>,
    routing: RefCell<Rc<Routing>>,
}

impl Core {
    pub(crate) fn new(
        table: Arc<RoutingTable>,
        counters: Arc<WorkerMetrics>,
        access: Option<AccessLog>,
    ) -> Core {
        let budget = MemoryBudget::new(table.limits.memory_bytes);
        let keyless = budget.part(table.limits.keyless_bytes());
        let routing = Routing::new(table, &budget, counters.worker);
        Core {
            keyless,
            budget,
            tasks: TaskPool::new(),
            decoding: Decoding::default(),
            compressors: RefCell::default(),
            counters,
            in_flight: Rc::default(),
            date: Cell::new(http_date(SystemTime::now())),
            shutdown: Rc::default(),
            access,
            routing: RefCell::new(Rc::new(routing)),
        }
    }

    /// The routes as they are now. A request keeps to them until it has ended.
    pub(crate) fn routing(&self) -> Rc<Routing> {
        Rc::clone(&self.routing.borrow())
    }

    /// Routes by another table from now on.
    pub(crate) fn adopt(&self, table: Arc<RoutingTable>) {
        self.budget.set_limit(table.limits.memory_bytes);
        self.keyless.set_limit(table.limits.keyless_bytes());
        let routing = self
            .routing()
            .adapted_to(table, &self.budget, self.counters.worker);
        *self.routing.borrow_mut() = Rc::new(routing);
    }

    /// An entry in the access log, if there is one, for a request that began at `started`.
    pub(crate) fn access_entry(
        &self,
        peer: SocketAddr,
        started: Instant,
    ) -> Option<Rc<AccessLogEntry>> {
        let log = self.access.as_ref()?;
        Some(log.entry(peer, started))
    }
}

/// The [`RoutingTable`] of the process with this core's connections.
pub(crate) struct Routing {
    pub(crate) table: Arc<RoutingTable>,
    /// In the order of the table's origins.
    pub(crate) upstreams: Vec<Rc<Pool>>,
}

impl Routing {
    fn new(table: Arc<RoutingTable>, budget: &Rc<MemoryBudget>, worker: usize) -> Routing {
        let none = Routing {
            table: Arc::clone(&table),
            upstreams: Vec::new(),
        };
        none.adapted_to(table, budget, worker)
    }

    /// The same for another table. Origins in both keep their connections, with what is in flight there,
    /// and their breaker.
    fn adapted_to(
        &self,
        table: Arc<RoutingTable>,
        budget: &Rc<MemoryBudget>,
        worker: usize,
    ) -> Routing {
        let limits = Rc::new(Limits::clone(&table.limits));
        let known = self.upstreams.iter();
        let known: HashMap<*const SharedOrigin, &Rc<Pool>> = known
            .map(|upstream| (Arc::as_ptr(upstream.origin()), upstream))
            .collect();
        let share_bytes = limits.origin_bytes(table.origins.len());
        let upstream = |origin: &Arc<SharedOrigin>| {
            let known = known.get(&Arc::as_ptr(origin)).copied();
            let limits = Rc::clone(&limits);
            let upstream = match known {
                Some(known) => {
                    known.set_limits(limits);
                    Rc::clone(known)
                }
                None => Rc::new(Pool::new(Arc::clone(origin), limits, budget, worker)),
            };
            upstream.set_memory_share(share_bytes);
            upstream
        };
        let upstreams = table.origins.iter().map(upstream).collect();
        Routing { table, upstreams }
    }
}
