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

use crate::config::ReplyPolicy;
use crate::mirror::access_log::AccessLogEntry;
use crate::mirror::delivery_end::DeliveryEnd;
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
        let outbounds = self.route.outbounds.iter().enumerate();
        let live = outbounds.filter(|(index, _)| !self.is_dead(*index));
        let stores = live.map(|(_, outbound)| &*outbound.rate_limits);
        let context = ReplyContext {
            common_limits: rate_limit_store::common(stores, now),
            is_strict: policy == ReplyPolicy::Primary,
            expected,
            request,
        };
        Reply::from_decision(decision, &self.progress.borrow().outcomes, context)
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

    /// Records how a delivery of so many bytes ended at `now`.
    pub(super) fn count(&self, index: usize, outcome: &Outcome, bytes: usize, now: Instant) {
        let Some(outbound) = self.route.outbounds.get(index) else {
            return;
        };
        let end = DeliveryEnd {
            route: &self.route,
            outbound,
            endpoint: self.endpoint,
            outcome,
            bytes,
            after: now.duration_since(self.started),
            now,
        };
        let kind = end.record(&self.counters);
        if let Some(access) = &self.kept.access {
            access.delivered(index, kind, end.after);
        }
    }
}
