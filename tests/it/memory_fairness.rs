//! Shares of the memory budget: announced bytes reserve nothing, and nobody can take the memory that others
//! need.

use crate::support::{
    Action, Client, Config, IN_KEY, KEY_A, KEY_B, Process, Upstream, envelope, envelope_request,
};

const ID: &str = "9ec79c33ec9942ab8353589fcb2e04dc";
/// The inbound key of a second route.
const OTHER_KEY: &str = "fedcba9876543210fedcba9876543210";

/// A mirror with one worker, a route to `outbound` and one by [`OTHER_KEY`] to `others`.
fn mirror(outbound: &Upstream, others: &[String], lines: &str) -> Process {
    Config::new([outbound.dsn(KEY_A, 11)])
        .route(OTHER_KEY, 43, others.to_vec())
        .with_metrics()
        .with(lines)
        .start()
}

/// A request to the second route.
fn other_request(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /api/43/envelope/?sentry_key={OTHER_KEY} HTTP/1.1\r\nHost: m\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// The same over a tunnel: only the envelope names the route.
fn tunnelled(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /tunnel HTTP/1.1\r\nHost: m\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// An envelope for the second route, with `bytes` more in it.
fn other_envelope(bytes: usize) -> Vec<u8> {
    let mut envelope = envelope(ID).replace(IN_KEY, OTHER_KEY).into_bytes();
    envelope.resize(envelope.len() + bytes, b'x');
    envelope
}

fn assert_served(mirror: &Process) {
    let mut client = mirror.client();
    for _ in 0..10 {
        let request = envelope_request(envelope(ID).as_bytes());
        assert_eq!(client.ask(&request).status, 200);
    }
}

#[test]
fn announced_bodies_leave_the_whole_budget_to_others() {
    let upstream = Upstream::ok();
    let mirror = mirror(
        &upstream,
        &[upstream.dsn(KEY_B, 22)],
        "limits: {memory_bytes: 1MiB, body_bytes: 512KiB, decoded_bytes: 512KiB}",
    );
    // The mirror waits for the body of each when the next connects: it has answered its first request.
    let hogs: Vec<Client> = (0..100)
        .map(|number| {
            let mut hog = mirror.client();
            assert_eq!(hog.ask(&envelope_request(b"{}\n")).status, 200);
            let length = [300_000, 60_000, 500][number % 3];
            let head = String::from_utf8(envelope_request(b"")).expect("text");
            let announced = format!("Content-Length: {length}");
            hog.send(head.replace("Content-Length: 0", &announced).as_bytes());
            hog
        })
        .collect();
    assert_served(&mirror);
    mirror.wait_for_metrics(|metrics| metrics.value("sentry_mirror_request_memory_bytes") == 0.0);
    drop(hogs);
}

#[test]
fn announced_response_bodies_leave_the_whole_budget_to_others() {
    let upstream = Upstream::ok();
    let declared = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n".to_vec();
    let hostile = Upstream::start(move |_, _| Action::Raw(declared.clone()));
    let mirror = mirror(
        &upstream,
        &[hostile.dsn(KEY_B, 22)],
        "limits: {memory_bytes: 4MiB, body_bytes: 1MiB, decoded_bytes: 1MiB}",
    );
    let hogs: Vec<Client> = (0..20)
        .map(|_| {
            let mut hog = mirror.client();
            hog.send(&other_request(b"{}\n"));
            hog
        })
        .collect();
    hostile.wait_for(20);
    assert_served(&mirror);
    mirror.wait_for_metrics(|metrics| {
        let held_bytes = metrics.value("sentry_mirror_request_memory_bytes");
        0.0 < held_bytes && held_bytes < 1_000_000.0
    });
    drop(hogs);
}

/// A budget that forty bodies of `BODY_BYTES` fill.
const SMALL: &str =
    "reply_timeout: 100ms\nlimits: {memory_bytes: 4MiB, body_bytes: 1MiB, decoded_bytes: 1MiB}";
const BODY_BYTES: usize = 100_000;

fn overloaded(mirror: &Process, route: u32) -> f64 {
    let labels = [
        &format!("mirror.example.com/{route}\"")[..],
        "outcome=\"overloaded\"",
    ];
    mirror
        .metrics()
        .sum("sentry_mirror_deliveries_total", &labels)
}

#[test]
fn an_origin_that_does_not_answer_does_not_harm_other_routes() {
    let (upstream, silent) = (Upstream::ok(), Upstream::start(|_, _| Action::Hang));
    let mirror = mirror(&upstream, &[silent.dsn(KEY_B, 22)], SMALL);
    let mut client = mirror.client();
    let request = other_request(&other_envelope(BODY_BYTES));
    let statuses: Vec<u16> = (0..60).map(|_| client.ask(&request).status).collect();
    // Deliveries to it are dropped once they hold half of the budget.
    let (unconfirmed, refused) = statuses.split_at(silent.received().len());
    assert!((10..20).contains(&unconfirmed.len()), "{statuses:?}");
    assert!(
        unconfirmed.iter().all(|status| *status == 200),
        "{statuses:?}"
    );
    assert!(refused.iter().all(|status| *status == 503), "{statuses:?}");
    assert_eq!(overloaded(&mirror, 43), refused.len() as f64);
    // Other requests are served, even large ones.
    assert_served(&mirror);
    let mut large = envelope(ID).into_bytes();
    large.resize(900_000, b'x');
    assert_eq!(mirror.client().ask(&envelope_request(&large)).status, 200);
    assert_eq!(overloaded(&mirror, 42), 0.0);
}

#[test]
fn an_outbound_that_does_not_answer_loses_its_own_deliveries_alone() {
    let (upstream, silent) = (Upstream::ok(), Upstream::start(|_, _| Action::Hang));
    let others = [upstream.dsn(KEY_A, 12), silent.dsn(KEY_B, 22)];
    let mirror = mirror(&upstream, &others, SMALL);
    let mut client = mirror.client();
    let request = other_request(&other_envelope(BODY_BYTES));
    for _ in 0..60 {
        assert_eq!(client.ask(&request).status, 200);
    }
    upstream.wait_for(60);
    let delivered = silent.received().len();
    assert!((10..20).contains(&delivered), "{delivered}");
    assert_eq!(overloaded(&mirror, 43), 60.0 - delivered as f64);
    assert_served(&mirror);
}

#[test]
fn requests_without_a_key_leave_memory_for_requests_with_a_key() {
    let upstream = Upstream::ok();
    let mirror = mirror(&upstream, &[upstream.dsn(KEY_B, 22)], SMALL);
    let hogs: Vec<Client> = (0..60)
        .map(|_| {
            let mut hog = mirror.client();
            let request = tunnelled(&[b'x'; BODY_BYTES]);
            hog.send(&request[..request.len() - 1]);
            hog
        })
        .collect();
    let rejected = "sentry_mirror_rejections_total{reason=\"overloaded\"}";
    mirror.wait_for_metrics(|metrics| metrics.value(rejected) > 0.0);
    assert_served(&mirror);
    let mut large = envelope(ID).into_bytes();
    large.resize(900_000, b'x');
    assert_eq!(mirror.client().ask(&envelope_request(&large)).status, 200);
    drop(hogs);
    mirror.wait_for_metrics(|metrics| metrics.value("sentry_mirror_request_memory_bytes") == 0.0);
    let request = tunnelled(&other_envelope(900_000));
    assert_eq!(mirror.client().ask(&request).status, 200);
}

#[test]
fn the_buffer_of_an_upload_that_was_refused_half_way_is_not_lent_to_others() {
    let upstream = Upstream::ok();
    let mirror = mirror(&upstream, &[upstream.dsn(KEY_B, 22)], SMALL);
    // Announcing a body reserves nothing, so the mirror is ready to read all of them.
    let mut hogs: Vec<Client> = (0..4).map(|_| mirror.client()).collect();
    for hog in &mut hogs {
        hog.send(b"POST /tunnel HTTP/1.1\r\nHost: m\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n");
        assert_eq!(hog.response_head().status, 100);
    }
    let held = |bytes: f64| {
        let held = "sentry_mirror_request_memory_bytes";
        mirror.wait_for_metrics(|metrics| metrics.value(held) > bytes);
    };
    // Two of them hold nearly half of the budget, which is what all requests without a key may hold.
    hogs[0].send(&[b'x'; 900_000]);
    held(1_000_000.0);
    hogs[1].send(&[b'x'; 900_000]);
    held(2_000_000.0);
    // The buffer of the third has grown when there is no more. The fourth takes what that one had reserved.
    hogs[2].send(&[b'x'; 200_000]);
    assert_eq!(hogs[2].response().status, 503);
    assert!(hogs[2].is_closed());
    hogs[3].send(&[b'x'; 20_000]);
    held(2_060_000.0);
    assert_served(&mirror);
}

#[test]
fn a_tunnel_to_an_origin_that_does_not_answer_does_not_block_other_tunnels() {
    let (upstream, silent) = (Upstream::ok(), Upstream::start(|_, _| Action::Hang));
    let mirror = mirror(&upstream, &[silent.dsn(KEY_B, 22)], SMALL);
    let mut client = mirror.client();
    let request = tunnelled(&other_envelope(BODY_BYTES));
    while client.ask(&request).status == 200 {}
    assert!(overloaded(&mirror, 43) > 0.0);
    let request = tunnelled(envelope(ID).as_bytes());
    for _ in 0..10 {
        assert_eq!(client.ask(&request).status, 200);
    }
}

#[test]
fn a_single_origin_may_use_the_whole_budget() {
    let silent = Upstream::start(|_, _| Action::Hang);
    let mirror = Config::new([silent.dsn(KEY_A, 11)])
        .set("workers", 1)
        .with(SMALL)
        .start();
    let mut client = mirror.client();
    let mut body = envelope(ID).into_bytes();
    body.resize(BODY_BYTES, b'x');
    let request = envelope_request(&body);
    while client.ask(&request).status == 200 {}
    let delivered = silent.received().len();
    assert!(delivered > 25, "{delivered}");
}
