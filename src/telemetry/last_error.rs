//! The last error, with its time.
//!
//! Failures can come thousands of times a second, so at most one per second is recorded, and the text is
//! only formatted for that one. The lock is shared by one worker and the readers of the error; the
//! worker never waits for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime};

/// The minimum time between two recorded errors, in milliseconds.
const INTERVAL_MS: u64 = 1000;

/// The last error that one worker saw.
pub struct LastError {
    since: Instant,
    /// When it was recorded, in milliseconds after `since`; 0 for never.
    recorded_at_ms: AtomicU64,
    last: Mutex<Option<RecordedError>>,
}

#[derive(Clone, Debug)]
pub struct RecordedError {
    pub at: SystemTime,
    pub message: String,
}

impl LastError {
    /// Records the error that occurred at `now`, unless one was recorded within the last second.
    pub fn record(&self, now: Instant, message: impl FnOnce() -> String) {
        let elapsed = now.saturating_duration_since(self.since).as_millis();
        let now_ms = u64::try_from(elapsed).unwrap_or(u64::MAX).max(1);
        let recorded_at_ms = self.recorded_at_ms.load(Ordering::Relaxed);
        if recorded_at_ms != 0 && now_ms < recorded_at_ms.saturating_add(INTERVAL_MS) {
            return;
        }
        if let Ok(mut last) = self.last.try_lock() {
            self.recorded_at_ms.store(now_ms, Ordering::Relaxed);
            *last = Some(RecordedError {
                at: SystemTime::now(),
                message: message(),
            });
        }
    }

    pub fn get(&self) -> Option<RecordedError> {
        let last = self.last.lock();
        last.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Default for LastError {
    fn default() -> LastError {
        LastError {
            since: Instant::now(),
            recorded_at_ms: AtomicU64::new(0),
            last: Mutex::new(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn at_most_one_error_per_second_is_recorded() {
        let last_error = LastError::default();
        assert!(last_error.get().is_none());
        let start = Instant::now();
        last_error.record(start, || "first".to_owned());
        last_error.record(start, || panic!("formatted too soon"));
        assert_eq!(last_error.get().unwrap().message, "first");
        last_error.record(start + Duration::from_secs(2), || "second".to_owned());
        assert_eq!(last_error.get().unwrap().message, "second");
    }
}
