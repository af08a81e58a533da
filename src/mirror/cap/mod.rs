//! The caps of an outbound: for each, a share of the traces and a token bucket.
//!
//! All workers share them. An item costs a worker a look at the share, and for some items a write to what all share:
//! it keeps some tokens, and some of what it has been asked for, to itself. `capping` asks the caps for the items of a
//! request.

mod cap_bucket;
mod cap_share;
pub(super) mod capping;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config;
use crate::mirror::cap::cap_bucket::{Bucket, Lease};
use crate::mirror::cap::cap_share::Share;
use crate::sentry::category::Category;
use crate::sentry::sampling::SamplingKey;
use crate::telemetry::counters::{Counter, PerWorker};
use crate::telemetry::log_on_change::LogOnChange;

/// How long a cap stays near or reached, at least: the log tells of it once, not each time it is.
const HOLD: Duration = Duration::from_secs(60);

/// The part of a cap from which it is near.
const NEAR: f64 = 0.8;

pub struct Caps {
    /// The zero of the clock of all caps.
    began: Instant,
    caps: Vec<Arc<Cap>>,
}

pub struct Cap {
    configured: config::Cap,
    bucket: Bucket,
    workers: PerWorker<WorkerCap>,
    /// The items asked for in the window, as far as workers have reported them.
    asked: AtomicU64,
    /// Whoever is asked for an item after this time, in nanoseconds, ends the window.
    window_end_ns: AtomicU64,
    /// The bits of the current share.
    share_bits: AtomicU64,
    share: Mutex<Share>,
    /// How long the cap stays near or reached, at least.
    hold_ns: u64,
    near_until_ns: AtomicU64,
    reached_until_ns: AtomicU64,
    /// The state is the [`CapLevel`].
    pub(super) log: LogOnChange,
}

#[derive(Default)]
struct WorkerCap {
    lease: Lease,
    /// The items asked for that are not reported yet.
    asked: Counter,
}

/// How much of a cap is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CapLevel {
    Below,
    Near,
    Reached,
}

impl CapLevel {
    pub(crate) fn word(self) -> &'static str {
        match self {
            CapLevel::Below => "below",
            CapLevel::Near => "near",
            CapLevel::Reached => "reached",
        }
    }
}

impl Caps {
    /// The caps of an outbound, which had `previous` caps before a reload. `None` without any.
    pub(super) fn new(
        configured: &[config::Cap],
        workers: usize,
        previous: Option<&Caps>,
        now: Instant,
    ) -> Option<Caps> {
        let began = previous.map_or(now, |previous| previous.began);
        let now_ns = ns_since(began, now);
        let known = previous.map_or(&[][..], |previous| &previous.caps);
        let cap = |configured: &config::Cap| {
            if let Some(same) = known.iter().find(|known| known.configured == *configured) {
                return Arc::clone(same);
            }
            // Of what was let through before, a new bucket does not let through the same again.
            let common = known.iter().filter(|known| {
                let mut categories = known.configured.categories.iter();
                categories.any(|category| configured.categories.contains(category))
            });
            let used = common.map(|known| known.bucket.used(now_ns)).sum();
            Arc::new(Cap::new(configured, workers, used, now_ns))
        };
        (!configured.is_empty()).then(|| Caps {
            began,
            caps: configured.iter().map(cap).collect(),
        })
    }

    /// Whether these are the caps of such a configuration.
    pub(super) fn has(&self, configured: &[config::Cap]) -> bool {
        self.iter().map(|cap| &cap.configured).eq(configured)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Cap> {
        self.caps.iter().map(|cap| &**cap)
    }

    /// The index of the cap on a category.
    pub(super) fn index_of(&self, category: Option<Category>) -> Option<usize> {
        let category = category?;
        let mut caps = self.caps.iter();
        caps.position(|cap| cap.configured.categories.contains(category))
    }

    /// Whether `count` items with this sampling key, for which a worker asks together, are let through.
    pub(super) fn take(
        &self,
        index: usize,
        key: SamplingKey,
        count: u64,
        worker: usize,
        now: Instant,
    ) -> bool {
        let cap = self.caps.get(index);
        cap.is_none_or(|cap| cap.take(key, count, worker, self.ns(now)))
    }

    /// What was asked for as a share of what each cap allows.
    pub fn used(&self, now: Instant) -> impl Iterator<Item = (&Cap, f64)> {
        let now_ns = self.ns(now);
        self.iter().map(move |cap| (cap, cap.used(now_ns)))
    }

    /// How much of each cap is used. Must be called regularly.
    pub fn levels(&self, now: Instant) -> impl Iterator<Item = (&Cap, CapLevel)> {
        let now_ns = self.ns(now);
        self.iter().map(move |cap| (cap, cap.level(now_ns)))
    }

    fn ns(&self, now: Instant) -> u64 {
        ns_since(self.began, now)
    }
}

impl Cap {
    fn new(configured: &config::Cap, workers: usize, used: f64, now_ns: u64) -> Cap {
        let share = Share::new(configured.amount, seconds(now_ns));
        let hold_seconds = share.window_seconds().max(HOLD.as_secs_f64());
        Cap {
            bucket: Bucket::new(configured.amount, workers, used, now_ns),
            configured: configured.clone(),
            workers: PerWorker::new(workers),
            asked: AtomicU64::new(0),
            window_end_ns: AtomicU64::new(nanoseconds(share.window_end())),
            share_bits: AtomicU64::new(share.get().to_bits()),
            share: Mutex::new(share),
            hold_ns: nanoseconds(hold_seconds),
            near_until_ns: AtomicU64::new(0),
            reached_until_ns: AtomicU64::new(0),
            log: LogOnChange::new(),
        }
    }

    /// The category and the amount.
    pub(crate) fn configured(&self) -> &config::Cap {
        &self.configured
    }

    /// The share of the traces that is let through.
    pub fn share(&self) -> f64 {
        f64::from_bits(self.share_bits.load(Ordering::Relaxed))
    }

    fn take(&self, key: SamplingKey, count: u64, worker: usize, now_ns: u64) -> bool {
        if now_ns >= self.window_end_ns.load(Ordering::Relaxed) {
            self.end_window(now_ns);
        }
        // It never goes out, so it must not lower the share of what could.
        if self.bucket.is_too_small(count) {
            self.lock().note_refusal();
            self.note_reached(now_ns);
            return false;
        }
        let own = self.workers.for_worker(worker);
        own.asked.add(count);
        if own.asked.get() > self.bucket.lease_max() {
            self.asked.fetch_add(own.asked.take(), Ordering::Relaxed);
        }
        if !key.rehashed().is_within(self.share()) {
            return false;
        }
        let is_taken = self.bucket.take(count, &own.lease, now_ns);
        if !is_taken {
            let mut share = self.lock();
            share.note_empty(self.asked.load(Ordering::Relaxed), seconds(now_ns));
            self.publish(&share);
            self.note_reached(now_ns);
        }
        is_taken
    }

    /// Whoever asks for the level later must see it, however short it was.
    fn note_reached(&self, now_ns: u64) {
        let until_ns = now_ns + self.hold_ns;
        self.reached_until_ns.store(until_ns, Ordering::Relaxed);
    }

    fn end_window(&self, now_ns: u64) {
        let mut share = self.lock();
        // Another worker may have ended it.
        if seconds(now_ns) >= share.window_end() {
            let asked = self.asked.swap(0, Ordering::Relaxed);
            share.end_window(asked, seconds(now_ns));
            self.publish(&share);
        }
    }

    fn publish(&self, share: &Share) {
        let bits = share.get().to_bits();
        self.share_bits.store(bits, Ordering::Relaxed);
        let end_ns = nanoseconds(share.window_end());
        self.window_end_ns.store(end_ns, Ordering::Relaxed);
    }

    fn used(&self, now_ns: u64) -> f64 {
        let asked = self.asked.load(Ordering::Relaxed);
        self.lock().used(asked, seconds(now_ns))
    }

    fn level(&self, now_ns: u64) -> CapLevel {
        let used = self.used(now_ns);
        for (least, until_ns) in [(NEAR, &self.near_until_ns), (1.0, &self.reached_until_ns)] {
            if used >= least {
                until_ns.store(now_ns + self.hold_ns, Ordering::Relaxed);
            }
        }
        if now_ns < self.reached_until_ns.load(Ordering::Relaxed) {
            CapLevel::Reached
        } else if now_ns < self.near_until_ns.load(Ordering::Relaxed) {
            CapLevel::Near
        } else {
            CapLevel::Below
        }
    }

    fn lock(&self) -> MutexGuard<'_, Share> {
        self.share.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ns_since(began: Instant, now: Instant) -> u64 {
    let elapsed = now.saturating_duration_since(began);
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX / 2)
}

fn seconds(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64()
}

fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

#[cfg(test)]
mod tests;
