//! An upstream that does everything wrong.
//!
//! Each request gets the next failure of a list, so that all of them happen. From time to time the
//! upstream closes its port and all its connections for a while.

use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::support::ledger::{OK, read_head};

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    Success,
    /// Before anything was read.
    ResetAtOnce,
    /// After the head, without a response.
    CloseBehindHead,
    ResetBehindHead,
    /// After a part of the body.
    CloseInBody,
    ResetInBody,
    /// The response comes before the body is read.
    AnswerEarly,
    /// The response comes, and the body is never read.
    AnswerEarlyAndClose,
    /// Neither reads the body nor responds.
    HangBehindHead,
    /// After the whole request.
    CloseSilently,
    HangBeforeAnswer,
    HangInHead,
    HangInBody,
    CloseInHead,
    CloseInResponseBody,
    ResetInResponseBody,
    ByteByByte,
    Refuse(u16),
    Garbage,
    Interims,
    TooLarge,
    Twice,
    CloseBehindAnswer,
}

use Failure::*;

const FAILURES: &[Failure] = &[
    Success,
    ResetAtOnce,
    Success,
    CloseBehindHead,
    ResetBehindHead,
    Success,
    CloseInBody,
    ResetInBody,
    AnswerEarly,
    Success,
    AnswerEarlyAndClose,
    HangBehindHead,
    Success,
    CloseSilently,
    HangBeforeAnswer,
    HangInHead,
    Success,
    HangInBody,
    CloseInHead,
    CloseInResponseBody,
    Success,
    ResetInResponseBody,
    ByteByByte,
    Refuse(500),
    Refuse(413),
    Refuse(302),
    Success,
    Garbage,
    Interims,
    TooLarge,
    Success,
    Twice,
    CloseBehindAnswer,
];

/// A running upstream.
pub(super) struct Storm {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    happened: Vec<AtomicUsize>,
    next: AtomicUsize,
    restarts: AtomicUsize,
    is_over: AtomicBool,
    connections: Mutex<Vec<Weak<TcpStream>>>,
}

impl Storm {
    /// An upstream that listens for `up` and not for `down`, over and over.
    pub(super) fn start(up: Duration, down: Duration) -> Storm {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            happened: FAILURES.iter().map(|_| AtomicUsize::new(0)).collect(),
            next: AtomicUsize::new(0),
            restarts: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
            connections: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            let mut listener = listener;
            loop {
                serving.accept_for(&listener, up);
                drop(listener);
                let open = std::mem::take(&mut *serving.connections.lock().expect("unpoisoned"));
                for stream in open.iter().filter_map(Weak::upgrade) {
                    let _ = stream.shutdown(Shutdown::Both);
                }
                if serving.is_over.load(Ordering::Relaxed) {
                    return;
                }
                serving.restarts.fetch_add(1, Ordering::Relaxed);
                thread::sleep(down);
                listener = TcpListener::bind(address).expect("the same port again");
            }
        });
        Storm { address, shared }
    }

    /// Stops listening.
    pub(super) fn end(&self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
    }

    /// Asserts that every failure has happened.
    pub(super) fn assert_complete(&self) {
        assert_ne!(self.shared.restarts.load(Ordering::Relaxed), 0);
        for (failure, count) in FAILURES.iter().zip(&self.shared.happened) {
            assert_ne!(
                count.load(Ordering::Relaxed),
                0,
                "{failure:?} never happened"
            );
        }
    }
}

impl Shared {
    /// Accepts connections for a while.
    fn accept_for(self: &Arc<Shared>, listener: &TcpListener, up: Duration) {
        listener.set_nonblocking(true).expect("a listener");
        let started = Instant::now();
        while started.elapsed() < up && !self.is_over.load(Ordering::Relaxed) {
            let Ok((stream, _)) = listener.accept() else {
                thread::sleep(Duration::from_millis(1));
                continue;
            };
            stream.set_nonblocking(false).expect("a connection");
            let stream = Arc::new(stream);
            self.connections
                .lock()
                .expect("unpoisoned")
                .push(Arc::downgrade(&stream));
            let shared = Arc::clone(self);
            thread::spawn(move || while shared.fail(&stream).is_some() {});
        }
    }

    /// Fails one request. `None` if the connection has ended.
    fn fail(&self, stream: &TcpStream) -> Option<()> {
        let number = self.next.fetch_add(1, Ordering::Relaxed) % FAILURES.len();
        let failure = FAILURES[number];
        self.happened[number].fetch_add(1, Ordering::Relaxed);
        if failure == ResetAtOnce {
            return reset(stream);
        }
        let mut reader = BufReader::new(stream);
        let length = read_head(&mut reader)?;
        let mut read = |length: usize| {
            let mut body = vec![0; length];
            reader.read_exact(&mut body).ok()
        };
        match failure {
            CloseBehindHead => return close(stream),
            ResetBehindHead => return reset(stream),
            CloseInBody => return read(length / 2).and_then(|()| close(stream)),
            ResetInBody => return read(length / 2).and_then(|()| reset(stream)),
            HangBehindHead => return hang(stream),
            AnswerEarly => return write(stream, OK).and_then(|()| read(length)),
            AnswerEarlyAndClose => {
                write(
                    stream,
                    b"HTTP/1.1 413 X\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
                )?;
                return close(stream);
            }
            _ => read(length)?,
        }
        answer(stream, failure)
    }
}

fn answer(stream: &TcpStream, failure: Failure) -> Option<()> {
    let start: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nnot all of it";
    match failure {
        CloseSilently => close(stream),
        HangBeforeAnswer => hang(stream),
        HangInHead => write(stream, &start[..30]).and_then(|()| hang(stream)),
        HangInBody => write(stream, start).and_then(|()| hang(stream)),
        CloseInHead => write(stream, &start[..30]).and_then(|()| close(stream)),
        CloseInResponseBody => write(stream, start).and_then(|()| close(stream)),
        ResetInResponseBody => write(stream, start).and_then(|()| reset(stream)),
        ByteByByte => OK.iter().try_for_each(|byte| {
            // Being slow is the point.
            thread::sleep(Duration::from_millis(2));
            write(stream, &[*byte])
        }),
        Refuse(status) => {
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
            write(stream, head.as_bytes())
        }
        Garbage => write(stream, b"\x16\x03\x01 what?\r\n\r\n").and_then(|()| hang(stream)),
        Interims => {
            write(stream, &b"HTTP/1.1 103 Early\r\n\r\n".repeat(1000)).and_then(|()| hang(stream))
        }
        TooLarge => {
            write(stream, b"HTTP/1.1 200 OK\r\n\r\n")?;
            (0..100).try_for_each(|_| write(stream, &[b'x'; 65_536]))?;
            close(stream)
        }
        Twice => write(stream, &OK.repeat(2)),
        CloseBehindAnswer => write(stream, OK).and_then(|()| close(stream)),
        _ => write(stream, OK),
    }
}

fn write(mut stream: &TcpStream, bytes: &[u8]) -> Option<()> {
    stream.write_all(bytes).ok()
}

/// Waits until the mirror closes.
fn hang(mut stream: &TcpStream) -> Option<()> {
    let mut rest = [0; 65_536];
    while matches!(stream.read(&mut rest), Ok(count) if count > 0) {}
    None
}

fn close(stream: &TcpStream) -> Option<()> {
    let _ = stream.shutdown(Shutdown::Both);
    None
}

/// Resets the connection.
fn reset(stream: &TcpStream) -> Option<()> {
    // The reset is sent when the connection is dropped.
    SockRef::from(stream)
        .set_linger(Some(Duration::ZERO))
        .ok()?;
    None
}
