//! Rate-limits log lines about frequent events.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Allows an event to be logged once per interval, however many threads observe it.
pub struct Throttle {
    interval: Duration,
    since: Instant,
    /// When it was last logged, in milliseconds after `since`, plus one; 0 for never.
    logged_at_ms: AtomicU64,
}

impl Throttle {
    pub fn new(interval: Duration) -> Throttle {
        Throttle {
            interval,
            since: Instant::now(),
            logged_at_ms: AtomicU64::new(0),
        }
    }

    /// Whether the caller should log the event, observed at `now`.
    pub fn is_due(&self, now: Instant) -> bool {
        let milliseconds =
            |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let now_ms = milliseconds(now.saturating_duration_since(self.since)).saturating_add(1);
        let logged_at_ms = self.logged_at_ms.load(Ordering::Relaxed);
        if logged_at_ms != 0 && now_ms < logged_at_ms.saturating_add(milliseconds(self.interval)) {
            return false;
        }
        // If several threads observe it at once, one of them logs it.
        let (ok, other) = (Ordering::Relaxed, Ordering::Relaxed);
        let exchanged = self
            .logged_at_ms
            .compare_exchange(logged_at_ms, now_ms, ok, other);
        exchanged.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_event_is_logged_and_then_one_per_interval() {
        let throttle = Throttle::new(Duration::from_secs(60));
        let start = Instant::now();
        let logged: Vec<u64> = (0..150)
            .filter(|second| throttle.is_due(start + Duration::from_secs(*second)))
            .collect();
        assert_eq!(logged, [0, 60, 120]);
    }
}
