//! Failing fast while an upstream is down.
//!
//! After some failures in a row nothing is sent for a while, so that a dead upstream holds no memory
//! and no connections for the length of a timeout per request. Then one delivery goes as a probe:
//! its answer closes the breaker, its failure makes the next pause twice as long. Pauses are
//! shortened by chance, so that the workers of many mirrors do not all come back at once.
//!
//! Only failures without any answer count. An upstream that answers 503 is quick about it, and its
//! answers matter to the SDK.

use std::cell::Cell;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use crate::limits::Limits;
use crate::upstream::counters::BreakerState;

/// The state of one origin, as one worker sees it.
#[derive(Default)]
pub struct Breaker {
    failures_in_a_row: Cell<u32>,
    /// Until when nothing is sent; `None` while it is closed.
    open_until: Cell<Option<Instant>>,
    /// Whether the probe is under way.
    is_probing: Cell<bool>,
}

impl Breaker {
    /// Whether a delivery may be sent at `now`. After `true`, [`Breaker::answered`] or
    /// [`Breaker::failed`] must follow.
    pub fn admits(&self, now: Instant, limits: &Limits) -> bool {
        match self.open_until.get() {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                self.is_probing.set(true);
                // Whatever becomes of the probe, its time is over then.
                self.open_until.set(Some(now + limits.exchange_timeout));
                true
            }
        }
    }

    /// What it lets through at `now`.
    pub fn state(&self, now: Instant) -> BreakerState {
        match self.open_until.get() {
            None => BreakerState::Closed,
            Some(until) if until <= now => BreakerState::Due,
            Some(_) if self.is_probing.get() => BreakerState::Probing,
            Some(_) => BreakerState::Open,
        }
    }

    /// Takes note of an answer.
    pub fn answered(&self) {
        self.failures_in_a_row.set(0);
        self.open_until.set(None);
        self.is_probing.set(false);
    }

    /// Takes note of a delivery that says nothing about the upstream.
    pub fn passed(&self, now: Instant) {
        if self.is_probing.replace(false) {
            // The next one is the probe.
            self.open_until.set(Some(now));
        }
    }

    /// Takes note of a failure.
    pub fn failed(&self, now: Instant, limits: &Limits) {
        // Of those that were sent before it opened, only the probe's outcome is news.
        if self.open_until.get().is_some() && !self.is_probing.replace(false) {
            return;
        }
        let failures = self.failures_in_a_row.get().saturating_add(1);
        self.failures_in_a_row.set(failures);
        if let Some(reopenings) = failures.checked_sub(limits.breaker_failures) {
            let pause = limits
                .breaker_pause
                .saturating_mul(1 << reopenings.min(16))
                .min(limits.breaker_pause_max);
            self.open_until.set(Some(now + shortened(pause)));
        }
    }
}

/// Between half of `pause` and all of it.
fn shortened(pause: Duration) -> Duration {
    // The keys of a RandomState differ from one to the next; that is chance enough for this.
    let chance = RandomState::new().hash_one(()) % 1024;
    pause.mul_f64(0.5 + 0.5 * (chance as f64 / 1024.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            breaker_failures: 3,
            breaker_pause: Duration::from_secs(1),
            breaker_pause_max: Duration::from_secs(3),
            ..Limits::default()
        }
    }

    #[test]
    fn it_opens_after_failures_in_a_row_only() {
        let breaker = Breaker::default();
        let now = Instant::now();
        for _ in 0..10 {
            for _ in 0..2 {
                assert!(breaker.admits(now, &limits()));
                breaker.failed(now, &limits());
            }
            assert!(breaker.admits(now, &limits()));
            breaker.answered();
        }
        for _ in 0..3 {
            assert!(breaker.admits(now, &limits()));
            breaker.failed(now, &limits());
        }
        assert_eq!(breaker.state(now), BreakerState::Open);
        assert!(!breaker.admits(now, &limits()));
    }

    #[test]
    fn without_traffic_it_does_not_look_open_for_ever() {
        let breaker = Breaker::default();
        let start = Instant::now();
        for _ in 0..3 {
            breaker.failed(start, &limits());
        }
        let due = start + Duration::from_secs(1);
        assert_eq!(breaker.state(due), BreakerState::Due);
        assert!(breaker.admits(due, &limits()));
        assert_eq!(breaker.state(due), BreakerState::Probing);
        // Nothing was heard of the probe.
        let later = due + limits().exchange_timeout;
        assert_eq!(breaker.state(later), BreakerState::Due);
        assert!(breaker.admits(later, &limits()));
    }

    #[test]
    fn after_the_pause_one_probe_decides() {
        let breaker = Breaker::default();
        let start = Instant::now();
        for _ in 0..3 {
            breaker.failed(start, &limits());
        }
        assert!(!breaker.admits(start + Duration::from_millis(499), &limits()));
        let later = start + Duration::from_secs(1);
        assert!(breaker.admits(later, &limits()));
        assert_eq!(breaker.state(later), BreakerState::Probing);
        assert!(!breaker.admits(later, &limits()), "one probe at a time");
        // The failure of one that was sent earlier says nothing about the probe.
        breaker.answered();
        assert_eq!(breaker.state(later), BreakerState::Closed);
        assert!(breaker.admits(later, &limits()) && breaker.admits(later, &limits()));
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_late_failures_do_not_count() {
        let breaker = Breaker::default();
        let mut now = Instant::now();
        for _ in 0..3 {
            breaker.failed(now, &limits());
        }
        for longest in [1, 2, 3, 3, 3] {
            let longest = Duration::from_secs(longest);
            let until = breaker.open_until.get().unwrap();
            assert!(until >= now + longest / 2 && until <= now + longest);
            breaker.failed(now, &limits());
            assert_eq!(breaker.open_until.get(), Some(until));
            now = until;
            assert!(breaker.admits(now, &limits()));
            breaker.failed(now, &limits());
        }
    }
}
