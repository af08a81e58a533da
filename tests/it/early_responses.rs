//! Responses before the end of the request. Only one that refuses the request stops the sending, and only a
//! request that was sent whole counts as delivered.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::support::tls::Authority;
use crate::support::{Config, KEY_A, Process, envelope, envelope_request};

const ID: &str = "9ec79c33ec9942ab8353589fcb2e04dc";
/// More than the kernel buffers on both sides.
const BODY_BYTES: usize = 16 << 20;
/// How long the upstream pauses reading after its early response. The writes of the mirror block meanwhile,
/// so that it reads the response.
const PAUSE: Duration = Duration::from_millis(300);

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
const CLOSING_OK: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";

/// What an upstream does after the head of a request.
struct Script {
    /// It sends this, piece by piece, with a pause after each.
    early: Vec<&'static [u8]>,
    then: Then,
}

#[derive(Clone, Copy, PartialEq)]
enum Then {
    /// It reads the whole request and sends this.
    Reads(&'static [u8]),
    /// It reads nothing more and keeps the connection.
    Hangs,
    /// It reads nothing more and closes.
    Closes,
}

trait Peer: Read + Write + Send {}

impl<T: Read + Write + Send> Peer for T {}

/// An upstream that serves one connection by `script`; gives how much of each body it has read.
fn start(tls: Option<ServerConfig>, script: Script) -> (u16, Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (read, bodies) = channel();
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut peer: Box<dyn Peer> = match tls {
            None => Box::new(stream),
            Some(tls) => {
                let session = ServerConnection::new(Arc::new(tls)).unwrap();
                Box::new(StreamOwned::new(session, stream))
            }
        };
        let (left, length) = head(&mut *peer);
        for piece in &script.early {
            peer.write_all(piece).unwrap();
            peer.flush().unwrap();
            // Being slow is the point of this upstream; the test does not wait for the pause.
            thread::sleep(PAUSE);
        }
        match script.then {
            Then::Reads(answer) => {
                let rest = std::io::copy(&mut (&mut *peer).take(left as u64), &mut std::io::sink());
                let rest = usize::try_from(rest.unwrap()).unwrap();
                read.send(length - (left - rest)).unwrap();
                // The mirror may close at once if it has a response already.
                let _ = peer.write_all(answer);
            }
            Then::Hangs => {}
            // With unread bytes, which is a reset.
            Then::Closes => return,
        }
        // Until the test has ended.
        thread::park();
    });
    (port, bodies)
}

/// Reads a head byte by byte; gives the bytes that are left to read, and the length of the body.
fn head(peer: &mut dyn Peer) -> (usize, usize) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        peer.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let text = String::from_utf8(head).unwrap();
    let (_, rest) = text.split_once("Content-Length: ").unwrap();
    let length = rest.split("\r\n").next().unwrap().parse().unwrap();
    (length, length)
}

/// Sends a large envelope through a mirror to an upstream with `script`, over plain TCP and TLS, on both
/// drivers. `check` gets the status of the reply, how much of the body arrived, and the mirror.
fn on_every_way(
    script: impl Fn() -> Script,
    check: impl Fn(&str, u16, &Receiver<usize>, &Process),
) {
    let authority = Authority::new();
    for driver in ["auto", "epoll"] {
        for scheme in ["http", "https"] {
            let way = format!("{scheme} on {driver}");
            let tls = (scheme == "https").then(|| authority.server_config("localhost"));
            let (port, bodies) = start(tls, script());
            let mirror = Config::new([format!("{scheme}://{KEY_A}@localhost:{port}/11")])
                .with_metrics()
                .set("driver", driver)
                .with("{reply_timeout: 18s, timeouts: {exchange: 18s}}")
                .trust(&authority)
                .start();
            let mut body = envelope(ID).into_bytes();
            body.resize(BODY_BYTES, b'x');
            let reply = mirror.client().ask(&envelope_request(&body));
            check(&way, reply.status, &bodies, &mirror);
        }
    }
}

fn delivered(mirror: &Process, outcome: &str) -> f64 {
    let outcome = format!("outcome=\"{outcome}\"");
    mirror
        .metrics()
        .sum("sentry_mirror_deliveries_total", &[&outcome])
}

fn assert_arrives_whole(script: impl Fn() -> Script) {
    on_every_way(script, |way, status, bodies, mirror| {
        assert_eq!(status, 200, "{way}");
        let arrived = bodies.recv().expect("the upstream got it");
        // The DSN in the envelope header has another length.
        assert!(arrived.abs_diff(BODY_BYTES) < 100, "{way}: {arrived}");
        assert_eq!(delivered(mirror, "2xx"), 1.0, "{way}");
    });
}

#[test]
fn interim_responses_do_not_stop_a_request_body() {
    assert_arrives_whole(|| {
        Script {
        early: vec![
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 104 Upload Resumption\r\n\r\nHTTP/1.1 10",
            b"2 Processing\r\n\r\n",
        ],
        then: Then::Reads(OK),
    }
    });
}

#[test]
fn an_early_success_does_not_stop_a_request_body() {
    assert_arrives_whole(|| Script {
        early: vec![b"HTTP/1.1 200 OK\r\nContent-Le", b"ngth: 2\r\n\r\n{}"],
        then: Then::Reads(b""),
    });
}

#[test]
fn an_early_success_with_connection_close_does_not_stop_a_request_body() {
    assert_arrives_whole(|| Script {
        early: vec![CLOSING_OK],
        then: Then::Reads(b""),
    });
}

#[test]
fn an_early_success_without_the_whole_request_is_not_a_delivery() {
    let script = || Script {
        early: vec![OK],
        then: Then::Closes,
    };
    on_every_way(script, |way, status, _, mirror| {
        assert_eq!(status, 503, "{way}");
        assert_eq!(delivered(mirror, "2xx"), 0.0, "{way}");
        assert_eq!(delivered(mirror, "send"), 1.0, "{way}");
    });
}

#[test]
fn a_refusal_after_interim_responses_is_read_while_the_body_is_blocked() {
    let script = || Script {
        early: vec![
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n",
        ],
        then: Then::Hangs,
    };
    on_every_way(script, |way, status, _, mirror| {
        assert_eq!(status, 413, "{way}");
        assert_eq!(delivered(mirror, "4xx"), 1.0, "{way}");
    });
}

#[test]
fn a_refusal_that_ends_with_a_reset_is_the_answer() {
    let script = || Script {
        early: vec![b"HTTP/1.0 413 Too Large\r\nConnection: close\r\n\r\nless, please"],
        then: Then::Closes,
    };
    on_every_way(script, |way, status, _, mirror| {
        assert_eq!(status, 413, "{way}");
        assert_eq!(delivered(mirror, "4xx"), 1.0, "{way}");
    });
}
