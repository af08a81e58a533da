//! What happens often and is told once in a while.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Lets something be told at most once in a time, however many threads see it.
pub struct Throttle {
    pause: Duration,
    since: Instant,
    /// When it was told, in milliseconds after `since` and one more; 0 for never.
    told_at_ms: AtomicU64,
}

impl Throttle {
    /// For something to be told once in `pause`; the first time it is at once.
    pub fn new(pause: Duration) -> Throttle {
        Throttle {
            pause,
            since: Instant::now(),
            told_at_ms: AtomicU64::new(0),
        }
    }

    /// Whether it is to be told at `now`.
    pub fn is_due(&self, now: Instant) -> bool {
        let milliseconds =
            |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let now_ms = milliseconds(now.saturating_duration_since(self.since)).saturating_add(1);
        let told_at_ms = self.told_at_ms.load(Ordering::Relaxed);
        if told_at_ms != 0 && now_ms < told_at_ms.saturating_add(milliseconds(self.pause)) {
            return false;
        }
        // Of several threads that see it at once, one tells it.
        let (ok, other) = (Ordering::Relaxed, Ordering::Relaxed);
        let told = self
            .told_at_ms
            .compare_exchange(told_at_ms, now_ms, ok, other);
        told.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_often_is_told_at_once_and_then_after_each_pause() {
        let throttle = Throttle::new(Duration::from_secs(60));
        let start = Instant::now();
        let told: Vec<u64> = (0..150)
            .filter(|second| throttle.is_due(start + Duration::from_secs(*second)))
            .collect();
        assert_eq!(told, [0, 60, 120]);
    }
}
