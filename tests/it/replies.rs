//! What the mirror replies to the SDK, and when. The unit tests of the reply policy have the whole table;
//! here some rows meet real upstreams and a real clock.

use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant, SystemTime};

use crate::support::{
    Action, IN_KEY, KEY_A, KEY_B, PATIENCE, Process, Response, Upstream, config, envelope,
    envelope_request, wait_until,
};

const ID: &str = "9ec79c33ec9942ab8353589fcb2e04dc";

/// Sends one envelope through a mirror with these two upstreams.
fn ask(a: &Upstream, b: &Upstream, extra: &str) -> (Response, Duration) {
    let mirror = Process::start(&config(&[a.dsn(KEY_A, 11), b.dsn(KEY_B, 22)], extra));
    let started = Instant::now();
    let response = mirror
        .client()
        .ask(&envelope_request(envelope(ID).as_bytes()));
    (response, started.elapsed())
}

fn always(action: Action) -> Upstream {
    Upstream::start(move |_, _| action.clone())
}

#[test]
fn outbounds_receive_a_request_concurrently() {
    // Neither answers before both have the request.
    let both = Arc::new(Barrier::new(2));
    let waiting = || {
        let both = Arc::clone(&both);
        Upstream::start(move |_, _| {
            both.wait();
            Action::Answer(200, r#"{"id":"slow"}"#)
        })
    };
    let (response, _) = ask(&waiting(), &waiting(), "reply_timeout: 20s");
    assert_eq!(
        (response.status, response.text()),
        (200, r#"{"id":"slow"}"#)
    );
}

#[test]
fn a_primary_that_never_answers_delays_the_sdk_by_no_more_than_the_reply_timeout() {
    let (a, b) = (always(Action::Hang), Upstream::ok());
    let extra = "reply_timeout: 700ms\ntimeouts: {exchange: 120s}";
    let (response, elapsed) = ask(&a, &b, extra);
    assert_eq!(response.text(), r#"{"id":"from-upstream"}"#);
    assert!(elapsed >= Duration::from_millis(700), "{elapsed:?}");
    // The second got it although the first never answers.
    assert_eq!((a.received().len(), b.received().len()), (1, 1));
}

#[test]
fn without_a_response_in_time_the_sdk_gets_the_answer_of_relay() {
    let (a, b) = (always(Action::Hang), always(Action::Hang));
    let (response, _) = ask(&a, &b, "reply_timeout: 100ms");
    assert_eq!(response.status, 200);
    assert_eq!(response.field("Content-Type"), Some("application/json"));
    assert_eq!(response.text(), format!(r#"{{"id":"{ID}"}}"#));
}

#[test]
fn if_the_primary_fails_the_second_outbound_answers() {
    for action in [
        Action::Answer(500, "{}"),
        Action::Answer(429, "{}"),
        Action::Answer(403, "{}"),
        Action::Close,
        Action::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_vec()),
    ] {
        let (response, _) = ask(&always(action), &Upstream::ok(), "");
        assert_eq!(response.status, 200);
        assert_eq!(response.text(), r#"{"id":"from-upstream"}"#);
        assert_eq!(response.field("Retry-After"), None);
    }
}

#[test]
fn a_rate_limit_of_one_outbound_does_not_silence_the_sdk_for_the_other() {
    let limited = Action::Raw(
        b"HTTP/1.1 429 X\r\nRetry-After: 60\r\nX-Sentry-Rate-Limits: 60::organization\r\nContent-Length: 0\r\n\r\n"
            .to_vec(),
    );
    let (response, _) = ask(&Upstream::ok(), &always(limited), "");
    assert_eq!(response.status, 200);
    assert_eq!(response.field("X-Sentry-Rate-Limits"), None);
    assert_eq!(response.field("Retry-After"), None);
}

#[test]
fn rate_limits_of_all_outbounds_reach_the_sdk_with_the_shortest_time() {
    let limited = |fields: &str| {
        always(Action::Raw(
            format!("HTTP/1.1 429 X\r\n{fields}\r\nContent-Length: 0\r\n\r\n").into_bytes(),
        ))
    };
    let a = limited(
        "Retry-After: 60\r\nX-Sentry-Rate-Limits: 60:error;transaction:organization:quota, 10:session:key",
    );
    let b = limited("Retry-After: 20\r\nX-Sentry-Rate-Limits: 20:error:project");
    let (response, _) = ask(&a, &b, "");
    assert_eq!(response.status, 429);
    assert_eq!(response.field("Retry-After"), Some("20"));
    assert_eq!(
        response.field("X-Sentry-Rate-Limits"),
        Some("20:error:organization:quota")
    );
}

#[test]
fn without_a_success_the_reply_tells_a_bad_request_from_a_failed_upstream() {
    let answers = |a: u16, b: u16| {
        let upstream = |status| always(Action::Answer(status, r#"{"detail":"no"}"#));
        ask(&upstream(a), &upstream(b), "").0
    };
    let response = answers(500, 502);
    assert_eq!(response.status, 503);
    assert_eq!(response.field("Retry-After"), None);
    assert!(response.text().starts_with(r#"{"detail":"#));
    assert_eq!(answers(413, 413).status, 413);
    let response = answers(400, 403);
    assert_eq!(
        (response.status, response.text()),
        (400, r#"{"detail":"no"}"#)
    );
}

#[test]
fn under_the_primary_policy_the_response_of_the_primary_is_the_reply() {
    let a = always(Action::Raw(
        b"HTTP/1.1 429 X\r\nRetry-After: 7\r\nX-Sentry-Rate-Limits: 7:error:key\r\nX-Sentry-Error: quota\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nbusy"
            .to_vec(),
    ));
    let (response, _) = ask(&a, &Upstream::ok(), "reply_policy: primary");
    assert_eq!((response.status, response.text()), (429, "busy"));
    assert_eq!(response.field("Retry-After"), Some("7"));
    assert_eq!(response.field("X-Sentry-Rate-Limits"), Some("7:error:key"));
    assert_eq!(response.field("X-Sentry-Error"), Some("quota"));
    assert_eq!(response.field("Content-Type"), Some("text/plain"));

    let (response, _) = ask(
        &always(Action::Close),
        &Upstream::ok(),
        "reply_policy: primary",
    );
    assert_eq!(response.status, 200);
}

#[test]
fn every_reply_has_the_cors_headers() {
    let (a, b) = (Upstream::ok(), Upstream::ok());
    let mirror = Process::start(&config(&[a.dsn(KEY_A, 11), b.dsn(KEY_B, 22)], ""));
    let requests: [(&[u8], u16); 5] = [
        (&envelope_request(envelope(ID).as_bytes()), 200),
        (b"POST /api/42/envelope/ HTTP/1.1\r\nHost: m\r\n\r\n", 401),
        (
            b"OPTIONS /api/42/envelope/ HTTP/1.1\r\nHost: m\r\n\r\n",
            200,
        ),
        (b"GET /health HTTP/1.1\r\nHost: m\r\n\r\n", 200),
        (b"nonsense\r\n\r\n", 400),
    ];
    for (request, status) in requests {
        let response = mirror.client().ask(request);
        assert_eq!(response.status, status);
        assert_eq!(response.field("Access-Control-Allow-Origin"), Some("*"));
        assert_eq!(
            response.field("Access-Control-Expose-Headers"),
            Some("x-sentry-error,x-sentry-rate-limits,retry-after")
        );
        assert_eq!(
            response.field("Cross-Origin-Resource-Policy"),
            Some("cross-origin")
        );
        // Browsers must not guess a content type.
        assert_eq!(response.field("X-Content-Type-Options"), Some("nosniff"));
    }
}

#[test]
fn a_browser_never_runs_a_response_of_an_outbound_as_a_page_or_a_script() {
    const PLAIN: &str = "text/plain; charset=utf-8";
    #[rustfmt::skip]
    let rows = [
        (200, "application/json", "application/json"),
        (400, "application/problem+json; charset=utf-8", "application/problem+json; charset=utf-8"),
        (200, "text/plain", "text/plain"),
        (200, "image/gif", "image/gif"),
        (200, "application/x-protobuf", "application/x-protobuf"),
        (200, "text/html", PLAIN),
        (403, "Text/HTML; charset=utf-8", PLAIN),
        (403, "application/json, text/html", PLAIN),
        (400, "text/javascript", PLAIN),
        (200, "text/css", PLAIN),
        (400, "image/svg+xml", PLAIN),
        (400, "application/xhtml+xml", PLAIN),
        (400, "nonsense", PLAIN),
        (200, "text/xml", "text/xml"),
    ];
    for policy in ["first_success", "primary"] {
        for (status, sent, passed_on) in rows {
            let a = always(Action::Raw(
                format!("HTTP/1.1 {status} X\r\nContent-Type: {sent}\r\nSet-Cookie: a=b\r\nContent-Length: 9\r\n\r\n<p>no</p>")
                    .into_bytes(),
            ));
            let extra = format!("reply_policy: {policy}");
            let mirror = Process::start(&config(&[a.dsn(KEY_A, 11)], &extra));
            let request =
                format!("GET /api/42/store/?sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\n\r\n");
            let response = mirror.client().ask(request.as_bytes());
            // The body is passed on unchanged, whatever its type.
            assert_eq!((response.status, response.text()), (status, "<p>no</p>"));
            assert_eq!(response.field("Content-Type"), Some(passed_on), "{sent}");
            assert_eq!(response.field("X-Content-Type-Options"), Some("nosniff"));
            assert_eq!(response.field("Set-Cookie"), None);
            // A page may be written in XML.
            let policy = response.field("Content-Security-Policy");
            let expected = (sent == "text/xml").then_some("default-src 'none'; sandbox");
            assert_eq!(policy, expected, "{sent}");
        }
    }
}

#[test]
fn a_rate_limited_outbound_gets_no_events_until_the_limit_expires() {
    let a = Upstream::start(|number, _| match number {
        0 => Action::Raw(
            b"HTTP/1.1 200 OK\r\nX-Sentry-Rate-Limits: 1:error:key\r\nContent-Length: 2\r\n\r\n{}"
                .to_vec(),
        ),
        _ => Action::ok(),
    });
    let b = Upstream::ok();
    let mirror = Process::start(&config(&[a.dsn(KEY_A, 11), b.dsn(KEY_B, 22)], ""));
    let mut client = mirror.client();
    let error = envelope_request(envelope(ID).as_bytes());
    let session = envelope_request(b"{}\n{\"type\":\"session\"}\n{}");
    assert_eq!(client.ask(&error).field("X-Sentry-Rate-Limits"), None);
    // Not sent to the first; the second accepts it.
    let response = client.ask(&error);
    assert_eq!(
        (response.status, response.field("Retry-After")),
        (200, None)
    );
    assert_eq!(client.ask(&session).status, 200);
    assert_eq!((a.wait_for(2).len(), b.wait_for(3).len()), (2, 3));
    // Only a request shows that a limit has expired.
    let started = Instant::now();
    wait_until(
        || {
            assert_eq!(client.ask(&error).status, 200);
            a.received().len() >= 3
        },
        || "the limit does not expire".to_owned(),
    );
    assert!(started.elapsed() > Duration::from_millis(500));
    mirror.signal("TERM");
    let (_, log) = mirror.wait();
    let totals = log.iter().find(|line| line.contains("stopped: ")).unwrap();
    assert!(totals.contains("delivered rate_limited "), "{totals}");
}

#[test]
fn a_success_announces_the_rate_limits_of_every_outbound() {
    let limited = |limits: &'static str| {
        always(Action::Raw(
            format!(
                "HTTP/1.1 200 OK\r\nX-Sentry-Rate-Limits: {limits}\r\nContent-Length: 2\r\n\r\n{{}}"
            )
            .into_bytes(),
        ))
    };
    let (a, b) = (
        limited("60:error;session:key"),
        limited("30:session;replay:key"),
    );
    let mirror = Process::start(&config(&[a.dsn(KEY_A, 11), b.dsn(KEY_B, 22)], ""));
    let mut client = mirror.client();
    client.ask(&envelope_request(envelope(ID).as_bytes()));
    // The first reply may come before the second outbound has answered.
    let started = Instant::now();
    let response = loop {
        let response = client.ask(&envelope_request(b"{}\n{\"type\":\"log\"}\n{}"));
        assert_eq!(response.status, 200);
        assert_eq!(response.field("Retry-After"), None);
        if response.field("X-Sentry-Rate-Limits").is_some() {
            break response;
        }
        assert!(started.elapsed() < PATIENCE);
    };
    let is_common = |response: &Response| {
        let limits = response.field("X-Sentry-Rate-Limits").unwrap();
        // A second may have passed already.
        ["30:session:key", "29:session:key"].contains(&limits)
    };
    assert!(is_common(&response), "{response:?}");
    // A request that every outbound limits is answered by the mirror.
    let response = client.ask(&envelope_request(b"{}\n{\"type\":\"session\"}\n{}"));
    assert_eq!(response.status, 429);
    assert!(is_common(&response), "{response:?}");
}

/// Sentry makes an event of a lone minidump, so a limit on attachments does not apply to it.
#[test]
fn a_limit_on_attachments_lets_crashes_pass() {
    let a = always(Action::Raw(
        b"HTTP/1.1 200 OK\r\nX-Sentry-Rate-Limits: 60:attachment:key\r\nContent-Length: 2\r\n\r\n{}"
            .to_vec(),
    ));
    let mirror = Process::start(&config(&[a.dsn(KEY_A, 11)], ""));
    let mut client = mirror.client();
    let attachment = |kind: &str| {
        let body = format!(
            "{{}}\n{{\"type\":\"attachment\",\"length\":4,\"attachment_type\":\"{kind}\"}}\nMDMP\n"
        );
        envelope_request(body.as_bytes())
    };
    assert_eq!(client.ask(&attachment("event.minidump")).status, 200);
    assert_eq!(client.ask(&attachment("event.attachment")).status, 429);
    assert_eq!(client.ask(&attachment("event.minidump")).status, 200);
    assert_eq!(a.received().len(), 2);
}

#[test]
fn the_network_check_of_relay_succeeds() {
    let a = Upstream::ok();
    let mirror = Process::start(&config(&[a.dsn(KEY_A, 11)], ""));
    let response = mirror
        .client()
        .ask(b"GET /api/0/relays/live/ HTTP/1.1\r\nHost: m\r\n\r\n");
    assert_eq!(
        (response.status, response.text()),
        (200, r#"{"is_healthy":true}"#)
    );
    assert_eq!(a.received().len(), 0);
}

#[test]
fn every_reply_has_the_date() {
    let (a, b) = (Upstream::ok(), Upstream::ok());
    let mirror = Process::start(&config(
        &[a.dsn(KEY_A, 11), b.dsn(KEY_B, 22)],
        "admin: {port: 0}",
    ));
    let date_of = |response: &Response| {
        let date = response.field("Date").expect("a date");
        let at = httpdate::parse_http_date(date).expect("a date of HTTP");
        assert_eq!(httpdate::fmt_http_date(at), date);
        at
    };
    let requests: [(&[u8], u16); 6] = [
        (&envelope_request(envelope(ID).as_bytes()), 200),
        (b"POST /api/42/envelope/ HTTP/1.1\r\nHost: m\r\n\r\n", 401),
        (b"OPTIONS * HTTP/1.1\r\nHost: m\r\n\r\n", 200),
        (b"GET /health HTTP/1.1\r\nHost: m\r\n\r\n", 200),
        (b"GET /health HTTP/1.0\r\n\r\n", 200),
        (b"nonsense\r\n\r\n", 400),
    ];
    for (request, status) in requests {
        let before = SystemTime::now();
        let response = mirror.client().ask(request);
        assert_eq!(response.status, status);
        let at = date_of(&response);
        // It is updated once a second, and a worker may wait for the processor.
        assert!(at <= SystemTime::now() && at + PATIENCE > before, "{at:?}");
    }
    date_of(&mirror.page("/health"));
    // It advances while the mirror runs.
    let mut client = mirror.client();
    let health = b"GET /health HTTP/1.1\r\nHost: m\r\n\r\n";
    let first = date_of(&client.ask(health));
    let started = Instant::now();
    while date_of(&client.ask(health)) == first {
        assert!(started.elapsed() < PATIENCE);
    }
}
