//! A ledger of events: which were acknowledged, and which arrived where.
//!
//! Every event has a number, which is its event id. Clients record the fate of each event, sinks record
//! what they receive. At the end the two must agree.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{envelope, wait_until};

/// How an event was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The client got 2xx.
    Accepted,
    /// All of it was sent, and the client did not wait for the reply.
    Abandoned,
    /// The last byte was never sent.
    Cut,
    /// The connection ended without a reply, or the reply was not 2xx: the event was not acknowledged, and
    /// must not arrive.
    Refused,
}

/// The numbers of all events and their fates.
#[derive(Default)]
pub(crate) struct Ledger {
    next: AtomicUsize,
    fates: Mutex<HashMap<usize, Fate>>,
}

impl Ledger {
    pub(crate) fn number(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn note(&self, number: usize, fate: Fate) {
        let before = self.fates.lock().expect("unpoisoned").insert(number, fate);
        assert_eq!(before, None, "every event has one fate");
    }

    pub(crate) fn count(&self, fate: Fate) -> usize {
        let fates = self.fates.lock().expect("unpoisoned");
        fates.values().filter(|known| **known == fate).count()
    }

    /// Asserts that a sink has every event that was sent whole, exactly once, and nothing else.
    pub(crate) fn assert_complete(&self, sink: &Sink) {
        let due = self.count(Fate::Accepted) + self.count(Fate::Abandoned);
        wait_until(
            || sink.count() >= due,
            || format!("{} of {due} events arrived", sink.count()),
        );
        self.assert_part(sink);
        assert_eq!(sink.count(), due);
    }

    /// Asserts that a sink has only events that were sent whole, and none of them twice.
    pub(crate) fn assert_part(&self, sink: &Sink) {
        let fates = self.fates.lock().expect("unpoisoned");
        for (number, count) in &*sink.got.lock().expect("unpoisoned") {
            let fate = fates.get(number);
            let is_due = matches!(fate, Some(Fate::Accepted | Fate::Abandoned));
            assert!(is_due, "{number} arrived, although its fate is {fate:?}");
            assert_eq!(*count, 1, "{number} came more than once");
        }
    }
}

/// The envelope of an event; its number determines its length.
pub(crate) fn body(number: usize) -> Vec<u8> {
    let mut body = envelope(&format!("{number:032x}")).into_bytes();
    let padding = match number {
        number if number.is_multiple_of(97) => 1_000_000,
        number if number.is_multiple_of(10) => 60_000,
        _ => 0,
    };
    body.resize(body.len() + padding, b'x');
    body
}

/// An upstream that accepts everything and remembers the number of each event.
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    got: Arc<Mutex<HashMap<usize, usize>>>,
}

impl Sink {
    pub(crate) fn start() -> Sink {
        Sink::start_with(Some)
    }

    /// The same over TLS.
    pub(crate) fn start_tls(config: ServerConfig) -> Sink {
        let config = Arc::new(config);
        Sink::start_with(move |stream| {
            let session = ServerConnection::new(Arc::clone(&config)).ok()?;
            Some(StreamOwned::new(session, stream))
        })
    }

    /// How many events have arrived.
    pub(crate) fn count(&self) -> usize {
        self.got.lock().expect("unpoisoned").len()
    }

    fn start_with<S: Read + Write>(
        open: impl Fn(TcpStream) -> Option<S> + Clone + Send + 'static,
    ) -> Sink {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let got = Arc::default();
        let sink = Sink {
            address,
            got: Arc::clone(&got),
        };
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (got, open) = (Arc::clone(&got), open.clone());
                thread::spawn(move || {
                    let Some(stream) = open(stream) else { return };
                    let mut reader = BufReader::new(stream);
                    while let Some(number) = read_event(&mut reader) {
                        *got.lock().expect("unpoisoned").entry(number).or_default() += 1;
                        if reader.get_mut().write_all(OK).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        sink
    }
}

/// The answer to an event.
pub(crate) const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

/// Reads a request and gives the number of its event; asserts that it is whole.
fn read_event(reader: &mut impl BufRead) -> Option<usize> {
    let length = read_head(reader)?;
    let mut got = vec![0; length];
    reader.read_exact(&mut got).ok()?;
    let id = &got[r#"{"event_id":""#.len()..][..32];
    let number = usize::from_str_radix(str::from_utf8(id).expect("text"), 16).expect("an id");
    // Only the DSN may have another length; keys all have the same.
    let dsn_bytes = |body: &[u8]| {
        let from = body
            .windows(7)
            .position(|text| text == b"\"dsn\":\"")
            .expect("a dsn");
        body[from + 7..]
            .iter()
            .position(|byte| *byte == b'"')
            .expect("an end")
    };
    let sent = body(number);
    assert_eq!(
        got.len() - dsn_bytes(&got),
        sent.len() - dsn_bytes(&sent),
        "{number} is not whole"
    );
    Some(number)
}

/// Reads a head and gives the length of the body.
pub(crate) fn read_head(reader: &mut impl BufRead) -> Option<usize> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            return Some(length);
        }
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim_end().parse().expect("a length");
        }
    }
}
