//! What all workers share about an origin: how to reach it, and whether it answers.
//!
//! Read-mostly by design. Addresses are looked at only when a connection is opened, never per
//! request; the state is written only when it changes, so that one change makes one log line
//! however many workers see it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tracing::{info, warn};

use crate::observe::change::LogOnChange;
use crate::observe::counters::PerWorker;
use crate::sentry::dsn::Origin;
use crate::upstream::counters::OriginCounters;
use crate::upstream::pooling::{Pooling, SUSPENSION};

/// An origin as the whole process sees it.
pub struct SharedOrigin {
    /// Scheme, host and port.
    pub origin: Origin,
    /// How to speak TLS to it; `None` for `http`.
    pub tls: Option<TlsIdentity>,
    addresses: RwLock<Arc<[SocketAddr]>>,
    next_address: AtomicUsize,
    /// When the resolver gave the last good answer, in milliseconds after `since`; 0 for never.
    resolved_at_ms: AtomicU64,
    since: Instant,
    /// How often the resolver is asked, in milliseconds; 0 for never.
    dns_refresh_ms: AtomicU64,
    /// 1 while it is down.
    down: LogOnChange,
    /// Who loses deliveries while it is down.
    dependents: RwLock<Arc<[Dependent]>>,
    /// The same for the outage that was told last, with what each had lost before.
    outage: Mutex<Outage>,
    /// Whether its connections may be used again.
    pooling: Pooling,
    /// What the workers count about it.
    pub counters: PerWorker<OriginCounters>,
    /// How often its host could not be resolved.
    pub dns_failures: Arc<AtomicU64>,
}

/// Somebody who loses deliveries while an origin is down.
#[derive(Clone)]
pub struct Dependent {
    /// What it is called.
    pub name: Arc<str>,
    /// How many deliveries it has lost so far because there was no answer.
    pub lost: Arc<dyn Fn() -> u64 + Send + Sync>,
}

/// Those who lose in an outage, each with what it had lost when that began.
type Outage = Vec<(Dependent, u64)>;

/// How many of those who have lost are named at the end of an outage.
const DEPENDENTS_NAMED_MAX: usize = 10;

/// Whose certificate is expected, and which ones are trusted.
#[derive(Clone)]
pub struct TlsIdentity {
    /// Trusted roots, protocol versions and the cache of sessions to resume.
    pub config: Arc<ClientConfig>,
    /// The name sent as SNI and looked for in the certificate.
    pub server_name: ServerName<'static>,
}

impl SharedOrigin {
    /// An origin whose addresses are not known yet, for so many workers.
    pub fn new(workers: usize, origin: Origin, tls: Option<TlsIdentity>) -> SharedOrigin {
        SharedOrigin {
            origin,
            tls,
            addresses: RwLock::new(Arc::new([])),
            next_address: AtomicUsize::new(0),
            resolved_at_ms: AtomicU64::new(0),
            since: Instant::now(),
            dns_refresh_ms: AtomicU64::new(0),
            down: LogOnChange::new(),
            dependents: RwLock::new(Arc::new([])),
            outage: Mutex::default(),
            pooling: Pooling::default(),
            counters: PerWorker::new(workers),
            dns_failures: Arc::default(),
        }
    }

    /// Whether its connections are opened with the TLS settings of `identity`.
    pub fn trusts_as(&self, identity: &TlsIdentity) -> bool {
        let own = self.tls.as_ref();
        own.is_some_and(|own| Arc::ptr_eq(&own.config, &identity.config))
    }

    /// The same origin with other TLS settings: it keeps the addresses and the numbers.
    pub fn with_tls(&self, tls: TlsIdentity) -> SharedOrigin {
        let mut successor = SharedOrigin {
            resolved_at_ms: AtomicU64::new(self.resolved_at_ms.load(Ordering::Relaxed)),
            since: self.since,
            counters: self.counters.clone(),
            dns_failures: Arc::clone(&self.dns_failures),
            ..SharedOrigin::new(1, self.origin.clone(), Some(tls))
        };
        successor.pooling.follow(&self.pooling);
        successor.set_addresses(self.addresses().to_vec());
        successor
    }

    /// Takes note that the resolver gave a good answer, with the known addresses or others.
    pub fn record_resolved(&self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.since).as_millis();
        let now_ms = u64::try_from(elapsed).unwrap_or(u64::MAX).max(1);
        self.resolved_at_ms.store(now_ms, Ordering::Relaxed);
    }

    /// How old the last good answer of the resolver is; `None` where there was none, or none is needed.
    pub fn dns_age(&self, now: Instant) -> Option<Duration> {
        let at_ms = self.resolved_at_ms.load(Ordering::Relaxed);
        let at = Duration::from_millis(at_ms);
        (at_ms != 0).then(|| now.saturating_duration_since(self.since).saturating_sub(at))
    }

    /// Takes note that the resolver is asked again and again.
    pub fn set_dns_refresh(&self, refresh: Duration) {
        let refresh_ms = u64::try_from(refresh.as_millis()).unwrap_or(u64::MAX);
        self.dns_refresh_ms.store(refresh_ms, Ordering::Relaxed);
    }

    /// How often the resolver is asked; `None` where it is not.
    pub fn dns_refresh(&self) -> Option<Duration> {
        let refresh_ms = self.dns_refresh_ms.load(Ordering::Relaxed);
        (refresh_ms != 0).then(|| Duration::from_millis(refresh_ms))
    }

    /// The addresses to try, in the order to try them.
    pub fn addresses(&self) -> Arc<[SocketAddr]> {
        Arc::clone(
            &self
                .addresses
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Where in [`SharedOrigin::addresses`] to begin; moves on with [`SharedOrigin::skip_address`].
    pub fn first_address(&self) -> usize {
        self.next_address.load(Ordering::Relaxed)
    }

    /// Lets later connections begin with the address after the one at `failed`. Of several that
    /// failed there at once, one moves on.
    pub fn skip_address(&self, failed: usize) {
        let (ok, other) = (Ordering::Relaxed, Ordering::Relaxed);
        let _ = self
            .next_address
            .compare_exchange(failed, failed.wrapping_add(1), ok, other);
    }

    /// Replaces the addresses by a newer answer of the resolver.
    pub fn set_addresses(&self, addresses: Vec<SocketAddr>) {
        let mut current = self
            .addresses
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *current = addresses.into();
    }

    /// Takes note of who loses deliveries while it is down.
    pub fn set_dependents(&self, dependents: Vec<Dependent>) {
        let mut current = self
            .dependents
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *current = dependents.into();
    }

    /// Whether its connections may be used again at `now`.
    pub fn is_pooled(&self, now: Instant) -> bool {
        let is_pooled = self.pooling.is_allowed(now);
        if is_pooled && self.pooling.has_resumed(now) {
            info!(origin = %self.origin, "connections to the upstream are used again");
        }
        is_pooled
    }

    /// Takes note that the bytes `unsolicited` came over one of its connections although no request was under
    /// way there.
    pub fn sent_unsolicited(&self, unsolicited: &[u8], now: Instant) {
        if self.pooling.suspend(now) {
            warn!(
                origin = %self.origin,
                seen = describe(unsolicited),
                seconds = SUSPENSION.as_secs(),
                "upstream has sent more than it was asked for, so that an answer could go to another request; each of its connections is used once for now"
            );
        }
    }

    /// Takes note that a delivery got an answer.
    pub fn answered(&self, now: Instant) {
        if self.down.should_log(0, now) {
            let outage = std::mem::take(&mut *self.outage());
            let mut lost: Vec<(Arc<str>, u64)> = Vec::new();
            for (dependent, before) in outage {
                let count = (dependent.lost)().saturating_sub(before);
                match lost.last_mut().filter(|(name, _)| *name == dependent.name) {
                    Some((_, sum)) => *sum += count,
                    None => lost.push((dependent.name, count)),
                }
            }
            info!(
                origin = %self.origin,
                seconds = self.down.lasted(now).as_secs_f64(),
                lost_deliveries = lost.iter().map(|(_, count)| count).sum::<u64>(),
                routes = named(&mut lost),
                "upstream is answering again"
            );
        }
    }

    /// Takes note that a delivery failed without an answer.
    pub fn failed(&self, failure: &dyn std::fmt::Display, now: Instant) {
        if self.down.should_log(1, now) {
            warn!(origin = %self.origin, %failure, "upstream does not answer");
            let dependents = Arc::clone(
                &self
                    .dependents
                    .read()
                    .unwrap_or_else(PoisonError::into_inner),
            );
            let before = dependents
                .iter()
                .map(|dependent| (dependent.clone(), (dependent.lost)()));
            *self.outage() = before.collect();
        }
    }

    fn outage(&self) -> MutexGuard<'_, Outage> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes in words. Of what an upstream sends nothing is shown but a status: the rest may be somebody's.
fn describe(bytes: &[u8]) -> String {
    let status = bytes
        .strip_prefix(b"HTTP/1.")
        .and_then(|rest| rest.get(2..5));
    match status.filter(|status| status.iter().all(u8::is_ascii_digit)) {
        Some(status) => format!("a response with status {}", status.escape_ascii()),
        None => "bytes that do not begin as a response does".to_owned(),
    }
}

/// Who has lost how much, in words; those who have lost most, where they are many.
fn named(lost: &mut Vec<(Arc<str>, u64)>) -> String {
    lost.retain(|(_, count)| *count > 0);
    lost.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let of = |(name, count): &(Arc<str>, u64)| format!("{name}: {count}");
    let mut words: Vec<String> = lost.iter().take(DEPENDENTS_NAMED_MAX).map(of).collect();
    let others = lost.len().saturating_sub(DEPENDENTS_NAMED_MAX);
    if others > 0 {
        words.push(format!("and {others} more"));
    }
    words.join(", ")
}
