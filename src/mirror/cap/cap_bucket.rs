//! The token bucket of a cap, which all workers share.
//!
//! It fills at a constant rate up to the burst, and each item takes a token. So in any time `t` at most
//! `rate * t + burst` items pass. The bucket is one number: the time at which it will be full again (the generic cell
//! rate algorithm, ITU-T I.371).
//!
//! A worker takes more tokens than it needs and keeps the rest, its lease, for the next items, so that it seldom
//! writes to what all share. What the leases of all workers may hold is kept back from the burst.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::Amount;

const SECOND_NS: f64 = 1e9;

/// The leases of all workers together take this part of the burst at most.
const LEASED_PART: u64 = 16;

pub(super) struct Bucket {
    /// The time in which one token comes, rounded up.
    token_ns: u64,
    /// The tokens of a full bucket, without those kept back for leases.
    capacity: u64,
    lease_max: u64,
    /// In nanoseconds on the clock of the cap.
    full_at_ns: AtomicU64,
}

/// The tokens that one worker keeps. Only that worker writes it.
#[derive(Default)]
pub(super) struct Lease(AtomicU64);

impl Bucket {
    /// A bucket that lacks `used` tokens at `now_ns`.
    pub(super) fn new(amount: Amount, workers: usize, used: f64, now_ns: u64) -> Bucket {
        let workers = u64::try_from(workers).unwrap_or(u64::MAX).max(1);
        let lease_max = amount.burst() / LEASED_PART / workers;
        let token_ns = (SECOND_NS / amount.rate()).ceil() as u64;
        let capacity = amount.burst() - lease_max * workers;
        let used_ns = used.clamp(0.0, capacity as f64) * token_ns as f64;
        Bucket {
            token_ns,
            capacity,
            lease_max,
            full_at_ns: AtomicU64::new(now_ns + used_ns as u64),
        }
    }

    /// How many tokens a worker may keep.
    pub(super) fn lease_max(&self) -> u64 {
        self.lease_max
    }

    /// Whether it never has `count` tokens.
    pub(super) fn is_too_small(&self, count: u64) -> bool {
        count > self.capacity + self.lease_max
    }

    /// Takes `count` tokens, or none if there are less.
    pub(super) fn take(&self, count: u64, lease: &Lease, now_ns: u64) -> bool {
        // Only this worker writes its lease, so a load and a store suffice.
        let kept = lease.0.load(Ordering::Relaxed);
        if let Some(left) = kept.checked_sub(count) {
            lease.0.store(left, Ordering::Relaxed);
            return true;
        }
        let missing = count - kept;
        let left = if self.take_shared(missing + self.lease_max, now_ns) {
            self.lease_max
        } else if self.take_shared(missing, now_ns) {
            0
        } else {
            return false;
        };
        lease.0.store(left, Ordering::Relaxed);
        true
    }

    fn take_shared(&self, count: u64, now_ns: u64) -> bool {
        if count > self.capacity {
            return false;
        }
        let (taken_ns, full_ns) = (count * self.token_ns, self.capacity * self.token_ns);
        let next = |full_at_ns: u64| {
            let next_ns = full_at_ns.max(now_ns) + taken_ns;
            (next_ns <= now_ns + full_ns).then_some(next_ns)
        };
        let (ok, other) = (Ordering::Relaxed, Ordering::Relaxed);
        self.full_at_ns.fetch_update(ok, other, next).is_ok()
    }

    /// The tokens that it lacks.
    pub(super) fn used(&self, now_ns: u64) -> f64 {
        let full_at_ns = self.full_at_ns.load(Ordering::Relaxed);
        full_at_ns.saturating_sub(now_ns) as f64 / self.token_ns as f64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Config;

    fn amount(text: &str) -> Amount {
        let text = format!(
            "keys: [{{inbound: 'http://a@m/1', outbound: [{{dsn: 'http://b@o/2', cap: {{error: {text}}}}}]}}]"
        );
        let config = Config::parse(&text, "test", std::iter::empty()).unwrap();
        config.routes[0].outbounds[0].caps[0].amount
    }

    proptest! {
        /// Of any times and sizes, over any number of workers: no stretch of time has more than its rate and one burst.
        #[test]
        fn no_stretch_of_time_has_more_than_its_rate_and_one_burst(
            (index, workers) in (0_usize..5, 1_usize..9),
            used in 0.0..2000.0,
            asked in prop::collection::vec((0_u64..3_000_000_000, 1_u64..40, 0_usize..8), 1..300),
        ) {
            let amount = amount(["1/s", "100/s", "6000/min", "7/h", "5000/day"][index]);
            let bucket = Bucket::new(amount, workers, used, 0);
            let leases: Vec<Lease> = (0..workers).map(|_| Lease::default()).collect();
            let (mut now_ns, mut passed) = (0, Vec::new());
            for (wait_ns, count, worker) in asked {
                now_ns += wait_ns;
                if bucket.take(count, &leases[worker % workers], now_ns) {
                    passed.push((now_ns, count));
                }
            }
            for (index, (start_ns, _)) in passed.iter().enumerate() {
                let mut sum = 0;
                for (end_ns, count) in &passed[index..] {
                    sum += count;
                    let seconds = (end_ns - start_ns) as f64 / 1e9;
                    let allowed = amount.rate() * seconds + amount.burst() as f64;
                    prop_assert!(sum as f64 <= allowed + 1e-6, "{sum} of {allowed}");
                }
            }
        }
    }

    #[test]
    fn a_bucket_gives_all_of_its_rate() {
        for (text, workers) in [("100/s", 1), ("100/s", 4), ("3/s", 4), ("6000/min", 2)] {
            let amount = amount(text);
            let bucket = Bucket::new(amount, workers, 0.0, 0);
            let leases: Vec<Lease> = (0..workers).map(|_| Lease::default()).collect();
            let mut passed = 0;
            for millisecond in 0..100_000_u64 {
                let lease = &leases[millisecond as usize % workers];
                passed += u64::from(bucket.take(1, lease, millisecond * 1_000_000));
            }
            let rate = amount.rate() * 100.0;
            let least = rate - 1.0;
            assert!(passed as f64 >= least, "{text}: {passed} of {rate}");
        }
    }

    #[test]
    fn several_tokens_are_taken_together_or_not_at_all() {
        let bucket = Bucket::new(amount("10/s"), 1, 0.0, 0);
        let lease = Lease::default();
        assert!(!bucket.take(11, &lease, 0));
        assert!(bucket.take(7, &lease, 0));
        assert!(!bucket.take(4, &lease, 0));
        assert!(bucket.take(3, &lease, 0));
        assert!(!bucket.take(1, &lease, 99_999_999));
        assert!(bucket.take(1, &lease, 100_000_000));
        assert!((bucket.used(100_000_000) - 10.0).abs() < 1e-6);
        assert_eq!(bucket.used(10_000_000_000), 0.0);
    }
}
