//! How long things took, in buckets whose borders are fixed.
//!
//! Fixed borders make recording a search among sixteen numbers and adding up over workers a sum. They
//! are the same for everything that is measured, so that pictures can be compared, and reach from what
//! a fast upstream needs to the longest that a delivery may take by default.

use std::time::{Duration, Instant};

use super::counters::Count;

/// The upper borders of the buckets, in microseconds; above the last is one more bucket.
///
/// What ends with the default of `reply_timeout` takes a little more than 1.5 s. A border there would put
/// all of it into the bucket above, and quantiles, which lie somewhere inside their bucket, would say 2 s
/// and more. So there is a narrow bucket around it.
pub(crate) const BORDERS_US: [u64; 17] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    1_450_000, 1_550_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000,
];

/// How many buckets there are.
pub(crate) const BUCKETS: usize = BORDERS_US.len() + 1;

/// What one worker has measured.
#[derive(Default)]
pub struct Histogram {
    buckets: [Count; BUCKETS],
    sum_us: Count,
}

impl Histogram {
    /// Takes note of something that began at `start` and has ended now.
    pub fn record_since(&self, start: Instant) {
        // Without counting nobody has to know what time it is.
        if !cfg!(uncounted) {
            self.record(start.elapsed());
        }
    }

    /// Takes note of something that took so long.
    pub fn record(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BORDERS_US.partition_point(|border| *border < micros);
        if let Some(count) = self.buckets.get(bucket) {
            count.count();
        }
        self.sum_us.add(micros);
    }
}

/// What several workers have measured together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Distribution {
    /// How many fell into each bucket; not cumulative.
    pub buckets: [u64; BUCKETS],
    /// The sum of all, in microseconds.
    pub sum_us: u64,
}

impl Distribution {
    /// The sum of some histograms.
    pub(crate) fn of<'h>(histograms: impl Iterator<Item = &'h Histogram>) -> Distribution {
        let mut total = Distribution::default();
        for histogram in histograms {
            for (sum, count) in total.buckets.iter_mut().zip(&histogram.buckets) {
                *sum += count.read();
            }
            total.sum_us += histogram.sum_us.read();
        }
        total
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Adds what was measured elsewhere.
    pub(crate) fn add(&mut self, other: &Distribution) {
        for (sum, count) in self.buckets.iter_mut().zip(other.buckets) {
            *sum += count;
        }
        self.sum_us += other.sum_us;
    }

    /// What came since `earlier`.
    pub(crate) fn since(&self, earlier: &Distribution) -> Distribution {
        let mut rest = self.clone();
        for (bucket, known) in rest.buckets.iter_mut().zip(&earlier.buckets) {
            *bucket = bucket.saturating_sub(*known);
        }
        rest.sum_us = self.sum_us.saturating_sub(earlier.sum_us);
        rest
    }

    /// The duration that `share` of all stayed below, in seconds: a position inside the bucket in which
    /// it must lie. `None` where nothing was measured.
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
            // Beyond the last border nothing more is known than that.
            let upper = BORDERS_US.get(index).copied().unwrap_or(lower);
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

    fn measured(millis: &[u64]) -> Distribution {
        let histogram = Histogram::default();
        for millis in millis {
            histogram.record(Duration::from_millis(*millis));
        }
        Distribution::of([&histogram].into_iter())
    }

    #[test]
    fn a_border_belongs_to_the_bucket_below_it() {
        let total = measured(&[0, 1, 2, 30_000, 30_001, 999_999]);
        let mut expected = [0; BUCKETS];
        expected[0] = 1;
        expected[1] = 1;
        expected[2] = 1;
        expected[16] = 1;
        expected[17] = 2;
        assert_eq!(total.buckets, expected);
        assert_eq!(total.count(), 6);
        assert_eq!(total.sum_us, 1_060_003_000);
    }

    #[test]
    fn quantiles_lie_in_the_bucket_they_must() {
        assert_eq!(measured(&[]).quantile(0.5), None);
        let hundred: Vec<u64> = (1..=100).collect();
        let total = measured(&hundred);
        let median = total.quantile(0.5).unwrap();
        assert!((0.025..=0.051).contains(&median), "{median}");
        let last = total.quantile(0.99).unwrap();
        assert!((0.05..=0.1).contains(&last), "{last}");
        assert_eq!(measured(&[60_000]).quantile(0.5), Some(30.0));
    }

    #[test]
    fn what_ends_with_reply_timeout_is_shown_as_such() {
        let total = measured(&[1501; 100]);
        for share in [0.01, 0.5, 0.9, 0.99, 1.0] {
            let shown = total.quantile(share).unwrap();
            assert!((1.45..=1.55).contains(&shown), "{share}: {shown}");
        }
    }

    #[test]
    fn the_past_can_be_taken_off() {
        let (earlier, later) = (measured(&[1, 20]), measured(&[1, 20, 20, 70]));
        let mut rest = later.since(&earlier);
        assert_eq!(rest.count(), 2);
        assert_eq!(rest.sum_us, 90_000);
        rest.add(&earlier);
        assert_eq!(rest, later);
    }
}
