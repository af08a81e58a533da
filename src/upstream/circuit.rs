//! Counts failures in a row, and opens at a limit.
//!
//! What fails is an incident, not a delivery: when an upstream restarts, 32 pooled connections break at once, and that
//! is one failure. A later failure is another incident if its delivery
//!
//! * began after the last counted failure, so that it has seen a later state of the upstream; or
//! * timed out, and began at least [`TIMEOUT_SPACING`] after that of the last counted failure. A delivery times out
//!   because of what the upstream did after its beginning. With the first rule alone, ten timeouts of 30 seconds would
//!   take five minutes to count, and each holds memory until then.

use std::time::{Duration, Instant};

/// Timeouts of deliveries that began closer together than this are one incident.
const TIMEOUT_SPACING: Duration = Duration::from_millis(100);

#[derive(Default)]
pub(super) struct Circuit {
    failures_in_a_row: u32,
    is_open: bool,
    last: Option<Counted>,
}

/// The delivery whose failure was counted last; or the time at which the circuit closed, because what began before
/// that says nothing about the time after it.
struct Counted {
    begun: Instant,
    ended: Instant,
}

impl Circuit {
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    pub(super) fn has_failures(&self) -> bool {
        self.failures_in_a_row > 0
    }

    /// Counts the failure of a delivery that began at `begun`, unless it belongs to an incident that is counted
    /// already. Returns whether that opened the circuit.
    pub(super) fn fail(
        &mut self,
        begun: Instant,
        is_timeout: bool,
        now: Instant,
        failures_max: u32,
    ) -> bool {
        if self.is_open || !self.is_new_incident(begun, is_timeout) {
            return false;
        }
        self.last = Some(Counted { begun, ended: now });
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        self.is_open = self.failures_in_a_row >= failures_max;
        self.is_open
    }

    fn is_new_incident(&self, begun: Instant, is_timeout: bool) -> bool {
        self.last.as_ref().is_none_or(|last| {
            begun >= last.ended || is_timeout && begun >= last.begun + TIMEOUT_SPACING
        })
    }

    /// Forgets the failures.
    pub(super) fn close(&mut self, now: Instant) {
        if std::mem::take(&mut self.is_open) {
            self.last = Some(Counted {
                begun: now,
                ended: now,
            });
        }
        self.failures_in_a_row = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// How many failures are counted of deliveries with these times of beginning and end, in milliseconds.
    fn counted(deliveries: &[(u32, u32)], is_timeout: bool) -> u32 {
        let mut circuit = Circuit::default();
        let start = Instant::now();
        for (begun, ended) in deliveries {
            circuit.fail(start + *begun * MS, is_timeout, start + *ended * MS, 1000);
        }
        circuit.failures_in_a_row
    }

    #[test]
    fn what_fails_together_is_one_incident() {
        let dead_pool: Vec<(u32, u32)> = (0..32).map(|index| (index, 50 + index / 8)).collect();
        assert_eq!(counted(&dead_pool, false), 1);
        let at_once: Vec<(u32, u32)> = (0..32).map(|index| (index, 3000 + index)).collect();
        assert_eq!(counted(&at_once, true), 1);
    }

    #[test]
    fn failures_one_after_another_are_as_many_incidents() {
        let refusals: Vec<(u32, u32)> = (0..50).map(|index| (index * 20, index * 20 + 1)).collect();
        assert_eq!(counted(&refusals, false), 50);
        // Refused so fast that the clock shows no time.
        assert_eq!(counted(&[(0, 0), (0, 0), (0, 0)], false), 3);
    }

    #[test]
    fn timeouts_count_by_the_beginnings_of_their_deliveries() {
        let timeouts: Vec<(u32, u32)> = (0..50)
            .map(|index| (index * 20, 30_000 + index * 20))
            .collect();
        assert_eq!(counted(&timeouts, true), 10);
        // One that is reported late is older than what is counted.
        assert_eq!(counted(&[(500, 3500), (0, 3501)], true), 1);
    }

    #[test]
    fn what_began_before_the_circuit_closed_does_not_count() {
        let mut circuit = Circuit::default();
        let start = Instant::now();
        assert!(circuit.fail(start, true, start + 3000 * MS, 1));
        assert!(!circuit.fail(start + 1000 * MS, true, start + 4000 * MS, 1));
        circuit.close(start + 4500 * MS);
        assert!(!circuit.fail(start + 2000 * MS, true, start + 5000 * MS, 1));
        assert!(!circuit.is_open());
        assert!(circuit.fail(start + 5000 * MS, false, start + 5001 * MS, 1));
    }
}
