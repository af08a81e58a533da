//! Suspends the reuse of connections to an origin that sends unsolicited data.
//!
//! In HTTP/1.1 only the order on a connection says which request a response belongs to. An upstream that
//! sends more than it was asked for has lost that order, and may send the next surplus response at any
//! time, also after a pooled connection was checked and before its next request is sent. No check can
//! detect that. So once an origin has sent unsolicited data, each of its connections serves only one
//! request for a while.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long an origin's connections are not reused after it sent unsolicited data.
pub(crate) const SUSPENSION: Duration = Duration::from_secs(300);

/// Shared by all workers.
pub(crate) struct Pooling {
    since: Instant,
    /// The end of the suspension in milliseconds after `since`; 0 for none.
    suspended_until_ms: AtomicU64,
}

impl Default for Pooling {
    fn default() -> Pooling {
        Pooling {
            since: Instant::now(),
            suspended_until_ms: AtomicU64::new(0),
        }
    }
}

impl Pooling {
    /// Takes over the state of `other`, which is about the same origin.
    pub(crate) fn copy_from(&mut self, other: &Pooling) {
        self.since = other.since;
        *self.suspended_until_ms.get_mut() = other.suspended_until_ms.load(Ordering::Relaxed);
    }

    /// Whether connections may be reused. In the common case this costs one load.
    pub(crate) fn is_allowed(&self, now: Instant) -> bool {
        let until_ms = self.suspended_until_ms.load(Ordering::Relaxed);
        until_ms == 0 || self.ms(now) >= until_ms
    }

    /// Suspends reuse from `now` on. Returns whether it was allowed before.
    pub(crate) fn suspend(&self, now: Instant) -> bool {
        let was_allowed = self.is_allowed(now);
        let until_ms = self.ms(now + SUSPENSION);
        let before_ms = self.suspended_until_ms.swap(until_ms, Ordering::Relaxed);
        // Of several threads at the same time, only one returns `true`.
        was_allowed && (before_ms == 0 || self.ms(now) >= before_ms)
    }

    /// Whether a suspension is over. Returns `true` once.
    pub(crate) fn has_resumed(&self, now: Instant) -> bool {
        let until_ms = self.suspended_until_ms.load(Ordering::Relaxed);
        let (ok, other) = (Ordering::Relaxed, Ordering::Relaxed);
        until_ms != 0
            && self.ms(now) >= until_ms
            && self
                .suspended_until_ms
                .compare_exchange(until_ms, 0, ok, other)
                .is_ok()
    }

    fn ms(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.since).as_millis();
        u64::try_from(elapsed).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspension_ends_by_itself_and_its_beginning_and_end_are_reported_once() {
        let pooling = Pooling::default();
        let start = Instant::now();
        let later = start + SUSPENSION / 2;
        assert!(pooling.is_allowed(start) && !pooling.has_resumed(start));
        assert!(pooling.suspend(start));
        assert!(!pooling.suspend(later), "it was suspended already");
        assert!(!pooling.is_allowed(start + SUSPENSION));
        let end = later + SUSPENSION;
        assert!(!pooling.has_resumed(end - Duration::from_millis(1)));
        assert!(pooling.is_allowed(end));
        assert!(pooling.has_resumed(end) && !pooling.has_resumed(end));
        assert!(pooling.is_allowed(end) && pooling.suspend(end));
    }
}
