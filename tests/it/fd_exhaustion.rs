//! Running out of file descriptors: the mirror closes idle connections, or accepts more slowly, and loses no busy
//! connection.
//!
//! The tests lower the limit of the running process to a few more descriptors than it has open. For
//! `accept` that is the same as a full file table.

use std::fs;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use socket2::SockRef;

use crate::support::ledger::{Fate, Ledger, Sink, body};
use crate::support::{Client, Config, KEY_A, Process, Upstream, envelope_request, wait_until};

/// Allows the process this many descriptors; the hard limit stays.
fn set_limit(mirror: &Process, count: usize) {
    let pid = i32::try_from(mirror.id()).ok().and_then(Pid::from_raw);
    let limit = Rlimit {
        current: Some(count as u64),
        maximum: None,
    };
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit { maximum, ..limit };
    prlimit(pid, Resource::Nofile, limit).expect("the limit of a child can be set");
}

/// The CPU time that the process has used so far, in ticks of 10 ms.
fn ticks(mirror: &Process) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", mirror.id())).expect("it runs");
    let (_, fields) = stat.rsplit_once(") ").expect("a name in brackets");
    let fields: Vec<&str> = fields.split(' ').collect();
    let number = |at: usize| fields[at].parse::<u64>().expect("a number");
    number(11) + number(12)
}

fn mirror(outbound: String, driver: &str) -> Process {
    Config::new([outbound])
        .with_metrics()
        .set("driver", driver)
        .start()
}

const DRIVERS: [&str; 2] = ["auto", "epoll"];

#[test]
fn accept_waits_for_descriptors_and_logs_it_once() {
    for driver in DRIVERS {
        let upstream = Upstream::ok();
        let mirror = mirror(upstream.dsn(KEY_A, 11), driver);
        let request = envelope_request(b"{}\n");
        let ask = |client: &mut Client| client.ask(&request).status;
        let mut first = mirror.client();
        assert_eq!(ask(&mut first), 200);
        // All connections are busy: an idle one would be closed for a new one.
        let (begin, end) = request.split_at(20);
        first.send(begin);
        set_limit(&mirror, mirror.descriptors() + 5);
        // The kernel completes the connections, so all of them succeed.
        let mut clients: Vec<Client> = (0..30).map(|_| mirror.client()).collect();
        for client in &mut clients {
            client.send(begin);
        }
        mirror.wait_for_line("accept failed");
        // Accepted connections are served, over the pooled connection to the upstream.
        let next = [end, begin].concat();
        assert_eq!(first.ask(&next).status, 200);

        // Failing accepts cost little.
        let before = ticks(&mirror);
        thread::sleep(Duration::from_millis(500));
        let used = ticks(&mirror) - before;
        assert!(used <= 10, "{used} ticks of 50 while nothing could be done");

        // Each connection that closes lets in another, which reaches the limit again.
        for _ in 0..29 {
            drop(clients.remove(0));
            assert_eq!(first.ask(&next).status, 200);
        }
        let mut last = clients.remove(0);
        assert_eq!(last.ask(end).status, 200);
        assert_eq!(mirror.client().ask(&envelope_request(b"{}\n")).status, 200);
        let log = mirror.log();
        let told = log.iter().filter(|line| line.contains("accept failed"));
        assert_eq!(told.count(), 1, "{}", log.join("\n"));
        drop(clients);
        let pauses = "sentry_mirror_accept_pauses_total{reason=\"error\"}";
        assert_ne!(mirror.metrics().value(pauses), 0.0);
    }
}

#[test]
fn idle_connections_are_closed_for_new_ones_when_descriptors_are_short() {
    for driver in DRIVERS {
        let upstream = Upstream::ok();
        let mirror = mirror(upstream.dsn(KEY_A, 11), driver);
        let ask = |client: &mut Client| client.ask(&envelope_request(b"{}\n")).status;
        let mut idle: Vec<Client> = (0..20).map(|_| mirror.client()).collect();
        for client in &mut idle {
            assert_eq!(ask(client), 200);
        }
        set_limit(&mirror, mirror.descriptors());
        let mut new: Vec<Client> = (0..5).map(|_| mirror.client()).collect();
        for client in &mut new {
            assert_eq!(ask(client), 200, "{driver}");
        }
        assert!(idle[0].is_closed(), "{driver}");
        let metrics = mirror.metrics();
        let evicted = "sentry_mirror_sdk_connections_closed_total{reason=\"evicted\"}";
        assert_ne!(metrics.value(evicted), 0.0, "{driver}");
        mirror.wait_for_line("nearly all file descriptors are in use");
        // The connection that was used last stays open.
        assert_eq!(ask(&mut new[4]), 200, "{driver}");
    }
}

const CLIENTS: usize = 24;
const IDLE: usize = 8;

#[test]
fn without_descriptors_under_load_no_accepted_connection_is_lost() {
    for driver in DRIVERS {
        let sink = Sink::start();
        let mirror = mirror(format!("http://{KEY_A}@{}/1", sink.address), driver);
        let ledger = Ledger::default();
        let descriptors = mirror.descriptors() + 1;
        let number = ledger.number();
        let first = mirror.client().ask(&envelope_request(&body(number)));
        assert_eq!(first.status, 200);
        ledger.note(number, Fate::Accepted);
        // Its connection to the upstream stays open, so that the clients cannot take every descriptor.
        mirror.wait_for_descriptors(descriptors);
        let idle: Vec<Client> = (0..IDLE).map(|_| mirror.client()).collect();
        wait_until(
            || mirror.descriptors() == descriptors + IDLE,
            || format!("{} descriptors", mirror.descriptors()),
        );
        // Enough for some clients and for some connections to the upstream, but not for all.
        let limit = descriptors + IDLE + CLIENTS / 2;
        set_limit(&mirror, limit);
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    for _ in 0..10 {
                        let number = ledger.number();
                        // A new connection for each event, as PHP and mobile SDKs do.
                        let mut client = mirror.client();
                        match client.ask(&envelope_request(&body(number))).status {
                            200 => ledger.note(number, Fate::Accepted),
                            // No descriptor was left to reach the upstream.
                            503 => ledger.note(number, Fate::Refused),
                            other => panic!("{other}"),
                        }
                    }
                });
            }
        });
        ledger.assert_complete(&sink);
        assert!(ledger.count(Fate::Accepted) > 1);
        // Near the limit, idle connections may make way before an accept fails.
        mirror.wait_for_lines_with_any(&["accept failed", "idle longest"], 1);
        set_limit(&mirror, 1000);
        drop(idle);
        mirror.wait_for_descriptors(limit - IDLE);
        assert_eq!(
            mirror
                .client()
                .ask(&envelope_request(&body(ledger.number())))
                .status,
            200
        );
    }
}

#[test]
fn clients_that_leave_before_accept_do_no_harm() {
    for driver in DRIVERS {
        let upstream = Upstream::ok();
        let mirror = mirror(upstream.dsn(KEY_A, 11), driver);
        let descriptors = mirror.descriptors();
        for _ in 0..500 {
            let stream = TcpStream::connect(mirror.address).expect("the mirror listens");
            SockRef::from(&stream)
                .set_linger(Some(Duration::ZERO))
                .expect("a socket");
        }
        assert_eq!(mirror.client().ask(&envelope_request(b"{}\n")).status, 200);
        // The pooled connection to the upstream stays.
        wait_until(
            || mirror.descriptors() <= descriptors + 1,
            || {
                format!(
                    "{} descriptors instead of {descriptors}",
                    mirror.descriptors()
                )
            },
        );
    }
}
