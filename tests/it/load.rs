//! Many requests, many connections, more than one worker.

use std::collections::HashMap;
use std::thread;

use crate::support::{KEY_A, KEY_B, Process, Upstream, config, envelope, envelope_request};

const EVENTS: usize = 20_000;
const CLIENTS: usize = 64;

/// The most connections of each upstream; usually there are 30 to 50. Each client waits for the primary, so
/// one connection per client is enough there. Deliveries to the other upstream continue in the background,
/// and on a busy machine more of them may be in flight for a moment.
const CONNECTIONS_MAX: [usize; 2] = [CLIENTS, EVENTS / 100];

#[test]
fn twenty_thousand_events_arrive_exactly_once_over_few_connections() {
    let (a, b) = (Upstream::ok(), Upstream::ok());
    let mirror = Process::start(&config(&[a.dsn(KEY_A, 11), b.dsn(KEY_B, 22)], ""));
    thread::scope(|scope| {
        for client_number in 0..CLIENTS {
            let mirror = &mirror;
            scope.spawn(move || {
                let mut client = mirror.client();
                for event in (client_number..EVENTS).step_by(CLIENTS) {
                    let body = envelope(&format!("{event:032x}"));
                    let response = client.ask(&envelope_request(body.as_bytes()));
                    assert_eq!(response.status, 200, "{}", response.text());
                }
            });
        }
    });
    a.wait_for(EVENTS);
    b.wait_for(EVENTS);
    // A duplicate would be sent before the mirror ends.
    mirror.signal("TERM");
    let (status, _) = mirror.wait();
    assert!(status.success());
    for (upstream, connections_max) in [&a, &b].into_iter().zip(CONNECTIONS_MAX) {
        let received = upstream.received();
        assert_eq!(received.len(), EVENTS);
        let mut seen = vec![0_u8; EVENTS];
        for request in &received {
            let text = request.text();
            let id = &text[r#"{"event_id":""#.len()..][..32];
            seen[usize::from_str_radix(id, 16).unwrap()] += 1;
        }
        assert!(seen.iter().all(|count| *count == 1));
        assert!(
            upstream.connections() <= connections_max,
            "{} connections",
            upstream.connections()
        );
    }
}

#[test]
fn the_connections_of_a_load_balancer_leave_no_worker_idle() {
    let upstream = Upstream::ok();
    let mirror = Process::start_with(
        &config(&[upstream.dsn(KEY_A, 11)], "workers: 2"),
        |command| {
            command.arg("--verbose");
        },
    );
    let mut clients: Vec<_> = (0..64).map(|_| mirror.client()).collect();
    for client in &mut clients {
        let response = client.ask(&envelope_request(envelope("00").as_bytes()));
        assert_eq!(response.status, 200);
    }
    let mut per_worker: HashMap<String, usize> = HashMap::new();
    for line in mirror.wait_for_lines("connection accepted", 64) {
        let (_, worker) = line.split_once("worker=").unwrap();
        let worker = worker.split_whitespace().next().unwrap();
        *per_worker.entry(worker.to_owned()).or_default() += 1;
    }
    assert_eq!(per_worker.len(), 2, "{per_worker:?}");
    // 32 would be even. With less than 20 a worker would be half idle.
    assert!(
        per_worker.values().all(|count| *count >= 20),
        "{per_worker:?}"
    );
}
