//! The metrics of a worker that do not belong to a single route.
//!
//! Requests that are rejected before their route is known, and those that the mirror replies to by itself, are
//! counted only here. Together with the requests of all routes they are the total.

use std::fmt;
use std::sync::Arc;

use crate::mirror::reply::rejection::Reason;
use crate::mirror::reporting::counters::{LeftOut, OutcomeKind, RequestResult};
use crate::mirror::reporting::disagreements::Disagreements;
use crate::mirror::reporting::unknown_keys::UnknownKeys;
use crate::mirror::routing::routes::Route;
use crate::net::tls_accept::HandshakeResult;
use crate::telemetry::counters::{Counter, CounterVec, Gauge};
use crate::telemetry::label::{Label, labels};

/// The counters of one worker since its start.
#[derive(Default)]
// Avoids false sharing between workers.
#[repr(align(128))]
pub struct WorkerMetrics {
    /// The number of the worker, which is its index in [`PerWorker`](crate::telemetry::counters::PerWorker).
    pub worker: usize,
    /// The keys of rejected requests, of all workers.
    pub unknown_keys: Arc<UnknownKeys>,
    /// Connections accepted.
    pub connections: Counter,
    /// SDK connections open now.
    pub open_connections: Gauge,
    /// SDK connections closed without a reply, by reason.
    pub closings: CounterVec<Closing>,
    /// TLS handshakes with SDKs that have ended, by result.
    pub handshakes: CounterVec<HandshakeResult>,
    /// The number of pauses in accepting connections, by reason.
    pub pauses: CounterVec<Pause>,
    /// All requests, by result.
    pub answers: CounterVec<RequestResult>,
    /// Requests without a route, by result.
    pub unrouted: CounterVec<RequestResult>,
    /// Requests rejected, by reason.
    pub rejections: CounterVec<Reason>,
    /// Deliveries to all outbounds, by outcome.
    pub deliveries: CounterVec<OutcomeKind>,
    /// Items of envelopes left out of deliveries, by reason.
    pub items: CounterVec<LeftOut>,
    /// The last requests that one outbound took and another refused.
    pub disagreements: Disagreements,
    /// Bytes of heads and bodies read from SDKs, before decoding. They include rejected and incomplete
    /// requests.
    pub received_bytes: Counter,
    /// The bytes of the memory budget that this worker uses.
    pub budget_used: Gauge,
}

labels! {
    /// Why an SDK connection was closed without a reply.
    pub enum Closing {
        /// No request arrived within `timeouts.idle`.
        Idle => "idle",
        /// It was idle for longer than any other when a new connection needed its place: `limits.connections`
        /// were open, or nearly all file descriptors were in use.
        Evicted => "evicted",
        /// The client did not read a reply within `timeouts.write`.
        Write => "write",
        /// The client violated TLS after the handshake, for example with a record that cannot be decrypted.
        Tls => "tls",
        /// The client had `limits.connections_per_peer` other connections.
        Peer => "connections_per_peer",
        /// It did not begin with a header of the PROXY protocol within `timeouts.head`, on a listener with
        /// `proxy_protocol`.
        ProxyHeader => "proxy_header",
        /// It came from elsewhere than the networks in `proxy_protocol` of its listener.
        Untrusted => "untrusted_proxy",
    }
}

labels! {
    /// Why a worker paused accepting connections.
    pub enum Pause {
        /// `limits.connections` connections were open, and none of them was idle.
        Connections => "connections",
        /// Accepting failed, usually because no file descriptor was left.
        Error => "error",
    }
}

impl WorkerMetrics {
    pub fn new(worker: usize) -> WorkerMetrics {
        WorkerMetrics {
            worker,
            ..WorkerMetrics::default()
        }
    }

    /// Counts a request that has ended.
    pub fn count_request(&self, result: RequestResult, route: Option<&Route>) {
        self.answers.inc(result);
        match route {
            Some(route) => route.counters.for_worker(self.worker).answers.inc(result),
            None => self.unrouted.inc(result),
        }
    }

    /// Counts all requests and deliveries of `routes` that are still in flight as given up. Those of routes
    /// that a reload has removed are not counted.
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
pub(crate) struct ShutdownSummary<'c>(pub &'c [Arc<WorkerMetrics>]);

impl fmt::Display for ShutdownSummary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = |count: &dyn Fn(&WorkerMetrics) -> u64| -> u64 {
            self.0.iter().map(|metrics| count(metrics)).sum()
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
