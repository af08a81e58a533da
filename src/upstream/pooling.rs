//! Suspends the reuse of connections to an origin that sends unsolicited data.
//!
//! In HTTP/1.1 only the order on a connection says which request a response belongs to. An upstream that
//! sends more than it was asked for has lost that order, and may send the next surplus response at any
//! time, also after a pooled connection was checked and before its next request is sent. No check can
//! detect that. So once an origin has sent unsolicited data, each of its connections serves only one
//! request for a while.

use std::time::{Duration, Instant};

use crate::upstream::shared_time::SharedTime;

/// How long an origin's connections are not reused after it sent unsolicited data.
pub(crate) const SUSPENSION: Duration = Duration::from_secs(300);

/// Shared by all workers.
#[derive(Default)]
pub(crate) struct Pooling {
    suspended_until: SharedTime,
}

impl Pooling {
    /// Takes over the state of `other`, which is about the same origin.
    pub(crate) fn copy_from(&mut self, other: &Pooling) {
        self.suspended_until = other.suspended_until.clone();
    }

    /// Whether connections may be reused. In the common case this costs one load.
    pub(crate) fn is_allowed(&self, now: Instant) -> bool {
        self.suspended_until.get().is_none_or(|until| now >= until)
    }

    /// Suspends reuse from `now` on. Returns whether it was allowed before.
    pub(crate) fn suspend(&self, now: Instant) -> bool {
        let before = self.suspended_until.replace(now + SUSPENSION);
        // Of several threads at the same time, only one returns `true`.
        before.is_none_or(|until| now >= until)
    }

    /// Whether a suspension is over. Returns `true` once.
    pub(crate) fn has_resumed(&self, now: Instant) -> bool {
        let until = self.suspended_until.get();
        until.is_some_and(|until| now >= until && self.suspended_until.clear(until))
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
