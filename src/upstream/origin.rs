//! What all workers share about an origin: how to reach it, and whether it responds.
//!
//! This is read-mostly. Addresses are read only to open a connection, never per request. The state is
//! written only when it changes, so that one change makes one log line however many workers see it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::config::Proxy;
use crate::limits::Limits;
use crate::net::tls_client::TlsIdentity;
use crate::sentry::dsn::{Origin, Scheme};
use crate::telemetry::counters::PerWorker;
use crate::telemetry::log_on_change::LogOnChange;
use crate::upstream::addresses::{Address, Addresses};
use crate::upstream::breaker::{BreakerState, RouteId, Unanswered};
use crate::upstream::counters::OriginCounters;
use crate::upstream::pooling::{Pooling, SUSPENSION};
use crate::upstream::protocol::Protocol;
use crate::upstream::shared_breaker::{Permit, SharedBreaker};

pub struct SharedOrigin {
    pub origin: Origin,
    /// The origin, with a number if it is reached in several ways. For logs, metrics and the status.
    pub name: String,
    /// `None` for `http`.
    pub tls: Option<TlsIdentity>,
    proxy: Option<Proxy>,
    /// What is resolved and connected to: the origin or its proxy.
    dialled: Origin,
    addresses: Addresses,
    /// Asks the resolver for the addresses again, and soon.
    ask_resolver: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// The time of the last successful resolution in milliseconds after `since`; 0 for none.
    resolved_at_ms: AtomicU64,
    since: Instant,
    /// The time between two resolutions in milliseconds; 0 if the host is not resolved.
    dns_refresh_ms: AtomicU64,
    /// What loses deliveries while it is down.
    dependents: RwLock<Arc<[Arc<dyn Dependent>]>>,
    outages: Arc<Outages>,
    pooling: Pooling,
    pub(crate) protocol: Protocol,
    pub(crate) breaker: SharedBreaker,
    pub counters: PerWorker<OriginCounters>,
    pub dns_lookups: Arc<AtomicU64>,
    pub dns_failures: Arc<AtomicU64>,
}

/// An outbound, which loses deliveries while its origin is down.
pub trait Dependent: Send + Sync {
    /// The name of its route.
    fn route(&self) -> &str;

    /// How many deliveries it has lost so far because there was no response.
    fn lost(&self) -> u64;

    /// Its origin stopped responding, with this failure.
    fn outage_began(&self, failure: &str, now: Instant);

    /// Its origin responds again.
    fn outage_ended(&self, now: Instant);
}

/// Whether an origin is down, and what that costs.
#[derive(Default)]
struct Outages {
    /// 1 while it is down.
    down: LogOnChange,
    /// The outbounds of the current outage, each with what it had lost before it.
    current: Mutex<Vec<(Arc<dyn Dependent>, u64)>>,
}

/// How many routes the log line at the end of an outage names.
const DEPENDENTS_NAMED_MAX: usize = 10;

impl SharedOrigin {
    /// An origin whose addresses are not known yet.
    pub fn new(workers: usize, origin: Origin, tls: Option<TlsIdentity>) -> SharedOrigin {
        SharedOrigin {
            name: origin.to_string(),
            dialled: origin.clone(),
            origin,
            tls,
            proxy: None,
            addresses: Addresses::new(Instant::now()),
            ask_resolver: OnceLock::new(),
            resolved_at_ms: AtomicU64::new(0),
            since: Instant::now(),
            dns_refresh_ms: AtomicU64::new(0),
            dependents: RwLock::new(Arc::new([])),
            outages: Arc::default(),
            pooling: Pooling::default(),
            protocol: Protocol::default(),
            breaker: SharedBreaker::new(),
            counters: PerWorker::new(workers),
            dns_lookups: Arc::default(),
            dns_failures: Arc::default(),
        }
    }

    /// The same, reached through `proxy`.
    pub(crate) fn through(self, proxy: Option<Proxy>) -> SharedOrigin {
        let dialled = match &proxy {
            None => self.origin.clone(),
            Some(proxy) => Origin {
                scheme: Scheme::Http,
                host: proxy.host.clone(),
                port: proxy.port,
            },
        };
        SharedOrigin {
            proxy,
            dialled,
            ..self
        }
    }

    pub(crate) fn proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref()
    }

    /// What is resolved and connected to: the origin or its proxy.
    pub(crate) fn dialled(&self) -> &Origin {
        &self.dialled
    }

    /// The same under another name.
    pub(crate) fn named(self, name: String) -> SharedOrigin {
        SharedOrigin { name, ..self }
    }

    /// Whether it has the TLS settings of `identity`.
    pub fn trusts_as(&self, identity: &TlsIdentity) -> bool {
        let own = self.tls.as_ref();
        own.is_some_and(|own| {
            Arc::ptr_eq(&own.config, &identity.config) && own.server_name == identity.server_name
        })
    }

    /// The same origin with other TLS settings. It keeps the addresses, the counters, and whether it is down.
    pub fn with_tls(&self, tls: TlsIdentity) -> SharedOrigin {
        let mut successor = SharedOrigin {
            resolved_at_ms: AtomicU64::new(self.resolved_at_ms.load(Ordering::Relaxed)),
            name: self.name.clone(),
            proxy: self.proxy.clone(),
            dialled: self.dialled.clone(),
            since: self.since,
            counters: self.counters.clone(),
            addresses: self.addresses.forgotten(Instant::now()),
            outages: Arc::clone(&self.outages),
            dns_lookups: Arc::clone(&self.dns_lookups),
            dns_failures: Arc::clone(&self.dns_failures),
            ..SharedOrigin::new(1, self.origin.clone(), Some(tls))
        };
        successor.pooling.copy_from(&self.pooling);
        successor
    }

    /// Records a successful resolution, whether or not the addresses changed.
    pub fn record_resolved(&self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.since).as_millis();
        let now_ms = u64::try_from(elapsed).unwrap_or(u64::MAX).max(1);
        self.resolved_at_ms.store(now_ms, Ordering::Relaxed);
    }

    /// The time since the last successful resolution. `None` if there was none, or the host is an address.
    pub fn dns_age(&self, now: Instant) -> Option<Duration> {
        let at_ms = self.resolved_at_ms.load(Ordering::Relaxed);
        let at = Duration::from_millis(at_ms);
        (at_ms != 0).then(|| now.saturating_duration_since(self.since).saturating_sub(at))
    }

    pub fn set_dns_refresh(&self, refresh: Duration) {
        let refresh_ms = u64::try_from(refresh.as_millis()).unwrap_or(u64::MAX);
        self.dns_refresh_ms.store(refresh_ms, Ordering::Relaxed);
    }

    /// The time between two resolutions. `None` if the host is an address.
    pub fn dns_refresh(&self) -> Option<Duration> {
        let refresh_ms = self.dns_refresh_ms.load(Ordering::Relaxed);
        (refresh_ms != 0).then(|| Duration::from_millis(refresh_ms))
    }

    pub(crate) fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Replaces the addresses. Forgets the failures, which happened at others.
    pub fn set_addresses(&self, addresses: &[SocketAddr]) {
        let now = Instant::now();
        self.addresses.set(addresses, now);
        self.breaker.reset(now);
    }

    /// Sets what [`SharedOrigin::ask_resolver`] calls.
    pub(crate) fn on_ask_resolver(&self, ask: Box<dyn Fn() + Send + Sync>) {
        // The first resolver stays.
        let _ = self.ask_resolver.set(ask);
    }

    /// Asks for the addresses again, because none of them can be reached. The resolver bounds how often it does so.
    pub(crate) fn ask_resolver(&self) {
        if let Some(ask) = self.ask_resolver.get() {
            ask();
        }
    }

    /// Records that an attempt that began at `begun` got no byte of an answer from `address`: connecting failed, or
    /// its first exchange did. Later connections begin elsewhere, and once all addresses have failed, the resolver
    /// is asked again.
    pub(crate) fn record_address_failed(&self, address: &Address, begun: Instant, now: Instant) {
        if self.addresses.record_failed(address, begun, now) {
            self.ask_resolver();
        }
    }

    pub fn set_dependents(&self, dependents: Vec<Arc<dyn Dependent>>) {
        let mut current = self
            .dependents
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *current = dependents.into();
    }

    /// Whether its connections may be reused.
    pub fn is_pooled(&self, now: Instant) -> bool {
        let is_pooled = self.pooling.is_allowed(now);
        if is_pooled && self.pooling.has_resumed(now) {
            info!(origin = %self.name, "connections to the upstream are reused again");
        }
        is_pooled
    }

    /// Suspends the reuse of connections: one of them delivered the bytes `unsolicited` while no request was
    /// in flight on it.
    pub fn record_unsolicited(&self, unsolicited: &[u8], now: Instant) {
        if self.pooling.suspend(now) {
            warn!(
                origin = %self.name,
                seen = describe(unsolicited),
                seconds = SUSPENSION.as_secs(),
                "upstream sent bytes that answer no request; for now, each connection to it serves only one request, so that no response reaches the wrong request"
            );
        }
    }

    /// Permits a delivery of `route`, unless the breaker is open for it. The outcome has to be recorded with the
    /// permit.
    pub(crate) fn admit(&self, route: RouteId, now: Instant) -> Option<Permit<'_>> {
        self.breaker.admit(route, now)
    }

    /// The state of the breaker.
    pub fn breaker_state(&self, now: Instant) -> BreakerState {
        self.breaker.state(now)
    }

    /// Changes the limits of the breaker.
    pub(crate) fn set_limits(&self, limits: &Limits) {
        self.breaker.set_limits(limits);
    }

    /// Records that a delivery of this worker got a response.
    pub(crate) fn record_response(&self, _permit: Permit<'_>, worker: usize, now: Instant) {
        let since = now.saturating_duration_since(self.since).as_nanos();
        let answered_at = usize::try_from(since).unwrap_or(usize::MAX).max(1);
        self.counters
            .for_worker(worker)
            .answered_at
            .set(answered_at);
        self.breaker.record_response(now);
        let change = self.outages.down.observe(0, now);
        if change.is_turn {
            let outage = self.end_outage(now);
            if change.is_logged {
                self.log_end(&outage, now);
            }
        }
    }

    fn end_outage(&self, now: Instant) -> Vec<(Arc<dyn Dependent>, u64)> {
        let mut current = self.outages.current();
        // Workers may come here in another order than that of the changes, so the state is read under the lock.
        if self.outages.down.is_failing() {
            return Vec::new();
        }
        for (dependent, _) in current.iter() {
            dependent.outage_ended(now);
        }
        std::mem::take(&mut *current)
    }

    fn log_end(&self, outage: &[(Arc<dyn Dependent>, u64)], now: Instant) {
        let mut lost: Vec<(&str, u64)> = Vec::new();
        for (dependent, before) in outage {
            let count = dependent.lost().saturating_sub(*before);
            match lost
                .last_mut()
                .filter(|(route, _)| *route == dependent.route())
            {
                Some((_, sum)) => *sum += count,
                None => lost.push((dependent.route(), count)),
            }
        }
        info!(
            origin = %self.name,
            seconds = self.outages.down.lasted(now).as_secs_f64(),
            lost_deliveries = lost.iter().map(|(_, count)| count).sum::<u64>(),
            routes = summarize(&mut lost),
            "upstream is answering again"
        );
    }

    /// The time of the last response to any worker.
    fn answered_at(&self) -> Option<Instant> {
        let workers = self.counters.iter().map(|worker| worker.answered_at.get());
        let last = workers.max().filter(|nanoseconds| *nanoseconds > 0)?;
        Some(self.since + Duration::from_nanos(last))
    }

    /// Records that a delivery failed without a response.
    pub(crate) fn record_failure(
        &self,
        permit: &Permit<'_>,
        how: Unanswered,
        failure: &dyn std::fmt::Display,
        now: Instant,
    ) {
        let answered_at = self.answered_at();
        self.breaker.record_failure(permit, how, answered_at, now);
        let change = self.outages.down.observe(1, now);
        if change.is_logged {
            warn!(origin = %self.name, %failure, "upstream does not answer");
        }
        if change.is_turn {
            self.begin_outage(&failure.to_string(), now);
        }
    }

    fn begin_outage(&self, failure: &str, now: Instant) {
        let dependents = self.dependents.read();
        let dependents = Arc::clone(&dependents.unwrap_or_else(PoisonError::into_inner));
        let mut current = self.outages.current();
        // A response to another worker may have ended this outage already, or a late one not ended the last.
        if self.outages.down.is_failing() && current.is_empty() {
            let before = dependents.iter().map(|dependent| {
                dependent.outage_began(failure, now);
                (Arc::clone(dependent), dependent.lost())
            });
            *current = before.collect();
        }
    }
}

impl Outages {
    fn current(&self) -> MutexGuard<'_, Vec<(Arc<dyn Dependent>, u64)>> {
        let current = self.current.lock();
        current.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Describes unsolicited bytes for the log. Only a status is shown, because the rest may be personal data.
fn describe(bytes: &[u8]) -> String {
    let status = bytes
        .strip_prefix(b"HTTP/1.")
        .and_then(|rest| rest.get(2..5));
    match status.filter(|status| status.iter().all(u8::is_ascii_digit)) {
        Some(status) => format!("a response with status {}", status.escape_ascii()),
        None => "bytes without an HTTP status".to_owned(),
    }
}

/// The routes that lost deliveries, with how many; of many routes those that lost the most.
fn summarize(lost: &mut Vec<(&str, u64)>) -> String {
    lost.retain(|(_, count)| *count > 0);
    lost.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let entry = |(name, count): &(&str, u64)| format!("{name}: {count}");
    let mut words: Vec<String> = lost.iter().take(DEPENDENTS_NAMED_MAX).map(entry).collect();
    let others = lost.len().saturating_sub(DEPENDENTS_NAMED_MAX);
    if others > 0 {
        words.push(format!("and {others} more"));
    }
    words.join(", ")
}
