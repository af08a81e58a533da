//! The minimum data rate of a body.
//!
//! A timeout per read is not enough: a client that sends a byte now and then could hold memory for as long as
//! it likes, and so could an upstream that takes or sends one. A minimum average is not enough either: after a
//! fast start it would hold for a day. So the rate is checked in each period (`timeouts.body`,
//! `timeouts.exchange`), and the minimum grows with the bytes that have moved.

use std::time::{Duration, Instant};

/// The minimum rate in bytes per second. The slowest mobile networks are ten times as fast.
const RATE_BYTES_MIN: usize = 1024;

/// The time in which a body must double its bytes. So a body of 200 MiB needs 100 KiB per second at
/// its end, and takes at most two and a half hours.
const DOUBLING_SECONDS: usize = 2048;

/// Checks the data rate of one body.
pub(crate) struct MinDataRate {
    period: Duration,
    /// The start of the current period.
    since: Instant,
    /// The bytes that had moved at the start of the current period.
    bytes: usize,
}

impl MinDataRate {
    /// For a body that begins at `now`. The rate is checked at the end of each period.
    pub(crate) fn new(period: Duration, now: Instant) -> MinDataRate {
        MinDataRate {
            period,
            since: now,
            bytes: 0,
        }
    }

    /// The fewest bytes that a body must move in its first period.
    pub(crate) fn bytes_min(period: Duration) -> usize {
        let bytes = period.as_millis() * RATE_BYTES_MIN as u128 / 1000;
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// Returns `false` if a period ends at `now` and was too slow. `bytes` of the body have moved.
    pub(crate) fn check(&mut self, bytes: usize, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed < self.period {
            return true;
        }
        let rate = (self.bytes / DOUBLING_SECONDS).max(RATE_BYTES_MIN);
        let expected_bytes = elapsed.as_millis() * rate as u128 / 1000;
        let moved_bytes = bytes.saturating_sub(self.bytes);
        *self = MinDataRate {
            bytes,
            ..MinDataRate::new(self.period, now)
        };
        moved_bytes as u128 >= expected_bytes
    }

    /// Does not count `pause` as time of the transfer.
    pub(crate) fn leave_out(&mut self, pause: Duration) {
        self.since += pause;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(30);
    const MIB: usize = 1024 * 1024;

    #[test]
    fn a_fast_start_does_not_excuse_a_slow_period() {
        let start = Instant::now();
        let mut rate = MinDataRate::new(PERIOD, start);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(rate.check(0, start));
        assert!(rate.check(100 * MIB, at(1)));
        assert!(rate.check(100 * MIB + 1, at(30)));
        // A byte just before the timeout of a read.
        assert!(rate.check(100 * MIB + 2, at(59)));
        assert!(!rate.check(100 * MIB + 3, at(88)));
    }

    #[test]
    fn a_slow_network_is_fast_enough() {
        let start = Instant::now();
        let mut rate = MinDataRate::new(PERIOD, start);
        // 10 KiB per second, with 20 seconds of silence in each minute.
        for second in (0..600_u32).filter(|second| second % 60 < 40) {
            let bytes = 10 * 1024 * (second as usize + 1);
            assert!(rate.check(bytes, start + Duration::from_secs(second.into())));
        }
    }

    #[test]
    fn a_large_body_ends_within_hours_even_at_the_minimum_rate() {
        let start = Instant::now();
        let mut rate = MinDataRate::new(PERIOD, start);
        let mut now = start;
        let mut bytes = 0;
        while bytes < 200 * MIB {
            now += PERIOD;
            bytes += (bytes / DOUBLING_SECONDS).max(RATE_BYTES_MIN) * 30;
            assert!(rate.check(bytes, now));
        }
        let hours = (now - start).as_secs_f64() / 3600.0;
        assert!((2.0..3.5).contains(&hours), "{hours} hours");
        // Slightly less than the minimum.
        assert!(!rate.check(bytes + 30 * 99 * 1024, now + PERIOD));
    }

    #[test]
    fn a_short_period_is_checked_too() {
        let start = Instant::now();
        let mut rate = MinDataRate::new(Duration::from_millis(300), start);
        let at = |millis| start + Duration::from_millis(millis);
        assert!(rate.check(308, at(300)));
        assert!(!rate.check(308 + 306, at(600)));
    }
}
