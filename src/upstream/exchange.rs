//! One request and its response over one connection.
//!
//! Only a clean response lets the connection be used again: the request was sent completely, the body
//! had a known end, nothing follows it, and the upstream did not ask to close. Responses are bounded.
//! Interim responses (1xx) are skipped, also while the request is still being sent.

use std::fmt;
use std::io;
use std::rc::Rc;

use bytes::{Buf, Bytes, BytesMut};

use crate::config::Proxy;
use crate::http::chunked::{ChunkError, Chunked, Progress};
use crate::http::framing::{self, Framing};
use crate::http::head::{Header, HeaderName, Method, Parsed};
use crate::http::reparse::ReparseGate;
use crate::http::response::ResponseHead;
use crate::limits::Limits;
pub(crate) use crate::net::early_response::READERS_MAX;
use crate::net::early_response::{EarlyResponse, EarlyResponseWatch};
use crate::net::socket::{IdleState, READ_BYTES};
use crate::net::stream::{Sent, Stream};
use crate::net::tls_failure::is_refusal;
use crate::net::transfer::{Phase, Transfer};
use crate::runtime::memory_budget::MemoryReservation;
use crate::upstream::breaker::Unanswered;
use crate::upstream::read_buffer::{ReadBuffer, ReadError};
use crate::upstream::response::Response;

/// The most bytes that the interim responses (1xx) to one request may have in all. A server that reports
/// every second that it is busy (102) needs 30 bytes each time; early hints (103) take a few hundred.
const INTERIM_BYTES_MAX: usize = 32 * 1024;

/// The content type of Relay's responses.
const JSON: &[u8] = b"application/json";

/// A request as it is sent to an upstream.
pub struct OutboundRequest {
    /// Decides whether the response may have a body.
    pub method: Method,
    /// The request line and the header lines. A short body follows right after them.
    pub head: Vec<u8>,
    /// The rest of the body, shared by all deliveries of the request.
    pub body: Bytes,
    /// The end of the body, where this delivery has one of its own; usually empty.
    pub tail: Vec<u8>,
}

impl OutboundRequest {
    pub fn bytes(&self) -> usize {
        self.head.len() + self.body.len() + self.tail.len()
    }
}

/// Why a delivery has no usable response. Errors are shared, since one connection may fail many deliveries.
#[derive(Clone, Debug)]
pub enum Failure {
    /// The host has no known address.
    Dns,
    /// The connection was refused or failed.
    Connect(Rc<io::Error>),
    /// Connecting, TLS handshake included, took longer than `timeouts.connect`.
    ConnectTimeout,
    /// The TLS handshake failed, for example over an untrusted certificate.
    Tls(Rc<io::Error>),
    /// The proxy could not be reached, or refused to connect to the server: what it did.
    Proxy(String),
    /// The proxy refused the request itself.
    ProxyRefused(String),
    /// The request could not be sent.
    Send(Rc<io::Error>),
    /// The upstream sent a response with this status below 300 before it had the whole request, and then did not
    /// take the rest.
    CutShort(u16),
    /// The response could not be read.
    Receive(Rc<io::Error>),
    /// The upstream closed before its response was complete.
    Closed,
    /// The response is not HTTP/1.1, or its framing is ambiguous.
    Malformed(String),
    /// The response is larger than `limits.response_bytes`, or than what is left of
    /// `limits.memory_bytes`.
    TooLarge,
    /// Nothing moved for `timeouts.exchange`: the upstream took nothing of the request, or sent nothing of the
    /// response.
    Timeout,
    /// The request was taken, or the response sent, at less than the minimum rate.
    TooSlow,
    /// There are `limits.in_flight` deliveries to this origin, or they take its share of
    /// `limits.memory_bytes`, or no memory is left for this one.
    Overloaded,
    /// No connection became free, and none could be opened, within `timeouts.exchange`.
    NoConnection,
    /// The circuit breaker of the upstream is open.
    BreakerOpen,
    /// The upstream has not processed the request, and said so, more than once.
    Refused,
    /// The upstream reset the stream of the request with this error code.
    Reset(String),
}

impl Failure {
    /// The failure of a proxy that did what `words` say.
    pub(crate) fn by_proxy(proxy: &Proxy, words: impl fmt::Display) -> Failure {
        Failure::Proxy(format!("the proxy {} {words}", proxy.authority()))
    }

    /// Whether this process or host has run out of a resource.
    pub(crate) fn is_own_shortage(&self) -> bool {
        matches!(self, Failure::Connect(error) if is_own_shortage(error))
    }

    /// How the upstream left the delivery unanswered. `None` for a response that the mirror cannot use, and for
    /// a failure that this process or its host caused.
    pub fn unanswered(&self) -> Option<Unanswered> {
        match self {
            // A probe makes the handshake and would succeed.
            Failure::Tls(error) if is_refusal(error) => Some(Unanswered::Broken),
            Failure::ProxyRefused(_) => Some(Unanswered::Broken),
            Failure::Dns | Failure::Tls(_) | Failure::Proxy(_) => Some(Unanswered::Unreachable),
            Failure::ConnectTimeout => Some(Unanswered::ConnectTimeout),
            Failure::Connect(error) => (!is_own_shortage(error)).then_some(Unanswered::Unreachable),
            Failure::Send(_)
            | Failure::Receive(_)
            | Failure::Closed
            | Failure::Refused
            | Failure::Reset(_) => Some(Unanswered::Broken),
            Failure::Timeout => Some(Unanswered::Silent),
            // It is alive: a body that is large for its network says nothing about other requests.
            Failure::TooSlow
            | Failure::CutShort(_)
            | Failure::Malformed(_)
            | Failure::TooLarge
            | Failure::Overloaded
            | Failure::NoConnection
            | Failure::BreakerOpen => None,
        }
    }

    /// Whether the upstream has responded, although the mirror cannot use the response.
    pub fn is_response(&self) -> bool {
        matches!(
            self,
            Failure::CutShort(_) | Failure::Malformed(_) | Failure::TooLarge
        )
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Dns => f.write_str("its host has no known address"),
            Failure::Connect(error) => write!(f, "cannot connect: {error}"),
            Failure::ConnectTimeout => f.write_str("connecting took longer than timeouts.connect"),
            Failure::Tls(error) => write!(f, "TLS: {error}"),
            Failure::Proxy(words) | Failure::ProxyRefused(words) => f.write_str(words),
            Failure::Send(error) => write!(f, "cannot send the request: {error}"),
            Failure::CutShort(status) => {
                write!(f, "responded with {status}, but did not take the whole request")
            }
            Failure::Receive(error) => write!(f, "cannot read the response: {error}"),
            Failure::Closed => f.write_str("closed before the response was complete"),
            Failure::Malformed(reason) => write!(f, "malformed response: {reason}"),
            Failure::TooLarge => f.write_str(
                "response larger than limits.response_bytes, or than the rest of limits.memory_bytes",
            ),
            Failure::Timeout => f.write_str("silent for timeouts.exchange"),
            Failure::TooSlow => f.write_str("took the request, or sent its response, too slowly"),
            Failure::Overloaded => f.write_str(
                "over limits.in_flight, or over this origin's share of limits.memory_bytes, or out of memory for requests",
            ),
            Failure::NoConnection => {
                f.write_str("no connection became free within timeouts.exchange")
            }
            Failure::BreakerOpen => f.write_str("circuit breaker open"),
            Failure::Refused => f.write_str("refused the request without processing it"),
            Failure::Reset(code) => write!(f, "reset the stream of the request: {code}"),
        }
    }
}

/// Whether an error means that this process or host has run out of a resource.
pub(crate) fn is_own_shortage(error: &io::Error) -> bool {
    let shortages = [
        libc::EMFILE,
        libc::ENFILE,
        libc::ENOBUFS,
        libc::ENOMEM,
        libc::EADDRNOTAVAIL,
    ];
    error
        .raw_os_error()
        .is_some_and(|code| shortages.contains(&code))
}

impl std::error::Error for Failure {}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Failure {
        match error {
            ReadError::Closed => Failure::Closed,
            // TLS 1.3 has the server verify our certificate after the handshake (RFC 8446 section 4.4.2.4).
            ReadError::Io(error) if is_refusal(&error) => Failure::Tls(error.into()),
            ReadError::Io(error) => Failure::Receive(error.into()),
            ReadError::OutOfMemory => Failure::TooLarge,
        }
    }
}

pub struct Connection {
    stream: Stream,
    /// Empty, and without memory, between exchanges.
    read_buffer: ReadBuffer,
    heads: Heads,
    reuse: Reuse,
    /// Whether a byte of the current response has arrived.
    saw_response: bool,
    /// Whether all parts of the request are there, so that it can be sent over another connection. They are not
    /// while they are being sent.
    has_request: bool,
}

/// Whether a connection can be used again after an exchange.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reuse {
    Yes,
    No,
    /// No: the upstream keeps it open, but more than the response has arrived on it.
    Overfull,
}

/// The heads of the response that is being read.
#[derive(Default)]
struct Heads {
    /// The most recent one. Reused for its memory.
    head: ResponseHead,
    count: usize,
    /// The total size of the interim ones.
    interim_bytes: usize,
}

impl Heads {
    /// Whether the head that was just parsed belongs to an interim response.
    ///
    /// # Errors
    /// [`Failure::Malformed`] if no final response can follow.
    fn is_interim(&mut self) -> Result<bool, Failure> {
        self.count += 1;
        match self.head.status {
            // The request did not ask for another protocol, so nothing can follow a 101.
            101 => Err(Failure::Malformed("unsolicited 101 response".to_owned())),
            ..200 => {
                self.interim_bytes += self.head.len;
                if self.interim_bytes <= INTERIM_BYTES_MAX {
                    Ok(true)
                } else {
                    Err(Failure::Malformed("too many interim responses".to_owned()))
                }
            }
            _ => Ok(false),
        }
    }

    /// Classifies what arrived before the request was sent completely. Removes interim responses from
    /// `buffer`.
    fn classify(&mut self, buffer: &mut BytesMut, limits: &Limits) -> EarlyResponse {
        loop {
            match self.head.parse(buffer, limits.response_bytes) {
                Ok(Parsed::Partial) if buffer.len() < READ_BYTES => return EarlyResponse::NoneYet,
                Ok(Parsed::Complete) => {}
                Ok(Parsed::Partial) | Err(_) => return EarlyResponse::Refusal,
            }
            match self.is_interim() {
                Ok(true) => buffer.advance(self.head.len),
                // It stays in the buffer, where the response is read later.
                Ok(false) if self.head.status < 300 => return EarlyResponse::Success,
                Ok(false) | Err(_) => return EarlyResponse::Refusal,
            }
        }
    }
}

impl Connection {
    /// A new connection. Large responses grow `memory`, which is empty.
    pub fn new(stream: Stream, memory: MemoryReservation) -> Connection {
        Connection {
            stream,
            read_buffer: ReadBuffer::new(memory),
            heads: Heads::default(),
            reuse: Reuse::Yes,
            saw_response: false,
            has_request: true,
        }
    }

    pub fn is_reusable(&self) -> bool {
        self.reuse == Reuse::Yes
    }

    /// Whether more than the response arrived in the last exchange, on a connection that stays open.
    pub fn is_overfull(&self) -> bool {
        self.reuse == Reuse::Overfull
    }

    /// Received bytes that belong to no response.
    pub fn unread(&self) -> &[u8] {
        self.read_buffer.bytes()
    }

    /// Whether `result`, the result of the last exchange, shows that the upstream had given up a reused
    /// connection before it saw the request. Then the request may be sent over another one.
    pub fn was_stale(&self, result: &Result<Response, Failure>) -> bool {
        self.has_request
            && match result {
                // The server stopped waiting for a request (RFC 9110 section 15.5.9).
                Ok(response) => response.status == 408 && !self.is_reusable(),
                // The first bytes were no response, but the rest of an earlier one.
                Err(Failure::Malformed(_)) => self.heads.count == 0,
                Err(_) => !self.saw_response,
            }
    }

    /// Whether the last exchange brought no byte of a response, and its request can be sent over another
    /// connection.
    pub(crate) fn was_silent(&self) -> bool {
        self.has_request && self.heads.count == 0 && self.read_buffer.bytes().is_empty()
    }

    pub(crate) fn idle_state(&mut self) -> IdleState {
        self.stream.idle_state()
    }

    /// Closes the connection, whose last response is complete, without leaving a socket in TIME-WAIT.
    pub fn close_at_once(self) {
        self.stream.reset_on_close();
    }

    /// Sends `request` and reads the response, and shows in `transfer` how far it is. The parts of the request stay
    /// in it, so that it can be sent over another connection.
    ///
    /// # Errors
    /// Why there is no response. Then the connection is not reusable.
    pub async fn exchange(
        &mut self,
        request: &mut OutboundRequest,
        limits: &Limits,
        transfer: &Transfer,
    ) -> Result<Response, Failure> {
        let _exchanging = transfer.begin(self.stream.socket());
        self.reuse = Reuse::No;
        self.saw_response = false;
        self.has_request = false;
        self.heads.count = 0;
        self.heads.interim_bytes = 0;
        let sent = self.send(request, limits).await;
        transfer.set_phase(Phase::Waiting);
        self.has_request = !matches!(sent, Err(None));
        self.saw_response = self.heads.count > 0 || !self.read_buffer.bytes().is_empty();
        let Err(error) = sent else {
            return self.receive(request.method, limits, transfer).await;
        };
        // An upstream may refuse early, for example with 413, then stop reading or even close. Its response
        // is worth more than the error that the closing caused. An early 200 is worth nothing: the
        // upstream does not have what it accepts.
        let received = self.receive(request.method, limits, transfer).await;
        self.reuse = Reuse::No;
        match (received, error) {
            (Ok(response), _) if response.status >= 300 => Ok(response),
            (Ok(response), _) => Err(Failure::CutShort(response.status)),
            (Err(failure @ Failure::Tls(_)), Some(_)) => Err(failure),
            (Err(_), Some(error)) => Err(Failure::Send(error.into())),
            (Err(failure), None) => Err(failure),
        }
    }

    /// Sends `request`, and puts its parts back into it.
    ///
    /// # Errors
    /// The request was not sent completely. `Some`: the connection failed with this error. `None`: the
    /// upstream refused the request early, and the parts that were being sent are lost.
    async fn send(
        &mut self,
        request: &mut OutboundRequest,
        limits: &Limits,
    ) -> Result<(), Option<io::Error>> {
        let heads = &mut self.heads;
        let mut classify = |buffer: &mut BytesMut| heads.classify(buffer, limits);
        let mut watch = EarlyResponseWatch::new(self.read_buffer.buffer_mut(), &mut classify);
        let head = std::mem::take(&mut request.head);
        let body = std::mem::take(&mut request.body);
        let sent_bytes = head.len() + body.len();
        match self.stream.send(head, body, &mut watch).await {
            Sent::Whole(head, body) => (request.head, request.body) = (head, body),
            Sent::Broken(error, head, body) => {
                (request.head, request.body) = (head, body);
                return Err(Some(error));
            }
            Sent::Refused => return Err(None),
        }
        if request.tail.is_empty() {
            return Ok(());
        }
        if sent_bytes > READ_BYTES {
            // The socket buffer may be full, so the next write may stall.
            watch.begin(self.stream.socket());
        }
        let tail = std::mem::take(&mut request.tail);
        match self.stream.send(tail, Bytes::new(), &mut watch).await {
            Sent::Whole(tail, _) => request.tail = tail,
            Sent::Broken(error, tail, _) => {
                request.tail = tail;
                return Err(Some(error));
            }
            Sent::Refused => return Err(None),
        }
        Ok(())
    }

    async fn receive(
        &mut self,
        method: Method,
        limits: &Limits,
        transfer: &Transfer,
    ) -> Result<Response, Failure> {
        self.receive_head(limits).await?;
        transfer.set_phase(Phase::Receiving);
        let parsed = &self.heads.head;
        let head = self.read_buffer.bytes().get(..parsed.len);
        let head = head.unwrap_or_default();
        let framing = framing::for_response(parsed, head, method)
            .map_err(|error| Failure::Malformed(error.to_string()))?;
        let stays_open = parsed.keep_alive(head)
            && framing != Framing::UntilClose
            && !framing::declares_absent_body(parsed, head, method);
        let mut response = self.take_head()?;
        response.body = match framing {
            Framing::Empty => Bytes::new(),
            Framing::Length(length) => self.receive_length(length, limits).await?,
            Framing::Chunked => self.receive_chunked(limits).await?,
            Framing::UntilClose => self.receive_until_close(limits).await?,
        };
        response.memory = self.read_buffer.end_response();
        self.reuse = match (stays_open, self.read_buffer.bytes().is_empty()) {
            (true, true) => Reuse::Yes,
            (true, false) => Reuse::Overfull,
            (false, _) => Reuse::No,
        };
        Ok(response)
    }

    /// Takes the response without its body, which is then at the front of the buffer.
    fn take_head(&mut self) -> Result<Response, Failure> {
        let mut response = Response::with_status(self.heads.head.status);
        let headers = self.heads.head.headers.iter();
        for Header { name, value, .. } in headers.filter(|header| header.name != HeaderName::Other)
        {
            let Some(slot) = response.header_mut(*name) else {
                continue;
            };
            if slot.is_none() {
                *slot = Some(match value.slice(self.read_buffer.bytes()) {
                    // The value in nearly every response takes no memory.
                    JSON => Bytes::from_static(JSON),
                    _ => self.read_buffer.copy(*value)?,
                });
            } else if *name == HeaderName::XSentryRateLimits {
                // A list on several lines is one list (RFC 9110 section 5.3).
                let line = value.slice(self.read_buffer.bytes());
                let list = slot.take().unwrap_or_default();
                *slot = Some([&list[..], line].join(&b", "[..]).into());
            }
        }
        response.parse_retry_after();
        self.read_buffer.skip(self.heads.head.len);
        Ok(response)
    }

    /// Reads up to the end of the first head that is not an interim response.
    async fn receive_head(&mut self, limits: &Limits) -> Result<(), Failure> {
        loop {
            self.receive_one_head(limits).await?;
            if !self.heads.is_interim()? {
                return Ok(());
            }
            self.read_buffer.skip(self.heads.head.len);
        }
    }

    async fn receive_one_head(&mut self, limits: &Limits) -> Result<(), Failure> {
        let mut gate = ReparseGate::default();
        loop {
            let bytes = self.read_buffer.bytes();
            if gate.should_parse(bytes, ResponseHead::bytes_max(limits.response_bytes)) {
                let parsed = self.heads.head.parse(bytes, limits.response_bytes);
                match parsed.map_err(|error| Failure::Malformed(error.to_string()))? {
                    Parsed::Partial => {}
                    Parsed::Complete => return Ok(()),
                }
            }
            self.read().await?;
        }
    }

    async fn receive_length(&mut self, length: usize, limits: &Limits) -> Result<Bytes, Failure> {
        if length > limits.response_bytes {
            return Err(Failure::TooLarge);
        }
        while self.read_buffer.bytes().len() < length {
            self.read_buffer.make_room(length)?;
            self.read().await?;
        }
        // The copied header values live as long as the body, so count both.
        self.read_buffer
            .reserve_large(self.heads.head.len + length)?;
        Ok(self.read_buffer.take(length)?)
    }

    async fn receive_chunked(&mut self, limits: &Limits) -> Result<Bytes, Failure> {
        let mut chunked = Chunked::for_response(limits.response_bytes);
        loop {
            let progress = chunked.decode(self.read_buffer.buffer_mut());
            let progress = progress.map_err(|error| match error {
                ChunkError::TooLarge => Failure::TooLarge,
                ChunkError::Malformed(reason) => Failure::Malformed(reason.to_owned()),
            });
            match progress? {
                Progress::More => self.read().await?,
                Progress::Done { body, consumed } => {
                    return Ok(self.read_buffer.take(consumed)?.slice(body.start..body.end));
                }
            }
        }
    }

    async fn receive_until_close(&mut self, limits: &Limits) -> Result<Bytes, Failure> {
        loop {
            // The beginning of the body may have come with the head.
            if self.read_buffer.bytes().len() > limits.response_bytes {
                return Err(Failure::TooLarge);
            }
            match self.read().await {
                Ok(()) => {}
                Err(error) if self.is_end(&error) => {
                    let rest = self.read_buffer.bytes().len();
                    return Ok(self.read_buffer.take(rest)?);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether `error` is the end of a body whose end is that of the connection.
    fn is_end(&self, error: &ReadError) -> bool {
        match error {
            ReadError::Closed => true,
            // A server that closes without having read the whole request resets the connection (RFC 9112 section 9.6),
            // as tinyproxy 1.11 does after a 407. What it refuses with has arrived before that.
            ReadError::Io(error) => {
                self.heads.head.status >= 300 && error.kind() == io::ErrorKind::ConnectionReset
            }
            ReadError::OutOfMemory => false,
        }
    }

    async fn read(&mut self) -> Result<(), ReadError> {
        let read = self.read_buffer.read(&mut self.stream).await;
        self.saw_response |= !self.read_buffer.bytes().is_empty();
        read
    }
}
