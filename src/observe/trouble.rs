//! What went wrong last, with its time.
//!
//! Something that fails does so many times a second, so a note is made at most once a second, and the
//! text is only made for that. The lock is between one worker and whoever looks at the note; the worker
//! does not wait for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime};

/// The shortest time between two notes, in milliseconds.
const PAUSE_MS: u64 = 1000;

/// The last thing that went wrong, as one worker saw it.
pub struct Trouble {
    since: Instant,
    /// When the note was made, in milliseconds after `since`; 0 for never.
    noted_at_ms: AtomicU64,
    last: Mutex<Option<Note>>,
}

/// Something that went wrong.
#[derive(Clone, Debug)]
pub struct Note {
    /// When.
    pub at: SystemTime,
    /// What.
    pub what: String,
}

impl Trouble {
    /// Notes what went wrong at `now`, unless there is a note of the same second.
    pub fn note(&self, now: Instant, what: impl FnOnce() -> String) {
        let elapsed = now.saturating_duration_since(self.since).as_millis();
        let now_ms = u64::try_from(elapsed).unwrap_or(u64::MAX).max(1);
        let noted_at_ms = self.noted_at_ms.load(Ordering::Relaxed);
        if noted_at_ms != 0 && now_ms < noted_at_ms.saturating_add(PAUSE_MS) {
            return;
        }
        if let Ok(mut last) = self.last.try_lock() {
            self.noted_at_ms.store(now_ms, Ordering::Relaxed);
            *last = Some(Note {
                at: SystemTime::now(),
                what: what(),
            });
        }
    }

    /// The last note.
    pub fn last(&self) -> Option<Note> {
        let last = self.last.lock();
        last.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Default for Trouble {
    fn default() -> Trouble {
        Trouble {
            since: Instant::now(),
            noted_at_ms: AtomicU64::new(0),
            last: Mutex::new(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_note_a_second_is_kept() {
        let trouble = Trouble::default();
        assert!(trouble.last().is_none());
        let start = Instant::now();
        trouble.note(start, || "first".to_owned());
        trouble.note(start, || panic!("too soon to be made"));
        assert_eq!(trouble.last().unwrap().what, "first");
        trouble.note(start + Duration::from_secs(2), || "second".to_owned());
        assert_eq!(trouble.last().unwrap().what, "second");
    }
}
