//! One core: a thread with its own runtime, connections, upstream pools and buffers.
//!
//! Workers share the listening socket, the route table, which never changes, and nothing else on the
//! way of a request. A worker ends only when it is told to; if it ends in any other way the process
//! is aborted, because a process that lost a worker would go on at half its strength unnoticed.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use monoio::io::{AsyncReadRent, Canceller};
use monoio::net::{TcpListener, UnixStream};
use monoio::time::{sleep, timeout};
use tracing::{error, warn};

use crate::budget::{Budget, Reservation};
use crate::config::DriverChoice;
use crate::http::compress::Compressors;
use crate::limits::Limits;
use crate::mirror::access::{AccessLog, Entry};
use crate::mirror::changes::tell_limits;
use crate::mirror::deliver::Delivery;
use crate::mirror::lanes::Lanes;
use crate::mirror::totals::Counters;
use crate::observe::timestamp::{HttpDate, http_date};
use crate::panics::caught;
use crate::server::balance::Balance;
use crate::server::decode::Decoding;
use crate::server::driver::{Driver, DriverKind};
use crate::server::gate::{Gate, Pass};
use crate::server::listen::HANDSHAKE_PATIENCE;
use crate::server::peers::Peers;
use crate::server::plan::Plan;
use crate::server::stop::Stop;
use crate::upstream::origin::SharedOrigin;
use crate::upstream::pool::Pool;

/// How often idle upstream connections are looked through.
const SWEEP_PERIOD: Duration = Duration::from_secs(1);

/// How long a process that aborts waits for its last log line and its last report: other threads write
/// them, which an abort does not wait for.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Everything a worker needs to start; made by the supervisor, sent to the thread.
pub(crate) struct Assignment {
    /// Which worker it is, from 0.
    pub index: usize,
    /// The core to run on, if it is to be bound to one.
    pub core: Option<core_affinity::CoreId>,
    /// Which driver to build.
    pub driver: DriverChoice,
    /// What to route where.
    pub plan: Arc<Plan>,
    /// The worker's counters, which the supervisor reads.
    pub counters: Arc<Counters>,
    /// Where requests are told of, if anywhere.
    pub access: Option<AccessLog>,
    /// How it stands with connections among the workers.
    pub balance: Balance,
    /// A duplicate of the shared listening socket.
    pub listener: StdListener,
    /// Another handle of it, where connections that still wait when the worker stops would be lost.
    pub rest: Option<StdListener>,
    /// A byte here says that there is a new plan; the end of the stream is the order to stop.
    pub orders: StdUnixStream,
    /// New plans, each announced by a byte of `orders`.
    pub plans: mpsc::Receiver<Arc<Plan>>,
    /// Where to report to.
    pub reports: mpsc::Sender<(usize, Report)>,
    /// Says how to go on once all workers have a driver, so that the listener is in the mode that all
    /// need.
    pub start: mpsc::Receiver<Start>,
}

/// How a worker that has a driver goes on.
pub(crate) enum Start {
    /// It begins to accept.
    Accept,
    /// It changes to epoll, because another worker could not have a ring, and reports again.
    OnEpoll,
}

/// What a worker tells the supervisor.
#[derive(Debug)]
pub(crate) enum Report {
    /// It has a runtime.
    Ready(DriverKind),
    /// It cannot have one.
    Failed(String),
    /// It has accepted its last connection.
    AcceptsNoMore,
    /// It has stopped; so many requests and deliveries were given up.
    Stopped(usize),
}

/// A worker's own view of the [`Plan`].
pub(crate) struct Routing {
    /// What to route where.
    pub plan: Arc<Plan>,
    /// The worker's connections, by origin.
    pub upstreams: Vec<Rc<Pool>>,
}

impl Routing {
    /// A view without any connection yet.
    fn new(plan: Arc<Plan>, budget: &Rc<Budget>, worker: usize) -> Routing {
        let none = Routing {
            plan: Arc::clone(&plan),
            upstreams: Vec::new(),
        };
        none.adapted_to(plan, budget, worker)
    }

    /// A worker's view of another plan that keeps the connections to origins which both have, with
    /// what is in flight there and the breaker.
    fn adapted_to(&self, plan: Arc<Plan>, budget: &Rc<Budget>, worker: usize) -> Routing {
        let limits = Rc::new(Limits::clone(&plan.limits));
        let known = self.upstreams.iter();
        let known: HashMap<*const SharedOrigin, &Rc<Pool>> = known
            .map(|upstream| (Arc::as_ptr(upstream.origin()), upstream))
            .collect();
        let share_bytes = limits.origin_bytes(plan.origins.len());
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
            upstream.set_share(share_bytes);
            upstream
        };
        let upstreams = plan.origins.iter().map(upstream).collect();
        Routing { plan, upstreams }
    }
}

/// What the connections of a worker share.
pub(crate) struct Worker {
    /// The bytes it may hold for its requests.
    pub budget: Rc<Budget>,
    /// Those of them for requests that no configured key is known of.
    pub keyless: Rc<Budget>,
    /// What carries deliveries.
    pub lanes: Rc<Lanes<Delivery<(Reservation, Pass)>>>,
    /// What undoes content codings.
    pub decoding: Decoding,
    /// Compressors to be used again.
    pub compressors: RefCell<Compressors>,
    /// What it has counted.
    pub counters: Arc<Counters>,
    /// Requests and deliveries in flight.
    pub gate: Rc<Gate>,
    /// The date of replies, made once a second.
    pub date: Cell<HttpDate>,
    /// The order to stop.
    pub stop: Rc<Stop>,
    /// The order to accept no more, a moment later.
    pub(super) closing: Rc<Stop>,
    /// Its number.
    pub(super) index: usize,
    access: Option<AccessLog>,
    /// How it stands with connections among the workers.
    pub(super) balance: Balance,
    /// Connections of SDKs that are open.
    pub(super) connections: Rc<Gate>,
    /// Where they come from, if that is bounded.
    pub(super) peers: Rc<Peers>,
    /// Ends the accept that is waited for.
    pub(super) accepting: RefCell<Canceller>,
    routing: RefCell<Rc<Routing>>,
}

impl Assignment {
    /// Starts the worker's thread.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(crate) fn start(self) -> io::Result<()> {
        let name = format!("worker-{}", self.index);
        thread::Builder::new().name(name).spawn(move || {
            let _guard = AbortOnPanic(self.index);
            self.run();
            // The runtime must not be dropped while the kernel may still use buffers of operations
            // that were given up; the thread ends with the process.
            loop {
                thread::park();
            }
        })?;
        Ok(())
    }

    fn run(self) {
        let report = |report| {
            // Without a supervisor the process is ending anyway.
            let _ = self.reports.send((self.index, report));
        };
        if let Some(core) = self.core
            && !core_affinity::set_for_current(core)
        {
            warn!(
                worker = self.index,
                core = core.id,
                "cannot bind the worker to its core"
            );
        }
        let mut choice = self.driver;
        let mut driver = loop {
            let driver = match Driver::build(choice) {
                Ok(driver) => driver,
                Err(error) => return report(Report::Failed(error)),
            };
            report(Report::Ready(driver.kind.clone()));
            match self.start.recv() {
                Ok(Start::Accept) => break driver,
                // What was built goes, and with it the memory that it has locked.
                Ok(Start::OnEpoll) => choice = DriverChoice::Epoll,
                Err(_) => return,
            }
        };
        let worker = Rc::new(Worker::new(
            self.index,
            self.plan,
            self.counters,
            self.access,
            self.balance,
        ));
        let stopped = driver.block_on(async {
            let orders = UnixStream::from_std(self.orders)?;
            let grace = match self.rest {
                Some(_) => HANDSHAKE_PATIENCE,
                None => Duration::ZERO,
            };
            // Not caught: a worker that hears no orders any more has to die.
            monoio::spawn(Rc::clone(&worker).follow(orders, self.plans, grace));
            monoio::spawn(Rc::clone(&worker).sweep());
            worker.accept(&TcpListener::from_std(self.listener)?).await;
            if let Some(rest) = self.rest {
                worker.accept_the_rest(&rest);
            }
            report(Report::AcceptsNoMore);
            io::Result::Ok(worker.drain().await)
        });
        match stopped {
            Ok(given_up) => report(Report::Stopped(given_up)),
            Err(error) => report(Report::Failed(error.to_string())),
        }
        std::mem::forget(driver);
    }
}

impl Worker {
    fn new(
        index: usize,
        plan: Arc<Plan>,
        counters: Arc<Counters>,
        access: Option<AccessLog>,
        balance: Balance,
    ) -> Worker {
        let budget = Budget::new(plan.limits.memory_bytes);
        let keyless = budget.part(plan.limits.keyless_bytes());
        let routing = RefCell::new(Rc::new(Routing::new(plan, &budget, index)));
        Worker {
            keyless,
            budget,
            lanes: Lanes::new(),
            decoding: Decoding::default(),
            compressors: RefCell::default(),
            counters,
            gate: Rc::default(),
            date: Cell::new(http_date(SystemTime::now())),
            stop: Rc::default(),
            closing: Rc::default(),
            index,
            access,
            balance,
            connections: Rc::default(),
            peers: Rc::default(),
            accepting: RefCell::new(Canceller::new()),
            routing,
        }
    }

    /// The routes as they are now; a request keeps to them until it has ended.
    pub(crate) fn routing(&self) -> Rc<Routing> {
        Rc::clone(&self.routing.borrow())
    }

    /// An entry in the access log, if there is one, for a request that began at `started`.
    pub(crate) fn access_entry(&self, peer: SocketAddr, started: Instant) -> Option<Rc<Entry>> {
        let log = self.access.as_ref()?;
        Some(log.entry(peer, started))
    }

    /// Waits for what is in flight. Gives the number of requests and deliveries that were still in
    /// flight at the deadline, and counts them.
    async fn drain(&self) -> usize {
        let plan = Arc::clone(&self.routing().plan);
        let _ = timeout(plan.limits.drain_timeout, self.gate.below(|| 1)).await;
        self.counters.give_up(plan.routes.all());
        self.gate.inside()
    }

    /// Follows the orders of the supervisor until the one to stop. Then the connections learn of it,
    /// and after `grace` no more are accepted.
    async fn follow(
        self: Rc<Worker>,
        mut orders: UnixStream,
        plans: mpsc::Receiver<Arc<Plan>>,
        grace: Duration,
    ) {
        let mut bytes = Vec::with_capacity(16);
        loop {
            let (result, read) = orders.read(bytes).await;
            bytes = read;
            if result.unwrap_or(0) == 0 {
                self.stop.order();
                sleep(grace).await;
                self.closing.order();
                self.accepting.replace(Canceller::new()).cancel();
                return;
            }
            if let Some(plan) = plans.try_iter().last() {
                // A panic costs this plan; the last one stays.
                let adopting = pin!(async { self.adopt(plan) });
                let _ = caught(adopting).await;
            }
        }
    }

    /// Goes over to another plan.
    fn adopt(&self, plan: Arc<Plan>) {
        self.budget.set_limit(plan.limits.memory_bytes);
        self.keyless.set_limit(plan.limits.keyless_bytes());
        let routing = self.routing().adapted_to(plan, &self.budget, self.index);
        *self.routing.borrow_mut() = Rc::new(routing);
        // There may be room for more of them now.
        self.connections.look_again();
    }

    /// Tells how things stand, once a second and not when they change, so that requests pay nothing.
    fn publish(&self) {
        self.date.set(http_date(SystemTime::now()));
        let counters = &self.counters;
        counters.open_connections.set(self.connections.inside());
        counters.budget_used.set(self.budget.used());
        let limit = self.routing().plan.limits.memory_bytes;
        counters.budget_limit.set(limit);
    }

    async fn sweep(self: Rc<Worker>) {
        loop {
            // A panic costs one round.
            let round = pin!(async {
                self.publish();
                self.budget.look();
                let now = Instant::now();
                let routing = self.routing();
                for upstream in &routing.upstreams {
                    upstream.sweep(now).await;
                }
                // All workers share what outbounds limit, so one of them is enough.
                if self.index == 0 {
                    let routes = routing.plan.routes.all().iter();
                    let outbounds = routes.flat_map(|route| &route.outbounds);
                    let now = Instant::now();
                    outbounds.for_each(|outbound| tell_limits(outbound, now));
                }
            });
            let _ = caught(round).await;
            sleep(SWEEP_PERIOD).await;
        }
    }
}

/// Aborts the process when a worker's thread unwinds.
struct AbortOnPanic(usize);

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        error!(
            worker = self.0,
            "a worker died; aborting, so that the process can be started anew"
        );
        thread::sleep(LAST_WORDS);
        std::process::abort();
    }
}

#[cfg(test)]
mod tests;
