//! Filters envelopes as SDKs send them, with selections as operators write them.

use super::*;
use crate::config::Config;
use crate::sentry::edit::Replacement;
use crate::sentry::envelope;
use crate::sentry::sampling::Chance;

const TRACE: &str = "771a43a4192642f0b136d5159a501700";

/// The selection of an outbound with these options.
fn selection(options: &str) -> Selection {
    let text = format!(
        "keys: [{{inbound: 'http://a@m/1', outbound: [{{dsn: 'http://b@o/2', {options}}}]}}]"
    );
    let config = Config::parse(&text, "test", std::iter::empty()).unwrap();
    config.routes[0].outbounds[0].selection.unwrap()
}

/// The filtered `body` and the edits in its header.
fn filtered(options: &str, body: &str) -> Result<(String, Vec<Edit>), Unwanted> {
    let body = body.as_bytes();
    let mut edits = Vec::new();
    let header = envelope::scan(body, &mut edits).unwrap();
    let selection = selection(options);
    let index = EnvelopeIndex::build(body, header.end, Some(Chance::new(7))).unwrap();
    Ok(
        match filter_envelope(&selection, None, &index, body, &edits)? {
            None => (String::from_utf8(body.to_vec()).unwrap(), edits),
            Some(filtered) => {
                let rest: Vec<u8> = filtered.segments.slices(body).flatten().copied().collect();
                assert_eq!(rest.len(), filtered.segments.len());
                if let Some(span) = filtered.segments.as_span() {
                    assert_eq!(span.slice(body), rest);
                }
                let text = [filtered.front, rest].concat();
                (String::from_utf8(text).unwrap(), filtered.edits)
            }
        },
    )
}

fn text(options: &str, body: &str) -> Result<String, Unwanted> {
    filtered(options, body).map(|(text, _)| text)
}

const HEADER: &str = "{\"event_id\":\"9ec79c33ec9942ab8353589fcb2e04dc\"}\n";
const EVENT: &str = "{\"type\":\"event\",\"length\":3}\n{\n}\n";
const SESSION: &str = "{\"type\":\"session\"}\n{\"sid\":\"s\"}\n";
const ATTACHMENT: &str = "{\"type\":\"attachment\",\"length\":3}\na\nb\n";
const REPORT: &str = "{\"type\":\"client_report\"}\n{}";

#[test]
fn items_that_stay_keep_their_bytes() {
    let mixed = [HEADER, EVENT, SESSION, ATTACHMENT, REPORT].concat();
    for (options, kept) in [
        ("categories: [error]", &[HEADER, EVENT, ATTACHMENT][..]),
        ("categories: [session]", &[HEADER, SESSION]),
        ("categories: [client_report]", &[HEADER, REPORT]),
        (
            "categories: [session, client_report]",
            &[HEADER, SESSION, REPORT],
        ),
        (
            "categories: [error, session, client_report]",
            &[HEADER, EVENT, SESSION, ATTACHMENT, REPORT],
        ),
        ("sample_rate: {error: 0}", &[HEADER, SESSION, REPORT]),
        (
            "sample_rate: {session: 0, client_report: 0}",
            &[HEADER, EVENT, ATTACHMENT],
        ),
    ] {
        assert_eq!(text(options, &mixed), Ok(kept.concat()), "{options}");
    }
    for (options, refused) in [
        ("categories: [attachment, log]", Unwanted::Filtered),
        ("sample_rate: 0", Unwanted::Sampled),
        ("categories: [session], sample_rate: 0", Unwanted::Sampled),
    ] {
        assert_eq!(text(options, &mixed), Err(refused), "{options}");
    }
    // Without an event, an attachment counts as an attachment.
    let alone = [HEADER, ATTACHMENT].concat();
    assert_eq!(text("categories: [attachment]", &alone), Ok(alone.clone()));
    assert_eq!(text("categories: [error]", &alone), Err(Unwanted::Filtered));
}

#[test]
fn a_contiguous_result_is_not_copied() {
    let body = [HEADER, EVENT, ATTACHMENT].concat();
    let index = EnvelopeIndex::build(body.as_bytes(), HEADER.len() - 1, None).unwrap();
    let all = filter_envelope(
        &selection("categories: [error]"),
        None,
        &index,
        body.as_bytes(),
        &[],
    );
    assert!(matches!(all, Ok(None)));
    let body = [HEADER, SESSION, EVENT, ATTACHMENT, REPORT].concat();
    let index = EnvelopeIndex::build(body.as_bytes(), HEADER.len() - 1, None).unwrap();
    let some = filter_envelope(
        &selection("categories: [error]"),
        None,
        &index,
        body.as_bytes(),
        &[],
    );
    let span = some.unwrap().unwrap().segments.as_span().unwrap();
    assert_eq!(
        span.slice(body.as_bytes()),
        [EVENT, ATTACHMENT].concat().as_bytes()
    );
}

#[test]
fn an_envelope_without_items_goes_only_where_all_categories_go() {
    for body in ["{}", "{}\n"] {
        assert_eq!(text("sample_rate: 0.5", body), Ok(body.to_owned()));
        assert_eq!(text("categories: [error]", body), Err(Unwanted::Filtered));
    }
}

#[test]
fn the_sample_rate_is_multiplied_and_later_edits_move() {
    let body = |rate: &str, items: &str| {
        format!(
            "{{\"dsn\":\"http://a@m/1\",\"trace\":{{\"trace_id\":\"{TRACE}\",\"sample_rate\":{rate},\"public_key\":\"a\"}}}}\n{items}"
        )
    };
    let transaction = "{\"type\":\"transaction\"}\n{}\n";
    for (options, items, rate, expected) in [
        ("sample_rate: 0.999", transaction, "\"1.0\"", "\"0.999\""),
        ("sample_rate: 0.999", EVENT, "1", "0.999"),
        ("sample_rate: 0.999", transaction, "0.1", "0.0999"),
        (
            "sample_rate: {transaction: 0.999}",
            &[EVENT, transaction].concat(),
            "\"1\"",
            "\"0.999\"",
        ),
        ("sample_rate: {transaction: 0.999}", EVENT, "\"1\"", "\"1\""),
        (
            "sample_rate: {error: 0.999}",
            &[EVENT, transaction].concat(),
            "\"1\"",
            "\"1\"",
        ),
        ("sample_rate: 0.999", transaction, "\"often\"", "\"often\""),
        ("sample_rate: 0.999", transaction, "null", "null"),
        ("categories: [error, transaction]", transaction, "1", "1"),
    ] {
        let (text, edits) = filtered(options, &body(rate, items)).unwrap();
        assert_eq!(text, body(expected, items), "{options}");
        let replaced: Vec<_> = edits
            .iter()
            .map(|edit| (edit.replacement, &text[edit.span.start..edit.span.end]))
            .collect();
        assert_eq!(
            replaced,
            [
                (Replacement::Dsn, "http://a@m/1"),
                (Replacement::TraceKey, "a")
            ],
            "{options}"
        );
    }
}

#[test]
fn a_container_keeps_the_entries_of_sampled_traces() {
    let (kept, dropped) = {
        let is_kept = |id: &str| sampling::SamplingKey::new(id.as_bytes()).is_within(0.5);
        let ids = (1..100).map(|n| format!("{n:032x}"));
        let (kept, dropped): (Vec<_>, Vec<_>) = ids.partition(|id| is_kept(id));
        (kept[0].clone(), dropped[0].clone())
    };
    let item = |ids: &[&String]| {
        let entries: Vec<String> = ids
            .iter()
            .map(|id| format!("{{\"trace_id\":\"{id}\"}}"))
            .collect();
        let payload = format!(
            "{{\"version\":2,\"items\":[{}],\"x\":1}}",
            entries.join(",")
        );
        format!(
            "{{\"item_count\":{},\"type\":\"log\",\"length\":{}}}\n{payload}\n",
            ids.len(),
            payload.len()
        )
    };
    for (ids, left) in [
        (&[&kept, &dropped, &kept][..], &[&kept, &kept][..]),
        (&[&dropped, &kept], &[&kept]),
        (&[&kept, &kept, &dropped], &[&kept, &kept]),
        (&[&kept], &[&kept]),
    ] {
        let body = format!("{{}}\n{}{REPORT}", item(ids));
        let expected = format!("{{}}\n{}{REPORT}", item(left));
        assert_eq!(text("sample_rate: {log: 0.5}", &body), Ok(expected));
    }
    let body = format!("{{}}\n{}", item(&[&dropped, &dropped]));
    assert_eq!(text("sample_rate: 0.5", &body), Err(Unwanted::Sampled));
    assert_eq!(text("categories: [span]", &body), Err(Unwanted::Filtered));
}

#[test]
fn all_items_of_a_trace_have_the_same_decision() {
    let mut kept = 0;
    for number in 1..=200 {
        let trace = format!("{number:032x}");
        let header = format!("{{\"trace\":{{\"trace_id\":\"{trace}\"}}}}\n");
        let by_header = |kind: &str| format!("{header}{{\"type\":\"{kind}\"}}\n{{}}\n");
        let bodies = [
            by_header("event"),
            by_header("transaction"),
            by_header("profile"),
            format!(
                "{{}}\n{{\"type\":\"event\"}}\n{{\"contexts\":{{\"trace\":{{\"trace_id\":\"{trace}\"}}}}}}"
            ),
            format!("{{}}\n{{\"type\":\"log\"}}\n{{\"items\":[{{\"trace_id\":\"{trace}\"}}]}}"),
            format!(
                "{{}}\n{{\"type\":\"trace_metric\"}}\n{{\"items\":[{{\"trace_id\":\"{trace}\"}}]}}"
            ),
            format!("{{}}\n{{\"type\":\"span\"}}\n{{\"trace_id\":\"{trace}\"}}"),
        ];
        let decisions = bodies.map(|body| text("sample_rate: 0.3", &body).is_ok());
        assert!(
            decisions.iter().all(|kept| *kept == decisions[0]),
            "{trace}"
        );
        kept += usize::from(decisions[0]);
    }
    assert!((40..80).contains(&kept), "{kept}");
}
