//! What a worker counts that belongs to no route.
//!
//! A request that is refused before its route is known, or that concerns the mirror alone, is counted
//! here, so that the requests of all routes and these are all there are.

use std::fmt;
use std::sync::Arc;

use crate::mirror::counters::{LeftOut, OutcomeKind, RequestResult};
use crate::mirror::rejection::Reason;
use crate::mirror::routes::Route;
use crate::telemetry::counters::{Counter, CounterVec, Gauge};
use crate::telemetry::label::{Label, labels};

/// What one worker has counted since its start.
#[derive(Default)]
// On cache lines of its own: what one worker counts must not slow another down.
#[repr(align(128))]
pub struct WorkerMetrics {
    /// The number of the worker, by which it finds its part of what is counted elsewhere.
    pub worker: usize,
    /// Connections accepted.
    pub connections: Counter,
    /// SDK connections open now.
    pub open_connections: Gauge,
    /// SDK connections closed because they took too long.
    pub closings: CounterVec<Closing>,
    /// How often no connection was accepted for a while.
    pub pauses: CounterVec<Pause>,
    /// Requests of all routes and of none, by what the SDK was told.
    pub answers: CounterVec<RequestResult>,
    /// Those of them that have no route.
    pub unrouted: CounterVec<RequestResult>,
    /// Requests refused, by reason.
    pub rejections: CounterVec<Reason>,
    /// Deliveries ended, over all outbounds, by outcome.
    pub deliveries: CounterVec<OutcomeKind>,
    /// Items of envelopes left out of deliveries, by reason.
    pub items: CounterVec<LeftOut>,
    /// Bytes read from SDKs: heads and bodies as they were sent, those that were refused or broke off
    /// included.
    pub received_bytes: Counter,
    /// Bytes held for requests now.
    pub budget_used: Gauge,
    /// The bytes that may be held for requests.
    pub budget_limit: Gauge,
}

labels! {
    /// Why an SDK connection was closed without a reply.
    pub enum Closing {
        /// No request came for `timeouts.idle`.
        Idle => "idle",
        /// The client did not read a reply within `timeouts.write`.
        Write => "write",
        /// The client had `limits.connections_per_peer` other connections.
        Peer => "connections_per_peer",
    }
}

labels! {
    /// Why a worker paused accepting connections.
    pub enum Pause {
        /// `limits.connections` connections were open.
        Connections => "connections",
        /// Accepting failed, usually because no file descriptor was left.
        Error => "error",
    }
}

impl WorkerMetrics {
    /// All zero.
    pub fn of_worker(worker: usize) -> WorkerMetrics {
        WorkerMetrics {
            worker,
            ..WorkerMetrics::default()
        }
    }

    /// Counts a request that has ended; `route` is where it went.
    pub fn answered(&self, answered: RequestResult, route: Option<&Route>) {
        self.answers.inc(answered);
        match route {
            Some(route) => route.counters.for_worker(self.worker).answers.inc(answered),
            None => self.unrouted.inc(answered),
        }
    }

    /// Counts what has not ended in any of `routes`, once the worker waits for it no longer. What went
    /// by a route that a reload has removed is told no more.
    pub fn give_up(&self, routes: &[Arc<Route>]) {
        for route in routes {
            let requests = route.counters.for_worker(self.worker).give_up();
            self.answers.add(RequestResult::GivenUp, requests);
            for outbound in &route.outbounds {
                let deliveries = outbound.counters.for_worker(self.worker).give_up();
                self.deliveries.add(OutcomeKind::GivenUp, deliveries);
            }
        }
    }
}

/// The totals over all workers, for the log line at the end of the process.
pub(crate) struct Totals<'c>(pub &'c [Arc<WorkerMetrics>]);

impl fmt::Display for Totals<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = |count: &dyn Fn(&WorkerMetrics) -> u64| -> u64 {
            self.0.iter().map(|counters| count(counters)).sum()
        };
        write!(
            f,
            "connections {}, requests {}",
            sum(&|counters| counters.connections.get()),
            sum(&|counters| counters.answers.total())
        )?;
        for reason in Reason::ALL {
            let count = sum(&|counters| counters.rejections.get(*reason));
            write_if_any(f, "rejected", reason.word(), count)?;
        }
        for outcome in OutcomeKind::ALL {
            let count = sum(&|counters| counters.deliveries.get(*outcome));
            write_if_any(f, "delivered", outcome.word(), count)?;
        }
        for reason in LeftOut::ALL {
            let count = sum(&|counters| counters.items.get(*reason));
            write_if_any(f, "items", reason.word(), count)?;
        }
        let panics = sum(&|counters| counters.answers.get(RequestResult::Panicked));
        write!(f, ", panics {panics}")
    }
}

fn write_if_any(f: &mut fmt::Formatter<'_>, what: &str, word: &str, count: u64) -> fmt::Result {
    match count {
        0 => Ok(()),
        count => write!(f, ", {what} {word} {count}"),
    }
}
