//! Failing fast while an upstream is down.
//!
//! After some failures in a row nothing is sent for a while, so that a dead upstream holds no memory
//! and no connections for the length of a timeout per request. Then one delivery goes as a probe:
//! its answer closes the breaker, its failure makes the next pause twice as long. Pauses are
//! shortened by chance, so that the workers of many mirrors do not all come back at once.
//!
//! Only failures without any answer count. An upstream that answers 503 is quick about it, and its
//! answers matter to the SDK.
//!
//! A client must not be able to open it for others, for example with requests that a firewall in front
//! of the upstream resets. No request has a part in a connection that cannot be opened: that counts
//! always, and concerns everybody. A connection that breaks over a request, or stays silent, may be the
//! request's doing. That counts only where nothing else is answered either, and then concerns those routes
//! alone that it has happened to.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use crate::limits::Limits;
use crate::observe::label::labels;

/// The state of one origin, as one worker sees it.
#[derive(Default)]
pub(crate) struct Breaker {
    /// Whether connections can be opened.
    connecting: Circuit,
    /// Whether those that are open bring answers.
    answering: Circuit,
    /// Which senders have had a request without an answer since the last answer.
    unanswered: RefCell<HashSet<Sender>>,
    answered_at: Cell<Option<Instant>>,
}

labels! {
    /// What a breaker lets through, from the best to the worst.
    pub enum BreakerState {
        /// Everything.
        Closed => "closed",
        /// The next delivery, to find out: its pause is over.
        Due => "due",
        /// Nothing besides one delivery, which is on its way to find out.
        Probing => "probing",
        /// Nothing.
        Open => "open",
    }
}

impl BreakerState {
    /// Whether the upstream is left alone.
    pub fn is_open(self) -> bool {
        matches!(self, BreakerState::Probing | BreakerState::Open)
    }
}

/// Whose deliveries these are: they share their fate.
pub(crate) type Sender = usize;

/// What became of a delivery that has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// No connection could be opened.
    Unreachable,
    /// The connection broke.
    Broken,
    /// Nothing came for `timeouts.exchange`.
    Silent,
}

/// That a delivery may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Permit {
    sender: Sender,
    begun: Instant,
    probes_connecting: bool,
    probes_answering: bool,
}

impl Breaker {
    /// Whether `sender` may send a delivery at `now`. Then [`Breaker::answered`], [`Breaker::passed`] or
    /// [`Breaker::failed`] must follow.
    pub(crate) fn admits(&self, sender: Sender, now: Instant, limits: &Limits) -> Option<Permit> {
        // The second is asked about those alone that were without an answer.
        let is_concerned = self.answering.is_open() && self.unanswered.borrow().contains(&sender);
        if is_concerned && !self.answering.has_place(now) || !self.connecting.has_place(now) {
            return None;
        }
        Some(Permit {
            sender,
            begun: now,
            probes_connecting: self.connecting.probe(now, limits),
            probes_answering: is_concerned && self.answering.probe(now, limits),
        })
    }

    /// What it lets through at `now`, for those whose deliveries it is open for.
    pub(crate) fn state(&self, now: Instant) -> BreakerState {
        let states = [self.connecting.state(now), self.answering.state(now)];
        states
            .into_iter()
            .max_by_key(|state| *state as usize)
            .unwrap_or(BreakerState::Closed)
    }

    /// Takes note of an answer.
    pub(crate) fn answered(&self, now: Instant) {
        self.answered_at.set(Some(now));
        self.connecting.close();
        if self.answering.close() {
            self.unanswered.borrow_mut().clear();
        }
    }

    /// Forgets whose deliveries had no answer, now that their names may mean others.
    pub(crate) fn forget_senders(&self) {
        self.unanswered.borrow_mut().clear();
    }

    /// Takes note of a delivery that says nothing about the upstream.
    pub(crate) fn passed(&self, permit: Permit, now: Instant) {
        if permit.probes_connecting {
            self.connecting.pass(now);
        }
        if permit.probes_answering {
            self.answering.pass(now);
        }
    }

    /// Takes note of a delivery without an answer.
    pub(crate) fn failed(&self, permit: Permit, how: Unanswered, now: Instant, limits: &Limits) {
        if how == Unanswered::Unreachable {
            self.connecting.fail(permit.probes_connecting, now, limits);
            if permit.probes_answering {
                self.answering.pass(now);
            }
            return;
        }
        if permit.probes_connecting {
            // It could be connected to.
            self.connecting.close();
        }
        if self.nothing_is_answered(permit, how, now, limits) {
            self.unanswered.borrow_mut().insert(permit.sender);
            self.answering.fail(permit.probes_answering, now, limits);
        } else if permit.probes_answering {
            self.answering.pass(now);
        }
    }

    /// Whether there was no other answer while one could have been there: while a silent upstream was
    /// waited for, or for a while before a connection broke, which takes no time.
    fn nothing_is_answered(
        &self,
        permit: Permit,
        how: Unanswered,
        now: Instant,
        limits: &Limits,
    ) -> bool {
        let Some(answered_at) = self.answered_at.get() else {
            return true;
        };
        match how {
            Unanswered::Silent => answered_at < permit.begun,
            _ => now.saturating_duration_since(answered_at) >= limits.breaker.pause_max,
        }
    }
}

/// Failures in a row, and what follows.
#[derive(Default)]
struct Circuit {
    failures_in_a_row: Cell<u32>,
    /// Until when nothing is sent; `None` while it is closed.
    open_until: Cell<Option<Instant>>,
    /// Whether the probe is under way.
    is_probing: Cell<bool>,
}

impl Circuit {
    fn is_open(&self) -> bool {
        self.open_until.get().is_some()
    }

    /// Whether a delivery may be sent at `now`, as the probe where one is due.
    fn has_place(&self, now: Instant) -> bool {
        self.open_until.get().is_none_or(|until| now >= until)
    }

    /// Makes the delivery that is sent now the probe, where one is due.
    fn probe(&self, now: Instant, limits: &Limits) -> bool {
        if !self.is_open() {
            return false;
        }
        self.is_probing.set(true);
        // Whatever becomes of the probe, its time is over then.
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

    /// Forgets all failures; whether there were any.
    fn close(&self) -> bool {
        self.open_until.set(None);
        self.is_probing.set(false);
        self.failures_in_a_row.replace(0) > 0
    }

    /// The probe has said nothing: the next delivery is the probe.
    fn pass(&self, now: Instant) {
        if self.is_probing.replace(false) {
            self.open_until.set(Some(now));
        }
    }

    fn fail(&self, was_probe: bool, now: Instant, limits: &Limits) {
        // Of those that were sent before it opened, only the probe's outcome is news.
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
            self.open_until.set(Some(now + shortened(pause)));
        }
    }
}

/// Between half of `pause` and all of it.
fn shortened(pause: Duration) -> Duration {
    // The keys of a RandomState differ from one to the next; that is chance enough for this.
    let chance = RandomState::new().hash_one(()) % 1024;
    pause.mul_f64(0.5 + 0.5 * (chance as f64 / 1024.0))
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

    const ATTACKER: Sender = 1;
    const HONEST: Sender = 2;

    fn fail(breaker: &Breaker, how: Unanswered, now: Instant) {
        let permit = breaker.admits(ATTACKER, now, &limits()).unwrap();
        breaker.failed(permit, how, now, &limits());
    }

    fn admits(breaker: &Breaker, sender: Sender, now: Instant) -> bool {
        breaker.admits(sender, now, &limits()).is_some()
    }

    #[test]
    fn it_opens_after_failures_in_a_row_only() {
        let breaker = Breaker::default();
        let now = Instant::now();
        for _ in 0..10 {
            for _ in 0..2 {
                fail(&breaker, Unreachable, now);
            }
            assert!(admits(&breaker, ATTACKER, now));
            breaker.answered(now);
        }
        for _ in 0..3 {
            fail(&breaker, Unreachable, now);
        }
        assert_eq!(breaker.state(now), BreakerState::Open);
        assert!(!admits(&breaker, ATTACKER, now) && !admits(&breaker, HONEST, now));
    }

    #[test]
    fn without_traffic_it_does_not_look_open_for_ever() {
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
            // Nothing was heard of the probe.
            let later = due + limits().timeouts.exchange;
            assert_eq!(breaker.state(later), BreakerState::Due);
            assert!(admits(&breaker, ATTACKER, later));
        }
    }

    #[test]
    fn after_the_pause_one_probe_decides() {
        for how in [Unreachable, Broken, Silent] {
            let breaker = Breaker::default();
            let start = Instant::now();
            for _ in 0..2 {
                fail(&breaker, how, start);
            }
            let earlier = breaker.admits(ATTACKER, start, &limits()).unwrap();
            fail(&breaker, how, start);
            assert!(!admits(
                &breaker,
                ATTACKER,
                start + Duration::from_millis(499)
            ));
            let later = start + Duration::from_secs(1);
            assert!(admits(&breaker, ATTACKER, later));
            assert_eq!(breaker.state(later), BreakerState::Probing);
            // The failure of one that was sent earlier says nothing about the probe.
            breaker.failed(earlier, how, later, &limits());
            assert_eq!(breaker.state(later), BreakerState::Probing);
            assert!(!admits(&breaker, ATTACKER, later), "one probe at a time");
            breaker.answered(later);
            assert_eq!(breaker.state(later), BreakerState::Closed);
            assert!(admits(&breaker, ATTACKER, later) && admits(&breaker, ATTACKER, later));
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_late_failures_do_not_count() {
        let breaker = Breaker::default();
        let mut now = Instant::now();
        let late = breaker.admits(ATTACKER, now, &limits()).unwrap();
        for _ in 0..3 {
            fail(&breaker, Unreachable, now);
        }
        for longest in [1, 2, 3, 3, 3] {
            let longest = Duration::from_secs(longest);
            let until = breaker.connecting.open_until.get().unwrap();
            assert!(until >= now + longest / 2 && until <= now + longest);
            breaker.failed(late, Unreachable, now, &limits());
            assert_eq!(breaker.connecting.open_until.get(), Some(until));
            now = until;
            fail(&breaker, Unreachable, now);
        }
    }

    #[test]
    fn requests_that_break_their_connection_do_not_open_it_while_others_are_answered() {
        let breaker = Breaker::default();
        let start = Instant::now();
        for second in 0..20 {
            let now = start + Duration::from_secs(second);
            if second % 2 == 0 {
                breaker.answered(now);
            }
            for _ in 0..100 {
                fail(&breaker, Broken, now);
            }
        }
        assert_eq!(breaker.state(start), BreakerState::Closed);
    }

    #[test]
    fn silence_counts_only_where_nothing_was_answered_meanwhile() {
        let breaker = Breaker::default();
        let begun = Instant::now();
        let permits = [(); 9].map(|()| breaker.admits(ATTACKER, begun, &limits()).unwrap());
        let ended = begun + Duration::from_secs(30);
        breaker.answered(begun + Duration::from_secs(1));
        for permit in permits {
            breaker.failed(permit, Silent, ended, &limits());
        }
        assert_eq!(breaker.state(ended), BreakerState::Closed);
        let permits = [(); 3].map(|()| breaker.admits(ATTACKER, ended, &limits()).unwrap());
        let later = ended + Duration::from_secs(30);
        for permit in permits {
            breaker.failed(permit, Silent, later, &limits());
        }
        assert_eq!(breaker.state(later), BreakerState::Open);
    }

    #[test]
    fn what_breaks_over_requests_concerns_the_routes_alone_that_it_happened_to() {
        for how in [Broken, Silent] {
            let breaker = Breaker::default();
            let now = Instant::now();
            for _ in 0..3 {
                fail(&breaker, how, now);
            }
            assert!(!admits(&breaker, ATTACKER, now));
            let permit = breaker.admits(HONEST, now, &limits()).unwrap();
            // The upstream is down for that one too.
            breaker.failed(permit, how, now, &limits());
            assert!(!admits(&breaker, HONEST, now));
            assert!(admits(&breaker, HONEST + 1, now));
            breaker.answered(now);
            assert!(admits(&breaker, HONEST, now) && admits(&breaker, ATTACKER, now));
        }
    }

    #[test]
    fn a_probe_that_breaks_over_its_request_shows_that_the_upstream_can_be_reached() {
        let breaker = Breaker::default();
        let now = Instant::now();
        breaker.answered(now);
        for _ in 0..3 {
            fail(&breaker, Unreachable, now);
        }
        let due = now + Duration::from_secs(1);
        fail(&breaker, Broken, due);
        assert_eq!(breaker.state(due), BreakerState::Closed);
    }
}
