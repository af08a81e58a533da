//! Every endpoint, with every method and every key site: the deliveries and the reply.
//!
//! The tables are those of Relay's router and of its key extractor, written out by hand. A test sends
//! their product through one mirror with two outbounds. What a row does not name must not change: the
//! whole head and the whole body of each delivery are compared. In the tables `PID`, `KEY`, `SECRET`
//! and `DSN` stand for those of a side, and the text in `<>` is sent in Base64.

mod keys;
mod successes;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::support::{
    Action, Client, IN_KEY, KEY_A, KEY_B, Process, Response, Upstream, config, envelope,
};

const ID: &str = "9ec79c33ec9942ab8353589fcb2e04dc";
/// The field that the mirror adds to requests with the inbound key.
const VIA: &str = "Via: 1.1 sentry-mirror-26d52149";
const METHODS: [&str; 6] = ["DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"];

/// A row of the table of endpoints.
struct Endpoint {
    /// The target as it is sent.
    sent: &'static str,
    /// The target as it arrives, after the outbound's path prefix.
    arrives: &'static str,
    /// The methods that are forwarded, as in `Allow`; all others get 405.
    allow: &'static str,
    places: &'static [Place],
    body: Body,
}

#[derive(Clone, Copy, PartialEq)]
enum Body {
    /// Its header line is rewritten.
    Envelope,
    /// It names the inbound DSN, and is not rewritten.
    Opaque,
}

/// A key site.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Field(&'static str),
    Query(&'static str),
    /// In the target of the row.
    Target,
    /// In the header of the envelope.
    Envelope,
}
use Place::{Field, Query, Target};

const X_SENTRY_AUTH_LINE: &str = "X-Sentry-Auth: Sentry sentry_version=7, sentry_key=KEY";
const X_SENTRY_AUTH: Place = Field(X_SENTRY_AUTH_LINE);
const AUTHORIZATION: Place = Field("Authorization: Sentry sentry_key=KEY,sentry_client=a/1");
const BASIC: Place = Field("Authorization: Basic <KEY:>");
const QUERY: Place = Query("sentry_version=7&sentry_key=KEY&sentry_release=a%20b&c");

/// The key sites that all endpoints share.
const ANY: &[Place] = &[
    X_SENTRY_AUTH,
    Field("x-sentry-auth:sentry sentry_key=KEY,sentry_secret=SECRET,sentry_version=7"),
    AUTHORIZATION,
    BASIC,
    Field("Authorization: Basic <KEY:SECRET>"),
    QUERY,
    Query("a=b&sentry_key=KEY&sentry_secret=SECRET"),
];
const ANY_OR_ENVELOPE: &[Place] = &[
    ANY[0],
    ANY[1],
    ANY[2],
    ANY[3],
    ANY[4],
    ANY[5],
    ANY[6],
    Place::Envelope,
];

/// An endpoint whose target stays as it is.
const fn at(target: &'static str, allow: &'static str, places: &'static [Place]) -> Endpoint {
    moved(target, target, allow, places)
}

const fn moved(
    sent: &'static str,
    arrives: &'static str,
    allow: &'static str,
    places: &'static [Place],
) -> Endpoint {
    Endpoint {
        sent,
        arrives,
        allow,
        places,
        body: Body::Opaque,
    }
}

const fn envelopes(
    sent: &'static str,
    arrives: &'static str,
    places: &'static [Place],
) -> Endpoint {
    Endpoint {
        body: Body::Envelope,
        ..moved(sent, arrives, "POST", places)
    }
}

#[rustfmt::skip]
const ENDPOINTS: &[Endpoint] = &[
    envelopes("/api/PID/envelope/", "/api/PID/envelope/", ANY_OR_ENVELOPE),
    envelopes("/api/PID/envelope",  "/api/PID/envelope",  ANY_OR_ENVELOPE),
    at("/api/PID/store/", "GET,HEAD,POST", ANY),
    at("/api/PID/store",  "GET,HEAD,POST", ANY),
    at("/api/store/",     "GET,HEAD,POST", ANY),
    at("/api/store",      "GET,HEAD,POST", ANY),
    at("/api/PID/security/",   "POST", ANY),
    at("/api/PID/csp-report/", "POST", ANY),
    at("/api/PID/nel/",        "POST", ANY),
    at("/api/PID/minidump/",   "POST", ANY),
    at("/api/PID/minidump",    "POST", ANY),
    at("/api/PID/unreal/KEY/", "POST", &[Target]),
    at("/api/PID/unreal/KEY/?AppID=1&UserID=2", "POST", &[Target]),
    at("/api/PID/events/9ec79c33ec9942ab8353589fcb2e04dc/attachments/", "POST", ANY),
    at("/api/PID/events/9ec79c33ec9942ab8353589fcb2e04dc/attachments",  "POST", ANY),
    at("/api/PID/cron/nightly/?status=ok",     "GET,HEAD,POST", ANY),
    at("/api/PID/cron/nightly?status=ok",      "GET,HEAD,POST", ANY),
    at("/api/PID/cron/nightly/KEY/?status=ok", "GET,HEAD,POST", &[Target]),
    at("/api/PID/cron/nightly/KEY?status=ok",  "GET,HEAD,POST", &[Target]),
    at("/api/PID/integration/otlp/v1/traces/", "POST", ANY),
    at("/api/PID/integration/otlp/v1/traces",  "POST", ANY),
    at("/api/PID/integration/otlp/v1/logs/",   "POST", ANY),
    at("/api/PID/integration/otlp/v1/logs",    "POST", ANY),
    at("/api/PID/integration/vercel/logs/",    "POST", ANY),
    at("/api/PID/integration/vercel/logs",     "POST", ANY),
    at("/api/PID/playstation/", "POST", ANY),
    // The crash-report dialog; its script is requested from the primary only.
    at("/api/embed/error-page/?dsn=DSN&eventId=9ec79c33ec9942ab8353589fcb2e04dc", "GET,POST", &[Target]),
    // Unknown endpoints.
    at("/api/PID/new/thing",   "DELETE,GET,HEAD,PATCH,POST,PUT", ANY),
    at("/api/PID/new/42/11/",  "DELETE,GET,HEAD,PATCH,POST,PUT", ANY),
    // Prefixes of load balancers and of DSNs are removed, even if they look like an endpoint.
    envelopes("/sentry/in/api/PID/envelope/",    "/api/PID/envelope/", ANY_OR_ENVELOPE),
    envelopes("/api/7/store/api/PID/envelope/",  "/api/PID/envelope/", ANY_OR_ENVELOPE),
    moved("/sentry/api/store/", "/api/store/", "GET,HEAD,POST", ANY),
    moved("/sentry/api/PID/cron/nightly/KEY", "/api/PID/cron/nightly/KEY", "GET,HEAD,POST", &[Target]),
    // Repeated slashes are folded; a missing slash at the end is not added.
    envelopes("//api//PID///envelope//",     "/api/PID/envelope/", ANY_OR_ENVELOPE),
    moved("/a//api/PID/integration//otlp/v1/traces", "/api/PID/integration/otlp/v1/traces", "POST", ANY),
    moved("//api/PID/unreal//KEY//", "/api/PID/unreal/KEY/", "POST", &[Target]),
    moved("/api///store", "/api/store", "GET,HEAD,POST", ANY),
    // Project ids are not compared, and may be anything that Relay takes for a number.
    envelopes("/api/0/envelope/",   "/api/PID/envelope/", ANY_OR_ENVELOPE),
    envelopes("/api/042/envelope/", "/api/PID/envelope/", ANY_OR_ENVELOPE),
    envelopes("/api/+1/envelope/",  "/api/PID/envelope/", ANY_OR_ENVELOPE),
    envelopes("/api/%34%32/envelope/", "/api/PID/envelope/", ANY_OR_ENVELOPE),
    moved("/api/18446744073709551615/store/", "/api/PID/store/", "GET,HEAD,POST", ANY),
];

/// The values of one side for the words in the tables.
struct Side {
    key: &'static str,
    project: &'static str,
    /// Without one, the parameters that name it are left out.
    secret: Option<&'static str>,
    dsn: String,
}

impl Side {
    fn inbound() -> Side {
        Side {
            key: IN_KEY,
            project: "42",
            secret: Some("deadbeefdeadbeefdeadbeefdeadbeef"),
            dsn: format!("http://{IN_KEY}@mirror.example.com/42"),
        }
    }

    fn fill(&self, template: &str) -> String {
        let mut text = template.to_owned();
        if self.secret.is_none() {
            for gone in [",sentry_secret=SECRET", "&sentry_secret=SECRET", "SECRET"] {
                text = text.replace(gone, "");
            }
        }
        text = text
            .replace("DSN", &self.public_dsn())
            .replace("PID", self.project)
            .replace("KEY", self.key)
            .replace("SECRET", self.secret.unwrap_or_default());
        let Some((before, rest)) = text.split_once('<') else {
            return text;
        };
        let (plain, after) = rest.split_once('>').expect("a closed bracket");
        format!("{before}{}{after}", STANDARD.encode(plain))
    }

    /// The DSN for the crash-report dialog, whose script shows it: without a secret.
    fn public_dsn(&self) -> String {
        let secret = self.secret.map(|secret| format!(":{secret}@"));
        secret.map_or(self.dsn.clone(), |secret| self.dsn.replace(&secret, "@"))
    }

    /// The body at this side.
    fn body(&self, body: Body) -> String {
        let inbound = Side::inbound();
        match body {
            Body::Envelope => envelope(ID)
                .replace(&inbound.dsn, &self.dsn)
                .replace(IN_KEY, self.key),
            Body::Opaque => format!(
                "{{\"dsn\":\"{}\",\"trace\":{{\"public_key\":\"{IN_KEY}\"}}}}\n",
                inbound.dsn
            ),
        }
    }
}

/// An outbound: a side with an upstream.
struct Outbound {
    side: Side,
    prefix: &'static str,
    upstream: Upstream,
    /// How many requests it must have received.
    count: usize,
}

impl Outbound {
    fn start(
        key: &'static str,
        project: &'static str,
        prefix: &'static str,
        secret: Option<&'static str>,
        body: &'static str,
    ) -> Outbound {
        let upstream = Upstream::start(move |_, request| {
            if request.line.starts_with("HEAD ") {
                Action::Raw(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n".to_vec())
            } else {
                Action::Answer(200, body)
            }
        });
        let user = match secret {
            Some(secret) => format!("{key}:{secret}"),
            None => key.to_owned(),
        };
        let dsn = format!("http://{user}@{}{prefix}/{project}", upstream.address);
        let side = Side {
            key,
            project,
            secret,
            dsn,
        };
        Outbound {
            side,
            prefix,
            upstream,
            count: 0,
        }
    }

    /// Checks the delivery of the last request.
    fn expect(&mut self, method: &str, row: &Endpoint, place: Place) {
        self.count += 1;
        let got = self.upstream.wait_for(self.count).remove(self.count - 1);
        let fields = got.fields.iter();
        let fields = fields.map(|(name, value)| format!("{name}: {value}"));
        let head: Vec<String> = [got.line.clone()].into_iter().chain(fields).collect();
        let expected = Sent::new(method, row.arrives, &self.side, place, row.body);
        let mut expected_head = vec![
            format!("{method} {}{} HTTP/1.1", self.prefix, expected.target),
            format!("Host: {}", self.upstream.address),
        ];
        expected_head.extend(expected.fields.iter().map(|field| spaced(field)));
        let own = expected_head
            .iter()
            .position(|line| line.starts_with("Content-Length"));
        expected_head.insert(own.unwrap_or(expected_head.len()), VIA.to_owned());
        assert_eq!(head, expected_head, "{method} {} {place:?}", row.sent);
        assert_eq!(got.text(), expected.body, "{method} {} {place:?}", row.sent);
    }
}

/// The field with one space after its colon, as the upstream of the tests reports it.
fn spaced(field: &str) -> String {
    let (name, value) = field.split_once(':').expect("a colon");
    format!("{name}: {}", value.trim())
}

/// A request at one side.
struct Sent {
    target: String,
    /// All but `Host`.
    fields: Vec<String>,
    body: String,
}

impl Sent {
    fn new(method: &str, target: &str, side: &Side, place: Place, body: Body) -> Sent {
        let mut target = side.fill(target);
        let mut fields = Vec::new();
        match place {
            Field(field) => fields.push(side.fill(field)),
            Query(query) => {
                target.push(if target.contains('?') { '&' } else { '?' });
                target.push_str(&side.fill(query));
            }
            Target | Place::Envelope => {}
        }
        let body = match method {
            "GET" | "HEAD" => String::new(),
            _ => {
                let body = side.body(body);
                fields.push("Content-Type: application/octet-stream".to_owned());
                fields.push(format!("Content-Length: {}", body.len()));
                body
            }
        };
        Sent {
            target,
            fields,
            body,
        }
    }

    fn bytes(&self, method: &str) -> Vec<u8> {
        request(method, &self.target, &self.fields.join("\r\n"), &self.body)
    }
}

/// A request with exactly these fields after `Host`.
fn request(method: &str, target: &str, fields: &str, body: &str) -> Vec<u8> {
    let fields = match fields {
        "" => String::new(),
        fields => format!("{fields}\r\n"),
    };
    format!("{method} {target} HTTP/1.1\r\nHost: mirror.example.com\r\n{fields}\r\n{body}").into()
}

/// Two upstreams and a mirror that serves them; the second outbound has a secret and a path prefix.
struct Pair {
    a: Outbound,
    b: Outbound,
    mirror: Process,
}

impl Pair {
    fn start() -> Pair {
        let secret = Some("c0ffee00c0ffee00c0ffee00c0ffee00");
        let a = Outbound::start(KEY_A, "11", "", None, r#"{"id":"a"}"#);
        let b = Outbound::start(KEY_B, "22", "/some/prefix", secret, r#"{"id":"b"}"#);
        let mirror = Process::start(&config(&[a.side.dsn.clone(), b.side.dsn.clone()], ""));
        Pair { a, b, mirror }
    }

    /// Asserts that nothing else has arrived.
    fn expect_no_more(&self) {
        for outbound in [&self.a, &self.b] {
            assert_eq!(outbound.upstream.received().len(), outbound.count);
        }
    }
}

fn ask(client: &mut Client, method: &str, request: &[u8]) -> Response {
    client.send(request);
    match method {
        "HEAD" => client.response_head(),
        _ => client.response(),
    }
}

#[test]
fn every_endpoint_accepts_its_methods_with_the_key_at_every_site() {
    let mut pair = Pair::start();
    let mut client = pair.mirror.client();
    let inbound = Side::inbound();
    for row in ENDPOINTS {
        for method in METHODS.into_iter().filter(|method| allows(row, method)) {
            for place in row.places.iter().copied() {
                let sent = Sent::new(method, row.sent, &inbound, place, row.body);
                let response = ask(&mut client, method, &sent.bytes(method));
                let got = (response.status, &*response.body);
                let expected: (u16, &[u8]) = match method {
                    "HEAD" => (202, b""),
                    _ => (200, br#"{"id":"a"}"#),
                };
                assert_eq!(got, expected, "{method} {} {place:?}", row.sent);
                pair.a.expect(method, row, place);
                let is_script = method == "GET" && row.sent.contains("/error-page/");
                if !is_script {
                    pair.b.expect(method, row, place);
                }
            }
        }
    }
    pair.expect_no_more();
}

fn allows(row: &Endpoint, method: &str) -> bool {
    row.allow.split(',').any(|allowed| allowed == method)
}

#[test]
fn other_methods_are_refused_and_options_lists_the_allowed() {
    let pair = Pair::start();
    let mut client = pair.mirror.client();
    let inbound = Side::inbound();
    for row in ENDPOINTS {
        for method in METHODS.into_iter().chain(["OPTIONS", "PROPFIND"]) {
            if allows(row, method) {
                continue;
            }
            let sent = Sent::new(method, row.sent, &inbound, row.places[0], row.body);
            let response = ask(&mut client, method, &sent.bytes(method));
            let expected = if method == "OPTIONS" { 200 } else { 405 };
            assert_eq!(response.status, expected, "{method} {}", row.sent);
            assert_eq!(
                response.field("Allow"),
                Some(row.allow),
                "{method} {}",
                row.sent
            );
        }
    }
    pair.expect_no_more();
}

#[test]
fn an_envelope_at_any_other_path_is_a_tunnel_to_every_outbound() {
    let mut pair = Pair::start();
    let mut client = pair.mirror.client();
    #[rustfmt::skip]
    let rows = [
        envelopes("/", "/api/PID/envelope/", &[Place::Envelope]),
        envelopes("/my/tunnel", "/api/PID/envelope/", &[Place::Envelope]),
        envelopes("/my/tunnel/?o=1&p=2", "/api/PID/envelope/", &[Place::Envelope]),
        envelopes("/api/tunnel", "/api/PID/envelope/", &[Place::Envelope]),
        envelopes("/api/abc/envelope/", "/api/PID/envelope/", &[Place::Envelope]),
        // Relay matches paths case-sensitively, so this is not an endpoint.
        envelopes("/API/42/envelope/", "/api/PID/envelope/", &[Place::Envelope]),
    ];
    for row in &rows {
        let sent = Sent::new(
            "POST",
            row.sent,
            &Side::inbound(),
            Place::Envelope,
            row.body,
        );
        let response = client.ask(&sent.bytes("POST"));
        assert_eq!((response.status, response.text()), (200, r#"{"id":"a"}"#));
        pair.a.expect("POST", row, Place::Envelope);
        pair.b.expect("POST", row, Place::Envelope);
        let is_no_project = row.sent.starts_with("/api/abc/");
        for method in ["GET", "HEAD", "PUT", "DELETE"] {
            let response = ask(&mut client, method, &request(method, row.sent, "", ""));
            let expected = if is_no_project { 400 } else { 404 };
            assert_eq!(response.status, expected, "{method} {}", row.sent);
        }
    }
    pair.expect_no_more();
}

#[test]
fn an_envelope_without_another_key_is_a_tunnel_even_at_an_unknown_api_path() {
    let mut pair = Pair::start();
    let mut client = pair.mirror.client();
    let inbound = Side::inbound();
    let row = envelopes(
        "/api/1/tunnel?a=b",
        "/api/PID/envelope/",
        &[Place::Envelope],
    );
    let mut sent = Sent::new("POST", row.sent, &inbound, Place::Envelope, row.body);
    let response = client.ask(&sent.bytes("POST"));
    assert_eq!((response.status, response.text()), (200, r#"{"id":"a"}"#));
    pair.a.expect("POST", &row, Place::Envelope);
    pair.b.expect("POST", &row, Place::Envelope);
    // The key in a line that is not read must not leak either.
    sent.fields.push("X-Sentry-Auth: none".to_owned());
    sent.fields.push(inbound.fill(X_SENTRY_AUTH_LINE));
    assert_eq!(client.ask(&sent.bytes("POST")).status, 200);
    for outbound in [&mut pair.a, &mut pair.b] {
        outbound.count += 1;
        let got = outbound.upstream.wait_for(outbound.count);
        let got = &got[outbound.count - 1];
        assert_eq!(got.text(), outbound.side.body(Body::Envelope));
        let fields = format!("{:?}", got.fields);
        assert!(
            fields.contains(outbound.side.key) && !fields.contains(IN_KEY),
            "{fields}"
        );
    }
    // Anything else without a key is rejected.
    let refused = client.ask(&request("POST", "/api/1/tunnel", "Content-Length: 2", "{}"));
    let missing = r#"{"detail":"missing authorization information"}"#;
    assert_eq!((refused.status, refused.text()), (401, missing));
    pair.expect_no_more();
}

#[test]
fn a_declared_envelope_is_rewritten_at_an_unknown_endpoint() {
    let pair = Pair::start();
    let mut client = pair.mirror.client();
    let post = |content_type: &str, body: &str| {
        let fields = format!(
            "X-Sentry-Auth: Sentry sentry_key={IN_KEY}\r\nContent-Type: {content_type}\r\nContent-Length: {}",
            body.len()
        );
        request("POST", "/api/42/new/thing", &fields, body)
    };
    let sent = Side::inbound().body(Body::Envelope);
    // The body format of an unknown endpoint is unknown.
    let strange = format!("[\"http://{IN_KEY}@mirror.example.com/42\"]");
    let envelope_type = "application/x-sentry-envelope";
    for (count, (content_type, body)) in (1..).zip([
        (envelope_type, &sent),
        ("application/octet-stream", &sent),
        (envelope_type, &strange),
    ]) {
        let response = client.ask(&post(content_type, body));
        assert_eq!(response.status, 200, "{content_type} {body}");
        // The reply follows the first success; the other delivery may still be in flight.
        pair.a.upstream.wait_for(count);
        pair.b.upstream.wait_for(count);
    }
    for outbound in [&pair.a, &pair.b] {
        let got = outbound.upstream.wait_for(3);
        assert_eq!(got[0].text(), outbound.side.body(Body::Envelope));
        assert_eq!(got[1].text(), sent);
        assert_eq!(got[2].text(), strange);
    }
}

#[test]
fn uploads_are_refused() {
    let pair = Pair::start();
    let mut client = pair.mirror.client();
    for (method, target) in [
        ("POST", "/api/42/upload/"),
        ("POST", "/api/42/upload"),
        (
            "PATCH",
            "/api/42/upload/123/?upload_length=1&upload_signature=x",
        ),
        ("HEAD", "/api/42/upload/123/"),
    ] {
        let fields =
            format!("X-Sentry-Auth: Sentry sentry_key={IN_KEY}\r\nTus-Resumable: 1.0.0\r\n");
        let response = ask(
            &mut client,
            method,
            &request(method, target, fields.trim_end(), ""),
        );
        assert_eq!(response.status, 404, "{method} {target}");
        assert_eq!(response.field("Access-Control-Allow-Origin"), Some("*"));
        assert_eq!(response.field("Location"), None);
    }
    pair.expect_no_more();
}
