//! How fast a body has to come.
//!
//! That a byte comes now and then is not enough: it would hold what was sent before, and its share of
//! the memory budget, for as long as the sender likes. Nor is a good average, which whoever begins fast
//! keeps for a day. So every stretch of `timeouts.body` has to bring its part, and more of it the more
//! memory is held.

use std::time::{Duration, Instant};

/// How much must come per second at least. The slowest mobile networks bring ten times as much.
const RATE_BYTES_MIN: usize = 1024;

/// In how many seconds a body must bring as much as it holds already. So one of 200 MiB has to come
/// with 100 KiB per second in the end, and is over within two hours and a half, however slow its sender
/// makes it.
const DOUBLING_SECONDS: usize = 2048;

/// The progress of one body.
pub(super) struct Pace {
    stretch: Duration,
    /// When the current stretch began, and what had come by then.
    since: Instant,
    bytes: usize,
}

impl Pace {
    /// A body that begins at `now`, none of whose stretches of this length may be too slow.
    pub(super) fn new(stretch: Duration, now: Instant) -> Pace {
        Pace {
            stretch,
            since: now,
            bytes: 0,
        }
    }

    /// Whether a body of which `bytes` are held at `now` was fast enough in the stretch that ends.
    pub(super) fn is_kept(&mut self, bytes: usize, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed < self.stretch {
            return true;
        }
        let rate = (self.bytes / DOUBLING_SECONDS).max(RATE_BYTES_MIN);
        let expected = elapsed.as_millis() * rate as u128 / 1000;
        let came = bytes.saturating_sub(self.bytes);
        *self = Pace {
            bytes,
            ..Pace::new(self.stretch, now)
        };
        came as u128 >= expected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRETCH: Duration = Duration::from_secs(30);
    const MIB: usize = 1024 * 1024;

    #[test]
    fn whoever_began_fast_has_to_go_on() {
        let start = Instant::now();
        let mut pace = Pace::new(STRETCH, start);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(pace.is_kept(0, start));
        assert!(pace.is_kept(100 * MIB, at(1)));
        assert!(pace.is_kept(100 * MIB + 1, at(30)));
        // A byte just before the patience of a read is over.
        assert!(pace.is_kept(100 * MIB + 2, at(59)));
        assert!(!pace.is_kept(100 * MIB + 3, at(88)));
    }

    #[test]
    fn a_slow_network_is_fast_enough() {
        let start = Instant::now();
        let mut pace = Pace::new(STRETCH, start);
        // 10 KiB per second, with a silence of 20 seconds in each minute.
        for second in (0..600_u32).filter(|second| second % 60 < 40) {
            let bytes = 10 * 1024 * (second as usize + 1);
            assert!(pace.is_kept(bytes, start + Duration::from_secs(second.into())));
        }
    }

    #[test]
    fn the_slowest_sender_of_a_large_body_is_done_with_within_hours() {
        let start = Instant::now();
        let mut pace = Pace::new(STRETCH, start);
        let mut now = start;
        let mut bytes = 0;
        while bytes < 200 * MIB {
            now += STRETCH;
            bytes += (bytes / DOUBLING_SECONDS).max(RATE_BYTES_MIN) * 30;
            assert!(pace.is_kept(bytes, now));
        }
        let hours = (now - start).as_secs_f64() / 3600.0;
        assert!((2.0..3.5).contains(&hours), "{hours} hours");
        // And whoever sends less than that is not.
        assert!(!pace.is_kept(bytes + 30 * 99 * 1024, now + STRETCH));
    }

    #[test]
    fn a_short_stretch_is_measured_too() {
        let start = Instant::now();
        let mut pace = Pace::new(Duration::from_millis(300), start);
        let at = |millis| start + Duration::from_millis(millis);
        assert!(pace.is_kept(308, at(300)));
        assert!(!pace.is_kept(308 + 306, at(600)));
    }
}
