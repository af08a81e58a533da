//! The breaker of an origin, shared by all workers.
//!
//! While all is well, a delivery reads one word, which nobody writes, and writes nothing. What changes the state
//! takes a mutex and publishes the word. A worker that reads an old word sends or drops one delivery too many, which
//! is harmless.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::limits::Limits;
use crate::upstream::breaker::Unanswered;
use crate::upstream::breaker::{Breaker, BreakerState, Failed, NextProbe, RouteId, Verdict};

/// Some delivery may be dropped.
const OPEN: u32 = 1;
/// Every delivery is dropped, and that is known since the last probe.
const DROPS_ALL: u32 = 2;
/// A response has something to reset.
const HAS_FAILURES: u32 = 4;
/// No task probes, and one should.
const WANTS_PROBER: u32 = 8;

pub(crate) struct SharedBreaker {
    flags: Flags,
    breaker: Mutex<Breaker>,
}

/// On cache lines of its own: what lies beside it is written now and then.
#[repr(align(128))]
struct Flags(AtomicU32);

/// The permission to send one delivery. Its outcome consumes it; dropped without one, it says nothing about the
/// upstream.
pub(crate) struct Permit<'b> {
    breaker: &'b SharedBreaker,
    route: RouteId,
    begun: Instant,
    is_trial: bool,
}

/// A probe in flight.
pub(super) struct Probe<'b> {
    breaker: &'b SharedBreaker,
    timed_out: bool,
}

impl SharedBreaker {
    pub(super) fn new() -> SharedBreaker {
        SharedBreaker {
            flags: Flags(AtomicU32::new(0)),
            breaker: Mutex::new(Breaker::new(Instant::now())),
        }
    }

    fn has(&self, flag: u32) -> bool {
        self.flags.0.load(Ordering::Relaxed) & flag != 0
    }

    /// Applies `change` and publishes its effect.
    fn change<T>(&self, change: impl FnOnce(&mut Breaker) -> T) -> T {
        let mut breaker = self.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut breaker);
        let flag = |is_set: bool, flag: u32| if is_set { flag } else { 0 };
        let flags = flag(breaker.is_open(), OPEN)
            | flag(breaker.drops_all(), DROPS_ALL)
            | flag(breaker.has_failures(), HAS_FAILURES)
            | flag(breaker.wants_prober(), WANTS_PROBER);
        if self.flags.0.load(Ordering::Relaxed) != flags {
            self.flags.0.store(flags, Ordering::Relaxed);
        }
        result
    }

    pub(super) fn set_limits(&self, limits: &Limits) {
        self.change(|breaker| breaker.set_limits(limits));
    }

    /// Permits a delivery of `route`, unless the breaker is open for it.
    pub(super) fn admit(&self, route: RouteId, now: Instant) -> Option<Permit<'_>> {
        let flags = self.flags.0.load(Ordering::Relaxed);
        if flags & DROPS_ALL != 0 {
            return None;
        }
        let verdict = match flags & OPEN {
            0 => Verdict::Send,
            _ => self.change(|breaker| breaker.admit(route, now)),
        };
        (verdict != Verdict::Drop).then_some(Permit {
            breaker: self,
            route,
            begun: now,
            is_trial: verdict == Verdict::Trial,
        })
    }

    pub(super) fn record_response(&self, now: Instant) {
        if self.has(HAS_FAILURES) {
            self.change(|breaker| breaker.record_response(now));
        }
    }

    /// Records a delivery without a response. `answered_at` is the time of the last response to any.
    pub(super) fn record_failure(
        &self,
        permit: &Permit<'_>,
        how: Unanswered,
        answered_at: Option<Instant>,
        now: Instant,
    ) {
        let failed = Failed {
            route: permit.route,
            begun: permit.begun,
            how,
        };
        self.change(|breaker| breaker.record_failure(failed, answered_at, now));
    }

    /// Forgets all failures.
    pub(super) fn reset(&self, now: Instant) {
        self.change(|breaker| breaker.reset(now));
    }

    pub(super) fn state(&self, now: Instant) -> BreakerState {
        match self.has(OPEN) {
            false => BreakerState::Closed,
            true => self.change(|breaker| breaker.state(now)),
        }
    }

    /// Makes the caller the prober, if one is wanted. It has to call [`SharedBreaker::release_prober`] however it
    /// ends.
    pub(super) fn claim_prober(&self) -> bool {
        self.has(WANTS_PROBER) && self.change(Breaker::claim_prober)
    }

    pub(super) fn release_prober(&self) {
        self.change(Breaker::release_prober);
    }

    pub(super) fn next_probe(&self, now: Instant) -> NextProbe {
        self.change(|breaker| breaker.next_probe(now))
    }

    /// The probe that [`NextProbe::Now`] asks for.
    pub(super) fn probe(&self) -> Probe<'_> {
        Probe {
            breaker: self,
            timed_out: false,
        }
    }
}

impl Probe<'_> {
    pub(super) fn connected(self, now: Instant) {
        self.breaker.change(|breaker| breaker.record_connected(now));
    }

    pub(super) fn timed_out(mut self) {
        self.timed_out = true;
    }
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        let timed_out = self.timed_out;
        self.breaker.change(|breaker| breaker.end_probe(timed_out));
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.is_trial {
            self.breaker.change(Breaker::end_trial);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn while_all_is_well_a_delivery_takes_no_lock() {
        let breaker = SharedBreaker::new();
        let held = breaker.breaker.lock().unwrap();
        let (done, is_done) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                let now = Instant::now();
                let permit = breaker.admit(1, now);
                breaker.record_response(now);
                let state = breaker.state(now);
                done.send(permit.is_some() && state == BreakerState::Closed)
            });
            let result = is_done.recv_timeout(PATIENCE);
            drop(held);
            assert_eq!(result, Ok(true));
        });
    }

    #[test]
    fn once_it_is_known_that_all_are_dropped_a_delivery_takes_no_lock() {
        let breaker = open();
        // Until the next probe.
        assert!(breaker.admit(1, Instant::now()).is_none());
        let held = breaker.breaker.lock().unwrap();
        let (done, is_done) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| done.send(breaker.admit(1, Instant::now()).is_none()));
            let result = is_done.recv_timeout(PATIENCE);
            drop(held);
            assert_eq!(result, Ok(true));
        });
    }

    /// A breaker that is open because no connection can be opened.
    fn open() -> SharedBreaker {
        let breaker = SharedBreaker::new();
        let now = Instant::now();
        for _ in 0..Limits::default().breaker.failures {
            let permit = breaker.admit(1, now).unwrap();
            breaker.record_failure(&permit, Unanswered::Unreachable, None, now);
        }
        assert_eq!(breaker.state(now), BreakerState::Open);
        breaker
    }

    #[test]
    fn a_response_on_one_thread_closes_it_for_all() {
        let breaker = open();
        thread::scope(|scope| {
            scope.spawn(|| breaker.record_response(Instant::now()));
        });
        assert!(breaker.admit(2, Instant::now()).is_some());
    }

    #[test]
    fn a_trial_that_is_given_up_makes_room_for_others() {
        let breaker = SharedBreaker::new();
        let start = Instant::now();
        for _ in 0..Limits::default().breaker.failures {
            let permit = breaker.admit(1, start).unwrap();
            breaker.record_failure(&permit, Unanswered::Broken, None, start);
        }
        for second in 1..200 {
            let now = start + Duration::from_secs(second);
            let permit = breaker.admit(1, now).unwrap();
            assert!(permit.is_trial && breaker.admit(1, now).is_none());
        }
    }
}
