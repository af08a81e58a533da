//! One outbound request in flight, run by a task of the pool.

use std::pin::pin;
use std::rc::Rc;
use std::time::Instant;

use crate::mirror::fan_out::FanOut;
use crate::mirror::fan_out::outcome::Outcome;
use crate::runtime::panics::caught;
use crate::runtime::task_pool::Job;
use crate::upstream::exchange::OutboundRequest;
use crate::upstream::pool::{Admission, Pool};
use crate::upstream::waiting::Client;

pub(crate) struct Delivery {
    pub(super) fan_out: Rc<FanOut>,
    /// The index of the outbound in the route.
    pub(super) index: usize,
    pub(super) pool: Rc<Pool>,
    pub(super) request: OutboundRequest,
    pub(super) begun: Instant,
    /// Whether this is a further copy. Its outcome does not influence the reply.
    pub(super) is_copy: bool,
    /// Its part of the origin's memory, until it has ended.
    pub(super) _admission: Admission,
}

impl Job for Delivery {
    async fn run(&mut self) -> Vec<u8> {
        // Taken before: a panic may leave the request without some of its parts.
        let bytes = self.request.bytes();
        let panicked = {
            let delivering = pin!(self.deliver(bytes));
            caught(delivering).await.is_err()
        };
        if panicked {
            self.end(Outcome::Panicked, bytes, Instant::now());
        }
        std::mem::take(&mut self.request.head)
    }
}

impl Delivery {
    async fn deliver(&mut self, bytes: usize) {
        let route = self.fan_out.route().id;
        let client: Rc<dyn Client> = Rc::clone(&self.fan_out) as _;
        let delivering = self
            .pool
            .deliver(&mut self.request, self.begun, route, &client);
        let (result, ended) = delivering.await;
        self.end(result.into(), bytes, ended);
    }

    fn end(&self, outcome: Outcome, bytes: usize, now: Instant) {
        self.fan_out.record(self.index, &outcome, bytes, now);
        if !self.is_copy {
            if outcome.refusal().is_some() {
                self.fan_out.note_refusal(self.index, &self.request, now);
            }
            self.fan_out.complete(self.index, outcome);
        }
    }
}
