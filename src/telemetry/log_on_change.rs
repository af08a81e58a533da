//! Logs the changes of a state that many threads observe: each change once, and not too often.
//!
//! A log should say when a state changed, not how often it was observed. The end of a problem is logged
//! at once. A state that flaps would still log a line per request, so a problem that starts within
//! [`QUIET_PERIOD`] of the last logged change is not logged then, but later if it still holds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The minimum time between a logged change and the start of a problem.
const QUIET_PERIOD: Duration = Duration::from_secs(5);

/// A state that is observed, and when it was last logged. State 0 means that there is no problem, and is the
/// initial one.
pub struct LogOnChange {
    /// The state that was logged last in the upper half, the state that was observed last in the lower half.
    states: AtomicU64,
    since: Instant,
    /// When the last change was logged, in milliseconds after `since`; 0 for never.
    logged_at_ms: AtomicU64,
    /// When the last problem was first observed, in milliseconds after `since`.
    began_at_ms: AtomicU64,
}

/// What an observation changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Whether a problem began or ended. This does not depend on what was logged.
    pub is_turn: bool,
    /// Whether the caller should log the state. The end of a problem whose start was not logged is not logged.
    pub is_logged: bool,
}

impl LogOnChange {
    pub fn new() -> LogOnChange {
        LogOnChange {
            states: AtomicU64::new(0),
            since: Instant::now(),
            logged_at_ms: AtomicU64::new(0),
            began_at_ms: AtomicU64::new(0),
        }
    }

    /// Whether the caller should log `state`, observed at `now`. If so, `state` counts as logged.
    pub fn should_log(&self, state: u32, now: Instant) -> bool {
        self.observe(state, now).is_logged
    }

    /// Notes `state`, observed at `now`. If several threads observe a change at once, one of them gets it. In the
    /// common case, the state is the one of the last observation, and this costs one atomic load.
    pub fn observe(&self, state: u32, now: Instant) -> Change {
        let next = |before: u64| {
            let after = match before == pack(state, state) {
                true => before,
                false => pack(self.to_log(before, state, now), state),
            };
            (after != before).then_some(after)
        };
        let (ok, other) = (Ordering::Relaxed, Ordering::Relaxed);
        let Ok(before) = self.states.fetch_update(ok, other, next) else {
            return Change::default();
        };
        let was_failing = observed(before) != 0;
        let change = Change {
            is_turn: was_failing != (state != 0),
            is_logged: self.to_log(before, state, now) != logged(before),
        };
        if change.is_turn && state != 0 {
            self.began_at_ms.store(self.ms(now), Ordering::Relaxed);
        }
        if change.is_logged {
            self.logged_at_ms.store(self.ms(now), Ordering::Relaxed);
        }
        change
    }

    /// The state that is logged last once `state` is observed.
    fn to_log(&self, before: u64, state: u32, now: Instant) -> u32 {
        let logged_at_ms = self.logged_at_ms.load(Ordering::Relaxed);
        let quiet_until_ms = logged_at_ms + QUIET_PERIOD.as_millis() as u64;
        let is_too_soon = logged_at_ms != 0 && self.ms(now) < quiet_until_ms;
        match is_too_soon && state != 0 {
            true => logged(before),
            false => state,
        }
    }

    /// Whether the last observed state is a problem, logged or not.
    pub fn is_failing(&self) -> bool {
        observed(self.states.load(Ordering::Relaxed)) != 0
    }

    /// How long the last problem has lasted at `now`; once its end is observed, ask at once.
    pub fn lasted(&self, now: Instant) -> Duration {
        let began_at_ms = self.began_at_ms.load(Ordering::Relaxed);
        Duration::from_millis(self.ms(now).saturating_sub(began_at_ms))
    }

    fn ms(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.since).as_millis();
        u64::try_from(elapsed).unwrap_or(u64::MAX).max(1)
    }
}

fn pack(logged: u32, observed: u32) -> u64 {
    u64::from(logged) << 32 | u64::from(observed)
}

fn logged(states: u64) -> u32 {
    (states >> 32) as u32
}

fn observed(states: u64) -> u32 {
    states as u32
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

    #[test]
    fn each_problem_turns_twice_however_soon_it_comes() {
        let change = LogOnChange::new();
        let start = Instant::now();
        let both = |is_turn, is_logged| Change { is_turn, is_logged };
        for (ms, state, expected) in [
            (10, 0, both(false, false)),
            (20, 403, both(true, true)),
            (30, 403, both(false, false)),
            (40, 0, both(true, true)),
            // Too soon for the log.
            (50, 403, both(true, false)),
            (60, 500, both(false, false)),
            (70, 0, both(true, false)),
            (80, 500, both(true, false)),
            // It still holds.
            (5040, 500, both(false, true)),
            (5050, 0, both(true, true)),
        ] {
            let at = start + Duration::from_millis(ms);
            assert_eq!(change.observe(state, at), expected, "at {ms} ms");
            assert_eq!(change.is_failing(), state != 0, "at {ms} ms");
            if ms == 5050 {
                assert_eq!(change.lasted(at), Duration::from_millis(4970));
            }
        }
    }
}
