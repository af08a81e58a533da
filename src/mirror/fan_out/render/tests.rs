//! Golden requests, and a comparison with a naive implementation that works on lines of text.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::config::Config;
use crate::http::head::{HeadLimits, Parsed, RequestHead};
use crate::mirror::request::Body;
use crate::mirror::request::head_edits::{ForwardedHeaders, edit_head, edit_strays};
use crate::mirror::routing::local_route::LocalRoute;
use crate::mirror::routing::routes::Routes;
use crate::sentry::auth::{self, AuthHeader};
use crate::sentry::{endpoint, envelope};

const IN_KEY: &str = "0123456789abcdef0123456789abcdef";
const OTHER_KEY: &str = "ffffffffffffffffffffffffffffffff";
const OUT_KEY: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// The header that the mirror adds to every request of the first route.
const VIA: &str = "Via: 1.1 sentry-mirror-26d52149\r\n";

/// Three routes: to a DSN, to another service at the same origin, and to a DSN with a secret.
fn routes(forward_client_ip: bool) -> Routes {
    let text = format!(
        "forward_client_ip: {forward_client_ip}\nkeys:\n  - inbound: http://{IN_KEY}@in/42\n    outbound: ['https://{OUT_KEY}@out.example:8443/p/7']\n  - inbound: http://{OTHER_KEY}@in/43\n    outbound: ['https://cccccccccccccccccccccccccccccccc@out.example:8443/p/8']\n  - inbound: http://eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee:0123456789secret@in/44\n    outbound: ['https://{OUT_KEY}:newsecret@out.example/9']\n"
    );
    routes_of(&text)
}

fn routes_of(text: &str) -> Routes {
    Routes::new(
        1,
        &Config::parse(text, "test", std::iter::empty()).unwrap(),
        None,
    )
}

/// The request for the only outbound of its route.
fn mirrored(request: &[u8], forward_client_ip: bool) -> Vec<u8> {
    mirrored_by(&routes(forward_client_ip), request, forward_client_ip)
}

fn mirrored_by(routes: &Routes, request: &[u8], forward_client_ip: bool) -> Vec<u8> {
    let mut head = RequestHead::default();
    assert_eq!(
        head.parse(request, HeadLimits::default()),
        Ok(Parsed::Complete)
    );
    let body = Bytes::copy_from_slice(&request[head.len..]);
    let mut head_edits = Vec::new();
    let mut body_edits = Vec::new();
    let target = endpoint::parse_target(request, head.target, &mut head_edits);
    let fields: Vec<_> = head
        .headers
        .iter()
        .filter_map(|field| match field.name {
            HeaderName::XSentryAuth => Some((AuthHeader::XSentryAuth, field.value)),
            HeaderName::Authorization => Some((AuthHeader::Authorization, field.value)),
            _ => None,
        })
        .collect();
    let key = auth::find(
        request,
        fields.into_iter(),
        target.query,
        target.path_key,
        &mut head_edits,
    );
    let key = key.unwrap().unwrap();
    let route = routes.find(key.bytes(request)).unwrap();
    let header = envelope::scan(&body, &mut body_edits).unwrap_or_default();
    let forwarded = ForwardedHeaders {
        client_address: forward_client_ip,
        credentials: true,
        conditions: true,
    };
    edit_head(&head, request, forwarded, &mut head_edits);
    edit_strays(&head, request, route, &mut head_edits).unwrap();
    let trace_route = header
        .trace_key
        .and_then(|key| routes.find(key.slice(&body)));
    let request = Request {
        head: Bytes::copy_from_slice(request),
        parsed: head,
        head_edits,
        body: Body::plain(body.clone()),
        body_edits,
        trace_route: trace_route.map(LocalRoute::new),
        client: forward_client_ip.then(|| "192.0.2.1".parse().unwrap()),
        ..Request::default()
    };
    let outbound = &route.outbounds[0];
    let sent = render(&request, outbound, &OutboundBody::Whole, Vec::new());
    [sent.head.as_slice(), &sent.body].concat()
}

#[track_caller]
fn check(request: &str, expected: &str) {
    let got = mirrored(request.as_bytes(), false);
    assert_eq!(String::from_utf8(got).unwrap(), expected);
}

#[test]
fn a_python_envelope() {
    check(
        &format!(
            "POST /api/42/envelope/ HTTP/1.1\r\nHost: in\r\nAccept-Encoding: identity\r\nContent-Length: 1298\r\nContent-Type: application/x-sentry-envelope\r\nContent-Encoding: gzip\r\nUser-Agent: sentry.python/2.75.0\r\nX-Sentry-Auth: Sentry sentry_key={IN_KEY}, sentry_version=7, sentry_client=sentry.python/2.75.0, sentry_secret=old\r\n\r\n{{\"trace\":{{\"public_key\":\"{IN_KEY}\"}}}}\n{{}}"
        ),
        &format!(
            "POST /p/api/7/envelope/ HTTP/1.1\r\nHost: out.example:8443\r\nContent-Type: application/x-sentry-envelope\r\nUser-Agent: sentry.python/2.75.0\r\nX-Sentry-Auth: Sentry sentry_key={OUT_KEY}, sentry_version=7, sentry_client=sentry.python/2.75.0\r\n{VIA}Content-Length: 62\r\n\r\n{{\"trace\":{{\"public_key\":\"{OUT_KEY}\"}}}}\n{{}}"
        ),
    );
}

#[test]
fn a_secret_is_replaced_where_the_outbound_has_one() {
    check(
        "POST /api/44/store/?sentry_secret=old&sentry_key=eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee HTTP/1.1\r\nHost: in\r\n\r\n{}",
        &format!(
            "POST /api/9/store/?sentry_secret=newsecret&sentry_key={OUT_KEY} HTTP/1.1\r\nHost: out.example\r\nVia: 1.1 sentry-mirror-bf0de0b1\r\nContent-Length: 2\r\n\r\n{{}}"
        ),
    );
}

#[test]
fn a_request_without_headers_gets_the_required_ones() {
    check(
        &format!("GET /api/42/cron/job/{IN_KEY}?status=ok HTTP/1.0\r\n\r\n"),
        &format!(
            "GET /p/api/7/cron/job/{OUT_KEY}?status=ok HTTP/1.1\r\nHost: out.example:8443\r\nVia: 1.0 sentry-mirror-26d52149\r\n\r\n"
        ),
    );
}

#[test]
fn bare_line_feeds_become_crlf_and_leading_empty_lines_are_dropped() {
    check(
        &format!(
            "\r\nPOST /api/42/x/?sentry_key={IN_KEY} HTTP/1.1\nA: 1\nConnection: B\nB: 2\nC: 3\r\n\n"
        ),
        &format!(
            "POST /p/api/7/x/?sentry_key={OUT_KEY} HTTP/1.1\r\nA: 1\r\nC: 3\r\nHost: out.example:8443\r\n{VIA}Content-Length: 0\r\n\r\n"
        ),
    );
}

#[test]
fn configured_headers_are_added_and_replace_those_of_the_request() {
    let routes = routes_of(&format!(
        "keys:\n  - inbound: http://{IN_KEY}@in/42\n    outbound: [{{dsn: 'http://{OUT_KEY}@out/7', \
         headers: {{X-Mark: test, authorization: Bearer t}}}}]\n"
    ));
    let added = "X-Mark: test\r\nauthorization: Bearer t\r\n";
    let own = format!("{VIA}{added}Content-Length: 0\r\n\r\n");
    for (fields, expected) in [
        ("Host: in\r\n", "Host: out\r\n"),
        (
            "Host: in\nA: 1\nx-mark: 2\nX-MARK:\nB: 3\n",
            "Host: out\r\nA: 1\r\nB: 3\r\n",
        ),
        // A line with edits, and one that is removed anyway.
        (
            "Host: in\r\nAuthorization: Sentry sentry_key=KEY, sentry_secret=x\r\nConnection: x-mark\r\nX-Mark: 3\r\nZ: KEY\r\n",
            "Host: out\r\nZ: OUT\r\n",
        ),
        ("X-Mark: KEY\r\nHost: in\r\n", "Host: out\r\n"),
        ("Host: in\r\nX-Mark: KEY\r\n", "Host: out\r\n"),
        (
            "Host: in\r\nX-Markx: 4\r\nX-Mar: 5\r\n",
            "Host: out\r\nX-Markx: 4\r\nX-Mar: 5\r\n",
        ),
    ] {
        let is_in_field = fields.contains("sentry_key");
        let query = if is_in_field { "a=b" } else { "sentry_key=KEY" };
        let fields = fields.replace("KEY", IN_KEY);
        let expected = expected.replace("OUT", OUT_KEY);
        let query_in = query.replace("KEY", IN_KEY);
        let request = format!("POST /api/42/store/?{query_in} HTTP/1.1\r\n{fields}\r\n");
        let got = mirrored_by(&routes, request.as_bytes(), false);
        let query = query.replace("KEY", OUT_KEY);
        let line = format!("POST /api/7/store/?{query} HTTP/1.1\r\n");
        assert_eq!(
            String::from_utf8(got).unwrap(),
            format!("{line}{expected}{own}"),
            "{fields}"
        );
    }
}

#[test]
fn the_trace_key_of_another_route_becomes_its_outbound_key_at_the_same_origin() {
    check(
        &format!(
            "POST /api/42/envelope/?sentry_key={IN_KEY} HTTP/1.1\r\nHost: in\r\n\r\n{{\"trace\":{{\"public_key\":\"{OTHER_KEY}\"}},\"dsn\":null}}"
        ),
        &format!(
            "POST /p/api/7/envelope/?sentry_key={OUT_KEY} HTTP/1.1\r\nHost: out.example:8443\r\n{VIA}Content-Length: 70\r\n\r\n{{\"trace\":{{\"public_key\":\"cccccccccccccccccccccccccccccccc\"}},\"dsn\":null}}"
        ),
    );
}

#[test]
fn the_client_address_is_appended_to_x_forwarded_for() {
    let request = format!(
        "POST /api/42/store/?sentry_key={IN_KEY} HTTP/1.1\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n"
    );
    let got = String::from_utf8(mirrored(request.as_bytes(), true)).unwrap();
    let at = |text: &str| got.find(text).unwrap();
    assert!(at("X-Forwarded-For: 203.0.113.7\r\n") < at("X-Forwarded-For: 192.0.2.1\r\n"));
}

/// The part after the envelope header is copied, or shared if it is long.
#[test]
fn a_body_of_any_length_is_sent_whole() {
    let header = format!("{{\"trace\":{{\"public_key\":\"{IN_KEY}\"}}}}");
    let header_out = header.replace(IN_KEY, OUT_KEY);
    let after_the_key = "\"}}".len();
    for header in [(&*header, &*header_out), ("{}", "{}"), ("no", "no")] {
        let edited = if header.0.len() > 2 {
            header.0.len() - after_the_key
        } else {
            0
        };
        for length in [COPY_BYTES_MAX - 1, COPY_BYTES_MAX, COPY_BYTES_MAX + 1] {
            let tail = "x".repeat(edited + length - header.0.len());
            let request = format!(
                "POST /api/42/envelope/?sentry_key={IN_KEY} HTTP/1.1\r\n\r\n{}{tail}",
                header.0
            );
            let got = String::from_utf8(mirrored(request.as_bytes(), false)).unwrap();
            let (_, body) = got.split_once("\r\n\r\n").unwrap();
            assert_eq!(body, format!("{}{tail}", header.1));
        }
    }
}

/// The request that a naive, line-based implementation would send.
fn naive(request: &str) -> String {
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap();
    let mut out = vec![
        line.replace("/api/42/", "/p/api/7/")
            .replace(IN_KEY, OUT_KEY),
    ];
    let listed: Vec<String> = head
        .split("\r\n")
        .filter_map(|line| line.strip_prefix("Connection:"))
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_lowercase())
        .collect();
    let dropped = [
        "connection",
        "keep-alive",
        "te",
        "transfer-encoding",
        "accept-encoding",
        "x-forwarded-for",
        "x-sentry-forwarded-for",
        "x-real-ip",
        "expect",
    ];
    for line in lines {
        let name = line.split(':').next().unwrap().to_lowercase();
        if dropped.contains(&&*name) || listed.contains(&name) {
            continue;
        }
        out.push(if name == "host" {
            "Host: out.example:8443".to_owned()
        } else {
            line.replace(IN_KEY, OUT_KEY)
        });
    }
    if !out.iter().any(|line| line.starts_with("Host:")) {
        out.push("Host: out.example:8443".to_owned());
    }
    out.push(VIA.trim_end().to_owned());
    out.push(format!("Content-Length: {}", body.len()));
    format!("{}\r\n\r\n{body}", out.join("\r\n"))
}

#[test]
fn no_spelling_of_an_inbound_key_is_sent() {
    let key = format!("X-Sentry-Auth: Sentry sentry_key={IN_KEY}");
    let encoded = IN_KEY.replace('a', "%61").replace('0', "%2530");
    for (line, sent) in [
        (
            "POST /api/1/unreal/KEY/x HTTP/1.1",
            "POST /p/api/7/unreal/OUT/x HTTP/1.1",
        ),
        (
            "POST /api/1/%75nreal/KEY/ HTTP/1.1",
            "POST /p/api/7/%75nreal/OUT/ HTTP/1.1",
        ),
        (
            "POST /api/1/x/ENC/ HTTP/1.1",
            "POST /p/api/7/x/OUT/ HTTP/1.1",
        ),
        (
            "POST /api/1/store/?x=KEY HTTP/1.1",
            "POST /p/api/7/store/?x=OUT HTTP/1.1",
        ),
        (
            "POST /api/1/store/?dsn=https%3A%2F%2FENC%3Ain%40m%2F1&a HTTP/1.1",
            "POST /p/api/7/store/?dsn=https%3A%2F%2FOUT%40m%2F1&a HTTP/1.1",
        ),
        (
            "POST /KEY/api/1/store/ HTTP/1.1",
            "POST /p/api/7/store/ HTTP/1.1",
        ),
        ("Authorization: Bearer KEY", "Authorization: Bearer OUT"),
        (
            "Referer: https://KEY:in@m/1?a",
            "Referer: https://OUT@m/1?a",
        ),
        (
            "baggage: sentry-public_key=ENC,a=b",
            "baggage: sentry-public_key=OUT,a=b",
        ),
        // `Basic` with two spaces, and in the URL-safe alphabet without padding.
        ("Authorization: Basic  B64==", "Authorization: "),
        ("Authorization: Bearer B64", "Authorization: "),
        ("Authorization: Bearer B64 KEY", "Authorization: "),
        ("Authorization: Digest a=B64", "Authorization: "),
        ("Authorization: Bearer abc", "Authorization: Bearer abc"),
        (
            "X-Event: 0123456789abcdef0123456789abcdee",
            "X-Event: 0123456789abcdef0123456789abcdee",
        ),
    ] {
        let base64 = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY6aW4";
        let line = line
            .replace("KEY", IN_KEY)
            .replace("ENC", &encoded)
            .replace("B64", base64);
        let sent = sent.replace("OUT", OUT_KEY);
        let (request, expected) = match line.starts_with("POST") {
            true => (format!("{line}\r\n{key}\r\n\r\n"), sent),
            false => (
                format!("POST /api/1/store/ HTTP/1.1\r\n{line}\r\n{key}\r\n\r\n"),
                format!("POST /p/api/7/store/ HTTP/1.1\r\n{sent}"),
            ),
        };
        let got = String::from_utf8(mirrored(request.as_bytes(), false)).unwrap();
        assert_eq!(
            got,
            format!(
                "{expected}\r\nX-Sentry-Auth: Sentry sentry_key={OUT_KEY}\r\nHost: out.example:8443\r\n{VIA}Content-Length: 0\r\n\r\n"
            )
        );
    }
}

#[test]
fn removing_a_secret_does_not_join_text_into_a_key() {
    let half = "e".repeat(16);
    check(
        &format!(
            "POST /api/44/store/?sentry_key={half}{half} HTTP/1.1\r\nX-A: {half}0123456789secret{half}\r\n\r\n"
        ),
        &format!(
            "POST /api/9/store/?sentry_key={OUT_KEY} HTTP/1.1\r\nX-A: {half}{OUT_KEY}{half}\r\nHost: out.example\r\nVia: 1.1 sentry-mirror-bf0de0b1\r\nContent-Length: 0\r\n\r\n"
        ),
    );
}

#[test]
fn no_inbound_secret_is_sent_in_base64_without_its_key() {
    let key = "sentry_key=eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee";
    check(
        &format!(
            "POST /api/44/store/?{key} HTTP/1.1\r\nAuthorization: Basic OjAxMjM0NTY3ODlzZWNyZXQ=\r\n\r\n"
        ),
        &format!(
            "POST /api/9/store/?sentry_key={OUT_KEY} HTTP/1.1\r\nAuthorization: \r\nHost: out.example\r\nVia: 1.1 sentry-mirror-bf0de0b1\r\nContent-Length: 0\r\n\r\n"
        ),
    );
}

proptest! {
    #[test]
    fn requests_are_equal_to_those_of_the_naive_implementation(
        fields in proptest::collection::vec(
            prop_oneof![
                "X-[A-F]: ?[ -~]{0,20}[!-~]",
                Just("Host: in".to_owned()),
                Just("Connection: keep-alive, X-A,X-C".to_owned()),
                Just("Accept-Encoding: br".to_owned()),
                Just("x-forwarded-for:1.2.3.4".to_owned()),
                Just("X-Sentry-Forwarded-For: 1.2.3.4".to_owned()),
                Just("X-Real-IP: 1.2.3.4".to_owned()),
                Just("TE: trailers".to_owned()),
                Just("via:1.1 edge (a, b)".to_owned()),
                Just("Expect: nothing".to_owned()),
                Just("Origin:https://app.example".to_owned()),
                Just("Empty:".to_owned()),
            ],
            0..12,
        ),
        at in 0..12_usize,
        body in "[a-z{}\"\n]{0,40}",
        in_query in any::<bool>(),
    ) {
        let mut fields = fields;
        // Requests with two Host lines are rejected earlier.
        let mut seen_host = false;
        fields.retain(|field| field != "Host: in" || !std::mem::replace(&mut seen_host, true));
        let query = if in_query { format!("?sentry_key={IN_KEY}&a") } else { String::new() };
        if !in_query {
            fields.insert(at.min(fields.len()), format!("X-Sentry-Auth: Sentry sentry_key={IN_KEY}"));
        }
        // A body that begins with `x` is not an envelope, so it does not change.
        let lines: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        let request = format!("POST /api/42/store/{query} HTTP/1.1\r\n{lines}\r\nx{body}");
        let got = String::from_utf8(mirrored(request.as_bytes(), false)).unwrap();
        prop_assert_eq!(got, naive(&request));
    }
}
