//! Logs the changes of a state that many threads observe: each change once, and not too often.
//!
//! A log should say when a state changed, not how often it was observed. The end of a problem is logged
//! at once. A state that flaps would still log a line per request, so a problem that starts within
//! [`QUIET_PERIOD`] of the last logged change is not logged then, but later if it still holds.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The minimum time between a logged change and the start of a problem.
const QUIET_PERIOD: Duration = Duration::from_secs(5);

/// A state and when it was last logged. State 0 means that there is no problem, and is the initial one.
pub struct LogOnChange {
    logged: AtomicU32,
    since: Instant,
    /// When the last change was logged, in milliseconds after `since`; 0 for never.
    logged_at_ms: AtomicU64,
    /// When the last problem was first logged, in milliseconds after `since`.
    began_at_ms: AtomicU64,
}

impl LogOnChange {
    pub fn new() -> LogOnChange {
        LogOnChange {
            logged: AtomicU32::new(0),
            since: Instant::now(),
            logged_at_ms: AtomicU64::new(0),
            began_at_ms: AtomicU64::new(0),
        }
    }

    /// Whether the caller should log `state`, observed at `now`. If so, `state` counts as logged. In the
    /// common case, the state is the one that was logged last, and this costs one atomic load.
    pub fn should_log(&self, state: u32, now: Instant) -> bool {
        let logged = self.logged.load(Ordering::Relaxed);
        if logged == state {
            return false;
        }
        let now_ms = self.ms(now);
        let logged_at_ms = self.logged_at_ms.load(Ordering::Relaxed);
        let is_too_soon =
            logged_at_ms != 0 && now_ms < logged_at_ms + QUIET_PERIOD.as_millis() as u64;
        if is_too_soon && state != 0 {
            return false;
        }
        // If several threads observe the change at once, one of them logs it.
        let (ok, other) = (Ordering::Relaxed, Ordering::Relaxed);
        let is_first = self
            .logged
            .compare_exchange(logged, state, ok, other)
            .is_ok();
        if is_first {
            self.logged_at_ms.store(now_ms, Ordering::Relaxed);
            if logged == 0 {
                self.began_at_ms.store(now_ms, Ordering::Relaxed);
            }
        }
        is_first
    }

    /// Whether the last logged state is a problem.
    pub fn is_failing(&self) -> bool {
        self.logged.load(Ordering::Relaxed) != 0
    }

    /// How long the last logged problem has lasted at `now`; once its end is logged, ask at once.
    pub fn lasted(&self, now: Instant) -> Duration {
        let began_at_ms = self.began_at_ms.load(Ordering::Relaxed);
        Duration::from_millis(self.ms(now).saturating_sub(began_at_ms))
    }

    fn ms(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.since).as_millis();
        u64::try_from(elapsed).unwrap_or(u64::MAX).max(1)
    }
}

impl Default for LogOnChange {
    fn default() -> LogOnChange {
        LogOnChange::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_problem_is_logged_at_once_and_a_flapping_start_later() {
        let change = LogOnChange::new();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert!(!change.should_log(0, at(10)));
        assert!(change.should_log(1, at(20)));
        assert!(!change.should_log(1, at(30)));
        assert!(change.is_failing());
        assert!(change.should_log(0, at(40)));
        assert_eq!(change.lasted(at(40)), Duration::from_millis(20));
        assert!(!change.should_log(1, at(50)), "too soon");
        assert!(!change.should_log(0, at(60)));
        assert!(!change.is_failing());
        assert!(change.should_log(1, at(6000)));
        // A different problem does not reset the start.
        assert!(change.should_log(7, at(12_000)));
        assert!(change.should_log(0, at(12_001)));
        assert_eq!(change.lasted(at(12_001)), Duration::from_millis(6001));
    }
}
