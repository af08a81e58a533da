//! How many connections to an origin are worth keeping: as many as were in use at the same time recently.
//!
//! The number grows at once and shrinks slowly. A server 100 ms away needs hundreds of connections, and
//! opening one costs a request one or two round trips, so a short rest of the traffic must not close them.

use std::cell::Cell;

/// Up to this number, connections are closed only for their age or for having been idle too long.
const ALWAYS_KEPT: usize = 16;

/// The part by which the number shrinks at each sweep, which is once a second: to a half in 11 seconds, to
/// a tenth in 36.
const SHRINKING: usize = 16;

#[derive(Default)]
pub(crate) struct Demand {
    /// The most connections in use at the same time since the last sweep.
    peak: Cell<usize>,
    kept: Cell<usize>,
}

impl Demand {
    pub(crate) fn record_in_use(&self, in_use: usize) {
        if in_use > self.peak.get() {
            self.peak.set(in_use);
        }
    }

    /// How many connections to keep now. To be called once a second; `in_use` connections are in use.
    pub(crate) fn sweep(&self, in_use: usize) -> usize {
        let peak = self.peak.replace(in_use).max(in_use);
        let kept = self.kept.get();
        let kept = peak.max(kept - kept.div_ceil(SHRINKING));
        self.kept.set(kept);
        kept.max(ALWAYS_KEPT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_at_once_and_shrinks_by_a_sixteenth_a_second() {
        let demand = Demand::default();
        demand.record_in_use(1000);
        demand.record_in_use(10);
        assert_eq!(demand.sweep(10), 1000);
        let mut kept: usize = 1000;
        for _ in 0..60 {
            let next = demand.sweep(0);
            assert!(next >= kept - kept.div_ceil(16) && next <= kept);
            kept = next;
        }
        assert_eq!(kept, ALWAYS_KEPT);
    }

    #[test]
    fn a_steady_load_keeps_what_it_uses() {
        let demand = Demand::default();
        for _ in 0..100 {
            demand.record_in_use(800);
            assert_eq!(demand.sweep(700), 800);
        }
    }
}
