//! What a panic costs: a whole mirror in this process, and requests that ask for one.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::mirror::counters::{OutcomeKind, RequestResult};
use crate::server::supervisor::Mirror;

const KEY: &str = "0123456789abcdef0123456789abcdef";
const PATIENCE: Duration = Duration::from_secs(20);

/// An upstream that takes everything.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || while answer(&stream, 200).is_some() {});
        }
    });
    address
}

/// Reads a message whose head has a length, and answers it unless `status` is 0. Gives its first line.
fn answer(mut stream: &TcpStream, status: u16) -> Option<String> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line| line != "\r\n") {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        lines.push(line);
    }
    let length = lines.iter().find_map(|line| {
        let line = line.to_ascii_lowercase();
        line.strip_prefix("content-length: ")?.trim().parse().ok()
    });
    reader.read_exact(&mut vec![0; length.unwrap_or(0)]).ok()?;
    if status != 0 {
        let response = format!("HTTP/1.1 {status} Status\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(response.as_bytes()).ok()?;
    }
    lines.first().cloned()
}

fn mirror() -> Mirror {
    let text = format!(
        "ip: 127.0.0.1\nport: 0\nworkers: 1\nadmin: off\nkeys:\n- inbound: http://{KEY}@m/42\n  outbound: [\"http://{KEY}@{}/1\"]\n",
        upstream()
    );
    let config = Config::parse(&text, "test", std::iter::empty()).unwrap();
    Mirror::start(&config).unwrap()
}

struct Client(TcpStream);

impl Client {
    fn new(mirror: &Mirror) -> Client {
        let stream = TcpStream::connect_timeout(&mirror.address(), PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client(stream)
    }

    /// The status line of the answer to a request that asks for a panic in `place`; `None` where the
    /// connection ends instead.
    fn ask(&self, place: &str) -> Option<String> {
        let request = format!(
            "POST /api/42/envelope/?sentry_key={KEY} HTTP/1.1\r\nHost: m\r\nX-Test-Panic: {place}\r\nContent-Length: 3\r\n\r\n{{}}\n"
        );
        (&self.0).write_all(request.as_bytes()).unwrap();
        answer(&self.0, 0)
    }
}

fn wait_until(holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "not in time");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_panic_in_a_request_costs_its_connection_and_is_counted() {
    let mirror = mirror();
    let sight = mirror.sight();
    let counters = &sight.counters[0];
    let (victim, other) = (Client::new(&mirror), Client::new(&mirror));
    let is_200 = |client: &Client| client.ask("nowhere").unwrap().starts_with("HTTP/1.1 200");
    assert!(is_200(&victim) && is_200(&other));
    assert_eq!(victim.ask("request"), None);
    wait_until(|| counters.answers.get(RequestResult::Panicked) == 1);
    assert!(is_200(&other) && is_200(&Client::new(&mirror)));
    assert_eq!(counters.deliveries.get(OutcomeKind::Panicked), 0);
    assert_eq!(mirror.stop(), 0);
}

#[test]
fn a_panic_in_a_delivery_costs_it_alone_and_is_counted_once() {
    let mirror = mirror();
    let sight = mirror.sight();
    let deliveries = &sight.counters[0].deliveries;
    let client = Client::new(&mirror);
    for (number, place) in (1..).zip(["delivery", "outcome"]) {
        let status = client.ask(place).unwrap();
        assert!(status.starts_with("HTTP/1.1 503"), "{place}: {status}");
        assert_eq!(deliveries.get(OutcomeKind::Panicked), number);
        assert_eq!(deliveries.total(), 2 * number - 1);
        let status = client.ask("nowhere").unwrap();
        assert!(status.starts_with("HTTP/1.1 200"), "{place}: {status}");
    }
    assert_eq!(mirror.stop(), 0);
}

#[test]
fn a_worker_that_dies_takes_the_process_along_and_says_so() {
    // Set in the process that is to die, which runs this same test.
    const IS_CHILD: &str = "SENTRY_MIRROR_TEST_IS_CHILD";
    if std::env::var_os(IS_CHILD).is_some() {
        let log = tracing_subscriber::fmt().with_writer(std::io::stderr);
        log.init();
        Client::new(&mirror()).ask("worker");
        // Only the end of the process ended the connection.
        thread::sleep(PATIENCE);
        return;
    }
    let name = "server::worker::tests::a_worker_that_dies_takes_the_process_along_and_says_so";
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(IS_CHILD, "1")
        .stdout(Stdio::null())
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&child.stderr);
    assert_eq!(child.status.signal(), Some(libc::SIGABRT), "{log}");
    assert!(log.contains("a worker died; aborting"), "{log}");
}
