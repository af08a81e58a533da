//! Hosts with several addresses, hosts that move, and names that cannot be resolved at first.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::process::file;
use crate::support::{
    Action, Client, Config, KEY_A, Metrics, Process, Upstream, envelope, envelope_request,
    is_skipped, wait_until,
};

const ID: &str = "9ec79c33ec9942ab8353589fcb2e04dc";
const ALONE: [&str; 2] = ["--mount", "--propagation=private"];
const SCRIPT: &str = r#"mount --bind "$1" /etc/hosts && mount --bind "$2" /etc/resolv.conf && shift 2 && exec "$0" "$@""#;

/// A file of hosts that a mirror sees as `/etc/hosts`. No DNS server answers it.
struct Hosts {
    hosts: PathBuf,
    resolv_conf: PathBuf,
}

impl Hosts {
    /// The host `upstream.test` has these addresses.
    fn new(addresses: &[SocketAddr]) -> Option<Hosts> {
        let can = Command::new("unshare").args(ALONE).arg("true").output();
        let can_run = can.is_ok_and(|can| can.status.success());
        if is_skipped(can_run, "root, to replace /etc/hosts") {
            return None;
        }
        let hosts = Hosts {
            hosts: file("hosts", ""),
            // Nothing listens there, which is told at once.
            resolv_conf: file("resolv.conf", "nameserver 127.0.54.53\n"),
        };
        hosts.set(addresses);
        Some(hosts)
    }

    fn set(&self, addresses: &[SocketAddr]) {
        let line = |address: &SocketAddr| format!("{} upstream.test\n", address.ip());
        let lines: String = addresses.iter().map(line).collect();
        fs::write(&self.hosts, lines).unwrap();
    }

    /// A mirror with one outbound at this port of `upstream.test`.
    fn start(&self, port: u16, settings: &str) -> Process {
        let config = Config::new([format!("http://{KEY_A}@upstream.test:{port}/11")]);
        let config = file("config.yml", &config.with_metrics().with(settings).text());
        Process::start_with("", |command| *command = self.command(&config))
    }

    fn command(&self, config: &Path) -> Command {
        let mut command = Command::new("unshare");
        command.args(ALONE).args(["sh", "-ec", SCRIPT]);
        command.arg(env!("CARGO_BIN_EXE_sentry-mirror"));
        command.arg(&self.hosts).arg(&self.resolv_conf);
        command.arg("-c").arg(config);
        command
    }
}

/// Two addresses with the same free port.
fn two_listeners() -> [TcpListener; 2] {
    loop {
        let first = TcpListener::bind("127.0.54.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        if let Ok(second) = TcpListener::bind(("127.0.54.2", port)) {
            return [first, second];
        }
    }
}

/// Answers one request on each connection.
fn serve(listener: TcpListener) -> Upstream {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
    Upstream::serve(listener, |_, _| Action::RawAndClose(answer.to_vec()))
}

fn request() -> Vec<u8> {
    envelope_request(envelope(ID).as_bytes())
}

fn is_delivered(client: &mut Client) -> bool {
    client.ask(&request()).status == 200
}

fn failures(metrics: &Metrics) -> f64 {
    metrics.sum("sentry_mirror_upstream_address_failures_total", &[])
}

fn avoided(metrics: &Metrics) -> f64 {
    metrics.sum("sentry_mirror_upstream_addresses_avoided", &[])
}

#[test]
fn an_address_that_refuses_is_avoided() {
    let [bad, good] = two_listeners();
    let address = bad.local_addr().unwrap();
    drop(bad);
    let good = serve(good);
    let Some(hosts) = Hosts::new(&[address, good.address]) else {
        return;
    };
    let mirror = hosts.start(address.port(), "reply_timeout: 15s");
    let mut client = mirror.client();
    for _ in 0..20 {
        assert!(is_delivered(&mut client));
    }
    assert_eq!(good.received().len(), 20);
    let metrics = mirror.metrics();
    assert_eq!(metrics.sum("sentry_mirror_upstream_addresses", &[]), 2.0);
    assert_eq!((failures(&metrics), avoided(&metrics)), (1.0, 1.0));
}

#[test]
fn an_address_that_answers_503_and_closes_is_avoided_and_its_answer_counts() {
    let [busy, good] = two_listeners();
    let answer = b"HTTP/1.1 503 No backend\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let busy = Upstream::serve(busy, |_, _| Action::RawAndClose(answer.to_vec()));
    let good = serve(good);
    let Some(hosts) = Hosts::new(&[busy.address, good.address]) else {
        return;
    };
    let mirror = hosts.start(busy.address.port(), "reply_timeout: 15s");
    let mut client = mirror.client();
    assert_eq!(client.ask(&request()).status, 503);
    assert!(is_delivered(&mut client));
    assert_eq!((busy.received().len(), good.received().len()), (1, 1));
    assert_eq!(avoided(&mirror.metrics()), 1.0);
}

/// Fills the queue of a listener, so that it drops what else arrives.
fn fill(listener: &TcpListener) -> Vec<TcpStream> {
    rustix::net::listen(listener, 0).unwrap();
    let address = listener.local_addr().unwrap();
    let moment = Duration::from_millis(100);
    let connect = || TcpStream::connect_timeout(&address, moment);
    std::iter::from_fn(|| connect().ok()).collect()
}

#[test]
fn an_address_that_drops_everything_holds_up_nothing_for_the_length_of_a_timeout() {
    let [bad, good] = two_listeners();
    let _full = fill(&bad);
    let good = serve(good);
    let address = bad.local_addr().unwrap();
    let Some(hosts) = Hosts::new(&[address, good.address]) else {
        return;
    };
    let settings = "reply_timeout: 60s\ntimeouts: {connect: 60s, exchange: 60s}";
    let mirror = hosts.start(address.port(), settings);
    let mut client = mirror.client();
    let begun = Instant::now();
    for _ in 0..20 {
        assert!(is_delivered(&mut client));
    }
    assert!(begun.elapsed() < Duration::from_secs(60));
    assert_eq!(good.received().len(), 20);
    assert_eq!(avoided(&mirror.metrics()), 1.0);
}

#[test]
fn a_host_that_moved_is_found_before_the_next_regular_lookup() {
    let [old, new] = two_listeners();
    let (address, moved) = (old.local_addr().unwrap(), new.local_addr().unwrap());
    let new = serve(new);
    let Some(hosts) = Hosts::new(&[address]) else {
        return;
    };
    let mirror = hosts.start(address.port(), "dns: {refresh: 1h}");
    let mut client = mirror.client();
    let answering = thread::spawn(move || {
        let (mut stream, _) = old.accept().unwrap();
        assert!(stream.read(&mut [0; 4000]).unwrap() > 0);
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        stream.write_all(answer).unwrap();
    });
    assert!(is_delivered(&mut client));
    answering.join().unwrap();
    hosts.set(&[moved]);
    wait_until(|| is_delivered(&mut client), || mirror.log().join("\n"));
    assert!(!new.received().is_empty());
    mirror.wait_for_line("host resolved");
}

#[test]
fn a_name_that_cannot_be_resolved_at_the_start_is_asked_for_again() {
    let upstream = Upstream::ok();
    let Some(hosts) = Hosts::new(&[]) else {
        return;
    };
    let mirror = hosts.start(upstream.address.port(), "dns: {refresh: 1h}");
    mirror.wait_for_line("host cannot be resolved");
    let mut client = mirror.client();
    assert!(!is_delivered(&mut client));
    hosts.set(&[upstream.address]);
    wait_until(|| is_delivered(&mut client), || mirror.log().join("\n"));
    let metrics = mirror.metrics();
    let count = |name: &str| metrics.sum(&format!("sentry_mirror_dns_{name}_total"), &[]);
    assert!(count("failures") >= 1.0 && count("lookups") > count("failures"));
    assert_eq!(avoided(&metrics), 0.0);
}
