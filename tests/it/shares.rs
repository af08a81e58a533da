//! Who may take how much of the memory budget: what is only announced takes nothing, and nobody takes what
//! others need.

use crate::support::{
    Action, Client, KEY_A, KEY_B, Process, Upstream, config, envelope, envelope_request,
};

const ID: &str = "9ec79c33ec9942ab8353589fcb2e04dc";
/// The inbound key of a second route.
const OTHER_KEY: &str = "fedcba9876543210fedcba9876543210";

/// A mirror with one worker, a route to `outbound` and one by [`OTHER_KEY`] to `others`.
fn mirror(outbound: &Upstream, others: &[String], extra: &str) -> Process {
    let extra = format!("admin: {{port: 0}}\nworkers: 1\n{extra}");
    let mut text = config(&[outbound.dsn(KEY_A, 11)], &extra);
    text += &format!("  - inbound: http://{OTHER_KEY}@mirror.example.com/43\n    outbound:\n");
    for dsn in others {
        text += &format!("      - {dsn}\n");
    }
    Process::start(&text)
}

/// A request to the second route.
fn other_request(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /api/43/envelope/?sentry_key={OTHER_KEY} HTTP/1.1\r\nHost: m\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn assert_served(mirror: &Process) {
    let mut client = mirror.client();
    for _ in 0..10 {
        let request = envelope_request(envelope(ID).as_bytes());
        assert_eq!(client.ask(&request).status, 200);
    }
}

#[test]
fn connections_that_only_announce_bodies_leave_the_whole_budget_to_others() {
    let upstream = Upstream::ok();
    let mirror = mirror(
        &upstream,
        &[upstream.dsn(KEY_B, 22)],
        "limits: {memory_bytes: 1MiB, body_bytes: 512KiB, decoded_bytes: 512KiB}",
    );
    // Each is in the middle of its body when the next comes: the answer to its first request says so.
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
    mirror.wait_for_metrics(|metrics| metrics.of("sentry_mirror_request_memory_bytes") == 0.0);
    drop(hogs);
}

#[test]
fn answers_that_are_only_declared_leave_the_budget_to_others() {
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
        let held_bytes = metrics.of("sentry_mirror_request_memory_bytes");
        0.0 < held_bytes && held_bytes < 1_000_000.0
    });
    drop(hogs);
}
