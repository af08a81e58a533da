//! Outbounds with categories, sample rates, multipliers, and other encodings.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use serde_json::Value;

use crate::support::upstream::Received;
use crate::support::{
    Action, IN_KEY, KEY_A, KEY_B, Process, Upstream, config, envelope, envelope_request,
};

mod examples;
mod ids;
mod otlp;
mod sampling;
mod sdks;
mod transforms;

const ID: &str = "9ec79c33ec9942ab8353589fcb2e04dc";
const TRACE: &str = "771a43a4192642f0b136d5159a501700";

/// A mirror whose primary gets everything and whose second outbound has `options`.
struct Pair {
    all: Upstream,
    some: Upstream,
    mirror: Process,
}

impl Pair {
    fn start(options: &str) -> Pair {
        Pair::start_with(options, "")
    }

    fn start_with(options: &str, extra: &str) -> Pair {
        let (all, some) = (Upstream::ok(), Upstream::ok());
        let outbounds = [all.dsn(KEY_A, 11), mapping(&some, KEY_B, options)];
        let mirror = Process::start(&config(&outbounds, extra));
        Pair { all, some, mirror }
    }

    /// Sends envelopes one after the other, and waits until the primary has each.
    fn send<B: AsRef<[u8]>>(&self, bodies: &[B]) {
        let mut client = self.mirror.client();
        for (number, body) in bodies.iter().enumerate() {
            let body = body.as_ref();
            let response = client.ask(&envelope_request(body));
            assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(body));
            self.all.wait_for(number + 1);
        }
    }

    /// Stops the mirror, and gives what the second outbound received and the totals from the log.
    fn finish(self) -> (Vec<Received>, String) {
        self.mirror.signal("TERM");
        let totals = self.mirror.wait_for_line(", requests ");
        let (status, _) = self.mirror.wait();
        assert!(status.success());
        (self.some.received(), totals)
    }
}

fn mapping(upstream: &Upstream, key: &str, options: &str) -> String {
    format!("{{dsn: '{}', {options}}}", upstream.dsn(key, 22))
}

/// `text` as the second outbound must get it.
fn rewritten(text: &str, upstream: &Upstream) -> String {
    text.replace(
        &format!("http://{IN_KEY}@mirror.example.com/42"),
        &upstream.dsn(KEY_B, 22),
    )
    .replace(IN_KEY, KEY_B)
}

fn header() -> String {
    format!(
        "{{\"event_id\":\"{ID}\",\"dsn\":\"http://{IN_KEY}@mirror.example.com/42\",\"trace\":{{\"trace_id\":\"{TRACE}\",\"public_key\":\"{IN_KEY}\"}}}}\n"
    )
}

#[test]
fn items_of_other_categories_are_removed_and_the_rest_is_unchanged() {
    let event = "{\"type\":\"event\",\"length\":6}\n{\"a\n\":1\n";
    let session = "{\"type\":\"session\"}\n{\"sid\":\"s\"}\n";
    let attachment = "{\"type\":\"attachment\",\"length\":3,\"filename\":\"x\"}\na\nb\n";
    let report = "{\"type\":\"client_report\"}\n{}";
    let event = event.replace("\"length\":6", "\"length\":7");
    let profile = "{\"type\":\"profile\"}\n{\"version\":\"1\"}\n";
    let transaction = "{\"type\":\"transaction\"}\n{}\n";
    let pair = Pair::start("categories: [error, transaction]");
    let bodies = [
        [&*header(), &event, session, attachment, report].concat(),
        [&*header(), profile, transaction].concat(),
        [&*header(), session, report].concat(),
        [&*header(), attachment, session].concat(),
        [&*header(), &event].concat(),
    ];
    let expected = [
        [&*header(), &event, attachment].concat(),
        [&*header(), transaction].concat(),
        [&*header(), &event].concat(),
    ];
    pair.send(&bodies);
    let whole = pair.all.received();
    assert!(
        whole[0]
            .text()
            .ends_with(bodies[0].split_once('\n').unwrap().1)
    );
    let mut expected = expected.map(|text| rewritten(&text, &pair.some));
    let (got, totals) = pair.finish();
    // The mirror does not wait for the second outbound, so requests may overtake each other.
    let mut got: Vec<&str> = got.iter().map(Received::text).collect();
    got.sort_unstable();
    expected.sort_unstable();
    assert_eq!(got, expected);
    assert!(totals.contains("delivered filtered 2"), "{totals}");
    assert!(totals.contains("items filtered 3"), "{totals}");
}

/// The reply table if some outbounds filter out the whole request.
#[test]
fn a_request_that_no_outbound_wants_is_a_success_for_the_sdk() {
    let a = Upstream::start(|_, _| Action::Answer(503, "{}"));
    let b = Upstream::ok();
    let only_errors = mapping(&a, KEY_A, "categories: [error]");
    let session = format!("{{\"event_id\":\"{ID}\"}}\n{{\"type\":\"session\"}}\n{{}}");
    for policy in ["first_success", "primary"] {
        let extra = format!("reply_policy: {policy}");
        let mirror = Process::start(&config(std::slice::from_ref(&only_errors), &extra));
        let response = mirror.client().ask(&envelope_request(session.as_bytes()));
        assert_eq!(response.status, 200, "{policy}");
        assert_eq!(response.text(), format!("{{\"id\":\"{ID}\"}}"));
        assert_eq!(response.field("Retry-After"), None);
        let error = mirror
            .client()
            .ask(&envelope_request(envelope(ID).as_bytes()));
        assert_eq!(error.status, 503, "{policy}");

        let outbounds = [only_errors.clone(), b.dsn(KEY_B, 22)];
        let mirror = Process::start(&config(&outbounds, &extra));
        let response = mirror.client().ask(&envelope_request(session.as_bytes()));
        assert_eq!(response.status, 200, "{policy}");
        assert_eq!(response.text(), r#"{"id":"from-upstream"}"#);
    }
    // Two errors, no session.
    assert_eq!(a.received().len(), 2);
}

#[test]
fn a_limited_outbound_does_not_silence_the_sdk_for_one_that_wanted_something_else() {
    let limited = Upstream::start(|_, _| {
        Action::Raw(
            b"HTTP/1.1 429 Too Many\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n".to_vec(),
        )
    });
    let errors = Upstream::ok();
    let outbounds = [
        mapping(&errors, KEY_A, "categories: [error]"),
        limited.dsn(KEY_B, 22),
    ];
    let mirror = Process::start(&config(&outbounds, ""));
    let session = "{}\n{\"type\":\"session\"}\n{}";
    for _ in 0..2 {
        let response = mirror.client().ask(&envelope_request(session.as_bytes()));
        assert_eq!(response.status, 503);
        assert_eq!(response.field("Retry-After"), None);
        assert_eq!(response.field("X-Sentry-Rate-Limits"), None);
    }
    assert_eq!(limited.received().len(), 1);
}

/// The rate limits of an outbound are compared with what it would get, not with the whole request.
#[test]
fn rate_limits_apply_to_the_items_left_after_filtering() {
    let some = Upstream::start(|_, _| {
        Action::Raw(
            b"HTTP/1.1 200 OK\r\nX-Sentry-Rate-Limits: 60:error:key\r\nContent-Length: 2\r\n\r\n{}"
                .to_vec(),
        )
    });
    let all = Upstream::ok();
    let outbounds = [
        all.dsn(KEY_A, 11),
        mapping(&some, KEY_B, "categories: [error]"),
    ];
    let mirror = Process::start(&config(&outbounds, "verbose: true"));
    let mixed = format!("{}{{\"type\":\"session\"}}\n{{}}\n", envelope(ID));
    let mut client = mirror.client();
    assert_eq!(client.ask(&envelope_request(mixed.as_bytes())).status, 200);
    // Both responses have arrived, and with them the rate limit.
    mirror.wait_for_lines("delivery ended", 2);
    assert_eq!(client.ask(&envelope_request(mixed.as_bytes())).status, 200);
    all.wait_for(2);
    mirror.signal("TERM");
    let totals = mirror.wait_for_line(", requests ");
    mirror.wait();
    assert_eq!(some.received().len(), 1);
    assert!(totals.contains("delivered rate_limited 1"), "{totals}");
}

#[test]
fn an_unparsable_body_goes_only_to_outbounds_that_take_everything() {
    for (options, counted) in [
        ("categories: [error]", "delivered filtered 1"),
        ("sample_rate: 0", "delivered sampled 1"),
        ("sample_rate: {session: 0.5}", "delivered 2xx 2"),
    ] {
        check_broken(options, counted);
    }
}

fn check_broken(options: &str, counted: &str) {
    let pair = Pair::start(options);
    let broken = format!("{}{{\"type\":\"event\",\"length\":9999}}\n{{}}", header());
    pair.send(std::slice::from_ref(&broken));
    assert!(
        pair.all.received()[0]
            .text()
            .ends_with(broken.split_once('\n').unwrap().1)
    );
    let (got, totals) = pair.finish();
    assert_eq!(got.len(), usize::from(counted.contains("2xx")));
    assert!(totals.contains(counted), "{totals}");
}

#[test]
fn every_endpoint_has_a_category() {
    let requests = [
        ("POST", "/api/42/store/", r#"{"event_id":"1"}"#, "error"),
        ("POST", "/api/42/minidump/", "MDMP", "error"),
        (
            "POST",
            "/api/42/security/",
            r#"{"csp-report":{}}"#,
            "security",
        ),
        ("GET", "/api/42/cron/nightly/", "", "monitor"),
        ("POST", "/api/42/integration/otlp/v1/traces", "{}", "span"),
        ("POST", "/api/42/integration/otlp/v1/logs/", "{}", "log"),
        ("POST", "/api/42/integration/vercel/logs", "[]", "log"),
        (
            "POST",
            "/api/42/events/9ec79c33ec9942ab8353589fcb2e04dc/attachments/",
            "x",
            "attachment",
        ),
        ("POST", "/api/42/nel/", "[]", "log"),
    ];
    let categories: BTreeSet<&str> = requests.iter().map(|request| request.3).collect();
    for category in categories {
        let pair = Pair::start(&format!("categories: [{category}]"));
        let mut client = pair.mirror.client();
        for (number, (method, path, body, _)) in requests.iter().enumerate() {
            let separator = if path.contains('?') { '&' } else { '?' };
            let text = format!(
                "{method} {path}{separator}sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let response = client.ask(text.as_bytes());
            assert!(response.status < 300, "{path}: {}", response.status);
            pair.all.wait_for(number + 1);
        }
        let (got, _) = pair.finish();
        let wanted = requests.iter().filter(|request| request.3 == category);
        let wanted: Vec<String> = wanted
            .map(|request| request.1.replace("/42/", "/22/"))
            .collect();
        let got: Vec<String> = got
            .iter()
            .map(|received| {
                let target = received.line.split(' ').nth(1).unwrap();
                target.split('?').next().unwrap().to_owned()
            })
            .collect();
        let sorted = |mut list: Vec<String>| {
            list.sort();
            list
        };
        assert_eq!(sorted(got), sorted(wanted), "{category}");
    }
}

fn traced(trace: &str, kind: &str) -> String {
    format!(
        "{{\"trace\":{{\"trace_id\":\"{trace}\",\"sample_rate\":\"0.5\",\"public_key\":\"{IN_KEY}\"}}}}\n{{\"type\":\"{kind}\"}}\n{{}}\n"
    )
}

fn trace_of(received: &Received) -> String {
    let line = received.text().lines().next().unwrap();
    let header: Value = serde_json::from_str(line).unwrap();
    assert_eq!(header["trace"]["sample_rate"], "0.15");
    header["trace"]["trace_id"].as_str().unwrap().to_owned()
}

#[test]
fn two_independent_mirrors_sample_a_trace_alike() {
    let kinds = ["event", "transaction", "profile", "span"];
    let traces: Vec<String> = (1..=60).map(|number| format!("{number:032x}")).collect();
    let mut bodies = Vec::new();
    for trace in &traces {
        bodies.extend(kinds.iter().map(|kind| traced(trace, kind)));
    }
    let uniform = Pair::start_with("sample_rate: 0.3", "workers: 2");
    let each = Pair::start_with(
        "sample_rate: {error: 0.3, transaction: 0.3, profile: 0.3, span: 0.3}",
        "workers: 1",
    );
    let mut kept = Vec::new();
    for pair in [uniform, each] {
        pair.send(&bodies);
        let (got, totals) = pair.finish();
        let mut parts: BTreeMap<String, usize> = BTreeMap::new();
        for received in &got {
            *parts.entry(trace_of(received)).or_default() += 1;
        }
        assert!(
            parts.values().all(|count| *count == kinds.len()),
            "{parts:?}"
        );
        assert!((8..30).contains(&parts.len()), "{parts:?}");
        let dropped = bodies.len() - got.len();
        assert!(
            totals.contains(&format!("delivered sampled {dropped}")),
            "{totals}"
        );
        kept.push(parts.into_keys().collect::<Vec<_>>());
    }
    assert_eq!(kept[0], kept[1]);
}

/// Check-ins in envelopes and over the cron endpoint.
#[test]
fn related_items_without_a_trace_are_sampled_together() {
    let pair = Pair::start("sample_rate: 0.5");
    let mut client = pair.mirror.client();
    let mut count = 0;
    for number in 0..40 {
        let slug = format!("job-{number}");
        for status in ["in_progress", "ok"] {
            let body = format!(
                "{{\"trace\":{{\"trace_id\":\"{number:031x}{}\",\"public_key\":\"{IN_KEY}\"}}}}\n{{\"type\":\"check_in\"}}\n{{\"monitor_slug\":\"{slug}\",\"status\":\"{status}\"}}",
                status.len() % 2
            );
            assert_eq!(client.ask(&envelope_request(body.as_bytes())).status, 200);
        }
        // A prefix that looks like the endpoint is ignored.
        let get =
            format!("GET /cron/api/42/cron/{slug}/{IN_KEY}/?status=ok HTTP/1.1\r\nHost: m\r\n\r\n");
        assert_eq!(client.ask(get.as_bytes()).status, 200);
        count += 3;
        pair.all.wait_for(count);
    }
    let (got, _) = pair.finish();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for received in &got {
        let slug = match received.line.split("/cron/").nth(1) {
            Some(rest) => rest.split('/').next().unwrap().to_owned(),
            None => {
                let payload = received.text().lines().nth(2).unwrap();
                let payload: Value = serde_json::from_str(payload).unwrap();
                payload["monitor_slug"].as_str().unwrap().to_owned()
            }
        };
        *seen.entry(slug).or_default() += 1;
    }
    assert!(seen.values().all(|count| *count == 3), "{seen:?}");
    assert!((8..33).contains(&seen.len()), "{seen:?}");
}

/// The same requests are kept with any inbound DSN.
#[test]
fn requests_without_a_body_are_sampled_by_their_target() {
    const COUNT: usize = 200;
    let mut kept = Vec::new();
    for (key, prefix, project) in [(IN_KEY, "", 42), (KEY_A, "/prefix", 7)] {
        let some = Upstream::ok();
        let outbounds = [mapping(&some, KEY_B, "sample_rate: 0.5")];
        let mirror = Process::start(&config(&outbounds, "").replace(IN_KEY, key));
        let mut client = mirror.client();
        for endpoint in ["store", "later"] {
            for number in 0..COUNT {
                let get = format!(
                    "GET {prefix}/api/{project}/{endpoint}/?sentry_key={key}&sentry_data={number} HTTP/1.1\r\nHost: m\r\n\r\n"
                );
                assert_eq!(client.ask(get.as_bytes()).status, 200, "{endpoint}");
            }
        }
        mirror.signal("TERM");
        mirror.wait();
        let lines: BTreeSet<String> = some.received().into_iter().map(|got| got.line).collect();
        for endpoint in ["store", "later"] {
            let count = lines.iter().filter(|line| line.contains(endpoint)).count();
            let half = COUNT / 2 - 35..COUNT / 2 + 35;
            assert!(half.contains(&count), "{count} of {COUNT} {endpoint}");
        }
        kept.push(lines);
    }
    assert_eq!(kept[0], kept[1]);
}

#[test]
fn copies_have_new_ids_that_agree_across_requests() {
    let pair = Pair::start("multiplier: 3");
    let event = |kind: &str, trace: &str| {
        let payload = format!(
            "{{\"event_id\":\"{ID}\",\"contexts\":{{\"trace\":{{\"trace_id\":\"{trace}\"}}}}}}"
        );
        format!(
            "{}{{\"type\":\"{kind}\",\"length\":{}}}\n{payload}\n",
            header(),
            payload.len()
        )
    };
    pair.send(&[event("event", TRACE), event("transaction", TRACE)]);
    let got = pair.some.wait_for(6);
    let (all, totals) = pair.finish();
    assert_eq!(all.len(), 6);
    assert!(totals.contains("delivered 2xx 8"), "{totals}");
    let mut ids: BTreeMap<(String, String), usize> = BTreeMap::new();
    for received in &got {
        assert_eq!(
            received.field("X-Sentry-Auth"),
            Some(&*format!("Sentry sentry_key={KEY_B}, sentry_version=7"))
        );
        let lines: Vec<Value> = received
            .text()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let event_id = text(&lines[0]["event_id"]);
        let trace_id = text(&lines[0]["trace"]["trace_id"]);
        assert_eq!(text(&lines[0]["trace"]["public_key"]), KEY_B);
        assert_eq!(text(&lines[2]["event_id"]), event_id);
        assert_eq!(text(&lines[2]["contexts"]["trace"]["trace_id"]), trace_id);
        *ids.entry((event_id, trace_id)).or_default() += 1;
    }
    // The same three pairs in both requests, the original among them.
    assert_eq!(ids.len(), 3, "{ids:?}");
    assert!(ids.values().all(|count| *count == 2), "{ids:?}");
    assert!(ids.contains_key(&(ID.to_owned(), TRACE.to_owned())));
    let traces: BTreeSet<&String> = ids.keys().map(|(_, trace)| trace).collect();
    assert_eq!(traces.len(), 3);
}

/// Only the original counts for the outbound.
#[test]
fn outcomes_of_further_copies_do_not_affect_the_reply() {
    let upstream = Upstream::start(|_, received| match received.text().contains(ID) {
        true => Action::ok(),
        false => Action::Answer(500, "{}"),
    });
    let mirror = Process::start(&config(&[mapping(&upstream, KEY_A, "multiplier: 4")], ""));
    let response = mirror
        .client()
        .ask(&envelope_request(envelope(ID).as_bytes()));
    assert_eq!(response.status, 200);
    assert_eq!(response.text(), r#"{"id":"from-upstream"}"#);
    upstream.wait_for(4);
}

#[test]
fn bodies_with_unknown_ids_are_not_copied() {
    let pair = Pair::start("multiplier: 3");
    let mut client = pair.mirror.client();
    let store = format!("{{\"event_id\":\"{ID}\"}}");
    for (path, body) in [("minidump", "MDMP"), ("store", &*store)] {
        let text = format!(
            "POST /api/42/{path}/?sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        assert_eq!(client.ask(text.as_bytes()).status, 200);
    }
    let got = pair.some.wait_for(4);
    let (all, _) = pair.finish();
    assert_eq!(all.len(), 4);
    let bodies: BTreeSet<&str> = got.iter().map(Received::text).collect();
    assert_eq!(bodies.len(), 4, "{bodies:?}");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Decompresses a body, which must have one member and nothing after it.
fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    let mut single = flate2::bufread::GzDecoder::new(bytes);
    single.read_to_end(&mut text).unwrap();
    assert!(single.into_inner().is_empty());
    let mut all = Vec::new();
    MultiGzDecoder::new(bytes).read_to_end(&mut all).unwrap();
    assert_eq!(all, text);
    text
}
