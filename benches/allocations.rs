//! The number of allocations per request, once everything is warm.
//!
//! A mirror with one worker runs in this process, over real sockets. The client and the upstreams are threads
//! that allocate nothing once they are connected, so every counted allocation is the mirror's. Each request
//! waits for the last delivery of the one before, so the numbers are exact and repeat from run to run. They
//! show what each further outbound adds. `cargo bench --bench allocations -- --sites` also shows where the
//! allocations happen, in a build with `CARGO_PROFILE_BENCH_DEBUG=1`.

#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout
)]

mod counting;
// `stages` uses the heads.
#[allow(dead_code)]
mod fixtures;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use counting::{Allocated, Counting};
use fixtures::routes::INBOUND_KEY;
use sentry_mirror::internals::config::Config;
use sentry_mirror::internals::http::encoding::Encoding;
use sentry_mirror::internals::process::status::MirrorStatus;
use sentry_mirror::internals::process::supervisor::Mirror;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const KB: usize = 1000;

/// What the upstreams answer.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
    content-length: 41\r\nvia: 1.1 google\r\n\r\n{\"id\":\"9ec79c33ec9942ab8353589fcb2e04dc\"}";

/// How long to wait for deliveries.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    // Without `cargo bench` this is a test, and a short run will do.
    let requests = if has("--bench") { 1000 } else { 50 };
    println!("allocations and bytes per request, one worker, warm");
    for (name, encoding, bytes_sent) in [
        ("2 KB", Encoding::Identity, 2 * KB),
        ("8 KB gzip", Encoding::Gzip, 8 * KB),
        ("300 KB", Encoding::Identity, 300 * KB),
    ] {
        let mut of_one = None;
        for outbounds in [1, 2, 8] {
            let stage = Stage::start(outbounds);
            let allocated = stage.measure(encoding, bytes_sent, requests, has("--sites"));
            let each = allocated.count as f64 / requests as f64;
            let bytes = allocated.bytes / requests as u64;
            let of_one = *of_one.get_or_insert(each);
            let further = match outbounds {
                1 => String::new(),
                _ => format!(
                    ", {:.2} for each further outbound",
                    (each - of_one) / (outbounds - 1) as f64
                ),
            };
            // For small requests, which most are, further outbounds allocate nothing.
            let is_small = bytes_sent <= 2 * KB;
            assert!(
                !is_small || each < of_one + 0.1,
                "one outbound costs {of_one} allocations a request, {outbounds} cost {each}"
            );
            println!("{name:>10} x {outbounds}: {each:6.2} allocations, {bytes:7} bytes{further}");
        }
    }
}

/// A mirror with its upstreams.
struct Stage {
    mirror: Mirror,
    outbounds: usize,
}

impl Stage {
    fn start(outbounds: usize) -> Stage {
        let mut config = format!(
            "ip: 127.0.0.1\nport: 0\nworkers: 1\nkeys:\n  \
             - inbound: http://{INBOUND_KEY}@mirror.example.com/42\n    outbound:\n"
        );
        for index in 0..outbounds {
            let address = sink();
            config.push_str(&format!("      - http://{index:032x}@{address}/{index}\n"));
        }
        let config = Config::parse(&config, "bench", std::iter::empty());
        let mirror = Mirror::start(&config.expect("it is valid"));
        Stage {
            mirror: mirror.expect("it can be started"),
            outbounds,
        }
    }

    /// The allocations of `requests` requests.
    fn measure(self, encoding: Encoding, bytes: usize, requests: usize, sites: bool) -> Allocated {
        let request = request(encoding, bytes);
        let mut client = TcpStream::connect(self.mirror.address()).expect("it listens");
        client.set_nodelay(true).expect("it is a socket");
        let mirror_status = self.mirror.mirror_status();
        let mut reply = [0; 4096];
        let mut sent = 0;
        let mut send = |count: usize| {
            for _ in 0..count {
                client.write_all(&request).expect("it is accepted");
                let length = client.read(&mut reply).expect("it is answered");
                assert!(reply[..length].starts_with(b"HTTP/1.1 200 "), "a success");
                sent += 1;
                await_deliveries(&mirror_status, sent * self.outbounds);
            }
        };
        send(100);
        let before = counting::allocated();
        send(requests);
        let allocated = before.since();
        if sites {
            counting::watch(true);
            send(100);
            for (site, count) in counting::watch(false) {
                println!("{:12.2}  {site}", count as f64 / 100.0);
            }
        }
        self.mirror.stop();
        allocated
    }
}

/// Waits until `count` deliveries have ended, each with its connection back in the pool.
fn await_deliveries(mirror_status: &Arc<MirrorStatus>, count: usize) {
    let begin = Instant::now();
    let ended = || {
        mirror_status
            .counters
            .iter()
            .map(|of| of.deliveries.total())
            .sum::<u64>()
    };
    while ended() < count as u64 {
        assert!(begin.elapsed() < PATIENCE, "a delivery does not end");
        thread::yield_now();
    }
}

fn request(encoding: Encoding, bytes: usize) -> Vec<u8> {
    let body = fixtures::encoded(encoding, &fixtures::python_envelope(bytes));
    let coding = match encoding {
        Encoding::Gzip => "Content-Encoding: gzip\r\n",
        _ => "",
    };
    let head = format!(
        "POST /api/42/envelope/ HTTP/1.1\r\nHost: mirror.example.com\r\n\
         Accept-Encoding: identity\r\nContent-Length: {}\r\n\
         Content-Type: application/x-sentry-envelope\r\n{coding}\
         User-Agent: sentry.python/2.75.0\r\n\
         X-Sentry-Auth: Sentry sentry_key={INBOUND_KEY}, sentry_version=7\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), &body].concat()
}

/// An upstream that accepts everything for as long as the process lives.
fn sink() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Answers requests without allocating.
fn serve(mut stream: TcpStream) -> Option<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        let mut have = 0;
        let whole = loop {
            let count = stream.read(&mut buffer[have..]).ok()?;
            have += count;
            if let Some(whole) = message_len(&buffer[..have]) {
                break whole;
            }
            if count == 0 {
                return None;
            }
        };
        while have < whole {
            let count = stream.read(&mut buffer).ok()?;
            have += count;
            if count == 0 {
                return None;
            }
        }
        stream.write_all(ANSWER).ok()?;
    }
}

fn message_len(buffer: &[u8]) -> Option<usize> {
    let head_len = memchr::memmem::find(buffer, b"\r\n\r\n")? + 4;
    let name = memchr::memmem::find(&buffer[..head_len], b"Content-Length: ")?;
    let value = buffer.get(name + 16..)?;
    let digits = value.iter().take_while(|byte| byte.is_ascii_digit());
    let length = digits.fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
    Some(head_len + length)
}
