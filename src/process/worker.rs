//! The life of one core: a thread with its own runtime, connections, upstream pools and buffers.
//!
//! Workers share the listening socket, the route table, which never changes, and nothing else on the
//! way of a request. A worker ends only when it is told to; if it ends in any other way the process
//! is aborted, because a process that lost a worker would go on at half its strength unnoticed.

use std::io;
use std::net::TcpListener as StdListener;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use monoio::io::AsyncReadRent;
use monoio::net::{TcpListener, UnixStream};
use monoio::time::{sleep, timeout};
use tracing::{error, warn};

use crate::config::DriverChoice;
use crate::inbound::accept::Acceptor;
use crate::inbound::accept_balance::AcceptBalance;
use crate::mirror::access_log::AccessLog;
use crate::mirror::core::Core;
use crate::mirror::outbound_log::log_rate_limits;
use crate::mirror::routing_table::RoutingTable;
use crate::mirror::worker_metrics::WorkerMetrics;
use crate::process::listener::HANDSHAKE_PATIENCE;
use crate::runtime::driver::{Driver, DriverKind};
use crate::runtime::panics::caught;
use crate::telemetry::timestamp::http_date;

/// How often idle upstream connections are looked through.
const SWEEP_PERIOD: Duration = Duration::from_secs(1);

/// How long a process that aborts waits for its last log line and its last report: other threads write
/// them, which an abort does not wait for.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Everything a worker needs to start; made by the supervisor, sent to the thread.
pub(crate) struct WorkerSpec {
    /// Which worker it is, from 0.
    pub index: usize,
    /// The core to run on, if it is to be bound to one.
    pub core: Option<core_affinity::CoreId>,
    /// Which driver to build.
    pub driver: DriverChoice,
    /// What to route where.
    pub table: Arc<RoutingTable>,
    /// The worker's counters, which the supervisor reads.
    pub counters: Arc<WorkerMetrics>,
    /// Where requests are told of, if anywhere.
    pub access: Option<AccessLog>,
    /// How it stands with connections among the workers.
    pub balance: AcceptBalance,
    /// A duplicate of the shared listening socket.
    pub listener: StdListener,
    /// Another handle of it, where connections that still wait when the worker stops would be lost.
    pub rest: Option<StdListener>,
    /// A byte here says that there is a new table; the end of the stream is the order to stop.
    pub orders: StdUnixStream,
    /// New tables, each announced by a byte of `orders`.
    pub tables: mpsc::Receiver<Arc<RoutingTable>>,
    /// Where to report to.
    pub reports: mpsc::Sender<(usize, WorkerReport)>,
    /// Says how to go on once all workers have a driver, so that the listener is in the mode that all
    /// need.
    pub start: mpsc::Receiver<StartMode>,
}

/// How a worker that has a driver goes on.
pub(crate) enum StartMode {
    /// It begins to accept.
    Accept,
    /// It changes to epoll, because another worker could not have a ring, and reports again.
    OnEpoll,
}

/// What a worker tells the supervisor.
#[derive(Debug)]
pub(crate) enum WorkerReport {
    /// It has a runtime.
    Ready(DriverKind),
    /// It cannot have one.
    Failed(String),
    /// It has accepted its last connection.
    AcceptsNoMore,
    /// It has stopped; so many requests and deliveries were given up.
    Stopped(usize),
}

/// The life of a worker: what starts, feeds and ends its [`Core`].
struct Worker {
    core: Rc<Core>,
    acceptor: Rc<Acceptor>,
}

impl WorkerSpec {
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
                Err(error) => return report(WorkerReport::Failed(error)),
            };
            report(WorkerReport::Ready(driver.kind.clone()));
            match self.start.recv() {
                Ok(StartMode::Accept) => break driver,
                // What was built goes, and with it the memory that it has locked.
                Ok(StartMode::OnEpoll) => choice = DriverChoice::Epoll,
                Err(_) => return,
            }
        };
        let core = Rc::new(Core::new(self.table, self.counters, self.access));
        let acceptor = Rc::new(Acceptor::new(Rc::clone(&core), self.balance));
        let worker = Rc::new(Worker { core, acceptor });
        let stopped = driver.block_on(async {
            let orders = UnixStream::from_std(self.orders)?;
            let grace = match self.rest {
                Some(_) => HANDSHAKE_PATIENCE,
                None => Duration::ZERO,
            };
            // Not caught: a worker that hears no orders any more has to die.
            monoio::spawn(Rc::clone(&worker).follow(orders, self.tables, grace));
            monoio::spawn(Rc::clone(&worker).sweep());
            let acceptor = &worker.acceptor;
            acceptor
                .accept(&TcpListener::from_std(self.listener)?)
                .await;
            if let Some(rest) = self.rest {
                acceptor.accept_the_rest(&rest);
            }
            report(WorkerReport::AcceptsNoMore);
            io::Result::Ok(worker.drain().await)
        });
        match stopped {
            Ok(given_up) => report(WorkerReport::Stopped(given_up)),
            Err(error) => report(WorkerReport::Failed(error.to_string())),
        }
        std::mem::forget(driver);
    }
}

impl Worker {
    /// Waits for what is in flight. Gives the number of requests and deliveries that were still in
    /// flight at the deadline, and counts them.
    async fn drain(&self) -> usize {
        let Core {
            in_flight,
            counters,
            ..
        } = &*self.core;
        let table = Arc::clone(&self.core.routing().table);
        let _ = timeout(table.limits.timeouts.drain, in_flight.wait_below(|| 1)).await;
        counters.give_up(table.routes.all());
        in_flight.count()
    }

    /// Follows the orders of the supervisor until the one to stop. Then the connections learn of it,
    /// and after `grace` no more are accepted.
    async fn follow(
        self: Rc<Worker>,
        mut orders: UnixStream,
        tables: mpsc::Receiver<Arc<RoutingTable>>,
        grace: Duration,
    ) {
        let mut bytes = Vec::with_capacity(16);
        loop {
            let (result, read) = orders.read(bytes).await;
            bytes = read;
            if result.unwrap_or(0) == 0 {
                self.core.shutdown.trigger();
                sleep(grace).await;
                self.acceptor.close();
                return;
            }
            if let Some(table) = tables.try_iter().last() {
                // A panic costs this table; the last one stays.
                let adopting = pin!(async {
                    self.core.set_routing_table(table);
                    self.acceptor.limits_changed();
                });
                let _ = caught(adopting).await;
            }
        }
    }

    /// Tells how things stand, once a second and not when they change, so that requests pay nothing.
    fn publish(&self) {
        let Core {
            date,
            counters,
            budget,
            ..
        } = &*self.core;
        date.set(http_date(SystemTime::now()));
        let open_connections = self.acceptor.open_connections();
        counters.open_connections.set(open_connections);
        counters.budget_used.set(budget.used());
        let limit = self.core.routing().table.limits.memory_bytes;
        counters.budget_limit.set(limit);
    }

    async fn sweep(self: Rc<Worker>) {
        loop {
            // A panic costs one round.
            let round = pin!(async {
                self.publish();
                self.core.budget.return_freed_memory();
                let now = Instant::now();
                let routing = self.core.routing();
                for upstream in &routing.upstreams {
                    upstream.sweep(now).await;
                }
                // All workers share what outbounds limit, so one of them is enough.
                if self.core.counters.worker == 0 {
                    let routes = routing.table.routes.all().iter();
                    let outbounds = routes.flat_map(|route| &route.outbounds);
                    let now = Instant::now();
                    outbounds.for_each(|outbound| log_rate_limits(outbound, now));
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
