//! A time that threads share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A time after it was made, with a resolution of a millisecond, or none.
pub(super) struct SharedTime {
    origin: Instant,
    /// Milliseconds after `origin`; 0 for none.
    ms: AtomicU64,
}

impl Default for SharedTime {
    fn default() -> SharedTime {
        SharedTime {
            origin: Instant::now(),
            ms: AtomicU64::new(0),
        }
    }
}

impl Clone for SharedTime {
    fn clone(&self) -> SharedTime {
        SharedTime {
            origin: self.origin,
            ms: AtomicU64::new(self.ms.load(Ordering::Relaxed)),
        }
    }
}

impl SharedTime {
    /// If there is none, this costs one load.
    pub(super) fn get(&self) -> Option<Instant> {
        self.time(self.ms.load(Ordering::Relaxed))
    }

    /// Sets it, and returns what it was before.
    pub(super) fn replace(&self, time: Instant) -> Option<Instant> {
        self.time(self.ms.swap(self.ms(time), Ordering::Relaxed))
    }

    /// Sets it to none if it is `time`, which [`SharedTime::get`] has returned. Of several threads, one gets `true`.
    pub(super) fn clear(&self, time: Instant) -> bool {
        let (ok, other) = (Ordering::Relaxed, Ordering::Relaxed);
        let cleared = self.ms.compare_exchange(self.ms(time), 0, ok, other);
        cleared.is_ok()
    }

    fn time(&self, ms: u64) -> Option<Instant> {
        match ms {
            0 => None,
            ms => self.origin.checked_add(Duration::from_millis(ms)),
        }
    }

    fn ms(&self, time: Instant) -> u64 {
        let elapsed = time.saturating_duration_since(self.origin).as_millis();
        u64::try_from(elapsed).unwrap_or(u64::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_kept_until_it_is_replaced_or_cleared() {
        let shared = SharedTime::default();
        assert_eq!(shared.get(), None);
        let [first, second] = [7, 9].map(|ms| shared.origin + Duration::from_millis(ms));
        assert_eq!(shared.replace(first), None);
        assert_eq!(shared.clone().get(), Some(first));
        assert_eq!(shared.replace(second), Some(first));
        assert!(!shared.clear(first));
        assert_eq!(shared.get(), Some(second));
        assert!(shared.clear(second) && !shared.clear(second));
        assert_eq!(shared.get(), None);
    }

    #[test]
    fn the_time_it_was_made_at_is_not_taken_for_none() {
        let shared = SharedTime::default();
        shared.replace(shared.origin);
        assert_eq!(shared.get(), Some(shared.origin + Duration::from_millis(1)));
    }
}
