//! Where ids and rates stand in the JSON of an envelope.
//!
//! Whoever samples or copies has to know to which trace, replay or session something belongs. A
//! [`Place`] is a path of member names with a meaning at its end; [`find`] walks over a text once and
//! notes the values at all paths that it was given. Only the places that Sentry reads are listed:
//! the same names anywhere else are somebody's data.

use Meaning::{
    DistinctId, EventId, MonitorSlug, OtherId, PartTraceId, ProfilerId, ReplayId, SampleRate,
    SessionId, TraceId,
};
use Place::{Elements, Members, Value};

use super::envelope::{EnvelopeError, Scanner};
use crate::span::Span;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
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

impl Meaning {
    /// Whether another occurrence of the same data must have another such value.
    pub const fn is_unique(self) -> bool {
        match self {
            Meaning::EventId
            | Meaning::TraceId
            | Meaning::PartTraceId
            | Meaning::ReplayId
            | Meaning::ProfilerId
            | Meaning::OtherId
            | Meaning::SessionId => true,
            Meaning::DistinctId | Meaning::MonitorSlug | Meaning::SampleRate => false,
        }
    }
}

/// A value in a JSON text, or a part of the way to one.
#[derive(Debug)]
pub enum Place {
    /// A string or a number.
    Value(Meaning),
    /// Members of an object.
    Members(&'static [(&'static str, Place)]),
    /// All elements of an array.
    Elements(&'static Place),
}

/// A value that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it is.
    pub meaning: Meaning,
    /// The content of the string, with its escapes, or the number.
    pub span: Span,
}

/// In the header of an envelope.
pub const HEADER: Place = Members(&[
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
pub const PAYLOAD: Place = Members(&[
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
    (
        "contexts",
        Members(&[
            ("trace", Members(&[("trace_id", Value(TraceId))])),
            ("replay", Members(&[("replay_id", Value(OtherId))])),
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
                    ("replay_id", Value(OtherId)),
                    ("associated_event_id", Value(OtherId)),
                ]),
            ),
        ]),
    ),
    // Of a profile. That of a transaction is its name, and no object.
    (
        "transaction",
        Members(&[("id", Value(OtherId)), ("trace_id", Value(TraceId))]),
    ),
    ("spans", Elements(&SPAN)),
    ("items", Elements(&ENTRY)),
]);

const SPAN: Place = Members(&[("trace_id", Value(PartTraceId))]);

/// In a log, a metric or a span, which come many in one item.
const ENTRY: Place = Members(&[
    ("trace_id", Value(PartTraceId)),
    (
        "attributes",
        Members(&[
            ("sentry.replay_id", Members(&[("value", Value(OtherId))])),
            ("sentry.profiler_id", Members(&[("value", Value(OtherId))])),
        ]),
    ),
]);

/// Appends to `found` what of `place` is in the JSON value that `text` begins with at `start`, in the
/// order of the positions. After an error, what stands before it is there.
pub fn find(
    text: &[u8],
    start: usize,
    place: &Place,
    found: &mut Vec<Found>,
) -> Result<(), EnvelopeError> {
    let mut scanner = Scanner {
        body: text,
        at: start,
    };
    walk(&mut scanner, place, Scanner::NESTING_MAX, found)
}

/// The entries of a payload that is an object with an array `items`, each with the values that are
/// in it. Empty for any other payload, and for one that is not well-formed: it is not taken apart.
pub fn entries(text: &[u8], payload: Span) -> Vec<(Span, Vec<Found>)> {
    let mut scanner = Scanner {
        body: text.get(..payload.end).unwrap_or_default(),
        at: payload.start,
    };
    let mut entries = Vec::new();
    let walked = scanner.object(|scanner, name| {
        if name != b"items" || scanner.next_token()? != b'[' {
            return scanner.skip_value(Scanner::NESTING_MAX - 1);
        }
        elements(scanner, |scanner| {
            let start = scanner.at;
            let mut found = Vec::new();
            walk(scanner, &ENTRY, Scanner::NESTING_MAX - 2, &mut found)?;
            entries.push((Span::new(start, scanner.at), found));
            Ok(())
        })
    });
    if walked.is_err() {
        entries.clear();
    }
    entries
}

/// Walks over a value in which arrays and objects may be nested `nesting_max` deep.
fn walk(
    scanner: &mut Scanner<'_>,
    place: &Place,
    nesting_max: u32,
    found: &mut Vec<Found>,
) -> Result<(), EnvelopeError> {
    let within = nesting_max.saturating_sub(1);
    match (place, scanner.next_token()?) {
        (Value(meaning), b'"') => {
            let span = scanner.string()?;
            found.push(Found {
                meaning: *meaning,
                span,
            });
            Ok(())
        }
        (Value(meaning), b'0'..=b'9') => {
            let start = scanner.at;
            scanner.skip_scalar()?;
            found.push(Found {
                meaning: *meaning,
                span: Span::new(start, scanner.at),
            });
            Ok(())
        }
        (Members(known), b'{') => scanner.members(|scanner, name| {
            let known = known.iter().find(|(known, _)| known.as_bytes() == name);
            match known {
                Some((_, place)) => walk(scanner, place, within, found),
                None => {
                    scanner.next_token()?;
                    scanner.skip_value(within)
                }
            }
        }),
        (Elements(place), b'[') => elements(scanner, |scanner| walk(scanner, place, within, found)),
        _ => scanner.skip_value(nesting_max),
    }
}

/// Walks over an array from its opening bracket. `element` has to walk over each element, in front of
/// which the scanner stands.
fn elements(
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
mod tests {
    use super::*;

    fn texts<'t>(text: &'t str, found: &[Found]) -> Vec<(Meaning, &'t str)> {
        let text = |span: Span| str::from_utf8(span.of(text.as_bytes())).unwrap();
        found.iter().map(|f| (f.meaning, text(f.span))).collect()
    }

    fn payload(text: &str) -> Vec<(Meaning, &str)> {
        let mut found = Vec::new();
        find(text.as_bytes(), 0, &PAYLOAD, &mut found).unwrap();
        texts(text, &found)
    }

    #[test]
    fn only_what_sentry_reads_is_found() {
        assert_eq!(
            payload(
                r#"{"extra":{"event_id":"x","trace_id":"y"},"contexts":{"trace":{"span_id":"s","trace_id":"T"},
                "feedback":{"associated_event_id":"A","url":"replay_id"}},"transaction":"/name",
                "tags":["trace_id","t"],"spans":[{"trace_id":"T1","data":{"trace_id":"no"}},{},[]],"event_id":"E"}"#
            ),
            [
                (TraceId, "T"),
                (OtherId, "A"),
                (PartTraceId, "T1"),
                (EventId, "E"),
            ]
        );
        assert_eq!(
            payload(
                r#"{"sid":"S","did":"D","trace_ids":["a", "b"],"error_ids":[],"replay_id":null,"items":{"trace_id":"no"}}"#
            ),
            [
                (SessionId, "S"),
                (DistinctId, "D"),
                (PartTraceId, "a"),
                (PartTraceId, "b")
            ]
        );
        assert_eq!(payload("7"), []);
    }

    #[test]
    fn a_rate_may_be_a_number_or_a_string() {
        for (text, rate) in [
            (r#"{"trace":{"sample_rate":"1.0"}}"#, "1.0"),
            (r#"{"trace":{"sample_rate": 0.25 ,"x":1}}"#, "0.25"),
        ] {
            let mut found = Vec::new();
            find(text.as_bytes(), 0, &HEADER, &mut found).unwrap();
            assert_eq!(texts(text, &found), [(SampleRate, rate)]);
        }
    }

    #[test]
    fn what_is_nested_too_deep_or_not_well_formed_is_an_error() {
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(200), "]".repeat(200));
        let spans = format!("{{\"spans\":[{}1{}]}}", "[".repeat(200), "]".repeat(200));
        for text in [
            &*deep,
            &*spans,
            "{\"event_id\":\"",
            "{\"spans\":[1,",
            "[",
            "",
        ] {
            assert!(
                find(text.as_bytes(), 0, &PAYLOAD, &mut Vec::new()).is_err(),
                "{text:?}"
            );
        }
    }

    #[test]
    fn entries_are_those_of_a_container() {
        let text = r#"{"version":2, "items": [ {"trace_id":"a","attributes":{"sentry.replay_id":{"value":"r","type":"string"}}} ,7,{"trace_id":"b"}],"z":[1]}"#;
        let found = entries(text.as_bytes(), Span::new(0, text.len()));
        let shown: Vec<_> = found
            .iter()
            .map(|(span, found)| (span.of(text.as_bytes()).len(), texts(text, found)))
            .collect();
        assert_eq!(
            shown,
            [
                (80, vec![(PartTraceId, "a"), (OtherId, "r")]),
                (1, vec![]),
                (16, vec![(PartTraceId, "b")])
            ]
        );
        for other in [
            "{}",
            "[]",
            r#"{"items":{}}"#,
            r#"{"items":[1,}"#,
            r#"{"items":[1]"#,
        ] {
            assert_eq!(
                entries(other.as_bytes(), Span::new(0, other.len())),
                [],
                "{other}"
            );
        }
    }
}
