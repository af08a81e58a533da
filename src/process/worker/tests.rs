//! Tests of panics: a whole mirror in its own process, whose log panics at a given line.

use std::fmt::{Debug, Write as _};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::Config;
use crate::mirror::reporting::counters::{OutcomeKind, RequestResult};
use crate::process::supervisor::Mirror;
use crate::runtime::test_runtime::refusing_address;

const KEY: &str = "0123456789abcdef0123456789abcdef";
const TIMEOUT: Duration = Duration::from_secs(20);

/// An upstream that accepts every request.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || while respond(&stream, 200).is_some() {});
        }
    });
    address
}

/// Reads a message with a Content-Length, and responds unless `status` is 0. Returns its first line.
fn respond(mut stream: &TcpStream, status: u16) -> Option<String> {
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

fn mirror(outbound: SocketAddr) -> Mirror {
    let text = format!(
        "ip: 127.0.0.1\nport: 0\nworkers: 1\nadmin: off\nkeys:\n- inbound: http://{KEY}@m/42\n  outbound: [\"http://{KEY}@{outbound}/1\"]\n",
    );
    let config = Config::parse(&text, "test", std::iter::empty()).unwrap();
    Mirror::start(&config).unwrap()
}

struct Client(TcpStream);

impl Client {
    fn new(mirror: &Mirror) -> Client {
        let stream = TcpStream::connect_timeout(&mirror.address(), TIMEOUT).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        Client(stream)
    }

    /// Sends a request with these header lines. Returns the status of the reply, or `None` if the
    /// connection ends instead.
    fn send(&self, headers: &str) -> Option<String> {
        let request = format!(
            "POST /api/42/envelope/?sentry_key={KEY} HTTP/1.1\r\nHost: m\r\n{headers}Content-Length: 3\r\n\r\n{{}}\n"
        );
        (&self.0).write_all(request.as_bytes()).unwrap();
        let status_line = respond(&self.0, 0)?;
        status_line.split(' ').nth(1).map(str::to_owned)
    }
}

fn wait_until(holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < TIMEOUT, "not in time");
        thread::sleep(Duration::from_millis(1));
    }
}

/// The text of the log line at which the process panics next.
static PANIC_AT: Mutex<Option<&str>> = Mutex::new(None);

/// A layer of the log that panics at a line. This makes code panic without a test hook in it.
struct PanickingLog;

impl<S: Subscriber> Layer<S> for PanickingLog {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        let panics = PANIC_AT
            .lock()
            .unwrap()
            .take_if(|text| line.0.contains(*text));
        assert!(panics.is_none(), "on purpose");
    }
}

#[derive(Default)]
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, _: &Field, value: &dyn Debug) {
        let _ = write!(self.0, "{value:?} ");
    }
}

fn panic_at(text: &'static str) {
    *PANIC_AT.lock().unwrap() = Some(text);
}

/// Runs `test`, the body of the test `name`, in a process of its own, because its log is the log of the
/// whole process. Returns the output in the process that started it.
fn in_own_process(name: &str, test: fn()) -> Option<Output> {
    const IS_CHILD: &str = "SENTRY_MIRROR_TEST_IS_CHILD";
    if std::env::var_os(IS_CHILD).is_some() {
        tracing_subscriber::registry()
            .with(PanickingLog)
            .with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr))
            .init();
        test();
        return None;
    }
    let (_, module) = module_path!().split_once("::").unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("{module}::{name}"), "--nocapture"])
        .env(IS_CHILD, "1")
        .stdout(Stdio::null())
        .output()
        .unwrap();
    Some(child)
}

fn assert_success(output: Option<Output>) {
    if let Some(output) = output {
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{log}");
        assert!(log.contains("on purpose"), "nothing panicked: {log}");
    }
}

#[test]
fn a_panic_in_a_request_ends_only_its_connection_and_is_counted() {
    let name = "a_panic_in_a_request_ends_only_its_connection_and_is_counted";
    assert_success(in_own_process(name, || {
        let mirror = mirror(upstream());
        let mirror_status = mirror.mirror_status();
        let counters = &mirror_status.counters[0];
        let (victim, other) = (Client::new(&mirror), Client::new(&mirror));
        let is_200 = |client: &Client| client.send("").as_deref() == Some("200");
        assert!(is_200(&victim) && is_200(&other));
        // The request seems to have passed through this mirror before.
        panic_at("has passed this mirror before");
        assert_eq!(victim.send("Via: 1.1 sentry-mirror-26d52149\r\n"), None);
        wait_until(|| counters.answers.get(RequestResult::Panicked) == 1);
        assert!(is_200(&other) && is_200(&Client::new(&mirror)));
        assert_eq!(counters.deliveries.get(OutcomeKind::Panicked), 0);
        assert_eq!(mirror.stop(), 0);
    }));
}

#[test]
fn a_panic_in_a_delivery_ends_only_this_delivery_and_is_counted_once() {
    let name = "a_panic_in_a_delivery_ends_only_this_delivery_and_is_counted_once";
    assert_success(in_own_process(name, || {
        let upstream = upstream();
        let unreachable = refusing_address(Ipv4Addr::LOCALHOST.into());
        for (outbound, line, later) in [
            // Before the delivery has an outcome, and while the outcome is counted.
            (unreachable, "upstream does not answer", "503"),
            (upstream, "delivery ended", "200"),
        ] {
            let mirror = mirror(outbound);
            let mirror_status = mirror.mirror_status();
            let deliveries = &mirror_status.counters[0].deliveries;
            let client = Client::new(&mirror);
            panic_at(line);
            assert_eq!(client.send("").as_deref(), Some("503"), "{line}");
            assert_eq!(deliveries.get(OutcomeKind::Panicked), 1);
            assert_eq!(deliveries.total(), 1);
            assert_eq!(client.send("").as_deref(), Some(later), "{line}");
            assert_eq!(deliveries.get(OutcomeKind::Panicked), 1);
            assert_eq!(deliveries.total(), 2);
            assert_eq!(mirror.stop(), 0);
        }
    }));
}

#[test]
fn a_worker_that_dies_aborts_the_process_and_logs_it() {
    let name = "a_worker_that_dies_aborts_the_process_and_logs_it";
    let output = in_own_process(name, || {
        panic_at("connection accepted");
        Client::new(&mirror(upstream())).send("");
        // The process aborts during this sleep.
        thread::sleep(TIMEOUT);
    });
    if let Some(child) = output {
        let log = String::from_utf8_lossy(&child.stderr);
        assert_eq!(child.status.signal(), Some(libc::SIGABRT), "{log}");
        assert!(log.contains("a worker died; aborting"), "{log}");
    }
}
