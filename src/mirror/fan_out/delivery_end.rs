//! Records the end of a delivery: in the counters, in the state of the outbound, and in the log.

use std::time::{Duration, Instant};

use tracing::debug;

use crate::mirror::fan_out::outcome::Outcome;
use crate::mirror::outbound::outbound_log;
use crate::mirror::reporting::counters::OutcomeKind;
use crate::mirror::reporting::worker_metrics::WorkerMetrics;
use crate::mirror::request::request_id::RequestId;
use crate::mirror::routing::routes::{Outbound, Route};
use crate::sentry::endpoint::Endpoint;
use crate::sentry::quantity::Quantities;
use crate::telemetry::label::Label;
use crate::telemetry::words;

/// The maximum length of a recorded error.
const ERROR_BYTES_MAX: usize = 1000;

pub(super) struct DeliveryEnd<'d> {
    /// For log lines; `None` if no log needs it.
    pub(super) id: Option<RequestId>,
    pub(super) route: &'d Route,
    pub(super) outbound: &'d Outbound,
    pub(super) endpoint: Endpoint,
    pub(super) outcome: &'d Outcome,
    /// The items of the delivery; empty if they are not counted.
    pub(super) items: &'d Quantities,
    /// The length of the outbound request.
    pub(super) bytes: usize,
    /// The time since the start of the fan-out.
    pub(super) elapsed: Duration,
    pub(super) now: Instant,
}

impl DeliveryEnd<'_> {
    pub(super) fn record(&self, worker: &WorkerMetrics) -> OutcomeKind {
        let (outbound, now) = (self.outbound, self.now);
        let kind = OutcomeKind::from_outcome(self.outcome);
        let word = kind.word();
        debug!(
            request = self.id.map(tracing::field::display),
            route = self.route.name,
            outbound = outbound.name,
            outcome = word,
            status = self.outcome.response().map(|response| response.status),
            ms = self.elapsed.as_secs_f64() * 1e3,
            "delivery ended"
        );
        if let Some(response) = self.outcome.response() {
            let has_rate_limits = self.endpoint.has_rate_limits();
            if has_rate_limits && outbound.rate_limits.remember(response, now) {
                outbound_log::log_rate_limits(self.route, outbound, now);
            }
            outbound_log::log_rejections(self.route, outbound, response, now);
        }
        let counters = outbound.counters.for_worker(worker.worker);
        if kind.is_recorded_as_error() {
            let describe = || describe_error(outbound, self.outcome);
            counters.last_error.record(now, describe);
        }
        // After everything that reads the response: if that panics, the delivery counts only as panicked.
        if kind.was_sent() {
            counters.bytes.add_bytes(self.bytes);
        }
        if !self.items.is_empty() {
            counters.items.add(self.items, kind.item_outcome());
        }
        counters.outcomes.inc(kind);
        let response = self.outcome.response();
        if response.is_some_and(outbound_log::rejects_all) {
            counters.rejected.inc();
        }
        if kind.was_tried() {
            counters.time.record(self.elapsed);
        }
        worker.deliveries.inc(kind);
        kind
    }
}

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
