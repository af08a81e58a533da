//! Circuit breaker: fails deliveries fast while an upstream is down.
//!
//! After some failures in a row the breaker opens: nothing is sent for a while, so that a dead upstream
//! does not hold memory and connections for the length of a timeout per request. Then one delivery is
//! sent as a probe. A response closes the breaker; a failure doubles the next pause. Pauses have a
//! random jitter, so that the workers of many mirrors do not all come back at once.
//!
//! Only failures without any response count. An upstream that responds with 503 does so quickly, and its
//! responses matter to the SDK.
//!
//! A client must not be able to open the breaker for others, for example with requests that a firewall in
//! front of the upstream resets. So there are two circuits. A request cannot cause a failure to connect:
//! such a failure always counts, and the circuit holds up all routes. A request may cause its connection to
//! break or to stay silent: such a failure counts only while other requests get no response either, and the
//! circuit holds up only the routes that had one.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use crate::limits::Limits;
use crate::telemetry::label::labels;

/// One worker's breaker for one origin.
#[derive(Default)]
pub(crate) struct Breaker {
    /// Open while connections cannot be opened.
    connecting: Circuit,
    /// Open while connections bring no responses.
    answering: Circuit,
    /// The routes that had a request without a response since the last response.
    unanswered: RefCell<HashSet<RouteId>>,
    answered_at: Cell<Option<Instant>>,
}

labels! {
    /// The state of a breaker, from best to worst.
    pub enum BreakerState {
        /// All deliveries are sent.
        Closed => "closed",
        /// The pause is over: the next delivery is the probe.
        Due => "due",
        /// The probe is in flight; no other delivery is sent.
        Probing => "probing",
        /// No delivery is sent.
        Open => "open",
    }
}

impl BreakerState {
    /// Whether deliveries are not sent.
    pub fn is_open(self) -> bool {
        matches!(self, BreakerState::Probing | BreakerState::Open)
    }
}

/// Identifies a route while it exists. Failures of its deliveries may hold up further ones of the same route.
pub(crate) type RouteId = usize;

/// How a delivery ended without a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// The connection could not be opened.
    Unreachable,
    /// The connection broke.
    Broken,
    /// No response arrived within `timeouts.exchange`.
    Silent,
}

/// The permission to send one delivery. Its outcome consumes it.
pub(crate) struct Permit {
    route: RouteId,
    begun: Instant,
    probes_connecting: bool,
    probes_answering: bool,
}

impl Breaker {
    /// Permits a delivery of `route`, unless a circuit is open. The outcome has to be recorded with the
    /// permit.
    pub(crate) fn admit(&self, route: RouteId, now: Instant, limits: &Limits) -> Option<Permit> {
        // The second circuit concerns only the routes that got no response.
        let is_concerned = self.answering.is_open() && self.unanswered.borrow().contains(&route);
        if is_concerned && !self.answering.permits(now) || !self.connecting.permits(now) {
            return None;
        }
        Some(Permit {
            route,
            begun: now,
            probes_connecting: self.connecting.probe(now, limits),
            probes_answering: is_concerned && self.answering.probe(now, limits),
        })
    }

    /// The worse state of the two circuits.
    pub(crate) fn state(&self, now: Instant) -> BreakerState {
        let states = [self.connecting.state(now), self.answering.state(now)];
        states
            .into_iter()
            .max_by_key(|state| *state as usize)
            .unwrap_or(BreakerState::Closed)
    }

    pub(crate) fn record_response(&self, _permit: Permit, now: Instant) {
        self.answered_at.set(Some(now));
        self.connecting.close();
        if self.answering.close() {
            self.unanswered.borrow_mut().clear();
        }
    }

    /// Forgets the routes without a response, because after a reload their ids may name others.
    pub(crate) fn forget_senders(&self) {
        self.unanswered.borrow_mut().clear();
    }

    /// Records a delivery whose end says nothing about the upstream.
    pub(crate) fn record_inconclusive(&self, permit: Permit, now: Instant) {
        if permit.probes_connecting {
            self.connecting.probe_again(now);
        }
        if permit.probes_answering {
            self.answering.probe_again(now);
        }
    }

    /// Records a delivery without a response.
    pub(crate) fn record_failure(
        &self,
        permit: Permit,
        how: Unanswered,
        now: Instant,
        limits: &Limits,
    ) {
        if how == Unanswered::Unreachable {
            self.connecting.fail(permit.probes_connecting, now, limits);
            if permit.probes_answering {
                self.answering.probe_again(now);
            }
            return;
        }
        if permit.probes_connecting {
            // The connection was opened.
            self.connecting.close();
        }
        if self.got_no_response(permit.begun, how, now, limits) {
            self.unanswered.borrow_mut().insert(permit.route);
            self.answering.fail(permit.probes_answering, now, limits);
        } else if permit.probes_answering {
            self.answering.probe_again(now);
        }
    }

    /// Whether no other request got a response in the relevant time: while this delivery waited for a
    /// silent upstream, or during the longest pause before its connection broke.
    fn got_no_response(
        &self,
        begun: Instant,
        how: Unanswered,
        now: Instant,
        limits: &Limits,
    ) -> bool {
        let Some(answered_at) = self.answered_at.get() else {
            return true;
        };
        match how {
            Unanswered::Silent => answered_at < begun,
            _ => now.saturating_duration_since(answered_at) >= limits.breaker.pause_max,
        }
    }
}

/// Counts failures in a row, and opens at the limit.
#[derive(Default)]
struct Circuit {
    failures_in_a_row: Cell<u32>,
    /// `None` while closed.
    open_until: Cell<Option<Instant>>,
    /// Whether the probe is in flight.
    is_probing: Cell<bool>,
}

impl Circuit {
    fn is_open(&self) -> bool {
        self.open_until.get().is_some()
    }

    /// Whether a delivery may be sent, possibly as the probe.
    fn permits(&self, now: Instant) -> bool {
        self.open_until.get().is_none_or(|until| now >= until)
    }

    /// Makes the delivery that is sent now the probe, unless the circuit is closed. Returns whether it did.
    fn probe(&self, now: Instant, limits: &Limits) -> bool {
        if !self.is_open() {
            return false;
        }
        self.is_probing.set(true);
        // The probe ends by then, even if nothing reports its end.
        self.open_until.set(Some(now + limits.timeouts.exchange));
        true
    }

    fn state(&self, now: Instant) -> BreakerState {
        match self.open_until.get() {
            None => BreakerState::Closed,
            Some(until) if until <= now => BreakerState::Due,
            Some(_) if self.is_probing.get() => BreakerState::Probing,
            Some(_) => BreakerState::Open,
        }
    }

    /// Forgets all failures. Returns whether there were any.
    fn close(&self) -> bool {
        self.open_until.set(None);
        self.is_probing.set(false);
        self.failures_in_a_row.replace(0) > 0
    }

    /// The probe ended without a result, so the next delivery is the probe.
    fn probe_again(&self, now: Instant) {
        if self.is_probing.replace(false) {
            self.open_until.set(Some(now));
        }
    }

    fn fail(&self, was_probe: bool, now: Instant, limits: &Limits) {
        // While open, only the probe counts; other failures belong to earlier deliveries.
        if self.is_open() && !(was_probe && self.is_probing.replace(false)) {
            return;
        }
        let failures = self.failures_in_a_row.get().saturating_add(1);
        self.failures_in_a_row.set(failures);
        if let Some(reopenings) = failures.checked_sub(limits.breaker.failures) {
            let pause = limits
                .breaker
                .pause
                .saturating_mul(1 << reopenings.min(16))
                .min(limits.breaker.pause_max);
            self.open_until.set(Some(now + with_jitter(pause)));
        }
    }
}

/// Between half of `pause` and all of it.
fn with_jitter(pause: Duration) -> Duration {
    // Each RandomState has other keys, which is random enough for this.
    let random = RandomState::new().hash_one(()) % 1024;
    pause.mul_f64(0.5 + 0.5 * (random as f64 / 1024.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::BreakerLimits;
    use Unanswered::{Broken, Silent, Unreachable};

    fn limits() -> Limits {
        Limits {
            breaker: BreakerLimits {
                failures: 3,
                pause: Duration::from_secs(1),
                pause_max: Duration::from_secs(3),
            },
            ..Limits::default()
        }
    }

    const ATTACKER: RouteId = 1;
    const HONEST: RouteId = 2;

    fn fail(breaker: &Breaker, how: Unanswered, now: Instant) {
        let permit = breaker.admit(ATTACKER, now, &limits()).unwrap();
        breaker.record_failure(permit, how, now, &limits());
    }

    /// The permit of a delivery that was sent before the breaker opened.
    fn earlier_permit() -> Permit {
        Permit {
            route: ATTACKER,
            begun: Instant::now(),
            probes_connecting: false,
            probes_answering: false,
        }
    }

    fn respond(breaker: &Breaker, now: Instant) {
        breaker.record_response(earlier_permit(), now);
    }

    fn admits(breaker: &Breaker, route: RouteId, now: Instant) -> bool {
        breaker.admit(route, now, &limits()).is_some()
    }

    #[test]
    fn it_opens_only_after_failures_in_a_row() {
        let breaker = Breaker::default();
        let now = Instant::now();
        for _ in 0..10 {
            for _ in 0..2 {
                fail(&breaker, Unreachable, now);
            }
            assert!(admits(&breaker, ATTACKER, now));
            respond(&breaker, now);
        }
        for _ in 0..3 {
            fail(&breaker, Unreachable, now);
        }
        assert_eq!(breaker.state(now), BreakerState::Open);
        assert!(!admits(&breaker, ATTACKER, now) && !admits(&breaker, HONEST, now));
    }

    #[test]
    fn without_traffic_it_becomes_due_after_its_pause() {
        for how in [Unreachable, Broken, Silent] {
            let breaker = Breaker::default();
            let start = Instant::now();
            for _ in 0..3 {
                fail(&breaker, how, start);
            }
            let due = start + Duration::from_secs(1);
            assert_eq!(breaker.state(due), BreakerState::Due);
            assert!(admits(&breaker, ATTACKER, due));
            assert_eq!(breaker.state(due), BreakerState::Probing);
            // Nothing reported the end of the probe.
            let later = due + limits().timeouts.exchange;
            assert_eq!(breaker.state(later), BreakerState::Due);
            assert!(admits(&breaker, ATTACKER, later));
        }
    }

    #[test]
    fn after_the_pause_one_probe_decides_at_a_time() {
        for how in [Unreachable, Broken, Silent] {
            let breaker = Breaker::default();
            let start = Instant::now();
            for _ in 0..2 {
                fail(&breaker, how, start);
            }
            fail(&breaker, how, start);
            assert!(!admits(
                &breaker,
                ATTACKER,
                start + Duration::from_millis(499)
            ));
            let later = start + Duration::from_secs(1);
            assert!(admits(&breaker, ATTACKER, later));
            assert_eq!(breaker.state(later), BreakerState::Probing);
            // The failure of an earlier delivery is not that of the probe.
            breaker.record_failure(earlier_permit(), how, later, &limits());
            assert_eq!(breaker.state(later), BreakerState::Probing);
            assert!(!admits(&breaker, ATTACKER, later), "one probe at a time");
            respond(&breaker, later);
            assert_eq!(breaker.state(later), BreakerState::Closed);
            assert!(admits(&breaker, ATTACKER, later) && admits(&breaker, ATTACKER, later));
        }
    }

    #[test]
    fn pauses_double_up_to_the_limit_and_late_failures_do_not_count() {
        let breaker = Breaker::default();
        let mut now = Instant::now();
        for _ in 0..3 {
            fail(&breaker, Unreachable, now);
        }
        for longest in [1, 2, 3, 3, 3] {
            let longest = Duration::from_secs(longest);
            let until = breaker.connecting.open_until.get().unwrap();
            assert!(until >= now + longest / 2 && until <= now + longest);
            breaker.record_failure(earlier_permit(), Unreachable, now, &limits());
            assert_eq!(breaker.connecting.open_until.get(), Some(until));
            now = until;
            fail(&breaker, Unreachable, now);
        }
    }

    #[test]
    fn broken_connections_do_not_open_it_while_other_requests_get_responses() {
        let breaker = Breaker::default();
        let start = Instant::now();
        for second in 0..20 {
            let now = start + Duration::from_secs(second);
            if second % 2 == 0 {
                respond(&breaker, now);
            }
            for _ in 0..100 {
                fail(&breaker, Broken, now);
            }
        }
        assert_eq!(breaker.state(start), BreakerState::Closed);
    }

    #[test]
    fn silence_counts_only_if_no_other_request_got_a_response_meanwhile() {
        let breaker = Breaker::default();
        let begun = Instant::now();
        let permits = [(); 9].map(|()| breaker.admit(ATTACKER, begun, &limits()).unwrap());
        let ended = begun + Duration::from_secs(30);
        respond(&breaker, begun + Duration::from_secs(1));
        for permit in permits {
            breaker.record_failure(permit, Silent, ended, &limits());
        }
        assert_eq!(breaker.state(ended), BreakerState::Closed);
        let permits = [(); 3].map(|()| breaker.admit(ATTACKER, ended, &limits()).unwrap());
        let later = ended + Duration::from_secs(30);
        for permit in permits {
            breaker.record_failure(permit, Silent, later, &limits());
        }
        assert_eq!(breaker.state(later), BreakerState::Open);
    }

    #[test]
    fn a_broken_or_silent_connection_concerns_only_the_routes_to_which_it_happened() {
        for how in [Broken, Silent] {
            let breaker = Breaker::default();
            let now = Instant::now();
            for _ in 0..3 {
                fail(&breaker, how, now);
            }
            assert!(!admits(&breaker, ATTACKER, now));
            let permit = breaker.admit(HONEST, now, &limits()).unwrap();
            // The upstream fails for that route, too.
            breaker.record_failure(permit, how, now, &limits());
            assert!(!admits(&breaker, HONEST, now));
            assert!(admits(&breaker, HONEST + 1, now));
            respond(&breaker, now);
            assert!(admits(&breaker, HONEST, now) && admits(&breaker, ATTACKER, now));
        }
    }

    #[test]
    fn a_probe_with_a_broken_connection_shows_that_connecting_works() {
        let breaker = Breaker::default();
        let now = Instant::now();
        respond(&breaker, now);
        for _ in 0..3 {
            fail(&breaker, Unreachable, now);
        }
        let due = now + Duration::from_secs(1);
        fail(&breaker, Broken, due);
        assert_eq!(breaker.state(due), BreakerState::Closed);
    }
}
