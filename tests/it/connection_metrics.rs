//! Counters of upstream connections and of items, besides those of requests and deliveries.

use std::io::{BufReader, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;

use serde_yaml::Value;

use crate::support::upstream::read_request;
use crate::support::{
    Action, Config, KEY_A, KEY_B, PATIENCE, Process, Upstream, envelope, envelope_request, outbound,
};

fn start<O: Into<Value>>(outbounds: impl IntoIterator<Item = O>) -> Process {
    Config::new(outbounds).with_metrics().start()
}

#[test]
fn an_idle_connection_that_the_upstream_closed_is_counted_as_stale() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let dsn = format!("http://{KEY_A}@{}/11", listener.local_addr().unwrap());
    let (close, closed) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            read_request(&mut BufReader::new(&stream)).expect("a request");
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
            (&stream).write_all(answer).unwrap();
            drop(stream);
            let _ = close.send(());
        }
    });
    let mirror = start([dsn]);
    let mut client = mirror.client();
    for earlier in 0..3 {
        let good = envelope_request(envelope("00").as_bytes());
        assert_eq!(client.ask(&good).status, 200);
        closed.recv_timeout(PATIENCE).expect("it closes");
        let metrics = mirror.metrics();
        let of = |name: &str| metrics.sum(&format!("sentry_mirror_upstream_{name}_total"), &[]);
        assert_eq!(of("connections_stale"), f64::from(earlier));
        assert_eq!(of("connections_opened"), f64::from(earlier + 1));
        assert_eq!((of("connections_reused"), of("retries")), (0.0, 0.0));
    }
}

#[test]
fn a_retry_after_a_lost_reused_connection_is_counted() {
    let upstream = Upstream::start(|number, _| match number {
        1 => Action::Close,
        _ => Action::ok(),
    });
    let mirror = start([upstream.dsn(KEY_A, 11)]);
    let mut client = mirror.client();
    for _ in 0..2 {
        let good = envelope_request(envelope("00").as_bytes());
        assert_eq!(client.ask(&good).status, 200);
    }
    let metrics = mirror.metrics();
    let of = |name: &str| metrics.sum(&format!("sentry_mirror_upstream_{name}_total"), &[]);
    assert_eq!((of("retries"), of("connections_stale")), (1.0, 0.0));
    assert_eq!(of("connections_opened"), 2.0);
    let deliveries = metrics.sum("sentry_mirror_deliveries_total", &[]);
    assert_eq!(deliveries, 2.0, "it is one delivery all the same");
}

#[test]
fn dropped_items_are_counted_by_reason() {
    let upstream = Upstream::ok();
    let outbounds = [
        outbound(&upstream.dsn(KEY_A, 11), "categories: [error]"),
        outbound(&upstream.dsn(KEY_B, 22), "sample_rate: {session: 0}"),
    ];
    let mirror = start(outbounds);
    let session = r#"{"sid":"7c7b6585-f901-4351-bf8d-02711b721929","init":true,"started":"2026-01-01T00:00:00Z"}"#;
    let body = format!("{}{{\"type\":\"session\"}}\n{session}\n", envelope("00"));
    let response = mirror.client().ask(&envelope_request(body.as_bytes()));
    assert_eq!(response.status, 200);
    let metrics = mirror.wait_for_metrics(|metrics| {
        metrics.sum("sentry_mirror_deliveries_total", &["outcome=\"2xx\""]) == 2.0
    });
    for reason in ["filtered", "sampled"] {
        let sample = format!("sentry_mirror_items_left_out_total{{reason=\"{reason}\"}}");
        assert_eq!(metrics.value(&sample), 1.0, "{reason}");
    }
    assert!(
        upstream
            .received()
            .iter()
            .all(|request| !request.text().contains("session"))
    );
}
