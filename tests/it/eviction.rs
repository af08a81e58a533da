//! Connections at their limit: an idle one is closed for each new one, and no other is ever closed.

use crate::support::{
    Client, Config, IN_KEY, KEY_A, Metrics, Process, Reloadable, Upstream, envelope_request,
    wait_until,
};

const DRIVERS: [&str; 2] = ["auto", "epoll"];
const EVICTED: &str = "sentry_mirror_sdk_connections_closed_total{reason=\"evicted\"}";
const PAUSED: &str = "sentry_mirror_accept_pauses_total{reason=\"connections\"}";
const RECEIVED: &str = "sentry_mirror_received_bytes_total";

fn limited(upstream: &Upstream, driver: &str, connections: usize) -> Config {
    Config::new([upstream.dsn(KEY_A, 11)])
        .with_metrics()
        .set("driver", driver)
        .set("workers", 1)
        .set("limits.connections", connections)
}

fn ask(client: &mut Client) -> u16 {
    client.ask(&envelope_request(b"{}\n")).status
}

fn served(mirror: &Process) -> Client {
    let mut client = mirror.client();
    assert_eq!(ask(&mut client), 200);
    client
}

/// Sends the first bytes of a request, and waits until the mirror has them.
fn half(mirror: &Process, client: &mut Client) {
    let before = mirror.metrics().value(RECEIVED);
    client.send(&envelope_request(b"{}\n")[..20]);
    mirror.wait_for_metrics(|metrics| metrics.value(RECEIVED) == before + 20.0);
}

fn rest(client: &mut Client) -> u16 {
    client.ask(&envelope_request(b"{}\n")[20..]).status
}

fn counts(metrics: &Metrics) -> (f64, f64) {
    (metrics.value(EVICTED), metrics.value(PAUSED))
}

#[test]
fn the_connection_that_has_been_idle_longest_is_closed_for_a_new_one() {
    for driver in DRIVERS {
        let upstream = Upstream::ok();
        let mirror = limited(&upstream, driver, 3).start();
        let [mut first, mut second, mut third] = [(); 3].map(|()| served(&mirror));
        // Now the second one has been idle longest.
        assert_eq!(ask(&mut first), 200);
        let mut fourth = served(&mirror);
        assert!(second.is_closed(), "{driver}");
        let mut fifth = served(&mirror);
        assert!(third.is_closed(), "{driver}");
        let _sixth = served(&mirror);
        assert!(first.is_closed(), "{driver}");
        assert_eq!((ask(&mut fourth), ask(&mut fifth)), (200, 200), "{driver}");
        let metrics = mirror
            .wait_for_metrics(|metrics| metrics.value("sentry_mirror_sdk_connections_open") == 3.0);
        assert_eq!(counts(&metrics), (3.0, 0.0), "{driver}");
        let log = mirror.log();
        let lines = log.iter().filter(|line| line.contains("idle longest"));
        assert_eq!(lines.count(), 1, "{}", log.join("\n"));
    }
}

#[test]
fn a_busy_connection_is_never_closed_for_a_new_one() {
    for driver in DRIVERS {
        let upstream = Upstream::ok();
        let mirror = limited(&upstream, driver, 2).start();
        let [mut first, mut second] = [(); 2].map(|()| mirror.client());
        half(&mirror, &mut first);
        half(&mirror, &mut second);
        let mut third = mirror.client();
        third.send(&envelope_request(b"{}\n"));
        mirror.wait_for_line("no connection is idle");
        mirror.wait_for_metrics(|metrics| counts(metrics) == (0.0, 1.0));
        // Once it is idle, it is closed.
        assert_eq!(rest(&mut second), 200, "{driver}");
        assert_eq!(third.response().status, 200, "{driver}");
        assert!(second.is_closed(), "{driver}");
        assert_eq!(rest(&mut first), 200, "{driver}");
        assert_eq!(ask(&mut third), 200, "{driver}");
        mirror.wait_for_metrics(|metrics| metrics.value(EVICTED) == 1.0);
    }
}

#[test]
fn a_connection_that_sends_nothing_shuts_nobody_out() {
    for driver in DRIVERS {
        let upstream = Upstream::ok();
        let mirror = limited(&upstream, driver, 1).start();
        let mut silent = mirror.client();
        // It has its time first.
        let mut client = served(&mirror);
        assert!(silent.is_closed(), "{driver}");
        assert_eq!(ask(&mut client), 200, "{driver}");
        assert_eq!(mirror.metrics().value(EVICTED), 1.0, "{driver}");
    }
}

#[test]
fn a_request_that_arrives_when_its_connection_is_to_be_closed_is_answered() {
    const COUNT: usize = 8;
    for driver in DRIVERS {
        let upstream = Upstream::ok();
        let mirror = limited(&upstream, driver, COUNT).start();
        let mut idle = [(); COUNT].map(|()| served(&mirror));
        for _ in 0..5 {
            // When it goes on, it finds new connections, and requests on all others.
            mirror.signal("STOP");
            wait_until(|| mirror.is_stopped(), || "it is not stopped".to_owned());
            let mut new = [(); COUNT].map(|()| mirror.client());
            for client in idle.iter_mut().chain(&mut new) {
                client.send(&envelope_request(b"{}\n"));
            }
            mirror.signal("CONT");
            for client in idle.iter_mut().chain(&mut new) {
                assert_eq!(client.response().status, 200, "{driver}");
            }
            idle = [(); COUNT].map(|()| served(&mirror));
        }
    }
}

#[test]
fn health_and_new_clients_are_answered_while_the_limit_is_full_of_idle_connections() {
    const COUNT: usize = 100;
    for driver in DRIVERS {
        let upstream = Upstream::ok();
        let mirror = limited(&upstream, driver, COUNT).start();
        let mut idle: Vec<Client> = (0..COUNT).map(|_| served(&mirror)).collect();
        let health = b"GET /health HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n";
        assert_eq!(mirror.client().ask(health).status, 200, "{driver}");
        let mut new: Vec<Client> = (0..20).map(|_| mirror.client()).collect();
        for client in &mut new {
            client.send(&envelope_request(b"{}\n"));
        }
        for client in &mut new {
            assert_eq!(client.response().status, 200, "{driver}");
        }
        // The others are still open.
        for client in &mut idle[21..] {
            assert_eq!(ask(client), 200, "{driver}");
        }
        let (evicted, paused) = counts(&mirror.metrics());
        assert!((20.0..=21.0).contains(&evicted), "{driver}: {evicted}");
        assert_eq!(paused, 0.0, "{driver}");
    }
}

#[test]
fn a_client_over_its_own_limit_closes_no_connection_of_another() {
    let upstream = Upstream::ok();
    let mirror = limited(&upstream, "auto", 2)
        .set("limits.connections_per_peer", 2)
        .start();
    let mut clients = [(); 2].map(|()| served(&mirror));
    assert!(mirror.client().is_closed());
    for client in &mut clients {
        assert_eq!(ask(client), 200);
    }
    assert_eq!(counts(&mirror.metrics()), (0.0, 0.0));
}

#[test]
fn a_raised_connection_limit_takes_effect_at_once() {
    let upstream = Upstream::ok();
    let limited_to = |count: usize| limited(&upstream, "auto", count).text();
    let mut mirror = Reloadable::start(&limited_to(2));
    let mut busy = [(); 2].map(|()| mirror.process.client());
    for client in &mut busy {
        half(&mirror.process, client);
    }
    let mut third = mirror.process.client();
    third.send(&envelope_request(b"{}\n"));
    mirror
        .process
        .wait_for_metrics(|metrics| metrics.value(PAUSED) == 1.0);
    mirror.reload(&limited_to(3));
    assert_eq!(third.response().status, 200);
    // The others stay open.
    for client in &mut busy {
        assert_eq!(rest(client), 200);
        assert_eq!(ask(client), 200);
    }
    assert_eq!(mirror.process.metrics().value(EVICTED), 0.0);
}

#[test]
fn a_shorter_idle_timeout_counts_for_connections_that_wait_already() {
    let upstream = Upstream::ok();
    let with_timeout = |idle: &str| {
        let config = limited(&upstream, "auto", 10);
        config.set("timeouts.idle", idle).text()
    };
    let mut mirror = Reloadable::start(&with_timeout("1h"));
    let mut client = served(&mirror.process);
    let mut silent = mirror.process.client();
    mirror.reload(&with_timeout("100ms"));
    assert!(client.is_closed() && silent.is_closed());
    let request = format!("GET /api/42/store/?sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\n\r\n");
    assert_eq!(mirror.process.client().ask(request.as_bytes()).status, 200);
}
