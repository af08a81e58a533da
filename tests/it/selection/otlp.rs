//! Sampling of OTLP requests, whose records belong to many traces.

use std::collections::BTreeSet;

use super::{Pair, gzip};
use crate::support::IN_KEY;

const LOGS: &str = "logs";
/// The longest body that the mirror parses.
const APART_BYTES: usize = 2 * 1024 * 1024;

/// Random-looking ids, the same in every run.
fn traces(count: u64) -> Vec<u128> {
    let mix = |number: u64| {
        let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number ^ (number >> 27)
    };
    let ids = (1..=count).map(|n| u128::from(mix(n)) << 64 | u128::from(mix(n + (1 << 32))));
    ids.collect()
}

/// A field of protobuf that is a message, bytes or text.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut text = vec![number << 3 | 2];
    let mut length = content.len();
    while length >= 0x80 {
        text.push(length as u8 | 0x80);
        length >>= 7;
    }
    text.push(length as u8);
    text.extend_from_slice(content);
    text
}

/// A request with a record of each trace, in two scopes.
fn protobuf(signal: &str, traces: &[u128]) -> Vec<u8> {
    let id = if signal == LOGS { 9 } else { 1 };
    let record = |trace: &u128| {
        let name = field(5, b"GET /checkout");
        field(2, &[name, field(id, &trace.to_be_bytes())].concat())
    };
    let scope = |records: Vec<u8>| {
        let name = field(1, &field(1, b"shop"));
        field(2, &[name, records].concat())
    };
    let (even, odd): (Vec<&u128>, Vec<&u128>) = traces.iter().partition(|trace| *trace % 2 == 0);
    let scopes = [even, odd].map(|traces| match traces.as_slice() {
        [] => Vec::new(),
        traces => scope(traces.iter().flat_map(|trace| record(trace)).collect()),
    });
    let resource = field(1, &field(1, &vec![b'r'; 300]));
    field(1, &[resource, scopes.concat()].concat())
}

fn json(signal: &str, traces: &[u128]) -> Vec<u8> {
    let (resources, scopes, records) = match signal {
        LOGS => ("resourceLogs", "scopeLogs", "logRecords"),
        _ => ("resourceSpans", "scopeSpans", "spans"),
    };
    let list: Vec<String> = traces
        .iter()
        .map(|trace| format!("{{\"name\":\"GET\",\"traceId\":\"{trace:032x}\"}}"))
        .collect();
    let list = list.join(",");
    format!("{{\"{resources}\":[{{\"resource\":{{}},\"{scopes}\":[{{\"{records}\":[{list}]}}]}}]}}")
        .into_bytes()
}

fn request(signal: &str, content_type: &str, coding: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /api/42/integration/otlp/v1/{signal}/ HTTP/1.1\r\nHost: m\r\nX-Sentry-Auth: Sentry sentry_key={IN_KEY}\r\nContent-Type: {content_type}\r\n{coding}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// The traces whose event the second outbound got.
fn kept_events(traces: &[u128]) -> BTreeSet<u128> {
    let pair = Pair::start("sample_rate: 0.5");
    let event = |trace: &u128| {
        format!(
            "{{\"trace\":{{\"trace_id\":\"{trace:032x}\",\"public_key\":\"{IN_KEY}\"}}}}\n{{\"type\":\"event\"}}\n{{}}\n"
        )
    };
    pair.send(&traces.iter().map(event).collect::<Vec<_>>());
    let (got, _) = pair.finish();
    let is_kept = |trace: &&u128| {
        let id = format!("{trace:032x}");
        got.iter().any(|received| received.text().contains(&id))
    };
    traces.iter().filter(is_kept).copied().collect()
}

#[test]
fn otlp_and_envelopes_sample_a_trace_alike() {
    let traces = traces(60);
    let kept = kept_events(&traces);
    assert!((15..45).contains(&kept.len()), "{}", kept.len());
    type Write = fn(&str, &[u128]) -> Vec<u8>;
    let forms: [(&str, Write); 2] = [
        ("application/x-protobuf", protobuf),
        ("application/json; charset=utf-8", json),
    ];
    for signal in ["traces", LOGS] {
        for (content_type, write) in forms {
            let pair = Pair::start("sample_rate: 0.5");
            let mut client = pair.mirror.client();
            let mut expected = Vec::new();
            // Some requests have only one trace, and are kept or dropped as a whole.
            let chunks = traces.chunks(10).chain(traces.chunks(1).take(8));
            for (number, chunk) in chunks.enumerate() {
                let body = write(signal, chunk);
                let (coding, sent) = match number % 2 {
                    0 => ("", body),
                    _ => ("Content-Encoding: gzip\r\n", gzip(&body)),
                };
                let response = client.ask(&request(signal, content_type, coding, &sent));
                assert_eq!(response.status, 200, "{content_type}");
                pair.all.wait_for(number + 1);
                let left: Vec<u128> = chunk.iter().filter(|t| kept.contains(t)).copied().collect();
                if !left.is_empty() {
                    expected.push(write(signal, &left));
                }
            }
            let (got, totals) = pair.finish();
            let mut got: Vec<&[u8]> = got.iter().map(|received| &received.body[..]).collect();
            got.sort_unstable();
            expected.sort_unstable();
            assert_eq!(got.len(), expected.len(), "{signal} {content_type}");
            assert!(got == expected, "{signal} {content_type}");
            assert!(totals.contains("delivered sampled"), "{totals}");
        }
    }
}

/// They begin and end alike, as requests of one service do.
#[test]
fn bodies_too_long_to_parse_are_sampled_by_all_their_bytes() {
    const COUNT: usize = 16;
    let body = |number: usize| {
        let mut body = vec![b'x'; APART_BYTES + 1];
        body[APART_BYTES / 2..][..8].copy_from_slice(&number.to_le_bytes());
        body
    };
    let kept = || -> Vec<usize> {
        let pair = Pair::start("sample_rate: 0.5");
        let mut client = pair.mirror.client();
        for number in 0..COUNT {
            let request = request(LOGS, "application/x-protobuf", "", &body(number));
            assert_eq!(client.ask(&request).status, 200);
            pair.all.wait_for(number + 1);
        }
        let (got, _) = pair.finish();
        let mut kept: Vec<usize> = got
            .iter()
            .map(|received| received.body[APART_BYTES / 2].into())
            .collect();
        kept.sort_unstable();
        kept
    };
    let first = kept();
    assert!((3..COUNT - 3).contains(&first.len()), "{first:?}");
    assert_eq!(kept(), first);
}
