//! Outbounds with caps: what they get, and who is told of the rest.

use std::thread;

use serde_json::Value;

use crate::support::{
    Config, IN_KEY, KEY_A, KEY_B, Metrics, Reloadable, Upstream, envelope_request, outbound,
};

/// An envelope with an error, its attachment and a session.
fn mixed(number: u32) -> String {
    format!(
        "{{\"dsn\":\"http://{IN_KEY}@m/42\",\"trace\":{{\"trace_id\":\"{number:032x}\",\"public_key\":\"{IN_KEY}\"}}}}\n\
         {{\"type\":\"attachment\",\"length\":3}}\nabc\n\
         {{\"type\":\"event\",\"length\":2}}\n{{}}\n\
         {{\"type\":\"session\",\"length\":2}}\n{{}}\n"
    )
}

/// A mirror whose primary has a cap, and its configuration.
fn start(cap: &str) -> (Upstream, Upstream, Reloadable, Config) {
    let (capped, all) = (Upstream::ok(), Upstream::ok());
    let outbounds = [
        outbound(&capped.dsn(KEY_A, 11), &format!("cap: {cap}")),
        all.dsn(KEY_B, 22).into(),
    ];
    let config = Config::new(outbounds).with_metrics();
    let mirror = Reloadable::start(&config.text());
    (capped, all, mirror, config)
}

#[test]
fn what_is_over_a_cap_is_cut_out_and_other_outbounds_are_untouched() {
    let (capped, all, mirror, _) = start("{error: 2/day}");
    let mirror = mirror.process;
    let mut client = mirror.client();
    for number in 0..3 {
        let body = mixed(number);
        assert_eq!(client.ask(&envelope_request(body.as_bytes())).status, 200);
        all.wait_for(number as usize + 1);
        capped.wait_for(number as usize + 1);
    }
    let got = |upstream: &Upstream| -> Vec<[usize; 3]> {
        let received = upstream.received();
        let bodies = received.iter().map(|one| one.text().to_string());
        let counted = bodies.map(|body| {
            ["attachment", "event", "session"]
                .map(|kind| body.matches(&format!("\"type\":\"{kind}\"")).count())
        });
        counted.collect()
    };
    assert_eq!(got(&all), [[1, 1, 1]; 3]);
    // A burst is a tenth of two, and at least one.
    assert_eq!(got(&capped), [[1, 1, 1], [0, 0, 1], [0, 0, 1]]);
    mirror.wait_for_line("a cap of the outbound is reached");
    mirror.signal("TERM");
    let totals = mirror.wait_for_line(", requests ");
    assert!(totals.contains("delivered 2xx 6"), "{totals}");
    mirror.wait();
}

#[test]
fn a_capped_primary_is_as_one_that_does_not_take_the_request() {
    let (capped, all, mut mirror, config) = start("{error: 1/day}");
    let mut client = mirror.process.client();
    let event = |number: u32| {
        let id = format!("{number:032x}");
        format!(
            "{{\"event_id\":\"{id}\",\"dsn\":\"http://{IN_KEY}@m/42\"}}\n{{\"type\":\"event\",\"length\":2}}\n{{}}"
        )
    };
    for number in 1..=2 {
        let body = event(number);
        assert_eq!(client.ask(&envelope_request(body.as_bytes())).status, 200);
        all.wait_for(number as usize);
    }
    assert_eq!(capped.received().len(), 1);
    // A reload that changes nothing of the cap leaves its bucket as it is.
    mirror.reload(&config.set("reply_timeout", "2s").text());
    let body = event(3);
    assert_eq!(client.ask(&envelope_request(body.as_bytes())).status, 200);
    all.wait_for(3);
    assert_eq!(capped.received().len(), 1);
    let mirror = mirror.process;
    mirror.signal("TERM");
    let totals = mirror.wait_for_line(", requests ");
    assert!(totals.contains("capped 2"), "{totals}");
    mirror.wait();
}

#[test]
fn metrics_and_status_have_what_is_used_of_a_cap() {
    let (capped, all, mirror, _) = start("{error: 1/day}");
    let mirror = mirror.process;
    let mut client = mirror.client();
    for number in 0..2 {
        let body = mixed(number);
        client.ask(&envelope_request(body.as_bytes()));
        all.wait_for(number as usize + 1);
        capped.wait_for(number as usize + 1);
    }
    mirror.wait_for_line("a cap of the outbound is reached");
    // Their deliveries have ended, so all items are counted.
    let metrics = mirror.wait_for_metrics(|metrics| {
        metrics.sum("sentry_mirror_deliveries_total", &["outcome=\"2xx\""]) == 4.0
    });
    let used = metrics.sum("sentry_mirror_cap_used_ratio", &["cap=\"error\""]);
    assert!(used >= 1.0, "{used}");
    let status: Value = serde_json::from_str(mirror.page("/status").text()).unwrap();
    let outbound = &status["routes"][0]["outbounds"][0];
    let cap = &outbound["caps"][0];
    assert_eq!(cap["category"], "error");
    assert_eq!(cap["amount"], "1/day");
    assert_eq!(cap["level"], "reached");
    assert_eq!(outbound["incidents"][0]["kind"], "capped");
    assert_eq!(outbound["incidents"][0]["reason"], "error 1/day");
    assert_eq!(outbound["items"]["error"]["capped"], 1);
    assert_eq!(outbound["items"]["session"]["delivered"], 2);
}

/// A request to `path`, which has the key.
fn post(path: &str, content_type: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: m\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A request to each endpoint, with the category of what is in it.
fn one_of_each() -> [(&'static str, Vec<u8>); 8] {
    let form = "--x\r\nContent-Disposition: form-data; name=\"upload_file_minidump\"; filename=\"a\"\r\n\r\nMDMP\r\n--x--\r\n";
    let record = "{\"body\":{\"stringValue\":\"a\"}}";
    let logs = format!("{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{record}]}}]}}]}}");
    let session = "{}\n{\"type\":\"session\",\"length\":2}\n{}";
    let unreal = format!("/api/42/unreal/{IN_KEY}/");
    let to = |path: &str, content_type: &str, body: &str| {
        let path = format!("/api/42/{path}/?sentry_key={IN_KEY}");
        post(&path, content_type, body)
    };
    let json = "application/json";
    [
        ("error", envelope_request(mixed(7).as_bytes())),
        ("error", to("store", json, "{}")),
        (
            "error",
            to("minidump", "multipart/form-data; boundary=x", form),
        ),
        ("error", post(&unreal, "application/octet-stream", "x")),
        (
            "security",
            to("security", "application/csp-report", "{\"csp-report\":{}}"),
        ),
        ("monitor", to("cron/nightly", json, "{\"status\":\"ok\"}")),
        ("log_item", to("integration/otlp/v1/logs", json, &logs)),
        ("session", envelope_request(session.as_bytes())),
    ]
}

#[test]
fn the_sdk_is_never_told_that_the_only_outbound_is_capped() {
    for (category, request) in one_of_each() {
        let upstream = Upstream::ok();
        let options = format!("cap: {{{category}: 1/day}}");
        let only = outbound(&upstream.dsn(KEY_A, 11), &options);
        let mirror = Config::new([only]).with_metrics().start();
        let mut client = mirror.client();
        for number in 0..3 {
            let reply = client.ask(&request);
            // Sentry answers a check-in with 202.
            let is_right = matches!(reply.status, 200 | 202);
            assert!(is_right, "{category} {number}: {}", reply.text());
            assert_eq!(reply.field("x-sentry-rate-limits"), None, "{category}");
        }
        let category = format!("category=\"{category}\"");
        let items = |metrics: &Metrics, outcome: &str| {
            let all = metrics.all("sentry_mirror_items_total", &[&category, outcome]);
            all.iter().map(|(_, count)| count).sum::<f64>()
        };
        let metrics = mirror.wait_for_metrics(|metrics| items(metrics, "outcome") == 3.0);
        let found = ["\"delivered\"", "\"capped\""].map(|outcome| items(&metrics, outcome));
        assert_eq!(found, [1.0, 2.0], "{category}");
    }
}

#[test]
fn what_is_not_copied_takes_one_token_despite_a_multiplier() {
    let upstream = Upstream::ok();
    let options = "{cap: {error: 2/s}, multiplier: 3}";
    let mirror = Config::new([outbound(&upstream.dsn(KEY_A, 11), options)]).start();
    let mut client = mirror.client();
    let dump = post(
        &format!("/api/42/unreal/{IN_KEY}/"),
        "application/octet-stream",
        "x",
    );
    let reply = client.ask(&dump);
    assert_eq!(reply.status, 200, "{}", reply.text());
    upstream.wait_for(1);
    // All three copies of an event would go out, which are too many.
    client.ask(&envelope_request(mixed(7).as_bytes()));
    let copies = upstream.wait_for(4);
    assert!(
        copies[1..]
            .iter()
            .all(|copy| !copy.text().contains("\"type\":\"event\""))
    );
}

#[test]
fn records_that_are_cut_out_of_an_otlp_request_are_counted() {
    let upstream = Upstream::ok();
    let capped = outbound(&upstream.dsn(KEY_A, 11), "cap: {log_item: 1/day}");
    let mirror = Config::new([capped]).with_metrics().start();
    let record = |trace: u32| format!("{{\"traceId\":\"{trace:032x}\"}}");
    let records = [record(7), record(8), record(9)].join(",");
    let body = format!("{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{records}]}}]}}]}}");
    let request = post(
        &format!("/api/42/integration/otlp/v1/logs/?sentry_key={IN_KEY}"),
        "application/json",
        &body,
    );
    assert_eq!(mirror.client().ask(&request).status, 200);
    let received = upstream.wait_for(1);
    assert_eq!(received[0].text().matches("traceId").count(), 1);
    let left_out = "sentry_mirror_items_left_out_total";
    mirror.wait_for_metrics(|metrics| metrics.sum(left_out, &["reason=\"capped\""]) == 2.0);
}

#[test]
fn all_workers_together_let_through_one_burst_across_reloads() {
    const CLIENTS: u32 = 4;
    const EACH: u32 = 100;
    let (capped, all) = (Upstream::ok(), Upstream::ok());
    let config = |cap: &str| {
        let outbounds = [
            outbound(&capped.dsn(KEY_A, 11), &format!("cap: {{{cap}}}")),
            all.dsn(KEY_B, 22).into(),
        ];
        let config = Config::new(outbounds).with_metrics();
        config.set("workers", 4).text()
    };
    // Bursts of 100.
    let mut mirror = Reloadable::start(&config("error: 1000/day"));
    let caps = [
        "error: 1000/day, replay: 9/s",
        "event: 1000/day",
        "error: 1001/day",
    ];
    for (round, cap) in caps.into_iter().enumerate() {
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                let mut connection = mirror.process.client();
                scope.spawn(move || {
                    for number in 0..EACH {
                        let trace = (round as u32 * CLIENTS + client) * EACH + number;
                        let body = mixed(trace);
                        let reply = connection.ask(&envelope_request(body.as_bytes()));
                        assert_eq!(reply.status, 200);
                    }
                });
            }
        });
        mirror.reload(&config(cap));
    }
    let sent = CLIENTS * EACH * 3;
    all.wait_for(sent as usize);
    capped.wait_for(sent as usize);
    let events = |upstream: &Upstream| {
        let received = upstream.received();
        let events = received
            .iter()
            .filter(|one| one.text().contains("\"type\":\"event\""));
        events.count()
    };
    assert_eq!(events(&all), sent as usize);
    // One comes in a minute and a half.
    let passed = events(&capped);
    assert!((60..=102).contains(&passed), "{passed}");
    let deliveries = f64::from(sent * 2);
    let metrics = mirror.process.wait_for_metrics(|metrics| {
        metrics.sum("sentry_mirror_deliveries_total", &["outcome=\"2xx\""]) == deliveries
    });
    let items = |outcome: &str| {
        let outcome = format!("outcome=\"{outcome}\"");
        let labels = ["category=\"error\"", outcome.as_str()];
        metrics.sum("sentry_mirror_items_total", &labels)
    };
    assert_eq!(items("capped"), f64::from(sent) - passed as f64);
    assert_eq!(items("delivered"), f64::from(sent) + passed as f64);
}
