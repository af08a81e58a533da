//! Circuit breaker: fails deliveries fast while an upstream is down.
//!
//! After some failures in a row the breaker opens, so that a dead upstream does not hold memory and connections for
//! the length of a timeout per request. Only failures without any response count. An upstream that responds with 503
//! does so quickly, and its responses matter to the SDK.
//!
//! A client must not be able to open the breaker for others, for example with requests that a firewall in
//! front of the upstream resets. So there are two circuits:
//!
//! * *Connecting*: no connection can be opened. A request cannot cause that: such a failure always counts, and the
//!   circuit drops the deliveries of all routes. The breaker itself finds out when it is over, by a connect
//!   ([`ProbeSchedule`]); no event is spent for that.
//! * *Answering*: connections break or stay silent. A request may cause that to its own connection: such a failure
//!   counts only while other requests get no response either, and the circuit drops the deliveries only of routes
//!   that had one. A connect would say nothing here, since the upstream accepts. So one of the deliveries to be
//!   dropped is sent instead, as a *trial*, once per `breaker.pause`.
//!
//! Trials do not become rarer, because the time between two is lost after the upstream is back. Where connections
//! break, one trial a second harms nobody. Where the upstream is silent, a trial takes `timeouts.exchange`, and so they
//! overlap: each holds the memory of one request, of thousands that may be in flight.
//!
//! This is the state machine alone, without I/O and clock; all workers share one per origin (`shared_breaker`).

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::limits::{BreakerLimits, Limits, Timeouts};
use crate::telemetry::label::labels;
use crate::upstream::circuit::Circuit;
use crate::upstream::jitter::Pause;
use crate::upstream::probe_schedule::{CHECK_INTERVAL, ProbeSchedule};

/// How many trials may be in flight. With the defaults, 30 s of silence and pauses of 0.5 to 1 s, at most 60 are. Where
/// `timeouts.exchange` is longer, the pauses become longer, too.
const TRIALS_MAX: u32 = 64;

pub(super) struct Breaker {
    limits: BreakerLimits,
    timeouts: Timeouts,
    /// Open while connections cannot be opened.
    connecting: Circuit,
    /// Open while connections bring no responses.
    answering: Circuit,
    /// The routes that had a request without a response since the last response.
    unanswered: HashSet<RouteId>,
    probes: ProbeSchedule,
    /// Whether a task probes, or is about to.
    has_prober: bool,
    /// The pause before the next trial.
    before_trial: Pause,
    trials: u32,
}

labels! {
    /// The state of a breaker, from best to worst.
    pub enum BreakerState {
        /// All deliveries are sent.
        Closed => "closed",
        /// The upstream does not answer. The next delivery is sent as a trial.
        Due => "due",
        /// Deliveries are dropped.
        Open => "open",
    }
}

/// Identifies a route. After failures of its deliveries, further ones of the same route may be dropped.
pub(crate) type RouteId = usize;

/// How a delivery ended without a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// The connection could not be opened.
    Unreachable,
    /// The connection was not open within `timeouts.connect`.
    ConnectTimeout,
    /// The connection broke.
    Broken,
    /// No response arrived within `timeouts.exchange`.
    Silent,
}

/// A delivery without a response.
#[derive(Clone, Copy)]
pub(super) struct Failed {
    pub(super) route: RouteId,
    pub(super) begun: Instant,
    pub(super) how: Unanswered,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Send,
    /// Send, and tell its end by [`Breaker::end_trial`].
    Trial,
    Drop,
}

/// What the prober does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextProbe {
    /// Connect now, within this time, and tell the end by [`Breaker::end_probe`].
    Now(Duration),
    /// Ask again after this time.
    After(Duration),
    /// Nothing is to be probed; the prober is released.
    Never,
}

impl Breaker {
    pub(super) fn new(now: Instant) -> Breaker {
        let limits = Limits::default();
        Breaker {
            limits: limits.breaker,
            timeouts: limits.timeouts,
            connecting: Circuit::default(),
            answering: Circuit::default(),
            unanswered: HashSet::new(),
            probes: ProbeSchedule::new(now),
            has_prober: false,
            before_trial: Pause::begin(now),
            trials: 0,
        }
    }

    /// Changes the limits. Forgets the routes without a response, because after a reload their ids may name others.
    pub(super) fn set_limits(&mut self, limits: &Limits) {
        self.limits = limits.breaker.clone();
        self.limits.pause = self.limits.pause.min(self.limits.pause_max);
        self.timeouts = limits.timeouts.clone();
        self.unanswered.clear();
    }

    /// What to do with a delivery of `route`.
    pub(super) fn admit(&mut self, route: RouteId, now: Instant) -> Verdict {
        if self.connecting.is_open() {
            self.probes.record_dropped();
            return Verdict::Drop;
        }
        // The second circuit concerns only the routes that got no response.
        if !self.answering.is_open() || !self.unanswered.contains(&route) {
            return Verdict::Send;
        }
        if !self.is_trial_due(now) {
            return Verdict::Drop;
        }
        self.trials += 1;
        self.before_trial = Pause::begin(now);
        Verdict::Trial
    }

    fn is_trial_due(&self, now: Instant) -> bool {
        let pause = self.limits.pause;
        // The more are in flight, the rarer they have to be, so that some are left until the first has ended. A
        // pause may be only half as long as asked for.
        let spread = match self.trials < TRIALS_MAX / 2 {
            true => Duration::ZERO,
            false => {
                let first_half = pause.saturating_mul(TRIALS_MAX / 4);
                let rest = self.timeouts.exchange.saturating_sub(first_half);
                rest / (TRIALS_MAX / 4)
            }
        };
        let longest = pause.max(spread);
        self.trials < TRIALS_MAX && now >= self.before_trial.end(longest)
    }

    /// Whether a delivery can be dropped without a change here, because one was already since the last probe.
    pub(super) fn drops_all(&self) -> bool {
        self.connecting.is_open() && self.probes.has_dropped()
    }

    /// Whether some delivery may be dropped.
    pub(super) fn is_open(&self) -> bool {
        self.connecting.is_open() || self.answering.is_open()
    }

    /// Whether a response changes anything.
    pub(super) fn has_failures(&self) -> bool {
        self.connecting.has_failures()
            || self.answering.has_failures()
            || !self.unanswered.is_empty()
    }

    /// Whether a task has to begin probing.
    pub(super) fn wants_prober(&self) -> bool {
        self.connecting.is_open() && !self.has_prober
    }

    pub(super) fn state(&self, now: Instant) -> BreakerState {
        if self.connecting.is_open() {
            BreakerState::Open
        } else if !self.answering.is_open() {
            BreakerState::Closed
        } else if self.unanswered.is_empty() || self.is_trial_due(now) {
            BreakerState::Due
        } else {
            BreakerState::Open
        }
    }

    /// Records a response, whatever its status.
    pub(super) fn record_response(&mut self, now: Instant) {
        self.connecting.close(now);
        self.answering.close(now);
        self.unanswered.clear();
    }

    /// Forgets all failures, because the upstream has other addresses.
    pub(super) fn reset(&mut self, now: Instant) {
        self.record_response(now);
    }

    /// Records a delivery without a response. `answered_at` is the time of the last response to any.
    pub(super) fn record_failure(
        &mut self,
        failed: Failed,
        answered_at: Option<Instant>,
        now: Instant,
    ) {
        let Failed { route, begun, how } = failed;
        let failures_max = self.limits.failures;
        let is_timeout = matches!(how, Unanswered::ConnectTimeout | Unanswered::Silent);
        match how {
            Unanswered::Unreachable | Unanswered::ConnectTimeout => {
                if self.connecting.fail(begun, is_timeout, now, failures_max) {
                    self.probes.restart(now);
                }
            }
            Unanswered::Broken | Unanswered::Silent => {
                if !self.got_no_response(begun, how, answered_at, now) {
                    return;
                }
                self.unanswered.insert(route);
                if self.answering.fail(begun, is_timeout, now, failures_max) {
                    self.before_trial = Pause::begin(now);
                }
            }
        }
    }

    /// Whether no other request got a response in the relevant time: while this delivery waited for a
    /// silent upstream, or during `breaker.pause_max` before its connection broke.
    fn got_no_response(
        &self,
        begun: Instant,
        how: Unanswered,
        answered_at: Option<Instant>,
        now: Instant,
    ) -> bool {
        let Some(answered_at) = answered_at else {
            return true;
        };
        match how {
            Unanswered::Silent => answered_at < begun,
            _ => now.saturating_duration_since(answered_at) >= self.limits.pause_max,
        }
    }

    /// Records the end of a trial, after its outcome.
    pub(super) fn end_trial(&mut self) {
        self.trials = self.trials.saturating_sub(1);
    }

    /// Makes the caller the prober. Returns `false` if there is one or none is wanted.
    pub(super) fn claim_prober(&mut self) -> bool {
        let is_wanted = self.wants_prober();
        self.has_prober |= is_wanted;
        is_wanted
    }

    /// Lets another task become the prober.
    pub(super) fn release_prober(&mut self) {
        self.has_prober = false;
    }

    pub(super) fn next_probe(&mut self, now: Instant) -> NextProbe {
        if !self.connecting.is_open() {
            self.release_prober();
            return NextProbe::Never;
        }
        if self.probes.begin(now, &self.limits) {
            return NextProbe::Now(self.timeouts.connect);
        }
        let due = self.probes.due(&self.limits);
        let wait = due.saturating_duration_since(now).min(CHECK_INTERVAL);
        // Nothing is due at once where too many probes are in flight.
        NextProbe::After(match wait.is_zero() {
            true => CHECK_INTERVAL,
            false => wait,
        })
    }

    /// Records that a probe has connected.
    pub(super) fn record_connected(&mut self, now: Instant) {
        self.connecting.close(now);
    }

    /// Records the end of a probe, after its result.
    pub(super) fn end_probe(&mut self, timed_out: bool) {
        self.probes.end(timed_out);
    }
}

#[cfg(test)]
mod tests;
