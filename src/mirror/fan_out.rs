//! What became of the deliveries of one request.
//!
//! Deliveries share nothing but the body and this record of their outcomes. The connection that brought
//! the request waits only until the reply is decided. What is still in flight then goes on in the
//! background, whatever becomes of the connection.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tracing::debug;

use crate::config::ReplyPolicy;
use crate::mirror::access_log::AccessLogEntry;
use crate::mirror::counters::OutcomeKind;
use crate::mirror::outbound_log;
use crate::mirror::outcome::Outcome;
use crate::mirror::rate_limit_store;
use crate::mirror::reply::{Expected, Reply, ReplyContext};
use crate::mirror::reply_policy::{Decision, decide, mask_rate_limits};
use crate::mirror::request::Request;
use crate::mirror::routes::{Outbound, Route};
use crate::mirror::worker_metrics::WorkerMetrics;
use crate::runtime::deadline::in_time;
use crate::runtime::in_flight::InFlightGuard;
use crate::runtime::memory_budget::MemoryReservation;
use crate::sentry::endpoint::Endpoint;
use crate::sentry::rate_limits::RateLimit;
use crate::telemetry::label::Label;
use crate::telemetry::words;

/// The deliveries of one request.
pub(crate) struct FanOut {
    route: Arc<Route>,
    endpoint: Endpoint,
    started: Instant,
    counters: Arc<WorkerMetrics>,
    progress: RefCell<Progress>,
    kept: Kept,
}

/// What a fan-out keeps until its last delivery has ended.
pub(crate) struct Kept {
    /// The memory of the request, and of a small answer of each outbound.
    pub(crate) memory: MemoryReservation,
    /// Lets a worker that stops wait for it.
    pub(crate) _in_flight: InFlightGuard,
    /// The request's entry in the access log, if there is one.
    pub(crate) access: Option<Rc<AccessLogEntry>>,
}

#[derive(Default)]
struct Progress {
    /// Of the first outbounds of the route, those that the request goes to.
    outcomes: Vec<Option<Outcome>>,
    /// The outbounds with a transform whose deliveries have begun.
    transformed: Vec<usize>,
    /// The memory of what the transforms have made.
    transform_memory: Option<MemoryReservation>,
    /// Who waits for the decision on the reply.
    waker: Option<Waker>,
}

impl FanOut {
    /// A fan-out to the first `count` outbounds of `route`, which begins at `now`.
    pub(crate) fn new(
        route: &Arc<Route>,
        endpoint: Endpoint,
        count: usize,
        counters: &Arc<WorkerMetrics>,
        kept: Kept,
        now: Instant,
    ) -> Rc<FanOut> {
        let worker = counters.worker;
        route.counters.for_worker(worker).begun.inc();
        let outbounds = route.outbounds.iter().take(count);
        let begin = |outbound: &Outbound| {
            outbound.counters.for_worker(worker).begun.inc();
            None
        };
        Rc::new(FanOut {
            progress: RefCell::new(Progress {
                outcomes: outbounds.map(begin).collect(),
                ..Progress::default()
            }),
            route: Arc::clone(route),
            endpoint,
            started: now,
            counters: Arc::clone(counters),
            kept,
        })
    }

    pub(crate) fn route(&self) -> &Arc<Route> {
        &self.route
    }

    /// The outbounds that the request goes to, in the order of their indices.
    pub(crate) fn outbounds(&self) -> &[Outbound] {
        let count = self.progress.borrow().outcomes.len();
        self.route.outbounds.get(..count).unwrap_or_default()
    }

    /// When it began.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Whom the breaker takes for the sender. The address of a route is used as long as the route is, so it
    /// is as good as a name.
    pub(super) fn sender(&self) -> usize {
        Arc::as_ptr(&self.route).addr()
    }

    /// How many bytes of the memory budget the request takes while a delivery is under way.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.kept.memory.bytes()
    }

    /// Keeps the memory of what was made for some outbounds.
    pub(crate) fn keep(&self, memory: MemoryReservation) {
        self.progress.borrow_mut().transform_memory = Some(memory);
    }

    /// Notes that a transformed request is on its way to an outbound.
    pub(crate) fn begin_transformed(&self, index: usize) {
        self.progress.borrow_mut().transformed.push(index);
    }

    /// Counts the delivery of a further copy as begun.
    pub(crate) fn begin_copy(&self, index: usize) {
        if let Some(outbound) = self.route.outbounds.get(index) {
            let counters = outbound.counters.for_worker(self.counters.worker);
            counters.begun.inc();
        }
    }

    /// Records how a delivery ended that was not begun.
    pub(crate) fn skip(&self, index: usize, outcome: Outcome) {
        self.count(index, &outcome, 0, Instant::now());
        self.settle(index, outcome);
    }

    /// The same for that of a further copy, whose outcome does not matter to the SDK.
    pub(crate) fn skip_copy(&self, index: usize, outcome: &Outcome) {
        self.begin_copy(index);
        self.count(index, outcome, 0, Instant::now());
    }

    /// Records that there will be no delivery to those outbounds whose body was to be `transformed`, because
    /// a panic ended the transforms. A delivery that has begun ends by itself.
    pub(crate) fn give_up(&self, transformed: impl Fn(usize) -> bool) {
        for index in (0..self.outbounds().len()).filter(|index| transformed(*index)) {
            let is_lost = {
                let progress = self.progress.borrow();
                matches!(progress.outcomes.get(index), Some(None))
                    && !progress.transformed.contains(&index)
            };
            if is_lost {
                self.skip(index, Outcome::Panicked);
            }
        }
    }

    /// The reply to `request`, once the outcomes decide it, or `patience` after the start at the latest.
    pub(crate) async fn reply(
        &self,
        policy: ReplyPolicy,
        patience: Duration,
        expected: Expected,
        request: &Request,
    ) -> Reply {
        let deadline = self.started + patience;
        let decided = pin!(poll_fn(|context| self.poll_decided(policy, context)));
        let decision = match in_time(deadline, decided).await {
            Some(decision) => decision,
            None => decide(policy, &self.progress.borrow().outcomes, true)
                // With nothing left in flight there is always a decision.
                .unwrap_or(Decision::Unavailable),
        };
        let decision = match self.endpoint.reveals_rate_limits() {
            true => decision,
            false => mask_rate_limits(decision, &self.progress.borrow().outcomes),
        };
        let counters = self.route.counters.for_worker(self.counters.worker);
        let now = Instant::now();
        counters.reply_time.record(now.duration_since(self.started));
        let context = ReplyContext {
            common_limits: self.common_limits(now),
            is_strict: policy == ReplyPolicy::Primary,
            expected,
            request,
        };
        Reply::from_decision(decision, &self.progress.borrow().outcomes, context)
    }

    /// What is limited at every outbound of the route; nothing if one of them has no limit.
    fn common_limits(&self, now: Instant) -> Vec<RateLimit> {
        let mut sets = Vec::new();
        for (index, outbound) in self.route.outbounds.iter().enumerate() {
            if self.is_dead(index) {
                continue;
            }
            let Some(closed) = outbound.rate_limits.closed(now) else {
                return Vec::new();
            };
            sets.push(closed);
        }
        rate_limit_store::common(&sets, now)
    }

    /// Whether an outbound answered that it will never take anything, so that it has no say in what
    /// is limited.
    fn is_dead(&self, index: usize) -> bool {
        match self.progress.borrow().outcomes.get(index) {
            Some(Some(Outcome::Answered(response))) => {
                matches!(response.status, 401 | 403 | 404)
            }
            Some(Some(_) | None) | None => false,
        }
    }

    fn poll_decided(&self, policy: ReplyPolicy, context: &Context<'_>) -> Poll<Decision> {
        let mut progress = self.progress.borrow_mut();
        if let Some(decision) = decide(policy, &progress.outcomes, false) {
            return Poll::Ready(decision);
        }
        progress.waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// Lets an outcome decide on the reply.
    pub(super) fn settle(&self, index: usize, outcome: Outcome) {
        let waker = {
            let mut progress = self.progress.borrow_mut();
            if let Some(slot) = progress.outcomes.get_mut(index) {
                *slot = Some(outcome);
            }
            progress.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Counts the outcome, known since `now`, of a delivery of so many bytes, and remembers what it tells
    /// about the outbound.
    pub(super) fn count(&self, index: usize, outcome: &Outcome, bytes: usize, now: Instant) {
        let kind = OutcomeKind::from_outcome(outcome);
        if let Some(outbound) = self.route.outbounds.get(index) {
            let word = kind.word();
            debug!(outbound = outbound.label, outcome = word, "delivery ended");
            if let Some(response) = outcome.response() {
                if self.endpoint.has_rate_limits() && outbound.rate_limits.remember(response, now) {
                    outbound_log::tell_limits(outbound, now);
                }
                outbound_log::tell_refusal(&self.route, outbound, response, now);
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
            if let Some(access) = &self.kept.access {
                access.delivered(index, kind, after);
            }
        }
        self.counters.deliveries.inc(kind);
    }
}

/// The maximum length of a recorded error.
const ERROR_BYTES_MAX: usize = 1000;

/// Describes a failed delivery to an operator.
fn describe_error(outbound: &Outbound, outcome: &Outcome) -> String {
    let reason = match outcome {
        Outcome::Answered(response) => {
            let reason = outbound_log::reason(outbound, response);
            return format!("answered {}: {reason}", response.status);
        }
        Outcome::Failed(failure) => failure.to_string(),
        // Not an error, and so not recorded as one.
        Outcome::Skipped(reason) => format!("skipped: {reason:?}"),
        Outcome::Panicked => "a bug in this program: the delivery panicked".to_owned(),
    };
    words::sanitized(reason.as_bytes(), ERROR_BYTES_MAX, &[])
}
