//! Where Sentry reads ids and sample rates.
//!
//! Only the members that Sentry reads are listed: anywhere else the same names are the user's own data.

use IdKind::{
    DistinctId, EventId, MonitorSlug, OtherId, PartTraceId, ProfilerId, ReplayId, SampleRate,
    SessionId, TraceId,
};
use JsonPath::{Elements, Members, Value};

use crate::span::Span;

/// The longest payload that is searched whole: twice what Relay accepts of an event. A walk over a longer one
/// would keep the core from everything else.
pub(crate) const SEARCHED_BYTES_MAX: usize = 2 * 1024 * 1024;

/// The number of values collected from one payload at most. No payload of [`SEARCHED_BYTES_MAX`] has room for
/// more ids of 32 digits.
pub(super) const FOUND_MAX: usize = SEARCHED_BYTES_MAX / 32;

/// What a value identifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IdKind {
    /// The event itself, or the event that a report is about.
    EventId,
    TraceId,
    /// The trace of a part: a span, a log or a metric.
    PartTraceId,
    ReplayId,
    /// The run of a continuous profiler, which sends its profile in chunks.
    ProfilerId,
    /// An id that plays no part in sampling decisions.
    OtherId,
    SessionId,
    /// The user of a session.
    DistinctId,
    MonitorSlug,
    /// The rate at which the trace was sampled by the SDK.
    SampleRate,
}

impl IdKind {
    /// Whether a copy of the data needs a value of its own.
    pub(crate) const fn is_unique(self) -> bool {
        match self {
            IdKind::EventId
            | IdKind::TraceId
            | IdKind::PartTraceId
            | IdKind::ReplayId
            | IdKind::ProfilerId
            | IdKind::OtherId
            | IdKind::SessionId => true,
            IdKind::DistinctId | IdKind::MonitorSlug | IdKind::SampleRate => false,
        }
    }
}

/// The paths of member names that lead from a JSON value to ids.
#[derive(Debug)]
pub(crate) enum JsonPath {
    /// A string or a number.
    Value(IdKind),
    /// Some members of an object.
    Members(&'static [(&'static str, JsonPath)]),
    /// Every element of an array.
    Elements(&'static JsonPath),
}

/// A value found at one of the paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IdSpan {
    pub kind: IdKind,
    /// The content of the string, still escaped, or the number.
    pub span: Span,
}

/// The header of an envelope.
pub(crate) const HEADER: JsonPath = Members(&[
    ("event_id", Value(EventId)),
    (
        "trace",
        Members(&[
            ("trace_id", Value(TraceId)),
            ("replay_id", Value(ReplayId)),
            ("sample_rate", Value(SampleRate)),
        ]),
    ),
]);

/// The payload of any item, and the body of a store request.
pub(super) const PAYLOAD: JsonPath = Members(&[
    ("event_id", Value(EventId)),
    ("trace_id", Value(TraceId)),
    ("replay_id", Value(ReplayId)),
    ("profile_id", Value(OtherId)),
    ("profiler_id", Value(ProfilerId)),
    ("chunk_id", Value(OtherId)),
    ("check_in_id", Value(OtherId)),
    ("monitor_slug", Value(MonitorSlug)),
    ("sid", Value(SessionId)),
    ("did", Value(DistinctId)),
    ("trace_ids", Elements(&Value(PartTraceId))),
    ("error_ids", Elements(&Value(OtherId))),
    ("contexts", CONTEXTS),
    // SDKs for browsers write the replay here as well as in the contexts.
    ("tags", Members(&[("replayId", Value(ReplayId))])),
    ("breadcrumbs", Elements(&BREADCRUMB)),
    ("breadcrumbs", Members(&[("values", Elements(&BREADCRUMB))])),
    ("spans", Elements(&SPAN)),
    // A span that is an item by itself.
    ("data", SPAN_DATA),
    ("links", Elements(&LINK)),
    // An object in a profile. In a transaction it is a string, the name.
    ("transaction", PROFILED),
    ("transactions", Elements(&PROFILED)),
    ("transaction_id", Value(OtherId)),
    ("items", Elements(&ENTRY)),
]);

/// The JSON in front of the file of a trace attachment.
pub(super) const TRACE_ATTACHMENT: JsonPath = Members(&[
    ("trace_id", Value(TraceId)),
    ("attachment_id", Value(OtherId)),
    ("attributes", ATTRIBUTES),
]);

const CONTEXTS: JsonPath = Members(&[
    (
        "trace",
        Members(&[
            ("trace_id", Value(TraceId)),
            ("data", SPAN_DATA),
            ("links", Elements(&LINK)),
        ]),
    ),
    ("replay", Members(&[("replay_id", Value(ReplayId))])),
    (
        "profile",
        Members(&[
            ("profile_id", Value(OtherId)),
            ("profiler_id", Value(OtherId)),
        ]),
    ),
    (
        "feedback",
        Members(&[
            ("replay_id", Value(ReplayId)),
            ("associated_event_id", Value(OtherId)),
        ]),
    ),
]);

/// A breadcrumb of an event.
const BREADCRUMB: JsonPath = Members(&[("event_id", Value(OtherId))]);

/// The transaction that was profiled.
const PROFILED: JsonPath = Members(&[("id", Value(OtherId)), ("trace_id", Value(TraceId))]);

/// A span of a transaction.
const SPAN: JsonPath = Members(&[
    ("trace_id", Value(PartTraceId)),
    ("profile_id", Value(OtherId)),
    ("data", SPAN_DATA),
    ("links", Elements(&LINK)),
]);

/// A link from a span to one of another trace.
const LINK: JsonPath = Members(&[("trace_id", Value(OtherId))]);

/// The attributes of a span, under their current and their former names.
const SPAN_DATA: JsonPath = Members(&[
    ("replay_id", Value(ReplayId)),
    ("sentry.replay_id", Value(ReplayId)),
    ("sentry.replay.id", Value(ReplayId)),
    ("profile_id", Value(OtherId)),
    ("sentry.profile_id", Value(OtherId)),
    ("profiler_id", Value(OtherId)),
    ("sentry.profiler_id", Value(OtherId)),
]);

/// A log, a metric or a span, of which an item has many.
pub(super) const ENTRY: JsonPath = Members(&[
    ("trace_id", Value(PartTraceId)),
    ("links", Elements(&LINK)),
    ("attributes", ATTRIBUTES),
]);

/// The attributes of an entry or of a trace attachment.
const ATTRIBUTES: JsonPath = Members(&[
    ("replay_id", Members(&[("value", Value(ReplayId))])),
    ("sentry.replay_id", Members(&[("value", Value(ReplayId))])),
    ("profile_id", Members(&[("value", Value(OtherId))])),
    ("sentry.profile_id", Members(&[("value", Value(OtherId))])),
    ("profiler_id", Members(&[("value", Value(OtherId))])),
    ("sentry.profiler_id", Members(&[("value", Value(OtherId))])),
]);

impl JsonPath {
    /// The path at the member `name` of an object, if there is one for values that begin with `token`: some
    /// members have two forms.
    pub(super) fn member(&self, name: &[u8], token: u8) -> Option<&JsonPath> {
        let Members(known) = self else {
            return None;
        };
        let fits =
            |(known, path): &&(&str, JsonPath)| known.as_bytes() == name && path.begins_with(token);
        known.iter().find(fits).map(|(_, path)| path)
    }

    fn begins_with(&self, token: u8) -> bool {
        match self {
            Value(_) => matches!(token, b'"' | b'0'..=b'9'),
            Members(_) => token == b'{',
            Elements(_) => token == b'[',
        }
    }
}
