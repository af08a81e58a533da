//! The incidents of outbounds in `/status`.

use serde_json::{Value, json};

use crate::support::{
    Action, Config, KEY_A, KEY_B, Process, Reloadable, Upstream, envelope, envelope_request,
};

fn request() -> Vec<u8> {
    envelope_request(envelope("00").as_bytes())
}

/// The incidents of the outbound at `index`, without what depends on the time.
fn incidents(mirror: &Process, index: usize) -> Value {
    let status: Value = serde_json::from_str(mirror.page("/status").text()).expect("JSON");
    let mut incidents = status["routes"][0]["outbounds"][index]["incidents"].clone();
    for incident in incidents.as_array_mut().expect("a list") {
        assert!(incident["seconds"].as_f64().expect("a number") >= 0.0);
        let is_time = |value: &Value| value.as_str().is_some_and(|text| text.ends_with('Z'));
        assert!(is_time(&incident["began_at"]), "{incident}");
        let ended = incident["ended_at"].take();
        assert!(ended.is_null() || is_time(&ended), "{ended}");
        incident["ended_at"] = (!ended.is_null()).into();
        incident
            .as_object_mut()
            .expect("an object")
            .remove("began_at");
        incident
            .as_object_mut()
            .expect("an object")
            .remove("seconds");
    }
    incidents
}

#[test]
fn a_rejection_is_an_incident_with_its_words_and_losses() {
    let good = Upstream::ok();
    let bad = Upstream::start(|number, _| match number {
        0..3 => Action::Answer(403, "{\"detail\":\"no such key\"}"),
        _ => Action::ok(),
    });
    let config = Config::new([good.dsn(KEY_A, 11), bad.dsn(KEY_B, 22)]).with_metrics();
    let mut mirror = Reloadable::start(&config.text());
    let mut client = mirror.process.client();
    for count in 1..=3 {
        assert_eq!(client.ask(&request()).status, 200);
        bad.wait_for(count);
    }
    let refused = |metrics: &crate::support::Metrics| {
        metrics.sum("sentry_mirror_deliveries_total", &["outcome=\"4xx\""]) == 3.0
    };
    mirror.process.wait_for_metrics(refused);
    let incident = |is_over: bool| {
        json!([{
            "kind": "rejecting",
            "reason": "answered 403: {\"detail\":\"no such key\"}",
            "lost_deliveries": 3,
            "ended_at": is_over,
        }])
    };
    assert_eq!(incidents(&mirror.process, 1), incident(false));
    assert_eq!(incidents(&mirror.process, 0), json!([]));
    // It survives a reload, and ends after it.
    mirror.reload(&config.set("reply_timeout", "2s").text());
    assert_eq!(incidents(&mirror.process, 1), incident(false));
    assert_eq!(client.ask(&request()).status, 200);
    mirror
        .process
        .wait_for_line("outbound accepts requests again");
    assert_eq!(incidents(&mirror.process, 1), incident(true));
}

#[test]
fn what_is_refused_for_the_request_itself_is_no_loss_of_a_rejection() {
    let upstream = Upstream::start(|number, _| match number {
        0 | 3 => Action::Answer(403, "{}"),
        1 => Action::Answer(400, "{}"),
        2 => Action::Answer(413, "{}"),
        _ => Action::ok(),
    });
    let mirror = Config::new([upstream.dsn(KEY_A, 11)])
        .with_metrics()
        .start();
    let mut client = mirror.client();
    for status in [403, 400, 413, 403, 200] {
        assert_eq!(client.ask(&request()).status, status);
    }
    mirror.wait_for_metrics(|metrics| metrics.sum("sentry_mirror_deliveries_total", &[]) == 5.0);
    let seen = incidents(&mirror, 0);
    assert_eq!(seen[0]["lost_deliveries"], 2, "{seen}");
    assert_eq!(seen[0]["ended_at"], true, "{seen}");
}

#[test]
fn an_outage_is_an_incident_of_each_outbound_at_the_origin() {
    let upstream = Upstream::start(|number, _| match number {
        0..2 => Action::Close,
        _ => Action::ok(),
    });
    let other = Upstream::ok();
    let dsns = [
        upstream.dsn(KEY_A, 11),
        other.dsn(KEY_A, 12),
        upstream.dsn(KEY_B, 22),
    ];
    let mirror = Config::new(dsns).with_metrics().start();
    let mut client = mirror.client();
    assert_eq!(client.ask(&request()).status, 200);
    mirror.wait_for_line("upstream does not answer");
    upstream.wait_for(2);
    // Each of the two connections was closed, so later deliveries open others.
    assert_eq!(client.ask(&request()).status, 200);
    mirror.wait_for_line("upstream is answering again");
    for index in [0, 2] {
        let seen = incidents(&mirror, index);
        let incident = &seen[0];
        assert_eq!(incident["kind"], "unanswered", "{seen}");
        assert_eq!(incident["ended_at"], true, "{seen}");
        assert_eq!(incident["lost_deliveries"], 1, "{seen}");
        assert_ne!(incident["reason"], "", "{seen}");
    }
    assert_eq!(incidents(&mirror, 1), json!([]));
}

#[test]
fn a_rate_limit_is_an_incident_until_it_ends() {
    let limits = "HTTP/1.1 429 X\r\nX-Sentry-Rate-Limits: 1:error:key\r\nContent-Length: 0\r\n\r\n";
    let upstream = Upstream::start(move |_, _| Action::Raw(limits.as_bytes().to_vec()));
    let mirror = Config::new([upstream.dsn(KEY_A, 11)])
        .with_metrics()
        .start();
    assert_eq!(mirror.client().ask(&request()).status, 429);
    mirror.wait_for_line("outbound has no rate limits any more");
    let expected = json!([{
        "kind": "rate_limited",
        "reason": "error for 1 s",
        "lost_deliveries": 1,
        "ended_at": true,
    }]);
    assert_eq!(incidents(&mirror, 0), expected);
}

#[test]
fn a_problem_too_soon_for_the_log_is_in_its_incident() {
    // 403, and 403 again at once, after a success.
    let rejecting = Upstream::start(|number, _| match number {
        0 | 2 | 3 => Action::Answer(403, "{}"),
        _ => Action::ok(),
    });
    // Each delivery has its own connection, so that none is retried.
    let ok = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    let silent = Upstream::start(move |number, _| match number {
        0 | 2 | 3 => Action::Close,
        _ => Action::RawAndClose(ok.as_bytes().to_vec()),
    });
    let good = Upstream::ok();
    let dsns = [
        rejecting.dsn(KEY_A, 11),
        silent.dsn(KEY_B, 22),
        good.dsn(KEY_A, 33),
    ];
    let mirror = Config::new(dsns).with_metrics().set("workers", 1).start();
    for count in 1..=5 {
        assert_eq!(mirror.client().ask(&request()).status, 200);
        mirror.wait_for_metrics(|metrics| {
            metrics.sum("sentry_mirror_deliveries_total", &[]) == f64::from(3 * count)
        });
    }
    for (index, kind) in [(0, "rejecting"), (1, "unanswered")] {
        let seen = incidents(&mirror, index);
        assert_eq!(seen.as_array().map(Vec::len), Some(1), "{seen}");
        let incident = &seen[0];
        assert_eq!(incident["kind"], kind, "{seen}");
        assert_eq!(incident["lost_deliveries"], 3, "{seen}");
        assert_eq!(incident["ended_at"], true, "{seen}");
    }
}
