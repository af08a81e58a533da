//! Limits that no reply shows: each holds, and is counted where an operator can see it.

use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_yaml::Value;
use socket2::{Domain, SockRef, Socket, Type};

use crate::support::{
    Action, Client, Config, IN_KEY, KEY_A, KEY_B, Metrics, Process, Reloadable, Upstream,
    envelope_request, wait_until,
};

const CLOSED: &str = "sentry_mirror_sdk_connections_closed_total";
const DROPPED: &str = "sentry_mirror_upstream_connections_dropped_total";

fn mirror(outbound: String, lines: &str) -> Process {
    Config::new([outbound]).with_metrics().with(lines).start()
}

fn to(upstream: &Upstream) -> Config {
    Config::new([upstream.dsn(KEY_A, 11)]).with_metrics()
}

fn ask(client: &mut Client) -> u16 {
    client.ask(&envelope_request(b"{}\n")).status
}

fn of(metrics: &Metrics, name: &str, reason: &str) -> f64 {
    metrics.sum(name, &[&format!("reason=\"{reason}\"")])
}

#[test]
fn an_idle_connection_is_closed_after_the_timeout_and_counted() {
    let upstream = Upstream::ok();
    let mirror = mirror(upstream.dsn(KEY_A, 11), "timeouts: {idle: 200ms}");
    let mut client = mirror.client();
    assert_eq!(ask(&mut client), 200);
    assert!(client.is_closed());
    // So is one that never sent anything.
    assert!(mirror.client().is_closed());
    mirror.wait_for_metrics(|metrics| {
        of(metrics, CLOSED, "idle") >= 2.0 && of(metrics, CLOSED, "write") == 0.0
    });
}

#[test]
fn a_reply_that_the_client_does_not_read_in_time_closes_the_connection() {
    let body = "x".repeat(900_000);
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let upstream = Upstream::start(move |_, _| Action::Raw(answer.clone().into_bytes()));
    let mirror = mirror(upstream.dsn(KEY_A, 11), "timeouts: {write: 200ms}");
    let stream = TcpStream::connect(mirror.address).expect("it listens");
    SockRef::from(&stream)
        .set_recv_buffer_size(4096)
        .expect("a socket");
    let request = format!("GET /api/42/store/?sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\n\r\n");
    // More than the kernel buffers on both sides.
    std::io::Write::write_all(&mut &stream, request.repeat(30).as_bytes()).expect("a connection");
    let metrics = mirror.wait_for_metrics(|metrics| of(metrics, CLOSED, "write") == 1.0);
    assert_eq!(
        metrics.value("sentry_mirror_sdk_connections_closed_total{reason=\"idle\"}"),
        0.0
    );
    assert_eq!(ask(&mut mirror.client()), 200);
    assert!(upstream.received().len() < 30);
}

#[test]
fn connections_of_a_client_over_its_limit_are_closed() {
    let limited_to = |upstream: &Upstream, count: Value| {
        to(upstream)
            .set("limits.connections_per_peer", count)
            .text()
    };
    let upstream = Upstream::ok();
    let mut mirror = Reloadable::start(&limited_to(&upstream, 2.into()));
    let mut open: Vec<Client> = (0..2).map(|_| mirror.process.client()).collect();
    for client in &mut open {
        assert_eq!(ask(client), 200);
    }
    // Another address of the loopback is another client.
    let elsewhere = SocketAddr::from(([127, 0, 0, 2], 0));
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&elsewhere.into()).expect("a free port");
    let address = mirror.process.address;
    socket.connect(&address.into()).expect("the mirror listens");
    let mut other = Client::over(socket.into());
    assert_eq!(ask(&mut other), 200);
    assert!(mirror.process.client().is_closed());
    let metrics = mirror.process.metrics();
    assert_eq!(of(&metrics, CLOSED, "connections_per_peer"), 1.0);
    for client in &mut open {
        assert_eq!(ask(client), 200);
    }
    // A closed connection no longer counts.
    drop(open.pop());
    mirror
        .process
        .wait_for_metrics(|metrics| metrics.sum("sentry_mirror_sdk_connections_open", &[]) == 2.0);
    assert_eq!(ask(&mut mirror.process.client()), 200);
    mirror.reload(&limited_to(&upstream, "off".into()));
    let mut many: Vec<Client> = (0..5).map(|_| mirror.process.client()).collect();
    for client in &mut many {
        assert_eq!(ask(client), 200);
    }
}

#[test]
fn a_reload_keeps_the_count_of_deliveries_in_flight() {
    let slow = Upstream::start(|_, _| Action::Hang);
    let ok = Upstream::ok();
    let outbounds = [slow.dsn(KEY_A, 11), ok.dsn(KEY_B, 22)];
    let with_idle = |idle: u32| {
        Config::new(outbounds.clone())
            .with_metrics()
            .with("{reply_timeout: 1s, limits: {in_flight: 2}, timeouts: {drain: 100ms}}")
            .set("pool.idle_connections", idle)
            .text()
    };
    let mut mirror = Reloadable::start(&with_idle(8));
    for round in 0..4 {
        let mut client = mirror.process.client();
        assert_eq!((ask(&mut client), ask(&mut client)), (200, 200));
        // A limit changes each time.
        mirror.reload(&with_idle(9 + round));
    }
    ok.wait_for(8);
    assert_eq!(slow.received().len(), 2);
    assert_eq!(ok.connections(), 1);
}

#[test]
fn upstream_connections_are_closed_by_age_idle_time_and_number() {
    let upstream = Upstream::ok();
    let aged = mirror(upstream.dsn(KEY_A, 11), "pool: {max_age: 1s}");
    let mut client = aged.client();
    wait_until(
        || {
            assert_eq!(ask(&mut aged.client()), 200);
            upstream.connections() >= 3
        },
        || format!("{} connections", upstream.connections()),
    );
    assert_eq!(ask(&mut client), 200);
    aged.wait_for_metrics(|metrics| of(metrics, DROPPED, "max_age") >= 2.0);

    let idle = mirror(upstream.dsn(KEY_A, 11), "pool: {idle_timeout: 500ms}");
    assert_eq!(ask(&mut idle.client()), 200);
    idle.wait_for_metrics(|metrics| of(metrics, DROPPED, "idle_timeout") == 1.0);

    // Three at a time, of which one may stay open.
    let barrier = Barrier::new(3);
    let together = Upstream::start(move |_, _| {
        barrier.wait();
        Action::ok()
    });
    let few = Arc::new(mirror(
        together.dsn(KEY_A, 11),
        "pool: {idle_connections: 1}",
    ));
    let asking = [(); 3].map(|()| {
        let few = Arc::clone(&few);
        thread::spawn(move || ask(&mut few.client()))
    });
    assert_eq!(
        asking.map(|thread| thread.join().expect("no panic")),
        [200; 3]
    );
    let metrics = few.wait_for_metrics(|metrics| of(metrics, DROPPED, "idle_connections") == 2.0);
    let idle = metrics.sum("sentry_mirror_upstream_connections_idle", &[]);
    assert!(idle <= 1.0, "{idle}");
}

/// Deliveries in flight to an upstream that answers after 100 ms, at 5,000 a second.
const FAR_AWAY: usize = 500;

#[test]
fn bursts_to_a_distant_upstream_reuse_the_connections_of_the_first() {
    allow_descriptors(4 * FAR_AWAY);
    // It answers none before it has all, which takes as many connections as a high latency.
    let barrier = Barrier::new(FAR_AWAY);
    let upstream = Upstream::start(move |_, _| {
        barrier.wait();
        Action::ok()
    });
    // Longer than the default, so that a slow machine does not add to the latency.
    let mirror = mirror(upstream.dsn(KEY_A, 11), "reply_timeout: 20s");
    let mut clients: Vec<Client> = (0..FAR_AWAY).map(|_| mirror.client()).collect();
    for burst in 1..=5 {
        for client in &mut clients {
            client.send(&envelope_request(b"{}\n"));
        }
        for client in &mut clients {
            assert_eq!(client.response().status, 200, "burst {burst}");
        }
        // Wait until the mirror has checked its idle connections at least once.
        let metrics = mirror.wait_for_metrics(|metrics| {
            let sum = |name: &str| metrics.sum(&format!("sentry_mirror_{name}"), &[]);
            sum("upstream_connections_idle") > 0.0 && sum("deliveries_in_flight") == 0.0
        });
        // A slow machine rests longer between two bursts, so a part of the connections is closed meanwhile.
        let surplus = of(&metrics, DROPPED, "surplus") as usize;
        let opened = upstream.connections();
        assert!(
            opened <= FAR_AWAY + surplus,
            "{opened}, {surplus}, burst {burst}"
        );
    }
    let metrics = mirror.metrics();
    assert_eq!(of(&metrics, DROPPED, "idle_connections"), 0.0);
}

#[test]
fn an_upstream_has_at_most_as_many_connections_as_deliveries_in_flight() {
    const IN_FLIGHT: usize = 20;
    const CLIENTS: usize = 60;
    let upstream = Upstream::ok();
    let mirror = to(&upstream).set("limits.in_flight", IN_FLIGHT).start();
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = mirror.client();
                for _ in 0..20 {
                    let status = ask(&mut client);
                    assert!([200, 503].contains(&status), "{status}");
                }
            });
        }
    });
    // None was closed meanwhile.
    let opened = upstream.connections();
    assert!((1..=IN_FLIGHT).contains(&opened), "{opened}");
}

#[test]
fn many_idle_upstream_connections_are_closed_while_requests_are_served() {
    const COUNT: usize = 300;
    allow_descriptors(4 * FAR_AWAY);
    let barrier = Barrier::new(COUNT);
    let upstream = Upstream::start(move |number, _| {
        if number < COUNT {
            barrier.wait();
        }
        Action::ok()
    });
    let mirror = mirror(
        upstream.dsn(KEY_A, 11),
        "reply_timeout: 20s\npool: {idle_timeout: 1500ms}",
    );
    let mut clients: Vec<Client> = (0..COUNT).map(|_| mirror.client()).collect();
    for client in &mut clients {
        client.send(&envelope_request(b"{}\n"));
    }
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    mirror.wait_for_metrics(|metrics| {
        assert_eq!(ask(&mut mirror.client()), 200);
        of(metrics, DROPPED, "idle_timeout") >= COUNT as f64 - 1.0
    });
    wait_until(
        || mirror.descriptors() < COUNT + 100,
        || format!("{} descriptors", mirror.descriptors()),
    );
}

/// Raises the limit of descriptors of this process, which holds both ends of many connections.
fn allow_descriptors(count: usize) {
    let limit = getrlimit(Resource::Nofile);
    let count = count as u64;
    if limit.current.is_some_and(|current| current < count) {
        let raised = Rlimit {
            current: limit.maximum,
            ..limit
        };
        setrlimit(Resource::Nofile, raised).expect("the hard limit is allowed");
    }
}

#[test]
fn a_host_that_cannot_be_resolved_is_counted() {
    let mirror = mirror(
        format!("http://{KEY_A}@nowhere.invalid/1"),
        "dns: {refresh: 1s}",
    );
    mirror.wait_for_metrics(|metrics| metrics.sum("sentry_mirror_dns_failures_total", &[]) >= 2.0);
}

#[test]
fn a_head_that_needs_too_many_edits_is_refused() {
    let upstream = Upstream::ok();
    let mirror = mirror(upstream.dsn(KEY_A, 11), "");
    let slashes = "//a".repeat(20_000);
    let keys = format!("&sentry_key={IN_KEY}").repeat(500);
    let secrets = "&sentry_secret=".repeat(2000);
    let dsns = format!("&dsn=http://{IN_KEY}@m/42").repeat(500);
    for (target, status) in [
        (format!("/api/42{slashes}?sentry_key={IN_KEY}"), 404),
        (format!("/api/42/x/?sentry_key={IN_KEY}{keys}"), 401),
        (format!("/api/42/x/?sentry_key={IN_KEY}{secrets}"), 401),
        (format!("/api/embed/error-page/?{dsns}"), 401),
        (
            format!("/api/42/{}x/?sentry_key={IN_KEY}", "//a".repeat(20)),
            200,
        ),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: m\r\n\r\n");
        assert_eq!(
            mirror.client().ask(request.as_bytes()).status,
            status,
            "{}",
            &target[..60]
        );
    }
    // Nor does a line that is not read leak keys.
    let lists = "X-Sentry-Auth: Sentry sentry_version=7\r\n";
    let list = format!(
        "X-Sentry-Auth: Sentry {}\r\n",
        format!("sentry_key={IN_KEY},").repeat(400)
    );
    let request = format!("GET /api/42/x/?sentry_key={IN_KEY} HTTP/1.1\r\n{lists}{list}\r\n");
    assert_eq!(mirror.client().ask(request.as_bytes()).status, 401);
    assert_eq!(upstream.received().len(), 1);
}

#[test]
fn a_client_that_keeps_sending_after_a_rejection_does_not_delay_shutdown() {
    let upstream = Upstream::ok();
    let mirror = mirror(upstream.dsn(KEY_A, 11), "limits: {body_bytes: 1MiB}");
    let mut client = mirror.client();
    client.send(
        format!(
            "POST /api/42/envelope/?sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\nContent-Length: 1000000000\r\n\r\n"
        )
        .as_bytes(),
    );
    assert_eq!(client.response().status, 413);
    let mut sending = client.another_handle();
    let sending = thread::spawn(move || {
        while std::io::Write::write_all(&mut sending, b"x").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    mirror.signal("TERM");
    // This gives up earlier than `timeouts.drain`.
    let (status, _) = mirror.wait();
    assert!(status.success());
    sending.join().expect("no panic");
}
