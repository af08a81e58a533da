//! Binds the port, resolves the upstreams, starts the workers, and shuts them down.
//!
//! The supervisor runs on the thread that starts it and handles no requests. All workers accept from one
//! listening socket. This spreads the few long connections of a load balancer evenly: the busiest core has
//! 1.0 to 1.1 times the mean, against 1.3 to 2.0 with a socket per worker. A busy worker also accepts fewer
//! connections by itself.

use std::collections::HashSet;
use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, SystemTime};

use core_affinity::CoreId;
use tracing::{info, warn};

use crate::config::{Changes, Config, ListenAddress, Workers};
use crate::inbound::accept::SharedListener;
use crate::inbound::accept_balance::AcceptBalance;
use crate::mirror::reporting::access_log::AccessLog;
use crate::mirror::reporting::unknown_keys::UnknownKeys;
use crate::mirror::reporting::worker_metrics::{ShutdownSummary, WorkerMetrics};
use crate::mirror::routing::routing_table::RoutingTable;
use crate::os_errors;
use crate::process::certificates::Certificates;
use crate::process::listener::{self, Listener};
use crate::process::status::{CurrentConfig, MirrorStatus};
use crate::process::worker::{StartMode, WorkerReport, WorkerSpec};
use crate::runtime::driver::{self, DriverKind};
use crate::runtime::memory_lease::SharedMemory;
use crate::runtime::resident_memory;
use crate::telemetry::lines::LinesGuard;
use crate::upstream::origin::SharedOrigin;
use crate::upstream::resolver::Resolver;

/// How long the start waits for the resolver. Requests for a host that is not resolved yet are lost, but
/// while the start waits, so are all others.
const DNS_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the mirror cannot start.
#[derive(Debug)]
pub enum StartError {
    /// An error of the configuration that shows only at the start, such as an unreadable certificate.
    Config(String),
    /// Listening failed, with the reason for the operator.
    Bind(String),
    /// The system refuses a resource.
    System(&'static str, io::Error),
    /// The system refuses a thread.
    Thread(io::Error),
    Worker(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Config(error) | StartError::Bind(error) => f.write_str(error),
            StartError::Thread(error) => f.write_str(&os_errors::thread_error(error)),
            StartError::System(what, error) => write!(f, "cannot {what}: {error}"),
            StartError::Worker(error) => write!(f, "cannot start a worker: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// Controls one worker.
struct WorkerHandle {
    /// A byte announces a table. Closing the stream shuts the worker down.
    commands: UnixStream,
    tables: mpsc::Sender<Arc<RoutingTable>>,
}

pub struct Mirror {
    address: SocketAddr,
    /// The first has `ip` and `port`.
    listeners: Vec<Listener>,
    config: Config,
    table: Arc<RoutingTable>,
    /// What the workers share out among them.
    memory: Arc<SharedMemory>,
    workers: Vec<WorkerHandle>,
    reports: mpsc::Receiver<(usize, WorkerReport)>,
    mirror_status: Arc<MirrorStatus>,
    /// Whether a signal has requested the shutdown.
    is_stopping: Arc<AtomicBool>,
    resolver: Resolver,
    /// Writes the rest of the access log when it is dropped.
    _access_guard: Option<LinesGuard>,
}

impl Mirror {
    /// # Errors
    /// Why it cannot start, for the operator.
    pub fn start(config: &Config) -> Result<Mirror, StartError> {
        Mirror::start_unless_stopping(config, Arc::default())
    }

    /// Like [`Mirror::start`], but does not wait for the resolver once `is_stopping` is set.
    ///
    /// # Errors
    /// Why it cannot start, for the operator.
    pub fn start_unless_stopping(
        config: &Config,
        is_stopping: Arc<AtomicBool>,
    ) -> Result<Mirror, StartError> {
        listener::raise_descriptor_limit();
        resident_memory::prepare();
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        let count = worker_count(config.workers, cores.len());
        let config = &listener::fit_limits(config, count);
        let table = Arc::new(RoutingTable::new(config, count, None).map_err(StartError::Config)?);
        let certificates = Certificates::load(config).map_err(StartError::Config)?;
        for expired in certificates.expired(SystemTime::now()) {
            warn!("{expired}");
        }
        let certificates = Arc::new(certificates);
        let listeners = Listener::open_all(config, &certificates).map_err(StartError::Bind)?;
        let address = match listeners.first().map(|first| &first.address) {
            Some(ListenAddress::Inet(address)) => *address,
            Some(ListenAddress::Unix { .. }) | None => SocketAddr::new(config.ip, config.port),
        };
        let refresh = table.limits.dns_refresh;
        let resolver = Resolver::new();
        resolver.set_refresh(refresh, &table.origins);
        resolver.resolve(&table.origins, DNS_TIMEOUT, &is_stopping);

        // Under a CPU quota there are fewer workers than cores. If every container bound its workers to the
        // first cores of the host, those would be overloaded.
        let is_bound = count == cores.len();
        let unknown_keys = Arc::new(UnknownKeys::default());
        let counters = (0..count).map(|index| {
            Arc::new(WorkerMetrics {
                unknown_keys: Arc::clone(&unknown_keys),
                ..WorkerMetrics::new(index)
            })
        });
        let access = config.access_log.map(AccessLog::to_stdout).transpose();
        let access = access.map_err(StartError::Thread)?;
        let (access, guard) = access.unzip();
        let current = CurrentConfig::new(&table, config);
        let addresses = listeners.iter().map(|own| own.address.to_string());
        let mirror_status = MirrorStatus::new(
            addresses.collect::<Vec<_>>().join(", "),
            counters.collect(),
            access,
            Arc::clone(&certificates),
            current,
        );
        let (report, reports) = mpsc::channel();
        let mut mirror = Mirror {
            address,
            listeners,
            config: config.clone(),
            memory: SharedMemory::new(table.limits.memory_bytes, count),
            table: Arc::clone(&table),
            workers: Vec::new(),
            reports,
            mirror_status: Arc::new(mirror_status),
            is_stopping,
            resolver,
            _access_guard: guard,
        };
        let mut starts = Vec::new();
        for (index, balance) in AcceptBalance::for_workers(count).into_iter().enumerate() {
            let core = cores.get(index).copied().filter(|_| is_bound);
            let reports = report.clone();
            starts.push(mirror.start_worker(index, core, balance, config, &table, reports)?);
        }
        mirror.start_accepting(&starts, is_bound)?;
        Certificates::watch(&certificates).map_err(StartError::Thread)?;
        Ok(mirror)
    }

    pub fn mirror_status(&self) -> Arc<MirrorStatus> {
        Arc::clone(&self.mirror_status)
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Applies `config` from the next request on, without losing a request. Requests in flight finish with the
    /// old configuration. Returns the changes.
    ///
    /// # Errors
    /// What is wrong with `config`. Nothing has changed then.
    pub fn reload(&mut self, config: &Config) -> Result<Changes, StartError> {
        let config = &listener::fit_limits(config, self.workers.len());
        let table = RoutingTable::new(config, self.workers.len(), Some(&self.table))
            .map_err(StartError::Config)?;
        let table = Arc::new(table);
        let mut changes = Changes::between(&self.config, config);
        if !table.trusts_as(&self.table) {
            let what = "the certificates of tls or of the system";
            changes.applied.push(what.to_owned());
        }
        let known: HashSet<_> = self.table.origins.iter().map(Arc::as_ptr).collect();
        let is_new = |origin: &&Arc<SharedOrigin>| !known.contains(&Arc::as_ptr(origin));
        let new: Vec<_> = table.origins.iter().filter(is_new).cloned().collect();
        let refresh = table.limits.dns_refresh;
        self.resolver.set_refresh(refresh, &table.origins);
        self.resolver.resolve(&new, DNS_TIMEOUT, &self.is_stopping);
        for worker in &mut self.workers {
            // Errors do not matter: a worker that dies aborts the process.
            let _ = worker.tables.send(Arc::clone(&table));
            let _ = worker.commands.write_all(b"t");
        }
        self.mirror_status.certificates.reload();
        self.config = self.config.after_reload(config);
        self.mirror_status
            .record_reload(CurrentConfig::new(&table, &self.config));
        self.table = table;
        Ok(changes)
    }

    /// Stops accepting, and waits up to `timeouts.drain` for what is in flight. Returns how many requests and
    /// deliveries were given up.
    pub fn stop(self) -> usize {
        self.mirror_status.begin_draining();
        let count = self.workers.len();
        self.listeners
            .iter()
            .for_each(Listener::drop_new_connections);
        drop(self.workers);
        let (mut accepting, mut running, mut given_up) = (count, count, 0);
        while running > 0 {
            match self.reports.recv() {
                Ok((_, WorkerReport::Ready(_))) => {}
                Ok((_, WorkerReport::StoppedAccepting)) => {
                    accepting -= 1;
                    if accepting == 0 {
                        self.listeners.iter().for_each(Listener::close);
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

    /// Starts the thread of one worker. The worker builds its driver, then waits for a [`StartMode`] from the
    /// returned sender.
    fn start_worker(
        &mut self,
        index: usize,
        core: Option<CoreId>,
        balance: AcceptBalance,
        config: &Config,
        table: &Arc<RoutingTable>,
        reports: mpsc::Sender<(usize, WorkerReport)>,
    ) -> Result<mpsc::Sender<StartMode>, StartError> {
        let (commands, worker_commands) = UnixStream::pair()
            .map_err(|error| StartError::System("create a socket pair", error))?;
        worker_commands
            .set_nonblocking(true)
            .map_err(|error| StartError::System("set up a socket pair", error))?;
        let system = |error| StartError::System("duplicate a listening socket", error);
        let shared = |listener: &Listener| {
            Ok(SharedListener {
                socket: listener.handle()?,
                queue: listener.is_own().then(|| listener.handle()).transpose()?,
                is_unix: listener.is_unix(),
                beginning: listener.beginning.clone(),
            })
        };
        let listeners: io::Result<Vec<_>> = self.listeners.iter().map(shared).collect();
        let counters = self.mirror_status.counters.get(index).map(Arc::clone);
        let access = self.mirror_status.access.clone();
        let (start, worker_start) = mpsc::channel();
        let (tables, worker_tables) = mpsc::channel();
        let spec = WorkerSpec {
            index,
            core,
            driver: config.driver,
            table: Arc::clone(table),
            counters: counters.unwrap_or_default(),
            access,
            memory: Arc::clone(&self.memory),
            balance,
            listeners: listeners.map_err(system)?,
            commands: worker_commands,
            tables: worker_tables,
            reports,
            start: worker_start,
        };
        spec.start().map_err(StartError::Thread)?;
        self.workers.push(WorkerHandle { commands, tables });
        Ok(start)
    }

    /// Waits until every worker has a driver of the same kind, then lets them accept.
    fn start_accepting(
        &self,
        starts: &[mpsc::Sender<StartMode>],
        is_bound: bool,
    ) -> Result<(), StartError> {
        let send_all = |mode: StartMode| {
            for start in starts {
                // An error does not matter: a worker that dies aborts the process.
                let _ = start.send(mode);
            }
        };
        let mut kinds = self.drivers(starts.len())?;
        let fallback_reason = driver::fallback_reason(&kinds);
        if driver::is_mixed(&kinds) {
            send_all(StartMode::OnEpoll);
            kinds = self.drivers(starts.len())?;
        }
        let kind = kinds.first();
        let on_epoll = matches!(kind, Some(DriverKind::Epoll { .. }));
        for listener in &self.listeners {
            let started = listener.start(on_epoll);
            started.map_err(|error| {
                StartError::Bind(listener::bind_error(&listener.address, "ip", &error))
            })?;
        }
        if let Some(reason) = fallback_reason {
            warn!("running on epoll, which needs 10 to 30 % more CPU time than io_uring: {reason}");
        }
        let driver = kind.map(ToString::to_string).unwrap_or_default();
        self.mirror_status.set_driver(&driver);
        info!(
            workers = starts.len(),
            driver,
            bound_to_cores = is_bound,
            "listening on {}",
            self.address
        );
        for listener in self.listeners.iter().skip(1) {
            info!("listening on {}, too", listener.address);
        }
        send_all(StartMode::Accept);
        Ok(())
    }

    /// Waits for the drivers of `count` workers.
    fn drivers(&self, count: usize) -> Result<Vec<DriverKind>, StartError> {
        let mut kinds = Vec::new();
        while kinds.len() < count {
            match self.reports.recv() {
                Ok((_, WorkerReport::Ready(kind))) => kinds.push(kind),
                Ok((_, WorkerReport::Failed(error))) => return Err(StartError::Worker(error)),
                Ok((_, WorkerReport::StoppedAccepting | WorkerReport::Stopped(_))) | Err(_) => {
                    return Err(StartError::Worker("it ended during the start".to_owned()));
                }
            }
        }
        Ok(kinds)
    }
}

fn worker_count(configured: Workers, core_count: usize) -> usize {
    match configured {
        Workers::Count(count) => count.get(),
        Workers::Auto => {
            // The number of cores respects the CPU set, the parallelism also a cgroup's CPU quota.
            let parallelism = thread::available_parallelism().map_or(1, NonZeroUsize::get);
            parallelism.min(core_count.max(1))
        }
    }
}
