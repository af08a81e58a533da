//! An upstream that does everything wrong.
//!
//! Each request meets the next of a list of misfortunes, so that all of them happen. Between them the
//! whole upstream goes away for a while, all its connections at once, and comes back.

use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::support::ledger::{OK, read_head};

/// What can happen to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Misfortune {
    Luck,
    /// Before anything was read.
    ResetAtOnce,
    /// The head was read, and nothing comes back.
    CloseBehindHead,
    ResetBehindHead,
    /// A part of the body was read.
    CloseInBody,
    ResetInBody,
    /// The answer is there before the body was read, which it then is.
    AnswerEarly,
    /// The answer is there before the body was read, which it never is.
    AnswerEarlyAndClose,
    /// No body is read and nothing is said.
    HangBehindHead,
    /// All was read.
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

use Misfortune::*;

const MISFORTUNES: &[Misfortune] = &[
    Luck,
    ResetAtOnce,
    Luck,
    CloseBehindHead,
    ResetBehindHead,
    Luck,
    CloseInBody,
    ResetInBody,
    AnswerEarly,
    Luck,
    AnswerEarlyAndClose,
    HangBehindHead,
    Luck,
    CloseSilently,
    HangBeforeAnswer,
    HangInHead,
    Luck,
    HangInBody,
    CloseInHead,
    CloseInResponseBody,
    Luck,
    ResetInResponseBody,
    ByteByByte,
    Refuse(500),
    Refuse(413),
    Refuse(302),
    Luck,
    Garbage,
    Interims,
    TooLarge,
    Luck,
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
    /// An upstream that is there for `up` and away for `down`, over and over.
    pub(super) fn start(up: Duration, down: Duration) -> Storm {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            happened: MISFORTUNES.iter().map(|_| AtomicUsize::new(0)).collect(),
            next: AtomicUsize::new(0),
            restarts: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
            connections: Mutex::default(),
        });
        let weather = Arc::clone(&shared);
        thread::spawn(move || {
            let mut listener = listener;
            loop {
                weather.blow(&listener, up);
                drop(listener);
                let open = std::mem::take(&mut *weather.connections.lock().expect("unpoisoned"));
                for stream in open.iter().filter_map(Weak::upgrade) {
                    let _ = stream.shutdown(Shutdown::Both);
                }
                if weather.is_over.load(Ordering::Relaxed) {
                    return;
                }
                weather.restarts.fetch_add(1, Ordering::Relaxed);
                thread::sleep(down);
                listener = TcpListener::bind(address).expect("the same port again");
            }
        });
        Storm { address, shared }
    }

    /// Ends it; nobody listens any more.
    pub(super) fn end(&self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
    }

    /// Asserts that everything that can happen has happened.
    pub(super) fn assert_complete(&self) {
        assert_ne!(self.shared.restarts.load(Ordering::Relaxed), 0);
        for (misfortune, count) in MISFORTUNES.iter().zip(&self.shared.happened) {
            assert_ne!(
                count.load(Ordering::Relaxed),
                0,
                "{misfortune:?} never happened"
            );
        }
    }
}

impl Shared {
    /// Accepts for a while.
    fn blow(self: &Arc<Shared>, listener: &TcpListener, up: Duration) {
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
            thread::spawn(move || while shared.suffer(&stream).is_some() {});
        }
    }

    /// Lets one request meet its misfortune. `None` where the connection has come to its end.
    fn suffer(&self, stream: &TcpStream) -> Option<()> {
        let number = self.next.fetch_add(1, Ordering::Relaxed) % MISFORTUNES.len();
        let misfortune = MISFORTUNES[number];
        self.happened[number].fetch_add(1, Ordering::Relaxed);
        if misfortune == ResetAtOnce {
            return reset(stream);
        }
        let mut reader = BufReader::new(stream);
        let length = read_head(&mut reader)?;
        let mut read = |length: usize| {
            let mut body = vec![0; length];
            reader.read_exact(&mut body).ok()
        };
        match misfortune {
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
        answer(stream, misfortune)
    }
}

fn answer(stream: &TcpStream, misfortune: Misfortune) -> Option<()> {
    let start: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nnot all of it";
    match misfortune {
        CloseSilently => close(stream),
        HangBeforeAnswer => hang(stream),
        HangInHead => write(stream, &start[..30]).and_then(|()| hang(stream)),
        HangInBody => write(stream, start).and_then(|()| hang(stream)),
        CloseInHead => write(stream, &start[..30]).and_then(|()| close(stream)),
        CloseInResponseBody => write(stream, start).and_then(|()| close(stream)),
        ResetInResponseBody => write(stream, start).and_then(|()| reset(stream)),
        ByteByByte => OK.iter().try_for_each(|byte| {
            // Being slow is what this is for.
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

/// Waits until the other side has had enough.
fn hang(mut stream: &TcpStream) -> Option<()> {
    let mut rest = [0; 65_536];
    while matches!(stream.read(&mut rest), Ok(count) if count > 0) {}
    None
}

fn close(stream: &TcpStream) -> Option<()> {
    let _ = stream.shutdown(Shutdown::Both);
    None
}

/// Ends the connection so that the other side gets an error at once.
fn reset(stream: &TcpStream) -> Option<()> {
    // It follows when the connection is dropped.
    SockRef::from(stream)
        .set_linger(Some(Duration::ZERO))
        .ok()?;
    None
}
