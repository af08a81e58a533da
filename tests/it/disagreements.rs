//! Requests that one outbound takes and another refuses: the counter, and what the status shows of them.

use serde_json::{Value, json};

use crate::support::{Action, Config, KEY_A, KEY_B, Process, Upstream, envelope_request, outbound};

const ID: &str = "fc6d8c0c43fc4630ad850ee518f1b9d0";

/// An error with an attachment of this many bytes.
fn body(attachment_bytes: usize) -> Vec<u8> {
    let event = r#"{"message":"a private message"}"#;
    let file = "x".repeat(attachment_bytes);
    format!(
        "{{\"event_id\":\"{ID}\"}}\n{{\"type\":\"event\",\"length\":{}}}\n{event}\n\
         {{\"type\":\"attachment\",\"length\":{attachment_bytes},\"filename\":\"private.txt\"}}\n{file}\n",
        event.len()
    )
    .into_bytes()
}

fn named(name: &str, upstream: &Upstream) -> serde_yaml::Value {
    outbound(&upstream.dsn(KEY_B, 22), &format!("{{name: {name}}}"))
}

fn start(outbounds: [serde_yaml::Value; 3]) -> Process {
    Config::new(outbounds).with_metrics().start()
}

/// Sends a request, and waits until all of its deliveries have ended, which are `count` with those before.
fn send(mirror: &Process, body: &[u8], count: f64) {
    assert_eq!(mirror.client().ask(&envelope_request(body)).status, 200);
    let name = "sentry_mirror_deliveries_total";
    mirror.wait_for_metrics(|metrics| metrics.sum(name, &[]) == count);
}

/// The disagreements, without their times.
fn disagreements(mirror: &Process) -> Vec<Value> {
    let page = mirror.page("/status");
    assert!(!page.text().contains("private"), "{}", page.text());
    assert!(!page.text().contains(KEY_B), "{}", page.text());
    let mut status: Value = serde_json::from_str(page.text()).expect("JSON");
    let Value::Array(mut all) = status["disagreements"].take() else {
        panic!("no list");
    };
    for one in &mut all {
        let at = one.as_object_mut().expect("an object").remove("at");
        assert!(
            at.expect("a time")
                .as_str()
                .is_some_and(|at| at.ends_with('Z'))
        );
    }
    all
}

fn refused(mirror: &Process, status: &str) -> f64 {
    let status = format!("status=\"{status}\"");
    mirror
        .metrics()
        .sum("sentry_mirror_disagreements_total", &[&status])
}

#[test]
fn a_refusal_of_what_another_took_is_counted_and_shown() {
    let words = format!("{{\"detail\":\"<b>too large</b> for {KEY_B}\"}}").leak();
    let (good, down) = (
        Upstream::ok(),
        Upstream::start(|_, _| Action::Answer(500, "{}")),
    );
    let bad = Upstream::start(|_, _| Action::Answer(413, words));
    let mirror = start([
        named("good", &good),
        named("bad", &bad),
        named("down", &down),
    ]);
    for (number, attachment_bytes) in [(1, 5), (2, 100_000)] {
        send(&mirror, &body(attachment_bytes), 3.0 * f64::from(number));
        // What the request was about is known before its last delivery ends, and kept after it.
        mirror.wait_for_metrics(|metrics| {
            let labels = ["status=\"413\""];
            metrics.sum("sentry_mirror_disagreements_total", &labels) == f64::from(number)
        });
    }
    let all = disagreements(&mirror);
    // The second came within a second, or is there too, and the first is the last of the list.
    let expected = json!({
        "route": "http://0123…@mirror.example.com/42",
        "endpoint": "envelope",
        "event_id": ID,
        "items": [{"category": "error", "bytes": 31}, {"category": "attachment", "bytes": 5}],
        "items_left_out": 0,
        "outcomes": [
            {"outbound": "good", "outcome": "2xx", "status": 200, "reason": null},
            {"outbound": "bad", "outcome": "4xx", "status": 413,
             "reason": "{\"detail\":\"<b>too large</b> for bbbb…\"}"},
            {"outbound": "down", "outcome": "5xx", "status": 500, "reason": null},
        ],
    });
    assert_eq!(all.last(), Some(&expected));
    assert!(all.len() <= 2, "{all:?}");
}

#[test]
fn a_large_request_is_described_by_its_items() {
    let (good, other) = (Upstream::ok(), Upstream::ok());
    let bad = Upstream::start(|_, _| Action::Answer(413, "{}"));
    let mirror = start([
        named("good", &good),
        named("bad", &bad),
        named("other", &other),
    ]);
    send(&mirror, &body(100_000), 3.0);
    mirror.wait_for_metrics(|metrics| metrics.sum("sentry_mirror_disagreements_total", &[]) == 1.0);
    let all = disagreements(&mirror);
    let expected = json!([
        {"category": "error", "bytes": 31}, {"category": "attachment", "bytes": 100_000}
    ]);
    assert_eq!(all[0]["items"], expected);
    assert_eq!(all[0]["event_id"], ID);
}

#[test]
fn agreement_is_no_disagreement() {
    let refusing = || Upstream::start(|_, _| Action::Answer(403, "{}"));
    let (a, b, c) = (refusing(), refusing(), refusing());
    let mirror = start([named("a", &a), named("b", &b), named("c", &c)]);
    let response = mirror.client().ask(&envelope_request(&body(5)));
    assert_eq!(response.status, 403);
    let name = "sentry_mirror_deliveries_total";
    mirror.wait_for_metrics(|metrics| metrics.sum(name, &[]) == 3.0);
    assert_eq!(refused(&mirror, "403"), 0.0);
    assert!(disagreements(&mirror).is_empty());

    // A rate limit is no refusal, and neither is a failure.
    let limited = Upstream::start(|_, _| Action::Answer(429, "{}"));
    let failing = Upstream::start(|_, _| Action::Close);
    let good = Upstream::ok();
    let mirror = start([
        named("good", &good),
        outbound(&limited.dsn(KEY_A, 1), "{}"),
        named("failing", &failing),
    ]);
    send(&mirror, &body(5), 3.0);
    assert_eq!(
        mirror
            .metrics()
            .sum("sentry_mirror_disagreements_total", &[]),
        0.0
    );
    assert!(disagreements(&mirror).is_empty());
}
