//! A small HTTP server for the admin pages, safe to leave running.
//!
//! One short-lived thread per connection, one request per connection. The number of connections, the size
//! of a request, and the time to read it and to write the response are bounded, so a client costs a
//! thread for a few seconds at most. If all slots are taken, a new connection evicts the oldest one that
//! has not sent a request: a health probe is answered at once, however many idle connections there are.

use std::io::{self, BufWriter, Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;
use tracing::warn;

use crate::os_errors;
use crate::telemetry::timestamp::http_date;

/// Concurrent connections. A collector, a probe and some browsers need a handful.
const CONNECTIONS_MAX: usize = 32;

/// The size of a request head.
const HEAD_BYTES_MAX: usize = 8 * 1024;

const HEADERS_MAX: usize = 64;

/// How long a client may take to send its request, and to read the response.
const READ_TIMEOUT: Duration = Duration::from_secs(3);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Longer bodies are sent in chunks.
const BUFFER_BYTES: usize = 64 * 1024;

/// What is compressed at once.
const PIECE_BYTES: usize = 16 * 1024;

/// How long a client may take to close the connection after the response.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// The body of a 421, see [`is_allowed_host`].
const MISDIRECTED: &str =
    "on a loopback address, Host must be an IP address, localhost, or a name without a dot\n";

/// The pause after a failed accept, for example because no file descriptor is left.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// What answers the requests.
pub(super) trait Handler: Send + Sync + 'static {
    fn handle(&self, request: &Request) -> Response<'_>;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    /// Without the query.
    pub(super) path: String,
    pub(super) accept: String,
    /// Whether the client takes a body with the content coding gzip.
    pub(super) takes_gzip: bool,
    /// The `Host` header, or empty.
    pub(super) host: String,
    /// Whether the client understands chunks (HTTP/1.1).
    pub(super) takes_chunks: bool,
}

pub(super) struct Response<'p> {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: Body<'p>,
    /// The `Content-Security-Policy`.
    pub(super) policy: &'static str,
}

/// The policy of what is no page: a browser that shows it loads and runs nothing.
const NOTHING: &str = "default-src 'none'";

pub(super) enum Body<'p> {
    Static(&'static str),
    Shared(Arc<str>),
    /// A body that is written piece by piece because it can be long.
    Streamed(BodyWriter<'p>),
}

pub(super) type BodyWriter<'p> = Box<dyn FnOnce(&mut dyn io::Write) -> io::Result<()> + 'p>;

impl<'p> Response<'p> {
    pub(super) fn ok(content_type: &'static str, body: Body<'p>) -> Response<'p> {
        Response {
            status: 200,
            content_type,
            body,
            policy: NOTHING,
        }
    }

    pub(super) fn page(html: &'static str, policy: &'static str) -> Response<'p> {
        Response {
            policy,
            ..Response::ok("text/html; charset=utf-8", Body::Static(html))
        }
    }

    pub(super) fn text(status: u16, text: &'static str) -> Response<'p> {
        Response {
            status,
            content_type: "text/plain; charset=utf-8",
            body: Body::Static(text),
            policy: NOTHING,
        }
    }
}

/// Serves all connections to `listener`, forever.
pub(super) fn serve(listener: &TcpListener, handler: &Arc<impl Handler>) {
    let slots = Arc::new(ConnectionSlots::default());
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            thread::sleep(ACCEPT_BACKOFF);
            continue;
        };
        let slot = ConnectionSlots::acquire(&slots, stream);
        let handler = Arc::clone(handler);
        let spawned = thread::Builder::new()
            .name("admin-connection".to_owned())
            .spawn(move || {
                // An error means that the client is gone.
                let _ = serve_connection(&slot, &*handler);
            });
        if let Err(error) = spawned {
            let error = os_errors::thread_error(&error);
            warn!("cannot serve a connection to the admin port: {error}");
        }
    }
}

/// The open connections, oldest first.
#[derive(Default)]
struct ConnectionSlots(Mutex<Vec<OpenConnection>>);

struct OpenConnection {
    stream: Arc<TcpStream>,
    has_request: bool,
}

/// The slot of a connection; dropping it frees the slot.
struct Slot {
    slots: Arc<ConnectionSlots>,
    stream: Arc<TcpStream>,
}

impl ConnectionSlots {
    /// Gives `stream` a slot. If none is free, closes another connection.
    fn acquire(slots: &Arc<ConnectionSlots>, stream: TcpStream) -> Slot {
        let stream = Arc::new(stream);
        let mut open = slots.lock();
        if open.len() >= CONNECTIONS_MAX {
            // If all have sent a request, the oldest is most likely one that does not read its response.
            let silent = open.iter().position(|open| !open.has_request);
            let evicted = open.remove(silent.unwrap_or(0));
            // This wakes its thread with an end of file.
            let _ = evicted.stream.shutdown(Shutdown::Both);
        }
        open.push(OpenConnection {
            stream: Arc::clone(&stream),
            has_request: false,
        });
        Slot {
            slots: Arc::clone(slots),
            stream,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<OpenConnection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn mark_request(&self) {
        let mut open = self.slots.lock();
        let own = open.iter_mut().find(|open| self.is_slot_of(open));
        if let Some(own) = own {
            own.has_request = true;
        }
    }

    fn is_slot_of(&self, open: &OpenConnection) -> bool {
        Arc::ptr_eq(&open.stream, &self.stream)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.lock().retain(|open| !self.is_slot_of(open));
    }
}

fn serve_connection(slot: &Slot, handler: &impl Handler) -> io::Result<()> {
    let mut stream = &*slot.stream;
    let request = read_request(stream)?;
    slot.mark_request();
    let response = match &request {
        Some(request) if !is_allowed_host(&request.host, stream.local_addr()?.ip()) => {
            Response::text(421, MISDIRECTED)
        }
        Some(request) => handler.handle(request),
        None => Response::text(400, "malformed or too large request\n"),
    };
    let is_head = request
        .as_ref()
        .is_some_and(|request| request.method == "HEAD");
    let (takes_chunks, takes_gzip) = request.map_or((false, false), |request| {
        (request.takes_chunks, request.takes_gzip)
    });
    let mut writer = ResponseWriter::new(stream, &response, is_head, takes_chunks);
    match response.body {
        Body::Static(text) => writer.write_whole(text.as_bytes())?,
        Body::Shared(text) => writer.write_whole(text.as_bytes())?,
        Body::Streamed(_) if is_head => writer.finish()?,
        Body::Streamed(write) if takes_gzip => {
            writer.is_gzip = true;
            let encoder = GzEncoder::new(&mut writer, Compression::fast());
            // JSON comes in pieces of a few bytes, and each call of the encoder costs more than those.
            let mut pieces = BufWriter::with_capacity(PIECE_BYTES, encoder);
            write(&mut pieces)?;
            pieces.into_inner()?.finish()?;
            writer.finish()?;
        }
        Body::Streamed(write) => {
            write(&mut writer)?;
            writer.finish()?;
        }
    }
    stream.shutdown(Shutdown::Write)?;
    // Lingering close: closing with unread bytes would make the kernel send a reset, which can destroy
    // the response.
    let deadline = Instant::now() + CLOSE_TIMEOUT;
    let mut rest = [0; 1024];
    loop {
        stream.set_read_timeout(Some(left(deadline)?))?;
        if stream.read(&mut rest)? == 0 {
            return Ok(());
        }
    }
}

/// Whether to answer a request for `host` that arrived at the local address `local`.
///
/// This prevents DNS rebinding: a website in an operator's browser could read these pages if its owner
/// pointed the website's name at this host. On a loopback address, which only local browsers reach, the
/// server accepts only hosts that no stranger can own: IP addresses, `localhost`, and names without a
/// dot. On other addresses it cannot know which names operators have given it.
fn is_allowed_host(host: &str, local: IpAddr) -> bool {
    if !local.to_canonical().is_loopback() {
        return true;
    }
    let has_port = |(_, port): &(&str, &str)| port.bytes().all(|byte| byte.is_ascii_digit());
    let name = host.rsplit_once(':').filter(has_port);
    let name = name.map_or(host, |(name, _)| name).trim_end_matches('.');
    let is_address = name.starts_with('[') || name.parse::<IpAddr>().is_ok();
    is_address || !name.contains('.') || name.to_ascii_lowercase().ends_with(".localhost")
}

/// Reads a request. Returns `None` if it is malformed or too large.
fn read_request(mut stream: &TcpStream) -> io::Result<Option<Request>> {
    let deadline = Instant::now() + READ_TIMEOUT;
    let mut head = Vec::new();
    let mut buffer = [0; 2048];
    while head.len() < HEAD_BYTES_MAX {
        stream.set_read_timeout(Some(left(deadline)?))?;
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(buffer.get(..count).unwrap_or_default());
        match parse(&head) {
            Ok(None) => {}
            Ok(request) => return Ok(request),
            Err(_malformed) => return Ok(None),
        }
    }
    Ok(None)
}

/// Parses `head`. Returns `None` if it is incomplete.
fn parse(head: &[u8]) -> Result<Option<Request>, httparse::Error> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
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
    let header = |name: &str| {
        let mut headers = parsed.headers.iter();
        let found = headers.find(|header| header.name.eq_ignore_ascii_case(name));
        let value = found.map_or(&[][..], |header| header.value);
        String::from_utf8_lossy(value).into_owned()
    };
    Ok(Some(Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: path.unwrap_or("/").to_owned(),
        accept: header("accept"),
        takes_gzip: takes_gzip(&header("accept-encoding")),
        host: header("host"),
        takes_chunks: parsed.version == Some(1),
    }))
}

/// Whether an `Accept-Encoding` names gzip and does not refuse it (RFC 9110 section 12.5.3).
fn takes_gzip(accept_encoding: &str) -> bool {
    accept_encoding.split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
        let is_refused = weight.is_some_and(|weight| weight.trim().parse() == Ok(0.0));
        is_gzip && !is_refused
    })
}

/// Writes a response. A body of up to [`BUFFER_BYTES`] is sent with its `Content-Length`. A longer one is
/// sent in chunks while it is generated, so that it is never in memory as a whole.
struct ResponseWriter<'c> {
    stream: &'c TcpStream,
    status: u16,
    content_type: &'static str,
    policy: &'static str,
    /// Whether the body has the content coding gzip.
    is_gzip: bool,
    is_head: bool,
    /// Whether the client understands chunks. For others, the body ends with the connection.
    takes_chunks: bool,
    has_sent_head: bool,
    buffer: Vec<u8>,
    /// What is left of [`WRITE_TIMEOUT`].
    time_left: Duration,
}

impl<'c> ResponseWriter<'c> {
    fn new(
        stream: &'c TcpStream,
        response: &Response<'_>,
        is_head: bool,
        takes_chunks: bool,
    ) -> ResponseWriter<'c> {
        ResponseWriter {
            stream,
            status: response.status,
            content_type: response.content_type,
            policy: response.policy,
            is_gzip: false,
            is_head,
            takes_chunks,
            has_sent_head: false,
            buffer: Vec::new(),
            time_left: WRITE_TIMEOUT,
        }
    }

    /// Sends a response whose whole body is `body`.
    fn write_whole(&mut self, body: &[u8]) -> io::Result<()> {
        let head = self.head(&format!("Content-Length: {}\r\n", body.len()));
        self.send(head.as_bytes())?;
        if self.is_head {
            return Ok(());
        }
        self.send(body)
    }

    /// Sends the buffer as a part of a longer body.
    fn write_part(&mut self) -> io::Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        if !self.has_sent_head {
            self.has_sent_head = true;
            let framing = match self.takes_chunks {
                true => "Transfer-Encoding: chunked\r\n",
                false => "",
            };
            self.send(self.head(framing).as_bytes())?;
        }
        if self.takes_chunks {
            self.send(format!("{:x}\r\n", buffer.len()).as_bytes())?;
        }
        self.send(&buffer)?;
        if self.takes_chunks {
            self.send(b"\r\n")?;
        }
        self.buffer = buffer;
        self.buffer.clear();
        Ok(())
    }

    /// Sends the rest of a streamed body.
    fn finish(mut self) -> io::Result<()> {
        if self.is_head {
            // The length is unknown, so there is no Content-Length.
            return self.send(self.head("").as_bytes());
        }
        if !self.has_sent_head {
            let body = std::mem::take(&mut self.buffer);
            return self.write_whole(&body);
        }
        if !self.buffer.is_empty() {
            self.write_part()?;
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
            "HTTP/1.1 {} {phrase}\r\nDate: {}\r\nContent-Type: {}\r\n{framing}{}Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\nReferrer-Policy: no-referrer\r\nContent-Security-Policy: {}\r\n{}Connection: close\r\n\r\n",
            self.status,
            String::from_utf8_lossy(&http_date(SystemTime::now())),
            self.content_type,
            if self.is_gzip {
                "Content-Encoding: gzip\r\n"
            } else {
                ""
            },
            self.policy,
            if self.status == 405 {
                "Allow: GET, HEAD\r\n"
            } else {
                ""
            },
        )
    }

    /// Sends all of `bytes` within the time left. Only time spent on writing counts, not that spent on
    /// generating the body.
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

impl Write for ResponseWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES {
            self.write_part()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The time until `deadline`. Never zero, which a socket would take for "no timeout".
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
    fn a_request_is_parsed_once_it_is_complete() {
        let head = b"GET /metrics?x=1 HTTP/1.1\r\nHost: m\r\naccept: text/plain\r\nAccept-Encoding: br, gzip\r\n\r\n";
        let expected = Request {
            method: "GET".to_owned(),
            path: "/metrics".to_owned(),
            accept: "text/plain".to_owned(),
            takes_gzip: true,
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
    fn gzip_is_for_those_who_name_it_and_do_not_refuse_it() {
        for (accepted, expected) in [
            ("", false),
            ("identity", false),
            ("br;q=1.0, gzip;q=0.8, *;q=0.1", true),
            ("GZIP", true),
            ("gzip;q=0", false),
            ("gzip; q=0.000", false),
            ("gzip;Q=0", false),
            ("x-gzipped, deflate", false),
        ] {
            assert_eq!(takes_gzip(accepted), expected, "{accepted}");
        }
    }

    #[test]
    fn on_a_loopback_address_only_hosts_that_no_stranger_can_own_are_allowed() {
        let is_allowed = |host: &str, local: &str| is_allowed_host(host, local.parse().unwrap());
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
            assert!(is_allowed(host, "127.0.0.1"), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:3001",
            "evil.example.:3001",
            "localhost.evil.example",
            "127.0.0.1.evil.example:3001",
        ] {
            assert!(!is_allowed(host, "127.0.0.1"), "{host}");
            assert!(!is_allowed(host, "::1"), "{host}");
            assert!(!is_allowed(host, "::ffff:127.0.0.1"), "{host}");
        }
        let service = "sentry-mirror.default.svc.cluster.local:3001";
        assert!(is_allowed(service, "10.0.0.7"));
    }
}
