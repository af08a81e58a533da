//! Pauses with a random jitter, so that the workers of many mirrors do not all come back at once.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

/// A pause that has begun. Its length is a random part of what is asked for, between half and all.
pub(super) struct Pause {
    begun: Instant,
    part: f64,
}

impl Pause {
    pub(super) fn begin(now: Instant) -> Pause {
        // Each RandomState has other keys, which is random enough for this.
        let random = RandomState::new().hash_one(()) % 1024;
        Pause {
            begun: now,
            part: 0.5 + 0.5 * (random as f64 / 1024.0),
        }
    }

    /// The end if the longest length is `longest`, which a reload may change meanwhile.
    pub(super) fn end(&self, longest: Duration) -> Instant {
        self.begun + longest.mul_f64(self.part)
    }
}
