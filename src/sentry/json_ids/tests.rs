//! Payloads with ids in members that Sentry reads, and in others.

use super::paths::IdKind::{
    DistinctId, EventId, OtherId, PartTraceId, ReplayId, SampleRate, SessionId, TraceId,
};
use super::paths::{FOUND_MAX, PAYLOAD};
use super::*;
use crate::sentry::envelope::EnvelopeError;
use crate::span::Span;

fn texts<'t>(text: &'t str, found: &[IdSpan]) -> Vec<(IdKind, &'t str)> {
    let text = |span: Span| str::from_utf8(span.slice(text.as_bytes())).unwrap();
    found.iter().map(|f| (f.kind, text(f.span))).collect()
}

fn payload(text: &str) -> Vec<(IdKind, &str)> {
    let mut found = Vec::new();
    find(text.as_bytes(), 0, &PAYLOAD, &mut found).unwrap();
    texts(text, &found)
}

#[test]
fn only_members_that_sentry_reads_are_found() {
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
fn malformed_and_too_deeply_nested_json_is_an_error() {
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
fn entries_are_the_elements_of_items() {
    let text = r#"{"version":2, "items": [ {"trace_id":"a","attributes":{"sentry.replay_id":{"value":"r","type":"string"}}} ,7,{"trace_id":"b"}],"z":[1]}"#;
    let found = split(text, 3).unwrap();
    let shown: Vec<_> = found
        .iter()
        .map(|(span, found)| (span.slice(text.as_bytes()).len(), texts(text, found)))
        .collect();
    assert_eq!(
        shown,
        [
            (80, vec![(PartTraceId, "a"), (ReplayId, "r")]),
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
        let found = split(other, 3).unwrap_or_default();
        assert_eq!(found, [], "{other}");
    }
    assert_eq!(split(text, 2), Err(EnvelopeError::TooMany));
}

/// The entries of a payload. Asserts that the ids found in them are those that a search finds.
fn split(text: &str, entries_max: usize) -> Result<Vec<(Span, Vec<IdSpan>)>, EnvelopeError> {
    let payload = Span::new(0, text.len());
    let (mut found, mut searched, mut collected) = (Vec::new(), Vec::new(), Vec::new());
    let entry = |span, found: &[IdSpan]| collected.push((span, found.to_vec()));
    let walked = entries(text.as_bytes(), payload, entries_max, &mut found, entry);
    search(text.as_bytes(), payload, &mut searched);
    assert!(searched.starts_with(&found), "{text}");
    assert!(walked.is_err() || searched == found, "{text}");
    walked.map(|()| collected)
}

#[test]
fn the_number_of_ids_found_in_a_payload_is_bounded() {
    let ids = "\"\",".repeat(FOUND_MAX);
    let text = format!("{{\"trace_ids\":[{ids}\"\"]}}");
    assert_eq!(payload(&text).len(), FOUND_MAX);
    let links = "{\"trace_id\":\"\"},".repeat(FOUND_MAX);
    let text = format!("{{\"items\":[{{\"links\":[{links}{{}}]}}]}}");
    let found = split(&text, 1).unwrap();
    assert_eq!(found[0].1.len(), FOUND_MAX);
}
