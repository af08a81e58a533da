//! The smallest HTTP server that is still safe to leave running.
//!
//! One short-lived thread per connection, one request per connection. Their number, the bytes of a
//! request and the time for reading it and for writing the answer are bounded, so that a client which
//! does nothing, or everything, costs a thread for some seconds at most. Where all places are taken, whoever
//! has kept one for the longest without asking for anything makes room, so that a probe, which asks at
//! once, is answered however many others only connect.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tracing::warn;

use super::pages::{Body, Page, Pages};
use crate::causes;
use crate::observe::timestamp::http_date;

/// How many connections are served at a time. A collector, a probe and some browsers need a handful.
const CONNECTIONS_MAX: usize = 32;

/// The bytes of a request's head.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// The header lines of a request.
const FIELDS_MAX: usize = 64;

/// The time for a request to come, and that for an answer to be taken.
const READ_TIME: Duration = Duration::from_secs(3);
const WRITE_TIME: Duration = Duration::from_secs(10);

/// The bytes of a body from which on it leaves in parts.
const WHOLE_BYTES_MAX: usize = 64 * 1024;

/// How long a client may take to close once it has its answer.
const CLOSE_TIME: Duration = Duration::from_millis(500);

/// What a request is told that names another host.
const MISDIRECTED: &str =
    "over the loopback this answers only to an address, to localhost and to names without a dot\n";

/// The pause after a failed accept, for example for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `pages` to all who connect, for ever.
pub(super) fn serve(listener: &TcpListener, pages: &Arc<Pages>) {
    let places = Arc::new(Places::default());
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            thread::sleep(ACCEPT_PAUSE);
            continue;
        };
        let place = Places::take(&places, stream);
        let pages = Arc::clone(pages);
        let spawned = thread::Builder::new()
            .name("admin-connection".to_owned())
            .spawn(move || {
                // A client that is gone needs no answer.
                let _ = answer(&place, &pages);
            });
        if let Err(error) = spawned {
            let error = causes::of_thread(&error);
            warn!("a connection to the admin pages is not served: {error}");
        }
    }
}

/// The connections being served, oldest first.
#[derive(Default)]
struct Places(Mutex<Vec<Taken>>);

/// A connection as all can see it.
struct Taken {
    stream: Arc<TcpStream>,
    has_asked: bool,
}

/// A connection being served; gives its place back when dropped.
struct Place {
    places: Arc<Places>,
    stream: Arc<TcpStream>,
}

impl Places {
    /// A place for `stream`, where necessary that of another.
    fn take(places: &Arc<Places>, stream: TcpStream) -> Place {
        let stream = Arc::new(stream);
        let mut taken = places.lock();
        if taken.len() >= CONNECTIONS_MAX {
            // Without anybody who has not asked, the oldest is most likely one that takes no answer.
            let silent = taken.iter().position(|taken| !taken.has_asked);
            let ended = taken.remove(silent.unwrap_or(0));
            // Its thread wakes up and finds it at its end.
            let _ = ended.stream.shutdown(Shutdown::Both);
        }
        taken.push(Taken {
            stream: Arc::clone(&stream),
            has_asked: false,
        });
        Place {
            places: Arc::clone(places),
            stream,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Taken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Takes note that the request is there.
    fn has_asked(&self) {
        let mut taken = self.places.lock();
        let own = taken.iter_mut().find(|taken| self.is_at(taken));
        if let Some(own) = own {
            own.has_asked = true;
        }
    }

    fn is_at(&self, taken: &Taken) -> bool {
        Arc::ptr_eq(&taken.stream, &self.stream)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().retain(|taken| !self.is_at(taken));
    }
}

fn answer(place: &Place, pages: &Pages) -> io::Result<()> {
    let mut stream = &*place.stream;
    let request = read_request(stream)?;
    place.has_asked();
    let (page, is_head) = match &request {
        Some(request) if !is_meant_for_us(request, stream.local_addr()?.ip()) => {
            (Page::text(421, MISDIRECTED), request.method == "HEAD")
        }
        Some(request) => (pages.page(request), request.method == "HEAD"),
        None => (
            Page::text(400, "this is no request that is understood\n"),
            false,
        ),
    };
    let takes_chunks = request.is_some_and(|request| request.takes_chunks);
    let mut reply = Reply::new(stream, &page, is_head, takes_chunks);
    match page.body {
        Body::Text(text) => reply.whole(text.as_bytes())?,
        Body::Shared(text) => reply.whole(text.as_bytes())?,
        Body::Pieces(_) if is_head => reply.finish()?,
        Body::Pieces(write) => {
            write(&mut reply)?;
            reply.finish()?;
        }
    }
    stream.shutdown(Shutdown::Write)?;
    // What is still unread would make the kernel reset the connection, and the answer with it.
    let deadline = Instant::now() + CLOSE_TIME;
    let mut rest = [0; 1024];
    loop {
        stream.set_read_timeout(Some(left(deadline)?))?;
        if stream.read(&mut rest)? == 0 {
            return Ok(());
        }
    }
}

/// Whether a request that came in at the address `own` may be meant for this port.
///
/// A page from elsewhere in an operator's browser cannot read what is here, unless its owner lets the
/// name of that page lead to this host (DNS rebinding). Over the loopback, where browsers reach what
/// nobody else can, only hosts are accepted that no stranger can own: addresses, `localhost`, names
/// without a dot. Elsewhere it could be any name that operators have given it.
fn is_meant_for_us(request: &Request, own: IpAddr) -> bool {
    if !own.to_canonical().is_loopback() {
        return true;
    }
    let host = request.host.as_str();
    let has_port = |(_, port): &(&str, &str)| port.bytes().all(|byte| byte.is_ascii_digit());
    let name = host.rsplit_once(':').filter(has_port);
    let name = name.map_or(host, |(name, _)| name).trim_end_matches('.');
    let is_address = name.starts_with('[') || name.parse::<IpAddr>().is_ok();
    is_address || !name.contains('.') || name.to_ascii_lowercase().ends_with(".localhost")
}

/// A request as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Its method.
    pub(super) method: String,
    /// Its path, without the query.
    pub(super) path: String,
    /// What it would like to have.
    pub(super) accept: String,
    /// Whom it was sent to, with the port if it was told; empty if it does not say.
    pub(super) host: String,
    /// Whether it understands a body in chunks, which came with HTTP/1.1.
    pub(super) takes_chunks: bool,
}

/// Reads a request; `None` where it is malformed or too large.
fn read_request(mut stream: &TcpStream) -> io::Result<Option<Request>> {
    let deadline = Instant::now() + READ_TIME;
    let mut head = Vec::new();
    let mut room = [0; 2048];
    while head.len() < HEAD_BYTES_MAX {
        stream.set_read_timeout(Some(left(deadline)?))?;
        let count = stream.read(&mut room)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(room.get(..count).unwrap_or_default());
        match parse(&head) {
            Ok(None) => {}
            Ok(request) => return Ok(request),
            Err(_malformed) => return Ok(None),
        }
    }
    Ok(None)
}

/// The request that `head` holds, if it is complete.
fn parse(head: &[u8]) -> Result<Option<Request>, httparse::Error> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut fields);
    if parsed.parse(head)?.is_partial() {
        return Ok(None);
    }
    let target = parsed.path.unwrap_or_default();
    let origin_form = match target.split_once("://") {
        Some((scheme, rest)) if !scheme.starts_with('/') => {
            rest.find('/').and_then(|at| rest.get(at..))
        }
        Some(_) | None => Some(target),
    };
    let path = origin_form.and_then(|target| target.split(['?', '#']).next());
    let field = |name: &str| {
        let mut fields = parsed.headers.iter();
        let found = fields.find(|field| field.name.eq_ignore_ascii_case(name));
        let value = found.map_or(&[][..], |field| field.value);
        String::from_utf8_lossy(value).into_owned()
    };
    Ok(Some(Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: path.unwrap_or("/").to_owned(),
        accept: field("accept"),
        host: field("host"),
        takes_chunks: parsed.version == Some(1),
    }))
}

/// A reply on its way. A short body goes out as a whole; what is longer leaves in chunks while it is made,
/// so that a long page is never held as a whole.
struct Reply<'c> {
    stream: &'c TcpStream,
    status: u16,
    content_type: &'static str,
    is_head: bool,
    /// Whether the client understands chunks; to others the end of the connection is that of the body.
    takes_chunks: bool,
    has_begun: bool,
    waiting: Vec<u8>,
    /// What is left of the time for the answer to be taken.
    time_left: Duration,
}

impl<'c> Reply<'c> {
    fn new(stream: &'c TcpStream, page: &Page<'_>, is_head: bool, takes_chunks: bool) -> Reply<'c> {
        Reply {
            stream,
            status: page.status,
            content_type: page.content_type,
            is_head,
            takes_chunks,
            has_begun: false,
            waiting: Vec::new(),
            time_left: WRITE_TIME,
        }
    }

    /// Sends `body`, which is all of it.
    fn whole(&mut self, body: &[u8]) -> io::Result<()> {
        let head = self.head(&format!("Content-Length: {}\r\n", body.len()));
        self.send(head.as_bytes())?;
        if self.is_head {
            return Ok(());
        }
        self.send(body)
    }

    /// Sends what is waiting as a part of a longer body.
    fn part(&mut self) -> io::Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        if !self.has_begun {
            self.has_begun = true;
            let framing = match self.takes_chunks {
                true => "Transfer-Encoding: chunked\r\n",
                false => "",
            };
            self.send(self.head(framing).as_bytes())?;
        }
        if self.takes_chunks {
            self.send(format!("{:x}\r\n", waiting.len()).as_bytes())?;
        }
        self.send(&waiting)?;
        if self.takes_chunks {
            self.send(b"\r\n")?;
        }
        self.waiting = waiting;
        self.waiting.clear();
        Ok(())
    }

    /// Sends what is left.
    fn finish(mut self) -> io::Result<()> {
        if self.is_head {
            // How long it would be is not known.
            return self.send(self.head("").as_bytes());
        }
        if !self.has_begun {
            let body = std::mem::take(&mut self.waiting);
            return self.whole(&body);
        }
        if !self.waiting.is_empty() {
            self.part()?;
        }
        match self.takes_chunks {
            true => self.send(b"0\r\n\r\n"),
            false => Ok(()),
        }
    }

    fn head(&self, framing: &str) -> String {
        let phrase = match self.status {
            200 => "OK",
            400 => "Bad Request",
            404 => "Not Found",
            405 => "Method Not Allowed",
            421 => "Misdirected Request",
            _ => "Service Unavailable",
        };
        format!(
            "HTTP/1.1 {} {phrase}\r\nDate: {}\r\nContent-Type: {}\r\n{framing}Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\nReferrer-Policy: no-referrer\r\nContent-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; connect-src 'self'\r\n{}Connection: close\r\n\r\n",
            self.status,
            String::from_utf8_lossy(&http_date(SystemTime::now())),
            self.content_type,
            if self.status == 405 {
                "Allow: GET, HEAD\r\n"
            } else {
                ""
            },
        )
    }

    /// Sends all of `bytes` within the time that is left. The time in which the page is made is not the
    /// client's.
    fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let started = Instant::now();
        let deadline = started + self.time_left;
        let mut stream = self.stream;
        while !bytes.is_empty() {
            stream.set_write_timeout(Some(left(deadline)?))?;
            let count = stream.write(bytes)?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = bytes.get(count..).unwrap_or_default();
        }
        self.time_left = self.time_left.saturating_sub(started.elapsed());
        Ok(())
    }
}

impl Write for Reply<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= WHOLE_BYTES_MAX {
            self.part()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The time until `deadline`, which is never zero: to the system that would mean for ever.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        Err(io::ErrorKind::TimedOut.into())
    } else {
        Ok(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_what_matters_of_it() {
        let head = b"GET /metrics?x=1 HTTP/1.1\r\nHost: m\r\naccept: text/plain\r\n\r\n";
        let expected = Request {
            method: "GET".to_owned(),
            path: "/metrics".to_owned(),
            accept: "text/plain".to_owned(),
            host: "m".to_owned(),
            takes_chunks: true,
        };
        assert_eq!(parse(head), Ok(Some(expected)));
        for end in 0..head.len() {
            assert_eq!(parse(&head[..end]), Ok(None), "{end}");
        }
        assert!(parse(b"\0\r\n\r\n").is_err());
    }

    #[test]
    fn over_the_loopback_no_name_is_taken_that_strangers_can_own() {
        let is_taken = |host: &str, own: &str| {
            let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let request = parse(head.as_bytes()).unwrap().unwrap();
            is_meant_for_us(&request, own.parse().unwrap())
        };
        for host in [
            "",
            "127.0.0.1",
            "127.0.0.1:3001",
            "10.1.2.3:3001",
            "[::1]",
            "[::1]:3001",
            "localhost",
            "LocalHost.:3001",
            "mirror.localhost:3001",
            "sentry-mirror:3001",
        ] {
            assert!(is_taken(host, "127.0.0.1"), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:3001",
            "evil.example.:3001",
            "localhost.evil.example",
            "127.0.0.1.evil.example:3001",
        ] {
            assert!(!is_taken(host, "127.0.0.1"), "{host}");
            assert!(!is_taken(host, "::1"), "{host}");
            assert!(!is_taken(host, "::ffff:127.0.0.1"), "{host}");
        }
        let service = "sentry-mirror.default.svc.cluster.local:3001";
        assert!(is_taken(service, "10.0.0.7"));
    }
}
