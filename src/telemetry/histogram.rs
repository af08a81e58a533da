//! Histograms of durations with fixed buckets.
//!
//! With fixed bounds, recording is a binary search among 20 numbers and merging workers is an addition.
//! All histograms have the same bounds, so their graphs can be compared. They range from the latency of
//! a fast upstream to the default `timeouts.exchange`.

use std::time::{Duration, Instant};

use super::counters::Counter;

/// The upper bounds of the buckets, in microseconds. One more bucket holds what exceeds the last.
///
/// Requests that end with the default `reply_timeout` take slightly more than 1.5 s. A bound at 1.5 s
/// would put all of them into the bucket above, and quantiles, which are interpolated within a bucket,
/// would show 2 s and more. The narrow bucket around 1.5 s avoids that. Above it, the upper
/// bound of a bucket is at most twice its lower bound, so that the quantiles of slow upstreams are near the truth.
pub(crate) const BOUNDS_US: [u64; 20] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    1_450_000, 1_550_000, 2_500_000, 3_500_000, 5_000_000, 7_000_000, 10_000_000, 15_000_000,
    30_000_000,
];

pub(crate) const BUCKETS: usize = BOUNDS_US.len() + 1;

/// The durations that one worker has recorded.
#[derive(Default)]
pub struct Histogram {
    buckets: [Counter; BUCKETS],
    sum_us: Counter,
}

impl Histogram {
    pub fn record_since(&self, start: Instant) {
        self.record(start.elapsed());
    }

    pub fn record(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < micros);
        if let Some(count) = self.buckets.get(bucket) {
            count.inc();
        }
        self.sum_us.add(micros);
    }
}

/// The sum of the histograms of several workers at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Distribution {
    /// The number of durations in each bucket; not cumulative.
    pub buckets: [u64; BUCKETS],
    pub sum_us: u64,
}

impl Distribution {
    pub(crate) fn from_histograms<'h>(
        histograms: impl Iterator<Item = &'h Histogram>,
    ) -> Distribution {
        let mut total = Distribution::default();
        for histogram in histograms {
            for (sum, count) in total.buckets.iter_mut().zip(&histogram.buckets) {
                *sum += count.get();
            }
            total.sum_us += histogram.sum_us.get();
        }
        total
    }

    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    pub(crate) fn add(&mut self, other: &Distribution) {
        for (sum, count) in self.buckets.iter_mut().zip(other.buckets) {
            *sum += count;
        }
        self.sum_us += other.sum_us;
    }

    /// The increase since `earlier`.
    pub(crate) fn since(&self, earlier: &Distribution) -> Distribution {
        let mut increase = self.clone();
        for (bucket, before) in increase.buckets.iter_mut().zip(&earlier.buckets) {
            *bucket = bucket.saturating_sub(*before);
        }
        increase.sum_us = self.sum_us.saturating_sub(earlier.sum_us);
        increase
    }

    /// The share of durations that are longer than `limit`, interpolated within its bucket; 0 without any.
    pub(crate) fn share_over(&self, limit: Duration) -> f64 {
        let limit_us = limit.as_micros() as f64;
        let mut lower = 0.0;
        let mut over = 0.0;
        for (index, in_bucket) in self.buckets.iter().enumerate() {
            // All in the last bucket are longer than its lower bound.
            let upper = BOUNDS_US
                .get(index)
                .map_or(f64::INFINITY, |upper| *upper as f64);
            let above = match (limit_us <= lower, limit_us < upper) {
                (true, _) => 1.0,
                (false, true) if upper.is_finite() => (upper - limit_us) / (upper - lower),
                (false, _) => 0.0,
            };
            over += *in_bucket as f64 * above;
            lower = upper;
        }
        match self.count() {
            0 => 0.0,
            count => over / count as f64,
        }
    }

    /// The mean in seconds, which unlike a quantile is exact. `None` if there are no durations.
    pub(crate) fn mean(&self) -> Option<f64> {
        let count = self.count();
        (count > 0).then(|| self.sum_us as f64 / 1e6 / count as f64)
    }

    /// The duration, in seconds, that the fraction `share` did not exceed, interpolated within its
    /// bucket. `None` if there are no durations.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = share * count as f64;
        let mut below = 0.0;
        let mut lower = 0;
        for (index, in_bucket) in self.buckets.iter().enumerate() {
            let in_bucket = *in_bucket as f64;
            // The last bucket has no upper bound to interpolate to.
            let upper = BOUNDS_US.get(index).copied().unwrap_or(lower);
            if in_bucket > 0.0 && below + in_bucket >= rank {
                let position = ((rank - below) / in_bucket).clamp(0.0, 1.0);
                let micros = lower as f64 + position * (upper - lower) as f64;
                return Some(micros / 1e6);
            }
            below += in_bucket;
            lower = upper;
        }
        Some(lower as f64 / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(millis: &[u64]) -> Distribution {
        let histogram = Histogram::default();
        for millis in millis {
            histogram.record(Duration::from_millis(*millis));
        }
        Distribution::from_histograms([&histogram].into_iter())
    }

    #[test]
    fn an_upper_bound_is_inclusive() {
        let total = recorded(&[0, 1, 2, 30_000, 30_001, 999_999]);
        let mut expected = [0; BUCKETS];
        expected[0] = 1;
        expected[1] = 1;
        expected[2] = 1;
        expected[19] = 1;
        expected[20] = 2;
        assert_eq!(total.buckets, expected);
        assert_eq!(total.count(), 6);
        assert_eq!(total.sum_us, 1_060_003_000);
    }

    #[test]
    fn the_share_over_a_limit_is_interpolated() {
        let over =
            |millis: &[u64], limit| recorded(millis).share_over(Duration::from_millis(limit));
        assert_eq!(over(&[], 1500), 0.0);
        assert_eq!(over(&[1, 2, 1600, 1400], 1500), 0.25);
        assert_eq!(over(&[1500], 1500), 0.5, "in the middle of its bucket");
        assert_eq!(over(&[1, 20_000, 60_000], 30_000), 1.0 / 3.0);
        assert_eq!(over(&[60_000], 40_000), 0.0, "where it ends is unknown");
        assert_eq!(over(&[5, 7], 0), 1.0);
    }

    #[test]
    fn a_quantile_lies_in_the_bucket_of_its_rank() {
        assert_eq!(recorded(&[]).quantile(0.5), None);
        let hundred: Vec<u64> = (1..=100).collect();
        let total = recorded(&hundred);
        let median = total.quantile(0.5).unwrap();
        assert!((0.025..=0.051).contains(&median), "{median}");
        let last = total.quantile(0.99).unwrap();
        assert!((0.05..=0.1).contains(&last), "{last}");
        assert_eq!(recorded(&[60_000]).quantile(0.5), Some(30.0));
    }

    #[test]
    fn quantiles_of_requests_at_reply_timeout_are_near_it() {
        let total = recorded(&[1501; 100]);
        for share in [0.01, 0.5, 0.9, 0.99, 1.0] {
            let shown = total.quantile(share).unwrap();
            assert!((1.45..=1.55).contains(&shown), "{share}: {shown}");
        }
    }

    #[test]
    fn durations_of_a_slow_upstream_are_told_apart() {
        for millis in [2_700, 3_000, 4_000, 6_000, 9_000, 12_000] {
            let total = recorded(&[millis; 50]);
            let median = total.quantile(0.5).unwrap();
            let error = median / (millis as f64 / 1e3) - 1.0;
            assert!(error.abs() < 0.2, "{millis} ms: {median} s");
            assert_eq!(total.mean(), Some(millis as f64 / 1e3));
        }
        assert_eq!(recorded(&[]).mean(), None);
    }

    #[test]
    fn since_is_the_inverse_of_add() {
        let (earlier, later) = (recorded(&[1, 20]), recorded(&[1, 20, 20, 70]));
        let mut increase = later.since(&earlier);
        assert_eq!(increase.count(), 2);
        assert_eq!(increase.sum_us, 90_000);
        increase.add(&earlier);
        assert_eq!(increase, later);
    }
}
