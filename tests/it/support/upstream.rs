//! A scripted upstream: records requests and answers as the script says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::{PATIENCE, only};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) line: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Received {
    /// The value of a header field, which must occur at most once.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        only(&self.fields, name)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of text")
    }
}

/// What to do with a request.
#[derive(Clone)]
pub(crate) enum Action {
    /// Answer with this status and JSON body.
    Answer(u16, &'static str),
    /// Answer with these bytes.
    Raw(Vec<u8>),
    /// Answer with these bytes and close.
    RawAndClose(Vec<u8>),
    /// Answer like `Answer`, after a delay.
    Late(Duration, u16, &'static str),
    /// Never answer, keep the connection open.
    Hang,
    /// Close without an answer.
    Close,
}

impl Action {
    pub(crate) fn ok() -> Action {
        Action::Answer(200, r#"{"id":"from-upstream"}"#)
    }
}

type Script = dyn Fn(usize, &Received) -> Action + Send + Sync;

struct Shared {
    received: Mutex<Vec<Received>>,
    arrived: Condvar,
    connections: AtomicUsize,
    script: Box<Script>,
}

/// A running upstream.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

impl Upstream {
    /// Answers every request with 200.
    pub(crate) fn ok() -> Upstream {
        Upstream::start(|_, _| Action::ok())
    }

    /// Does what `script` returns for the number of the request and the request.
    pub(crate) fn start(
        script: impl Fn(usize, &Received) -> Action + Send + Sync + 'static,
    ) -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        Upstream::serve(listener, script)
    }

    /// The same on a listener of the test.
    pub(crate) fn serve(
        listener: TcpListener,
        script: impl Fn(usize, &Received) -> Action + Send + Sync + 'static,
    ) -> Upstream {
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            received: Mutex::new(Vec::new()),
            arrived: Condvar::new(),
            connections: AtomicUsize::new(0),
            script: Box::new(script),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                accepting.connections.fetch_add(1, Ordering::SeqCst);
                let shared = Arc::clone(&accepting);
                thread::spawn(move || serve(&stream, &shared));
            }
        });
        Upstream { address, shared }
    }

    /// An outbound DSN for this upstream.
    pub(crate) fn dsn(&self, key: &str, project: u32) -> String {
        format!("http://{key}@{}/{project}", self.address)
    }

    /// How many connections it has accepted.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// What it has received so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.shared.received.lock().expect("unpoisoned").clone()
    }

    /// Waits for `count` requests and gives all so far.
    pub(crate) fn wait_for(&self, count: usize) -> Vec<Received> {
        let received = self.shared.received.lock().expect("unpoisoned");
        let (received, _) = self
            .shared
            .arrived
            .wait_timeout_while(received, PATIENCE, |received| received.len() < count)
            .expect("unpoisoned");
        assert!(
            received.len() >= count,
            "{} of {count} requests arrived",
            received.len()
        );
        received.clone()
    }
}

fn serve(stream: &TcpStream, shared: &Shared) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader) {
        let number = {
            let mut received = shared.received.lock().expect("unpoisoned");
            received.push(request.clone());
            received.len() - 1
        };
        shared.arrived.notify_all();
        let answer = |status, body: &str| {
            format!(
                "HTTP/1.1 {status} Status\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        let write = |bytes: &[u8]| (&mut &*stream).write_all(bytes).is_ok();
        let goes_on = match (shared.script)(number, &request) {
            Action::Answer(status, body) => write(answer(status, body).as_bytes()),
            Action::Raw(bytes) => write(&bytes),
            Action::RawAndClose(bytes) => {
                write(&bytes);
                false
            }
            Action::Late(pause, status, body) => {
                // Being slow is the point of this upstream; no test waits for the pause.
                thread::sleep(pause);
                write(answer(status, body).as_bytes())
            }
            Action::Hang => {
                // Until the mirror gives up and closes.
                let _ = reader.read(&mut [0; 1]);
                false
            }
            Action::Close => false,
        };
        if !goes_on {
            return;
        }
    }
}

/// Reads one request with a length; the mirror sends no others.
pub(crate) fn read_request(reader: &mut impl BufRead) -> Option<Received> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut fields = Vec::new();
    loop {
        let mut field = String::new();
        reader.read_line(&mut field).ok()?;
        assert!(field.ends_with("\r\n"), "a line without CRLF: {field:?}");
        let field = field.trim_end_matches("\r\n");
        if field.is_empty() {
            break;
        }
        let (name, value) = field.split_once(':').expect("a header line has a colon");
        fields.push((name.to_owned(), value.trim().to_owned()));
    }
    let length = fields
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, value)| value.parse().expect("a number"));
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Received {
        line: line.trim_end().to_owned(),
        fields,
        body,
    })
}

/// A socket that has its port, but refuses connections until it listens. No other test can get the port meanwhile.
pub(crate) fn deaf() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address.as_socket().unwrap())
}
