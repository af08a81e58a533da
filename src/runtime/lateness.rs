//! Finds out whether a worker is overloaded, from how late its timers fire.
//!
//! A worker whose core cannot keep up handles each ready task once per turn of its loop, and a request needs
//! several turns. So when turns take long, every request waits that long several times. As in CoDel (RFC 8289),
//! what counts is the least lateness over an interval: one long stall says nothing, however long, but a timer that
//! is never on time does. After an overload, one late timer is enough for a while: otherwise a worker would fall
//! behind again for a whole interval each time it has caught up.

use std::time::{Duration, Instant};

/// A timer that fires later than this is late. A request waits a few times as long, and SDKs give up after 2 to
/// 30 s.
const LATE: Duration = Duration::from_millis(500);

/// How long timers must have been late, without one on time, before the worker counts as overloaded. Shorter than
/// SDKs wait. When thousands of clients connect at the same time, a worker that keeps up afterwards may be late for a
/// second or two.
const INTERVAL: Duration = Duration::from_secs(3);

/// How long after an overload one late timer is enough.
const RECENT: Duration = Duration::from_secs(10);

/// What the timers of one worker have shown.
#[derive(Default)]
pub(crate) struct Lateness {
    /// When the first of the timers fired that were all late.
    late_since: Option<Instant>,
    overloaded_at: Option<Instant>,
}

impl Lateness {
    /// Records that a timer that was `due` fired at `now`. Returns whether the worker is overloaded.
    pub(crate) fn record(&mut self, due: Instant, now: Instant) -> bool {
        if now.saturating_duration_since(due) < LATE {
            self.late_since = None;
            return false;
        }
        let since = *self.late_since.get_or_insert(now);
        let is_long = now.saturating_duration_since(since) >= INTERVAL;
        let is_again = self
            .overloaded_at
            .is_some_and(|at| now.saturating_duration_since(at) < RECENT);
        if is_long || is_again {
            self.overloaded_at = Some(now);
        }
        is_long || is_again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records timers every 100 ms that are late by so many milliseconds, one after another. Returns what each
    /// says.
    fn record(lateness: &mut Lateness, now: &mut Instant, late_ms: &[u64]) -> Vec<bool> {
        let mut record = |late_ms: &u64| {
            let due = *now + Duration::from_millis(100);
            *now = due + Duration::from_millis(*late_ms);
            lateness.record(due, *now)
        };
        late_ms.iter().map(&mut record).collect()
    }

    fn first(late_ms: &[u64]) -> Vec<bool> {
        record(&mut Lateness::default(), &mut Instant::now(), late_ms)
    }

    #[test]
    fn timers_that_are_on_time_or_a_little_late_say_nothing() {
        assert_eq!(first(&[0; 100]), [false; 100]);
        assert_eq!(first(&[499; 100]), [false; 100]);
    }

    #[test]
    fn a_stall_says_nothing_however_long() {
        assert_eq!(first(&[0, 60_000, 0, 0]), [false; 4]);
        // Nor do many of them with one timer on time in between.
        assert_eq!(first(&[900, 0].repeat(50)), [false; 100]);
        assert_eq!(first(&[60_000, 2000, 300, 2000]), [false; 4]);
    }

    #[test]
    fn timers_that_are_all_late_for_an_interval_show_an_overload() {
        let said = first(&[500; 8]);
        assert_eq!(said, [false, false, false, false, false, true, true, true]);
        assert_eq!(first(&[0, 1000, 1000, 1000]), [false; 4]);
        assert_eq!(first(&[3000, 2900]), [false, true]);
    }

    #[test]
    fn an_overload_ends_with_a_timer_on_time_and_returns_with_the_next_late_one_for_a_while() {
        let (mut lateness, mut now) = (Lateness::default(), Instant::now());
        let said = record(&mut lateness, &mut now, &[2000, 3000, 0, 499, 500, 0]);
        assert_eq!(said, [false, true, false, false, true, false]);
        // Later it is as at first.
        let said = record(&mut lateness, &mut now, &[0; 100]);
        assert_eq!(said, [false; 100]);
        let said = record(&mut lateness, &mut now, &[1500, 1500, 1500]);
        assert_eq!(said, [false, false, true]);
    }
}
