//! The circuit breaker: when deliveries are dropped, and what finds out that an upstream is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{
    Action, Config, KEY_A, KEY_B, Process, Upstream, config, deaf, envelope, envelope_request,
    wait_until,
};

const ID: &str = "9ec79c33ec9942ab8353589fcb2e04dc";
const DELIVERIES: &str = "sentry_mirror_deliveries_total";

fn request() -> Vec<u8> {
    envelope_request(envelope(ID).as_bytes())
}

fn mirror(upstream: &Upstream, extra: &str) -> Process {
    Process::start(&config(&[upstream.dsn(KEY_A, 11)], extra))
}

/// An upstream that closes each connection over its request until it is healthy.
fn ailing(is_healthy: &Arc<AtomicBool>) -> Upstream {
    let is_healthy = Arc::clone(is_healthy);
    Upstream::start(move |_, _| match is_healthy.load(Ordering::SeqCst) {
        true => Action::ok(),
        false => Action::Close,
    })
}

#[test]
fn no_event_is_spent_on_finding_out_whether_an_upstream_is_back() {
    let (socket, address) = deaf();
    let dsn = format!("http://{KEY_A}@{address}/11");
    let extra = "admin: {port: 0}\nworkers: 2\nbreaker: {failures: 1, pause: 20ms}";
    let mirror = Process::start(&config(&[dsn], extra));
    for _ in 0..20 {
        assert_eq!(mirror.client().ask(&request()).status, 503);
    }
    let probes = |result: &str| {
        let label = format!("result=\"{result}\"");
        mirror
            .metrics()
            .sum("sentry_mirror_upstream_probes_total", &[&label])
    };
    wait_until(
        || probes("failed") > 2.0,
        || format!("{} probes", probes("failed")),
    );
    socket.listen(8).unwrap();
    wait_until(
        || mirror.metrics().sum("sentry_mirror_breakers_open", &[]) == 0.0,
        || "still open".to_owned(),
    );
    assert_eq!(probes("connected"), 1.0);
    // One worker's failure held up the other's deliveries, and none was sent since.
    let metrics = mirror.metrics();
    let outcome = |outcome: &str| metrics.sum(DELIVERIES, &[&format!("outcome=\"{outcome}\"")]);
    assert_eq!((outcome("connect"), outcome("paused")), (1.0, 19.0));
}

#[test]
fn after_an_open_breaker_deliveries_of_all_workers_arrive() {
    let (socket, address) = deaf();
    let dsn = format!("http://{KEY_A}@{address}/11");
    let extra = "workers: 2\nbreaker: {failures: 1, pause: 20ms}";
    let mirror = Process::start(&config(&[dsn], extra));
    assert_eq!(mirror.client().ask(&request()).status, 503);
    socket.listen(8).unwrap();
    let upstream = Upstream::serve(socket.into(), |_, _| Action::ok());
    wait_until(
        || mirror.client().ask(&request()).status == 200,
        || "nothing arrives".to_owned(),
    );
    for _ in 0..20 {
        assert_eq!(mirror.client().ask(&request()).status, 200);
    }
    assert_eq!(upstream.received().len(), 21);
}

#[test]
fn an_upstream_that_breaks_connections_is_left_alone_until_a_trial_is_answered() {
    let is_healthy = Arc::new(AtomicBool::new(false));
    let a = ailing(&is_healthy);
    let b = Upstream::ok();
    let start = |pause: &str| {
        let breaker = format!("workers: 1\nbreaker: {{failures: 3, pause: {pause}}}");
        Process::start(&config(&[a.dsn(KEY_A, 11), b.dsn(KEY_B, 22)], &breaker))
    };
    let mirror = start("30s");
    let mut client = mirror.client();
    for _ in 0..20 {
        assert_eq!(client.ask(&request()).status, 200);
    }
    assert_eq!(b.wait_for(20).len(), 20);
    mirror.signal("TERM");
    let (_, log) = mirror.wait();
    let totals = log.iter().find(|line| line.contains("stopped: ")).unwrap();
    assert!(totals.contains("delivered paused 17"), "{totals}");
    assert_eq!(a.received().len(), 3);

    let mirror = start("20ms");
    let mut client = mirror.client();
    let mut ask_until = |count: usize| {
        wait_until(
            || {
                assert_eq!(client.ask(&request()).status, 200);
                a.received().len() >= count
            },
            || format!("{} requests", a.received().len()),
        );
    };
    // Three failures, and two trials.
    ask_until(3 + 5);
    is_healthy.store(true, Ordering::SeqCst);
    ask_until(3 + 5 + 20);
}

/// An upstream behind a firewall that resets some requests.
fn guarded() -> Upstream {
    Upstream::start(|_, request| match request.text().contains("EVIL") {
        true => Action::Close,
        false => Action::ok(),
    })
}

fn offensive() -> Vec<u8> {
    envelope_request(format!("{}EVIL\n", envelope(ID)).as_bytes())
}

#[test]
fn resets_of_some_requests_do_not_open_the_breaker_for_the_others() {
    let upstream = guarded();
    let mirror = mirror(&upstream, "workers: 1");
    let mut client = mirror.client();
    for _ in 0..4 {
        assert_eq!(client.ask(&request()).status, 200);
        for _ in 0..15 {
            assert_eq!(client.ask(&offensive()).status, 503);
        }
    }
    assert_eq!(client.ask(&request()).status, 200);
    let sent = upstream.received();
    let offending = sent.iter().filter(|sent| sent.text().contains("EVIL"));
    assert!(offending.count() >= 60, "none was held back");
}

#[test]
fn resets_of_all_requests_of_a_route_open_the_breaker_of_that_route_alone() {
    let upstream = guarded();
    let other = "fedcba9876543210fedcba9876543210";
    let mirror = Config::new([upstream.dsn(KEY_A, 11)])
        .route(other, 43, [upstream.dsn(KEY_B, 12)])
        .with_metrics()
        .with("breaker: {pause: 1h, pause_max: 1h}")
        .start();
    let mut client = mirror.client();
    for _ in 0..20 {
        assert_eq!(client.ask(&offensive()).status, 503);
    }
    assert_eq!(upstream.received().len(), 10);
    let text = String::from_utf8(request()).unwrap();
    let honest = text.replace(crate::support::IN_KEY, other);
    assert_eq!(client.ask(honest.as_bytes()).status, 200);
    // That was a response, which closes the breaker for all routes.
    assert_eq!(client.ask(&request()).status, 200);
}
