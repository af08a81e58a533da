//! Every endpoint, with every method and every place of the key: what goes out, and what comes back.
//!
//! The tables are those of Relay's router and of its key extractor, spelled out by hand; a test takes
//! their product through one mirror with two outbounds. What a row does not name must not change: the
//! whole head and the whole body of each delivery are compared. In the tables `PID`, `KEY`, `SECRET`
//! and `DSN` stand for what the side in question has there, and what is in `<>` is Base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::support::{
    Action, Client, IN_KEY, KEY_A, KEY_B, Process, Response, Upstream, config, envelope,
};

const ID: &str = "9ec79c33ec9942ab8353589fcb2e04dc";
const METHODS: [&str; 6] = ["DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"];

/// A row of the table of endpoints.
struct Endpoint {
    /// The target as it is sent.
    sent: &'static str,
    /// The target as it arrives, after the outbound's path prefix.
    arrives: &'static str,
    /// The methods that are passed on, as `Allow` lists them; all others are answered 405.
    allow: &'static str,
    places: &'static [Place],
    body: Body,
}

#[derive(Clone, Copy, PartialEq)]
enum Body {
    /// Its header line is rewritten.
    Envelope,
    /// It names the inbound DSN, and is not touched.
    Opaque,
}

/// A place of the key.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Field(&'static str),
    Query(&'static str),
    /// The target of the row holds it.
    Target,
    /// The header of the envelope holds it.
    Envelope,
}
use Place::{Field, Query, Target};

const X_SENTRY_AUTH: Place = Field("X-Sentry-Auth: Sentry sentry_version=7, sentry_key=KEY");
const AUTHORIZATION: Place = Field("Authorization: Sentry sentry_key=KEY,sentry_client=a/1");
const BASIC: Place = Field("Authorization: Basic <KEY:>");
const QUERY: Place = Query("sentry_version=7&sentry_key=KEY&sentry_release=a%20b&c");

/// The places that all endpoints share.
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

/// An endpoint whose target keeps its form.
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
    // The crash-report dialog; its script is the one thing that only the primary is asked for.
    at("/api/embed/error-page/?dsn=DSN&eventId=9ec79c33ec9942ab8353589fcb2e04dc", "GET,POST", &[Target]),
    // What does not exist yet.
    at("/api/PID/new/thing",   "DELETE,GET,HEAD,PATCH,POST,PUT", ANY),
    at("/api/PID/new/42/11/",  "DELETE,GET,HEAD,PATCH,POST,PUT", ANY),
    // Prefixes of load balancers and of DSNs go, also if they look like an endpoint.
    envelopes("/sentry/in/api/PID/envelope/",    "/api/PID/envelope/", ANY_OR_ENVELOPE),
    envelopes("/api/7/store/api/PID/envelope/",  "/api/PID/envelope/", ANY_OR_ENVELOPE),
    moved("/sentry/api/store/", "/api/store/", "GET,HEAD,POST", ANY),
    moved("/sentry/api/PID/cron/nightly/KEY", "/api/PID/cron/nightly/KEY", "GET,HEAD,POST", &[Target]),
    // Repeated slashes are folded; what is missing at the end is not added.
    envelopes("//api//PID///envelope//",     "/api/PID/envelope/", ANY_OR_ENVELOPE),
    moved("/a//api/PID/integration//otlp/v1/traces", "/api/PID/integration/otlp/v1/traces", "POST", ANY),
    moved("//api/PID/unreal//KEY//", "/api/PID/unreal/KEY/", "POST", &[Target]),
    moved("/api///store", "/api/store", "GET,HEAD,POST", ANY),
    // Project ids are not compared, and have any form that Relay takes for a number.
    envelopes("/api/0/envelope/",   "/api/PID/envelope/", ANY_OR_ENVELOPE),
    envelopes("/api/042/envelope/", "/api/PID/envelope/", ANY_OR_ENVELOPE),
];

/// What the words of the tables stand for at one side.
struct Side {
    key: &'static str,
    project: &'static str,
    /// Without one, whatever names it is not there.
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
            .replace("DSN", &self.dsn)
            .replace("PID", self.project)
            .replace("KEY", self.key)
            .replace("SECRET", self.secret.unwrap_or_default());
        let Some((before, rest)) = text.split_once('<') else {
            return text;
        };
        let (plain, after) = rest.split_once('>').expect("a closed bracket");
        format!("{before}{}{after}", STANDARD.encode(plain))
    }

    /// The body as it is at this side.
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
    /// How many requests it must have had.
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

    /// Checks the delivery of the request that was just answered.
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
        assert_eq!(head, expected_head, "{method} {} {place:?}", row.sent);
        assert_eq!(got.text(), expected.body, "{method} {} {place:?}", row.sent);
    }
}

/// The field with the one space after its colon that the upstream of the tests reports.
fn spaced(field: &str) -> String {
    let (name, value) = field.split_once(':').expect("a colon");
    format!("{name}: {}", value.trim())
}

/// A request as it is at one side.
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

    /// Nothing has arrived but what was looked at.
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
fn every_endpoint_takes_its_methods_with_the_key_in_every_place() {
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
fn other_methods_are_refused_and_options_answered_with_the_list() {
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
        // Relay matches paths by case, so this is no endpoint.
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
        for method in ["GET", "HEAD", "PUT", "DELETE"] {
            let response = ask(&mut client, method, &request(method, row.sent, "", ""));
            assert_eq!(response.status, 404, "{method} {}", row.sent);
        }
    }
    pair.expect_no_more();
}

#[test]
fn uploads_are_not_offered() {
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

/// Two targets that say nothing of a key, and one that has it in its path.
const STORE: &str = "/api/42/store/";
const ENVELOPES: &str = "/api/42/envelope/";
const CRON: &str = "/api/PID/cron/nightly/KEY/?status=ok";

#[test]
fn a_key_in_two_places_is_refused_even_if_it_is_the_same() {
    let pair = Pair::start();
    let mut client = pair.mirror.client();
    let inbound = Side::inbound();
    // What names the key in a header, in the query, and in the path.
    let x_sentry_auth = "X-Sentry-Auth: Sentry sentry_key=KEY";
    let authorization = "Authorization: Sentry sentry_key=KEY";
    let basic = "Authorization: Basic <KEY:>";
    let query = "/api/PID/store/?sentry_key=KEY";
    let path_and_query = "/api/PID/unreal/KEY/?sentry_key=KEY";
    #[rustfmt::skip]
    let rows: [(&str, &[&str]); 11] = [
        (STORE,          &[x_sentry_auth, authorization]),
        (STORE,          &[x_sentry_auth, basic]),
        (STORE,          &[basic, x_sentry_auth]),
        (query,          &[x_sentry_auth]),
        (query,          &[authorization]),
        (query,          &[basic]),
        (CRON,           &[x_sentry_auth]),
        (CRON,           &[authorization]),
        (CRON,           &[basic]),
        (path_and_query, &[]),
        (path_and_query, &[x_sentry_auth, authorization]),
    ];
    for (target, fields) in rows {
        let fields: Vec<String> = fields.iter().map(|field| inbound.fill(field)).collect();
        let request = request("POST", &inbound.fill(target), &fields.join("\r\n"), "");
        let response = client.ask(&request);
        expect_rejection(
            &response,
            401,
            "multiple authorization payloads detected",
            &format!("{target} {fields:?}"),
        );
    }
    pair.expect_no_more();
}

#[test]
fn without_a_key_every_endpoint_refuses_and_an_unknown_key_is_refused_in_every_place() {
    let pair = Pair::start();
    let mut client = pair.mirror.client();
    let stranger = Side {
        key: "ffffffffffffffffffffffffffffffff",
        dsn: "http://ffffffffffffffffffffffffffffffff@mirror.example.com/42".to_owned(),
        ..Side::inbound()
    };
    let rows = ENDPOINTS.iter();
    for (row, place) in rows.flat_map(|row| row.places.iter().map(move |place| (row, *place))) {
        let sent = Sent::new("POST", row.sent, &stranger, place, row.body);
        let what = format!("{} {place:?}", row.sent);
        let no_route =
            "event submission rejected with_reason: the mirror has no route for this key";
        expect_rejection(&client.ask(&sent.bytes("POST")), 403, no_route, &what);
    }
    for row in ENDPOINTS.iter().filter(|row| !row.places.contains(&Target)) {
        let detail = match row.body {
            Body::Envelope => "bad envelope authentication header",
            Body::Opaque => "missing authorization information",
        };
        let request = request(
            "POST",
            &Side::inbound().fill(row.sent),
            "Content-Length: 2",
            "{}",
        );
        expect_rejection(&client.ask(&request), 401, detail, row.sent);
    }
    pair.expect_no_more();
}

/// Relay's shape of an error.
fn expect_rejection(response: &Response, status: u16, detail: &str, what: &str) {
    let got = (response.status, response.text());
    assert_eq!(
        got,
        (status, &*format!(r#"{{"detail":"{detail}"}}"#)),
        "{what}"
    );
    assert_eq!(response.field("Content-Type"), Some("application/json"));
    assert_eq!(response.field("Access-Control-Allow-Origin"), Some("*"));
    assert_eq!(response.field("Retry-After"), None);
}

#[test]
fn the_grammar_of_the_key_is_relays() {
    let mut pair = Pair::start();
    let mut client = pair.mirror.client();
    let missing = Err((401, "missing authorization information"));
    let bad_auth = Err((401, "bad x-sentry-auth header"));
    let bad_key = Err((400, "bad sentry DSN public key"));
    let bad_version = Err((400, "unsupported protocol version"));
    let several = Err((401, "multiple authorization payloads detected"));
    let taken = Ok(());
    let (x, authorization) = ("X-Sentry-Auth: ", "Authorization: ");
    // Target, fields, what becomes of it.
    #[rustfmt::skip]
    let rows = [
        // The scheme: any case, exactly one space.
        (STORE, x, "SENTRY sentry_key=KEY", taken),
        (STORE, x, "Sentry   sentry_key=KEY", taken),
        (STORE, x, "Sentry\tsentry_key=KEY", missing),
        (STORE, x, "Sentry,sentry_key=KEY", missing),
        (STORE, x, "sentry_key=KEY", missing),
        (STORE, x, "", missing),
        (STORE, authorization, "sentry sentry_key=KEY", taken),
        (STORE, authorization, "Bearer KEY", missing),
        (STORE, authorization, "Basic <KEY>", missing),
        (STORE, authorization, "Basic <:KEY>", missing),
        (STORE, authorization, "Basic KEY:", missing),
        // A line that says nothing is as good as none.
        (STORE, x, "\r\nAuthorization: Sentry sentry_key=KEY", taken),
        (STORE, x, "Sentry sentry_key=KEY\r\nAuthorization: Bearer abc", taken),
        ("/api/42/store/?sentry_key=KEY", authorization, "Bearer abc", taken),
        ("/api/42/store/?foo=bar", x, "Sentry sentry_key=KEY", taken),
        // The first of two lines counts.
        (STORE, x, "Sentry sentry_key=KEY\r\nX-Sentry-Auth: Sentry sentry_key=ffffffffffffffffffffffffffffffff", taken),
        // The list.
        (STORE, x, "Sentry sentry_client=a/1 , sentry_key = KEY ,, x=y,", taken),
        (STORE, x, "Sentry sentry_key=short, sentry_key=KEY", taken),
        (STORE, x, "Sentry sentry_version=7 sentry_key=KEY", bad_auth),
        (STORE, x, "Sentry Sentry_Key=KEY", bad_auth),
        (STORE, x, "Sentry sentry_version=7", bad_auth),
        (STORE, x, "Sentry sentry_key=KEY, sentry_client=\u{e9}/1", missing),
        (STORE, authorization, "Sentry sentry_version=7", bad_auth),
        ("/api/42/store/?sentry_version=7", "X: ", "", bad_auth),
        // The version.
        (STORE, x, "Sentry sentry_key=KEY, sentry_version=5", taken),
        (STORE, x, "Sentry sentry_key=KEY, sentry_version=2.0", taken),
        (STORE, x, "Sentry sentry_key=KEY, sentry_version=8", bad_version),
        (STORE, x, "Sentry sentry_key=KEY, sentry_version=new", bad_auth),
        ("/api/42/store/?sentry_key=KEY&sentry_version=8", "X: ", "", bad_version),
        // The key: 32 characters, and flags behind a dot.
        (STORE, x, "Sentry sentry_key=KEY.no-cache", taken),
        (STORE, x, "Sentry sentry_key=KEYf", bad_key),
        (STORE, x, "Sentry sentry_key=\"KEY\"", bad_key),
        (STORE, x, "Sentry sentry_key=0123456789abcdef0123456789abcde", bad_key),
        (STORE, authorization, "Basic <KEYf:>", bad_key),
        ("/api/42/store/?sentry_key=KEYf", "X: ", "", bad_key),
        ("/api/42/unreal/KEYf/", "X: ", "", bad_key),
        ("/api/42/cron/nightly/KEYf/", "X: ", "", bad_key),
        // The query: values are decoded, names are not.
        ("/api/42/store/?sentry_key=%30123456789abcdef0123456789abcdef", "X: ", "", taken),
        ("/api/42/store/?sentry%5Fkey=KEY", "X: ", "", missing),
        // Whatever has `sentry_` in it makes a query a place of the key.
        ("/api/42/store/?sentry_key=KEY&sentry_release=1", x, "Sentry sentry_key=KEY", several),
        ("/api/42/unreal/KEY/?sentry_key=KEY", "X: ", "", several),
        ("/api/42/unreal/KEY/?sentry_release=1", "X: ", "", bad_auth),
        // The header of an envelope counts only where nothing else is there.
        (ENVELOPES, x, "Sentry sentry_key=KEY", taken),
        (ENVELOPES, x, "Sentry sentry_key=KEYf", bad_key),
        (ENVELOPES, x, "Sentry sentry_version=7", bad_auth),
    ];
    let inbound = Side::inbound();
    let body = inbound.body(Body::Envelope);
    let mut complaints = Vec::new();
    for (target, name, value, expected) in rows {
        let fields = inbound.fill(&format!("{name}{value}\r\nContent-Length: {}", body.len()));
        let response = client.ask(&request("POST", &inbound.fill(target), &fields, &body));
        let expected = match expected {
            Ok(()) => (200, r#"{"id":"a"}"#.to_owned()),
            Err((status, detail)) => (status, format!(r#"{{"detail":"{detail}"}}"#)),
        };
        if response.status == 200 {
            pair.a.count += 1;
            pair.b.count += 1;
        }
        let got = (response.status, response.text().to_owned());
        if got != expected {
            complaints.push(format!("{target} {name}{value}: {got:?}, not {expected:?}"));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    pair.b.upstream.wait_for(pair.b.count);
    for got in [pair.a.upstream.received(), pair.b.upstream.received()].concat() {
        let head = format!("{} {:?}", got.line, got.fields);
        assert!(!head.contains(IN_KEY), "{head}");
    }
    pair.expect_no_more();
}

#[test]
fn the_dsn_of_an_envelope_without_other_auth_must_name_a_key() {
    let pair = Pair::start();
    let mut client = pair.mirror.client();
    let rows = [
        ("{}", 401, "bad envelope authentication header"),
        (r#"{"dsn":null}"#, 401, "bad envelope authentication header"),
        (r#"{"dsn":""}"#, 401, "bad envelope authentication header"),
        (
            r#"{"dsn":"nonsense"}"#,
            401,
            "bad envelope authentication header",
        ),
        (
            r#"{"nested":{"dsn":"http://KEY@m/42"}}"#,
            401,
            "bad envelope authentication header",
        ),
        (
            "{}\n{\"dsn\":\"http://KEY@m/42\"}",
            401,
            "bad envelope authentication header",
        ),
        (
            r#"{"dsn":"http://KEYf@m/42"}"#,
            400,
            "bad sentry DSN public key",
        ),
    ];
    for (header, status, detail) in rows {
        for target in [ENVELOPES, "/tunnel"] {
            let body = Side::inbound().fill(header);
            let length = format!("Content-Length: {}", body.len());
            let response = client.ask(&request("POST", target, &length, &body));
            expect_rejection(&response, status, detail, header);
        }
    }
    pair.expect_no_more();
}

/// A request, and what Relay says when it takes it.
struct Success {
    method: &'static str,
    target: &'static str,
    content_type: &'static str,
    body: &'static str,
    status: u16,
    /// None, and no body, where Relay sends nothing but the status.
    answer_type: Option<&'static str>,
    /// What the mirror says itself when nobody answers in time.
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
    // To Java only 200 is a success; Elixir wants JSON too.
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
fn the_success_of_the_primary_comes_back_as_it_is() {
    let answer = |row: &Success| match row.answer_type {
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
fn with_nobody_answering_every_endpoint_says_what_relay_would_say() {
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
