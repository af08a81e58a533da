//! A worker whose core cannot keep up: it answers 503 at once, instead of letting everybody wait.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Config, KEY_A, PATIENCE, Upstream, envelope, envelope_request, wait_until};

const ID: &str = "9ec79c33ec9942ab8353589fcb2e04dc";
const LATE: &str = "sentry_mirror_rejections_total{reason=\"late\"}";

/// Longer than the lateness that counts.
const STOPPED: Duration = Duration::from_millis(700);

#[test]
fn a_worker_that_is_never_on_time_answers_503_until_it_has_caught_up() {
    for driver in ["auto", "epoll"] {
        let upstream = Upstream::ok();
        let mirror = Config::new([upstream.dsn(KEY_A, 11)])
            .with_metrics()
            .set("workers", 1)
            .set("driver", driver)
            .start();
        let request = envelope_request(envelope(ID).as_bytes());
        let mut client = mirror.client();
        assert_eq!(client.ask(&request).status, 200);
        // The process runs only while it answers one request, which is less than the interval of its timer on
        // any machine that is not overloaded itself. So it is tried until it is.
        let begin = Instant::now();
        let mut refused = 0;
        while refused == 0 && begin.elapsed() < PATIENCE {
            mirror.signal("STOP");
            wait_until(|| mirror.is_stopped(), || "it is not stopped".to_owned());
            client.send(&request);
            thread::sleep(STOPPED);
            mirror.signal("CONT");
            let response = client.response();
            match response.status {
                200 => {}
                503 => refused += 1,
                status => panic!("{driver}: {status}"),
            }
        }
        assert_eq!(refused, 1, "{driver}");
        mirror.wait_for_line("worker is overloaded");
        // What the mirror answers by itself costs little. It catches up by itself.
        let health = b"GET /health HTTP/1.1\r\nHost: m\r\n\r\n";
        assert_eq!(client.ask(health).status, 200);
        mirror.wait_for_line("worker has caught up");
        assert_eq!(client.ask(&request).status, 200, "{driver}");
        assert_eq!(mirror.metrics().value(LATE), 1.0, "{driver}");
    }
}

#[test]
fn long_stalls_reject_nothing_while_timers_are_on_time_between_them() {
    let upstream = Upstream::ok();
    let mirror = Config::new([upstream.dsn(KEY_A, 11)])
        .with_metrics()
        .start();
    let request = envelope_request(envelope(ID).as_bytes());
    let mut client = mirror.client();
    for _ in 0..3 {
        mirror.signal("STOP");
        wait_until(|| mirror.is_stopped(), || "it is not stopped".to_owned());
        client.send(&request);
        thread::sleep(2 * STOPPED);
        mirror.signal("CONT");
        assert_eq!(client.response().status, 200);
        // Several times the interval of the timers.
        let resumed = Instant::now();
        while resumed.elapsed() < STOPPED {
            assert_eq!(client.ask(&request).status, 200);
        }
    }
    assert_eq!(mirror.metrics().value(LATE), 0.0);
}
