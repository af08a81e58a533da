//! Requests with a key that no inbound DSN has: an operator learns who sends them.

use serde_json::{Value, json};

use crate::support::{
    Config, IN_KEY, KEY_A, Process, Upstream, envelope, envelope_request, wait_until,
};

const DEAD_KEY: &str = "deadbeefdeadbeefdeadbeefdeadbeef";
const BEAD_KEY: &str = "beadfacebeadfacebeadfacebeadface";
const LINE: &str = "rejected requests: no inbound DSN has their key";

fn start(workers: u32) -> (Upstream, Process) {
    let upstream = Upstream::ok();
    let mirror = Config::new([upstream.dsn(KEY_A, 11)])
        .set("workers", workers)
        .with_metrics()
        .start();
    (upstream, mirror)
}

fn store(key: &str, project: u32, fields: &str) -> Vec<u8> {
    format!("POST /api/{project}/store/?sentry_key={key} HTTP/1.1\r\nHost: m\r\n{fields}Content-Length: 2\r\n\r\n{{}}")
        .into_bytes()
}

fn status(mirror: &Process) -> Value {
    serde_json::from_str(mirror.page("/status").text()).expect("JSON")
}

/// The status once it lists unknown keys with so many requests.
fn wait_for_requests(mirror: &Process, count: u64) -> Value {
    let listed = || {
        let status = status(mirror);
        let keys = status["unknown_keys"]["last"].as_array().unwrap().iter();
        keys.map(|key| key["requests"].as_u64().unwrap())
            .sum::<u64>()
            + status["unknown_keys"]["others"].as_u64().unwrap()
    };
    wait_until(|| listed() == count, || status(mirror).to_string());
    status(mirror)
}

#[test]
fn the_log_and_the_status_name_who_sends_an_unknown_key() {
    let (_upstream, mirror) = start(3);
    let auth = format!(
        "X-Sentry-Auth: Sentry sentry_key={DEAD_KEY}, sentry_version=7, sentry_client=sentry.python/2.75.0\r\nUser-Agent: other/1\r\n"
    );
    let request =
        format!("POST /api/9/envelope/ HTTP/1.1\r\nHost: m\r\n{auth}Content-Length: 2\r\n\r\n{{}}");
    // Each connection may be another worker's.
    for _ in 0..6 {
        assert_eq!(mirror.client().ask(request.as_bytes()).status, 403);
    }
    let line = mirror.wait_for_line(LINE);
    for part in [
        " WARN ",
        "key=\"dead…\"",
        "project=\"9\"",
        "sdk=\"sentry.python/2.75.0\"",
        "client=127.0.0.1",
        "requests=",
    ] {
        assert!(line.contains(part), "no {part}: {line}");
    }
    let known = wait_for_requests(&mirror, 6);
    let keys = known["unknown_keys"]["last"].as_array().unwrap();
    assert_eq!(keys.len(), 1, "{known}");
    let mut key = keys[0].clone();
    for age in ["first_seconds_ago", "last_seconds_ago"] {
        assert!(key.as_object_mut().unwrap().remove(age).unwrap().is_u64());
    }
    assert_eq!(
        key,
        json!({
            "key": "dead…", "project": "9", "sdk": "sentry.python/2.75.0",
            "client": "127.0.0.1", "requests": 6,
        })
    );
    assert_eq!(known["recent"]["unknown_key"], 6);
    assert_eq!(known["recent"]["requests"], 6);
    mirror.signal("TERM");
    let (_, log) = mirror.wait();
    let lines = log.iter().filter(|line| line.contains(LINE)).count();
    assert_eq!(lines, 1, "at most one a minute: {log:?}");
    for line in log {
        assert!(!line.contains(DEAD_KEY), "{line}");
    }
}

#[test]
fn the_sender_is_found_wherever_a_request_has_its_key() {
    let (_upstream, mirror) = start(1);
    let good = envelope_request(envelope("00").as_bytes());
    assert_eq!(mirror.client().ask(&good).status, 200);
    mirror
        .client()
        .ask(b"GET /health HTTP/1.1\r\nHost: m\r\n\r\n");
    // From a browser, by its query.
    let query = format!("{DEAD_KEY}&sentry_client=sentry.javascript.react%2F10.1.0");
    assert_eq!(mirror.client().ask(&store(&query, 7, "")).status, 403);
    // Through a tunnel, which names the DSN only in the envelope.
    let body = format!(
        "{{\"dsn\":\"https://{BEAD_KEY}@sentry.example/77\"}}\n{{\"type\":\"event\"}}\n{{}}"
    );
    let tunnel = format!(
        "POST /tunnel HTTP/1.1\r\nHost: m\r\nUser-Agent: Mozilla/5.0 (X11)\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(mirror.client().ask(tunnel.as_bytes()).status, 403);
    // A key that has lost its end, and nothing else about the sender.
    assert_eq!(
        mirror.client().ask(&store(&IN_KEY[..31], 8, "")).status,
        400
    );
    let known = wait_for_requests(&mirror, 3);
    assert_eq!(known["recent"]["requests"], 4, "health checks do not count");
    let mut keys: Vec<_> = known["unknown_keys"]["last"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| (&key["key"], &key["project"], &key["sdk"]))
        .map(|(key, project, sdk)| json!([key, project, sdk]))
        .collect();
    keys.sort_by_key(Value::to_string);
    assert_eq!(
        json!(keys),
        json!([
            ["0123…", "8", null],
            ["bead…", "77", "Mozilla/5.0 (X11)"],
            ["dead…", "7", "sentry.javascript.react/10.1.0"],
        ])
    );
}

#[test]
fn what_a_sender_calls_itself_is_cut_and_escaped() {
    let (_upstream, mirror) = start(1);
    let agent = format!(
        "User-Agent: x\u{1b}\u{9b}31m \u{202e}<b> {KEY_A}{}\r\n",
        "y".repeat(1000)
    );
    // The parser refuses the control character of ASCII.
    let agent = agent.replace('\u{1b}', "");
    assert_eq!(mirror.client().ask(&store(DEAD_KEY, 9, &agent)).status, 403);
    let line = mirror.wait_for_line(LINE);
    let known = wait_for_requests(&mirror, 1);
    let sdk = known["unknown_keys"]["last"][0]["sdk"].as_str().unwrap();
    assert!(sdk.starts_with("x\\u{9b}31m \\u{202e}<b> aaaa…"), "{sdk}");
    assert!(sdk.len() < 200, "{sdk}");
    for text in [line.as_str(), sdk] {
        assert!(!text.contains(KEY_A), "{text}");
        assert!(!text.contains(['\u{9b}', '\u{202e}']), "{text}");
    }
}

#[test]
fn a_flood_of_keys_is_counted_and_logged_in_a_few_lines() {
    const REQUESTS: u32 = 3000;
    let (_upstream, mirror) = start(2);
    let mut client = mirror.client();
    for number in 0..REQUESTS {
        client.send(&store(&format!("{number:032}"), 1, ""));
        assert_eq!(client.response().status, 403);
    }
    let known = wait_for_requests_at_least(&mirror, u64::from(REQUESTS));
    assert_eq!(known["unknown_keys"]["last"].as_array().unwrap().len(), 20);
    let metrics = mirror.metrics();
    let rejected = metrics.value("sentry_mirror_rejections_total{reason=\"unknown_key\"}");
    assert_eq!(rejected, f64::from(REQUESTS));
    mirror.signal("TERM");
    let (_, log) = mirror.wait();
    let lines = log.iter().filter(|line| line.contains(LINE)).count();
    // Of a test that takes more than a minute, each minute may have as many.
    assert!((1..=20 * 5).contains(&lines), "{lines}");
}

/// The status once the unknown keys that it does not list, and those that it may list, add up to `count`.
fn wait_for_requests_at_least(mirror: &Process, count: u64) -> Value {
    // It lists the last 20 of 256 known keys, each with one request here.
    let hidden = 256 - 20;
    let sum = || {
        let status = status(mirror);
        let keys = status["unknown_keys"]["last"].as_array().unwrap().len() as u64;
        keys + status["unknown_keys"]["others"].as_u64().unwrap()
    };
    wait_until(
        || sum() + hidden >= count && sum() <= count,
        || status(mirror).to_string(),
    );
    status(mirror)
}
