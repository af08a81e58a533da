//! Requests in flight hold nothing whose reference count workers share.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use crate::config::Config;
use crate::mirror::routing::routing_table::RoutingTable;
use crate::process::supervisor::Mirror;

const KEY: &str = "0123456789abcdef0123456789abcdef";
const PATIENCE: Duration = Duration::from_secs(20);
const WORKERS: usize = 2;
const REQUESTS: usize = 40;

/// Tells of each request that `stream` brings, and answers none.
fn hang(stream: &TcpStream, received: &Sender<()>) {
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    lines
        .filter(|line| line.starts_with("POST "))
        .for_each(|_| received.send(()).unwrap());
}

/// The reference counts of what all workers share of a table.
fn counts(table: &Arc<RoutingTable>) -> Vec<usize> {
    let routes = table.routes.all().iter().map(Arc::strong_count);
    let origins = table.origins.iter().map(Arc::strong_count);
    let others = [Arc::strong_count(table), Arc::strong_count(&table.limits)];
    routes.chain(origins).chain(others).collect()
}

#[test]
fn requests_in_flight_change_no_reference_count_that_workers_share() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let outbound = listener.local_addr().unwrap();
    let (received, requests) = channel();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let received = received.clone();
            thread::spawn(move || hang(&stream, &received));
        }
    });
    let text = format!(
        "ip: 127.0.0.1\nport: 0\nworkers: {WORKERS}\nadmin: off\ntimeouts: {{drain: 100ms}}\nkeys:\n\
         - {{inbound: 'http://{KEY}@m/42', outbound: ['http://{KEY}@{outbound}/1', 'http://{KEY}@{outbound}/2']}}\n"
    );
    let config = Config::parse(&text, "test", std::iter::empty()).unwrap();
    let mirror = Mirror::start(&config).unwrap();
    let table = mirror.mirror_status().current().table;
    let body = format!("{{\"trace\":{{\"public_key\":\"{KEY}\"}}}}\n");
    let request = format!(
        "POST /api/42/envelope/?sentry_key={KEY} HTTP/1.1\r\nHost: m\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let clients: Vec<TcpStream> = (0..REQUESTS)
        .map(|_| {
            let mut client = TcpStream::connect_timeout(&mirror.address(), PATIENCE).unwrap();
            client.write_all(request.as_bytes()).unwrap();
            client
        })
        .collect();
    for _ in 0..2 * REQUESTS {
        requests.recv_timeout(PATIENCE).unwrap();
    }
    // The supervisor, the resolver and each worker have a few of them.
    let counts = counts(&table);
    assert!(
        counts.iter().all(|count| *count <= 4 * WORKERS),
        "{counts:?}"
    );
    drop(clients);
}
