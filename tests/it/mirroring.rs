//! A request arrives, rewritten and whole, at every outbound.

use std::io::Write;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

use crate::support::{
    Action, Config, IN_KEY, KEY_A, KEY_B, Process, Upstream, config, envelope, envelope_request,
    is_skipped,
};

const ID: &str = "9ec79c33ec9942ab8353589fcb2e04dc";
const SECRET: &str = "c0ffee00c0ffee00c0ffee00c0ffee00";

/// Two upstreams and a mirror that serves them; the second outbound has a secret and a path prefix.
struct Pair {
    a: Upstream,
    b: Upstream,
    mirror: Process,
}

impl Pair {
    fn start() -> Pair {
        let a = Upstream::ok();
        let b = Upstream::ok();
        let outbounds = [
            a.dsn(KEY_A, 11),
            format!("http://{KEY_B}:{SECRET}@{}/some/prefix/22", b.address),
        ];
        let mirror = Process::start(&config(&outbounds, ""));
        Pair { a, b, mirror }
    }
}

#[test]
fn an_envelope_arrives_at_every_outbound_with_only_its_own_key_in_it() {
    let pair = Pair::start();
    let body = envelope(ID);
    let response = pair.mirror.client().ask(&envelope_request(body.as_bytes()));
    assert_eq!(response.status, 200);
    assert_eq!(response.text(), r#"{"id":"from-upstream"}"#);

    let a = pair.a.wait_for(1).remove(0);
    assert_eq!(a.line, "POST /api/11/envelope/ HTTP/1.1");
    assert_eq!(
        a.field("X-Sentry-Auth"),
        Some(&*format!("Sentry sentry_key={KEY_A}, sentry_version=7"))
    );
    assert_eq!(a.field("Host"), Some(&*pair.a.address.to_string()));
    let expected = body
        .replace(
            &format!("http://{IN_KEY}@mirror.example.com/42"),
            &format!("http://{KEY_A}@{}/11", pair.a.address),
        )
        .replace(IN_KEY, KEY_A);
    assert_eq!(a.text(), expected);

    let b = pair.b.wait_for(1).remove(0);
    assert_eq!(b.line, "POST /some/prefix/api/22/envelope/ HTTP/1.1");
    let expected = body
        .replace(
            &format!("http://{IN_KEY}@mirror.example.com/42"),
            &format!("http://{KEY_B}:{SECRET}@{}/some/prefix/22", pair.b.address),
        )
        .replace(IN_KEY, KEY_B);
    assert_eq!(b.text(), expected);
}

#[test]
fn a_body_in_any_coding_is_sent_decoded_with_its_length() {
    let pair = Pair::start();
    let body = envelope(ID);
    let plain = body.as_bytes();
    let gzip = {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    };
    let zlib = {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    };
    let brotli = {
        let mut out = Vec::new();
        brotli::BrotliCompress(&mut &plain[..], &mut out, &Default::default()).unwrap();
        out
    };
    let zstd = zstd::encode_all(plain, 3).unwrap();
    let codings: [(&str, &[u8]); 7] = [
        ("gzip", &gzip),
        ("deflate", &zlib),
        ("br", &brotli),
        ("zstd", &zstd),
        ("identity", plain),
        ("", plain),
        ("UTF-8", plain),
    ];
    let mut client = pair.mirror.client();
    for (number, (coding, bytes)) in codings.iter().enumerate() {
        let head = format!(
            "POST /api/42/envelope/?sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\nContent-Encoding: {coding}\r\nContent-Length: {}\r\n\r\n",
            bytes.len()
        );
        let response = client.ask(&[head.as_bytes(), bytes].concat());
        assert_eq!(response.status, 200, "{coding:?}: {}", response.text());
        for upstream in [&pair.a, &pair.b] {
            let got = upstream.wait_for(number + 1).remove(number);
            assert_eq!(got.field("Content-Encoding"), None);
            let (_, items) = got.text().split_once('\n').unwrap();
            assert_eq!(items, body.split_once('\n').unwrap().1, "{coding:?}");
        }
    }
}

#[test]
fn a_chunked_body_arrives_whole_in_any_chunks() {
    let pair = Pair::start();
    let body = envelope(ID);
    let head = format!(
        "POST /api/42/envelope/?sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    let mut client = pair.mirror.client();
    for (number, size) in [1, 7, 100, body.len()].into_iter().enumerate() {
        let mut bytes = head.clone().into_bytes();
        for chunk in body.as_bytes().chunks(size) {
            bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        assert_eq!(client.ask(&bytes).status, 200);
        let got = pair.b.wait_for(number + 1).remove(number);
        assert_eq!(got.field("Transfer-Encoding"), None);
        assert!(got.text().ends_with(body.split_once('\n').unwrap().1));
    }
}

#[test]
fn every_key_site_is_rewritten_and_none_is_added() {
    let pair = Pair::start();
    let basic = |text: &str| {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(text)
    };
    // The target and field as sent, and as they must arrive at the second outbound.
    #[rustfmt::skip]
    let cases = [
        ("/api/42/envelope/", format!("X-Sentry-Auth: Sentry sentry_version=7,sentry_key={IN_KEY},sentry_secret=old"),
         "/some/prefix/api/22/envelope/", format!("X-Sentry-Auth: Sentry sentry_version=7,sentry_key={KEY_B},sentry_secret={SECRET}")),
        ("/api/42/envelope/", format!("Authorization: sentry sentry_key={IN_KEY}, sentry_client=x/1"),
         "/some/prefix/api/22/envelope/", format!("Authorization: sentry sentry_key={KEY_B}, sentry_client=x/1")),
        ("/api/42/cron/job/", format!("Authorization: Basic {}", basic(&format!("{IN_KEY}:"))),
         "/some/prefix/api/22/cron/job/", format!("Authorization: Basic {}", basic(&format!("{KEY_B}:")))),
        ("/api/42/unreal/0123456789abcdef0123456789abcdef/?AppID=1", "X-Other: 1".to_owned(),
         "/some/prefix/api/22/unreal/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb/?AppID=1", "X-Other: 1".to_owned()),
        ("//left//api/42///envelope//?a=b&sentry_key=0123456789abcdef0123456789abcdef&c", "X-Other: 1".to_owned(),
         "/some/prefix/api/22/envelope/?a=b&sentry_key=bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb&c", "X-Other: 1".to_owned()),
        ("/api/42/integration/otlp/v1/traces", format!("x-sentry-auth:sentry sentry_key={IN_KEY}"),
         "/some/prefix/api/22/integration/otlp/v1/traces", format!("x-sentry-auth:sentry sentry_key={KEY_B}")),
    ];
    let mut client = pair.mirror.client();
    for (number, (target, field, expected_target, expected_field)) in cases.iter().enumerate() {
        let request = format!(
            "POST {target} HTTP/1.1\r\nHost: m\r\n{field}\r\nContent-Length: 3\r\n\r\n{{}}\n"
        );
        let response = client.ask(request.as_bytes());
        assert_eq!(response.status, 200, "{target}: {}", response.text());
        let got = pair.b.wait_for(number + 1).remove(number);
        assert_eq!(got.line, format!("POST {expected_target} HTTP/1.1"));
        let (name, value) = expected_field.split_once(':').unwrap();
        assert_eq!(got.field(name), Some(value.trim()), "{target}");
        let names = |got: &[(String, String)]| -> Vec<String> {
            got.iter().map(|(name, _)| name.clone()).collect()
        };
        assert_eq!(names(&got.fields), ["Host", name, "Via", "Content-Length"]);
    }
}

#[test]
fn a_tunnelled_envelope_is_routed_by_its_header() {
    let pair = Pair::start();
    let body = envelope(ID);
    let request = format!(
        "POST /my/tunnel?x=1 HTTP/1.1\r\nHost: m\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(pair.mirror.client().ask(request.as_bytes()).status, 200);
    let a = pair.a.wait_for(1).remove(0);
    assert_eq!(a.line, "POST /api/11/envelope/ HTTP/1.1");
    assert!(!a.text().contains(IN_KEY));
    assert_eq!(a.field("X-Sentry-Auth"), None);
    let b = pair.b.wait_for(1).remove(0);
    assert_eq!(b.line, "POST /some/prefix/api/22/envelope/ HTTP/1.1");
}

#[test]
fn a_path_outside_the_api_is_routed_by_the_envelope_alone() {
    let pair = Pair::start();
    let mut client = pair.mirror.client();
    // A store event is not an envelope, and would be lost if it were sent as one.
    let request = format!(
        "POST /API/42/store/ HTTP/1.1\r\nHost: m\r\nX-Sentry-Auth: Sentry sentry_key={IN_KEY}\r\nContent-Length: LENGTH\r\n\r\n{{\"message\":\"lost\"}}"
    );
    let length = request.split_once("\r\n\r\n").unwrap().1.len();
    let request = request.replace("LENGTH", &length.to_string());
    assert_eq!(client.ask(request.as_bytes()).status, 404);
    assert_eq!(pair.a.received().len(), 0);
}

#[test]
fn cookies_and_credentials_of_a_tunnel_request_go_to_no_outbound() {
    let pair = Pair::start();
    let mut client = pair.mirror.client();
    let body = envelope(ID);
    let sentry = format!("Sentry sentry_key={IN_KEY}");
    #[rustfmt::skip]
    let rows = [
        ("/tunnel", "Authorization: Basic dXNlcjpwYXNz", None),
        ("/tunnel", "authorization: Bearer of-the-site", None),
        ("/tunnel", "Authorization: Digest username=\"of-the-site\"", None),
        ("/tunnel", "Authorization: of-the-site", None),
        ("/tunnel", "Authorization: Sentry sentry_version=7, sentry_key=KEY", Some("Sentry sentry_version=7, sentry_key=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")),
        ("/api/7/tunnel", "Authorization: Bearer of-the-site", None),
        ("/api/7/tunnel", "Authorization: Basic dXNlcjpwYXNz\r\nConnection: Cookie, Authorization", None),
        ("/api/42/envelope/", "Authorization: Bearer of-the-site", None),
    ];
    for (count, (target, fields, authorization)) in rows.into_iter().enumerate() {
        let fields = fields.replace("KEY", IN_KEY);
        let request = format!(
            "POST {target} HTTP/1.1\r\nHost: m\r\nCookie: session=of-the-user\r\n{fields}\r\nX-CSRF-Token: t\r\ncookie: b=of-the-user\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        assert_eq!(client.ask(request.as_bytes()).status, 200, "{fields}");
        for upstream in [&pair.a, &pair.b] {
            let got = upstream.wait_for(count + 1).remove(count);
            let values = format!("{:?}", got.fields);
            assert!(!values.contains("of-the-"), "{fields}: {values}");
            assert_eq!(got.field("Cookie"), None);
            assert_eq!(got.field("X-CSRF-Token"), Some("t"));
        }
        let got = pair.a.received().remove(count);
        assert_eq!(got.field("Authorization"), authorization, "{fields}");
    }
    // A request with the key in its head is not a tunnel's, and keeps its fields.
    let request = format!(
        "POST /api/42/store/ HTTP/1.1\r\nHost: m\r\nCookie: a=b\r\nAuthorization: Bearer c\r\nX-Sentry-Auth: {sentry}\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    assert_eq!(client.ask(request.as_bytes()).status, 200);
    let got = pair.a.wait_for(rows.len() + 1).remove(rows.len());
    assert_eq!(got.field("Cookie"), Some("a=b"));
    assert_eq!(got.field("Authorization"), Some("Bearer c"));
}

#[test]
fn the_trace_key_of_another_route_becomes_its_key_at_the_same_origin() {
    let a = Upstream::ok();
    let b = Upstream::ok();
    let other_key = "ffffffffffffffffffffffffffffffff";
    let other_at_a = "11111111111111111111111111111111";
    let mirror = Config::new([a.dsn(KEY_A, 11), b.dsn(KEY_B, 22)])
        .route(other_key, 2, [a.dsn(other_at_a, 33)])
        .start();
    let body = format!("{{\"trace\":{{\"public_key\":\"{other_key}\"}}}}\n");
    assert_eq!(
        mirror
            .client()
            .ask(&envelope_request(body.as_bytes()))
            .status,
        200
    );
    let at = |upstream: &Upstream| upstream.wait_for(1).remove(0).text().to_owned();
    assert_eq!(at(&a), body.replace(other_key, other_at_a));
    // The other route has no outbound at this origin.
    assert_eq!(at(&b), body.replace(other_key, KEY_B));
}

#[test]
fn an_unknown_trace_key_becomes_the_key_of_each_outbound() {
    let pair = Pair::start();
    let stranger = "dddddddddddddddddddddddddddddddd";
    let body = format!(
        "{{\"trace\":{{\"org_id\":\"1\",\"public_key\":\"{stranger}\",\"sample_rate\":\"1\"}}}}\n"
    );
    let reply = pair.mirror.client().ask(&envelope_request(body.as_bytes()));
    assert_eq!(reply.status, 200);
    for (upstream, key) in [(&pair.a, KEY_A), (&pair.b, KEY_B)] {
        let got = upstream.wait_for(1).remove(0);
        assert_eq!(got.text(), body.replace(stranger, key));
    }
}

#[test]
fn an_inbound_key_in_capitals_is_a_different_key_and_is_rewritten() {
    let a = Upstream::ok();
    let key = IN_KEY.to_uppercase();
    let mirror = Config::without_routes()
        .route(&key, 42, [a.dsn(KEY_A, 11)])
        .start();
    let in_small = envelope_request(envelope(ID).as_bytes());
    assert_eq!(mirror.client().ask(&in_small).status, 403);
    let in_capitals = String::from_utf8(in_small).unwrap().replace(IN_KEY, &key);
    assert_eq!(mirror.client().ask(in_capitals.as_bytes()).status, 200);
    let got = a.wait_for(1).remove(0);
    let auth = format!("Sentry sentry_key={KEY_A}, sentry_version=7");
    assert_eq!(got.field("X-Sentry-Auth"), Some(&*auth));
    let expected = envelope(ID)
        .replace(
            &format!("http://{IN_KEY}@mirror.example.com/42"),
            &a.dsn(KEY_A, 11),
        )
        .replace(IN_KEY, KEY_A);
    assert_eq!(got.text(), expected);
}

#[test]
fn two_outbounds_at_one_origin_each_get_their_own_trace_key() {
    let upstream = Upstream::ok();
    let mirror = Config::new([upstream.dsn(KEY_A, 11), upstream.dsn(KEY_B, 22)]).start();
    let body = format!("{{\"trace\":{{\"public_key\":\"{IN_KEY}\"}}}}\n");
    let reply = mirror.client().ask(&envelope_request(body.as_bytes()));
    assert_eq!(reply.status, 200);
    let mut got: Vec<String> = upstream
        .wait_for(2)
        .iter()
        .map(|request| request.text().to_owned())
        .collect();
    got.sort();
    let expected = [KEY_A, KEY_B].map(|key| body.replace(IN_KEY, key));
    assert_eq!(got, expected);
}

#[test]
fn hop_by_hop_fields_are_removed_and_all_others_pass_unchanged() {
    let pair = Pair::start();
    let request = format!(
        "POST /api/42/envelope/ HTTP/1.1\r\nhost: m\r\nX-sentry-AUTH:Sentry sentry_key={IN_KEY}\r\nAccept-Encoding: gzip\r\nConnection: keep-alive, X-Private\r\nX-Private: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\nUpgrade: h2c\r\nProxy-Authorization: Basic x\r\nX-Forwarded-For: 1.2.3.4\r\n{CLIENT_ADDRESSES}User-Agent: \u{2603} sentry/1\r\nX-Twice: 1\r\nX-Empty:\r\nX-Twice:  2\r\nOrigin: https://app.example.com\r\nContent-Length: 3\r\n\r\n{{}}\n"
    );
    assert_eq!(pair.mirror.client().ask(request.as_bytes()).status, 200);
    let got = pair.a.wait_for(1).remove(0);
    let fields: Vec<(&str, &str)> = got
        .fields
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    assert_eq!(
        fields,
        [
            ("host", &*pair.a.address.to_string()),
            ("X-sentry-AUTH", &*format!("Sentry sentry_key={KEY_A}")),
            ("User-Agent", "\u{2603} sentry/1"),
            ("X-Twice", "1"),
            ("X-Empty", ""),
            ("X-Twice", "2"),
            ("Origin", "https://app.example.com"),
            ("Via", "1.1 sentry-mirror-26d52149"),
            ("Content-Length", "3"),
        ]
    );
}

/// Fields with which proxies forward the client's address, besides `X-Forwarded-For`.
const CLIENT_ADDRESSES: &str = "CF-Connecting-IP: 203.0.113.1\r\nForwarded: for=203.0.113.2\r\ntrue-client-ip: 203.0.113.3\r\nX-Real-IP:203.0.113.4\r\nX-Sentry-Forwarded-For: 203.0.113.5\r\nX-Vercel-Forwarded-For: 203.0.113.6\r\n";

#[test]
fn the_client_address_is_forwarded_only_if_configured() {
    let a = Upstream::ok();
    let mirror = Process::start(&config(&[a.dsn(KEY_A, 11)], "forward_client_ip: true"));
    let request = format!(
        "POST /api/42/envelope/?sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\nX-Forwarded-For: 203.0.113.7\r\n{CLIENT_ADDRESSES}Content-Length: 3\r\n\r\n{{}}\n"
    );
    assert_eq!(mirror.client().ask(request.as_bytes()).status, 200);
    let got = a.wait_for(1).remove(0);
    let fields: Vec<String> = got
        .fields
        .iter()
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    assert_eq!(
        fields[1..],
        [
            "X-Forwarded-For: 203.0.113.7",
            "CF-Connecting-IP: 203.0.113.1",
            "Forwarded: for=203.0.113.2",
            "true-client-ip: 203.0.113.3",
            "X-Real-IP: 203.0.113.4",
            "X-Sentry-Forwarded-For: 203.0.113.5",
            "X-Vercel-Forwarded-For: 203.0.113.6",
            "Via: 1.1 sentry-mirror-26d52149",
            "X-Forwarded-For: 127.0.0.1",
            "Content-Length: 3",
        ]
    );
}

#[test]
fn methods_other_than_post_are_forwarded() {
    let pair = Pair::start();
    let mut client = pair.mirror.client();
    let target = format!("/api/42/cron/nightly/{IN_KEY}/?status=ok");
    let response = client.ask(format!("GET {target} HTTP/1.1\r\nHost: m\r\n\r\n").as_bytes());
    assert_eq!(response.status, 200);
    let got = pair.a.wait_for(1).remove(0);
    assert_eq!(
        got.line,
        format!("GET /api/11/cron/nightly/{KEY_A}/?status=ok HTTP/1.1")
    );
    assert_eq!(got.field("Content-Length"), None);

    client.send(format!("HEAD {target} HTTP/1.1\r\nHost: m\r\n\r\n").as_bytes());
    assert_eq!(client.response_head().status, 200);
    assert!(pair.a.wait_for(2)[1].line.starts_with("HEAD "));
}

#[test]
fn a_body_that_only_looks_like_an_envelope_is_unchanged() {
    let pair = Pair::start();
    let body = format!("{{\"dsn\":\"http://{IN_KEY}@m/42\"}}\nrest");
    for endpoint in ["store", "minidump"] {
        let request = format!(
            "POST /api/42/{endpoint}/?sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        assert_eq!(pair.mirror.client().ask(request.as_bytes()).status, 200);
    }
    for got in pair.a.wait_for(2) {
        assert_eq!(got.text(), body);
    }
}

#[test]
fn an_ipv6_outbound_is_reached_and_its_host_has_brackets() {
    let listener = std::net::TcpListener::bind("[::1]:0");
    if is_skipped(listener.is_ok(), "an IPv6 loopback") {
        return;
    }
    let listener = listener.unwrap();
    let port = listener.local_addr().unwrap().port();
    let a = Upstream::serve(listener, |_, _| Action::ok());
    let mirror = Process::start(&config(&[format!("http://{KEY_A}@[::1]:{port}/11")], ""));
    let response = mirror
        .client()
        .ask(&envelope_request(envelope(ID).as_bytes()));
    assert_eq!(response.status, 200);
    let got = a.wait_for(1).remove(0);
    assert_eq!(got.field("Host"), Some(&*format!("[::1]:{port}")));
    assert!(
        got.text()
            .contains(&format!("http://{KEY_A}@[::1]:{port}/11"))
    );
}

#[test]
fn a_large_body_arrives_whole_at_both_outbounds() {
    let pair = Pair::start();
    let mut body = envelope(ID).into_bytes();
    let tail: Vec<u8> = (0..5_000_000_u32).flat_map(|i| i.to_le_bytes()).collect();
    body.extend_from_slice(&tail);
    let response = pair.mirror.client().ask(&envelope_request(&body));
    assert_eq!(response.status, 200);
    for upstream in [&pair.a, &pair.b] {
        let got = upstream.wait_for(1).remove(0);
        assert!(got.body.ends_with(&tail));
        assert_eq!(
            got.field("Content-Length"),
            Some(&*got.body.len().to_string())
        );
    }
}

#[test]
fn unread_auth_lines_leak_no_key_and_non_ascii_bytes_arrive() {
    let pair = Pair::start();
    let mut client = pair.mirror.client();
    #[rustfmt::skip]
    let rows = [
        ("X-Sentry-Auth: sentry_key=KEY", "X-Sentry-Auth", ""),
        ("X-Sentry-Auth: KEY", "X-Sentry-Auth", ""),
        ("X-Sentry-Auth: Sentry\tsentry_key=KEY", "X-Sentry-Auth", ""),
        ("X-Sentry-Auth: Sentry sentry_key=KEY, sentry_client=\u{e9}/1", "X-Sentry-Auth", "Sentry sentry_key=OUT, sentry_client=\u{e9}/1"),
        ("Authorization: Sentry sentry_key=KEY, sentry_client=\u{e9}/1", "Authorization", "Sentry sentry_key=OUT, sentry_client=\u{e9}/1"),
        ("Authorization: Bearer \u{e9}", "Authorization", "Bearer \u{e9}"),
    ];
    for (count, (line, name, value)) in rows.into_iter().enumerate() {
        let line = line.replace("KEY", IN_KEY);
        let request = format!(
            "POST /api/42/store/?sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\n{line}\r\nContent-Length: 2\r\n\r\n{{}}"
        );
        assert_eq!(client.ask(request.as_bytes()).status, 200, "{line}");
        for (upstream, key) in [(&pair.a, KEY_A), (&pair.b, KEY_B)] {
            let got = upstream.wait_for(count + 1).remove(count);
            let value = value.replace("OUT", key);
            assert_eq!(got.field(name), Some(value.as_str()), "{line}");
        }
    }
}
