//! One envelope for each kind of data as real SDKs send it, and who gets what of it.

use super::{Pair, Received};
use crate::support::IN_KEY;

/// What was captured: who sent it, the envelope with `KEY` for the inbound key, and the categories of
/// its items in their order.
const CAPTURED: &[(&str, &str, &[&str])] = &[
    (
        "python, error",
        r#"{"event_id":"9ec79c33ec9942ab8353589fcb2e04dc","sent_at":"2026-11-23T15:32:05.903898Z","trace":{"trace_id":"771a43a4192642f0b136d5159a501700","environment":"prod","release":"app@1.2.3","public_key":"KEY","sample_rate":"1.0"}}
{"type":"event","content_type":"application/json","length":60}
{"event_id":"9ec79c33ec9942ab8353589fcb2e04dc","level":"error","platform":"python"}
"#,
        &["error"],
    ),
    (
        "python, profile and transaction",
        r#"{"event_id":"9ec79c33ec9942ab8353589fcb2e04dc","sent_at":"2026-11-23T15:32:05.903898Z","trace":{"trace_id":"771a43a4192642f0b136d5159a501700","environment":"prod","public_key":"KEY","sample_rate":"1.0","sample_rand":"0.126339","transaction":"/checkout","sampled":"true"}}
{"type":"profile","content_type":"application/json","length":60}
{"event_id":"0b1f2ad3c7f04b0a9f3d8f3a3a4f6b11","version":"1"}
{"type":"transaction","content_type":"application/json","length":60}
{"type":"transaction","transaction":"/checkout","spans":[]}
"#,
        &["profile", "transaction"],
    ),
    (
        "python, error with an attachment",
        "{\"event_id\":\"9ec79c33ec9942ab8353589fcb2e04dc\",\"trace\":{\"trace_id\":\"771a43a4192642f0b136d5159a501700\",\"public_key\":\"KEY\"}}\n{\"type\":\"event\",\"content_type\":\"application/json\",\"length\":60}\n{\"event_id\":\"9ec79c33ec9942ab8353589fcb2e04dc\"}\n{\"filename\":\"a.txt\",\"type\":\"attachment\",\"content_type\":\"text/plain\",\"length\":60}\nline one\nline two\n",
        &["error", "error"],
    ),
    (
        "python, sessions",
        "{}\n{\"type\":\"session\",\"length\":60}\n{\"sid\":\"0b1f2ad3c7f04b0a9f3d8f3a3a4f6b11\",\"did\":\"u1\",\"init\":true}\n{\"type\":\"sessions\",\"length\":60}\n{\"aggregates\":[{\"started\":\"2026-11-23T15:32:00Z\",\"exited\":3}],\"attrs\":{\"release\":\"a\"}}\n",
        &["session", "session"],
    ),
    (
        "python, logs",
        "{\"sent_at\":\"2026-11-23T15:32:05.903898Z\"}\n{\"item_count\":1,\"type\":\"log\",\"content_type\":\"application/vnd.sentry.items.log+json\",\"length\":60}\n{\"items\":[{\"timestamp\":1.0,\"trace_id\":\"771a43a4192642f0b136d5159a501700\",\"level\":\"info\",\"body\":\"x\"}]}\n",
        &["log_item"],
    ),
    (
        "python, a client report behind metrics",
        "{\"sent_at\":\"2026-11-23T15:32:05.903898Z\"}\n{\"item_count\":1,\"type\":\"trace_metric\",\"content_type\":\"application/vnd.sentry.items.trace-metric+json\",\"length\":60}\n{\"items\":[{\"name\":\"a\",\"value\":1,\"type\":\"counter\",\"trace_id\":\"771a43a4192642f0b136d5159a501700\"}]}\n{\"type\":\"client_report\",\"length\":60}\n{\"timestamp\":1.0,\"discarded_events\":[]}\n",
        &["trace_metric", "client_report"],
    ),
    (
        "node, spans",
        "{\"sent_at\":\"2026-11-23T15:32:05.903Z\",\"sdk\":{\"name\":\"sentry.javascript.node\",\"version\":\"11.12.0\"},\"trace\":{\"environment\":\"prod\",\"public_key\":\"KEY\",\"trace_id\":\"771a43a4192642f0b136d5159a501700\",\"sample_rate\":\"1\"}}\n{\"type\":\"span\",\"item_count\":2,\"content_type\":\"application/vnd.sentry.items.span.v2+json\"}\n{\"items\":[{\"trace_id\":\"771a43a4192642f0b136d5159a501700\",\"span_id\":\"1\"},{\"trace_id\":\"771a43a4192642f0b136d5159a501700\",\"span_id\":\"2\"}]}",
        &["span"],
    ),
    (
        "node, a check-in",
        "{\"sent_at\":\"2026-11-23T15:32:05.903Z\",\"sdk\":{\"name\":\"sentry.javascript.node\"},\"trace\":{\"public_key\":\"KEY\",\"trace_id\":\"771a43a4192642f0b136d5159a501700\"}}\n{\"type\":\"check_in\"}\n{\"check_in_id\":\"0b1f2ad3c7f04b0a9f3d8f3a3a4f6b11\",\"monitor_slug\":\"nightly\",\"status\":\"ok\"}",
        &["monitor"],
    ),
    (
        "node, feedback",
        "{\"event_id\":\"9ec79c33ec9942ab8353589fcb2e04dc\",\"sdk\":{\"name\":\"sentry.javascript.node\"},\"trace\":{\"public_key\":\"KEY\",\"trace_id\":\"771a43a4192642f0b136d5159a501700\"}}\n{\"type\":\"feedback\"}\n{\"contexts\":{\"feedback\":{\"message\":\"broken\"}},\"event_id\":\"9ec79c33ec9942ab8353589fcb2e04dc\"}",
        &["feedback"],
    ),
    (
        "browser, a replay",
        "{\"event_id\":\"0b1f2ad3c7f04b0a9f3d8f3a3a4f6b11\",\"sent_at\":\"2026-11-23T15:32:05.903Z\",\"sdk\":{\"name\":\"sentry.javascript.browser\"}}\n{\"type\":\"replay_event\"}\n{\"type\":\"replay_event\",\"replay_id\":\"0b1f2ad3c7f04b0a9f3d8f3a3a4f6b11\",\"segment_id\":0}\n{\"type\":\"replay_recording\",\"length\":60}\n{\"segment_id\":0}\nx\n\n\u{1}binary\n",
        &["replay", "replay"],
    ),
    (
        "browser, a profile chunk",
        "{\"event_id\":\"9ec79c33ec9942ab8353589fcb2e04dc\",\"sdk\":{\"name\":\"sentry.javascript.browser\"}}\n{\"type\":\"profile_chunk\",\"platform\":\"javascript\"}\n{\"chunk_id\":\"0b1f2ad3c7f04b0a9f3d8f3a3a4f6b11\",\"profiler_id\":\"771a43a4192642f0b136d5159a501700\"}",
        &["profile_chunk"],
    ),
    (
        "rust, error and session",
        "{\"event_id\":\"f8f8b981-960e-448a-87ae-fb58fc61541b\"}\n{\"type\":\"event\",\"length\":60}\n{\"event_id\":\"f8f8b981960e448a87aefb58fc61541b\"}\n{\"type\":\"session\",\"length\":60}\n{\"sid\":\"0b1f2ad3-c7f0-4b0a-9f3d-8f3a3a4f6b11\",\"init\":true}\n",
        &["error", "session"],
    ),
    (
        "native, a crash",
        "{\"dsn\":\"http://KEY@mirror.example.com/42\",\"event_id\":\"2f39b2d1-f68c-426b-dda1-56ee5019ffc5\",\"trace\":{\"public_key\":\"KEY\",\"sample_rate\":1,\"trace_id\":\"771a43a4192642f0b136d5159a501700\",\"sampled\":\"true\"}}\n{\"type\":\"event\",\"length\":60}\n{\"level\":\"fatal\"}\n{\"type\":\"attachment\",\"length\":60,\"attachment_type\":\"event.minidump\",\"filename\":\"m.dmp\"}\nMDMP\n\n{\"type\":\"session\",\"length\":60}\n{\"sid\":\"2f39b2d1-f68c-426b-dda1-56ee5019ffc5\",\"status\":\"crashed\"}",
        &["error", "error", "session"],
    ),
    (
        "native, a user report",
        "{\"dsn\":\"http://KEY@mirror.example.com/42\",\"event_id\":\"2f39b2d1-f68c-426b-dda1-56ee5019ffc5\"}\n{\"type\":\"user_report\",\"length\":60}\n{\"event_id\":\"2f39b2d1-f68c-426b-dda1-56ee5019ffc5\",\"comments\":\"x\"}\n{\"type\":\"client_report\",\"length\":60}\n{\"discarded_events\":[]}",
        &["feedback", "client_report"],
    ),
    (
        ".net, old metrics",
        "{\"sdk\":{\"name\":\"sentry.dotnet\"},\"trace\":{\"public_key\":\"KEY\",\"trace_id\":\"771a43a4192642f0b136d5159a501700\"}}\n{\"type\":\"statsd\",\"length\":60}\na@none:1|c|T1\nb@none:2|c|T1\n",
        &["metric_bucket"],
    ),
    (
        "relay, a report of a browser",
        "{\"dsn\":\"https://KEY:@mirror.example.com/42\",\"client\":\"relay-http\",\"version\":7}\n{\"type\":\"raw_security\",\"length\":60}\n{\"csp-report\":{\"document-uri\":\"https://a\"}}\n",
        &["security"],
    ),
    (
        "sentry-cli, something new",
        "{\"event_id\":\"9ec79c33ec9942ab8353589fcb2e04dc\"}\n{\"type\":\"hologram\",\"length\":60}\nnot even JSON\n",
        &["unknown"],
    ),
];

/// The envelope in pieces: the header line, then each item with its payload. The lengths in the text
/// above are place holders; here they become true. Payloads end where the next item begins.
fn pieces(envelope: &str) -> Vec<String> {
    let envelope = envelope.replace("KEY", IN_KEY);
    let (header, rest) = envelope.split_once('\n').unwrap();
    let mut pieces = vec![format!("{header}\n")];
    let starts: Vec<usize> = rest
        .match_indices("{")
        .map(|(at, _)| at)
        .filter(|at| {
            let line = rest[*at..].lines().next().unwrap();
            let is_line_start = *at == 0 || rest.as_bytes()[at - 1] == b'\n';
            let is_header = [
                "\"length\":60",
                "\"type\":\"span\"",
                "\"type\":\"check_in\"}",
                "\"type\":\"feedback\"}",
                "\"type\":\"replay_event\"}",
                "\"type\":\"profile_chunk\"",
            ];
            is_line_start && is_header.iter().any(|mark| line.contains(mark))
        })
        .collect();
    for (index, start) in starts.iter().enumerate() {
        let end = starts.get(index + 1).copied().unwrap_or(rest.len());
        let (header, payload) = rest[*start..end].split_once('\n').unwrap();
        let (payload, line_end) = match payload.strip_suffix('\n') {
            Some(payload) => (payload, "\n"),
            None => (payload, ""),
        };
        let header = header.replace("\"length\":60", &format!("\"length\":{}", payload.len()));
        pieces.push(format!("{header}\n{payload}{line_end}"));
    }
    pieces
}

#[test]
fn each_category_gets_its_items_of_what_real_sdks_send() {
    let categories = [
        "error",
        "transaction",
        "profile",
        "session",
        "log_item",
        "trace_metric",
        "client_report",
        "span",
        "monitor",
        "feedback",
        "replay",
        "profile_chunk",
        "metric_bucket",
        "security",
        "attachment",
    ];
    let envelopes: Vec<Vec<String>> = CAPTURED.iter().map(|(_, text, _)| pieces(text)).collect();
    for ((name, _, kinds), pieces) in CAPTURED.iter().zip(&envelopes) {
        assert_eq!(pieces.len(), kinds.len() + 1, "{name}");
    }
    let bodies: Vec<String> = envelopes.iter().map(|pieces| pieces.concat()).collect();
    for category in categories {
        let pair = Pair::start(&format!("categories: [{category}]"));
        pair.send(&bodies);
        let some = pair.some.dsn(super::KEY_B, 22);
        let mut expected = Vec::new();
        for ((_, _, kinds), pieces) in CAPTURED.iter().zip(&envelopes) {
            let items = pieces[1..].iter().zip(*kinds);
            let kept: String = items
                .filter(|(_, kind)| **kind == category)
                .map(|(item, _)| item.as_str())
                .collect();
            if !kept.is_empty() {
                let header = pieces[0]
                    .replace(&format!("https://{IN_KEY}:@mirror.example.com/42"), &some)
                    .replace(&format!("http://{IN_KEY}@mirror.example.com/42"), &some)
                    .replace(IN_KEY, super::KEY_B);
                expected.push(header + &kept);
            }
        }
        assert_eq!(expected.is_empty(), category == "attachment");
        let (got, _) = pair.finish();
        let mut got: Vec<String> = got.iter().map(Received::text).map(str::to_owned).collect();
        got.sort();
        expected.sort();
        assert_eq!(got, expected, "{category}");
    }
}

/// At a rate of one nothing is cut, whatever it is.
#[test]
fn what_is_not_sampled_is_whole() {
    let pair = Pair::start(
        "sample_rate: {hologram: 1}"
            .replace("hologram", "attachment")
            .as_str(),
    );
    let bodies: Vec<String> = CAPTURED
        .iter()
        .map(|(_, text, _)| pieces(text).concat())
        .collect();
    pair.send(&bodies);
    let got = pair.some.wait_for(bodies.len());
    assert_eq!(got.len(), bodies.len());
}
