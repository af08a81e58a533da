//! Requests without a key, with several keys, or with an invalid one: Relay's statuses and texts.
//!
//! The rows follow the observed behaviour of Relay. A rejected request is not delivered to any outbound.

use super::{Body, ENDPOINTS, Pair, Place, Sent, Side, Target, request};
use crate::support::{IN_KEY, Response};

/// Two targets without a key, and one with the key in its path.
const STORE: &str = "/api/42/store/";
const ENVELOPES: &str = "/api/42/envelope/";
const CRON: &str = "/api/PID/cron/nightly/KEY/?status=ok";

#[test]
fn two_keys_are_refused_even_if_they_are_equal() {
    let pair = Pair::start();
    let mut client = pair.mirror.client();
    let inbound = Side::inbound();
    // The key in a header, in the query, and in the path.
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
fn missing_and_unknown_keys_are_refused_at_every_endpoint_and_site() {
    let pair = Pair::start();
    let mut client = pair.mirror.client();
    let stranger = Side {
        key: "ffffffffffffffffffffffffffffffff",
        dsn: "http://ffffffffffffffffffffffffffffffff@mirror.example.com/42".to_owned(),
        ..Side::inbound()
    };
    let rows = ENDPOINTS.iter();
    for (row, place) in rows.flat_map(|row| row.places.iter().map(move |place| (row, *place))) {
        // At unknown endpoints a user that is not a key may belong to the site, and the body names a key.
        let is_basic =
            matches!(place, Place::Field(field) if field.starts_with("Authorization: Basic"));
        if is_basic && row.sent.starts_with("/api/PID/new/") {
            continue;
        }
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

/// What becomes of a request: it is taken, or refused with this status and text.
type Verdict = Result<(), (u16, &'static str)>;

const TAKEN: Verdict = Ok(());
const MISSING: Verdict = Err((401, "missing authorization information"));
const BAD_AUTH: Verdict = Err((401, "bad x-sentry-auth header"));
const BAD_KEY: Verdict = Err((400, "bad sentry DSN public key"));
const BAD_VERSION: Verdict = Err((400, "unsupported protocol version"));
const SEVERAL: Verdict = Err((401, "multiple authorization payloads detected"));

const X: &str = "X-Sentry-Auth: ";
const AUTHORIZATION: &str = "Authorization: ";

/// The target, a field and its value, and the verdict.
#[rustfmt::skip]
const GRAMMAR: &[(&str, &str, &str, Verdict)] = &[
    // The scheme: any case, exactly one space.
    (STORE, X, "SENTRY sentry_key=KEY", TAKEN),
    (STORE, X, "Sentry   sentry_key=KEY", TAKEN),
    (STORE, X, "Sentry\tsentry_key=KEY", MISSING),
    (STORE, X, "Sentry,sentry_key=KEY", MISSING),
    (STORE, X, "sentry_key=KEY", MISSING),
    (STORE, X, "", MISSING),
    (STORE, AUTHORIZATION, "sentry sentry_key=KEY", TAKEN),
    (STORE, AUTHORIZATION, "Bearer KEY", MISSING),
    (STORE, AUTHORIZATION, "Basic <KEY>", MISSING),
    (STORE, AUTHORIZATION, "Basic <:KEY>", MISSING),
    (STORE, AUTHORIZATION, "Basic KEY:", MISSING),
    // A line without a key is ignored.
    (STORE, X, "\r\nAuthorization: Sentry sentry_key=KEY", TAKEN),
    (STORE, X, "Sentry sentry_key=KEY\r\nAuthorization: Bearer abc", TAKEN),
    ("/api/42/store/?sentry_key=KEY", AUTHORIZATION, "Bearer abc", TAKEN),
    ("/api/42/store/?foo=bar", X, "Sentry sentry_key=KEY", TAKEN),
    // The first of two lines counts.
    (STORE, X, "Sentry sentry_key=KEY\r\nX-Sentry-Auth: Sentry sentry_key=ffffffffffffffffffffffffffffffff", TAKEN),
    // The list.
    (STORE, X, "Sentry sentry_client=a/1 , sentry_key = KEY ,, x=y,", TAKEN),
    (STORE, X, "Sentry sentry_key=short, sentry_key=KEY", TAKEN),
    (STORE, X, "Sentry sentry_version=7 sentry_key=KEY", BAD_AUTH),
    (STORE, X, "Sentry Sentry_Key=KEY", BAD_AUTH),
    (STORE, X, "Sentry sentry_version=7", BAD_AUTH),
    (STORE, X, "Sentry sentry_key=KEY, sentry_client=\u{e9}/1", MISSING),
    (STORE, AUTHORIZATION, "Sentry sentry_version=7", BAD_AUTH),
    ("/api/42/store/?sentry_version=7", "X: ", "", BAD_AUTH),
    // The version.
    (STORE, X, "Sentry sentry_key=KEY, sentry_version=5", TAKEN),
    (STORE, X, "Sentry sentry_key=KEY, sentry_version=2.0", TAKEN),
    (STORE, X, "Sentry sentry_key=KEY, sentry_version=8", BAD_VERSION),
    (STORE, X, "Sentry sentry_key=KEY, sentry_version=new", BAD_AUTH),
    ("/api/42/store/?sentry_key=KEY&sentry_version=8", "X: ", "", BAD_VERSION),
    // The key: 32 characters, and flags behind a dot.
    (STORE, X, "Sentry sentry_key=KEY.no-cache", TAKEN),
    (STORE, X, "Sentry sentry_key=KEYf", BAD_KEY),
    (STORE, X, "Sentry sentry_key=\"KEY\"", BAD_KEY),
    (STORE, X, "Sentry sentry_key=0123456789abcdef0123456789abcde", BAD_KEY),
    (STORE, AUTHORIZATION, "Basic <KEYf:>", BAD_KEY),
    ("/api/42/store/?sentry_key=KEYf", "X: ", "", BAD_KEY),
    ("/api/42/unreal/KEYf/", "X: ", "", BAD_KEY),
    ("/api/42/cron/nightly/KEYf/", "X: ", "", BAD_KEY),
    // The query: values are decoded, names are not.
    ("/api/42/store/?sentry_key=%30123456789abcdef0123456789abcdef", "X: ", "", TAKEN),
    ("/api/42/store/?sentry%5Fkey=KEY", "X: ", "", MISSING),
    // Any parameter with `sentry_` makes the query a key site.
    ("/api/42/store/?sentry_key=KEY&sentry_release=1", X, "Sentry sentry_key=KEY", SEVERAL),
    ("/api/42/store/?sentry_release=1", X, "Sentry sentry_key=KEY", SEVERAL),
    ("/api/42/unreal/KEY/?sentry_key=KEY", "X: ", "", SEVERAL),
    ("/api/42/unreal/KEY/?sentry_release=1", "X: ", "", BAD_AUTH),
    // The header of an envelope counts only without any other key.
    (ENVELOPES, X, "Sentry sentry_key=KEY", TAKEN),
    (ENVELOPES, X, "Sentry sentry_key=KEYf", BAD_KEY),
    (ENVELOPES, X, "Sentry sentry_version=7", BAD_AUTH),
];

#[test]
fn keys_follow_the_grammar_of_relay() {
    let mut pair = Pair::start();
    let mut client = pair.mirror.client();
    let inbound = Side::inbound();
    let body = inbound.body(Body::Envelope);
    let mut complaints = Vec::new();
    for (target, name, value, expected) in GRAMMAR {
        let fields = inbound.fill(&format!("{name}{value}\r\nContent-Length: {}", body.len()));
        let response = client.ask(&request("POST", &inbound.fill(target), &fields, &body));
        let expected = match expected {
            Ok(()) => (200, r#"{"id":"a"}"#.to_owned()),
            Err((status, detail)) => (*status, format!(r#"{{"detail":"{detail}"}}"#)),
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
fn no_head_leaks_an_inbound_key_or_secret_in_any_spelling() {
    let pair = Pair::start();
    let mut client = pair.mirror.client();
    let inbound = Side::inbound();
    let x = "X-Sentry-Auth: Sentry sentry_key=KEY";
    let all: String = IN_KEY.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let some = IN_KEY.replace('f', "%66");
    let twice = IN_KEY.replace('0', "%2530");
    let fill = |text: &str| {
        let text = text.replace("ALL", &all).replace("SOME", &some);
        inbound.fill(&text.replace("TWICE", &twice).replace("SECRET", SECRET))
    };
    // In the head of an API request whose key is at a site that Relay reads.
    #[rustfmt::skip]
    let rows = [
        ("/api/PID/unreal/KEY/x", x),
        ("/api/PID/unreal/ALL/x", x),
        ("/api/PID/%75nreal/KEY/", x),
        ("/api/PID/cron/a/TWICE/b/", x),
        ("/KEY/api/PID/store/", x),
        ("/api/PID/store/?sentr%79_key=KEY", x),
        ("/api/PID/store/?sentr%79_key=ALL&sentr%79_secret=SECRET", x),
        ("/api/PID/store/?a=b&sentr%2579_secret=SECRET", x),
        ("/api/PID/store/?dsn=https://SOME:SECRET@m/1&a=b", x),
        ("/api/PID/store/?dsn=https%3A%2F%2FALL%3ASECRET%40m", x),
        ("/api/PID/store/?KEY", x),
        ("/api/PID/store/?Sentry_Secret=SECRET", x),
        ("/api/PID/store/?sentry_key=KEY.x;sentry_secret=SECRET", "A: b"),
        ("/api/PID/store/?sentry_key=KEY&Sentry_Secret=SECRET", "A: b"),
        ("/api/PID/store/?sentry_key=KEY&+sentry_secret=SECRET&x=TWICE", "A: b"),
        ("/api/PID/store/?sentry_key=KEY", "X-Sentry-Auth: Sentry\tsentry_key=KEY,sentry_secret=SECRET"),
        ("/api/PID/store/?sentry_key=KEY", "X-Sentry-Auth: sentry_key=KEY"),
        ("/api/PID/store/?sentry_key=KEY", "Authorization: Bearer KEY:SECRET"),
        ("/api/PID/store/?sentry_key=KEY", "Authorization: Basic  <KEY:SECRET>"),
        ("/api/PID/store/?sentry_key=KEY", "Authorization: Bearer <KEY:SECRET>"),
        (STORE, "X-Sentry-Auth: Sentry sentry_key=KEY,sentry_client=a;sentry_secret=SECRET"),
        (STORE, "X-Sentry-Auth: Sentry sentry_key=KEY,sentry_secre%74=SECRET"),
        (STORE, "X-Sentry-Auth: Sentry sentry_key=KEY\r\nX-Sentry-Auth: Sentry é;sentry_secret=SECRET"),
        (STORE, "X-Sentry-Auth: Sentry sentry_key=KEY\r\nAuthorization: Token sentry_secret=SECRET"),
        (STORE, "X-Sentry-Auth: Sentry sentry_key=KEY\r\nAuthorization: Sentry,sentry_secre%74=SECRET"),
        (STORE, "X-Sentry-Auth: Sentry sentry_key=KEY\r\nReferer: https://m/?dsn=https://ALL:SECRET@m/1"),
        (STORE, "X-Sentry-Auth: Sentry sentry_key=KEY\r\nbaggage: sentry-public_key=KEY"),
    ];
    let mut complaints = Vec::new();
    for (count, (target, fields)) in (1..).zip(rows) {
        let fields = fill(&format!("{fields}\r\nContent-Length: 2"));
        let response = client.ask(&request("POST", &fill(target), &fields, "{}"));
        assert_eq!(
            response.status,
            200,
            "{target} {fields}: {}",
            response.text()
        );
        for outbound in [&pair.a, &pair.b] {
            let got = outbound.upstream.wait_for(count).remove(count - 1);
            let head = format!("{} {:?}", got.line, got.fields);
            let known = [IN_KEY, SECRET];
            let decoded = percent_decoded(&percent_decoded(&head));
            let texts = [head.as_str(), &percent_decoded(&head), &decoded];
            let is_leak = texts
                .iter()
                .any(|text| known.iter().any(|known| text.contains(known)));
            let base64 = inbound.fill("<KEY:>");
            if is_leak || head.contains(&base64[..40]) {
                complaints.push(format!("{target} {fields} left as {head}"));
            }
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

const SECRET: &str = "5ec4e75ec4e75ec4e75ec4e75ec4e75e";

/// Percent-decodes a text.
fn percent_decoded(text: &str) -> String {
    let mut decoded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        decoded += before;
        let byte = after
            .get(..2)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        decoded.push(byte.map_or('%', char::from));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    decoded + rest
}

#[test]
fn a_path_with_dot_segments_is_refused_in_any_spelling() {
    let pair = Pair::start();
    let mut client = pair.mirror.client();
    let inbound = Side::inbound();
    for path in [
        "/api/42/store/..%2f..%2fapi/1/store/",
        "/api/42/x%5c..%5cstore/",
        "/api/42/%2e%2e%2Fstore/",
        "/api/42/x%2F%2E%2e/store/",
        "/api/42/x%252f..%252fstore/",
        "/api/42/%252e%252e/store/",
        "/api/42/..;a=b/store/",
        "/api/42/x\\..\\store/",
    ] {
        let target = inbound.fill(&format!("{path}?sentry_key=KEY"));
        let response = client.ask(&request("POST", &target, "Content-Length: 2", "{}"));
        expect_rejection(&response, 404, "not found", path);
    }
    // These names begin with dots or contain them.
    for path in [
        "/api/42/..a/store/",
        "/api/42/cron/a..b%2Fc/",
        "/api/42/x%2f...%2f",
    ] {
        let target = inbound.fill(&format!("{path}?sentry_key=KEY"));
        let response = client.ask(&request("POST", &target, "Content-Length: 2", "{}"));
        assert_eq!(response.status, 200, "{path}: {}", response.text());
    }
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

#[test]
fn a_path_without_a_project_id_is_refused_if_a_key_rules_out_a_tunnel() {
    let pair = Pair::start();
    let mut client = pair.mirror.client();
    let inbound = Side::inbound();
    let x = "X-Sentry-Auth: Sentry sentry_key=KEY";
    let bad_project = (400, "bad project path parameter");
    let not_found = (404, "not found");
    let no_key = (401, "bad envelope authentication header");
    #[rustfmt::skip]
    let rows = [
        ("POST", "/api/abc/store/?sentry_key=KEY", "X: 1", bad_project),
        ("POST", "/api/abc/store/", x, bad_project),
        ("POST", "/api/abc/envelope/", x, bad_project),
        ("POST", "/api/-1/envelope/?sentry_key=KEY", "X: 1", bad_project),
        ("POST", "/api/18446744073709551616/minidump/?sentry_key=KEY", "X: 1", bad_project),
        ("POST", "/api/abc/unreal/KEY/", "X: 1", bad_project),
        ("GET",  "/api/abc/cron/nightly/KEY/?status=ok", "X: 1", bad_project),
        ("GET",  "/api/abc/store/?sentry_key=KEY", "X: 1", bad_project),
        // Relay matches paths case-sensitively.
        ("POST", "/API/42/store/?sentry_key=KEY", "X: 1", not_found),
        ("POST", "/API/42/store/", x, not_found),
        ("POST", "/42/store/", "Authorization: Sentry sentry_key=KEY", not_found),
        // Basic credentials may belong to the site of the tunnel.
        ("POST", "/api/abc/envelope/", "Authorization: Basic <KEY:>", no_key),
        ("POST", "/api/abc/store/", "X: 1", no_key),
        ("POST", "/API/42/store/", "X: 1", no_key),
    ];
    for (method, target, fields, (status, detail)) in rows {
        let body = if method == "GET" { "" } else { "{}" };
        let fields = inbound.fill(&format!("{fields}\r\nContent-Length: {}", body.len()));
        let response = client.ask(&request(method, &inbound.fill(target), &fields, body));
        expect_rejection(&response, status, detail, &format!("{method} {target}"));
    }
    pair.expect_no_more();
}

#[test]
fn basic_credentials_that_are_not_a_key_leave_the_key_to_the_envelope() {
    let mut pair = Pair::start();
    let mut client = pair.mirror.client();
    let inbound = Side::inbound();
    let body = inbound.body(Body::Envelope);
    let users = [
        "site:pw",
        "site:",
        "ffffffffffffffffffffffffffffffff:pw",
        "site.flag:pw",
    ];
    let targets = [
        "/tunnel",
        "/api/tunnel",
        "/api/2/tunnel",
        "/api/42/monitoring?a=b",
        "/api/42/envelope/",
    ];
    for target in targets {
        for user in users {
            let fields = inbound.fill(&format!(
                "Authorization: Basic <{user}>\r\nContent-Length: {}",
                body.len()
            ));
            let response = client.ask(&request("POST", target, &fields, &body));
            assert_eq!(response.status, 200, "{target} {user}: {}", response.text());
            for outbound in [&mut pair.a, &mut pair.b] {
                outbound.count += 1;
                let got = outbound.upstream.wait_for(outbound.count);
                let got = &got[outbound.count - 1];
                let expected = format!(
                    "POST {}/api/{}/envelope/ HTTP/1.1",
                    outbound.prefix, outbound.side.project
                );
                assert_eq!(got.line, expected, "{target} {user}");
                assert_eq!(got.text(), outbound.side.body(Body::Envelope));
                assert_eq!(got.field("Authorization"), None, "{target} {user}");
            }
        }
    }
    // Without a key in an envelope the user is taken for the key.
    let no_route = "event submission rejected with_reason: the mirror has no route for this key";
    let bad_key = "bad sentry DSN public key";
    let stranger = "Basic <ffffffffffffffffffffffffffffffff:pw>";
    #[rustfmt::skip]
    let rows = [
        ("POST", "/api/2/tunnel", stranger, "{}", 403, no_route),
        ("POST", "/api/2/tunnel", "Basic <site:pw>", "hello", 400, bad_key),
        ("POST", ENVELOPES, stranger, "{}", 403, no_route),
        ("POST", ENVELOPES, "Basic <site:pw>", "{}", 400, bad_key),
        ("POST", STORE, stranger, &body, 403, no_route),
        ("GET", "/api/2/tunnel", stranger, "", 403, no_route),
    ];
    for (method, target, credentials, body, status, detail) in rows {
        let fields = inbound.fill(&format!(
            "Authorization: {credentials}\r\nContent-Length: {}",
            body.len()
        ));
        let response = client.ask(&request(method, target, &fields, body));
        expect_rejection(&response, status, detail, target);
    }
    pair.expect_no_more();
}
