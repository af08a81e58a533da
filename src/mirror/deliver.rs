//! The fan-out: all deliveries of a request at once, each in a task of its own.
//!
//! Deliveries share nothing but the body and this record of their outcomes. The connection that
//! brought the request waits only until there is a verdict; what is still in flight then goes on in
//! the background, whatever becomes of the connection.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use monoio::time::timeout;
use tracing::debug;

use crate::config::ReplyPolicy;
use crate::mirror::reply::Reply;
use crate::mirror::rewrite::Original;
use crate::mirror::routes::Route;
use crate::mirror::verdict::{Outcome, Verdict, decide, outcome_label};
use crate::observe::counters::Counters;
use crate::panics::caught;
use crate::sentry::endpoint::Shape;
use crate::upstream::exchange::{Failure, Request};
use crate::upstream::pool::Upstream;

/// The deliveries of one request.
pub struct FanOut<K> {
    outcomes: RefCell<Vec<Option<Outcome>>>,
    waiting: RefCell<Option<Waker>>,
    counters: Arc<Counters>,
    /// What must live as long as a delivery does: a share of the memory budget, a pass through the
    /// gate that a stopping worker waits at.
    _kept: K,
}

impl<K: 'static> FanOut<K> {
    /// Starts the delivery of `original` to every outbound of `route`. `upstreams` are the
    /// worker's, by origin; `kept` is dropped when the last delivery has ended.
    pub fn start(
        route: &Route,
        original: &Original<'_>,
        upstreams: &[Rc<Upstream>],
        counters: &Arc<Counters>,
        kept: K,
    ) -> Rc<FanOut<K>> {
        let fan_out = Rc::new(FanOut {
            outcomes: RefCell::new(route.outbounds.iter().map(|_| None).collect()),
            waiting: RefCell::new(None),
            counters: Arc::clone(counters),
            _kept: kept,
        });
        for (index, outbound) in route.outbounds.iter().enumerate() {
            let Some(upstream) = upstreams.get(outbound.origin) else {
                fan_out.record(index, &outbound.label, Err(Failure::Panicked));
                continue;
            };
            let (head, body) = original.render(outbound);
            let delivery = Delivery {
                index,
                label: outbound.label.clone(),
                upstream: Rc::clone(upstream),
                request: Request {
                    method: original.parsed.method,
                    head,
                    body,
                },
            };
            monoio::spawn(delivery.run(Rc::clone(&fan_out)));
        }
        fan_out
    }

    /// Waits until the SDK can be told something, at most for `patience`, and says what.
    pub async fn reply(
        &self,
        policy: ReplyPolicy,
        patience: Duration,
        success: impl FnOnce() -> Shape,
    ) -> Reply {
        let verdict = match timeout(patience, self.decided(policy)).await {
            Ok(verdict) => verdict,
            // With nothing left in flight there is always a verdict, so the default is never used.
            Err(_elapsed) => {
                decide(policy, &self.outcomes.borrow(), true).unwrap_or(Verdict::Unavailable)
            }
        };
        Reply::verdict(verdict, &self.outcomes.borrow(), success)
    }

    async fn decided(&self, policy: ReplyPolicy) -> Verdict {
        poll_fn(|context| self.poll_decided(policy, context)).await
    }

    fn poll_decided(&self, policy: ReplyPolicy, context: &Context<'_>) -> Poll<Verdict> {
        if let Some(verdict) = decide(policy, &self.outcomes.borrow(), false) {
            return Poll::Ready(verdict);
        }
        *self.waiting.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }

    fn record(&self, index: usize, label: &str, outcome: Outcome) {
        let word = outcome_label(&outcome);
        debug!(outbound = label, outcome = word, "delivery ended");
        self.counters.deliveries.count(word);
        if let Some(slot) = self.outcomes.borrow_mut().get_mut(index) {
            *slot = Some(outcome);
        }
        if let Some(waker) = self.waiting.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// One outbound request on its way.
struct Delivery {
    index: usize,
    label: String,
    upstream: Rc<Upstream>,
    request: Request,
}

impl Delivery {
    async fn run<K: 'static>(self, fan_out: Rc<FanOut<K>>) {
        let outcome = caught(self.upstream.deliver(self.request)).await;
        let outcome = outcome.unwrap_or(Err(Failure::Panicked));
        fan_out.record(self.index, &self.label, outcome);
    }
}
