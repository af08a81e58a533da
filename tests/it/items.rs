//! The counters of items by data category equal what the upstreams got, counted here once more.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::{
    Action, Config, IN_KEY, KEY_A, KEY_B, Metrics, Process, Upstream, envelope_request, outbound,
};

/// Items by category.
type Counts = BTreeMap<String, u64>;

/// Every body that an SDK sent when they were captured.
const CAPTURED: [&[u8]; 17] = [
    include_bytes!("selection/captured/node-10-transaction.envelope"),
    include_bytes!("selection/captured/node-check-in.envelope"),
    include_bytes!("selection/captured/node-client-report.envelope"),
    include_bytes!("selection/captured/node-error.envelope"),
    include_bytes!("selection/captured/node-feedback-attachment.envelope"),
    include_bytes!("selection/captured/node-session.envelope"),
    include_bytes!("selection/captured/node-spans.envelope"),
    include_bytes!("selection/captured/python-2.20-statsd.envelope"),
    include_bytes!("selection/captured/python-check-in.envelope"),
    include_bytes!("selection/captured/python-client-report.envelope"),
    include_bytes!("selection/captured/python-error-attachment.envelope"),
    include_bytes!("selection/captured/python-logs.envelope"),
    include_bytes!("selection/captured/python-metrics.envelope"),
    include_bytes!("selection/captured/python-profile-chunk.envelope"),
    include_bytes!("selection/captured/python-profile-transaction.envelope"),
    include_bytes!("selection/captured/python-sessions.envelope"),
    MADE,
];

/// What no SDK sent that day.
const MADE: &[u8] = b"{}\n\
    {\"type\":\"log\",\"item_count\":4,\"content_type\":\"application/vnd.sentry.items.log+json\"}\n\
    {\"items\":[{\"body\":\"a\"},{\"body\":\"b\"},{\"body\":\"c\"},{\"body\":\"d\"}]}\n\
    {\"type\":\"replay_event\"}\n{}\n{\"type\":\"replay_recording\",\"length\":4}\n{}\nx\n\
    {\"type\":\"user_report\"}\n{}\n{\"type\":\"security\"}\n{}\n{\"type\":\"new_thing\"}\n{}\n\
    {\"type\":\"form_data\"}\n[]\n";

/// The category of items of a type, as Sentry's documents have it.
fn category(header: &Value) -> &str {
    match header["type"].as_str().unwrap_or_default() {
        "event" => "error",
        "feedback" | "user_report" => "feedback",
        "check_in" => "monitor",
        "log" => "log_item",
        "session" | "sessions" => "session",
        "statsd" | "metric_meta" => "metric_bucket",
        "replay_event" | "replay_recording" => "replay",
        "profile_chunk" => match header["platform"].as_str() {
            Some("javascript" | "cocoa" | "android") => "profile_chunk_ui",
            Some(_) => "profile_chunk",
            None => "other",
        },
        "new_thing" | "form_data" => "other",
        // "attachment", "client_report", "profile", "security", "span", "trace_metric", "transaction"
        _ => header["type"].as_str().unwrap_or_default(),
    }
}

/// Counts the items of an envelope: header and payload, one after the other.
fn count(body: &[u8], counts: &mut Counts) {
    fn line(text: &[u8]) -> (&[u8], &[u8]) {
        let end = text.iter().position(|byte| *byte == b'\n');
        let end = end.unwrap_or(text.len());
        (&text[..end], text.get(end + 1..).unwrap_or_default())
    }
    let (_, mut rest) = line(body);
    while !rest.is_empty() {
        let (header, after) = line(rest);
        let header: Value = serde_json::from_slice(header).expect("an item header");
        rest = match header["length"].as_u64() {
            Some(length) => after.get(length as usize + 1..).unwrap_or_default(),
            None => line(after).1,
        };
        let entries = header["item_count"].as_u64().unwrap_or(1);
        *counts.entry(category(&header).to_owned()).or_default() += entries;
    }
}

/// What an upstream got.
fn got(upstream: &Upstream) -> Counts {
    let mut counts = Counts::new();
    for request in upstream.received() {
        count(&request.body, &mut counts);
    }
    counts
}

/// What the mirror counted for the outbound with this name.
fn counted(metrics: &Metrics, outbound: &str, outcome: &str) -> Counts {
    let labels = [
        &*format!("outbound=\"{outbound}\""),
        &*format!("outcome=\"{outcome}\""),
    ];
    let samples = metrics.all("sentry_mirror_items_total", &labels);
    let counts = samples.into_iter().map(|(sample, value)| {
        let (_, category) = sample.split_once("category=\"").expect("a category");
        let category = category.split('"').next().unwrap_or_default();
        (category.to_owned(), value as u64)
    });
    counts.filter(|(_, count)| *count > 0).collect()
}

fn sum(parts: &[Counts]) -> Counts {
    let mut sum = Counts::new();
    for (category, count) in parts.iter().flatten() {
        *sum.entry(category.clone()).or_default() += count;
    }
    sum
}

fn send_all(mirror: &Process) -> Counts {
    let mut client = mirror.client();
    let mut sent = Counts::new();
    for body in CAPTURED {
        assert_eq!(client.ask(&envelope_request(body)).status, 200);
        count(body, &mut sent);
    }
    sent
}

fn wait_for_deliveries(mirror: &Process, count: usize) -> Metrics {
    let name = "sentry_mirror_deliveries_total";
    mirror.wait_for_metrics(|metrics| metrics.sum(name, &[]) == count as f64)
}

#[test]
fn what_is_counted_is_what_the_upstreams_got() {
    let upstreams: Vec<Upstream> = (0..4).map(|_| Upstream::ok()).collect();
    let with = |index: usize, options: &str| {
        let options = format!("{{name: o{index}, {options}}}");
        outbound(&upstreams[index].dsn(KEY_A, 11), &options)
    };
    let mirror = Config::new([
        with(0, ""),
        with(1, "categories: [error, log, session, replay]"),
        with(2, "sample_rate: 0.5"),
        with(3, "multiplier: 3"),
    ])
    .with_metrics()
    .start();
    let sent = send_all(&mirror);
    let metrics = wait_for_deliveries(&mirror, CAPTURED.len() * 6);
    for (index, upstream) in upstreams.iter().enumerate() {
        let name = format!("o{index}");
        let delivered = counted(&metrics, &name, "delivered");
        assert_eq!(delivered, got(upstream), "{name}");
        if index < 3 {
            let rest = ["filtered", "sampled"].map(|outcome| counted(&metrics, &name, outcome));
            assert_eq!(sum(&[&[delivered][..], &rest].concat()), sent, "{name}");
        }
    }
    assert_eq!(counted(&metrics, "o0", "delivered"), sent);
    assert!(!counted(&metrics, "o1", "filtered").is_empty());
    assert!(!counted(&metrics, "o2", "sampled").is_empty());
    let status: Value = serde_json::from_str(mirror.page("/status").text()).expect("JSON");
    let shown = &status["routes"][0]["outbounds"][0]["items"];
    assert_eq!(shown["log_item"]["delivered"], sent["log_item"]);
    assert_eq!(shown["error"].as_object().expect("an object").len(), 1);
}

#[test]
fn each_outcome_has_its_items() {
    let limits =
        "HTTP/1.1 429 X\r\nX-Sentry-Rate-Limits: 60:error:key\r\nContent-Length: 0\r\n\r\n";
    let limited = Upstream::start(move |_, _| Action::Raw(limits.as_bytes().to_vec()));
    let refusing = Upstream::start(|_, _| Action::Answer(413, "{}"));
    let failing = Upstream::start(|_, _| Action::Answer(500, "{}"));
    let good = Upstream::ok();
    let named = |name: &str, upstream: &Upstream| {
        outbound(&upstream.dsn(KEY_B, 22), &format!("{{name: {name}}}"))
    };
    let mirror = Config::new([
        named("good", &good),
        named("limited", &limited),
        named("refusing", &refusing),
        named("failing", &failing),
    ])
    .with_metrics()
    .start();
    let body = b"{}\n{\"type\":\"event\"}\n{}\n{\"type\":\"attachment\"}\nx\n{\"type\":\"attachment\"}\ny\n";
    let mut client = mirror.client();
    for requests in 1..=2 {
        assert_eq!(client.ask(&envelope_request(body)).status, 200);
        wait_for_deliveries(&mirror, 4 * requests);
    }
    let metrics = mirror.metrics();
    let items = |count: u64| {
        let counts = [
            ("error".to_owned(), count),
            ("attachment".to_owned(), 2 * count),
        ];
        Counts::from(counts)
    };
    for (name, outcome, count) in [
        ("good", "delivered", 2),
        ("limited", "too_many_requests", 1),
        ("limited", "withheld", 1),
        ("refusing", "refused", 2),
        ("failing", "lost", 2),
    ] {
        assert_eq!(
            counted(&metrics, name, outcome),
            items(count),
            "{name} {outcome}"
        );
    }
    let all = metrics.sum("sentry_mirror_items_total", &[]);
    assert_eq!(all, 4.0 * 2.0 * 3.0);
}

#[test]
fn other_requests_count_by_their_endpoint() {
    let upstream = Upstream::ok();
    let named = outbound(&upstream.dsn(KEY_A, 11), "{name: o0}");
    let mirror = Config::new([named]).with_metrics().start();
    let mut client = mirror.client();
    let mut expected = Counts::new();
    let mut deliveries = 0;
    for (line, category) in [
        ("POST /api/42/store/", "error"),
        ("GET /api/42/store/", "error"),
        ("POST /api/42/minidump/", "error"),
        ("POST /api/42/security/", "security"),
        ("POST /api/42/nel/", "log_item"),
        ("POST /api/42/cron/nightly/", "monitor"),
        ("GET /api/42/cron/nightly/", "monitor"),
        ("POST /api/42/integration/otlp/v1/traces", "span"),
        ("POST /api/42/integration/otlp/v1/logs", "log_item"),
        (
            "POST /api/42/events/fc6d8c0c43fc4630ad850ee518f1b9d0/attachments/",
            "attachment",
        ),
        // An unknown endpoint has no category, and nothing is counted.
        ("POST /api/42/strange/", ""),
        ("HEAD /api/42/store/", ""),
    ] {
        let auth = format!("X-Sentry-Auth: Sentry sentry_key={IN_KEY}\r\n");
        let request = format!("{line} HTTP/1.1\r\nHost: m\r\n{auth}Content-Length: 2\r\n\r\n{{}}");
        client = match line.starts_with("HEAD") {
            true => {
                client.send(request.as_bytes());
                client.response_head();
                mirror.client()
            }
            false => {
                client.ask(request.as_bytes());
                client
            }
        };
        deliveries += 1;
        let metrics = wait_for_deliveries(&mirror, deliveries);
        if !category.is_empty() {
            *expected.entry(category.to_owned()).or_default() += 1;
        }
        assert_eq!(counted(&metrics, "o0", "delivered"), expected, "{line}");
    }
}

#[test]
fn nothing_is_counted_where_it_is_off() {
    let upstream = Upstream::ok();
    let outbounds = [
        outbound(&upstream.dsn(KEY_A, 11), "{}"),
        outbound(&upstream.dsn(KEY_B, 22), "{categories: [error]}"),
    ];
    let config = Config::new(outbounds).with_metrics();
    let mirror = config.set("item_metrics", false).start();
    send_all(&mirror);
    let metrics = wait_for_deliveries(&mirror, CAPTURED.len() * 2);
    assert!(metrics.all("sentry_mirror_items_total", &[]).is_empty());
    let status: Value = serde_json::from_str(mirror.page("/status").text()).expect("JSON");
    let shown = &status["routes"][0]["outbounds"][0]["items"];
    assert_eq!(shown, &serde_json::json!({}));
}
