//! What can be seen of a running mirror from outside its workers.
//!
//! Whoever looks reads the workers' counters and the table in force; nothing here is on the way of a
//! request. The supervisor writes it when something changes: the stage of the process, the table.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Instant, SystemTime};

use crate::config::Config;
use crate::mirror::access_log::AccessLog;
use crate::mirror::routing_table::RoutingTable;
use crate::mirror::worker_metrics::WorkerMetrics;
use crate::telemetry::lines::{DropReason, Lines};

/// A running mirror, seen from outside.
pub struct MirrorStatus {
    /// Where SDKs are received.
    pub address: SocketAddr,
    /// When it began to accept.
    pub started_at: SystemTime,
    /// The same, to measure how long it has run.
    pub started: Instant,
    /// What the workers count that belongs to no route.
    pub counters: Vec<Arc<WorkerMetrics>>,
    /// Where requests are told of, if anywhere.
    pub access: Option<AccessLog>,
    log: OnceLock<Lines>,
    driver: OnceLock<String>,
    stage: AtomicU8,
    reloads: AtomicU64,
    failed_reloads: AtomicU64,
    current: RwLock<Current>,
}

/// What a reload changes.
#[derive(Clone)]
pub struct Current {
    /// What is routed where.
    pub table: Arc<RoutingTable>,
    /// The configuration in force, with keys shortened.
    pub configuration: Arc<str>,
}

impl Current {
    /// What `table` and the `config` that it was made from put in force.
    pub(super) fn of(table: &Arc<RoutingTable>, config: &Config) -> Current {
        Current {
            table: Arc::clone(table),
            configuration: config.effective().into(),
        }
    }
}

/// How far a mirror is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It accepts requests.
    Ready,
    /// It has been asked to stop and finishes what is in flight.
    Draining,
}

impl MirrorStatus {
    /// A mirror that accepts requests from now on.
    pub fn new(
        address: SocketAddr,
        counters: Vec<Arc<WorkerMetrics>>,
        access: Option<AccessLog>,
        current: Current,
    ) -> MirrorStatus {
        MirrorStatus {
            address,
            started_at: SystemTime::now(),
            started: Instant::now(),
            counters,
            access,
            log: OnceLock::new(),
            driver: OnceLock::new(),
            stage: AtomicU8::new(0),
            reloads: AtomicU64::new(0),
            failed_reloads: AtomicU64::new(0),
            current: RwLock::new(current),
        }
    }

    /// How many lines of the log were dropped for `reason`.
    pub fn dropped_log_lines(&self, reason: DropReason) -> u64 {
        self.log.get().map_or(0, |log| log.dropped(reason))
    }

    /// Takes note of where the log goes.
    pub fn logs_to(&self, log: Lines) {
        // There is one log.
        let _ = self.log.set(log);
    }

    /// What the workers wait for their sockets with, in words.
    pub fn driver(&self) -> &str {
        self.driver.get().map_or("", String::as_str)
    }

    /// Takes note of what the workers wait for their sockets with.
    pub(super) fn runs_on(&self, driver: &str) {
        // Workers start once.
        let _ = self.driver.set(driver.to_owned());
    }

    /// How far it is.
    pub fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Relaxed) {
            0 => Stage::Ready,
            _ => Stage::Draining,
        }
    }

    /// What is in force.
    pub fn current(&self) -> Current {
        let current = self.current.read();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many reloads were done, and how many were refused.
    pub fn reloads(&self) -> (u64, u64) {
        (
            self.reloads.load(Ordering::Relaxed),
            self.failed_reloads.load(Ordering::Relaxed),
        )
    }

    /// Takes note that a configuration could not be used.
    pub fn reload_failed(&self) {
        self.failed_reloads.fetch_add(1, Ordering::Relaxed);
    }

    /// Shows what a reload has put in force.
    pub(super) fn reloaded(&self, current: Current) {
        self.reloads.fetch_add(1, Ordering::Relaxed);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
    }

    /// Takes note that it was asked to stop.
    pub(super) fn draining(&self) {
        self.stage.store(1, Ordering::Relaxed);
    }
}
