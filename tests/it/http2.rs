//! HTTP/2 to upstreams: the same requests as over HTTP/1.1, and servers that reset, leave, flood or fall silent.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::ServerConnection;
use rustls::version::TLS13;

use crate::support::http2::{Options, Raw, Seen, Server, frame, ok};
use crate::support::ledger::{Fate, Ledger, Sink, body};
use crate::support::tls::Authority;
use crate::support::{
    Config, KEY_A, KEY_B, Metrics, Process, Reloadable, Response, Upstream, envelope,
    envelope_request, outbound, wait_until,
};

const ID: &str = "9ec79c33ec9942ab8353589fcb2e04dc";
const OPENED: &str = "sentry_mirror_upstream_http2_connections_opened_total";
const ENDED: &str = "sentry_mirror_upstream_http2_connections_ended_total";
const FAILED: &str = "sentry_mirror_upstream_http2_streams_failed_total";
const PINGS: &str = "sentry_mirror_upstream_http2_pings_total";
const RETRIES: &str = "sentry_mirror_upstream_retries_total";
const DELIVERIES: &str = "sentry_mirror_deliveries_total";

/// A server with TLS that offers these protocols.
fn tls_server(authority: &Authority, protocols: &[&[u8]], options: Options) -> Server {
    let mut config = authority.server_config("localhost");
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Server::start(Options {
        tls: Some(Arc::new(config)),
        ..options
    })
}

const BOTH: &[&[u8]] = &[b"h2", b"http/1.1"];

fn h2c(server: &Server) -> serde_yaml::Value {
    outbound(&server.dsn("http"), "http2: h2c")
}

/// A mirror whose only outbound gets HTTP/2 without TLS.
fn over_h2c(dsn: &str) -> Process {
    Config::new([outbound(dsn, "http2: h2c")])
        .set("reply_timeout", "20s")
        .with_metrics()
        .start()
}

/// Sends an event, and returns the reply.
fn ask(mirror: &Process) -> Response {
    mirror
        .client()
        .ask(&envelope_request(envelope(ID).as_bytes()))
}

/// Sends an event and expects its success.
fn send(mirror: &Process) {
    let response = ask(mirror);
    assert_eq!(response.status, 200, "{}", response.text());
}

/// The last of `count` requests, once so many have arrived. A reply may come before, after `reply_timeout`.
fn last(server: &Server, count: usize) -> Seen {
    wait_until(
        || server.count() >= count,
        || format!("{} of {count}", server.count()),
    );
    server.seen().pop().unwrap()
}

/// Has `clients` send `each` events one after another, and notes their fates.
fn storm(mirror: &Process, ledger: &Ledger, clients: usize, each: usize) {
    thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                let mut client = mirror.client();
                for _ in 0..each {
                    let number = ledger.number();
                    let response = client.ask(&envelope_request(&body(number)));
                    let fate = match response.status {
                        200 => Fate::Accepted,
                        _ => Fate::Refused,
                    };
                    ledger.note(number, fate);
                }
            });
        }
    });
}

/// How often each event has arrived.
fn arrived(server: &Server) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for seen in server.seen() {
        let id = String::from_utf8_lossy(&seen.body[13..45]).into_owned();
        *counts.entry(id).or_default() += 1;
    }
    counts
}

/// The deliveries that have ended like this.
fn ended(metrics: &Metrics, outcome: &str) -> f64 {
    metrics.sum(DELIVERIES, &[&format!("outcome=\"{outcome}\"")])
}

#[test]
fn a_request_is_the_same_over_http_2() {
    let authority = Authority::new();
    let secure = tls_server(&authority, BOTH, Options::default());
    let plain = Server::start(Options::default());
    let old = Upstream::ok();
    for driver in ["auto", "epoll"] {
        let mirror = Config::new([
            outbound(&secure.dsn("https"), "http2: auto"),
            h2c(&plain),
            old.dsn(KEY_B, 11).into(),
        ])
        .trust(&authority)
        .set("driver", driver)
        .start();
        send(&mirror);
        wait_until(
            || plain.count() > 0 && secure.count() > 0 && !old.received().is_empty(),
            || "not all have it".to_owned(),
        );
        let expected = old.received().pop().unwrap();
        for server in [&secure, &plain] {
            let seen = server.seen().pop().unwrap();
            assert!(seen.is_http2);
            assert!(seen.line.starts_with("POST http"), "{}", seen.line);
            let port = server.address.port();
            let path = format!("://localhost:{port}/api/11/envelope/");
            assert!(seen.line.ends_with(&path), "{}", seen.line);
            let mut fields: Vec<_> = expected.fields.clone();
            fields.retain(|(name, _)| name != "Host" && name != "Content-Length");
            let fields: Vec<_> = fields
                .iter()
                .map(|(name, value)| {
                    (
                        name.to_lowercase(),
                        value.replace(KEY_B, crate::support::KEY_A),
                    )
                })
                .collect();
            let length = ("content-length".to_owned(), seen.body.len().to_string());
            let mut got = seen.fields.clone();
            assert!(got.contains(&length));
            got.retain(|field| field.0 != "content-length");
            assert_eq!(got, fields);
            assert!(seen.body.starts_with(b"{\"event_id\""));
            assert!(
                seen.body
                    .ends_with(&expected.body[expected.body.len() - 50..])
            );
        }
    }
}

#[test]
fn a_server_without_http_2_gets_http_1_1_over_the_connection_that_asked() {
    let authority = Authority::new();
    for protocols in [&[][..], &[&b"http/1.1"[..]]] {
        let server = tls_server(&authority, protocols, Options::default());
        let mirror = Config::new([outbound(&server.dsn("https"), "http2: auto")])
            .trust(&authority)
            .with_metrics()
            .start();
        (0..5).for_each(|_| send(&mirror));
        last(&server, 5);
        assert_eq!((server.count(), server.connections()), (5, 1));
        assert!(server.seen().iter().all(|seen| !seen.is_http2));
        assert_eq!(mirror.metrics().sum(OPENED, &[]), 0.0);
        mirror.wait_for_lines("does not offer HTTP/2", 1);
    }
}

#[test]
fn where_http_2_is_required_a_server_without_it_gets_nothing() {
    let authority = Authority::new();
    let server = tls_server(&authority, &[b"http/1.1"], Options::default());
    let mirror = Config::new([outbound(&server.dsn("https"), "http2: required")])
        .trust(&authority)
        .set("reply_timeout", "20s")
        .with_metrics()
        .start();
    let response = ask(&mirror);
    assert_eq!((response.status, server.count()), (503, 0));
    assert_eq!(ended(&mirror.metrics(), "tls"), 1.0);
}

#[test]
fn a_large_body_goes_over_http_1_1_unless_http_2_is_required() {
    let authority = Authority::new();
    for (mode, is_http2) in [("auto", false), ("required", true)] {
        let options = Options {
            window: 20_000,
            ..Options::default()
        };
        let server = tls_server(&authority, BOTH, options);
        let mirror = Config::new([outbound(&server.dsn("https"), &format!("http2: {mode}"))])
            .trust(&authority)
            .start();
        let mut event = envelope(ID).into_bytes();
        event.resize(600_000, b'x');
        let response = mirror.client().ask(&envelope_request(&event));
        assert_eq!(response.status, 200);
        let seen = last(&server, 1);
        assert_eq!(seen.is_http2, is_http2);
        assert!(seen.body.len().abs_diff(600_000) < 50);
        assert!(seen.body.ends_with(&event[1000..]));
        // What the windows do not allow at once goes over HTTP/1.1 as well.
        event.truncate(40_000);
        assert_eq!(mirror.client().ask(&envelope_request(&event)).status, 200);
    }
}

#[test]
fn answers_come_back_whole() {
    for answer_bytes in [2, 5_000, 200_000] {
        let server = Server::start(Options {
            answer_bytes,
            ..Options::default()
        });
        let mirror = Config::new([h2c(&server)])
            .set("reply_timeout", "20s")
            .start();
        let response = ask(&mirror);
        assert_eq!((response.status, response.body.len()), (200, answer_bytes));
        assert_eq!(response.field("content-type"), Some("application/json"));
    }
}

#[test]
fn answers_that_arrive_with_the_end_of_tls_count() {
    let authority = Authority::new();
    type End = fn(&mut ServerConnection) -> Vec<u8>;
    let close_notify: End = |tls| {
        let mut bytes = Vec::new();
        tls.send_close_notify();
        tls.write_tls(&mut bytes).expect("a buffer takes all");
        bytes
    };
    // A record that cannot be decrypted.
    let error: End = |_| [&[23, 3, 3, 0, 40][..], &[0; 40]].concat();
    for end in [close_notify, error] {
        let mut config = authority.server_config("localhost");
        config.alpn_protocols = vec![b"h2".to_vec()];
        let server = Raw::ending(Arc::new(config), end, ok);
        let dsn = format!("https://{KEY_A}@localhost:{}/11", server.address.port());
        let mirror = Config::new([outbound(&dsn, "http2: required")])
            .trust(&authority)
            .set("reply_timeout", "20s")
            .with_metrics()
            .start();
        for count in 1..=3 {
            send(&mirror);
            assert_eq!(ended(&mirror.metrics(), "2xx"), f64::from(count));
        }
        assert_eq!(server.connections(), 3);
        assert_eq!(mirror.metrics().sum(RETRIES, &[]), 0.0);
    }
}

#[test]
fn a_refused_client_certificate_counts_as_tls() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let mut config = authority.server_config_for("localhost", &clients, &[&TLS13]);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let server = Server::start(Options {
        tls: Some(Arc::new(config)),
        ..Options::default()
    });
    let mirror = Config::new([outbound(&server.dsn("https"), "http2: required")])
        .trust(&authority)
        .set("reply_timeout", "20s")
        .with_metrics()
        .start();
    let response = ask(&mirror);
    assert_eq!((response.status, server.count()), (503, 0));
    assert_eq!(ended(&mirror.metrics(), "tls"), 1.0);
    mirror.wait_for_lines("requires a client certificate", 1);
}

#[test]
fn an_answer_over_the_limit_fails_its_delivery_only() {
    let server = Server::start(Options {
        answer_bytes: 200_000,
        ..Options::default()
    });
    let mirror = Config::new([h2c(&server)])
        .set("limits.response_bytes", "100KB")
        .set("reply_timeout", "20s")
        .with_metrics()
        .start();
    for count in 1..=3 {
        let response = ask(&mirror);
        assert_eq!(response.status, 503);
        assert_eq!(ended(&mirror.metrics(), "too_large"), f64::from(count));
    }
    assert_eq!(server.connections(), 1);
}

#[test]
fn many_deliveries_share_few_connections() {
    let server = Server::start(Options {
        delay: Duration::from_millis(20),
        ..Options::default()
    });
    let healthy = Sink::start();
    let mirror = Config::new([
        h2c(&server),
        format!("http://{KEY_B}@{}/11", healthy.address).into(),
    ])
    .with_metrics()
    .start();
    let ledger = Ledger::default();
    storm(&mirror, &ledger, 60, 10);
    ledger.assert_complete(&healthy);
    wait_until(
        || server.count() == 600,
        || format!("{} of 600", server.count()),
    );
    assert!(arrived(&server).values().all(|count| *count == 1));
    let connections = server.connections();
    assert!((2..=8).contains(&connections), "{connections}");
}

#[test]
fn streams_are_limited_to_what_the_server_allows() {
    let server = Server::start(Options {
        streams_max: 3,
        delay: Duration::from_millis(5),
        ..Options::default()
    });
    let mirror = Config::new([h2c(&server)]).with_metrics().start();
    let ledger = Ledger::default();
    storm(&mirror, &ledger, 40, 5);
    wait_until(
        || server.count() == 200,
        || format!("{} of 200", server.count()),
    );
    assert_eq!(mirror.metrics().sum(FAILED, &[]), 0.0);
}

#[test]
fn a_server_that_resets_leaves_and_has_small_windows_gets_each_event_at_most_once() {
    let options = Options {
        reset_every: 10,
        leave_after: 50,
        window: 1000,
        ..Options::default()
    };
    let server = Server::start(options);
    let healthy = Sink::start();
    let mirror = Config::new([
        h2c(&server),
        format!("http://{KEY_B}@{}/11", healthy.address).into(),
    ])
    .with_metrics()
    .start();
    let ledger = Ledger::default();
    storm(&mirror, &ledger, 12, 40);
    assert_eq!(ledger.count(Fate::Accepted), 480);
    ledger.assert_complete(&healthy);
    let metrics = mirror.wait_for_metrics(|metrics| {
        metrics.sum("sentry_mirror_deliveries_in_flight", &["localhost"]) == 0.0
            && metrics.sum(DELIVERIES, &["localhost"]) == 480.0
    });
    let counts = arrived(&server);
    assert!(counts.values().all(|count| *count == 1));
    let accepted = metrics.sum(DELIVERIES, &["localhost", "outcome=\"2xx\""]);
    assert_eq!(counts.len() as f64, accepted);
    let lost = metrics.sum(DELIVERIES, &["localhost", "outcome=\"reset\""]);
    assert_eq!(accepted + lost, 480.0);
    assert!((30.0..60.0).contains(&lost), "{lost}");
    assert!(metrics.sum(ENDED, &["reason=\"closed\""]) >= 5.0);
}

#[test]
fn a_request_that_was_not_processed_is_sent_again_up_to_seven_times() {
    // Refuses all of its first connection, and after that every second request.
    let refused = |stream: u32| frame(3, 0, stream, &7_u32.to_be_bytes());
    let server = Raw::start(move |_, stream| match stream % 4 {
        1 => refused(stream),
        _ => ok(stream),
    });
    let mirror = Config::new([outbound(&server.dsn(), "http2: h2c")])
        .with_metrics()
        .start();
    for count in 1..=3 {
        send(&mirror);
        assert_eq!(mirror.metrics().sum(RETRIES, &[]), f64::from(count));
    }
    let never = Raw::start(move |_, stream| refused(stream));
    let mirror = over_h2c(&never.dsn());
    let begun = Instant::now();
    let response = ask(&mirror);
    assert_eq!(response.status, 503);
    // It rests after each refusal: from 5 to 10 ms, and then twice as long as before.
    assert!(begun.elapsed() >= Duration::from_millis(5 * 127));
    let metrics = mirror.metrics();
    assert_eq!(
        (ended(&metrics, "reset"), metrics.sum(RETRIES, &[])),
        (1.0, 7.0)
    );
    // Six connections leave without it, one after another.
    let leaving = Raw::start(move |connection, stream| match connection {
        0..6 => frame(7, 0, 0, &[0; 8]),
        _ => ok(stream),
    });
    let mirror = over_h2c(&leaving.dsn());
    send(&mirror);
    let metrics = mirror.metrics();
    assert_eq!(
        (ended(&metrics, "2xx"), metrics.sum(RETRIES, &[])),
        (1.0, 6.0)
    );
}

#[test]
fn floods_end_their_connection_and_take_no_memory() {
    let endless = |stream: u32| {
        let mut bytes = frame(1, 0, stream, b"\x88");
        (0..2_000).for_each(|_| bytes.extend(frame(9, 0, stream, b"")));
        bytes
    };
    let large = |stream: u32| {
        let mut bytes = frame(1, 0, stream, b"\x88");
        (0..100).for_each(|_| bytes.extend(frame(9, 0, stream, &[0; 16_384])));
        bytes
    };
    type Flood = Box<dyn Fn(u32) -> Vec<u8> + Send + Sync>;
    let floods: Vec<(&str, Flood)> = vec![
        (
            "settings_flood",
            Box::new(|_| frame(4, 0, 0, b"").repeat(5_000)),
        ),
        (
            "ping_flood",
            Box::new(|_| frame(6, 0, 0, b"abcdefgh").repeat(5_000)),
        ),
        (
            "useless_frames",
            Box::new(|stream| frame(0, 0, stream, b"").repeat(5_000)),
        ),
        ("header_block", Box::new(endless)),
        ("header_block", Box::new(large)),
        (
            "protocol",
            Box::new(|_| b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ),
    ];
    for (reason, flood) in floods {
        let server = Raw::start(move |_, stream| flood(stream));
        let healthy = Sink::start();
        let mirror = Config::new([
            outbound(&server.dsn(), "http2: h2c"),
            format!("http://{KEY_B}@{}/11", healthy.address).into(),
        ])
        .set("breaker.failures", 1000)
        .with_metrics()
        .start();
        let ledger = Ledger::default();
        storm(&mirror, &ledger, 4, 5);
        ledger.assert_complete(&healthy);
        let label = format!("reason=\"{reason}\"");
        let metrics = mirror.wait_for_metrics(|metrics| metrics.sum(ENDED, &[&label]) >= 5.0);
        assert!(metrics.sum(FAILED, &["reason=\"connection\""]) >= 5.0);
        assert!(mirror.peak_bytes() < 100 << 20, "{reason}");
    }
}

#[test]
fn a_server_that_breaks_a_rule_is_told_which() {
    type Answer = fn(u32) -> Vec<u8>;
    let (protocol, flow_control, frame_size, compression) = (1, 3, 6, 9);
    let answers: [(u32, Answer); 5] = [
        (protocol, |_| frame(4, 0, 1, b"")),
        (protocol, |_| frame(0, 1, 9, b"")),
        (flow_control, |_| frame(8, 0, 0, &[0x7f, 255, 255, 255])),
        (frame_size, |_| b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        (compression, |stream| frame(1, 5, stream, b"\x80")),
    ];
    for (code, answer) in answers {
        let server = Raw::start(move |_, stream| answer(stream));
        let mirror = over_h2c(&server.dsn());
        let response = ask(&mirror);
        assert_eq!(response.status, 503);
        wait_until(
            || server.go_aways() == [code],
            || format!("{:?} instead of {code}", server.go_aways()),
        );
        assert_eq!(mirror.metrics().sum(ENDED, &["reason=\"protocol\""]), 1.0);
    }
}

#[test]
fn a_server_that_breaks_http_2_again_and_again_gets_http_1_1() {
    let authority = Authority::new();
    let mut config = authority.server_config("localhost");
    // It speaks nothing else, so that a request over HTTP/1.1 fails in the handshake.
    config.alpn_protocols = vec![b"h2".to_vec()];
    let server = Raw::ending(Arc::new(config), |_| Vec::new(), |_| frame(4, 0, 1, b""));
    let dsn = format!("https://{KEY_A}@localhost:{}/11", server.address.port());
    let mirror = Config::new([outbound(&dsn, "http2: auto")])
        .trust(&authority)
        .set("breaker.failures", 1000)
        .set("reply_timeout", "20s")
        .with_metrics()
        .start();
    for (malformed, tls) in [(1.0, 0.0), (2.0, 0.0), (3.0, 0.0), (3.0, 1.0), (3.0, 2.0)] {
        let response = ask(&mirror);
        assert_eq!(response.status, 503);
        let metrics = mirror.metrics();
        let counts = (ended(&metrics, "malformed"), ended(&metrics, "tls"));
        assert_eq!(counts, (malformed, tls));
        assert_eq!(metrics.sum(ENDED, &["reason=\"protocol\""]), malformed);
    }
    mirror.wait_for_lines("breaks HTTP/2 again and again", 1);
}

#[test]
fn a_connection_that_falls_silent_is_left_and_counts_as_one_failure() {
    // The first connection answers two requests and then takes everything in silence.
    let server = Raw::start(|connection, stream| match (connection, stream) {
        (0, 1 | 3) | (1.., _) => ok(stream),
        _ => Vec::new(),
    });
    let mirror = Config::new([outbound(&server.dsn(), "http2: h2c")])
        .set("breaker.failures", 2)
        .set("reply_timeout", "10s")
        .with_metrics()
        .start();
    send(&mirror);
    send(&mirror);
    let begun = Instant::now();
    let mut silent: Vec<_> = (0..5).map(|_| mirror.client()).collect();
    for client in &mut silent {
        client.send(&envelope_request(envelope(ID).as_bytes()));
    }
    mirror.wait_for_metrics(|metrics| metrics.sum(PINGS, &["result=\"sent\""]) == 1.0);
    // A new delivery is answered long before the others are given up.
    send(&mirror);
    assert!(server.connections() >= 2);
    for client in &mut silent {
        assert_eq!(client.response().status, 503);
    }
    assert!(begun.elapsed() >= Duration::from_secs(6));
    send(&mirror);
    let metrics = mirror.metrics();
    assert_eq!(metrics.sum(PINGS, &["result=\"timeout\""]), 1.0);
    assert_eq!(metrics.sum(ENDED, &["reason=\"silent\""]), 1.0);
    assert_eq!(ended(&metrics, "timeout"), 5.0);
    assert_eq!(ended(&metrics, "paused"), 0.0);
}

#[test]
fn a_server_that_reads_slowly_is_alive() {
    let server = Raw::slow(30_000);
    let mirror = over_h2c(&server.dsn());
    let mut event = envelope(ID).into_bytes();
    event.resize(3_000_000, b'x');
    let begun = Instant::now();
    let mut client = mirror.client();
    client.send(&envelope_request(&event));
    assert_eq!(client.response().status, 200);
    assert!(begun.elapsed() > Duration::from_secs(7));
    let metrics = mirror.metrics();
    assert!(metrics.sum(PINGS, &["result=\"sent\""]) >= 1.0);
    assert_eq!(metrics.sum(PINGS, &["result=\"timeout\""]), 0.0);
    assert_eq!(metrics.sum(ENDED, &[]), 0.0);
}

#[test]
fn a_large_request_arrives_where_the_memory_budget_has_room_for_it_only() {
    let server = Raw::slow(300_000);
    let mirror = Config::new([outbound(&server.dsn(), "http2: h2c")])
        .set("limits.memory_bytes", "4MB")
        .set("reply_timeout", "20s")
        .with_metrics()
        .start();
    let mut event = envelope(ID).into_bytes();
    event.resize(3_500_000, b'x');
    for count in 1..=2 {
        let mut client = mirror.client();
        client.send(&envelope_request(&event));
        assert_eq!(client.response().status, 200);
        let memory = |metrics: &Metrics| metrics.sum("sentry_mirror_request_memory_bytes", &[]);
        mirror.wait_for_metrics(|metrics| {
            ended(metrics, "2xx") == f64::from(count) && memory(metrics) == 0.0
        });
    }
}

#[test]
fn a_delivery_at_its_deadline_is_reset_and_the_connection_stays() {
    let server = Raw::start(|_, stream| match stream {
        3 => Vec::new(),
        _ => ok(stream),
    });
    let mirror = Config::new([outbound(&server.dsn(), "http2: h2c")])
        .set("timeouts.exchange", "300ms")
        .set("reply_timeout", "300ms")
        .with_metrics()
        .start();
    send(&mirror);
    let late = ask(&mirror);
    assert_eq!(late.status, 200);
    mirror.wait_for_metrics(|metrics| ended(metrics, "timeout") == 1.0);
    send(&mirror);
    let metrics = mirror.metrics();
    assert_eq!(metrics.sum(FAILED, &["reason=\"cancelled\""]), 1.0);
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_stopping_mirror_waits_for_its_streams() {
    let server = Server::start(Options {
        delay: Duration::from_millis(500),
        ..Options::default()
    });
    let mirror = Config::new([h2c(&server)]).start();
    let mut clients: Vec<_> = (0..20).map(|_| mirror.client()).collect();
    for client in &mut clients {
        client.send(&envelope_request(envelope(ID).as_bytes()));
    }
    wait_until(
        || server.begun() == 20,
        || format!("{} of 20", server.begun()),
    );
    mirror.signal("TERM");
    let (status, _) = mirror.wait();
    assert!(status.success());
    assert_eq!(server.count(), 20);
}

#[test]
fn a_reload_turns_http_2_on_and_off() {
    let authority = Authority::new();
    let server = tls_server(&authority, BOTH, Options::default());
    let config = |mode: &str| {
        let config = Config::new([outbound(&server.dsn("https"), &format!("http2: {mode}"))]);
        config.trust(&authority).text()
    };
    let mut mirror = Reloadable::start(&config("off"));
    let modes = [
        ("off", false),
        ("auto", true),
        ("off", false),
        ("required", true),
    ];
    for ((mode, is_http2), count) in modes.into_iter().zip(1..) {
        mirror.reload(&config(mode));
        send(&mirror.process);
        assert_eq!(last(&server, count).is_http2, is_http2, "{mode}");
    }
}
