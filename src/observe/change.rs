//! Changes of a state that many threads see, each told once and not too often.
//!
//! A log should say when something became different, not how often it was seen to be so. The end of a
//! trouble is told when it happens. Something that flaps would make a line per request all the same, so
//! a trouble that begins too soon after a change is left for later: it is told if it still holds then.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The shortest time between a change that is told and the beginning of a trouble.
const PAUSE: Duration = Duration::from_secs(5);

/// A state, as it was told last. It begins as 0, which is that of no trouble.
pub struct Change {
    told: AtomicU32,
    since: Instant,
    /// When it was told, in milliseconds after `since`; 0 for never.
    told_at_ms: AtomicU64,
    /// When it was last told that it is no longer 0, in milliseconds after `since`.
    began_at_ms: AtomicU64,
}

impl Change {
    /// The state 0, of which nothing was told yet.
    pub fn new() -> Change {
        Change {
            told: AtomicU32::new(0),
            since: Instant::now(),
            told_at_ms: AtomicU64::new(0),
            began_at_ms: AtomicU64::new(0),
        }
    }

    /// Whether `state` is news to be told at `now`. In the common case, where it is not, this costs
    /// one load.
    pub fn is_news(&self, state: u32, now: Instant) -> bool {
        let told = self.told.load(Ordering::Relaxed);
        if told == state {
            return false;
        }
        let now_ms = self.ms(now);
        let told_at_ms = self.told_at_ms.load(Ordering::Relaxed);
        let is_too_soon = told_at_ms != 0 && now_ms < told_at_ms + PAUSE.as_millis() as u64;
        if is_too_soon && state != 0 {
            return false;
        }
        // Of several threads that see the change at once, one tells it.
        let (ok, other) = (Ordering::Relaxed, Ordering::Relaxed);
        let is_first = self.told.compare_exchange(told, state, ok, other).is_ok();
        if is_first {
            self.told_at_ms.store(now_ms, Ordering::Relaxed);
            if told == 0 {
                self.began_at_ms.store(now_ms, Ordering::Relaxed);
            }
        }
        is_first
    }

    /// Whether it was told last that there is trouble.
    pub fn is_trouble(&self) -> bool {
        self.told.load(Ordering::Relaxed) != 0
    }

    /// How long the trouble has lasted that was told last, or that was just told to be over.
    pub fn lasted(&self, now: Instant) -> Duration {
        let began_at_ms = self.began_at_ms.load(Ordering::Relaxed);
        Duration::from_millis(self.ms(now).saturating_sub(began_at_ms))
    }

    fn ms(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.since).as_millis();
        u64::try_from(elapsed).unwrap_or(u64::MAX).max(1)
    }
}

impl Default for Change {
    fn default() -> Change {
        Change::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_at_once_and_a_flapping_beginning_later() {
        let change = Change::new();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert!(!change.is_news(0, at(10)));
        assert!(change.is_news(1, at(20)));
        assert!(!change.is_news(1, at(30)));
        assert!(change.is_trouble());
        assert!(change.is_news(0, at(40)));
        assert_eq!(change.lasted(at(40)), Duration::from_millis(20));
        assert!(!change.is_news(1, at(50)), "too soon");
        assert!(!change.is_news(0, at(60)));
        assert!(!change.is_trouble());
        assert!(change.is_news(1, at(6000)));
        // Another trouble is none that has begun.
        assert!(change.is_news(7, at(12_000)));
        assert!(change.is_news(0, at(12_001)));
        assert_eq!(change.lasted(at(12_001)), Duration::from_millis(6001));
    }
}
