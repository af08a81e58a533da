//! When to probe an upstream to which no connection can be opened.
//!
//! A probe is a connect. One each `breaker.pause` loses at most that much time after the upstream is back, and costs it
//! next to nothing. Probes that time out overlap: each needs `timeouts.connect`, and the next one must not wait for it.
//! Where probes time out and no delivery was dropped for `breaker.pause_max`, nothing can be lost either, so the
//! interval doubles up to that. A refusal is an answer, and costs no waiting: there it does not double.

use std::time::{Duration, Instant};

use crate::limits::BreakerLimits;
use crate::upstream::jitter::Pause;

/// How many probes may be in flight: as many as fit into the default `timeouts.connect` for some addresses.
const PROBES_MAX: usize = 16;

pub(super) struct ProbeSchedule {
    pause: Pause,
    in_flight: usize,
    /// Whether a delivery was dropped since the last probe.
    has_dropped: bool,
    /// The last probe before which one was.
    dropped_at: Instant,
    timed_out: bool,
    doublings: u32,
}

impl ProbeSchedule {
    /// The schedule after a circuit has opened.
    pub(super) fn new(now: Instant) -> ProbeSchedule {
        ProbeSchedule {
            pause: Pause::begin(now),
            in_flight: 0,
            has_dropped: true,
            dropped_at: now,
            timed_out: false,
            doublings: 0,
        }
    }

    /// Begins again, while probes may be in flight.
    pub(super) fn restart(&mut self, now: Instant) {
        *self = ProbeSchedule {
            in_flight: self.in_flight,
            ..ProbeSchedule::new(now)
        };
    }

    /// Records that a delivery was dropped.
    pub(super) fn record_dropped(&mut self) {
        self.has_dropped = true;
    }

    /// Whether a delivery was dropped since the last probe.
    pub(super) fn has_dropped(&self) -> bool {
        self.has_dropped
    }

    pub(super) fn due(&self, limits: &BreakerLimits) -> Instant {
        let doublings = if self.has_dropped { 0 } else { self.doublings };
        let doubled = limits.pause.saturating_mul(1 << doublings.min(16));
        self.pause.end(doubled.min(limits.pause_max))
    }

    /// Begins a probe if one is due.
    pub(super) fn begin(&mut self, now: Instant, limits: &BreakerLimits) -> bool {
        if now < self.due(limits) || self.in_flight >= PROBES_MAX {
            return false;
        }
        if std::mem::take(&mut self.has_dropped) {
            self.dropped_at = now;
        }
        let is_quiet = now.saturating_duration_since(self.dropped_at) >= limits.pause_max;
        self.doublings = match self.timed_out && is_quiet {
            true => self.doublings.saturating_add(1),
            false => 0,
        };
        self.in_flight += 1;
        self.pause = Pause::begin(now);
        true
    }

    /// Records the end of a probe that did not connect.
    pub(super) fn end(&mut self, timed_out: bool) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.timed_out = timed_out;
    }
}

/// The prober checks at least this often whether a probe is due.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BreakerLimits = BreakerLimits {
        failures: 10,
        pause: Duration::from_secs(1),
        pause_max: Duration::from_secs(30),
    };

    /// The times between probes that each time out after three seconds, over `seconds`. `is_dropped` says whether a
    /// delivery is dropped in a given second.
    fn intervals(seconds: u64, is_dropped: impl Fn(u64) -> bool) -> Vec<f64> {
        let start = Instant::now();
        let mut schedule = ProbeSchedule::new(start);
        let mut begun: Vec<Duration> = Vec::new();
        let mut ended = 0;
        for step in 0..seconds * 20 {
            let after = Duration::from_millis(step * 50);
            if is_dropped(after.as_secs()) {
                schedule.record_dropped();
            }
            while begun
                .get(ended)
                .is_some_and(|begun| after >= *begun + Duration::from_secs(3))
            {
                schedule.end(true);
                ended += 1;
            }
            if schedule.begin(start + after, &LIMITS) {
                begun.push(after);
            }
        }
        let pairs = begun.windows(2);
        pairs
            .map(|pair| (pair[1] - pair[0]).as_secs_f64())
            .collect()
    }

    #[test]
    fn while_deliveries_are_dropped_a_probe_begins_each_second_however_long_it_lasts() {
        let all = intervals(600, |_| true);
        assert!(all.len() >= 570, "{}", all.len());
        assert!(all.iter().all(|interval| (0.5..1.1).contains(interval)));
        // Also where a delivery comes only now and then.
        let rare = intervals(600, |second| second % 20 == 0);
        assert!(rare.iter().all(|interval| *interval < 1.1));
    }

    #[test]
    fn where_nothing_is_lost_the_interval_between_timeouts_doubles() {
        let all = intervals(1200, |second| second < 2 || second == 900);
        assert!(all.iter().any(|interval| *interval > 15.0));
        assert!(all.iter().all(|interval| *interval < 31.0));
        assert!(all.len() < 250, "{}", all.len());
    }

    #[test]
    fn after_a_quiet_time_a_dropped_delivery_makes_a_probe_due() {
        let start = Instant::now();
        let mut schedule = ProbeSchedule::new(start);
        let mut now = start;
        for _ in 0..200 {
            now += Duration::from_secs(1);
            if schedule.begin(now, &LIMITS) {
                schedule.end(true);
            }
        }
        assert!(schedule.due(&LIMITS) > now - Duration::from_secs(15));
        while now + Duration::from_secs(2) > schedule.due(&LIMITS) {
            now += Duration::from_secs(1);
            if schedule.begin(now, &LIMITS) {
                schedule.end(true);
            }
        }
        schedule.record_dropped();
        assert!(schedule.due(&LIMITS) <= now + Duration::from_secs(1));
    }

    #[test]
    fn refusals_are_repeated_at_the_first_interval() {
        let start = Instant::now();
        let mut schedule = ProbeSchedule::new(start);
        let mut now = start;
        for _ in 0..100 {
            now += LIMITS.pause;
            assert!(schedule.begin(now, &LIMITS));
            schedule.end(false);
        }
    }

    #[test]
    fn probes_in_flight_are_bounded() {
        let mut now = Instant::now();
        let mut schedule = ProbeSchedule::new(now);
        let mut begin = || {
            now += LIMITS.pause;
            schedule.begin(now, &LIMITS)
        };
        assert!((0..PROBES_MAX).all(|_| begin()));
        assert!(!begin());
    }
}
