//! What ties the log lines of one request together: its id, and its entry in the access log.
//!
//! A request has a trace only if the access log is on or lines of the level `debug` are logged. Without a
//! trace, nothing of this is computed.

use std::time::Duration;

use crate::mirror::reporting::access_log::AccessLogEntry;
use crate::mirror::reporting::counters::OutcomeKind;
use crate::mirror::request::request_id::RequestId;

/// The connection of the SDK and the deliveries of the request share it.
pub(crate) struct RequestTrace {
    pub(crate) id: RequestId,
    /// `None` if the access log is off. It is written when the trace is dropped.
    pub(crate) entry: Option<AccessLogEntry>,
}

impl RequestTrace {
    /// Records the outcome of a delivery to the outbound at `index`, which ended so long `after` the start of
    /// the fan-out.
    pub(crate) fn record_delivery(&self, index: usize, outcome: OutcomeKind, after: Duration) {
        if let Some(entry) = &self.entry {
            entry.record_delivery(index, outcome, after);
        }
    }
}
