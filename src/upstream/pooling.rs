//! Whether the connections to an origin may be used again.
//!
//! HTTP/1.1 has nothing that says which request an answer belongs to but their order on a connection. An
//! upstream that sends more than it was asked for has lost that order, and what it sends next may come at
//! any moment: after the look that a connection gets before it is used again, too. No look can see that,
//! so an origin that was seen to do it once is taken to do it again: for a while each of its connections
//! serves one request and is closed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long the connections to an origin are not used again once an answer came that nobody had asked for.
pub(crate) const SUSPENSION: Duration = Duration::from_secs(300);

/// The state of one origin, for all workers.
pub(crate) struct Pooling {
    since: Instant,
    /// When it is allowed again, in milliseconds after `since`; 0 while it is allowed.
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
    /// Takes over how things stand with `other`, which is about the same origin.
    pub(crate) fn follow(&mut self, other: &Pooling) {
        self.since = other.since;
        *self.suspended_until_ms.get_mut() = other.suspended_until_ms.load(Ordering::Relaxed);
    }

    /// Whether connections may be used again at `now`. In the common case this costs one load.
    pub(crate) fn is_allowed(&self, now: Instant) -> bool {
        let until_ms = self.suspended_until_ms.load(Ordering::Relaxed);
        until_ms == 0 || self.ms(now) >= until_ms
    }

    /// Suspends it from `now` on; whether it was allowed before.
    pub(crate) fn suspend(&self, now: Instant) -> bool {
        let was_allowed = self.is_allowed(now);
        let until_ms = self.ms(now + SUSPENSION);
        let before_ms = self.suspended_until_ms.swap(until_ms, Ordering::Relaxed);
        // Of several threads that see it at once, one says it.
        was_allowed && (before_ms == 0 || self.ms(now) >= before_ms)
    }

    /// Whether a suspension is over at `now`. It says so once.
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
    fn a_suspension_ends_by_itself_and_begins_and_ends_once() {
        let pooling = Pooling::default();
        let start = Instant::now();
        let later = start + SUSPENSION / 2;
        assert!(pooling.is_allowed(start) && !pooling.has_resumed(start));
        assert!(pooling.suspend(start));
        assert!(!pooling.suspend(later), "it lasts longer, which is no news");
        assert!(!pooling.is_allowed(start + SUSPENSION));
        let end = later + SUSPENSION;
        assert!(!pooling.has_resumed(end - Duration::from_millis(1)));
        assert!(pooling.is_allowed(end));
        assert!(pooling.has_resumed(end) && !pooling.has_resumed(end));
        assert!(pooling.is_allowed(end) && pooling.suspend(end));
    }
}
