//! The worst case of memory: hostile clients and upstreams make everything large at once. The bound is the
//! documented one.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::ServerConnection;

use crate::support::documented_limits::*;
use crate::support::metrics::Metrics;
use crate::support::tls::Authority;
use crate::support::{
    Action, Client, Config, IN_KEY, KEY_A, KEY_B, Process, Upstream, envelope, wait_until,
};

/// The limits of this test.
const MEMORY_BYTES: usize = 48 * MIB;
const CONNECTIONS: usize = 400;
const IN_FLIGHT: usize = 64;
const ORIGINS: usize = 3;

const OVERLOADED: &str = "sentry_mirror_rejections_total{reason=\"overloaded\"}";

fn bound() -> usize {
    PROCESS_BYTES
        + WORKER_BYTES
        + MEMORY_BYTES
        + (1 + 4) * (TARGET_BYTES + TARGET_WORKER_BYTES)
        + (ORIGINS + 1) * ORIGIN_BYTES
        + CONNECTIONS * CONNECTION_BYTES
        + ORIGINS * IN_FLIGHT * UPSTREAM_BYTES
        + IN_FLIGHT * TLS_UPSTREAM_BYTES
}

/// Connects and writes as much of `bytes` as the mirror reads, without reading anything.
fn push(address: SocketAddr, bytes: &[u8]) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream
        .set_write_timeout(Some(Duration::from_secs(2)))
        .expect("a timeout");
    // The mirror may reject it at any point; the memory until then matters.
    let _ = stream.write_all(bytes);
    Some(stream)
}

fn post(fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /api/42/envelope/?sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\n{fields}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// A body in one chunk, followed by the beginning of another large request.
fn chunked_and_more(body: &[u8], more: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /api/42/envelope/?sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n",
        body.len()
    );
    [head.as_bytes(), body, b"\r\n0\r\n\r\n", more].concat()
}

/// A path that needs as many edits as possible.
fn slashes() -> Vec<u8> {
    let path = "//a".repeat(60 * KIB / 3);
    format!("GET /api/42{path}?sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\n\r\n").into_bytes()
}

/// Requests with large replies, which the client does not read.
fn scripts() -> Vec<u8> {
    let apostrophes = "'".repeat(50 * KIB);
    let path = format!("/api/embed/error-page/?dsn=http://{IN_KEY}@m/42&a={apostrophes}");
    format!("GET {path} HTTP/1.1\r\nHost: m\r\n\r\n")
        .repeat(8)
        .into_bytes()
}

/// An upstream over TLS that completes the handshake and then reads nothing.
fn deaf(authority: &Authority) -> SocketAddr {
    let config = Arc::new(authority.server_config("localhost"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        let mut open = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let mut session = ServerConnection::new(Arc::clone(&config)).expect("a session");
            while session.is_handshaking() && session.complete_io(&mut stream).is_ok() {}
            open.push(stream);
        }
    });
    address
}

/// A body that brotli compresses well, with the largest window.
fn brotli_bomb() -> Vec<u8> {
    let mut bomb = Vec::new();
    let mut writer = brotli::CompressorWriter::new(&mut bomb, 64 * KIB, 1, 24);
    let mut plain = envelope("9ec79c33ec9942ab8353589fcb2e04dc").into_bytes();
    plain.resize(40 * MIB, b'x');
    writer.write_all(&plain).expect("memory");
    drop(writer);
    bomb
}

#[test]
fn the_worst_case_of_memory_stays_within_the_documented_bound() {
    let slow = Upstream::start(|_, _| Action::Hang);
    let ok = Upstream::ok();
    let url = "\"http://h/api/embed/error-page/\"";
    let large = url.to_owned() + &"x".repeat(900 * KIB);
    let authority = Authority::new();
    let deaf = deaf(&authority);
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{large}",
        large.len()
    );
    let talkative = Upstream::start(move |_, _| Action::Raw(answer.clone().into_bytes()));
    let mirror = Config::new([
        talkative.dsn(KEY_A, 11),
        slow.dsn(KEY_B, 22),
        ok.dsn(KEY_B, 33),
        format!("https://{KEY_B}@localhost:{}/44", deaf.port()),
    ])
    .with("{workers: 1, reply_timeout: 500ms, timeouts: {exchange: 3s, drain: 1s}}")
    .with("{limits: {decoded_ratio: 1000000}, breaker: {failures: 1000000}}")
    .set("limits.memory_bytes", format!("{MEMORY_BYTES}B"))
    .set("limits.connections", CONNECTIONS)
    .set("limits.in_flight", IN_FLIGHT)
    .set("pool.idle_connections", IN_FLIGHT)
    .trust(&authority)
    .start();
    let address = mirror.address;

    let padding = "x".repeat(60 * KIB);
    let unfinished_head = format!("POST / HTTP/1.1\r\nHost: m\r\nX-Long: {padding}").into_bytes();
    let long_head = post(&format!("X-Long: {padding}\r\n"), b"{}\n");
    let mut body = envelope("9ec79c33ec9942ab8353589fcb2e04dc").into_bytes();
    body.resize(3 * MIB, b'x');
    let upload = post("", &body);
    let unfinished_upload = upload[..2 * MIB].to_vec();
    let bomb = post("Content-Encoding: br\r\n", &brotli_bomb());
    let surplus = chunked_and_more(&body, &upload[..upload.len() - 1]);
    let small = post("", envelope("9ec79c33ec9942ab8353589fcb2e04dc").as_bytes());

    let attacks = [
        unfinished_head,
        long_head,
        upload,
        unfinished_upload,
        bomb,
        surplus,
        slashes(),
        scripts(),
        small.clone(),
    ];
    let attacks = Arc::new(attacks);
    let attackers: Vec<_> = (0..24)
        .map(|attacker| {
            let attacks = Arc::clone(&attacks);
            thread::spawn(move || {
                let mut open = Vec::new();
                for turn in 0..16 {
                    let attack = &attacks[(attacker + turn) % attacks.len()];
                    open.extend(push(address, attack));
                }
                open
            })
        })
        .collect();
    let open: Vec<_> = attackers
        .into_iter()
        .flat_map(|attacker| attacker.join().expect("no panic"))
        .collect();
    assert!(open.len() > 300, "{} connections", open.len());
    slow.wait_for(1);
    talkative.wait_for(1);
    drop(open);

    // It serves others again after the attackers' requests have ended.
    let is_served = || Client::connect(address).ask(&small).status == 200;
    wait_until(is_served, || "it serves nobody".to_owned());
    let peak = mirror.peak_bytes();
    println!("peak: {peak} of {} bytes", bound());
    assert!(peak < bound());
    mirror.signal("TERM");
    let totals = mirror.wait_for_line("stopped: ");
    assert!(totals.contains("rejected overloaded"), "{totals}");
}

/// Unfinished uploads to one mirror. They need no key.
struct Uploads<'m> {
    mirror: &'m Process,
    open: Vec<TcpStream>,
    closed: usize,
}

impl Uploads<'_> {
    /// Opens uploads of `size` bytes without their last byte, until one is rejected or `count` are open.
    fn open(&mut self, size: usize, count: usize) {
        let head = format!("POST /t HTTP/1.1\r\nHost: m\r\nContent-Length: {size}\r\n\r\n");
        let mut upload = head.into_bytes();
        upload.resize(upload.len() + size - 1, b'x');
        let refused = |metrics: &Metrics| metrics.value(OVERLOADED);
        let received = |metrics: &Metrics| metrics.value("sentry_mirror_received_bytes_total");
        let (begin, mut sent) = (self.mirror.metrics(), 0);
        while self.open.len() < count {
            let batch = MIB.div_ceil(size);
            self.open
                .extend((0..batch).filter_map(|_| push(self.mirror.address, &upload)));
            sent += batch * upload.len();
            let is_there = |metrics: &Metrics| {
                received(metrics) - received(&begin) >= sent as f64
                    || refused(metrics) > refused(&begin)
            };
            if refused(&self.mirror.wait_for_metrics(is_there)) > refused(&begin) {
                return;
            }
        }
    }

    /// Closes every other one and waits until the mirror has noticed.
    fn close_every_other(&mut self) {
        let mut is_kept = false;
        let before = self.open.len();
        self.open.retain(|_| {
            is_kept = !is_kept;
            is_kept
        });
        self.closed += before - self.open.len();
        self.mirror.wait_for_metrics(|metrics| {
            let ended = |result| metrics.sum("sentry_mirror_requests_total", &[result]);
            let ended = ended("result=\"abandoned\"") + ended("result=\"rejected\"");
            ended >= self.closed as f64
        });
    }
}

#[test]
fn fragmented_uploads_stay_within_the_documented_bound() {
    const BUDGET_BYTES: usize = 64 * MIB;
    const CONNECTIONS: usize = 1000;
    let bound = PROCESS_BYTES
        + WORKER_BYTES
        + BUDGET_BYTES
        + 2 * (TARGET_BYTES + TARGET_WORKER_BYTES)
        + ORIGIN_BYTES
        + CONNECTIONS * CONNECTION_BYTES
        + IN_FLIGHT * UPSTREAM_BYTES;
    let mirror = Config::new([Upstream::ok().dsn(KEY_A, 11)])
        .with_metrics()
        .set("timeouts.body", "300s")
        .set("limits.memory_bytes", format!("{BUDGET_BYTES}B"))
        .set("limits.connections", CONNECTIONS)
        .set("limits.in_flight", IN_FLIGHT)
        .start();
    let mut uploads = Uploads {
        mirror: &mirror,
        open: Vec::new(),
        closed: 0,
    };
    for size in [70 * KIB, 143 * KIB, 294 * KIB, 603 * KIB, 1236 * KIB] {
        uploads.open(size, CONNECTIONS - 50);
        uploads.close_every_other();
    }
    assert!(mirror.metrics().value(OVERLOADED) > 0.0);
    let peak = mirror.peak_bytes();
    println!("peak: {peak} of {bound} bytes");
    assert!(peak < bound, "{peak} of {bound} bytes");
}

#[test]
fn thousands_of_outbounds_stay_within_the_documented_bound() {
    const ROUTES: usize = 300;
    const OUTBOUNDS: usize = 10;
    const BUDGET_BYTES: usize = 8 * MIB;
    let bound = PROCESS_BYTES
        + WORKER_BYTES
        + BUDGET_BYTES
        + (ROUTES + ROUTES * OUTBOUNDS) * (TARGET_BYTES + TARGET_WORKER_BYTES)
        + ORIGIN_BYTES
        + 100 * CONNECTION_BYTES;
    let mut text = format!(
        "ip: 127.0.0.1\nport: 0\nworkers: 1\nadmin: {{port: 0}}\nstatsd_addr: 127.0.0.1:9\nlimits: {{memory_bytes: {BUDGET_BYTES}B, connections: 100}}\nkeys:\n"
    );
    for route in 0..ROUTES {
        text += &format!("- inbound: http://{route:032x}@m/1\n  outbound:\n");
        for outbound in 0..OUTBOUNDS {
            text += &format!("  - http://{route:028x}{outbound:04x}@127.0.0.1:9/{outbound}\n");
        }
    }
    let mirror = Process::start(&text);
    // A request to each route makes its histograms and those of its outbounds appear.
    for route in 0..ROUTES {
        let request = format!(
            "POST /api/1/envelope/?sentry_key={route:032x} HTTP/1.1\r\nHost: m\r\nContent-Length: 3\r\n\r\n{{}}\n"
        );
        // Nothing listens at the outbounds.
        assert_eq!(mirror.client().ask(request.as_bytes()).status, 503);
    }
    let pages = ["/metrics", "/status", "/config", "/"];
    thread::scope(|scope| {
        for page in pages.iter().cycle().take(16) {
            let mirror = &mirror;
            scope.spawn(move || assert_eq!(mirror.page(page).status, 200));
        }
    });
    let metrics = mirror.metrics();
    let outcomes = metrics.all("sentry_mirror_deliveries_total", &["outcome=\"2xx\""]);
    assert_eq!(outcomes.len(), ROUTES * OUTBOUNDS);
    let peak = mirror.peak_bytes();
    println!("peak: {peak} of {bound} bytes");
    assert!(peak < bound, "{peak} of {bound} bytes");
}
