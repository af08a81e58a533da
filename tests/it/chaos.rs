//! Everything an upstream can do wrong, at once, under load, while the configuration changes.
//!
//! The primary fails in every way: it refuses, resets, hangs, truncates, sends garbage, answers too early,
//! too late and too much, restarts, and moves to another address. The other outbounds are healthy sinks: one
//! over TLS, one with a sample rate of one half. Clients send numbered events; some disconnect in the middle.
//! At the end each sink has exactly once every event that was sent whole and that it takes, and the mirror
//! holds no more resources than at the start.
//!
//! It takes three seconds on each driver; `CHAOS_SECONDS` makes it longer.

mod storm;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_yaml::Value;

use crate::support::ledger::{Fate, Ledger, Sink, body};
use crate::support::process::file;
use crate::support::tls::Authority;
use crate::support::{
    Client, Config, KEY_A, KEY_B, Process, envelope_request, outbound, wait_until,
};

use storm::Storm;

const KEY_C: &str = "cccccccccccccccccccccccccccccccc";
const KEY_D: &str = "dddddddddddddddddddddddddddddddd";
const CLIENTS: usize = 24;

/// How much more memory the process may hold at the end than when it was warm: what the allocator has
/// not returned. Many times as much goes through it.
const SLACK_BYTES: usize = 16 * 1024 * 1024;

fn duration() -> Duration {
    let seconds = std::env::var("CHAOS_SECONDS").map_or(3, |text| text.parse().expect("a number"));
    Duration::from_secs(seconds)
}

#[test]
fn healthy_outbounds_get_every_event_once_and_nothing_leaks() {
    for driver in ["auto", "epoll"] {
        survive(driver);
    }
}

fn survive(driver: &str) {
    let storms = [
        Storm::start(Duration::from_millis(400), Duration::from_millis(60)),
        Storm::start(Duration::from_millis(300), Duration::from_millis(20)),
    ];
    let authority = Authority::new();
    let (plain, sampled) = (Sink::start(), Sink::start());
    let tls = Sink::start_tls(authority.server_config("localhost"));
    let text = |storm: &Storm| {
        let dsn = |key, address| format!("http://{key}@{address}/1");
        let outbounds = [
            dsn(KEY_A, storm.address).into(),
            dsn(KEY_B, plain.address).into(),
            format!("https://{KEY_C}@localhost:{}/1", tls.address.port()).into(),
            outbound(&dsn(KEY_D, sampled.address), "sample_rate: 0.5"),
        ];
        Config::new::<Value>(outbounds)
            .with_metrics()
            .set("workers", 2)
            .set("driver", driver)
            .with("{reply_timeout: 200ms, timeouts: {exchange: 1s}, pool: {idle_timeout: 500ms}}")
            .with("breaker: {failures: 5, pause: 10ms, pause_max: 40ms}")
            .trust(&authority)
            .text()
    };
    let path = file("chaos.yml", &text(&storms[0]));
    let mirror = Process::start_at(&path);
    let ledger = Ledger::default();
    let descriptors = mirror.descriptors();
    rage(&mirror, &ledger, Duration::from_millis(500), || {});
    mirror.wait_for_descriptors(descriptors);
    let warm_bytes = mirror.resident_bytes();

    let mut moves = 0;
    rage(&mirror, &ledger, duration(), || {
        moves += 1;
        std::fs::write(&path, text(&storms[moves % 2])).expect("a file");
        mirror.signal("HUP");
        mirror.wait_for_lines("configuration reloaded", moves);
    });
    for sink in [&plain, &tls] {
        ledger.assert_complete(sink);
    }
    ledger.assert_part(&sampled);
    assert_ne!(sampled.count(), 0);
    for storm in &storms {
        storm.assert_complete();
        storm.end();
    }
    mirror.wait_for_descriptors(descriptors);
    wait_until(
        || mirror.resident_bytes() < warm_bytes + SLACK_BYTES,
        || {
            format!(
                "{} bytes when warm, {} at the end",
                warm_bytes,
                mirror.resident_bytes()
            )
        },
    );
    mirror.wait_for_metrics(|metrics| {
        metrics.value("sentry_mirror_request_memory_bytes") == 0.0
            && metrics.sum("sentry_mirror_deliveries_in_flight", &[]) == 0.0
            && metrics.value("sentry_mirror_sdk_connections_open") == 0.0
    });
    assert!(ledger.count(Fate::Cut) > 0 && ledger.count(Fate::Abandoned) > 0);

    mirror.signal("TERM");
    let (status, log) = mirror.wait();
    assert_eq!(status.code(), Some(0));
    let totals = log
        .iter()
        .find(|line| line.contains("stopped: "))
        .expect("totals");
    // Nothing was in flight, so no task was left.
    assert!(
        totals.contains("given_up=0") && totals.contains("panics 0"),
        "{totals}"
    );
    let sent = ledger.count(Fate::Accepted) + ledger.count(Fate::Abandoned);
    assert_eq!(deliveries(totals), 4 * sent, "{totals}");
}

/// The sum of all outcomes in the line of totals.
fn deliveries(totals: &str) -> usize {
    let outcomes = totals
        .split(", ")
        .filter(|part| part.starts_with("delivered "));
    let count = |part: &str| part.rsplit(' ').next()?.parse::<usize>().ok();
    outcomes.filter_map(count).sum()
}

/// Lets all clients send for a while, and calls `meanwhile` a few times.
fn rage(mirror: &Process, ledger: &Ledger, time: Duration, mut meanwhile: impl FnMut()) {
    let is_over = AtomicBool::new(false);
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    send_some(mirror, ledger);
                }
            });
        }
        while started.elapsed() < time {
            // The primary moves now and then, not as often as possible.
            thread::sleep(Duration::from_millis(150));
            meanwhile();
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

/// One client: a few events over one connection, then one that it does not wait for.
fn send_some(mirror: &Process, ledger: &Ledger) {
    let mut client = mirror.client();
    for _ in 0..20 {
        let number = ledger.number();
        let response = client.ask(&envelope_request(&body(number)));
        assert_eq!(response.status, 200, "{}", response.text());
        ledger.note(number, Fate::Accepted);
    }
    let number = ledger.number();
    let request = envelope_request(&body(number));
    if number.is_multiple_of(2) {
        client.send(&request[..request.len() - 1]);
        ledger.note(number, Fate::Cut);
    } else {
        abandon(client, &request);
        ledger.note(number, Fate::Abandoned);
    }
}

/// Sends a whole request and does not wait for the reply. The connection is closed without a reset,
/// which could destroy what was sent.
fn abandon(mut client: Client, request: &[u8]) {
    client.send(request);
    client.finish_writing();
}
