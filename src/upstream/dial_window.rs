//! How many connections to an origin may be opened at the same time.
//!
//! Over a long distance many have to be: after a rest, thousands of deliveries wait, and a dial takes one
//! or two round trips. But each costs processor time, with TLS about as much as thirty requests. With too
//! many, this worker or the server falls behind, the dials take longer, and more deliveries wait. So the
//! bound follows the time that dials take, like the congestion window of TCP Vegas (Brakmo and Peterson,
//! 1995): it doubles per round of dials that take about as long as the shortest one, and halves when they
//! take longer.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::upstream::shortest::ShortestRecent;

/// The bound at the start: so many dials take this worker some 25 ms.
const START_PLAIN: usize = 512;
const START_TLS: usize = 128;

/// The smallest bound.
const MIN: usize = 8;

/// The largest bound. A server accepts connections from its backlog, which often has 511 or 4,096 places.
const MAX: usize = 1024;

/// How much longer than the shortest dial one may take before it counts as late, at least. The runtime alone
/// adds some milliseconds under load.
const TOLERANCE: Duration = Duration::from_millis(10);

/// How long no connection is opened after this host ran out of ports or descriptors.
const SHORTAGE_INTERVAL: Duration = Duration::from_millis(100);

pub(crate) struct DialWindow {
    start: usize,
    bound: Cell<usize>,
    shortest: ShortestRecent,
    /// The last halving. Dials that began before it belong to the larger bound, and halve it no further.
    halved_at: Cell<Option<Instant>>,
    paused_until: Cell<Option<Instant>>,
}

impl DialWindow {
    pub(crate) fn new(is_tls: bool) -> DialWindow {
        let start = if is_tls { START_TLS } else { START_PLAIN };
        DialWindow {
            start,
            bound: Cell::new(start),
            shortest: ShortestRecent::default(),
            halved_at: Cell::default(),
            paused_until: Cell::default(),
        }
    }

    /// How many dials may be in progress.
    pub(crate) fn bound(&self, now: Instant) -> usize {
        match self.paused_until.get() {
            Some(until) if now < until => 0,
            _ => self.bound.get(),
        }
    }

    /// Records a dial that succeeded, while so many were `in_progress`, itself included.
    pub(crate) fn record_success(&self, begun: Instant, now: Instant, in_progress: usize) {
        let elapsed = now.saturating_duration_since(begun);
        self.shortest.record(elapsed);
        let shortest = self.shortest.get().unwrap_or(elapsed);
        let bound = self.bound.get();
        if elapsed > shortest + TOLERANCE.max(shortest / 2) {
            self.halve(begun, now);
        } else if in_progress * 2 >= bound && bound < MAX {
            // A bound that nothing reaches says nothing, so it does not grow.
            self.bound.set(bound + 1);
        }
    }

    /// Records a dial that failed.
    pub(crate) fn record_failure(&self, begun: Instant, now: Instant) {
        self.bound.set(self.bound.get().min(self.start));
        self.halve(begun, now);
    }

    /// Records a dial that failed because this host has no port or descriptor left.
    pub(crate) fn record_shortage(&self, begun: Instant, now: Instant) {
        self.halve(begun, now);
        self.paused_until.set(Some(now + SHORTAGE_INTERVAL));
    }

    /// Forgets old dials. To be called once a second.
    pub(crate) fn age(&self) {
        self.shortest.age();
    }

    fn halve(&self, begun: Instant, now: Instant) {
        if self.halved_at.get().is_none_or(|at| begun >= at) {
            self.bound.set((self.bound.get() / 2).max(MIN));
            self.halved_at.set(Some(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAR: Duration = Duration::from_millis(100);

    /// A round of as many dials as are allowed, each of which takes `elapsed`. Returns the end of the round.
    fn round(window: &DialWindow, begun: Instant, elapsed: Duration) -> Instant {
        let end = begun + elapsed;
        let count = window.bound(begun);
        (0..count).for_each(|_| window.record_success(begun, end, count));
        end
    }

    #[test]
    fn it_doubles_per_round_of_dials_in_time() {
        let window = DialWindow::new(true);
        let mut now = Instant::now();
        for expected in [START_TLS, 2 * START_TLS, 4 * START_TLS, MAX, MAX] {
            assert_eq!(window.bound(now), expected);
            now = round(&window, now, FAR);
        }
    }

    #[test]
    fn late_dials_halve_it_once_per_round() {
        let window = DialWindow::new(true);
        let mut now = round(&window, Instant::now(), FAR);
        for expected in [2 * START_TLS, START_TLS, START_TLS / 2] {
            assert_eq!(window.bound(now), expected);
            now = round(&window, now, 2 * FAR);
        }
        for _ in 0..20 {
            now = round(&window, now, 2 * FAR);
        }
        assert_eq!(window.bound(now), MIN);
    }

    #[test]
    fn failures_keep_it_small() {
        let window = DialWindow::new(true);
        let mut now = Instant::now();
        for _ in 0..4 {
            now = round(&window, now, FAR);
        }
        assert_eq!(window.bound(now), MAX);
        window.record_failure(now, now + FAR);
        assert_eq!(window.bound(now), START_TLS / 2);
    }

    #[test]
    fn a_shortage_of_this_host_pauses_dials() {
        let window = DialWindow::new(true);
        let now = Instant::now();
        window.record_shortage(now, now);
        assert_eq!(window.bound(now), 0);
        assert_eq!(window.bound(now + SHORTAGE_INTERVAL), START_TLS / 2);
    }

    #[test]
    fn single_dials_do_not_raise_it() {
        let window = DialWindow::new(true);
        let now = Instant::now();
        (0..1000).for_each(|_| window.record_success(now, now + FAR, 1));
        assert_eq!(window.bound(now), START_TLS);
    }
}
