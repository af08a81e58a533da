//! The process: it binds, resolves, starts the workers, and stops them.
//!
//! The supervisor runs on the thread that starts it and touches no request. It shares with the
//! workers one listening socket, from which all of them accept: that spreads a few long connections
//! of a load balancer evenly (1.0 to 1.1 of the mean on the busiest core, against 1.3 to 2.0 with one
//! socket per worker), and a busy worker accepts less by itself.

use std::collections::HashSet;
use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use core_affinity::CoreId;
use tracing::{info, warn};

use crate::config::{
    Changes, Config, DriverChoice, Log, LogFormat, SelfReport, StatsdTarget, Workers,
};
use crate::inbound::accept_balance::AcceptBalance;
use crate::mirror::access_log::AccessLog;
use crate::mirror::routing_table::RoutingTable;
use crate::mirror::worker_metrics::{ShutdownSummary, WorkerMetrics};
use crate::os_errors;
use crate::process::listener::{self, Listener};
use crate::process::status::{Current, MirrorStatus};
use crate::process::worker::{StartMode, WorkerReport, WorkerSpec};
use crate::runtime::driver::{self, DriverKind};
use crate::runtime::resident_memory;
use crate::telemetry::lines::LinesGuard;
use crate::upstream::origin::SharedOrigin;
use crate::upstream::resolver;

/// How long the start waits for the resolver. Traffic for a host that is not resolved yet is lost,
/// but so is that for all others as long as the start waits.
const DNS_PATIENCE: Duration = Duration::from_secs(5);

/// Why the mirror cannot start.
#[derive(Debug)]
pub enum StartError {
    /// Something in the configuration turned out wrong only now.
    Config(String),
    /// The address to listen on cannot be had.
    Bind(SocketAddr, io::Error),
    /// The system refuses a resource.
    System(&'static str, io::Error),
    /// The system refuses a thread.
    Thread(io::Error),
    /// A worker cannot run.
    Worker(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Config(error) => f.write_str(error),
            StartError::Bind(address, error) => {
                f.write_str(&os_errors::listen_error(*address, "ip", error))
            }
            StartError::Thread(error) => f.write_str(&os_errors::thread_error(error)),
            StartError::System(what, error) => write!(f, "cannot {what}: {error}"),
            StartError::Worker(error) => write!(f, "cannot start a worker: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// The way to one worker.
struct WorkerHandle {
    /// A byte announces a table; closing it is the order to stop.
    stream: UnixStream,
    tables: mpsc::Sender<Arc<RoutingTable>>,
}

/// What takes a new process to change.
#[derive(Clone)]
struct StaticConfig {
    listen: SocketAddr,
    reuse_port: bool,
    workers: Workers,
    driver: DriverChoice,
    log: Log,
    access_log: Option<LogFormat>,
    admin: Option<SocketAddr>,
    statsd: Option<StatsdTarget>,
    self_report: Option<SelfReport>,
}

/// A running mirror.
pub struct Mirror {
    address: SocketAddr,
    listener: Listener,
    /// Who is listening where, as far as a reload cannot change it.
    fixed: StaticConfig,
    /// What is in force.
    config: Config,
    table: Arc<RoutingTable>,
    workers: Vec<WorkerHandle>,
    reports: mpsc::Receiver<(usize, WorkerReport)>,
    mirror_status: Arc<MirrorStatus>,
    /// Whether the process was asked to stop.
    is_stopping: Arc<AtomicBool>,
    /// Writes what is left of the access log when all is done.
    _access_guard: Option<LinesGuard>,
}

impl Mirror {
    /// Starts to accept and mirror.
    ///
    /// # Errors
    /// What is missing, in words for an operator.
    pub fn start(config: &Config) -> Result<Mirror, StartError> {
        Mirror::start_unless_stopping(config, Arc::default())
    }

    /// The same, without a wait for anything once `is_stopping` says that the process was asked to stop.
    ///
    /// # Errors
    /// What is missing, in words for an operator.
    pub fn start_unless_stopping(
        config: &Config,
        is_stopping: Arc<AtomicBool>,
    ) -> Result<Mirror, StartError> {
        listener::raise_descriptor_limit();
        resident_memory::prepare();
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        let count = worker_count(config.workers, cores.len());
        let config = &listener::fitting(config, count);
        let table = Arc::new(RoutingTable::new(config, count, None).map_err(StartError::Config)?);
        let fixed = StaticConfig::of(config);
        let listener =
            Listener::open(config).map_err(|error| StartError::Bind(fixed.listen, error))?;
        let address = listener
            .address()
            .map_err(|error| StartError::System("read the listening address", error))?;
        let refresh = table.limits.dns_refresh;
        resolver::resolve(&table.origins, refresh, DNS_PATIENCE, &is_stopping);

        // Under a CPU quota there are fewer workers than cores, and binding the workers of every
        // container of a host to its first cores would crowd those.
        let is_bound = count == cores.len();
        let counters = (0..count).map(|index| Arc::new(WorkerMetrics::new(index)));
        let access = config.access_log.map(AccessLog::to_stdout).transpose();
        let access = access.map_err(StartError::Thread)?;
        let (access, guard) = access.unzip();
        let current = Current::of(&table, config);
        let mirror_status = MirrorStatus::new(address, counters.collect(), access, current);
        let (report, reports) = mpsc::channel();
        let mut mirror = Mirror {
            address,
            listener,
            fixed,
            config: config.clone(),
            table: Arc::clone(&table),
            workers: Vec::new(),
            reports,
            mirror_status: Arc::new(mirror_status),
            is_stopping,
            _access_guard: guard,
        };
        let mut starts = Vec::new();
        for (index, balance) in AcceptBalance::for_workers(count).into_iter().enumerate() {
            let core = cores.get(index).copied().filter(|_| is_bound);
            starts.push(mirror.assign(index, core, balance, config, &table, report.clone())?);
        }
        mirror.await_drivers(starts, is_bound)?;
        Ok(mirror)
    }

    /// What can be seen of it, for as long as anybody looks.
    pub fn mirror_status(&self) -> Arc<MirrorStatus> {
        Arc::clone(&self.mirror_status)
    }

    /// The address that is listened on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Mirrors by `config` from the next request on, without losing one; what is in flight ends as it
    /// began. Gives what differs from what was in force.
    ///
    /// # Errors
    /// What is wrong with it; nothing has changed then.
    pub fn reload(&mut self, config: &Config) -> Result<Changes, StartError> {
        let config = &listener::fitting(config, self.workers.len());
        let table = RoutingTable::new(config, self.workers.len(), Some(&self.table))
            .map_err(StartError::Config)?;
        let table = Arc::new(table);
        let mut changes = Changes::between(&self.config, config);
        if !table.trusts_as(&self.table) {
            let what = "the certificates of tls.ca_file or of the system";
            changes.applied.push(what.to_owned());
        }
        let known: HashSet<_> = self.table.origins.iter().map(Arc::as_ptr).collect();
        let is_new = |origin: &&Arc<SharedOrigin>| !known.contains(&Arc::as_ptr(origin));
        let new: Vec<_> = table.origins.iter().filter(is_new).cloned().collect();
        let refresh = table.limits.dns_refresh;
        resolver::resolve(&new, refresh, DNS_PATIENCE, &self.is_stopping);
        for worker in &mut self.workers {
            // A worker that is gone has aborted the process.
            let _ = worker.tables.send(Arc::clone(&table));
            let _ = worker.stream.write_all(b"p");
        }
        self.config = self.fixed.kept_in(config);
        self.mirror_status
            .reloaded(Current::of(&table, &self.config));
        self.table = table;
        Ok(changes)
    }

    /// Stops accepting, waits for what is in flight up to `timeouts.drain`, and says how many
    /// requests and deliveries had to be given up.
    pub fn stop(self) -> usize {
        self.mirror_status.draining();
        let count = self.workers.len();
        self.listener.turn_away();
        drop(self.workers);
        let (mut accepting, mut running, mut given_up) = (count, count, 0);
        while running > 0 {
            match self.reports.recv() {
                Ok((_, WorkerReport::Ready(_))) => {}
                Ok((_, WorkerReport::AcceptsNoMore)) => {
                    accepting -= 1;
                    if accepting == 0 {
                        self.listener.close();
                    }
                }
                Ok((_, WorkerReport::Stopped(left))) => {
                    given_up += left;
                    running -= 1;
                }
                Ok((index, WorkerReport::Failed(error))) => {
                    warn!(worker = index, error, "worker failed");
                    running -= 1;
                }
                Err(_) => break,
            }
        }
        info!(
            given_up,
            "stopped: {}",
            ShutdownSummary(&self.mirror_status.counters)
        );
        given_up
    }

    /// Starts one worker; the result tells it to go on once it has a driver.
    fn assign(
        &mut self,
        index: usize,
        core: Option<CoreId>,
        balance: AcceptBalance,
        config: &Config,
        table: &Arc<RoutingTable>,
        reports: mpsc::Sender<(usize, WorkerReport)>,
    ) -> Result<mpsc::Sender<StartMode>, StartError> {
        let (orders, worker_orders) =
            UnixStream::pair().map_err(|error| StartError::System("make a socket pair", error))?;
        worker_orders
            .set_nonblocking(true)
            .map_err(|error| StartError::System("set up a socket pair", error))?;
        let handle = || {
            let handle = self.listener.handle();
            handle.map_err(|error| StartError::System("duplicate the listening socket", error))
        };
        let counters = self.mirror_status.counters.get(index).map(Arc::clone);
        let access = self.mirror_status.access.clone();
        let (start, started) = mpsc::channel();
        let (tables, worker_plans) = mpsc::channel();
        let assignment = WorkerSpec {
            index,
            core,
            driver: config.driver,
            table: Arc::clone(table),
            counters: counters.unwrap_or_default(),
            access,
            balance,
            listener: handle()?,
            rest: self.listener.is_own().then(handle).transpose()?,
            orders: worker_orders,
            tables: worker_plans,
            reports,
            start: started,
        };
        assignment.start().map_err(StartError::Thread)?;
        self.workers.push(WorkerHandle {
            stream: orders,
            tables,
        });
        Ok(start)
    }

    /// Waits until every worker has a driver, the same for all, then lets them run.
    fn await_drivers(
        &self,
        starts: Vec<mpsc::Sender<StartMode>>,
        is_bound: bool,
    ) -> Result<(), StartError> {
        // A worker that died meanwhile has aborted the process.
        let tell = |start: &mpsc::Sender<StartMode>, what| drop(start.send(what));
        let mut kinds = self.drivers(starts.len())?;
        let refusal = driver::refusal(&kinds);
        if driver::is_mixed(&kinds) {
            starts
                .iter()
                .for_each(|start| tell(start, StartMode::OnEpoll));
            kinds = self.drivers(starts.len())?;
        }
        let kind = kinds.first();
        let on_epoll = matches!(kind, Some(DriverKind::Epoll { .. }));
        self.listener
            .start(on_epoll)
            .map_err(|error| StartError::Bind(self.address, error))?;
        if let Some(reason) = refusal {
            warn!("running on epoll, which costs 1.1 to 1.3 times the CPU: {reason}");
        }
        let driver = kind.map(ToString::to_string).unwrap_or_default();
        self.mirror_status.runs_on(&driver);
        info!(
            workers = starts.len(),
            driver,
            bound_to_cores = is_bound,
            "listening on {}",
            self.address
        );
        starts
            .iter()
            .for_each(|start| tell(start, StartMode::Accept));
        Ok(())
    }

    /// What each of `count` workers has built.
    fn drivers(&self, count: usize) -> Result<Vec<DriverKind>, StartError> {
        let mut kinds = Vec::new();
        while kinds.len() < count {
            match self.reports.recv() {
                Ok((_, WorkerReport::Ready(kind))) => kinds.push(kind),
                Ok((_, WorkerReport::Failed(error))) => return Err(StartError::Worker(error)),
                Ok((_, WorkerReport::AcceptsNoMore | WorkerReport::Stopped(_))) | Err(_) => {
                    return Err(StartError::Worker("it ended at once".to_owned()));
                }
            }
        }
        Ok(kinds)
    }
}

impl StaticConfig {
    fn of(config: &Config) -> StaticConfig {
        StaticConfig {
            listen: SocketAddr::new(config.ip, config.port),
            reuse_port: config.reuse_port,
            workers: config.workers,
            driver: config.driver,
            log: config.log.clone(),
            access_log: config.access_log,
            admin: config.admin,
            statsd: config.statsd.clone(),
            self_report: config.self_report.clone(),
        }
    }

    /// What is in force once `config` has been reloaded: all of it but this.
    fn kept_in(&self, config: &Config) -> Config {
        let fixed = self.clone();
        Config {
            ip: fixed.listen.ip(),
            port: fixed.listen.port(),
            reuse_port: fixed.reuse_port,
            workers: fixed.workers,
            driver: fixed.driver,
            log: fixed.log,
            access_log: fixed.access_log,
            admin: fixed.admin,
            statsd: fixed.statsd,
            self_report: fixed.self_report,
            ..config.clone()
        }
    }
}

fn worker_count(wanted: Workers, core_count: usize) -> usize {
    match wanted {
        Workers::Count(count) => count.get(),
        Workers::Auto => {
            // The one respects the CPU set, the other a cgroup's CPU quota.
            let parallelism = thread::available_parallelism().map_or(1, NonZeroUsize::get);
            parallelism.min(core_count.max(1))
        }
    }
}
