//! An upstream that records the bytes of each request and its connection.
//!
//! It reads HTTP as strictly as possible: a head up to its blank line, at most one `Content-Length`, and
//! nothing else that could frame a body. Anything else is recorded as it came.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use crate::support::PATIENCE;

/// A request as bytes.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// Request line and header lines, without the blank line.
    pub(super) head: Vec<u8>,
    pub(super) body: Vec<u8>,
    /// The number of its connection.
    pub(super) connection: usize,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (head, body) = (self.head.escape_ascii(), self.body.escape_ascii());
        write!(f, "\n    {head} >>> {body}")
    }
}

impl Seen {
    /// The values of a field, in any case of its name.
    pub(super) fn values(&self, name: &str) -> Vec<&[u8]> {
        let lines = self.head.split(|byte| *byte == b'\n').skip(1);
        let values = lines.filter_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let (found, value) = line.split_at(colon);
            let value = value[1..].trim_ascii();
            found.eq_ignore_ascii_case(name.as_bytes()).then_some(value)
        });
        values.collect()
    }
}

/// What to answer.
pub(super) struct Answer {
    pub(super) bytes: Vec<u8>,
    /// What is sent later, after the response is complete.
    pub(super) late: Option<Vec<u8>>,
    pub(super) closes: bool,
}

type Script = dyn Fn(&Seen) -> Answer + Send + Sync;

/// A running upstream.
pub(super) struct Sink {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    settled: Arc<Settled>,
}

/// The connections that have sent all late bytes, or have ended.
#[derive(Default)]
struct Settled {
    connections: Mutex<Vec<usize>>,
    changed: Condvar,
}

impl Settled {
    fn add(&self, connection: usize) {
        self.connections
            .lock()
            .expect("unpoisoned")
            .push(connection);
        self.changed.notify_all();
    }

    fn wait_for(&self, connection: usize) {
        let connections = self.connections.lock().expect("unpoisoned");
        let is_missing = |connections: &mut Vec<usize>| !connections.contains(&connection);
        let waited = self
            .changed
            .wait_timeout_while(connections, PATIENCE, is_missing);
        assert!(!waited.expect("unpoisoned").1.timed_out(), "it settles");
    }
}

impl Sink {
    pub(super) fn start(script: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Sink {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Script> = Arc::new(script);
        let settled = Arc::new(Settled::default());
        let shared = (Arc::clone(&seen), Arc::clone(&settled));
        thread::spawn(move || {
            for (connection, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                let ((seen, settled), script) = (shared.clone(), Arc::clone(&script));
                thread::spawn(move || {
                    serve(&stream, connection, &seen, &settled, &*script);
                    drop(stream);
                    settled.add(connection);
                });
            }
        });
        Sink {
            address,
            seen,
            settled,
        }
    }

    /// Waits until everything for the last request was sent, or its connection has ended. On the loopback
    /// the bytes have arrived then.
    pub(super) fn settle(&self) {
        let seen = self.seen.lock().expect("unpoisoned");
        let connection = seen.last().map(|last| last.connection);
        drop(seen);
        if let Some(connection) = connection {
            self.settled.wait_for(connection);
        }
    }

    /// What has arrived since the last call.
    pub(super) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().expect("unpoisoned"))
    }
}

fn serve(
    stream: &TcpStream,
    connection: usize,
    seen: &Mutex<Vec<Seen>>,
    settled: &Settled,
    script: &Script,
) {
    stream.set_nodelay(true).expect("no delay");
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader, connection) {
        seen.lock().expect("unpoisoned").push(request.clone());
        let answer = script(&request);
        if (&mut &*stream).write_all(&answer.bytes).is_err() {
            return;
        }
        if let Some(late) = answer.late {
            // Long enough that the mirror takes the response for complete.
            thread::sleep(Duration::from_millis(30));
            let _ = (&mut &*stream).write_all(&late);
            settled.add(connection);
        }
        if answer.closes {
            return;
        }
    }
}

fn read_request(reader: &mut BufReader<&TcpStream>, connection: usize) -> Option<Seen> {
    let mut head = Vec::new();
    loop {
        let before = head.len();
        if reader.read_until(b'\n', &mut head).ok()? == 0 {
            return None;
        }
        if &head[before..] == b"\r\n" {
            break;
        }
    }
    head.truncate(head.len() - "\r\n".len());
    let mut request = Seen {
        head,
        body: Vec::new(),
        connection,
    };
    let length = match request.values("content-length").as_slice() {
        [] => 0,
        [length] => str::from_utf8(length).ok()?.parse().ok()?,
        _ => return Some(request),
    };
    request.body = vec![0; length];
    reader.read_exact(&mut request.body).ok()?;
    Some(request)
}
