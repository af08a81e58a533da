//! One envelope for each kind of data that SDKs send, and what each outbound gets.
//!
//! The files in `captured` came from real SDKs, byte for byte: sentry-python 2.75.0, 2.20.0 for old
//! metrics, @sentry/node 11.12.0 and 10.78.0, each with the inbound key in its DSN. Kinds of data that
//! those do not send are written here: the header lines follow the sources of the named SDK, the payloads
//! are short.

use std::collections::BTreeSet;

use super::{Pair, Received};
use crate::support::IN_KEY;

/// Captured envelopes, and the categories of their items in order.
const CAPTURED: &[(&str, &[u8], &[&str])] = &[
    (
        "python, error with an attachment",
        include_bytes!("captured/python-error-attachment.envelope"),
        &["error", "error"],
    ),
    (
        "python, profile and transaction",
        include_bytes!("captured/python-profile-transaction.envelope"),
        &["profile", "transaction"],
    ),
    (
        "python, sessions",
        include_bytes!("captured/python-sessions.envelope"),
        &["session", "session"],
    ),
    (
        "python, logs",
        include_bytes!("captured/python-logs.envelope"),
        &["log_item"],
    ),
    (
        "python, metrics",
        include_bytes!("captured/python-metrics.envelope"),
        &["trace_metric"],
    ),
    (
        "python, a client report",
        include_bytes!("captured/python-client-report.envelope"),
        &["client_report"],
    ),
    (
        "python, a check-in",
        include_bytes!("captured/python-check-in.envelope"),
        &["monitor"],
    ),
    (
        "python, a profile chunk",
        include_bytes!("captured/python-profile-chunk.envelope"),
        &["profile_chunk"],
    ),
    (
        "python 2.20, old metrics and where they are counted",
        include_bytes!("captured/python-2.20-statsd.envelope"),
        &["metric_bucket", "metric_bucket"],
    ),
    (
        "node, error",
        include_bytes!("captured/node-error.envelope"),
        &["error"],
    ),
    (
        "node, spans",
        include_bytes!("captured/node-spans.envelope"),
        &["span"],
    ),
    (
        "node, a session",
        include_bytes!("captured/node-session.envelope"),
        &["session"],
    ),
    (
        "node, a check-in",
        include_bytes!("captured/node-check-in.envelope"),
        &["monitor"],
    ),
    (
        "node, feedback with an attachment",
        include_bytes!("captured/node-feedback-attachment.envelope"),
        &["feedback", "feedback"],
    ),
    (
        "node, a client report",
        include_bytes!("captured/node-client-report.envelope"),
        &["client_report"],
    ),
    (
        "node 10, transaction",
        include_bytes!("captured/node-10-transaction.envelope"),
        &["transaction"],
    ),
];

/// Written envelopes: the header line, then the category of each item, the members of its header without
/// the length, and its payload. `KEY` stands for the inbound key.
type Written = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str, &'static [u8])],
);

const WRITTEN: &[Written] = &[
    (
        "browser, a replay",
        r#"{"event_id":"0b1f2ad3c7f04b0a9f3d8f3a3a4f6b11","sent_at":"2026-11-23T15:32:05.903Z","sdk":{"name":"sentry.javascript.browser","version":"11.12.0"}}"#,
        &[
            (
                "replay",
                r#""type":"replay_event""#,
                br#"{"type":"replay_event","replay_id":"0b1f2ad3c7f04b0a9f3d8f3a3a4f6b11","segment_id":0,"trace_ids":[]}"#,
            ),
            (
                "replay",
                r#""type":"replay_recording""#,
                b"{\"segment_id\":0}\nx\x9c\x03\n\n{\"type\":\"event\"}\n\x00\xff",
            ),
        ],
    ),
    (
        "android, a replay",
        r#"{"event_id":"0b1f2ad3c7f04b0a9f3d8f3a3a4f6b11","sdk":{"name":"sentry.java.android"},"sent_at":"2026-11-23T15:32:05.903Z"}"#,
        &[(
            "replay",
            r#""content_type":"application/json","type":"replay_video""#,
            b"\x81\xacreplay_event\xc4\x34{\"replay_id\":\"0b1f2ad3c7f04b0a9f3d8f3a3a4f6b11\"}\n\n\n\n",
        )],
    ),
    (
        "android 8.10, a profile chunk",
        r#"{"event_id":"9ec79c33ec9942ab8353589fcb2e04dc","sdk":{"name":"sentry.java.android"}}"#,
        &[(
            "profile_chunk_ui",
            r#""type":"profile_chunk_ui","platform":"android""#,
            br#"{"chunk_id":"0b1f2ad3c7f04b0a9f3d8f3a3a4f6b11","profiler_id":"771a43a4192642f0b136d5159a501700"}"#,
        )],
    ),
    (
        "browser, a profile chunk",
        r#"{"event_id":"9ec79c33ec9942ab8353589fcb2e04dc","sdk":{"name":"sentry.javascript.browser"}}"#,
        &[(
            "profile_chunk_ui",
            r#""type":"profile_chunk","platform":"javascript""#,
            br#"{"chunk_id":"0b1f2ad3c7f04b0a9f3d8f3a3a4f6b11","profiler_id":"771a43a4192642f0b136d5159a501700"}"#,
        )],
    ),
    (
        "an older SDK, a profile chunk without a platform",
        r#"{"event_id":"9ec79c33ec9942ab8353589fcb2e04dc"}"#,
        &[(
            "unknown",
            r#""type":"profile_chunk""#,
            br#"{"chunk_id":"0b1f2ad3c7f04b0a9f3d8f3a3a4f6b11","profiler_id":"771a43a4192642f0b136d5159a501700","platform":"cocoa"}"#,
        )],
    ),
    (
        "native, a crash of a graphics card",
        r#"{"event_id":"2f39b2d1-f68c-426b-dda1-56ee5019ffc5"}"#,
        &[
            (
                "error",
                r#""type":"attachment","attachment_type":"event.nv_gpudmp","filename":"a.nv-gpudmp""#,
                b"NV\n\x00",
            ),
            ("error", r#""type":"attachment","filename":"a.log""#, b"a"),
        ],
    ),
    (
        "a Nintendo Switch, a crash",
        r#"{"event_id":"2f39b2d1-f68c-426b-dda1-56ee5019ffc5"}"#,
        &[(
            "error",
            r#""type":"attachment","filename":"dying_message.dat","content_type":"application/octet-stream""#,
            b"sntr\x00\x00\x00\x00",
        )],
    ),
    (
        "a relay behind another, the same",
        r#"{"event_id":"2f39b2d1-f68c-426b-dda1-56ee5019ffc5"}"#,
        &[(
            "error",
            r#""type":"attachment","attachment_type":"nswitch.dying_message","filename":"dying_message.dat""#,
            b"sntr\x00\x00\x00\x00",
        )],
    ),
    (
        "an attachment of an event that was sent before, beside a session",
        r#"{"event_id":"9ec79c33ec9942ab8353589fcb2e04dc"}"#,
        &[
            ("session", r#""type":"session""#, br#"{"sid":"s"}"#),
            (
                "attachment",
                r#""type":"attachment","filename":"a.txt""#,
                b"line one\nline two",
            ),
        ],
    ),
    (
        "an error with attachments of its trace and of a span",
        r#"{"event_id":"9ec79c33ec9942ab8353589fcb2e04dc","trace":{"trace_id":"771a43a4192642f0b136d5159a501700","public_key":"KEY"}}"#,
        &[
            ("error", r#""type":"event""#, b"{}"),
            (
                "attachment",
                r#""type":"attachment","content_type":"application/vnd.sentry.trace-attachment","meta_length":47"#,
                b"{\"trace_id\":\"771a43a4192642f0b136d5159a501700\"}hello",
            ),
            (
                "span",
                r#""type":"attachment","content_type":"application/vnd.sentry.trace-attachment","span_id":"b0e6f15b45c36b12","meta_length":47"#,
                b"{\"trace_id\":\"771a43a4192642f0b136d5159a501700\"}hello",
            ),
        ],
    ),
    (
        "rust, error and session",
        r#"{"event_id":"f8f8b981-960e-448a-87ae-fb58fc61541b"}"#,
        &[
            (
                "error",
                r#""type":"event""#,
                br#"{"event_id":"f8f8b981960e448a87aefb58fc61541b"}"#,
            ),
            (
                "session",
                r#""type":"session""#,
                br#"{"sid":"0b1f2ad3-c7f0-4b0a-9f3d-8f3a3a4f6b11","init":true}"#,
            ),
        ],
    ),
    (
        "native, a crash",
        r#"{"dsn":"http://KEY@mirror.example.com/42","event_id":"2f39b2d1-f68c-426b-dda1-56ee5019ffc5","trace":{"public_key":"KEY","sample_rate":1,"sample_rand":0.1263391142495743,"trace_id":"771a43a4192642f0b136d5159a501700","sampled":"true"}}"#,
        &[
            ("error", r#""type":"event""#, br#"{"level":"fatal"}"#),
            (
                "error",
                r#""type":"attachment","attachment_type":"event.minidump","filename":"m.dmp""#,
                b"MDMP\x93\xa7\n\n\x00",
            ),
            (
                "session",
                r#""type":"session""#,
                br#"{"sid":"2f39b2d1-f68c-426b-dda1-56ee5019ffc5","status":"crashed"}"#,
            ),
        ],
    ),
    (
        "relay, a minidump from the endpoint for those",
        r#"{"event_id":"2f39b2d1f68c426bdda156ee5019ffc5","dsn":"https://KEY:@mirror.example.com/42"}"#,
        &[
            (
                "error",
                r#""type":"attachment","filename":"a.log""#,
                b"line one\nline two",
            ),
            (
                "error",
                r#""type":"attachment","attachment_type":"event.minidump","filename":"m.dmp""#,
                b"MDMP\x93\xa7\n\n\x00",
            ),
            (
                "error",
                r#""type":"form_data""#,
                br#"["sentry[release]","1"]"#,
            ),
        ],
    ),
    (
        "native, a user report",
        r#"{"dsn":"http://KEY@mirror.example.com/42","event_id":"2f39b2d1-f68c-426b-dda1-56ee5019ffc5"}"#,
        &[
            (
                "feedback",
                r#""type":"user_report""#,
                br#"{"event_id":"2f39b2d1-f68c-426b-dda1-56ee5019ffc5","comments":"x"}"#,
            ),
            (
                "client_report",
                r#""type":"client_report""#,
                br#"{"discarded_events":[]}"#,
            ),
        ],
    ),
    (
        "an attachment alone, to an event that was sent before",
        r#"{"event_id":"9ec79c33ec9942ab8353589fcb2e04dc"}"#,
        &[(
            "attachment",
            r#""type":"attachment","filename":"a.txt""#,
            b"line one\nline two",
        )],
    ),
    (
        "relay, a report of a browser",
        r#"{"dsn":"https://KEY:@mirror.example.com/42","client":"relay-http","version":7}"#,
        &[(
            "security",
            r#""type":"raw_security""#,
            br#"{"csp-report":{"document-uri":"https://a"}}"#,
        )],
    ),
    (
        "relay, a crash of Unreal",
        r#"{"event_id":"9ec79c33ec9942ab8353589fcb2e04dc","dsn":"https://KEY:@mirror.example.com/42"}"#,
        &[("error", r#""type":"unreal_report""#, b"UE4\n\n\x00")],
    ),
    (
        "relay, a report on the network",
        r#"{"dsn":"https://KEY:@mirror.example.com/42"}"#,
        &[(
            "log_item",
            r#""type":"nel""#,
            br#"{"age":1,"type":"network-error"}"#,
        )],
    ),
    (
        "sentry-cli, a file with something new",
        r#"{"event_id":"9ec79c33ec9942ab8353589fcb2e04dc"}"#,
        &[("unknown", r#""type":"hologram""#, b"not even JSON")],
    ),
];

/// An envelope in pieces.
struct Sample {
    name: &'static str,
    /// The header with its line end.
    header: Vec<u8>,
    /// The category of each item, and the item with its header and its line end.
    items: Vec<(&'static str, Vec<u8>)>,
}

impl Sample {
    fn all() -> Vec<Sample> {
        let captured = CAPTURED.iter().map(|(name, envelope, categories)| {
            let (header, items) = split(envelope);
            assert_eq!(items.len(), categories.len(), "{name}");
            let items = categories.iter().copied().zip(items);
            Sample {
                name,
                header,
                items: items.collect(),
            }
        });
        let written = WRITTEN.iter().map(|(name, header, items)| {
            let items = items.iter().map(|(category, members, payload)| {
                let header = format!("{{{members},\"length\":{}}}\n", payload.len());
                (*category, [header.as_bytes(), payload, b"\n"].concat())
            });
            Sample {
                name,
                header: format!("{}\n", header.replace("KEY", IN_KEY)).into(),
                items: items.collect(),
            }
        });
        captured.chain(written).collect()
    }

    /// The envelope with the items of some categories, if there are any.
    fn some(&self, is_wanted: impl Fn(&str) -> bool) -> Option<Vec<u8>> {
        let items = self
            .items
            .iter()
            .filter(|(category, _)| is_wanted(category));
        let items: Vec<&[u8]> = items.map(|(_, item)| &**item).collect();
        (!items.is_empty()).then(|| [&self.header, &*items.concat()].concat())
    }

    fn whole(&self) -> Vec<u8> {
        self.some(|_| true).expect("no sample is empty")
    }
}

/// The header line and the items of an envelope.
fn split(envelope: &[u8]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let line_end = |at: usize| {
        let rest = &envelope[at..];
        let feed = rest.iter().position(|byte| *byte == b'\n');
        at + feed.unwrap_or(rest.len())
    };
    let first = line_end(0) + 1;
    let mut items = Vec::new();
    let mut at = first;
    while at < envelope.len() {
        let payload = line_end(at) + 1;
        let header: serde_json::Value = serde_json::from_slice(&envelope[at..payload]).unwrap();
        let end = match header["length"].as_u64() {
            Some(length) => payload + usize::try_from(length).unwrap(),
            None => line_end(payload),
        };
        let end = envelope.len().min(end + 1);
        items.push(envelope[at..end].to_vec());
        at = end;
    }
    (envelope[..first].to_vec(), items)
}

/// The body as the second outbound must get it.
fn rewritten(body: &[u8], dsn: &str) -> Vec<u8> {
    let line = body.iter().position(|byte| *byte == b'\n').unwrap();
    let (header, rest) = body.split_at(line);
    let header = str::from_utf8(header).unwrap();
    let header = header
        .replace(&format!("https://{IN_KEY}:@mirror.example.com/42"), dsn)
        .replace(&format!("http://{IN_KEY}@mirror.example.com/42"), dsn)
        .replace(IN_KEY, super::KEY_B);
    [header.as_bytes(), rest].concat()
}

/// Sends all samples through a mirror whose second outbound has `options`, which must get `expected`.
fn check(samples: &[Sample], options: &str, expected: impl Fn(&Sample) -> Option<Vec<u8>>) {
    let pair = Pair::start(options);
    let bodies: Vec<Vec<u8>> = samples.iter().map(Sample::whole).collect();
    pair.send(&bodies);
    let dsn = pair.some.dsn(super::KEY_B, 22);
    let expected = samples.iter().filter_map(expected);
    let mut expected: Vec<Vec<u8>> = expected.map(|body| rewritten(&body, &dsn)).collect();
    let (got, _) = pair.finish();
    let mut got: Vec<Vec<u8>> = got.into_iter().map(|Received { body, .. }| body).collect();
    got.sort();
    expected.sort();
    let text = |bodies: &[Vec<u8>]| -> Vec<String> {
        let texts = bodies.iter().map(|body| String::from_utf8_lossy(body));
        texts.map(|text| text.into_owned()).collect()
    };
    assert!(
        got == expected,
        "{options}: {:#?} instead of {:#?}",
        text(&got),
        text(&expected)
    );
}

#[test]
fn each_category_gets_its_items_of_captured_sdk_envelopes() {
    let samples = Sample::all();
    let categories: BTreeSet<&str> = samples
        .iter()
        .flat_map(|sample| sample.items.iter().map(|(category, _)| *category))
        .filter(|category| *category != "unknown")
        .collect();
    // All categories.
    assert_eq!(categories.len(), 16);
    for category in categories {
        check(&samples, &format!("categories: [{category}]"), |sample| {
            sample.some(|known| known == category)
        });
    }
}

/// A sample rate of 0.999 keeps everything here, but makes the mirror parse everything.
#[test]
fn a_sampled_envelope_is_whole() {
    let samples = Sample::all();
    check(&samples, "sample_rate: {attachment: 0.999}", |sample| {
        Some(sample.whole())
    });
    check(&samples, "sample_rate: 0.999", |sample| {
        let (header, rest) = (str::from_utf8(&sample.header).unwrap(), &sample.items);
        let mut header = header.to_owned();
        for rate in ["\"1.0\"", "\"1\"", "1"] {
            let place = |rate: &str| format!("\"sample_rate\":{rate},");
            let product = if rate == "1" { "0.999" } else { "\"0.999\"" };
            // At the end of the trace there is a brace.
            header = header.replace(&place(rate), &place(product)).replace(
                &place(rate).replace(',', "}"),
                &place(product).replace(',', "}"),
            );
        }
        let is_changed = header.contains("0.999");
        assert_eq!(
            is_changed,
            header.contains("\"sample_rate\""),
            "{}",
            sample.name
        );
        let rest: Vec<&[u8]> = rest.iter().map(|(_, item)| &**item).collect();
        Some([header.as_bytes(), &rest.concat()].concat())
    });
}
