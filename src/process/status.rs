//! The state of a running mirror, for the admin port and the metrics exporter.
//!
//! They read the workers' counters and the current routing table. The supervisor updates this state on a
//! reload and at the shutdown; requests never touch it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Instant, SystemTime};

use crate::config::Config;
use crate::mirror::reporting::access_log::AccessLog;
use crate::mirror::reporting::worker_metrics::WorkerMetrics;
use crate::mirror::routing::routing_table::RoutingTable;
use crate::process::certificates::Certificates;
use crate::telemetry::lines::{DropReason, Lines};

pub struct MirrorStatus {
    /// The addresses that SDKs connect to.
    pub listening_on: String,
    pub started_at: SystemTime,
    /// `started_at` on the monotonic clock, to measure the uptime.
    pub started: Instant,
    /// The counters of each worker, as far as they belong to no route.
    pub counters: Vec<Arc<WorkerMetrics>>,
    pub access: Option<AccessLog>,
    /// Those of the listeners.
    pub(crate) certificates: Arc<Certificates>,
    log: OnceLock<Lines>,
    driver: OnceLock<String>,
    is_draining: AtomicBool,
    reloads: AtomicU64,
    failed_reloads: AtomicU64,
    current: RwLock<CurrentConfig>,
}

/// The part of the state that a reload changes.
#[derive(Clone)]
pub struct CurrentConfig {
    pub table: Arc<RoutingTable>,
    /// The effective configuration as YAML. The keys in its DSNs are shortened.
    pub configuration: Arc<str>,
}

impl CurrentConfig {
    /// `table` was made from `config`.
    pub(super) fn new(table: &Arc<RoutingTable>, config: &Config) -> CurrentConfig {
        CurrentConfig {
            table: Arc::clone(table),
            configuration: config.effective().into(),
        }
    }
}

impl MirrorStatus {
    /// The state of a mirror that accepts requests from now on.
    pub(crate) fn new(
        listening_on: String,
        counters: Vec<Arc<WorkerMetrics>>,
        access: Option<AccessLog>,
        certificates: Arc<Certificates>,
        current: CurrentConfig,
    ) -> MirrorStatus {
        MirrorStatus {
            listening_on,
            started_at: SystemTime::now(),
            started: Instant::now(),
            counters,
            access,
            certificates,
            log: OnceLock::new(),
            driver: OnceLock::new(),
            is_draining: AtomicBool::new(false),
            reloads: AtomicU64::new(0),
            failed_reloads: AtomicU64::new(0),
            current: RwLock::new(current),
        }
    }

    /// How many lines of the log were dropped for `reason`.
    pub fn dropped_log_lines(&self, reason: DropReason) -> u64 {
        self.log.get().map_or(0, |log| log.dropped(reason))
    }

    pub fn set_log(&self, log: Lines) {
        // Cannot fail: a process has one log.
        let _ = self.log.set(log);
    }

    /// The driver of the workers: `io_uring` or `epoll`.
    pub fn driver(&self) -> &str {
        self.driver.get().map_or("", String::as_str)
    }

    pub(super) fn set_driver(&self, driver: &str) {
        // Cannot fail: workers start once.
        let _ = self.driver.set(driver.to_owned());
    }

    /// Whether the mirror is shutting down and finishes what is in flight.
    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// The current routing table and configuration.
    pub fn current(&self) -> CurrentConfig {
        let current = self.current.read();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many reloads succeeded, and how many failed.
    pub fn reloads(&self) -> (u64, u64) {
        (
            self.reloads.load(Ordering::Relaxed),
            self.failed_reloads.load(Ordering::Relaxed),
        )
    }

    pub fn record_failed_reload(&self) {
        self.failed_reloads.fetch_add(1, Ordering::Relaxed);
    }

    /// Records a successful reload.
    pub(super) fn record_reload(&self, current: CurrentConfig) {
        self.reloads.fetch_add(1, Ordering::Relaxed);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
    }

    pub(super) fn begin_draining(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }
}
