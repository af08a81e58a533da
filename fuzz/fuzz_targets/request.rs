//! The whole pure request path: an accepted request is forwarded as exactly one request, equal to the one that a
//! naive reader makes of its parts. It contains neither the inbound key nor the inbound secret in the target,
//! the header lines or the header of an envelope, even after decoding twice.
//!
//! The first byte of an input selects the coding of the body, where the request comes from and the field with the
//! client's address, the second the request line, the version of HTTP,
//! and whether the first header line has the key. Then follow, separated by NULs, the rest of the target, the
//! header lines and the body. Each byte from 0x80 on stands for one of the texts below, most of which contain
//! the key or the secret in some spelling.

#![no_main]

use std::cell::RefCell;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sentry_mirror::internals::config::Config;
use sentry_mirror::internals::http::encoding::{Decoder, Decompressors, Encoding, Step};
use sentry_mirror::internals::http::framing;
use sentry_mirror::internals::http::head::{HeadLimits, HeaderName, Method, Parsed, RequestHead};
use sentry_mirror::internals::mirror::client_address::ClientAddresses;
use sentry_mirror::internals::mirror::head_edits::{self, ForwardedHeaders};
use sentry_mirror::internals::mirror::render::{OutboundBody, render};
use sentry_mirror::internals::mirror::request::{Body, Request as InboundRequest};
use sentry_mirror::internals::mirror::routes::{Outbound, Route, Routes};
use sentry_mirror::internals::sentry::auth::{FoundKey, Source};
use sentry_mirror::internals::sentry::dsn;
use sentry_mirror::internals::sentry::edit::{EDITS_MAX, Edit};
use sentry_mirror::internals::sentry::endpoint::{self, Endpoint};
use sentry_mirror::internals::sentry::envelope;
use sentry_mirror_fuzz::naive::http::{self, Bounds, End, Message};
use sentry_mirror_fuzz::naive::{address, envelope as naive_envelope, request as naive};
use sentry_mirror_fuzz::{check_edits, expand, find_key};

const INBOUND: naive::Inbound<'static> = naive::Inbound {
    key: "0123456789abcdef0123456789abcdef",
    secret: "5ecre75ecre75ecre75ecre75ecre750",
};

const CONFIG: &str = "
client_address: {trusted_proxies: [10.0.0.0/8, '2001:db8::/32'], field: FIELD}
keys:
  - inbound: http://0123456789abcdef0123456789abcdef:5ecre75ecre75ecre75ecre75ecre750@mirror.example.com/42
    outbound:
      - dsn: https://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@o1.ingest.example.com/1001
        client_address: send
      - dsn: http://bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb:s3cret@relay.internal:3000/a/b/7
        headers: {authorization: Bearer token, X-Other: other, Cookie: a=b}
";

/// The configured headers of the second outbound.
const HEADERS: &[(&str, &str)] = &[
    ("authorization", "Bearer token"),
    ("X-Other", "other"),
    ("Cookie", "a=b"),
];

/// How requests begin.
const STARTS: &[&str] = &[
    "POST /api/42/envelope/",
    "POST /api/42/store/",
    "GET /api/store/",
    "POST /tunnel",
    "POST ",
    "GET ",
    "PUT ",
    "POST http://h:1/a/api/42/api//0/42/minidump/",
    "POST /api/%34%32/unreal/0123456789abcdef0123456789abcdef/",
    "POST /api/42/unreal/0123456789abcdef0123456789abcdef/x",
    "POST /api/42/cron/nightly/%30123456789abcdef0123456789abcdef",
    "HEAD /api/42/cron/nightly",
    "POST /api/42/security/",
    "PUT /api/42/0123456789abcdef0123456789abcdef/",
    "GET /api/embed/error-page/?dsn=http://0123456789abcdef0123456789abcdef:5ecre75ecre75ecre75ecre75ecre750@m/42",
    "POST /api/embed/error-page/?eventId=1&dsn=http://0123456789abcdef0123456789abcdef@m/42",
    "POST /api/042//integration/otlp/v1/logs",
    "POST /api/42/envelope/?sentry_key=0123456789abcdef0123456789abcdef",
    "POST /api/42/store/?sentry_secret=5ecre75ecre75ecre75ecre75ecre750&sentry_key=0123456789abcdef0123456789abcdef",
];

/// Pieces of requests.
const TEXTS: &[&str] = &[
    "0123456789abcdef0123456789abcdef",
    "5ecre75ecre75ecre75ecre75ecre750",
    "sentry_key=0123456789abcdef0123456789abcdef",
    "sentry_secret=5ecre75ecre75ecre75ecre75ecre750",
    "sentr%79_key=0123456789abcdef0123456789abcdef",
    "sentry%5Fsecret=5ecre75ecre75ecre75ecre75ecre750",
    "sentr%2579_key=0123456789abcdef0123456789abcdef",
    "sentry_key=%30%31%32%33%34%35%36%37%38%39%61%62%63%64%65%660123456789abcdef",
    "SENTRY_SECRET=5ecre75ecre75ecre75ecre75ecre75%30",
    "%2530123456789abcdef0123456789abcdef",
    "%35ecre75ecre75ecre75ecre75ecre750",
    "sentry_version=7",
    "sentry_client=sentry.python/2.75.0",
    ".no-cache",
    "%2eflag",
    "\r\nX-Sentry-Auth: Sentry ",
    "\r\nX-Sentry-Auth: Sentry\t",
    "\r\nX-Sentry-Auth: ",
    "\r\nx-sentry-auth:sentry  ",
    "\r\nAuthorization: Sentry ",
    "\r\nAuthorization: ",
    "\r\nAuthorization: Basic MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY6NWVjcmU3NWVjcmU3NWVjcmU3NWVjcmU3NWVjcmU3NTA=",
    "\r\nAuthorization: Basic MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY6",
    "\r\nAuthorization: Basic  MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY6",
    "\r\nAuthorization: Basic MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY",
    "\r\nAuthorization: Basic dXNlcjpwYXNzd29yZA==",
    " MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY6",
    "\r\nAuthorization: Basic OjVlY3JlNzVlY3JlNzVlY3JlNzVlY3JlNzVlY3JlNzUw",
    "\r\nAuthorization: Bearer 0123456789abcdef0123456789abcdef",
    "\r\nProxy-Authorization: Basic MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY6",
    "\r\nCookie: k=0123456789abcdef0123456789abcdef",
    "\r\nReferer: http://m/api/42/store/?sentry_key=0123456789abcdef0123456789abcdef",
    "\r\nConnection: X-Sentry-Auth, Authorization, close",
    "\r\nConnection: X-Other",
    "\r\nX-Other: ",
    "\r\nRange: bytes=0-1\r\nIf-None-Match: \"x\"",
    "\r\nX-Forwarded-For: 10.0.0.1",
    "\r\nHost: m",
    "\r\nVia: 1.1 other",
    "\r\nContent-Type: application/x-sentry-envelope",
    "?",
    "&",
    ", ",
    "&a=b",
    "&dsn=http://0123456789abcdef0123456789abcdef:5ecre75ecre75ecre75ecre75ecre750@m/42",
    "{\"dsn\":\"http://0123456789abcdef0123456789abcdef:5ecre75ecre75ecre75ecre75ecre750@m/42\"}\n",
    "{\"dsn\":\"http:\\/\\/\\u0030123456789abcdef0123456789abcdef@m\\/42\",\"trace\":{\"public_key\":\"0123456789abcdef0123456789abcdef\"}}\n",
    "{\"d\\u0073n\":\"http://%30123456789abcdef0123456789abcdef@m/42\"}\n",
    "{\"trace\":{\"public_key\":\"0123456789abcdef012345678\\u0039abcdef\",\"trace_id\":\"1\"}}\n",
    "{\"dsn\":\"http://0123456789abcdef0123456789abcdef@m/42\",\"dsn\":null,\"trace\":{},\"trace\":{\"public_key\":\"0123456789abcdef0123456789abcdef\"}}\n",
    "{\"type\":\"event\"}\n{\"message\":\"hello\"}\n",
    "\r\nX-Forwarded-For: ",
    "\r\nForwarded: ",
    "\r\nX-Real-IP: ",
    "for=",
    ";FOR = ",
    "\\\"",
    "10.0.0.2",
    "203.0.113.7",
    "[2001:db8::1]:80",
    "[2001:db9::1]:_p",
    "::ffff:10.0.0.3",
    "unknown",
];

/// The fields that the trusted proxies may write.
const FIELDS: [&str; 3] = ["X-Forwarded-For", "Forwarded", "X-Real-IP"];

/// Where requests come from: from a trusted proxy, or not.
const PEERS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
];

/// Whether an address is in a network of the configuration.
fn is_trusted(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => four.octets()[0] == 10,
        IpAddr::V6(six) => six.segments()[..2] == [0x2001, 0xdb8],
    }
}

thread_local! {
    static POOL: RefCell<Decompressors> = RefCell::default();
}

static ROUTES: LazyLock<Routes> = LazyLock::new(|| Routes::new(1, &config(FIELDS[0]), None));

static ADDRESSES: LazyLock<[ClientAddresses; 3]> = LazyLock::new(|| {
    FIELDS.map(|field| ClientAddresses::new(&config(field).client_address, true, None))
});

fn config(field: &str) -> Config {
    let text = CONFIG.replace("FIELD", field);
    let config = Config::parse(&text, "fuzz", std::iter::empty());
    config.expect("it is valid")
}

fuzz_target!(|data: &[u8]| {
    let [coding, start, data @ ..] = data else {
        return;
    };
    let text = whole(*start, data);
    let mut head = RequestHead::default();
    if head.parse(&text, HeadLimits::default()) != Ok(Parsed::Complete) {
        return;
    }
    let body = decoded(&text[head.len..], *coding);
    let text = &text[..head.len];
    let Some(request) = read(head, text, body) else {
        return;
    };
    let Ok(came) = http::parse_head(text) else {
        return;
    };
    check_edits(&request.head_edits, 0..request.head.len);
    let place = usize::from(*coding) / 5;
    let (field, peer) = (place % FIELDS.len(), PEERS[place % PEERS.len()]);
    let client = ADDRESSES[field].client(peer, &request.head, text);
    let expected = address::client(&came, &FIELDS[field].to_ascii_lowercase(), peer, is_trusted);
    assert_eq!(client, expected);
    let inbound = InboundRequest {
        head: Bytes::copy_from_slice(text),
        parsed: request.head.clone(),
        head_edits: request.head_edits.clone(),
        body: Body::plain(request.body.clone()),
        body_edits: request.body_edits.clone(),
        client: Some(client),
        ..InboundRequest::default()
    };
    for outbound in &request.route.outbounds {
        let sent = render(&inbound, outbound, &OutboundBody::Whole, Vec::new());
        let sent = [sent.head.as_slice(), &sent.body].concat();
        let (messages, end) = http::read_all(&sent, Bounds::NONE);
        assert_eq!(end, End::Clean);
        let [message] = messages.as_slice() else {
            panic!("{} requests", messages.len());
        };
        check(&request, &came, message, (outbound, client));
        check_leaks(&request, message);
    }
});

/// The request of an input, with its decoded body.
fn whole(start: u8, data: &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> = data.splitn(3, |byte| *byte == 0).collect();
    let part = |at: usize| expand(parts.get(at).unwrap_or(&&b""[..]), [TEXTS]);
    let version: &[u8] = match start & 0x80 {
        0 => b" HTTP/1.1",
        _ => b" HTTP/1.0",
    };
    let auth: &[u8] = match start & 0x40 {
        0 => b"",
        _ => b"\r\nX-Sentry-Auth: Sentry sentry_key=0123456789abcdef0123456789abcdef",
    };
    let start = STARTS[usize::from(start & 0x3f) % STARTS.len()];
    [
        start.as_bytes(),
        &part(0),
        version,
        auth,
        &part(1),
        b"\r\n\r\n",
        &part(2),
    ]
    .concat()
}

/// Decodes a body in one of five codings.
fn decoded(body: &[u8], coding: u8) -> Bytes {
    let (encoding, coded) = match coding % 5 {
        1 => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(body).expect("there is room");
            (Encoding::Gzip, encoder.finish().expect("there is room"))
        }
        2 => {
            let mut encoder =
                flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(body).expect("there is room");
            (Encoding::Deflate, encoder.finish().expect("there is room"))
        }
        3 => {
            let mut coded = Vec::new();
            brotli::CompressorWriter::new(&mut coded, 4096, 1, 16)
                .write_all(body)
                .expect("there is room");
            (Encoding::Brotli, coded)
        }
        4 => (
            Encoding::Zstd,
            zstd::encode_all(body, 1).expect("there is room"),
        ),
        _ => return Bytes::copy_from_slice(body),
    };
    let decoded = POOL.with_borrow_mut(|pool| {
        let mut decoder = Decoder::new(encoding, Bytes::from(coded), usize::MAX, pool);
        while decoder.step(4096).expect("it was coded well") != Step::Done {}
        decoder.finish(pool)
    });
    assert_eq!(decoded, body);
    decoded
}

/// A request that is mirrored.
struct Request {
    head: RequestHead,
    route: &'static Route,
    kind: naive::Kind,
    is_envelope: bool,
    head_edits: Vec<Edit>,
    body: Bytes,
    body_edits: Vec<Edit>,
}

/// Reads a request as `server` does.
fn read(head: RequestHead, text: &[u8], body: Bytes) -> Option<Request> {
    framing::for_request(&head, text).ok()?;
    let (mut head_edits, mut body_edits) = (Vec::new(), Vec::new());
    let target = endpoint::parse_target(text, head.target, &mut head_edits);
    let mut endpoint = target.endpoint;
    if head_edits.len() >= EDITS_MAX || endpoint::has_dot_segment(text, head.target) {
        return None;
    }
    if endpoint == Endpoint::Upload || !endpoint.allows(head.method_span.slice(text)) {
        return None;
    }
    let is_dialog = endpoint == Endpoint::ErrorPage;
    let key = find_key(&head, text, &target, &mut head_edits).ok()?;
    let is_meant = |key: &FoundKey| target.names_key || key.source != Source::Basic;
    if target.lacks_project && (target.names_key || key.as_ref().is_some_and(is_meant)) {
        return None;
    }
    let may_lack_key = matches!(endpoint, Endpoint::Envelope | Endpoint::Tunnel)
        || (endpoint == Endpoint::Generic && head.method == Method::Post);
    let route = match &key {
        _ if endpoint == Endpoint::Tunnel => None,
        None if may_lack_key => None,
        None => return None,
        Some(key) => match ROUTES.find(key.bytes(text)) {
            None if may_lack_key && key.source == Source::Basic => None,
            found => Some(found?),
        },
    };
    let has_envelope_type = head
        .values(HeaderName::ContentType, text)
        .any(|value| value.starts_with(b"application/x-sentry-envelope"));
    let is_envelope = match endpoint {
        Endpoint::Envelope | Endpoint::Tunnel => true,
        Endpoint::Store | Endpoint::Generic => has_envelope_type || route.is_none(),
        _ => false,
    };
    let envelope = match is_envelope {
        true => match envelope::scan(&body, &mut body_edits) {
            Ok(envelope) => Some(envelope),
            Err(_) if endpoint == Endpoint::Generic && route.is_some() => None,
            Err(_) => return None,
        },
        false => None,
    };
    let is_tunnelled = route.is_none();
    let route = match route {
        Some(route) => route,
        None => {
            let dsn = envelope::unescape(envelope?.dsn?.slice(&body));
            ROUTES.find(dsn::key_in_text(&dsn)?)?
        }
    };
    if is_tunnelled && endpoint == Endpoint::Generic {
        head_edits.retain(|edit| edit.span.start >= head.target.end);
        endpoint::edit_tunnel(head.target, &mut head_edits);
        endpoint = Endpoint::Tunnel;
    }
    let forwarded = ForwardedHeaders {
        client_address: false,
        credentials: !is_tunnelled && !is_dialog,
        conditions: !is_dialog,
    };
    head_edits::edit_head(&head, text, forwarded, &mut head_edits);
    head_edits::edit_strays(&head, text, route, &mut head_edits).ok()?;
    Some(Request {
        head,
        route,
        kind: naive::Kind {
            is_tunnel: endpoint == Endpoint::Tunnel,
            is_dialog,
            is_sites: is_tunnelled || is_dialog,
        },
        is_envelope: envelope.is_some(),
        head_edits,
        body,
        body_edits,
    })
}

/// Asserts that the forwarded request is the one of the naive reader.
fn check(
    request: &Request,
    came: &Message,
    sent: &Message,
    (outbound, client): (&Outbound, IpAddr),
) {
    let own = naive::Own {
        key: &outbound.key,
        secret: outbound.secret.as_deref(),
        public_dsn: &outbound.public_dsn,
        project: &outbound.project,
        path_prefix: &outbound.path_prefix,
        host: &outbound.host,
        headers: if outbound.is_tls { &[] } else { HEADERS },
    };
    let expected = naive::rewritten(came, request.kind, INBOUND, own);
    assert_eq!((&*sent.method, &*sent.version), (&*came.method, "HTTP/1.1"));
    let target = sent.target.as_bytes();
    assert!(
        expected.target.allows(target),
        "{:?}: {expected:?}",
        sent.target
    );
    let mut lines = sent.lines.iter();
    for expected in &expected.lines {
        let line = lines.next().expect("a line is missing");
        let text = String::from_utf8_lossy(line);
        assert!(expected.allows(line), "{text:?}, not {expected:?}");
    }
    let mut own_lines = Vec::new();
    if came.values("host").is_empty() {
        own_lines.push(format!("Host: {}", outbound.host));
    }
    let version = &came.version[5..];
    own_lines.push(format!("Via: {version} sentry-mirror-26d52149"));
    let configured = own.headers.iter();
    own_lines.extend(configured.map(|(name, value)| format!("{name}: {value}")));
    if outbound.origin == 0 {
        own_lines.push(format!("X-Forwarded-For: {client}"));
    }
    if !sent.body.is_empty() || ["POST", "PUT", "PATCH"].contains(&&*came.method) {
        own_lines.push(format!("Content-Length: {}", sent.body.len()));
    }
    assert!(
        lines.eq(own_lines.iter().map(String::as_bytes)),
        "{own_lines:?}"
    );
    let body = match request.is_envelope {
        true => naive_envelope::rewritten(
            &request.body,
            naive_envelope::Own {
                dsn: &outbound.dsn,
                key: &outbound.key,
            },
        ),
        false => Some(request.body.to_vec()),
    };
    assert!(body.is_none_or(|body| body == sent.body));
}

/// Asserts that no other server learns the inbound key or secret.
fn check_leaks(request: &Request, sent: &Message) {
    let shows = |text: &[u8], is_auth| naive::shows(text, is_auth, INBOUND);
    assert!(!shows(sent.target.as_bytes(), false), "{:?}", sent.target);
    for (name, value) in &sent.fields {
        let lower = name.to_ascii_lowercase();
        // The schemes of the other field have no base64.
        let is_auth = lower == "authorization";
        let text = String::from_utf8_lossy(value);
        assert!(!shows(value, is_auth), "{name}: {text:?}");
    }
    if request.is_envelope {
        for text in naive_envelope::credentials(&sent.body) {
            assert!(!shows(text.as_bytes(), false), "{text:?}");
        }
    }
}
