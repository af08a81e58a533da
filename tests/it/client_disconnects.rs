//! Clients that disconnect in every way, and a mirror that stops while they send.
//!
//! An incomplete body is not forwarded. A complete one goes to every outbound, even if its client no longer
//! waits for the reply. A mirror that stops delivers what it has acknowledged, and nothing else.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use crate::support::ledger::{Fate, Ledger, Sink, body};
use crate::support::{
    Action, IN_KEY, KEY_A, KEY_B, PATIENCE, Process, Upstream, config, envelope, envelope_request,
    wait_until,
};

const ID: &str = "9ec79c33ec9942ab8353589fcb2e04dc";

/// How a client disconnects.
#[derive(Clone, Copy, Debug)]
enum Leaving {
    /// It closes.
    Close,
    /// It closes its sending side and still reads.
    HalfClose,
    /// Its host resets the connection.
    Reset,
}

impl Leaving {
    fn leave(self, stream: TcpStream) -> Option<TcpStream> {
        match self {
            Leaving::Close => None,
            Leaving::HalfClose => {
                stream.shutdown(Shutdown::Write).expect("still open");
                Some(stream)
            }
            Leaving::Reset => {
                SockRef::from(&stream)
                    .set_linger(Some(Duration::ZERO))
                    .expect("a socket");
                None
            }
        }
    }
}

const WAYS: [Leaving; 3] = [Leaving::Close, Leaving::HalfClose, Leaving::Reset];

fn chunked_request() -> Vec<u8> {
    let body = envelope(ID);
    let (front, rest) = body.split_at(100);
    format!(
        "POST /api/42/envelope/?sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{front}\r\n{:x}\r\n{rest}\r\n0\r\n\r\n",
        front.len(),
        rest.len()
    )
    .into()
}

#[test]
fn a_disconnect_before_the_end_of_the_request_delivers_nothing() {
    let upstream = Upstream::ok();
    let mirror = Process::start(&config(&[upstream.dsn(KEY_A, 11)], "workers: 1"));
    let descriptors = mirror.descriptors();
    let mut half_closed = Vec::new();
    for request in [envelope_request(envelope(ID).as_bytes()), chunked_request()] {
        for end in [1, 20, 100, 250, request.len() - 20, request.len() - 1] {
            for leaving in WAYS {
                let mut stream = TcpStream::connect(mirror.address).expect("the mirror listens");
                stream.write_all(&request[..end]).expect("the mirror reads");
                half_closed.extend(leaving.leave(stream));
            }
        }
    }
    for mut stream in half_closed {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut told = Vec::new();
        stream.read_to_end(&mut told).expect("the end");
        assert!(told.is_empty(), "{}", told.escape_ascii());
    }
    mirror.wait_for_descriptors(descriptors);
    assert!(upstream.received().is_empty());
    assert_eq!(mirror.client().ask(&envelope_request(b"{}\n")).status, 200);
}

#[test]
fn a_disconnect_after_the_whole_request_still_delivers_it() {
    // So slow that every client has left when it answers.
    let slow = || Upstream::start(|_, _| Action::Late(Duration::from_millis(200), 200, "{}"));
    let (a, b) = (slow(), slow());
    let mirror = Process::start(&config(&[a.dsn(KEY_A, 11), b.dsn(KEY_B, 22)], "workers: 1"));
    let mut count = 0;
    for request in [envelope_request(envelope(ID).as_bytes()), chunked_request()] {
        for leaving in WAYS {
            let mut stream = TcpStream::connect(mirror.address).expect("the mirror listens");
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            stream.write_all(&request).expect("the mirror reads");
            count += 1;
            if let Leaving::Reset = leaving {
                // A reset discards what was not read yet, so it comes after the whole request was read.
                a.wait_for(count);
            }
            if let Some(mut stream) = leaving.leave(stream) {
                let mut told = Vec::new();
                stream.read_to_end(&mut told).expect("the end");
                assert!(
                    told.starts_with(b"HTTP/1.1 200 "),
                    "{}",
                    told.escape_ascii()
                );
            }
        }
    }
    for upstream in [&a, &b] {
        let received = upstream.wait_for(count);
        assert!(received.iter().all(|request| request.text().contains(ID)));
    }
    mirror.signal("TERM");
    let (_, log) = mirror.wait();
    let totals = log
        .iter()
        .find(|line| line.contains("stopped: "))
        .expect("totals");
    assert!(totals.contains("given_up=0"), "{totals}");
    assert!(
        totals.contains(&format!("delivered 2xx {}", 2 * count)),
        "{totals}"
    );
}

#[test]
fn a_shutdown_under_load_delivers_exactly_the_acknowledged_requests() {
    for driver in ["auto", "epoll", "auto"] {
        let (a, b) = (Sink::start(), Sink::start());
        let dsn = |key, sink: &Sink| format!("http://{key}@{}/1", sink.address);
        let extra = format!("workers: 2\ndriver: {driver}");
        let mirror = Process::start(&config(&[dsn(KEY_A, &a), dsn(KEY_B, &b)], &extra));
        let address = mirror.address;
        let ledger = Ledger::default();
        let is_stopping = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    while let Some(stream) = connect(address, &is_stopping) {
                        send_until_closed(&stream, &ledger);
                    }
                });
            }
            wait_until(
                || ledger.count(Fate::Accepted) > 500,
                || "no load".to_owned(),
            );
            is_stopping.store(true, Ordering::SeqCst);
            mirror.signal("TERM");
            let (status, log) = mirror.wait();
            assert_eq!(status.code(), Some(0));
            let totals = log
                .iter()
                .find(|line| line.contains("stopped: "))
                .expect("totals");
            assert!(totals.contains("given_up=0"), "{totals}");
        });
        for sink in [&a, &b] {
            ledger.assert_complete(sink);
        }
    }
}

/// Connects, unless the mirror has stopped, which it may only after the signal.
fn connect(address: std::net::SocketAddr, is_stopping: &AtomicBool) -> Option<TcpStream> {
    let stream = TcpStream::connect(address);
    assert!(stream.is_ok() || is_stopping.load(Ordering::SeqCst));
    stream.ok()
}

/// Sends event after event, and records the fate of each.
fn send_until_closed(stream: &TcpStream, ledger: &Ledger) {
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_nodelay(true).expect("no delay");
    loop {
        let number = ledger.number();
        let fate = send(stream, number);
        ledger.note(
            number,
            if fate.is_some() {
                Fate::Accepted
            } else {
                Fate::Refused
            },
        );
        if fate != Some(true) {
            return;
        }
    }
}

/// Sends an event; gives whether the connection stays open, or `None` without a reply.
fn send(mut stream: &TcpStream, number: usize) -> Option<bool> {
    stream.write_all(&envelope_request(&body(number))).ok()?;
    let mut told = Vec::new();
    let mut byte = [0];
    while !told.ends_with(b"\r\n\r\n{}") {
        if stream.read(&mut byte).ok()? == 0 {
            assert!(told.is_empty(), "half an answer: {}", told.escape_ascii());
            return None;
        }
        told.extend_from_slice(&byte);
    }
    let head = String::from_utf8(told).expect("text");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    Some(!head.contains("\r\nConnection: close\r\n"))
}
