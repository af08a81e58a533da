//! What one outbound with caps gets of envelopes that come one after the other.

use super::*;
use crate::config::Config;
use crate::sentry::sampling::Chance;

const A: &str = "771a43a4192642f0b136d5159a501700";
const B: &str = "771a43a4192642f0b136d5159a501701";

const EVENT: &str = "{\"type\":\"event\"}\n{}\n";
const ATTACHMENT: &str = "{\"type\":\"attachment\"}\nx\n";
const CRASH: &str = "{\"type\":\"attachment\",\"attachment_type\":\"event.minidump\"}\nMDMP\n";
const SESSION: &str = "{\"type\":\"session\"}\n{}\n";
const REPORT: &str = "{\"type\":\"client_report\"}\n{}\n";
const FORM: &str = "{\"type\":\"form_data\"}\n[]\n";
const NEW: &str = "{\"type\":\"brand_new\"}\n{}\n";

fn caps(text: &str) -> Caps {
    let text = format!(
        "keys: [{{inbound: 'http://a@m/1', outbound: [{{dsn: 'http://b@o/2', cap: {text}}}]}}]"
    );
    let config = Config::parse(&text, "test", std::iter::empty()).unwrap();
    Caps::new(&config.routes[0].outbounds[0].caps, 1, None, Instant::now()).unwrap()
}

fn index(trace: &str, items: &str) -> EnvelopeIndex {
    let header = format!("{{\"trace\":{{\"trace_id\":\"{trace}\"}}}}");
    let body = format!("{header}\n{items}");
    EnvelopeIndex::build(body.as_bytes(), header.len(), Some(Chance::new(1))).unwrap()
}

fn asking(caps: &Caps, copies: u32) -> CapRequest<'_> {
    CapRequest {
        caps,
        worker: 0,
        copies,
        now: Instant::now(),
    }
}

/// Which items of each envelope are let through, as 1 and 0.
fn let_through(caps: &Caps, copies: u32, envelopes: &[&[&str]]) -> Vec<String> {
    let envelopes = envelopes.iter().map(|items| {
        let index = index(A, &items.concat());
        let capped = asking(caps, copies).envelope(&Selection::ALL, &index);
        let items = index.items.iter();
        let digit = |item| match capped.check_item(item) {
            Ok(()) => '1',
            Err(_) => '0',
        };
        items.map(digit).collect()
    });
    envelopes.collect()
}

/// A cap, the copies, the items of each envelope, and which of them are let through.
type Case = (
    &'static str,
    u32,
    &'static [&'static [&'static str]],
    &'static [&'static str],
);

const CASES: [Case; 14] = [
    (
        "{error: 1/day}",
        1,
        &[
            &[ATTACHMENT, EVENT, SESSION, FORM],
            &[ATTACHMENT, EVENT, SESSION, FORM],
        ],
        &["1111", "0010"],
    ),
    // The attachments of an event are let through together, and the event without them.
    (
        "{attachment: 1/day}",
        1,
        &[&[EVENT, ATTACHMENT, ATTACHMENT]],
        &["100"],
    ),
    (
        "{attachment: 2/s}",
        1,
        &[&[EVENT, ATTACHMENT, ATTACHMENT]],
        &["111"],
    ),
    // Those of an event that is left out take no tokens.
    (
        "{error: 1/day, attachment: 2/s}",
        1,
        &[
            &[EVENT, ATTACHMENT],
            &[EVENT, ATTACHMENT],
            &[ATTACHMENT],
            &[ATTACHMENT],
        ],
        &["11", "00", "1", "0"],
    ),
    // Sentry makes an error of a crash report, and counts it as one.
    (
        "{error: 1/day}",
        1,
        &[&[CRASH, ATTACHMENT], &[CRASH, ATTACHMENT], &[EVENT, CRASH]],
        &["11", "00", "00"],
    ),
    (
        "{attachment: 1/day}",
        1,
        &[&[CRASH, ATTACHMENT], &[CRASH]],
        &["11", "1"],
    ),
    // What no cap names, or what is unknown, is not counted.
    (
        "{error: 1/day, session: 1/day}",
        1,
        &[&[SESSION, NEW, REPORT], &[SESSION, NEW, REPORT]],
        &["111", "011"],
    ),
    (
        "{client_report: 1/day}",
        1,
        &[&[REPORT], &[REPORT, EVENT]],
        &["1", "01"],
    ),
    // A name of several categories is one bucket.
    (
        "{profiling: 2/s}",
        1,
        &[
            &["{\"type\":\"profile\"}\n{}\n"],
            &["{\"type\":\"profile_chunk\",\"platform\":\"python\"}\n{}\n"],
            &["{\"type\":\"profile_chunk\",\"platform\":\"cocoa\"}\n{}\n"],
        ],
        &["1", "1", "0"],
    ),
    // Each copy takes a token, and all go out or none.
    ("{error: 3/s}", 3, &[&[EVENT], &[EVENT]], &["1", "0"]),
    ("{error: 2/s}", 3, &[&[EVENT]], &["0"]),
    ("{error: 1/s}", u32::MAX, &[&[EVENT]], &["0"]),
    // A number of entries that is wrong, and none.
    (
        "{log_item: 9/s}",
        1,
        &[
            &["{\"type\":\"log\",\"item_count\":4000000000}\nnot JSON, and long enough\n"],
            &[EVENT],
        ],
        &["0", "1"],
    ),
    ("{log_item: 1/day}", 1, &[&[], &[NEW]], &["", "1"]),
];
#[test]
fn items_of_capped_categories_are_left_out_and_attachments_go_with_their_event() {
    for (cap, copies, envelopes, expected) in CASES {
        let found = let_through(&caps(cap), copies, envelopes);
        assert_eq!(found, expected, "{cap} {envelopes:?}");
    }
}

#[test]
fn entries_of_one_trace_are_let_through_together() {
    let logs: Vec<String> = [A, B, A, B, A]
        .iter()
        .map(|trace| format!("{{\"trace_id\":\"{trace}\"}}"))
        .collect();
    let item = format!(
        "{{\"type\":\"log\",\"item_count\":5}}\n{{\"items\":[{}]}}\n",
        logs.join(",")
    );
    // Each trace fits, but not both.
    for _ in 0..20 {
        let (caps, index) = (caps("{log_item: 4/s}"), index(A, &item));
        let capped = asking(&caps, 1).envelope(&Selection::ALL, &index);
        let entries = index.items[0].entries.iter();
        let left: Vec<bool> = entries
            .map(|(_, key)| capped.check(Some(Category::LogItem), *key).is_ok())
            .collect();
        assert!(
            left == [true, false, true, false, true] || left == [false, true, false, true, false],
            "{left:?}"
        );
    }
}

#[test]
fn what_the_selection_leaves_out_takes_no_tokens() {
    let caps = caps("{error: 1/day}");
    let none = Selection::new(None, crate::sentry::selection::Rates::uniform(0.0)).unwrap();
    let index = index(A, EVENT);
    let capped = asking(&caps, 1).envelope(&none, &index);
    assert_eq!(capped.check_item(&index.items[0]), Ok(()));
    assert_eq!(let_through(&caps, 1, &[&[EVENT], &[EVENT]]), ["1", "0"]);
}
