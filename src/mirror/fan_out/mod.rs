//! The fan-out: all deliveries of one request, with their outcomes.
//!
//! A slow outbound delays no delivery to another origin: each delivery has its own task, and they share only the
//! body, the fan-out and the worker's thread and memory. The SDK's connection waits until the outcomes decide the
//! reply, but not longer than a timeout. The remaining deliveries continue in the background, even if the connection
//! closes. The last one to end frees the memory of the request.
//!
//! [`send`] begins it, and [`dispatch`] starts a [`delivery`] to every outbound, with what [`render`] makes. Each
//! ends in an [`outcome`], and `delivery_end` counts it.

pub(crate) mod delivery;
mod delivery_end;
pub(crate) mod dispatch;
pub(crate) mod outcome;
pub(crate) mod render;
pub(crate) mod send;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use crate::config::ReplyPolicy;
use crate::mirror::fan_out::delivery_end::DeliveryEnd;
use crate::mirror::fan_out::outcome::Outcome;
use crate::mirror::outbound::outbound_log;
use crate::mirror::outbound::rate_limit_store;
use crate::mirror::reply::reply_policy::{Decision, considered, decide, mask_rate_limits};
use crate::mirror::reply::{Expected, Reply, ReplyContext};
use crate::mirror::reporting::counters::OutcomeKind;
use crate::mirror::reporting::disagreements::{Disagreement, Side};
use crate::mirror::reporting::item_counters::ItemOutcome;
use crate::mirror::reporting::worker_metrics::WorkerMetrics;
use crate::mirror::request::Request;
use crate::mirror::request::request_summary::RequestSummary;
use crate::mirror::request::request_trace::RequestTrace;
use crate::mirror::routing::local_route::LocalRoute;
use crate::mirror::routing::routes::{Outbound, Route};
use crate::mirror::transform::filter::Split;
use crate::runtime::deadline::in_time;
use crate::runtime::in_flight::InFlightGuard;
use crate::runtime::memory_budget::MemoryReservation;
use crate::sentry::endpoint::Endpoint;
use crate::sentry::quantity::Quantities;
use crate::telemetry::label::Label;
use crate::upstream::exchange::OutboundRequest;
use crate::upstream::waiting::Client;

pub(crate) struct FanOut {
    route: LocalRoute,
    endpoint: Endpoint,
    started: Instant,
    counters: Arc<WorkerMetrics>,
    progress: RefCell<Progress>,
    is_answered: Cell<bool>,
    /// The items of the request; empty if they are not counted.
    items: Quantities,
    resources: Resources,
}

/// The resources that a fan-out holds until its last delivery has ended.
pub(crate) struct Resources {
    /// The memory of the request, and of a small response of each outbound.
    pub(crate) memory: MemoryReservation,
    /// Makes a worker that shuts down wait for the fan-out.
    pub(crate) _in_flight: InFlightGuard,
    /// `None` if no log needs it.
    pub(crate) trace: Option<Rc<RequestTrace>>,
}

#[derive(Default)]
struct Progress {
    /// One per outbound of the fan-out, by index; `None` while its delivery is in flight.
    outcomes: Vec<Option<Outcome>>,
    /// The outbounds with a transform whose deliveries have begun.
    transformed: Vec<usize>,
    /// Whether an outbound refused the request.
    is_refused: bool,
    /// What the request was about, if that is to be kept.
    summary: Option<Box<RequestSummary>>,
    /// The items for each outbound that does not get all of them.
    splits: Vec<(usize, Rc<Split>)>,
    /// The memory of the transformed bodies.
    transform_memory: Option<MemoryReservation>,
    /// Wakes the task that waits for the decision on the reply.
    waker: Option<Waker>,
}

impl FanOut {
    /// Begins a fan-out to the first `count` outbounds of `route`.
    pub(crate) fn new(
        route: &LocalRoute,
        endpoint: Endpoint,
        count: usize,
        counters: &Arc<WorkerMetrics>,
        items: Quantities,
        resources: Resources,
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
            is_answered: Cell::new(false),
            route: route.clone(),
            endpoint,
            started: now,
            counters: Arc::clone(counters),
            items,
            resources,
        })
    }

    pub(crate) fn route(&self) -> &Route {
        &self.route
    }

    /// The outbounds of the fan-out, which are the first ones of the route.
    pub(crate) fn outbounds(&self) -> &[Outbound] {
        let count = self.progress.borrow().outcomes.len();
        self.route.outbounds.get(..count).unwrap_or_default()
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// The part of the memory budget that the request holds while a delivery is in flight.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.resources.memory.bytes()
    }

    /// Holds the memory of transformed bodies until the fan-out has ended.
    pub(crate) fn hold_memory(&self, memory: MemoryReservation) {
        self.progress.borrow_mut().transform_memory = Some(memory);
    }

    /// Records that the delivery of a transformed request to an outbound has begun.
    pub(crate) fn begin_transformed(&self, index: usize) {
        self.progress.borrow_mut().transformed.push(index);
    }

    /// Counts the items that an outbound does not get, and notes those that it gets.
    pub(crate) fn split_items(&self, index: usize, split: &Rc<Split>) {
        let Some(outbound) = self.route.outbounds.get(index) else {
            return;
        };
        if self.items.is_empty() {
            return;
        }
        let counters = outbound.counters.for_worker(self.counters.worker);
        counters.items.add(&split.filtered, ItemOutcome::Filtered);
        counters.items.add(&split.sampled, ItemOutcome::Sampled);
        counters.items.add(&split.capped, ItemOutcome::Capped);
        let mut progress = self.progress.borrow_mut();
        progress.splits.push((index, Rc::clone(split)));
    }

    /// The part of the request that an outbound gets; `None` if it gets all of it.
    fn split(&self, index: usize) -> Option<Rc<Split>> {
        let progress = self.progress.borrow();
        let mut splits = progress.splits.iter();
        let (_, split) = splits.find(|(split, _)| *split == index)?;
        Some(Rc::clone(split))
    }

    /// Counts the delivery of a further copy as begun.
    pub(crate) fn begin_copy(&self, index: usize) {
        if let Some(outbound) = self.route.outbounds.get(index) {
            let counters = outbound.counters.for_worker(self.counters.worker);
            counters.begun.inc();
        }
    }

    /// Records the outcome of a delivery that is not attempted.
    pub(crate) fn skip(&self, index: usize, outcome: Outcome) {
        self.record(index, &outcome, 0, Instant::now());
        self.complete(index, outcome);
    }

    /// Records the outcome of a further copy that is not attempted. It does not influence the reply.
    pub(crate) fn skip_copy(&self, index: usize, outcome: &Outcome) {
        self.begin_copy(index);
        self.record(index, outcome, 0, Instant::now());
    }

    /// Records a panic in the transforms as the outcome of every transformed delivery that has not begun.
    /// Deliveries that have begun record their own outcomes.
    pub(crate) fn fail_transformed(&self) {
        let indices = 0..self.outbounds().len();
        for index in indices.filter(|index| self.route.is_transformed(*index)) {
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

    /// The reply to `request`. Waits until the outcomes decide it, at most for `timeout` since the start.
    pub(crate) async fn reply(
        &self,
        policy: ReplyPolicy,
        timeout: Duration,
        expected: Expected,
        request: &Request,
    ) -> Reply {
        // Set even if the client disconnects, which drops this future.
        let _answered = SetOnDrop(&self.is_answered);
        let deadline = self.started + timeout;
        let decided = pin!(poll_fn(|context| self.poll_decided(policy, context)));
        let decision = match in_time(deadline, decided).await {
            Some(decision) => decision,
            None => decide(policy, self.considered(&self.progress.borrow()), true)
                // Unreachable: after the timeout there is always a decision.
                .unwrap_or(Decision::Unavailable),
        };
        let decision = match self.endpoint.reveals_rate_limits() {
            true => decision,
            false => mask_rate_limits(decision, self.considered(&self.progress.borrow())),
        };
        let counters = self.route.counters.for_worker(self.counters.worker);
        let now = Instant::now();
        counters.reply_time.record(now.duration_since(self.started));
        let outbounds = self.route.outbounds.iter().take(self.route.replying);
        let outbounds = outbounds.enumerate();
        let live = outbounds.filter(|(index, _)| self.is_live(*index));
        let stores = live.map(|(_, outbound)| &*outbound.rate_limits);
        let context = ReplyContext {
            common_limits: rate_limit_store::common(stores, now),
            is_strict: policy == ReplyPolicy::Primary,
            expected,
            request,
        };
        Reply::from_decision(decision, self.considered(&self.progress.borrow()), context)
    }

    /// Whether an outbound is live: it has not answered 401, 403 or 404. The rate limits of an outbound that is
    /// not live do not influence the reply.
    fn is_live(&self, index: usize) -> bool {
        match self.progress.borrow().outcomes.get(index) {
            Some(Some(Outcome::Answered(response))) => !matches!(response.status, 401 | 403 | 404),
            Some(Some(_) | None) | None => true,
        }
    }

    /// The outcomes that may influence the reply.
    fn considered<'p>(&self, progress: &'p Progress) -> &'p [Option<Outcome>] {
        considered(&progress.outcomes, self.route.replying)
    }

    fn poll_decided(&self, policy: ReplyPolicy, context: &Context<'_>) -> Poll<Decision> {
        let mut progress = self.progress.borrow_mut();
        if let Some(decision) = decide(policy, self.considered(&progress), false) {
            return Poll::Ready(decision);
        }
        progress.waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// Sets the outcome of a delivery, which may decide the reply.
    pub(super) fn complete(&self, index: usize, outcome: Outcome) {
        let waker = {
            let mut progress = self.progress.borrow_mut();
            if let Some(slot) = progress.outcomes.get_mut(index) {
                *slot = Some(outcome);
            }
            if progress.is_refused && progress.outcomes.iter().all(Option::is_some) {
                self.record_refusals(&mut progress);
            }
            progress.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Notes that the outbound at `index` refuses `request`, whose outcome follows.
    pub(super) fn note_refusal(&self, index: usize, request: &OutboundRequest, now: Instant) {
        let outbound = self.route.outbounds.get(index);
        let is_due = outbound.is_some_and(|outbound| outbound.state.refusal_log.is_due(now));
        let mut progress = self.progress.borrow_mut();
        progress.is_refused = true;
        if is_due && progress.summary.is_none() {
            let summary = RequestSummary::of(request, self.endpoint);
            progress.summary = Some(Box::new(summary));
        }
    }

    /// Counts the refusals if another outbound took the request, and keeps what it was about. All outcomes are known.
    fn record_refusals(&self, progress: &mut Progress) {
        let summary = progress.summary.take();
        if !Outcome::disagree(&progress.outcomes) {
            return;
        }
        let counters = self.route.counters.for_worker(self.counters.worker);
        let outcomes = progress.outcomes.iter().flatten();
        for refusal in outcomes.clone().filter_map(Outcome::refusal) {
            counters.disagreements.inc(refusal);
        }
        let Some(summary) = summary else {
            return;
        };
        let sides = self.route.outbounds.iter().zip(outcomes);
        let sides = sides.map(|(outbound, outcome)| Side {
            outbound: outbound.name.clone(),
            outcome: OutcomeKind::from_outcome(outcome).word(),
            status: outcome.response().map(|response| response.status),
            reason: outcome
                .response()
                .filter(|_| outcome.refusal().is_some())
                .map(|response| outbound_log::reason(outbound, response)),
        });
        self.counters.disagreements.push(Disagreement {
            at: SystemTime::now(),
            route: self.route.name.clone(),
            endpoint: self.endpoint.label(),
            summary: *summary,
            outcomes: sides.collect(),
        });
    }

    /// Records the outcome of a delivery of so many bytes in counters and logs.
    pub(super) fn record(&self, index: usize, outcome: &Outcome, bytes: usize, now: Instant) {
        let Some(outbound) = self.route.outbounds.get(index) else {
            return;
        };
        let trace = self.resources.trace.as_deref();
        let split = self.split(index);
        let end = DeliveryEnd {
            id: trace.map(|trace| trace.id),
            items: split.as_ref().map_or(&self.items, |split| &split.kept),
            route: &self.route,
            outbound,
            endpoint: self.endpoint,
            outcome,
            bytes,
            elapsed: now.duration_since(self.started),
            now,
        };
        let kind = end.record(&self.counters);
        if let Some(trace) = trace {
            trace.record_delivery(index, kind, end.elapsed);
        }
    }
}

struct SetOnDrop<'f>(&'f Cell<bool>);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

impl Client for FanOut {
    fn is_answered(&self) -> bool {
        self.is_answered.get()
    }
}
