//! The fan-out: all deliveries of a request at once, each on a lane of its own.
//!
//! Deliveries share nothing but the body and this record of their outcomes. The connection that
//! brought the request waits only until there is a verdict; what is still in flight then goes on in
//! the background, whatever becomes of the connection.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tracing::debug;

use crate::config::ReplyPolicy;
use crate::deadline::in_time;
use crate::mirror::access::Entry;
use crate::mirror::changes;
use crate::mirror::counters::OutcomeKind;
use crate::mirror::lanes::{Job, Lanes};
use crate::mirror::limited::{self, withheld_seconds};
use crate::mirror::outcome::{Outcome, SkipReason};
use crate::mirror::reply::{Circumstances, Expected, Reply};
use crate::mirror::rewrite::Original;
use crate::mirror::routes::{Outbound, Route};
use crate::mirror::totals::Counters;
use crate::mirror::verdict::{Verdict, decide, untold_limits};
use crate::observe::label::Label;
use crate::observe::words;
use crate::panics::caught;
use crate::sentry::category::Category;
use crate::sentry::endpoint::{CannedResponse, Endpoint};
use crate::sentry::rate_limits::RateLimit;
use crate::upstream::exchange::{Failure, Request};
use crate::upstream::pool::{Admission, Pool};

/// What a fan-out works with.
pub(crate) struct Means<'m, K> {
    /// The worker's upstreams, by origin.
    pub upstreams: &'m [Rc<Pool>],
    /// Where outcomes are counted.
    pub counters: &'m Arc<Counters>,
    /// What carries the deliveries.
    pub lanes: &'m Rc<Lanes<Delivery<K>>>,
    /// The request's entry in the access log, if there is one.
    pub access: Option<Rc<Entry>>,
    /// What must live as long as a delivery does: a reservation in the memory budget, a pass through the
    /// gate that a stopping worker waits at.
    pub kept: K,
    /// How many bytes of the budget that reserves.
    pub kept_bytes: usize,
}

/// The deliveries of one request.
pub(crate) struct FanOut<K> {
    route: Arc<Route>,
    endpoint: Endpoint,
    /// Of the first outbounds of the route, those that the request goes to.
    outcomes: RefCell<Vec<Option<Outcome>>>,
    /// Of those that were left to the caller, the ones whose deliveries it has sent.
    sent: RefCell<Vec<usize>>,
    waiting: RefCell<Option<Waker>>,
    counters: Arc<Counters>,
    access: Option<Rc<Entry>>,
    started: Instant,
    _kept: K,
    kept_bytes: usize,
    /// The same for what is made of the body for some outbounds.
    also_kept: RefCell<Option<K>>,
}

impl<K: 'static> FanOut<K> {
    /// Starts the delivery of `original`, which is for `endpoint`, to the first `count` outbounds of
    /// `route`. `items` are what the request holds, or none where no outbound has limits in force. Outbounds with a handling are left to the caller, unless everything goes out `as_it_is`.
    pub(crate) fn start(
        route: &Arc<Route>,
        endpoint: Endpoint,
        count: usize,
        original: &Original<'_>,
        as_it_is: bool,
        items: &[Option<Category>],
        means: Means<'_, K>,
    ) -> Rc<FanOut<K>> {
        let now = Instant::now();
        let fan_out = Rc::new(FanOut {
            route: Arc::clone(route),
            endpoint,
            outcomes: RefCell::new((0..count).map(|_| None).collect()),
            sent: RefCell::default(),
            waiting: RefCell::new(None),
            counters: Arc::clone(means.counters),
            access: means.access,
            started: now,
            _kept: means.kept,
            kept_bytes: means.kept_bytes,
            also_kept: RefCell::new(None),
        });
        let worker = fan_out.counters.worker;
        route.counters.for_worker(worker).begun.inc();
        for (index, outbound) in route.outbounds.iter().enumerate().take(count) {
            outbound.counters.for_worker(worker).begun.inc();
            if outbound.handling.is_some() && !as_it_is {
                continue;
            }
            let closed = outbound.limits.closed(now);
            let withheld = closed.and_then(|closed| withheld_seconds(&closed, items, now));
            if let Some(pause) = withheld {
                fan_out.record(index, Outcome::Skipped(SkipReason::RateLimited(pause)));
                continue;
            }
            let Some(upstream) = means.upstreams.get(outbound.origin) else {
                debug_assert!(false, "an outbound without an upstream");
                continue;
            };
            let room = upstream.admit(original.held_bytes(outbound), means.kept_bytes);
            let Some(room) = room else {
                fan_out.record(index, Outcome::Failed(Failure::Overloaded));
                continue;
            };
            means.lanes.start(|mut head| {
                let body = original.render(outbound, &mut head);
                let request = Request {
                    method: original.parsed.method,
                    head,
                    body,
                    tail: Vec::new(),
                };
                Delivery {
                    fan_out: Rc::clone(&fan_out),
                    index,
                    upstream: Rc::clone(upstream),
                    request,
                    begun: now,
                    is_decisive: true,
                    _room: room,
                }
            });
        }
        fan_out
    }

    /// Starts a delivery to an outbound, which was admitted to its upstream, and whose outcome
    /// `is_decisive` for what the SDK is told; that of a further copy is not.
    pub(crate) fn send(
        self: &Rc<Self>,
        lanes: &Rc<Lanes<Delivery<K>>>,
        index: usize,
        upstream: &Rc<Pool>,
        (request, room): (Request, Admission),
        is_decisive: bool,
    ) {
        if is_decisive {
            self.sent.borrow_mut().push(index);
        } else {
            self.begin_copy(index);
        }
        lanes.start(|_memory| Delivery {
            fan_out: Rc::clone(self),
            index,
            upstream: Rc::clone(upstream),
            request,
            begun: Instant::now(),
            is_decisive,
            _room: room,
        });
    }

    /// Takes note that there will be no delivery to those outbounds that are `meant`, have no outcome and
    /// were not sent anything, because of a bug of this program.
    pub(crate) fn give_up(&self, meant: impl Fn(usize) -> bool) {
        let count = self.outcomes.borrow().len();
        for index in (0..count).filter(|index| meant(*index)) {
            let is_open = matches!(self.outcomes.borrow().get(index), Some(None));
            // What is under way has an end of its own.
            if is_open && !self.sent.borrow().contains(&index) {
                self.record(index, Outcome::Panicked);
            }
        }
    }

    /// How many bytes of the memory budget its request takes, as long as a delivery is under way.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    /// Keeps something for as long as a delivery is under way.
    pub(crate) fn keep(&self, kept: K) {
        *self.also_kept.borrow_mut() = Some(kept);
    }

    /// Waits until the SDK can be told something, at most for `patience` from the start of the fan-out,
    /// and says what. See [`Circumstances`] for the rest.
    pub(crate) async fn reply(
        &self,
        policy: ReplyPolicy,
        patience: Duration,
        expected: Expected,
        success: impl FnOnce() -> CannedResponse,
    ) -> Reply {
        let deadline = self.started + patience;
        let decided = pin!(poll_fn(|context| self.poll_decided(policy, context)));
        let verdict = match in_time(deadline, decided).await {
            Some(verdict) => verdict,
            None => decide(policy, &self.outcomes.borrow(), true)
                // With nothing left in flight there is always a verdict.
                .unwrap_or(Verdict::Unavailable),
        };
        let verdict = match self.endpoint.reveals_rate_limits() {
            true => verdict,
            false => untold_limits(verdict, &self.outcomes.borrow()),
        };
        let counters = self.route.counters.for_worker(self.counters.worker);
        let now = Instant::now();
        counters.reply_time.record(now.duration_since(self.started));
        let circumstances = Circumstances {
            common_limits: self.common_limits(now),
            is_strict: policy == ReplyPolicy::Primary,
            expected,
            success,
        };
        Reply::verdict(verdict, &self.outcomes.borrow(), circumstances)
    }

    /// What is limited at every outbound of the route; nothing if one of them has no limit.
    fn common_limits(&self, now: Instant) -> Vec<RateLimit> {
        let mut sets = Vec::new();
        for (index, outbound) in self.route.outbounds.iter().enumerate() {
            if self.is_dead(index) {
                continue;
            }
            let Some(closed) = outbound.limits.closed(now) else {
                return Vec::new();
            };
            sets.push(closed);
        }
        limited::common(&sets, now)
    }

    /// Whether an outbound answered that it will never take anything, so that it has no say in what
    /// is limited.
    fn is_dead(&self, index: usize) -> bool {
        match self.outcomes.borrow().get(index) {
            Some(Some(Outcome::Answered(response))) => {
                matches!(response.status, 401 | 403 | 404)
            }
            Some(Some(_) | None) | None => false,
        }
    }

    fn poll_decided(&self, policy: ReplyPolicy, context: &Context<'_>) -> Poll<Verdict> {
        if let Some(verdict) = decide(policy, &self.outcomes.borrow(), false) {
            return Poll::Ready(verdict);
        }
        *self.waiting.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }

    /// Takes note of how the delivery to an outbound ended that was not sent.
    pub(crate) fn record(&self, index: usize, outcome: Outcome) {
        self.count(index, &outcome, 0, Instant::now());
        self.settle(index, outcome);
    }

    /// The same for that of a further copy.
    pub(crate) fn note(&self, index: usize, outcome: &Outcome) {
        self.begin_copy(index);
        self.count(index, outcome, 0, Instant::now());
    }

    fn begin_copy(&self, index: usize) {
        if let Some(outbound) = self.route.outbounds.get(index) {
            let counters = outbound.counters.for_worker(self.counters.worker);
            counters.begun.inc();
        }
    }

    /// Lets an outcome decide on the reply.
    fn settle(&self, index: usize, outcome: Outcome) {
        if let Some(slot) = self.outcomes.borrow_mut().get_mut(index) {
            *slot = Some(outcome);
        }
        if let Some(waker) = self.waiting.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Counts the outcome, known since `now`, of a delivery of so many bytes, and remembers what it tells
    /// about the outbound.
    fn count(&self, index: usize, outcome: &Outcome, bytes: usize, now: Instant) {
        let kind = OutcomeKind::from_outcome(outcome);
        if let Some(outbound) = self.route.outbounds.get(index) {
            let word = kind.word();
            debug!(outbound = outbound.label, outcome = word, "delivery ended");
            if let Some(response) = outcome.response() {
                if self.endpoint.has_rate_limits() && outbound.limits.remember(response, now) {
                    changes::tell_limits(outbound, now);
                }
                changes::tell_refusal(&self.route, outbound, response, now);
            }
            let counters = outbound.counters.for_worker(self.counters.worker);
            if kind.is_recorded_as_error() {
                counters
                    .last_error
                    .record(now, || describe_error(outbound, outcome));
            }
            // Behind all that looks at what an upstream sent: what panics there counts as that alone.
            if kind.was_sent() {
                counters.bytes.add_bytes(bytes);
            }
            counters.outcomes.inc(kind);
            let after = now.duration_since(self.started);
            if kind.was_tried() {
                counters.time.record(after);
            }
            if let Some(access) = &self.access {
                access.delivered(index, kind, after);
            }
        }
        self.counters.deliveries.inc(kind);
    }
}

/// The request to one outbound.
pub(crate) struct Delivery<K> {
    fan_out: Rc<FanOut<K>>,
    index: usize,
    upstream: Rc<Pool>,
    request: Request,
    begun: Instant,
    /// Whether its outcome matters to the SDK; that of a further copy does not.
    is_decisive: bool,
    /// What it takes of its origin's share, until it has ended.
    _room: Admission,
}

impl<K: 'static> Job for Delivery<K> {
    async fn run(mut self) -> Vec<u8> {
        // A request that was given up midway has lost some of its parts.
        let bytes = self.request.bytes();
        let panicked = {
            let delivering = pin!(self.deliver(bytes));
            caught(delivering).await.is_err()
        };
        if panicked {
            self.end(Outcome::Panicked, bytes, Instant::now());
        }
        self.request.head
    }
}

impl<K: 'static> Delivery<K> {
    async fn deliver(&mut self, bytes: usize) {
        // An address is as good as a name here: it is used as long as the route is.
        let sender = Arc::as_ptr(&self.fan_out.route).addr();
        let delivering = self.upstream.deliver(&mut self.request, self.begun, sender);
        let (outcome, ended) = delivering.await;
        self.end(outcome.into(), bytes, ended);
    }

    fn end(&self, outcome: Outcome, bytes: usize, now: Instant) {
        self.fan_out.count(self.index, &outcome, bytes, now);
        if self.is_decisive {
            self.fan_out.settle(self.index, outcome);
        }
    }
}

/// The maximum length of a recorded error.
const ERROR_BYTES_MAX: usize = 1000;

/// Describes a failed delivery to an operator.
fn describe_error(outbound: &Outbound, outcome: &Outcome) -> String {
    let reason = match outcome {
        Outcome::Answered(response) => {
            let reason = changes::reason(outbound, response);
            return format!("answered {}: {reason}", response.status);
        }
        Outcome::Failed(failure) => failure.to_string(),
        // Not an error, and so not recorded as one.
        Outcome::Skipped(reason) => format!("skipped: {reason:?}"),
        Outcome::Panicked => "a bug in this program: the delivery panicked".to_owned(),
    };
    words::sanitized(reason.as_bytes(), ERROR_BYTES_MAX, &[])
}
