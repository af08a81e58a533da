//! Where ids and rates stand in the JSON of an envelope.
//!
//! Whoever samples or copies has to know to which trace, replay or session something belongs. A
//! [`JsonPath`] is a path of member names with a meaning at its end; [`find`] walks over a text once and
//! notes the values at all paths that it was given. Only the places that Sentry reads are listed:
//! the same names anywhere else are somebody's data.
//!
//! Of a payload that is too long to be walked over, [`search`] looks at both ends.

use IdKind::{
    DistinctId, EventId, MonitorSlug, OtherId, PartTraceId, ProfilerId, ReplayId, SampleRate,
    SessionId, TraceId,
};
use JsonPath::{Elements, Members, Value};

use super::envelope::{EnvelopeError, Scanner};
use crate::span::Span;

mod ends;

/// How long a payload may be to be searched whole: twice what Relay takes of an event. To walk over a
/// longer one would keep the core from everything else.
pub(crate) const SEARCHED_BYTES_MAX: usize = 2 * 1024 * 1024;

/// How many values are noted of one payload. That is more than there are ids of 32 digits in one that
/// is searched whole, so that only what holds something else can have more.
const FOUND_MAX: usize = SEARCHED_BYTES_MAX / 32;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IdKind {
    /// The id of the event itself, or of the one that is spoken of.
    EventId,
    /// The trace it belongs to.
    TraceId,
    /// The trace of a part of it.
    PartTraceId,
    /// The replay it belongs to.
    ReplayId,
    /// The run of a profiler that a chunk belongs to.
    ProfilerId,
    /// Another id, which nothing is decided by.
    OtherId,
    /// A session.
    SessionId,
    /// The user whose session it is.
    DistinctId,
    /// The monitor that a check-in is of.
    MonitorSlug,
    /// The rate that the trace was sampled with already.
    SampleRate,
}

impl IdKind {
    /// Whether another occurrence of the same data must have another such value.
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

/// A value in a JSON text, or a part of the way to one.
#[derive(Debug)]
pub(crate) enum JsonPath {
    /// A string or a number.
    Value(IdKind),
    /// Members of an object.
    Members(&'static [(&'static str, JsonPath)]),
    /// All elements of an array.
    Elements(&'static JsonPath),
}

/// A value that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IdSpan {
    /// What it is.
    pub kind: IdKind,
    /// The content of the string, with its escapes, or the number.
    pub span: Span,
}

/// In the header of an envelope.
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

/// In the payload of any item, and in the body of a store request.
pub(crate) const PAYLOAD: JsonPath = Members(&[
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
    // What SDKs for browsers write beside the contexts.
    ("tags", Members(&[("replayId", Value(ReplayId))])),
    ("breadcrumbs", Elements(&BREADCRUMB)),
    ("breadcrumbs", Members(&[("values", Elements(&BREADCRUMB))])),
    ("spans", Elements(&SPAN)),
    // Of a span that comes alone.
    ("data", SPAN_DATA),
    ("links", Elements(&LINK)),
    // Of a profile. That of a transaction is its name, and no object.
    ("transaction", PROFILED),
    ("transactions", Elements(&PROFILED)),
    ("transaction_id", Value(OtherId)),
    ("items", Elements(&ENTRY)),
]);

/// In the JSON in front of the file of a trace attachment.
const TRACE_ATTACHMENT: JsonPath = Members(&[
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

/// The event that a breadcrumb tells of.
const BREADCRUMB: JsonPath = Members(&[("event_id", Value(OtherId))]);

/// The transaction that a profile is of.
const PROFILED: JsonPath = Members(&[("id", Value(OtherId)), ("trace_id", Value(TraceId))]);

/// In a span of a transaction.
const SPAN: JsonPath = Members(&[
    ("trace_id", Value(PartTraceId)),
    ("profile_id", Value(OtherId)),
    ("data", SPAN_DATA),
    ("links", Elements(&LINK)),
]);

/// A span of another trace that is spoken of.
const LINK: JsonPath = Members(&[("trace_id", Value(OtherId))]);

/// What is known of a span besides, under the names of today and of before.
const SPAN_DATA: JsonPath = Members(&[
    ("replay_id", Value(ReplayId)),
    ("sentry.replay_id", Value(ReplayId)),
    ("sentry.replay.id", Value(ReplayId)),
    ("profile_id", Value(OtherId)),
    ("sentry.profile_id", Value(OtherId)),
    ("profiler_id", Value(OtherId)),
    ("sentry.profiler_id", Value(OtherId)),
]);

/// In a log, a metric or a span, which come many in one item.
const ENTRY: JsonPath = Members(&[
    ("trace_id", Value(PartTraceId)),
    ("links", Elements(&LINK)),
    ("attributes", ATTRIBUTES),
]);

/// What is known of such an entry, or of a trace attachment, besides.
const ATTRIBUTES: JsonPath = Members(&[
    ("replay_id", Members(&[("value", Value(ReplayId))])),
    ("sentry.replay_id", Members(&[("value", Value(ReplayId))])),
    ("profile_id", Members(&[("value", Value(OtherId))])),
    ("sentry.profile_id", Members(&[("value", Value(OtherId))])),
    ("profiler_id", Members(&[("value", Value(OtherId))])),
    ("sentry.profiler_id", Members(&[("value", Value(OtherId))])),
]);

impl JsonPath {
    /// What is known of the member `name` of an object here, if its value begins with `token`: some
    /// members are written in two ways.
    fn member(&self, name: &[u8], token: u8) -> Option<&JsonPath> {
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

/// Appends to `found` the ids in a payload, as far as it is JSON: all of them, or those in front of and
/// behind its largest member where it is longer than [`SEARCHED_BYTES_MAX`].
pub(crate) fn search(text: &[u8], payload: Span, found: &mut Vec<IdSpan>) {
    if payload.len() > SEARCHED_BYTES_MAX {
        ends::search(text, payload, &PAYLOAD, found);
    } else {
        let text = text.get(..payload.end).unwrap_or_default();
        // What stands before an error is there; what is no JSON has no ids that Sentry would read.
        let _ = find(text, payload.start, &PAYLOAD, found);
    }
}

/// Appends to `found` the ids in the JSON in front of the file of a trace attachment. What is longer than
/// [`SEARCHED_BYTES_MAX`] is cut off there.
pub(crate) fn search_meta(text: &[u8], meta: Span, found: &mut Vec<IdSpan>) {
    let end = meta.start + meta.len().min(SEARCHED_BYTES_MAX);
    let text = text.get(..end).unwrap_or_default();
    // What stands before an error is there.
    let _ = find(text, meta.start, &TRACE_ATTACHMENT, found);
}

/// Appends to `found` what of `place` is in the JSON value that `text` begins with at `start`, in the
/// order of the positions. After an error, what stands before it is there.
pub(crate) fn find(
    text: &[u8],
    start: usize,
    path: &JsonPath,
    found: &mut Vec<IdSpan>,
) -> Result<(), EnvelopeError> {
    let mut scanner = Scanner {
        body: text,
        at: start,
    };
    walk(&mut scanner, path, Scanner::NESTING_MAX, found)
}

/// Tells `entry` of each entry of a payload that is an object with an array `items`, with the values
/// that are in it, and appends to `found` all ids in the payload, as [`search`] does. An error where the
/// payload is not to be taken apart: it is not well-formed, or there are more than `entries_max`. The
/// walk ends there, and what it has told of before is void.
pub(crate) fn entries(
    text: &[u8],
    payload: Span,
    entries_max: usize,
    found: &mut Vec<IdSpan>,
    mut entry: impl FnMut(Span, &[IdSpan]),
) -> Result<(), EnvelopeError> {
    let mut scanner = Scanner {
        body: text.get(..payload.end).unwrap_or_default(),
        at: payload.start,
    };
    let within = Scanner::NESTING_MAX - 1;
    let mut left = entries_max;
    let mut inside = Vec::new();
    scanner.object(|scanner, name| {
        let token = scanner.next_token()?;
        if name == b"items" && token == b'[' {
            return elements(scanner, |scanner| {
                left = left.checked_sub(1).ok_or(EnvelopeError::TooMany)?;
                let start = scanner.at;
                inside.clear();
                let walked = walk(scanner, &ENTRY, within - 1, &mut inside);
                inside.iter().for_each(|value| note(found, *value));
                walked?;
                entry(Span::new(start, scanner.at), &inside);
                Ok(())
            });
        }
        match PAYLOAD.member(name, token) {
            Some(path) => walk(scanner, path, within, found),
            None => scanner.skip_value(within),
        }
    })
}

fn note(found: &mut Vec<IdSpan>, value: IdSpan) {
    if found.len() < FOUND_MAX {
        found.push(value);
    }
}

/// Walks over a value in which arrays and objects may be nested `nesting_max` deep.
fn walk(
    scanner: &mut Scanner<'_>,
    path: &JsonPath,
    nesting_max: u32,
    found: &mut Vec<IdSpan>,
) -> Result<(), EnvelopeError> {
    let within = nesting_max.saturating_sub(1);
    match (path, scanner.next_token()?) {
        (Value(kind), b'"') => {
            let (kind, span) = (*kind, scanner.string()?);
            note(found, IdSpan { kind, span });
            Ok(())
        }
        (Value(kind), b'0'..=b'9') => {
            let start = scanner.at;
            scanner.skip_scalar()?;
            let (kind, span) = (*kind, Span::new(start, scanner.at));
            note(found, IdSpan { kind, span });
            Ok(())
        }
        (Members(_), b'{') => scanner.members(|scanner, name| {
            let token = scanner.next_token()?;
            match path.member(name, token) {
                Some(path) => walk(scanner, path, within, found),
                None => scanner.skip_value(within),
            }
        }),
        (Elements(path), b'[') => elements(scanner, |scanner| walk(scanner, path, within, found)),
        _ => scanner.skip_value(nesting_max),
    }
}

/// Walks over an array from its opening bracket. `element` has to walk over each element, in front of
/// which the scanner stands.
pub(super) fn elements(
    scanner: &mut Scanner<'_>,
    mut element: impl FnMut(&mut Scanner<'_>) -> Result<(), EnvelopeError>,
) -> Result<(), EnvelopeError> {
    scanner.at += 1;
    if scanner.next_token()? == b']' {
        scanner.at += 1;
        return Ok(());
    }
    loop {
        scanner.next_token()?;
        element(scanner)?;
        let after = scanner.next_token()?;
        scanner.at += 1;
        match after {
            b',' => {}
            b']' => return Ok(()),
            _ => return Err(EnvelopeError::Malformed),
        }
    }
}

#[cfg(test)]
mod tests;
