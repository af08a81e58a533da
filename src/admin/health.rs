//! How an outbound fares, in one word, from its deliveries of the last minute.
//!
//! Trouble that is over is not shown as trouble: once deliveries arrive again, the outbound is recovering until
//! the losses are a minute old.

use crate::telemetry::label::labels;

/// Deliveries by result: delivered, rate limited, lost.
type Step = [u64; 3];

/// Losses that are this many steps old are over, if something was delivered since.
const QUIET_STEPS: usize = 3;

/// The share of deliveries longer than `reply_timeout` from which an outbound is slow.
const SLOW_SHARE: f64 = 0.05;

labels! {
    /// The state of an outbound.
    pub(super) enum Health {
        /// Deliveries are being lost, or its circuit breaker is open.
        Failing => "failing",
        /// More than 5 % of its answers take longer than `reply_timeout`, for which SDKs may wait.
        Slow => "slow",
        /// Deliveries are not sent, or not accepted, because of a rate limit.
        RateLimited => "rate_limited",
        /// It accepts deliveries again, after losses in the last minute.
        Recovering => "recovering",
        /// It accepts what it should get.
        Receiving => "receiving",
        /// Nothing was to be delivered in the last minute.
        Idle => "idle",
    }
}

/// What is known of an outbound.
pub(super) struct Observed<'o> {
    /// The steps of the last minute, oldest first.
    pub(super) steps: &'o [Step],
    pub(super) breaker_is_open: bool,
    /// The share of the deliveries of the last minute that took longer than `reply_timeout`.
    pub(super) slow_share: f64,
}

impl Observed<'_> {
    pub(super) fn health(&self) -> Health {
        let sum = |steps: &[Step], index: usize| -> u64 {
            let counts = steps.iter().map(|step| step.get(index).copied());
            counts.flatten().sum()
        };
        let (delivered, limited, lost) =
            (sum(self.steps, 0), sum(self.steps, 1), sum(self.steps, 2));
        if self.breaker_is_open || lost > 0 && !self.is_over() {
            return Health::Failing;
        }
        if delivered + lost > 0 && self.slow_share > SLOW_SHARE {
            return Health::Slow;
        }
        // The losses are over. A limit that has ended meanwhile is not worth a word either.
        match (limited > 0, lost > 0, delivered > 0) {
            (true, _, _) => Health::RateLimited,
            (false, true, _) => Health::Recovering,
            (false, false, true) => Health::Receiving,
            (false, false, false) => Health::Idle,
        }
    }

    /// Whether the losses have ended: something was delivered since, and nothing was lost for some steps.
    fn is_over(&self) -> bool {
        let mut since = self.steps.rsplit(|[_, _, lost]| *lost > 0);
        let since = since.next().unwrap_or_default();
        since.len() >= QUIET_STEPS && since.iter().any(|[delivered, _, _]| *delivered > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Step = [0, 0, 0];
    const GOOD: Step = [5, 0, 0];
    const HELD: Step = [0, 5, 0];
    const LOSS: Step = [0, 0, 5];
    const PART: Step = [4, 0, 1];

    #[track_caller]
    fn assert_health(steps: &[Step], expected: Health) {
        let observed = Observed {
            steps,
            breaker_is_open: false,
            slow_share: 0.0,
        };
        assert_eq!(observed.health(), expected, "{steps:?}");
    }

    #[test]
    fn the_state_follows_from_the_last_minute() {
        for (steps, expected) in [
            (&[][..], Health::Idle),
            (&[NONE, NONE], Health::Idle),
            (&[GOOD, NONE, NONE, NONE], Health::Receiving),
            (&[GOOD, GOOD], Health::Receiving),
            (&[HELD, HELD], Health::RateLimited),
            (&[GOOD, HELD, GOOD], Health::RateLimited),
            (&[LOSS], Health::Failing),
            (&[GOOD, PART, GOOD], Health::Failing),
            (&[PART, GOOD, PART, GOOD, PART], Health::Failing),
            (&[HELD, LOSS], Health::Failing),
        ] {
            assert_health(steps, expected);
        }
    }

    #[test]
    fn an_outbound_recovers_from_the_first_quiet_moment_until_the_losses_are_a_minute_old() {
        let mut steps = vec![LOSS; 12];
        for (passed, expected) in [
            Health::Failing,
            Health::Failing,
            Health::Recovering,
            Health::Recovering,
        ]
        .into_iter()
        .enumerate()
        {
            steps.remove(0);
            steps.push(GOOD);
            assert_eq!(
                steps.iter().filter(|step| **step == GOOD).count(),
                passed + 1
            );
            assert_health(&steps, expected);
        }
        for _ in 0..8 {
            steps.remove(0);
            steps.push(GOOD);
        }
        assert_health(&steps, Health::Receiving);
    }

    #[test]
    fn silence_after_losses_is_no_recovery() {
        assert_health(&[GOOD, LOSS, NONE, NONE, NONE, NONE], Health::Failing);
        assert_health(&[LOSS, NONE, NONE, NONE, GOOD, NONE], Health::Recovering);
    }

    #[test]
    fn an_open_breaker_is_a_failure_and_a_slow_outbound_is_slow() {
        let health = |steps: &[Step], breaker_is_open, slow_share| {
            Observed {
                steps,
                breaker_is_open,
                slow_share,
            }
            .health()
        };
        assert_eq!(health(&[NONE], true, 0.0), Health::Failing);
        assert_eq!(health(&[GOOD; 12], true, 0.0), Health::Failing);
        assert_eq!(health(&[GOOD; 12], false, 0.06), Health::Slow);
        assert_eq!(health(&[GOOD; 12], false, 0.05), Health::Receiving);
        assert_eq!(health(&[GOOD, HELD], false, 1.0), Health::Slow);
        assert_eq!(health(&[LOSS; 12], false, 1.0), Health::Failing);
        assert_eq!(health(&[NONE; 12], false, 1.0), Health::Idle, "old answers");
    }
}
