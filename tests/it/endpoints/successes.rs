//! The successful reply of every endpoint: that of the primary, and the one made by the mirror.
//!
//! SDKs read the status and the content type. Without a response in time the mirror replies as Relay
//! does, which also replies before it knows the outcome.

use super::{ask, request};
use crate::support::{Action, Client, IN_KEY, KEY_A, KEY_B, Process, Response, Upstream, config};

/// A request, and Relay's reply if it accepts it.
struct Success {
    method: &'static str,
    target: &'static str,
    content_type: &'static str,
    body: &'static str,
    status: u16,
    /// None, and no body, if Relay sends only the status.
    answer_type: Option<&'static str>,
    /// The body of the mirror's own reply without a response in time.
    answer: &'static [u8],
}

const JSON: &str = "application/json";
const OCTETS: &str = "application/octet-stream";
const PROTOBUF: &str = "application/x-protobuf";
const FORM: &str = "multipart/form-data; boundary=x";
const ENVELOPE: &str = "application/x-sentry-envelope";
const EVENT: &str = r#"{"event_id":"9ec79c33ec9942ab8353589fcb2e04dc"}"#;
const HYPHENATED: &str = r#"{"event_id":"9EC79C33-ec99-42ab-8353-589fcb2e04dc"}"#;
const TUNNELLED: &str = r#"{"event_id":"9ec79c33ec9942ab8353589fcb2e04dc","dsn":"http://0123456789abcdef0123456789abcdef@m/42"}"#;
const WITH_ID: &[u8] = br#"{"id":"9ec79c33ec9942ab8353589fcb2e04dc"}"#;
const NIL: &[u8] = b"00000000-0000-0000-0000-000000000000";
const PIXEL: &[u8] = b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff!\xf9\x04\x01\0\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x01D\0;";

#[rustfmt::skip]
const fn success(
    method: &'static str, target: &'static str, content_type: &'static str, body: &'static str,
    status: u16, answer_type: Option<&'static str>, answer: &'static [u8],
) -> Success {
    Success { method, target, content_type, body, status, answer_type, answer }
}

#[rustfmt::skip]
const SUCCESSES: &[Success] = &[
    // For the Java SDK only 200 is a success; the Elixir SDK also needs JSON.
    success("POST", "/api/42/envelope/", ENVELOPE, EVENT,      200, Some(JSON), WITH_ID),
    success("POST", "/api/42/envelope/", ENVELOPE, HYPHENATED, 200, Some(JSON), WITH_ID),
    success("POST", "/api/42/envelope/", ENVELOPE, "{}",       200, Some(JSON), b"{}"),
    success("POST", "/api/42/envelope",  "text/plain", EVENT,  200, Some(JSON), WITH_ID),
    success("POST", "/tunnel",           "text/plain", TUNNELLED, 200, Some(JSON), WITH_ID),
    success("POST", "/api/42/store/",    JSON, EVENT,          200, Some(JSON), b"{}"),
    success("POST", "/api/42/store/",    ENVELOPE, EVENT,      200, Some(JSON), WITH_ID),
    success("POST", "/api/store/",       JSON, EVENT,          200, Some(JSON), b"{}"),
    success("GET",  "/api/42/store/",    "", "",               200, Some("image/gif"), PIXEL),
    success("GET",  "/api/store/",       "", "",               200, Some("image/gif"), PIXEL),
    success("HEAD", "/api/42/store/",    "", "",               200, Some("image/gif"), PIXEL),
    success("POST", "/api/42/security/",   "application/csp-report", "{}",   200, None, b""),
    success("POST", "/api/42/csp-report/", "application/csp-report", "{}",   200, None, b""),
    success("POST", "/api/42/nel/",        "application/reports+json", "[]", 200, None, b""),
    success("POST", "/api/42/minidump/",   FORM, "--x--",   200, Some("text/plain"), NIL),
    success("POST", "/api/42/minidump",    "application/x-dmp", "MDMP", 200, Some("text/plain"), NIL),
    success("POST", "/api/42/unreal/0123456789abcdef0123456789abcdef/", OCTETS, "x", 200, Some("text/plain"), NIL),
    success("POST", "/api/42/events/9ec79c33ec9942ab8353589fcb2e04dc/attachments/", FORM, "--x--", 201, None, b""),
    success("GET",  "/api/42/cron/nightly/0123456789abcdef0123456789abcdef/?status=ok", "", "", 202, None, b""),
    success("HEAD", "/api/42/cron/nightly/0123456789abcdef0123456789abcdef/?status=ok", "", "", 202, None, b""),
    success("POST", "/api/42/cron/nightly/0123456789abcdef0123456789abcdef", JSON, "{}",        202, None, b""),
    success("POST", "/api/42/cron/nightly", JSON, "{}",     202, None, b""),
    success("POST", "/api/42/integration/otlp/v1/traces",  JSON, "{}",    200, Some(JSON), b"{}"),
    success("POST", "/api/42/integration/otlp/v1/traces/", PROTOBUF, "x", 200, Some(PROTOBUF), b""),
    success("POST", "/api/42/integration/otlp/v1/logs",    "application/json; charset=utf-8", "{}", 200, Some(JSON), b"{}"),
    success("POST", "/api/42/integration/otlp/v1/logs/",   PROTOBUF, "x", 200, Some(PROTOBUF), b""),
    success("POST", "/api/42/integration/vercel/logs",     "application/x-ndjson", "{}", 202, None, b""),
    success("POST", "/api/42/playstation/", FORM, "--x--",  200, None, b""),
    success("POST", "/api/embed/error-page/?dsn=http://0123456789abcdef0123456789abcdef@m/42",
            "application/x-www-form-urlencoded", "name=a",  200, None, b""),
    success("POST", "/api/42/new/thing", OCTETS, "x",       200, Some(JSON), b"{}"),
];

impl Success {
    fn bytes(&self) -> Vec<u8> {
        let has_key = self.target.contains(IN_KEY) || self.body.contains(IN_KEY);
        let mut fields = Vec::new();
        if !has_key {
            fields.push(format!("X-Sentry-Auth: Sentry sentry_key={IN_KEY}"));
        }
        if self.method == "POST" {
            fields.push(format!("Content-Type: {}", self.content_type));
            fields.push(format!("Content-Length: {}", self.body.len()));
        }
        request(self.method, self.target, &fields.join("\r\n"), self.body)
    }

    /// Checks a response with `answer` as its body.
    fn expect(&self, response: &Response, answer: &[u8]) {
        let what = format!("{} {} {}", self.method, self.target, self.content_type);
        assert_eq!(response.status, self.status, "{what}");
        assert_eq!(response.field("Content-Type"), self.answer_type, "{what}");
        assert_eq!(response.field("Retry-After"), None, "{what}");
        if self.method != "HEAD" {
            assert_eq!(response.body, answer, "{what}");
        }
    }
}

#[test]
fn a_success_of_the_primary_is_passed_on_unchanged() {
    let answer = |row: &Success| match row.answer_type {
        // The body that SDKs read has to be JSON.
        Some(JSON) => r#"{"by":"the primary"}"#,
        Some(_) => "by the primary",
        None => "",
    };
    let a = Upstream::start(move |number, _| {
        let row = &SUCCESSES[number];
        let content_type = row
            .answer_type
            .map(|value| format!("Content-Type: {value}\r\n"));
        let answer = answer(row);
        let head = format!(
            "HTTP/1.1 {} Status\r\n{}Content-Length: {}\r\n\r\n",
            row.status,
            content_type.unwrap_or_default(),
            answer.len()
        );
        let body = if row.method == "HEAD" { "" } else { answer };
        Action::Raw([head, body.to_owned()].concat().into())
    });
    let b = Upstream::start(|_, _| Action::Answer(500, "{}"));
    let mirror = Process::start(&config(&[a.dsn(KEY_A, 11), b.dsn(KEY_B, 22)], ""));
    let mut client = mirror.client();
    for row in SUCCESSES {
        let response = ask(&mut client, row.method, &row.bytes());
        row.expect(&response, answer(row).as_bytes());
    }
}

#[test]
fn without_a_response_every_endpoint_answers_as_relay() {
    let silent = || Upstream::start(|_, _| Action::Hang);
    let (a, b) = (silent(), silent());
    let mirror = Process::start(&config(
        &[a.dsn(KEY_A, 11), b.dsn(KEY_B, 22)],
        "reply_timeout: 100ms",
    ));
    // All wait at the same time.
    let waiting: Vec<(&Success, Client)> = SUCCESSES
        .iter()
        .map(|row| {
            let mut client = mirror.client();
            client.send(&row.bytes());
            (row, client)
        })
        .collect();
    for (row, mut client) in waiting {
        let response = match row.method {
            "HEAD" => client.response_head(),
            _ => client.response(),
        };
        row.expect(&response, row.answer);
    }
    a.wait_for(SUCCESSES.len());
    b.wait_for(SUCCESSES.len());
}

#[test]
fn a_request_limited_at_every_outbound_is_answered_as_by_relay() {
    let limited = || {
        Upstream::start(|number, _| {
            match number {
            0 => Action::Raw(
                b"HTTP/1.1 429 X\r\nRetry-After: 60\r\nX-Sentry-Rate-Limits: 60::organization\r\nContent-Length: 0\r\n\r\n"
                    .to_vec(),
            ),
            _ => Action::Answer(200, "{}"),
        }
        })
    };
    let (a, b) = (limited(), limited());
    let mirror = Process::start(&config(&[a.dsn(KEY_A, 11), b.dsn(KEY_B, 22)], ""));
    let mut client = mirror.client();
    assert_eq!(client.ask(&SUCCESSES[0].bytes()).status, 429);
    // The envelopes here are empty, so that no rate limit applies to them.
    let is_envelope = |row: &&Success| row.answer == WITH_ID || row.target.contains("/envelope/");
    for row in SUCCESSES.iter().filter(|row| !is_envelope(row)) {
        let response = ask(&mut client, row.method, &row.bytes());
        let what = format!("{} {}", row.method, row.target);
        match row.when_limited() {
            Limited::Tells => {
                assert_eq!(response.status, 429, "{what}");
                assert!(response.field("Retry-After").is_some(), "{what}");
            }
            Limited::Swallows => row.expect(&response, row.answer),
            Limited::Never => assert_eq!((response.status, response.text()), (200, "{}")),
        }
    }
    // Besides the first envelope only the form of the dialog has been sent.
    for upstream in [&a, &b] {
        let received = upstream.wait_for(2);
        assert!(received[1].line.contains("/error-page/"));
        assert_eq!(received.len(), 2);
    }
}

/// The effect of a rate limit on everything.
enum Limited {
    /// The client gets 429.
    Tells,
    /// Relay drops the request and replies with success: Crashpad would send it again.
    Swallows,
    /// Sentry's web server serves the crash-report dialog, which is not part of ingest.
    Never,
}

impl Success {
    fn when_limited(&self) -> Limited {
        let has = |part: &&str| self.target.contains(part);
        let swallowing = ["/nel/", "/minidump", "/unreal/", "/cron/", "/playstation/"];
        match self.target {
            target if target.contains("/error-page/") => Limited::Never,
            _ if swallowing.iter().any(has) => Limited::Swallows,
            _ => Limited::Tells,
        }
    }
}
