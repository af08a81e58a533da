//! Every counter moves when it should, and by the right amount.

mod sums;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;

use serde_yaml::Value;

use crate::support::http2::{Raw, frame};
use crate::support::process::file;
use crate::support::upstream::Received;
use crate::support::{
    Action, Client, Config, IN_KEY, KEY_A, KEY_B, Metrics, Process, Upstream, config, deaf,
    envelope, envelope_request, outbound,
};

const DELIVERIES: &str = "sentry_mirror_deliveries_total";
const REJECTIONS: &str = "sentry_mirror_rejections_total";
const REQUESTS: &str = "sentry_mirror_requests_total";

/// A valid request.
fn good() -> Vec<u8> {
    envelope_request(envelope("00").as_bytes())
}

fn post(target: &str, fields: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {target} HTTP/1.1\r\nHost: m\r\n{fields}Content-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// A reason, the status of the reply, and a request that is rejected for it.
type Rejected = (&'static str, u16, Vec<u8>);

fn keyed() -> String {
    format!("/api/42/envelope/?sentry_key={IN_KEY}")
}

/// A request that announces a body of this length, and sends none of it.
fn announced(length: usize) -> Vec<u8> {
    let target = keyed();
    format!("POST {target} HTTP/1.1\r\nHost: m\r\nContent-Length: {length}\r\n\r\n").into_bytes()
}

fn rejected_heads() -> Vec<Rejected> {
    let target = keyed();
    let headed = |fields: &str| format!("POST {target} HTTP/1.1\r\n{fields}\r\n").into_bytes();
    let long = format!("X: {}\r\n", "x".repeat(65 << 10));
    let url = format!(
        "/api/embed/error-page/?dsn=http://{IN_KEY}@m/1&x={}",
        "x".repeat(9000)
    );
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: m\r\n\r\n").into_bytes();
    let put = format!("PUT {target} HTTP/1.1\r\nHost: m\r\n\r\n");
    let looped = post(&target, "Via: 1.1 sentry-mirror-26d52149\r\n", "{}\n");
    vec![
        ("head", 400, b"G(T / HTTP/1.1\r\n\r\n".to_vec()),
        ("head_too_large", 431, headed(&long)),
        ("too_many_headers", 431, headed(&"X: 1\r\n".repeat(101))),
        ("head_timeout", 408, b"POST / HT".to_vec()),
        ("method", 405, put.into_bytes()),
        ("not_found", 404, get("/nothing")),
        ("url_too_long", 414, get(&url)),
        ("loop", 508, looped),
    ]
}

fn rejected_bodies() -> Vec<Rejected> {
    let target = keyed();
    let chunked = |more: &str, size: &str| {
        let fields = format!("{more}Transfer-Encoding: chunked");
        format!("POST {target} HTTP/1.1\r\nHost: m\r\n{fields}\r\n\r\n{size}\r\n").into_bytes()
    };
    let mut bomb = GzEncoder::new(Vec::new(), Compression::fast());
    bomb.write_all(&[b'x'; 300 << 10]).unwrap();
    let bomb = bomb.finish().unwrap();
    let fields = format!("Content-Encoding: gzip\r\nContent-Length: {}", bomb.len());
    let bomb_head = format!("POST {target} HTTP/1.1\r\n{fields}\r\n\r\n");
    let coded = |coding: &str| post(&target, &format!("Content-Encoding: {coding}\r\n"), "{}");
    vec![
        ("framing", 400, chunked("Content-Length: 1\r\n", "1")),
        ("chunk", 400, chunked("", "x")),
        ("body_timeout", 408, announced(10)),
        ("body_too_large", 413, announced(3 << 20)),
        ("body_too_large", 413, chunked("", "300000")),
        (
            "decoded_too_large",
            413,
            [bomb_head.as_bytes(), &bomb].concat(),
        ),
        ("encoding", 415, coded("rot13")),
        ("decode", 400, coded("gzip")),
        ("envelope", 400, post(&target, "", "no header\n")),
        ("overloaded", 503, announced(3 << 19)),
    ]
}

fn rejected_keys() -> Vec<Rejected> {
    let x_auth = format!("X-Sentry-Auth: Sentry sentry_key={IN_KEY}\r\n");
    let with_key = |key: &str| post(&format!("/api/42/envelope/?sentry_key={key}"), "", "{}\n");
    vec![
        ("auth", 401, post(&keyed(), &x_auth, "{}\n")),
        ("no_key", 401, post("/api/42/store/", "", "{}")),
        (
            "no_envelope_key",
            401,
            post("/api/42/envelope/", "", "{}\n"),
        ),
        ("bad_key", 400, with_key("x")),
        ("unknown_key", 403, with_key(&IN_KEY.replace('0', "f"))),
        (
            "bad_project",
            400,
            post("/api/x/store/?sentry_key=x", "", "{}"),
        ),
    ]
}

#[test]
fn each_reason_for_a_rejection_is_counted_once() {
    let upstream = Upstream::ok();
    let mirror = Config::new([upstream.dsn(KEY_A, 11)])
        .with_metrics()
        .with("limits: {memory_bytes: 1MiB, body_bytes: 2MiB, decoded_bytes: 256KiB}")
        .with("timeouts: {head: 300ms, body: 300ms}")
        .start();
    let table = [rejected_heads(), rejected_bodies(), rejected_keys()].concat();
    for (reason, status, request) in &table {
        let before = mirror.metrics();
        let response = mirror.client().ask(request);
        assert_eq!(response.status, *status, "{reason}: {}", response.text());
        let after = mirror.metrics();
        let expected = format!("{REJECTIONS}{{reason=\"{reason}\"}}");
        assert_eq!(after.moved(&before, REJECTIONS), [(expected.as_str(), 1.0)]);
        let requests = after.moved(&before, REQUESTS);
        let [(sample, 1.0)] = requests.as_slice() else {
            panic!("{reason}: {requests:?}");
        };
        assert!(sample.contains("result=\"rejected\""), "{reason}: {sample}");
        assert!(after.moved(&before, DELIVERIES).is_empty(), "{reason}");
    }
    // The table is complete, but for what `overload` and `tls_inbound` show.
    let reasons = table.iter().map(|(reason, _, _)| *reason);
    let reasons: BTreeSet<&str> = reasons.chain(["late", "plain_http"]).collect();
    assert_eq!(mirror.metrics().all(REJECTIONS, &[]).len(), reasons.len());
    assert!(upstream.received().is_empty());
}

/// How to make a delivery end in a certain way.
#[derive(Clone)]
struct Case {
    outcome: &'static str,
    /// What has to be configured for it.
    lines: &'static str,
    outbound: Value,
    /// How many requests come first.
    earlier: usize,
    request: Vec<u8>,
}

fn case(outcome: &'static str, lines: &'static str, outbound: impl Into<Value>) -> Case {
    Case {
        outcome,
        lines,
        outbound: outbound.into(),
        earlier: 0,
        request: good(),
    }
}

/// An upstream that calls `act` for each connection.
fn raw(scheme: &str, act: impl Fn(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || listener.incoming().flatten().for_each(act));
    format!("{scheme}://{KEY_A}@{address}/11")
}

/// A DSN with a port on which nothing listens, now and until the tests end.
fn nobody() -> String {
    let (socket, address) = deaf();
    std::mem::forget(socket);
    format!("http://{KEY_A}@{address}/11")
}

/// The DSN of an upstream that always does the same.
fn answering(answer: Action) -> String {
    Upstream::start(move |_, _| answer.clone()).dsn(KEY_A, 11)
}

/// Cases in which the upstream sends a response, or should.
fn answered_cases() -> Vec<Case> {
    let too_large = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n".to_vec();
    let garbage = b"nonsense\r\n\r\n".to_vec();
    let of_status = |status| Action::Answer(status, "{}");
    let small = "limits: {response_bytes: 1KiB}";
    vec![
        case("2xx", "", answering(Action::ok())),
        case("429", "", answering(of_status(429))),
        case("4xx", "", answering(of_status(400))),
        case("5xx", "", answering(of_status(500))),
        case("other_status", "", answering(of_status(302))),
        case("closed", "", answering(Action::Close)),
        case("malformed", "", answering(Action::Raw(garbage))),
        case("too_large", small, answering(Action::Raw(too_large))),
        case(
            "timeout",
            "timeouts: {exchange: 300ms}",
            answering(Action::Hang),
        ),
    ]
}

/// Cases in which the connection cannot be made, or breaks.
fn broken_cases() -> Vec<Case> {
    let silent = raw("https", |mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let no_tls = raw("https", |mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    // The end of a connection with unread bytes is a reset.
    let reads_a_byte = raw("http", |mut stream| {
        let _ = stream.read(&mut [0; 1]);
    });
    let reads_nothing = raw("http", |stream| {
        let _ = stream.peek(&mut [0; 1]);
    });
    // It answers a byte at a time, far below the minimum rate.
    let trickles = raw("http", |mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n");
        while stream.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(10));
        }
    });
    let resets = Raw::start(|_, stream| frame(3, 0, stream, &[0, 0, 0, 2]));
    let resets = outbound(&resets.dsn(), "http2: h2c");
    let nowhere = format!("http://{KEY_A}@nowhere.invalid/11");
    let impatient = "{timeouts: {connect: 200ms}, tls: {system_roots: false}}";
    let large = [envelope("00").into_bytes(), vec![b'x'; 30_000_000]].concat();
    vec![
        case("dns", "", nowhere.clone()),
        case("connect", "", nobody()),
        case("connect_timeout", impatient, silent),
        case(
            "proxy",
            "",
            outbound(&nowhere, "proxy: 'http://127.0.0.1:1'"),
        ),
        case("tls", "tls: {system_roots: false}", no_tls),
        Case {
            request: envelope_request(&large),
            ..case("send", "", reads_a_byte)
        },
        case("receive", "", reads_nothing),
        case("too_slow", "timeouts: {exchange: 300ms}", trickles),
        case("reset", "", resets),
    ]
}

/// Cases in which nothing is sent.
fn skipped_cases() -> Vec<Case> {
    let breaker = "breaker: {failures: 1, pause: 1h, pause_max: 1h}";
    let limited = answering(Action::Answer(429, "{}"));
    let after_one = |case| Case { earlier: 1, ..case };
    let with = |options| outbound(&nobody(), options);
    vec![
        after_one(case(
            "overloaded",
            "limits: {in_flight: 1}",
            answering(Action::Hang),
        )),
        after_one(case("paused", breaker, nobody())),
        after_one(case("rate_limited", "", limited)),
        case("filtered", "", with("categories: [session]")),
        case("sampled", "", with("sample_rate: 0")),
        after_one(case("capped", "", with("cap: {error: 1/day}"))),
    ]
}

#[test]
fn each_outcome_of_a_delivery_is_counted_once() {
    let cases = [answered_cases(), broken_cases(), skipped_cases()].concat();
    let mut seen = Vec::new();
    for case in cases {
        provoke(&case);
        seen.push(case.outcome);
    }
    // Unit tests cover panics, which only a bug can cause. `given_up` is counted after the mirror has stopped:
    // see `sums`.
    let elsewhere = ["panicked", "given_up"];
    let metrics = Process::start(&config(&[nobody()], "admin: {port: 0}")).metrics();
    for (sample, _) in metrics.all(DELIVERIES, &[]) {
        let mut known = seen.iter().chain(&elsewhere);
        assert!(
            known.any(|outcome| sample.contains(&format!("outcome=\"{outcome}\""))),
            "{sample}"
        );
    }
}

fn provoke(case: &Case) {
    let mut config = Config::new([case.outbound.clone()])
        .with_metrics()
        .set("reply_timeout", "50ms");
    if !case.lines.is_empty() {
        config = config.with(case.lines);
    }
    let mirror = config.start();
    for _ in 0..case.earlier {
        mirror.client().ask(&good());
    }
    if case.outcome != "overloaded" {
        mirror.wait_for_metrics(|metrics| metrics.sum(DELIVERIES, &[]) == case.earlier as f64);
    }
    let before = mirror.metrics();
    mirror.client().ask(&case.request);
    let after = mirror
        .wait_for_metrics(|metrics| metrics.sum(DELIVERIES, &[]) > before.sum(DELIVERIES, &[]));
    let moved = after.moved(&before, DELIVERIES);
    let [(sample, 1.0)] = moved.as_slice() else {
        panic!("{}: {moved:?}", case.outcome);
    };
    let expected = format!("outcome=\"{}\"", case.outcome);
    assert!(sample.contains(&expected), "{sample} is not {expected}");
    let requests = after.moved(&before, REQUESTS);
    assert_eq!(requests.iter().map(|(_, by)| by).sum::<f64>(), 1.0);
}

#[test]
fn each_result_of_a_request_is_counted_once() {
    let whole = |request: Vec<u8>| (request, true);
    let half = (good()[..good().len() - 1].to_vec(), false);
    let health = b"GET /health HTTP/1.1\r\nHost: m\r\n\r\n".to_vec();
    let table = [
        ("accepted", Action::ok(), whole(good()), 200),
        ("unconfirmed", Action::Hang, whole(good()), 200),
        (
            "rate_limited",
            Action::Answer(429, "{}"),
            whole(good()),
            429,
        ),
        ("refused", Action::Answer(400, "{}"), whole(good()), 400),
        ("failed", Action::Answer(500, "{}"), whole(good()), 503),
        (
            "rejected",
            Action::ok(),
            whole(post("/api/42/store/", "", "{}")),
            401,
        ),
        ("local", Action::ok(), whole(health), 200),
        ("abandoned", Action::ok(), half, 0),
    ];
    // The first two cannot be provoked from outside: a panic is a bug, and `given_up` is counted after the
    // mirror has stopped, see `sums`.
    let mut seen = vec!["panicked", "given_up"];
    for (result, action, (request, is_whole), status) in table {
        let mirror = Config::new([answering(action)])
            .with_metrics()
            .set("reply_timeout", "50ms")
            .start();
        let before = mirror.metrics();
        let mut client = mirror.client();
        client.send(&request);
        if is_whole {
            assert_eq!(client.response().status, status, "{result}");
        } else {
            client.finish_writing();
            assert!(client.is_closed());
        }
        let after = mirror.metrics();
        let moved = after.moved(&before, REQUESTS);
        let [(sample, 1.0)] = moved.as_slice() else {
            panic!("{result}: {moved:?}");
        };
        assert!(
            sample.contains(&format!("result=\"{result}\"")),
            "{sample} is not {result}"
        );
        seen.push(result);
        for (sample, _) in after.all(REQUESTS, &[]) {
            let mut known = seen.iter();
            let is_seen = known.any(|seen| sample.contains(&format!("result=\"{seen}\"")));
            assert!(is_seen || result != "abandoned", "{sample}");
        }
    }
}

#[test]
fn received_bytes_are_counted_exactly_whatever_the_result() {
    let upstream = Upstream::ok();
    let extra = "admin: {port: 0}\nworkers: 1\ntimeouts: {head: 300ms, body: 300ms}";
    let mirror = Process::start(&config(&[upstream.dsn(KEY_A, 11)], extra));
    let keyed = format!("POST /api/42/envelope/?sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\n");
    let with = |rest: &str| [keyed.as_bytes(), rest.as_bytes()].concat();
    let whole = [
        (200, good()),
        (200, b"GET /health HTTP/1.1\r\n\r\n".to_vec()),
        (
            200,
            with("Transfer-Encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n1\r\n\n\r\n0\r\nA: b\r\n\r\n"),
        ),
        // Its body is read and discarded.
        (401, post("/api/42/store/", "", "0123456789")),
        (400, b"G(T / HTTP/1.1\r\n\r\n".to_vec()),
        (408, b"POST / HT".to_vec()),
        (408, with("Content-Length: 10\r\n\r\n01234")),
        (
            408,
            with("Transfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n6\r\n0"),
        ),
    ];
    let mut sent = 0;
    for (status, request) in whole {
        let response = mirror.client().ask(&request);
        assert_eq!(response.status, status, "{}", request.escape_ascii());
        sent += request.len();
    }
    for request in [
        b"POST /api".to_vec(),
        with("Content-Length: 10\r\n\r\n01234"),
        with("Transfer-Encoding: chunked\r\n\r\n5\r\n01"),
    ] {
        let mut client = mirror.client();
        client.send(&request);
        client.finish_writing();
        assert!(client.is_closed());
        sent += request.len();
    }
    let received =
        |metrics: &Metrics| metrics.value("sentry_mirror_received_bytes_total") == sent as f64;
    mirror.wait_for_metrics(received);
}

#[test]
fn unsent_bytes_are_not_counted_as_delivered() {
    let (a, limited) = (
        Upstream::ok(),
        Upstream::start(|_, _| Action::Answer(429, "{}")),
    );
    let outbounds = [a.dsn(KEY_A, 11), limited.dsn(KEY_B, 22), nobody()];
    let extra = "admin: {port: 0}\nworkers: 1\nbreaker: {failures: 1, pause: 1h, pause_max: 1h}";
    let mirror = Process::start(&config(&outbounds, extra));
    for count in 1..=3 {
        assert_eq!(mirror.client().ask(&good()).status, 200);
        mirror.wait_for_metrics(|metrics| metrics.sum(DELIVERIES, &[]) == 3.0 * f64::from(count));
    }
    let metrics = mirror.metrics();
    for outcome in ["connect", "paused", "429", "rate_limited"] {
        let outcome = format!("outcome=\"{outcome}\"");
        assert!(metrics.sum(DELIVERIES, &[&outcome]) > 0.0, "{outcome}");
    }
    let of = |outbound: &str| metrics.sum("sentry_mirror_delivered_bytes_total", &[outbound]);
    let received = |upstream: &Upstream| {
        let bytes = upstream.received().iter().map(size).sum::<usize>();
        bytes as f64
    };
    assert_eq!(a.received().len(), 3);
    assert_eq!(of(&format!("{}/", a.address)), received(&a));
    assert_eq!(limited.received().len(), 1);
    assert_eq!(of(&format!("{}/", limited.address)), received(&limited));
    let (_, dead) = outbounds[2].split_once('@').unwrap();
    assert_eq!(of(dead), 0.0);
}

/// The size of a request in bytes.
fn size(request: &Received) -> usize {
    let fields = request.fields.iter();
    let fields: usize = fields
        .map(|(name, value)| name.len() + ": ".len() + value.len() + "\r\n".len())
        .sum();
    request.line.len() + "\r\n".len() + fields + "\r\n".len() + request.body.len()
}

#[test]
fn deliveries_are_requests_times_outbounds_and_have_latencies() {
    let (a, b) = (
        Upstream::ok(),
        Upstream::start(|number, _| match number % 3 {
            0 => Action::ok(),
            1 => Action::Answer(500, "{}"),
            _ => Action::Close,
        }),
    );
    let outbounds = [a.dsn(KEY_A, 11), b.dsn(KEY_B, 22)];
    let mirror = Process::start(&config(&outbounds, "admin: {port: 0}\nworkers: 2"));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = mirror.client();
                for _ in 0..25 {
                    assert_eq!(client.ask(&good()).status, 200);
                }
            });
        }
    });
    let mut client = mirror.client();
    client.ask(b"GET /health HTTP/1.1\r\nHost: m\r\n\r\n");
    client.ask(b"OPTIONS /api/42/envelope/ HTTP/1.1\r\nHost: m\r\n\r\n");
    let metrics = mirror.wait_for_metrics(|metrics| metrics.sum(DELIVERIES, &[]) == 400.0);
    assert_eq!(metrics.sum(REQUESTS, &["result=\"accepted\""]), 200.0);
    assert_eq!(metrics.sum(REQUESTS, &[]), 202.0);
    let route = "route=\"http://0123…@mirror.example.com/42\"";
    assert_eq!(metrics.sum(REQUESTS, &[route]), 200.0);
    assert_eq!(
        metrics.value(&format!("{REQUESTS}{{route=\"none\",result=\"local\"}}")),
        2.0
    );
    for key in ["aaaa", "bbbb"] {
        let outbound = format!("outbound=\"http://{key}…@");
        assert_eq!(metrics.sum(DELIVERIES, &[route, &outbound]), 200.0);
        let name = "sentry_mirror_delivery_duration_seconds_count";
        assert_eq!(metrics.sum(name, &[&outbound]), 200.0);
    }
    let is_as_answered = |outcome: &str| metrics.sum(DELIVERIES, &["bbbb", outcome]) >= 60.0;
    assert!(is_as_answered("outcome=\"2xx\"") && is_as_answered("outcome=\"5xx\""));
    for name in ["request_duration", "reply_wait"] {
        let count = format!("sentry_mirror_{name}_seconds_count");
        assert_eq!(metrics.sum(&count, &[]), 200.0, "{name}");
        assert!(metrics.sum(&format!("sentry_mirror_{name}_seconds_sum"), &[]) > 0.0);
    }
    let sent = (good().len() * 200) as f64;
    assert!(metrics.value("sentry_mirror_received_bytes_total") > sent);
    assert!(metrics.sum("sentry_mirror_delivered_bytes_total", &["aaaa"]) > sent / 2.0);
    assert_eq!(metrics.value("sentry_mirror_sdk_connections_total"), 9.0);
    // Connections are reused, and a closed one is replaced.
    let origin = format!("origin=\"http://{}\"", a.address);
    let opened = metrics.sum(
        "sentry_mirror_upstream_connections_opened_total",
        &[&origin],
    );
    let reused = metrics.sum(
        "sentry_mirror_upstream_connections_reused_total",
        &[&origin],
    );
    assert_eq!(opened, a.connections() as f64);
    assert!(reused + opened >= 200.0 && reused > opened);
}

#[test]
fn gauges_follow_the_state_within_seconds() {
    let a = Upstream::start(|number, _| match number {
        0 => Action::ok(),
        _ => Action::Hang,
    });
    let limited = Upstream::start(|_, _| {
        Action::Raw(
        b"HTTP/1.1 200 OK\r\nX-Sentry-Rate-Limits: 60:error:key, 60:session:key\r\nContent-Length: 2\r\n\r\n{}".to_vec(),
    )
    });
    let outbounds = [
        a.dsn(KEY_A, 11),
        nobody(),
        limited.dsn(KEY_B, 22),
        format!("http://{KEY_B}@localhost:9/1"),
    ];
    let extra = "admin: {port: 0}\nworkers: 1\nbreaker: {failures: 1, pause: 1h, pause_max: 1h}";
    let mirror = Process::start(&config(&outbounds, extra));
    let mut client = mirror.client();
    assert_eq!(client.ask(&good()).status, 200);
    let origin = format!("{{origin=\"http://{}\"}}", a.address);
    mirror.wait_for_metrics(|metrics| {
        metrics.value("sentry_mirror_sdk_connections_open") == 1.0
            && metrics.value(&format!("sentry_mirror_upstream_connections_idle{origin}")) == 1.0
            && metrics.value(&format!("sentry_mirror_upstream_connections_open{origin}")) == 1.0
            && metrics.value(&format!("sentry_mirror_breakers_open{origin}")) == 0.0
            && metrics.sum("sentry_mirror_breakers_open", &[]) == 2.0
            && metrics.sum(
                "sentry_mirror_rate_limits",
                &["bbbb", &limited.address.to_string()],
            ) == 2.0
            && metrics.value("sentry_mirror_request_memory_limit_bytes") > 1e9
            && metrics.value("sentry_mirror_ready") == 1.0
            && metrics.value("sentry_mirror_dns_age_seconds{origin=\"http://localhost:9\"}") < 60.0
    });
    client.send(&good());
    mirror.wait_for_metrics(|metrics| {
        metrics.value(&format!("sentry_mirror_deliveries_in_flight{origin}")) == 1.0
            && metrics.value("sentry_mirror_request_memory_bytes") > 0.0
    });
}

#[test]
fn a_reload_keeps_counters_of_kept_outbounds_and_removes_the_others() {
    let (a, b) = (Upstream::ok(), Upstream::ok());
    let text = |outbounds: &[String], limits: &str| {
        config(
            outbounds,
            &format!("admin: {{port: 0}}\nlimits: {{{limits}}}"),
        )
    };
    let both = [a.dsn(KEY_A, 11), b.dsn(KEY_B, 22)];
    let path = file("config.yml", &text(&both, "in_flight: 100"));
    let mirror = Process::start_at(&path);
    let mut client = mirror.client();
    client.ask(&good());
    let count = |metrics: &Metrics, key: &str| {
        metrics
            .all(DELIVERIES, &[key])
            .iter()
            .map(|(_, value)| value)
            .sum::<f64>()
    };
    mirror
        .wait_for_metrics(|metrics| count(metrics, "aaaa") == 1.0 && count(metrics, "bbbb") == 1.0);
    std::fs::write(
        &path,
        text(&[b.dsn(KEY_B, 22), a.dsn("cccc", 3)], "in_flight: 50"),
    )
    .unwrap();
    mirror.signal("HUP");
    mirror.wait_for_line("configuration reloaded");
    client.ask(&good());
    let metrics = mirror.wait_for_metrics(|metrics| count(metrics, "cccc") == 1.0);
    assert_eq!(count(&metrics, "bbbb"), 2.0);
    assert!(metrics.all(DELIVERIES, &["aaaa"]).is_empty());
    assert_eq!(metrics.sum(REQUESTS, &["result=\"accepted\""]), 2.0);
    assert_eq!(
        metrics.value("sentry_mirror_config_reloads_total{result=\"done\"}"),
        1.0
    );
    let opened = format!(
        "sentry_mirror_upstream_connections_opened_total{{origin=\"http://{}\"}}",
        b.address
    );
    assert_eq!(metrics.value(&opened), b.connections() as f64);
    std::fs::write(&path, "keys: nonsense\n").unwrap();
    mirror.signal("HUP");
    mirror.wait_for_metrics(|metrics| {
        metrics.value("sentry_mirror_config_reloads_total{result=\"refused\"}") == 1.0
    });
    assert_eq!(Client::connect(mirror.address).ask(&good()).status, 200);
}
