//! The minimum data rate of a request body.
//!
//! A byte now and then is not enough: it would hold the bytes before it, and their share of the memory
//! budget, for as long as the sender likes. Nor is a good average enough, which a fast start keeps up for a
//! day. So every period of `timeouts.body` must bring its part, and more of it the more memory is held.

use std::time::{Duration, Instant};

/// How much must come per second at least. The slowest mobile networks bring ten times as much.
const RATE_BYTES_MIN: usize = 1024;

/// The seconds in which a body must bring as much as it holds already. So a body of 200 MiB has to come
/// with 100 KiB per second in the end, and ends within two hours and a half.
const DOUBLING_SECONDS: usize = 2048;

/// The progress of one body.
pub(super) struct MinDataRate {
    period: Duration,
    /// When the current period began, and what had come by then.
    since: Instant,
    bytes: usize,
}

impl MinDataRate {
    /// For a body that begins at `now` and is checked at the end of each period.
    pub(super) fn new(period: Duration, now: Instant) -> MinDataRate {
        MinDataRate {
            period,
            since: now,
            bytes: 0,
        }
    }

    /// `false` if a period has ended at `now` that was too slow, now that `bytes` of the body have come.
    pub(super) fn check(&mut self, bytes: usize, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed < self.period {
            return true;
        }
        let rate = (self.bytes / DOUBLING_SECONDS).max(RATE_BYTES_MIN);
        let expected = elapsed.as_millis() * rate as u128 / 1000;
        let came = bytes.saturating_sub(self.bytes);
        *self = MinDataRate {
            bytes,
            ..MinDataRate::new(self.period, now)
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
        let mut rate = MinDataRate::new(STRETCH, start);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(rate.check(0, start));
        assert!(rate.check(100 * MIB, at(1)));
        assert!(rate.check(100 * MIB + 1, at(30)));
        // A byte just before the patience of a read is over.
        assert!(rate.check(100 * MIB + 2, at(59)));
        assert!(!rate.check(100 * MIB + 3, at(88)));
    }

    #[test]
    fn a_slow_network_is_fast_enough() {
        let start = Instant::now();
        let mut rate = MinDataRate::new(STRETCH, start);
        // 10 KiB per second, with a silence of 20 seconds in each minute.
        for second in (0..600_u32).filter(|second| second % 60 < 40) {
            let bytes = 10 * 1024 * (second as usize + 1);
            assert!(rate.check(bytes, start + Duration::from_secs(second.into())));
        }
    }

    #[test]
    fn the_slowest_sender_of_a_large_body_is_done_with_within_hours() {
        let start = Instant::now();
        let mut rate = MinDataRate::new(STRETCH, start);
        let mut now = start;
        let mut bytes = 0;
        while bytes < 200 * MIB {
            now += STRETCH;
            bytes += (bytes / DOUBLING_SECONDS).max(RATE_BYTES_MIN) * 30;
            assert!(rate.check(bytes, now));
        }
        let hours = (now - start).as_secs_f64() / 3600.0;
        assert!((2.0..3.5).contains(&hours), "{hours} hours");
        // And whoever sends less than that is not.
        assert!(!rate.check(bytes + 30 * 99 * 1024, now + STRETCH));
    }

    #[test]
    fn a_short_period_is_measured_too() {
        let start = Instant::now();
        let mut rate = MinDataRate::new(Duration::from_millis(300), start);
        let at = |millis| start + Duration::from_millis(millis);
        assert!(rate.check(308, at(300)));
        assert!(!rate.check(308 + 306, at(600)));
    }
}
