//! An upstream that keeps the bytes it gets, and knows on which connection each request came.
//!
//! It reads HTTP in the narrowest way: a head up to its blank line, at most one `Content-Length`,
//! nothing else that could frame a body. Whatever does not fit is recorded as it came, so that it shows.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A request as bytes.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// Request line and header lines, without the blank line.
    pub(super) head: Vec<u8>,
    pub(super) body: Vec<u8>,
    /// On which connection it came, in the order of their beginning.
    pub(super) connection: usize,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (head, body) = (self.head.escape_ascii(), self.body.escape_ascii());
        write!(f, "\n    {head} >>> {body}")
    }
}

impl Seen {
    /// The values of a header, whatever the case of its name.
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
    /// What is sent some time after that, while nobody waits for anything.
    pub(super) late: Option<Vec<u8>>,
    pub(super) closes: bool,
}

type Script = dyn Fn(&Seen) -> Answer + Send + Sync;

/// A running upstream.
pub(super) struct Sink {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Sink {
    pub(super) fn start(script: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Sink {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Script> = Arc::new(script);
        let shared = Arc::clone(&seen);
        thread::spawn(move || {
            for (connection, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                let (seen, script) = (Arc::clone(&shared), Arc::clone(&script));
                thread::spawn(move || serve(&stream, connection, &seen, &*script));
            }
        });
        Sink { address, seen }
    }

    /// What has come since it was asked last.
    pub(super) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().expect("unpoisoned"))
    }
}

fn serve(stream: &TcpStream, connection: usize, seen: &Mutex<Vec<Seen>>, script: &Script) {
    stream.set_nodelay(true).expect("no delay");
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader, connection) {
        seen.lock().expect("unpoisoned").push(request.clone());
        let answer = script(&request);
        if (&mut &*stream).write_all(&answer.bytes).is_err() {
            return;
        }
        if let Some(late) = answer.late {
            // Long enough for the answer to be taken for complete.
            thread::sleep(Duration::from_millis(30));
            let _ = (&mut &*stream).write_all(&late);
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
