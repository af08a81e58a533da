//! Large bodies to upstreams that take them slowly: `timeouts.exchange` is for silence.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_recv_buffer_size;

use crate::support::metrics::Metrics;
use crate::support::{Config, KEY_A, Process, envelope, envelope_request};

const ID: &str = "9ec79c33ec9942ab8353589fcb2e04dc";
const DELIVERIES: &str = "sentry_mirror_deliveries_total";

/// More than the kernel buffers of the mirror's socket.
const BODY_BYTES: usize = 24 << 20;
/// The upstream reads this much at a time, and pauses after each.
const PIECE_BYTES: usize = 512 << 10;
const PAUSE: Duration = Duration::from_millis(60);
/// Shorter than all pauses together, and long enough that a busy machine does not make one of them longer.
const EXCHANGE: Duration = Duration::from_millis(1500);

/// An upstream for one request, whose kernel buffers little. It takes the body at its pace, up to `bytes_max` of it, and
/// answers. It reports how much it took, and how long that was.
fn slow_upstream(bytes_max: usize) -> (String, Receiver<(usize, Duration)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    set_socket_recv_buffer_size(&listener, 64 << 10).unwrap();
    let address = listener.local_addr().unwrap();
    let (report, reports) = channel();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let begun = Instant::now();
        let left = left_after_head(&mut stream);
        let mut taken = 0;
        while taken < left.min(bytes_max) {
            let piece = PIECE_BYTES.min(left - taken) as u64;
            let piece = (&mut stream).take(piece);
            taken += std::io::copy(&mut { piece }, &mut std::io::sink()).unwrap() as usize;
            // Being slow is the point of this upstream; the test does not wait for the pause.
            thread::sleep(PAUSE);
        }
        report.send((taken, begun.elapsed())).unwrap();
        if taken == left {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                .unwrap();
        }
        // Until the mirror closes, or the test ends.
        let _ = stream.read(&mut [0; 1]);
        thread::park();
    });
    (format!("http://{KEY_A}@{address}/11"), reports)
}

/// Reads a head byte by byte. Returns the length of the body.
fn left_after_head(stream: &mut TcpStream) -> usize {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let text = String::from_utf8(head).unwrap();
    let (_, length) = text.split_once("Content-Length: ").unwrap();
    length.split("\r\n").next().unwrap().parse().unwrap()
}

fn mirror(driver: &str, dsn: &str) -> Process {
    let exchange = format!("{}ms", EXCHANGE.as_millis());
    Config::new([dsn])
        .with_metrics()
        .set("driver", driver)
        .set("reply_timeout", "50ms")
        .set("breaker.failures", 1)
        .set("breaker.pause", "1h")
        .set("breaker.pause_max", "1h")
        .set("timeouts.exchange", exchange)
        .start()
}

fn large_request() -> Vec<u8> {
    let mut body = envelope(ID).into_bytes();
    body.resize(BODY_BYTES, b'x');
    envelope_request(&body)
}

fn wait_for_end(mirror: &Process) -> Metrics {
    mirror.wait_for_metrics(|metrics| metrics.sum(DELIVERIES, &[]) == 1.0)
}

/// Asserts how the only delivery has ended.
fn assert_end(metrics: &Metrics, outcome: &str) {
    let mut ends = metrics.all(DELIVERIES, &[]);
    ends.retain(|(_, count)| *count > 0.0);
    let expected = format!("outcome=\"{outcome}\"");
    assert!(ends.len() == 1 && ends[0].0.contains(&expected), "{ends:?}");
}

#[test]
fn a_body_that_is_taken_slowly_arrives_whole() {
    for driver in ["auto", "epoll"] {
        let (dsn, reports) = slow_upstream(usize::MAX);
        let mirror = mirror(driver, &dsn);
        assert_eq!(mirror.client().ask(&large_request()).status, 200);
        let metrics = wait_for_end(&mirror);
        let (taken, elapsed) = reports.recv().unwrap();
        // The DSN in the envelope header has another length.
        assert!(taken.abs_diff(BODY_BYTES) < 100, "{driver}: {taken}");
        assert!(elapsed > EXCHANGE, "{driver}: {elapsed:?}");
        assert_end(&metrics, "2xx");
    }
}

#[test]
fn an_upstream_that_stops_taking_a_body_is_silent_and_opens_the_breaker() {
    let (dsn, reports) = slow_upstream(4 * PIECE_BYTES);
    let mirror = mirror("auto", &dsn);
    let begun = Instant::now();
    assert_eq!(mirror.client().ask(&large_request()).status, 200);
    let metrics = wait_for_end(&mirror);
    assert!(begun.elapsed() > EXCHANGE);
    assert!(reports.recv().unwrap().0 < BODY_BYTES);
    assert_end(&metrics, "timeout");
    mirror
        .client()
        .ask(&envelope_request(envelope(ID).as_bytes()));
    mirror.wait_for_metrics(|metrics| metrics.sum(DELIVERIES, &[r#"outcome="paused""#]) == 1.0);
}
