//! A worker: one thread with its own runtime, connections, upstream pools and buffers.
//!
//! While they handle requests, workers share the listening sockets, the routing table, and what is known of an
//! upstream: its addresses, its rate limits, whether it is up. A worker ends only at the shutdown. If it ends in any
//! other way, it aborts the process: a process without one of its workers would run at reduced capacity unnoticed.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use monoio::io::AsyncReadRent;
use monoio::net::UnixStream;
use monoio::time::{sleep, timeout};
use tracing::{debug, error, info, warn};

use crate::config::DriverChoice;
use crate::inbound::accept::{Acceptor, SharedListener};
use crate::inbound::accept_balance::AcceptBalance;
use crate::mirror::core::Core;
use crate::mirror::outbound::outbound_log::{log_caps, log_rate_limits};
use crate::mirror::reporting::access_log::AccessLog;
use crate::mirror::reporting::worker_metrics::WorkerMetrics;
use crate::mirror::routing::routing_table::RoutingTable;
use crate::process::listener::HANDSHAKE_TIMEOUT;
use crate::runtime::driver::{Driver, DriverKind};
use crate::runtime::lateness::Lateness;
use crate::runtime::memory_lease::SharedMemory;
use crate::runtime::panics::caught;
use crate::telemetry::log_on_change::LogOnChange;
use crate::telemetry::timestamp::http_date;

/// How often a worker publishes its gauges and closes idle upstream connections.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// How often a worker measures how late it is, and queues the lines of its access log.
const TICK_INTERVAL: Duration = Duration::from_millis(100);

/// How long the process waits before it aborts, so that other threads can write the last log line and send
/// the last error report.
const ABORT_DELAY: Duration = Duration::from_secs(1);

/// Everything that a worker needs to start.
pub(crate) struct WorkerSpec {
    /// The number of the worker, from 0.
    pub index: usize,
    /// The core to bind the worker to, if any.
    pub core: Option<core_affinity::CoreId>,
    pub driver: DriverChoice,
    pub table: Arc<RoutingTable>,
    pub counters: Arc<WorkerMetrics>,
    pub access: Option<AccessLog>,
    /// What all workers share out among them.
    pub memory: Arc<SharedMemory>,
    pub balance: AcceptBalance,
    pub listeners: Vec<SharedListener>,
    /// A byte announces a table in `tables`. The end of the stream shuts the worker down.
    pub commands: StdUnixStream,
    pub tables: mpsc::Receiver<Arc<RoutingTable>>,
    pub reports: mpsc::Sender<(usize, WorkerReport)>,
    /// How to proceed once all workers have a driver: the mode of the listening socket depends on the
    /// drivers.
    pub start: mpsc::Receiver<StartMode>,
}

/// How a worker proceeds after it has built its driver.
#[derive(Clone, Copy)]
pub(crate) enum StartMode {
    Accept,
    /// Another worker could not get a ring: build an epoll driver and report again.
    OnEpoll,
}

/// What a worker reports to the supervisor.
#[derive(Debug)]
pub(crate) enum WorkerReport {
    /// The worker has built its driver.
    Ready(DriverKind),
    /// The worker cannot run.
    Failed(String),
    /// The worker has accepted its last connection.
    StoppedAccepting,
    /// The worker has stopped and given up this many requests and deliveries.
    Stopped(usize),
}

struct Worker {
    core: Rc<Core>,
    acceptor: Rc<Acceptor>,
}

impl WorkerSpec {
    /// # Errors
    /// The system refuses a thread.
    pub(crate) fn start(self) -> io::Result<()> {
        let name = format!("worker-{}", self.index);
        thread::Builder::new().name(name).spawn(move || {
            let _guard = AbortOnPanic(self.index);
            self.run();
            // The runtime must not be dropped while the kernel may still use the buffers of abandoned
            // operations. So the thread ends only with the process.
            loop {
                thread::park();
            }
        })?;
        Ok(())
    }

    fn run(self) {
        let report = |report| {
            // If the supervisor is gone, the process is ending anyway.
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
                // The ring is dropped here, which releases its locked memory.
                Ok(StartMode::OnEpoll) => choice = DriverChoice::Epoll,
                Err(_) => return,
            }
        };
        let core = Rc::new(Core::new(
            self.table,
            self.counters,
            self.access,
            self.memory,
        ));
        let acceptor = Rc::new(Acceptor::new(Rc::clone(&core), self.balance));
        let worker = Rc::new(Worker { core, acceptor });
        let stopped = driver.block_on(async {
            let commands = UnixStream::from_std(self.commands)?;
            let grace = match self.listeners.iter().any(|own| own.queue.is_some()) {
                true => HANDSHAKE_TIMEOUT,
                false => Duration::ZERO,
            };
            // Panics are deliberately not caught: a worker that cannot receive commands must abort the
            // process.
            monoio::spawn(Rc::clone(&worker).follow_commands(commands, self.tables, grace));
            monoio::spawn(Rc::clone(&worker).sweep());
            monoio::spawn(Rc::clone(&worker).tick());
            let acceptor = &worker.acceptor;
            monoio::spawn(Rc::clone(acceptor).expire_idle());
            acceptor.accept_all(self.listeners).await?;
            report(WorkerReport::StoppedAccepting);
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
    /// Waits until no request and no fan-out is in flight, for `timeouts.drain` at most. Then counts every
    /// request and delivery that is left as given up, and returns how many requests and fan-outs are left.
    async fn drain(&self) -> usize {
        let Core {
            in_flight,
            counters,
            ..
        } = &*self.core;
        let table = Arc::clone(&self.core.routing().table);
        let _ = timeout(table.limits.timeouts.drain, in_flight.wait_for_none()).await;
        counters.give_up(table.routes.all());
        self.core.flush_access_log();
        let now = Instant::now();
        self.core.report_unknown_keys(now);
        counters.unknown_keys.log(now);
        in_flight.count()
    }

    /// Follows the commands of the supervisor until the shutdown. Then triggers the shutdown of the connections,
    /// and stops accepting after `grace`.
    async fn follow_commands(
        self: Rc<Worker>,
        mut commands: UnixStream,
        tables: mpsc::Receiver<Arc<RoutingTable>>,
        grace: Duration,
    ) {
        let mut bytes = Vec::with_capacity(16);
        loop {
            let (result, read) = commands.read(bytes).await;
            bytes = read;
            if result.unwrap_or(0) == 0 {
                self.core.shutdown.trigger();
                self.acceptor.close_idle();
                debug!(
                    worker = self.core.counters.worker,
                    "worker is shutting down"
                );
                sleep(grace).await;
                self.acceptor.close();
                return;
            }
            if let Some(table) = tables.try_iter().last() {
                // After a panic the worker keeps the old table.
                let adopting = pin!(async {
                    self.core.set_routing_table(table);
                    self.acceptor.limits_changed();
                });
                let _ = caught(adopting).await;
            }
        }
    }

    /// Publishes the gauges. Once a second instead of on each change, so that requests do not pay for it.
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
    }

    /// Measures how late this worker is, and queues the access log.
    async fn tick(self: Rc<Worker>) {
        let worker = self.core.counters.worker;
        let mut lateness = Lateness::default();
        let change = LogOnChange::new();
        loop {
            let due = Instant::now() + TICK_INTERVAL;
            sleep(TICK_INTERVAL).await;
            let now = Instant::now();
            let is_late = lateness.record(due, now);
            self.core.is_late.set(is_late);
            if change.should_log(is_late.into(), now) {
                match is_late {
                    true => warn!(
                        worker,
                        "worker is overloaded; rejecting requests until it has caught up"
                    ),
                    false => info!(worker, "worker has caught up and accepts requests again"),
                }
            }
            let round = pin!(async { self.core.flush_access_log() });
            let _ = caught(round).await;
        }
    }

    async fn sweep(self: Rc<Worker>) {
        loop {
            // After a panic the next round continues.
            let round = pin!(async {
                self.publish();
                self.core.budget.return_freed_memory();
                let now = Instant::now();
                self.core.report_unknown_keys(now);
                let routing = self.core.routing();
                for upstream in &routing.pools {
                    upstream.sweep(now).await;
                }
                // All workers share the rate limits and caps of an outbound and the unknown keys, so one of them logs
                // their changes.
                if self.core.counters.worker == 0 {
                    self.core.counters.unknown_keys.log(now);
                    let routes = routing.table.routes.all().iter();
                    let now = Instant::now();
                    for route in routes {
                        let outbounds = route.outbounds.iter();
                        outbounds.for_each(|outbound| {
                            log_rate_limits(route, outbound, now);
                            log_caps(route, outbound, now);
                        });
                    }
                }
            });
            let _ = caught(round).await;
            sleep(SWEEP_INTERVAL).await;
        }
    }
}

/// Aborts the process when a worker's thread unwinds.
struct AbortOnPanic(usize);

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        error!(
            worker = self.0,
            "a worker died; aborting, so that the process can be restarted"
        );
        thread::sleep(ABORT_DELAY);
        std::process::abort();
    }
}

#[cfg(test)]
mod sharing;
#[cfg(test)]
mod tests;
