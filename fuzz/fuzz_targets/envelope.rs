//! Envelope headers: the scanner finds what a JSON parser finds, its edits can be applied, and the edited
//! envelope has the DSN and trace key of the outbound and otherwise the same bytes.

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use sentry_mirror::internals::sentry::edit::{Edit, Replacement};
use sentry_mirror::internals::sentry::envelope::{self, EnvelopeError, EnvelopeHeader};
use sentry_mirror::internals::span::Span;
use sentry_mirror_fuzz::{check_edits, outbounds};
use serde::Deserialize;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let mut edits = Vec::new();
    let scanned = envelope::scan(data, &mut edits);
    compare_with_serde(data, &scanned);
    let Ok(header) = scanned else {
        assert!(edits.is_empty(), "an error leaves no edits");
        return;
    };
    check_edits(&edits, 0..header.end);
    for outbound in outbounds() {
        let text = |replacement| match replacement {
            Replacement::Dsn => outbound.dsn.as_str(),
            Replacement::TraceKey => outbound.key.as_str(),
            other => panic!("{other:?} in an envelope"),
        };
        let edited = splice(data, &edits, text);
        let mut sites = Vec::new();
        let again = envelope::scan(&edited, &mut sites).expect("it is still an envelope");
        assert_eq!(edited[again.end..], data[header.end..]);
        assert_eq!(sites.len(), edits.len());
        for site in &sites {
            assert_eq!(site.span.slice(&edited), text(site.replacement).as_bytes());
        }
        let event_id =
            |header: EnvelopeHeader, body| header.event_id.map(|id| id.slice(body).to_vec());
        assert_eq!(event_id(header, data), event_id(again, &edited));
    }
});

/// What Relay reads of a header. With serde's derived code a name that comes twice is an error, as
/// it is to Relay; collecting the others is how Relay does it, and keeps arrays from being taken.
#[derive(Deserialize)]
struct Header {
    dsn: Option<Value>,
    event_id: Option<Value>,
    trace: Option<Trace>,
    #[serde(flatten)]
    _others: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Trace {
    public_key: Option<Value>,
    #[serde(flatten)]
    _others: BTreeMap<String, Value>,
}

/// Asserts that what serde accepts is accepted here, and means the same.
fn compare_with_serde(data: &[u8], scanned: &Result<EnvelopeHeader, EnvelopeError>) {
    let mut stream = serde_json::Deserializer::from_slice(data).into_iter::<Header>();
    let Some(Ok(expected)) = stream.next() else {
        return;
    };
    let header = scanned.expect("what serde accepts is an envelope header");
    assert_eq!(header.end, stream.byte_offset());
    let trace_key = expected.trace.and_then(|trace| trace.public_key);
    for (span, value) in [
        (header.dsn, expected.dsn),
        (header.event_id, expected.event_id),
        (header.trace_key, trace_key),
    ] {
        let found = span.map(|span| envelope::unescape(span.slice(data)).into_owned());
        let text = value.as_ref().and_then(Value::as_str);
        assert_eq!(found.as_deref(), text.map(str::as_bytes));
    }
}

/// `source` with the text of each edit in its place.
fn splice<'o>(source: &[u8], edits: &[Edit], text: impl Fn(Replacement) -> &'o str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut copied = 0;
    for Edit { span, replacement } in edits {
        out.extend_from_slice(Span::new(copied, span.start).slice(source));
        out.extend_from_slice(text(*replacement).as_bytes());
        copied = span.end;
    }
    out.extend_from_slice(&source[copied..]);
    out
}
