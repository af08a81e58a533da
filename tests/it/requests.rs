//! Inbound HTTP: framing, limits, rejections, keep-alive, preflights, health.

use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};

use crate::support::{
    Action, IN_KEY, KEY_A, PATIENCE, Process, Upstream, config, envelope, envelope_request,
};

const ID: &str = "9ec79c33ec9942ab8353589fcb2e04dc";

fn mirror(extra: &str) -> (Upstream, Process) {
    let upstream = Upstream::ok();
    let mirror = Process::start(&config(&[upstream.dsn(KEY_A, 11)], extra));
    (upstream, mirror)
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (upstream, mirror) = mirror("");
    let mut client = mirror.client();
    let mut bytes = envelope_request(envelope(ID).as_bytes());
    bytes.extend_from_slice(b"GET /health HTTP/1.1\r\nHost: m\r\n\r\n");
    bytes.extend_from_slice(&envelope_request(b"{}\n"));
    bytes.extend_from_slice(b"GET /nothing HTTP/1.1\r\nHost: m\r\n\r\n");
    client.send(&bytes);
    assert_eq!(client.response().text(), r#"{"id":"from-upstream"}"#);
    assert_eq!(client.response().text(), "ok\n");
    assert_eq!(client.response().status, 200);
    assert_eq!(client.response().status, 404);
    assert_eq!(upstream.received().len(), 2);
}

#[test]
fn a_request_arrives_in_pieces_of_any_size() {
    let (upstream, mirror) = mirror("");
    let mut client = mirror.client();
    for byte in envelope_request(envelope(ID).as_bytes()) {
        client.send(&[byte]);
    }
    assert_eq!(client.response().status, 200);
    assert!(upstream.wait_for(1)[0].text().contains(ID));
}

#[test]
fn a_100_continue_is_sent_once_the_request_is_routed() {
    let (upstream, mirror) = mirror("");
    let head = |key: &str| {
        format!(
            "POST /api/42/envelope/?sentry_key={key} HTTP/1.1\r\nHost: m\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
        )
    };
    let mut client = mirror.client();
    client.send(head(IN_KEY).as_bytes());
    assert_eq!(client.response_head().status, 100);
    client.send(b"{}\n");
    assert_eq!(client.response().status, 200);
    assert_eq!(upstream.wait_for(1)[0].field("Expect"), None);

    // An unknown key is rejected before the body is sent.
    let mut client = mirror.client();
    let response = client.ask(head(KEY_A).as_bytes());
    assert_eq!(response.status, 403);
    assert_eq!(response.field("Connection"), Some("close"));
}

#[test]
fn every_rejection_has_the_status_and_body_of_relay() {
    let (upstream, mirror) = mirror("");
    let post = |target: &str, fields: &str, body: &str| {
        format!(
            "POST {target} HTTP/1.1\r\nHost: m\r\n{fields}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let keyed = format!("/api/42/envelope/?sentry_key={IN_KEY}");
    let auth = format!("X-Sentry-Auth: Sentry sentry_key={IN_KEY}\r\n");
    #[rustfmt::skip]
    let cases = [
        (post("/api/42/store/", "", "{}"), 401, "missing authorization information"),
        (post("/api/42/envelope/", "", "{}"), 401, "bad envelope authentication header"),
        (post("/tunnel", "", "hello"), 401, "bad envelope authentication header"),
        (post(&keyed, &auth, "{}"), 401, "multiple authorization payloads detected"),
        (post(&format!("/api/42/envelope/?sentry_key={KEY_A}"), "", "{}"), 403, "event submission rejected with_reason: the mirror has no route for this key"),
        (post("/api/42/envelope/?sentry_key=short", "", "{}"), 400, "bad sentry DSN public key"),
        (post(&keyed, "", "[]"), 400, "invalid event envelope: "),
        (post(&keyed, "", ""), 400, "invalid event envelope: "),
        (post(&keyed, "Content-Encoding: compress\r\n", "{}"), 415, "unsupported content encoding"),
        (post(&keyed, "Content-Encoding: gzip, gzip\r\n", "{}"), 415, "unsupported content encoding"),
        (post(&keyed, "Content-Encoding: gzip\r\n", "not gzip"), 400, "failed to decode the request body: "),
        (format!("PUT {keyed} HTTP/1.1\r\nHost: m\r\n\r\n"), 405, "method not allowed, expected POST"),
        (post("/api/42/upload/", "", ""), 404, "not found"),
        ("GET /nothing HTTP/1.1\r\nHost: m\r\n\r\n".to_owned(), 404, "not found"),
    ];
    let mut client = mirror.client();
    for (request, status, detail) in &cases {
        let response = client.ask(request.as_bytes());
        assert_eq!(response.status, *status, "{request}");
        assert_eq!(response.field("Content-Type"), Some("application/json"));
        let expected = format!(r#"{{"detail":"{detail}"#);
        assert!(
            response.text().starts_with(&expected),
            "{} is not {expected}",
            response.text()
        );
    }
    // The connection of a load balancer survives all of these.
    assert_eq!(client.ask(&envelope_request(b"{}\n")).status, 200);
    assert_eq!(upstream.received().len(), 1);
}

#[test]
fn a_request_with_doubtful_framing_is_refused_and_never_forwarded() {
    let (upstream, mirror) = mirror("");
    let keyed = format!("POST /api/42/envelope/?sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\n");
    let smuggled = envelope_request(b"{}\n");
    #[rustfmt::skip]
    let cases = [
        ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("Content-Length: 3\r\nContent-Length: 3\r\n\r\n", 400),
        ("Content-Length: 3, 3\r\n\r\n", 400),
        ("Content-Length: +3\r\n\r\n", 400),
        ("Content-Length: 99999999999999999999999\r\n\r\n", 400),
        ("Transfer-Encoding: gzip, chunked\r\n\r\n", 400),
        ("Transfer-Encoding: identity\r\n\r\n", 400),
        ("Transfer-Encoding: chunked\r\n\r\n3 \r\n{}\n\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked\r\n\r\n3\n{}\n\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked\r\n\r\n-3\r\n{}\n\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked\r\n\r\n3\r\n{}\nX0\r\n\r\n", 400),
        ("X: a\rb\r\n\r\n", 400),
        ("X: a\0b\r\n\r\n", 400),
        ("X: a\r\n folded\r\n\r\n", 400),
        ("X : a\r\n\r\n", 400),
        ("Host: other\r\n\r\n", 400),
    ];
    for (rest, status) in cases {
        let mut client = mirror.client();
        let mut bytes = [keyed.as_bytes(), rest.as_bytes()].concat();
        bytes.extend_from_slice(&smuggled);
        let response = client.ask(&bytes);
        assert_eq!(response.status, status, "{rest:?}");
        assert_eq!(response.field("Connection"), Some("close"), "{rest:?}");
        assert!(client.is_closed(), "{rest:?}");
    }
    assert_eq!(upstream.received().len(), 0);
}

#[test]
fn heads_and_bodies_over_the_limits_are_refused() {
    let (upstream, mirror) = mirror(
        "limits: {head_bytes: 2KiB, header_count: 10, body_bytes: 1KiB, decoded_bytes: 2KiB, memory_bytes: 1MiB}",
    );
    let keyed = format!("POST /api/42/envelope/?sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\n");
    let long = "x".repeat(3000);
    let many: String = (0..10).map(|i| format!("X-{i}: 1\r\n")).collect();
    let bomb = {
        use std::io::Write;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&vec![b' '; 100_000]).unwrap();
        encoder.finish().unwrap()
    };
    let bomb_head = format!(
        "{keyed}Content-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        bomb.len()
    );
    let cases: [(Vec<u8>, u16); 6] = [
        (format!("{keyed}X: {long}\r\n\r\n").into(), 431),
        (format!("{keyed}{many}\r\n").into(), 431),
        (format!("{keyed}Content-Length: 1025\r\n\r\n").into(), 413),
        (
            format!(
                "{keyed}Transfer-Encoding: chunked\r\n\r\n401\r\n{}\r\n0\r\n\r\n",
                &long[..1025]
            )
            .into(),
            413,
        ),
        ([bomb_head.as_bytes(), &bomb].concat(), 413),
        (b"GET / HTTP/3.0\r\n\r\n".to_vec(), 505),
    ];
    for (request, status) in cases {
        let response = mirror.client().ask(&request);
        let text = String::from_utf8_lossy(&request[..request.len().min(200)]).into_owned();
        assert_eq!(response.status, status, "{text}");
    }
    assert_eq!(upstream.received().len(), 0);
    assert_eq!(mirror.client().ask(&envelope_request(b"{}\n")).status, 200);
}

#[test]
fn a_body_that_does_not_fit_the_memory_budget_is_refused_before_it_is_read() {
    let (upstream, mirror) = mirror("limits: {memory_bytes: 1MiB}");
    let head = format!(
        "POST /api/42/envelope/?sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\nContent-Length: {}\r\n\r\n",
        2 * 1024 * 1024
    );
    let response = mirror.client().ask(head.as_bytes());
    assert_eq!(response.status, 503);
    assert_eq!(response.field("Retry-After"), None);
    assert_eq!(upstream.received().len(), 0);
}

#[test]
fn a_client_that_stops_sending_gets_408_and_is_closed() {
    let (upstream, mirror) = mirror("timeouts: {head: 100ms, body: 100ms, idle: 100ms}");
    let mut silent = mirror.client();
    assert!(silent.is_closed());

    let mut client = mirror.client();
    client.send(b"POST /api/42/");
    assert_eq!(client.response().status, 408);
    assert!(client.is_closed());

    let mut client = mirror.client();
    client.send(&envelope_request(b"{}\n")[..200]);
    assert_eq!(client.response().status, 408);
    assert!(client.is_closed());
    assert_eq!(upstream.received().len(), 0);
}

#[test]
fn an_incomplete_body_is_dropped_and_a_complete_one_is_delivered_without_its_client() {
    let (upstream, mirror) = mirror("");
    let whole = envelope_request(envelope(ID).as_bytes());
    let mut client = mirror.client();
    client.send(&whole[..whole.len() - 1]);
    drop(client);
    let mut client = mirror.client();
    client.send(&whole);
    drop(client);
    upstream.wait_for(1);
    // A half-closed client still gets its reply.
    let mut client = mirror.client();
    client.send(&whole);
    client.finish_writing();
    assert_eq!(client.response().status, 200);
    assert_eq!(upstream.wait_for(2).len(), 2);
}

#[test]
fn keep_alive_follows_the_version_and_the_connection_field() {
    let (_upstream, mirror) = mirror("");
    #[rustfmt::skip]
    let cases = [
        ("HTTP/1.1", "", None, false),
        ("HTTP/1.1", "Connection: close\r\n", Some("close"), true),
        ("HTTP/1.0", "", Some("close"), true),
        ("HTTP/1.0", "Connection: Keep-Alive\r\n", Some("keep-alive"), false),
    ];
    for (version, fields, expected, is_closed) in cases {
        let mut client = mirror.client();
        let request = format!("GET /health {version}\r\n{fields}\r\n");
        let response = client.ask(request.as_bytes());
        assert_eq!(response.field("Connection"), expected, "{request}");
        if is_closed {
            assert!(client.is_closed(), "{request}");
        } else {
            assert_eq!(client.ask(request.as_bytes()).status, 200, "{request}");
        }
    }
}

#[test]
fn preflights_get_the_allow_lists_of_relay() {
    let (_upstream, mirror) = mirror("");
    let mut client = mirror.client();
    for (target, methods) in [
        ("/api/42/envelope/", "POST"),
        ("/api/42/cron/job/", "GET,HEAD,POST"),
        ("/tunnel", "POST"),
    ] {
        let response = client.ask(
            format!("OPTIONS {target} HTTP/1.1\r\nHost: m\r\nOrigin: https://a.example\r\n\r\n")
                .as_bytes(),
        );
        assert_eq!(response.status, 200);
        assert_eq!(response.field("Allow"), Some(methods));
        assert_eq!(
            response.field("Access-Control-Allow-Methods"),
            Some(methods)
        );
        assert_eq!(response.field("Access-Control-Max-Age"), Some("3600"));
        let allowed = response.field("Access-Control-Allow-Headers").unwrap();
        for name in ["x-sentry-auth", "content-type", "content-encoding"] {
            assert!(allowed.contains(name));
        }
    }
}

#[test]
fn health_is_answered_to_get_and_head() {
    let (_upstream, mirror) = mirror("");
    let mut client = mirror.client();
    let response = client.ask(b"GET /health HTTP/1.1\r\nHost: m\r\n\r\n");
    assert_eq!((response.status, response.text()), (200, "ok\n"));
    client.send(b"HEAD /health HTTP/1.1\r\nHost: m\r\n\r\n");
    assert_eq!(client.response_head().field("Content-Length"), Some("3"));
    assert_eq!(
        client.ask(b"GET /health/ HTTP/1.1\r\n\r\n").text(),
        "ok\n",
        "nothing of a body may have followed the answer to HEAD"
    );
}

#[test]
fn health_ignores_the_query_and_the_form_of_the_target() {
    let (upstream, mirror) = mirror("");
    let mut client = mirror.client();
    let alive = r#"{"is_healthy":true}"#;
    for (path, body) in [
        ("/health", "ok\n"),
        ("/health/", "ok\n"),
        ("/api/0/relays/live", alive),
        ("/api/0/relays/live/", alive),
    ] {
        for start in [
            "",
            "http://m",
            "HTTP://elsewhere.example:8080",
            "https://[::1]",
        ] {
            for query in ["", "?", "?verbose", "?a=/x&b=http://m/"] {
                for host in ["Host: m\r\n", ""] {
                    let request = format!("GET {start}{path}{query} HTTP/1.1\r\n{host}\r\n");
                    let response = client.ask(request.as_bytes());
                    assert_eq!((response.status, response.text()), (200, body), "{request}");
                }
            }
        }
    }
    for target in [
        "/healthy",
        "/a?/health",
        "http://health/",
        "http://m/a/health",
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: m\r\n\r\n");
        assert_eq!(client.ask(request.as_bytes()).status, 404, "{request}");
    }
    assert_eq!(upstream.received().len(), 0);
}

#[test]
fn a_target_in_absolute_form_is_accepted() {
    let (upstream, mirror) = mirror("");
    let request = format!(
        "POST http://elsewhere/api/42/envelope/?sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\nContent-Length: 3\r\n\r\n{{}}\n"
    );
    assert_eq!(mirror.client().ask(request.as_bytes()).status, 200);
    assert_eq!(
        upstream.wait_for(1)[0].line,
        format!("POST /api/11/envelope/?sentry_key={KEY_A} HTTP/1.1")
    );
}

#[test]
fn bare_line_feeds_are_forwarded_as_crlf() {
    let (upstream, mirror) = mirror("");
    let request = format!(
        "POST /api/42/envelope/ HTTP/1.1\nHost: m\nX-Sentry-Auth: Sentry sentry_key={IN_KEY}\nContent-Length: 3\n\n{{}}\n"
    );
    assert_eq!(mirror.client().ask(request.as_bytes()).status, 200);
    // The upstream of the tests insists on CRLF.
    let got = upstream.wait_for(1).remove(0);
    let names: Vec<&str> = got.fields.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["Host", "X-Sentry-Auth", "Via", "Content-Length"]);
    assert_eq!(got.text(), "{}\n");
}

#[test]
fn announced_bodies_reserve_no_memory() {
    let (upstream, mirror) =
        mirror("workers: 1\nlimits: {memory_bytes: 4MiB, body_bytes: 3MiB, decoded_bytes: 3MiB}");
    // A request to a tunnel needs no key in its head.
    let mut hogs: Vec<_> = (0..20).map(|_| mirror.client()).collect();
    for hog in &mut hogs {
        hog.send(b"POST /x HTTP/1.1\r\nHost: m\r\nContent-Length: 3000000\r\n\r\n{");
    }
    let mut client = mirror.client();
    for _ in 0..10 {
        assert_eq!(
            client
                .ask(&envelope_request(envelope(ID).as_bytes()))
                .status,
            200
        );
    }
    assert_eq!(upstream.received().len(), 10);
}

#[test]
fn a_body_below_the_minimum_data_rate_is_refused() {
    let (upstream, mirror) = mirror("timeouts: {body: 300ms}");
    let mut client = mirror.client();
    client.send(
        format!(
            "POST /api/42/envelope/?sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\nContent-Length: 100000\r\n\r\n"
        )
        .as_bytes(),
    );
    let started = std::time::Instant::now();
    let mut trickle = client.another_handle();
    let trickling = std::thread::spawn(move || {
        use std::io::Write;
        // Each byte is progress, so only the data rate can end this.
        while trickle.write_all(b"x").is_ok() {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    });
    let response = client.response();
    assert_eq!(response.status, 408);
    assert!(started.elapsed() < std::time::Duration::from_secs(5));
    client.finish_writing();
    trickling.join().unwrap();
    assert_eq!(upstream.received().len(), 0);
}

#[test]
fn a_fast_start_does_not_excuse_a_slow_body() {
    let (upstream, mirror) = mirror("admin: {port: 0}\ntimeouts: {body: 300ms}");
    let mut client = mirror.client();
    let announced = 64 * 1024 * 1024;
    let head = format!(
        "POST /api/42/envelope/?sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\nContent-Length: {announced}\r\n\r\n"
    );
    client.send(head.as_bytes());
    client.send(&vec![b'x'; announced / 2]);
    let mut trickle = client.another_handle();
    let trickling = std::thread::spawn(move || {
        use std::io::Write;
        // The average rate stays high enough for hours.
        while trickle.write_all(b"x").is_ok() {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    });
    assert_eq!(client.response().status, 408);
    client.finish_writing();
    trickling.join().unwrap();
    assert_eq!(upstream.received().len(), 0);
    mirror.wait_for_metrics(|metrics| metrics.value("sentry_mirror_request_memory_bytes") == 0.0);
}

#[test]
fn a_rejection_says_whether_the_connection_stays_open() {
    let (_upstream, mirror) = mirror("");
    let refused = |length: usize| {
        format!(
            "POST /api/42/store/?sentry_key={KEY_A} HTTP/1.1\r\nHost: m\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let mut client = mirror.client();
    let small = [refused(1000).as_bytes(), &[b'x'; 1000]].concat();
    for _ in 0..2 {
        let response = client.ask(&small);
        assert_eq!((response.status, response.field("Connection")), (403, None));
    }
    let response = client.ask(refused(10_000_000).as_bytes());
    assert_eq!(response.status, 403);
    assert_eq!(response.field("Connection"), Some("close"));
    assert!(client.is_closed());
}

#[test]
fn a_path_that_leaves_the_api_is_refused() {
    let (upstream, mirror) = mirror("");
    let mut client = mirror.client();
    for path in [
        "/api/42/../../internal",
        "/api/42/%2e%2E/x/",
        "/api/42/./envelope/",
    ] {
        let request = format!("GET {path}?sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\n\r\n");
        assert_eq!(client.ask(request.as_bytes()).status, 404, "{path}");
    }
    assert_eq!(upstream.received().len(), 0);
}

#[test]
fn an_envelope_header_with_many_dsns_is_refused() {
    let (upstream, mirror) = mirror("");
    let many = format!("{{{}\"a\":1}}\n", "\"dsn\":\"\",".repeat(1000));
    let response = mirror.client().ask(&envelope_request(many.as_bytes()));
    assert_eq!(response.status, 400);
    let text = response.text();
    assert!(text.contains("duplicate field"), "{text}");
    assert_eq!(upstream.received().len(), 0);
}

/// Relay has no separate limit for it.
#[test]
fn an_envelope_header_may_be_as_long_as_its_limit() {
    let long = |bytes: usize| {
        let text = envelope(ID);
        let (start, rest) = text.split_at(1);
        format!("{start}\"a\":\"{}\",{rest}", "x".repeat(bytes))
    };
    for (extra, bytes, status) in [
        ("", 200_000, 200),
        ("", 300_000, 400),
        ("limits: {envelope_header_bytes: 2MiB}", 2_000_000, 200),
        ("limits: {envelope_header_bytes: 2MiB}", 5_000_000, 400),
        ("limits: {envelope_header_bytes: 8MiB}", 5_000_000, 200),
        ("limits: {envelope_header_bytes: 4KiB}", 5_000, 400),
        ("limits: {envelope_header_bytes: 4KiB}", 3_000, 200),
    ] {
        let (upstream, mirror) = mirror(extra);
        let body = long(bytes);
        let response = mirror.client().ask(&envelope_request(body.as_bytes()));
        assert_eq!(response.status, status, "{extra} {bytes}");
        if status == 200 {
            let received = &upstream.wait_for(1)[0];
            let expected = body
                .replace(
                    &format!("http://{IN_KEY}@mirror.example.com/42"),
                    &upstream.dsn(KEY_A, 11),
                )
                .replace(IN_KEY, KEY_A);
            assert!(received.text() == expected, "{extra} {bytes}");
        } else {
            assert!(response.text().contains("too long"), "{}", response.text());
            assert_eq!(upstream.received().len(), 0);
        }
    }
}

#[test]
fn no_client_can_monopolise_a_worker_on_epoll() {
    let (_upstream, mirror) = mirror("driver: epoll\nworkers: 1");
    let is_done = std::sync::atomic::AtomicBool::new(false);
    let answered = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = mirror.client();
                let many = b"GET /health HTTP/1.1\r\n\r\n".repeat(100);
                while !is_done.load(std::sync::atomic::Ordering::SeqCst) {
                    client.send(&many);
                    for _ in 0..100 {
                        assert_eq!(client.response().status, 200);
                        answered.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    }
                }
            });
        }
        let mut probe = mirror.client();
        for _ in 0..20 {
            let before = answered.load(std::sync::atomic::Ordering::SeqCst);
            assert_eq!(probe.ask(b"GET /health HTTP/1.1\r\n\r\n").status, 200);
            // How many requests of the others went first.
            let first = answered.load(std::sync::atomic::Ordering::SeqCst) - before;
            assert!(first < 4_000, "{first}");
        }
        is_done.store(true, std::sync::atomic::Ordering::SeqCst);
    });
}

/// A mirror whose upstream answers a request when the test sends to the channel.
fn mirror_with_a_held_answer(extra: &str) -> (Upstream, Process, Sender<()>) {
    let (answer, held) = channel();
    let held = Mutex::new(held);
    let upstream = Upstream::start(move |_, _| {
        let held = held.lock().unwrap();
        held.recv_timeout(PATIENCE).expect("the test says when");
        Action::ok()
    });
    let mirror = Process::start(&config(&[upstream.dsn(KEY_A, 11)], extra));
    (upstream, mirror, answer)
}

#[test]
fn a_connection_that_closes_after_its_reply_is_not_reset_by_unread_bytes() {
    let request = |version: &str, field: &str| {
        format!(
            "POST /api/42/store/?sentry_key={IN_KEY} HTTP/{version}\r\nHost: m\r\n{field}Content-Length: 2\r\n\r\n{{}}"
        )
    };
    let more = "x".repeat(200_000);
    for driver in ["io_uring", "epoll"] {
        let (upstream, mirror, answer) = mirror_with_a_held_answer(&format!("driver: {driver}"));
        let mut count = 0;
        for (version, field) in [("1.1", "Connection: close\r\n"), ("1.0", "")] {
            let another = request(version, field);
            for behind in ["\r\n", &another, &more] {
                let what = format!("{driver}, HTTP/{version}, {} bytes behind", behind.len());
                let mut client = mirror.client();
                client.send(request(version, field).as_bytes());
                count += 1;
                upstream.wait_for(count);
                // The mirror has read the request, and reads nothing more before the reply.
                client.send(behind.as_bytes());
                answer.send(()).unwrap();
                let response = client.response();
                assert_eq!(response.status, 200, "{what}");
                assert_eq!(response.field("Connection"), Some("close"), "{what}");
                assert!(client.is_closed(), "{what}");
            }
        }
        assert_eq!(upstream.received().len(), count);
    }
}

#[test]
fn a_connection_closed_at_shutdown_is_not_reset_by_unread_bytes() {
    for driver in ["io_uring", "epoll"] {
        let (upstream, mirror, answer) = mirror_with_a_held_answer(&format!("driver: {driver}"));
        let mut client = mirror.client();
        client.send(&envelope_request(b"{}\n"));
        upstream.wait_for(1);
        mirror.signal("TERM");
        mirror.wait_for_line("stopping");
        client.send(&b"GET /health HTTP/1.1\r\nHost: m\r\n\r\n".repeat(5_000));
        answer.send(()).unwrap();
        // The worker may see the signal after the first reply.
        while client.response().field("Connection").is_none() {}
        assert!(client.is_closed(), "{driver}");
        client.finish_writing();
        let (status, log) = mirror.wait();
        assert!(status.success(), "{log:?}");
    }
}

#[test]
fn empty_lines_before_a_request_are_ignored() {
    for driver in ["io_uring", "epoll"] {
        let (upstream, mirror) = mirror(&format!(
            "driver: {driver}\ntimeouts: {{head: 200ms, idle: 60s}}"
        ));
        let mut behind_a_body = mirror.client();
        let request = envelope_request(b"{}\n");
        let with_an_empty_line = [&request[..], b"\r\n"].concat();
        assert_eq!(behind_a_body.ask(&with_an_empty_line).status, 200);
        let mut alone = mirror.client();
        alone.send(b"\r");
        alone.send(b"\n\r\n\n");
        // If the time-outs of the others had started, they would be over before this one.
        let mut half = mirror.client();
        half.send(b"\r\nPOST");
        assert_eq!(half.response().status, 408);
        assert_eq!(alone.ask(&request).status, 200);
        assert_eq!(behind_a_body.ask(&request).status, 200);
        // In pieces, too.
        behind_a_body.send(b"\r");
        behind_a_body.send(b"\n");
        assert_eq!(behind_a_body.ask(&request).status, 200);
        assert_eq!(upstream.received().len(), 4);
    }
}

#[test]
fn a_connection_with_only_an_empty_line_is_idle() {
    let (_upstream, mirror) = mirror("timeouts: {head: 100ms, idle: 300ms}");
    let mut client = mirror.client();
    let request = [&envelope_request(b"{}\n")[..], b"\r\n"].concat();
    assert_eq!(client.ask(&request).status, 200);
    assert!(client.is_closed());
    let mut client = mirror.client();
    client.send(b"\n");
    assert!(client.is_closed());
}
