//! One request, one response, over one connection.
//!
//! The response decides whether the connection may be used again, and only a clean one allows it:
//! the request was sent whole, the body had a known end, nothing follows it, and the upstream did not
//! ask to close. Responses are bounded; interim ones (1xx) are skipped, before the request is sent
//! whole as well as after.

use std::fmt;
use std::io;
use std::time::SystemTime;

use bytes::{Buf, Bytes, BytesMut};

use crate::budget::Reservation;
use crate::http::chunked::{ChunkError, Chunked, Progress};
use crate::http::due::ReparseGate;
use crate::http::framing::{self, Framing};
use crate::http::head::{Header, HeaderName, Method, Parsed};
use crate::http::response::ResponseHead;
use crate::limits::Limits;
use crate::sentry::rate_limits;
use crate::upstream::breaker::Unanswered;
use crate::upstream::incoming::ReadBuffer;
use crate::upstream::probe::{EarlyResponse, EarlyResponseWatch};
use crate::upstream::response::Response;
use crate::upstream::stream::{IdleState, READ_BYTES, Sent, Stream};

/// How many bytes the interim responses (1xx) to one request may have. A server that says every second
/// that it is busy (102) needs 30 for each, and one that names what to load early (103) a few hundred.
const INTERIM_BYTES_MAX: usize = 32 * 1024;

/// The content type of Relay's answers.
const JSON: &[u8] = b"application/json";

/// A request as it goes out.
pub struct Request {
    /// Its method, which says whether the response may have a body.
    pub method: Method,
    /// Request line and header lines; short bodies follow right here.
    pub head: Vec<u8>,
    /// The rest of the body, shared by all deliveries of the request.
    pub body: Bytes,
    /// What ends the body of this delivery alone; mostly nothing.
    pub tail: Vec<u8>,
}

impl Request {
    /// How large it is.
    pub fn bytes(&self) -> usize {
        self.head.len() + self.body.len() + self.tail.len()
    }
}

/// Why a delivery got no answer.
#[derive(Debug)]
pub enum Failure {
    /// No address of the host is known.
    Dns,
    /// The connection was refused or failed.
    Connect(io::Error),
    /// Connecting, TLS handshake included, took longer than `timeouts.connect`.
    ConnectTimeout,
    /// The TLS handshake failed, for example over an untrusted certificate.
    Tls(io::Error),
    /// The request could not be sent.
    Send(io::Error),
    /// The upstream answered with this status below 300 before it had the request, and then did not
    /// take the rest.
    CutShort(u16),
    /// The response could not be read.
    Receive(io::Error),
    /// The upstream closed before its response was complete.
    Closed,
    /// The response is not HTTP/1.1, or its framing is ambiguous.
    Malformed(String),
    /// The response is larger than `limits.response_bytes`, or than what is left of
    /// `limits.memory_bytes`.
    TooLarge,
    /// The whole exchange took longer than `timeouts.exchange`.
    Timeout,
    /// `limits.in_flight` deliveries to this origin are under way already, or those take its share of
    /// `limits.memory_bytes`, or that leaves no room to make this one.
    Overloaded,
    /// The upstream failed too often and is left alone for a while.
    Paused,
    /// Not sent, because the outbound wants nothing of it by its `categories`.
    Filtered,
    /// Not sent, because it is not in the share that the outbound wants.
    Sampled,
    /// Not sent, because the outbound has asked not to be sent it for so many more seconds.
    Withheld(u32),
    /// The delivery's own code failed; a bug of this program.
    Panicked,
}

impl Failure {
    /// In which way nothing came back, where something could have, as far as this process is concerned.
    pub fn unanswered(&self) -> Option<Unanswered> {
        match self {
            Failure::Dns | Failure::ConnectTimeout | Failure::Tls(_) => {
                Some(Unanswered::Unreachable)
            }
            Failure::Connect(error) => (!is_own_shortage(error)).then_some(Unanswered::Unreachable),
            Failure::Send(_) | Failure::Receive(_) | Failure::Closed => Some(Unanswered::Broken),
            Failure::Timeout => Some(Unanswered::Silent),
            Failure::CutShort(_)
            | Failure::Malformed(_)
            | Failure::TooLarge
            | Failure::Overloaded
            | Failure::Paused
            | Failure::Filtered
            | Failure::Sampled
            | Failure::Withheld(_)
            | Failure::Panicked => None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Dns => f.write_str("no address is known for its host"),
            Failure::Connect(error) => write!(f, "cannot connect: {error}"),
            Failure::ConnectTimeout => f.write_str("connecting took longer than timeouts.connect"),
            Failure::Tls(error) => write!(f, "TLS: {error}"),
            Failure::Send(error) => write!(f, "cannot send the request: {error}"),
            Failure::CutShort(status) => {
                write!(f, "answered {status}, but did not take the whole request")
            }
            Failure::Receive(error) => write!(f, "cannot read the response: {error}"),
            Failure::Closed => f.write_str("closed before the response was complete"),
            Failure::Malformed(reason) => write!(f, "malformed response: {reason}"),
            Failure::TooLarge => f.write_str(
                "response larger than limits.response_bytes, or than the rest of limits.memory_bytes",
            ),
            Failure::Timeout => f.write_str("no complete response within timeouts.exchange"),
            Failure::Overloaded => f.write_str(
                "limits.in_flight deliveries are under way already, or they take the share of this origin in limits.memory_bytes, or no memory is left to make this one",
            ),
            Failure::Paused => f.write_str("left alone after repeated failures"),
            Failure::Filtered => f.write_str("none of it is of the outbound's categories"),
            Failure::Sampled => f.write_str("not in the share that the outbound gets"),
            Failure::Withheld(seconds) => {
                write!(f, "withheld, because it asked for a pause of {seconds} s")
            }
            Failure::Panicked => f.write_str("internal error (a panic, logged above)"),
        }
    }
}

/// Whether an error means that this process, or this host, has run out of something.
fn is_own_shortage(error: &io::Error) -> bool {
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

/// A connection, and what has come over it.
pub struct Connection {
    stream: Stream,
    /// Empty between exchanges.
    read_buffer: ReadBuffer,
    heads: Heads,
    /// What the last exchange left it fit for.
    fitness: Fitness,
    /// Whether a byte of the current response has arrived.
    saw_response: bool,
    /// Whether the request can be sent again elsewhere: all its parts are still there.
    has_request: bool,
}

/// What a connection is fit for after an exchange.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fitness {
    /// Another exchange.
    Reusable,
    /// Nothing more.
    Spent,
    /// Nothing more, since there is more on it than the answer.
    Overfull,
}

/// The heads of the response that is being read.
#[derive(Default)]
struct Heads {
    /// The last one. Reused from response to response for its memory.
    head: ResponseHead,
    /// How many were read.
    count: usize,
    /// How many bytes interim ones have had.
    interim_bytes: usize,
}

impl Heads {
    /// Whether the head that was just parsed is an interim one, to be skipped.
    ///
    /// # Errors
    /// [`Failure::Malformed`] where nothing can follow.
    fn is_interim(&mut self) -> Result<bool, Failure> {
        self.count += 1;
        match self.head.status {
            // The request asked for no other protocol, so nothing can follow a 101.
            101 => Err(Failure::Malformed("unasked 101 response".to_owned())),
            ..200 => {
                self.interim_bytes += self.head.len;
                match self.interim_bytes <= INTERIM_BYTES_MAX {
                    true => Ok(true),
                    false => Err(Failure::Malformed("too many interim responses".to_owned())),
                }
            }
            _ => Ok(false),
        }
    }

    /// What has been said before the request was sent whole. Takes interim responses out of `buffer`.
    fn classify(&mut self, buffer: &mut BytesMut, limits: &Limits) -> EarlyResponse {
        loop {
            match self.head.parse(buffer, limits.response_bytes) {
                Ok(Parsed::Partial) if buffer.len() < READ_BYTES => return EarlyResponse::NoneYet,
                Ok(Parsed::Complete) => {}
                Ok(Parsed::Partial) | Err(_) => return EarlyResponse::Refusal,
            }
            match self.is_interim() {
                Ok(true) => buffer.advance(self.head.len),
                // It is read again when the response is.
                Ok(false) if self.head.status < 300 => return EarlyResponse::Success,
                Ok(false) | Err(_) => return EarlyResponse::Refusal,
            }
        }
    }
}

impl Connection {
    /// A fresh connection, and the still empty share for large responses.
    pub fn new(stream: Stream, share: Reservation) -> Connection {
        Connection {
            stream,
            read_buffer: ReadBuffer::new(share),
            heads: Heads::default(),
            fitness: Fitness::Reusable,
            saw_response: false,
            has_request: true,
        }
    }

    /// Whether another exchange may follow.
    pub fn is_reusable(&self) -> bool {
        self.fitness == Fitness::Reusable
    }

    /// Whether more came in the last exchange than its answer, on a connection that stays open.
    pub fn is_overfull(&self) -> bool {
        self.fitness == Fitness::Overfull
    }

    /// What has come and belongs to no answer.
    pub fn unread(&self) -> &[u8] {
        self.read_buffer.bytes()
    }

    /// Whether `result`, what came of the last exchange, says that the connection was given up by the
    /// upstream before it saw the request, if it was used before. Then the request may be sent again
    /// elsewhere.
    pub fn was_stale(&self, result: &Result<Response, Failure>) -> bool {
        self.has_request
            && match result {
                // It gave up waiting for a request (RFC 9110 §15.5.9).
                Ok(response) => response.status == 408 && !self.is_reusable(),
                // What came was no answer, but the rest of an earlier one.
                Err(Failure::Malformed(_)) => self.heads.count == 0,
                Err(_) => !self.saw_response,
            }
    }

    /// What has arrived since its last exchange.
    pub fn look(&mut self) -> IdleState {
        self.stream.look()
    }

    /// Ends it, now that its answer is there, without a trace in the system.
    pub fn end(self) {
        self.stream.end_at_once();
    }

    /// Sends `request`, whose parts stay in it to be sent elsewhere, and reads the response.
    ///
    /// # Errors
    /// Why there is no response; the connection is not reusable then.
    pub async fn exchange(
        &mut self,
        request: &mut Request,
        limits: &Limits,
    ) -> Result<Response, Failure> {
        self.fitness = Fitness::Spent;
        self.saw_response = false;
        self.has_request = true;
        self.heads.count = 0;
        self.heads.interim_bytes = 0;
        let sent = self.send(request, limits).await;
        self.saw_response = self.heads.count > 0 || !self.read_buffer.bytes().is_empty();
        let Err(error) = sent else {
            return self.receive(request.method, limits).await;
        };
        // An upstream may refuse early, say with 413, and read no further or even close; its answer is
        // worth more than the error that the closing caused. An early 200 is worth nothing: what it
        // accepts has not arrived.
        let received = self.receive(request.method, limits).await;
        self.fitness = Fitness::Spent;
        match (received, error) {
            (Ok(response), _) if response.status >= 300 => Ok(response),
            (Ok(response), _) => Err(Failure::CutShort(response.status)),
            (Err(_), Some(error)) => Err(Failure::Send(error)),
            (Err(failure), None) => Err(failure),
        }
    }

    /// Sends `request`, and puts its parts back into it.
    ///
    /// # Errors
    /// It is not sent whole: the connection broke, or, without an error, the upstream has refused the
    /// request. Then what could be sent no more is lost.
    async fn send(
        &mut self,
        request: &mut Request,
        limits: &Limits,
    ) -> Result<(), Option<io::Error>> {
        let heads = &mut self.heads;
        let mut classify = |buffer: &mut BytesMut| heads.classify(buffer, limits);
        let mut watch = EarlyResponseWatch::new(self.read_buffer.buffer(), &mut classify);
        let head = std::mem::take(&mut request.head);
        let body = std::mem::take(&mut request.body);
        let sent_bytes = head.len() + body.len();
        match self.stream.send(head, body, &mut watch).await {
            Sent::Whole(head, body) => (request.head, request.body) = (head, body),
            Sent::Broken(error, head, body) => {
                (request.head, request.body) = (head, body);
                return Err(Some(error));
            }
            Sent::Refused => {
                self.has_request = false;
                return Err(None);
            }
        }
        if request.tail.is_empty() {
            return Ok(());
        }
        if sent_bytes > READ_BYTES {
            // It may have filled the socket.
            watch.begin(self.stream.socket());
        }
        let tail = std::mem::take(&mut request.tail);
        match self.stream.send(tail, Bytes::new(), &mut watch).await {
            Sent::Whole(tail, _) => request.tail = tail,
            Sent::Broken(error, tail, _) => {
                request.tail = tail;
                return Err(Some(error));
            }
            Sent::Refused => {
                self.has_request = false;
                return Err(None);
            }
        }
        Ok(())
    }

    async fn receive(&mut self, method: Method, limits: &Limits) -> Result<Response, Failure> {
        self.receive_head(limits).await?;
        let known = &self.heads.head;
        let head = self.read_buffer.bytes().get(..known.len);
        let head = head.unwrap_or_default();
        let framing = framing::of_response(known, head, method)
            .map_err(|error| Failure::Malformed(error.to_string()))?;
        let is_kept = known.keep_alive(head)
            && framing != Framing::UntilClose
            && !framing::declares_absent_body(known, head, method);
        let mut response = self.take_head()?;
        response.body = match framing {
            Framing::Empty => Bytes::new(),
            Framing::Length(length) => self.receive_length(length, limits).await?,
            Framing::Chunked => self.receive_chunked(limits).await?,
            Framing::UntilClose => self.receive_until_close(limits).await?,
        };
        response.memory = self.read_buffer.give_share();
        self.fitness = match (is_kept, self.read_buffer.bytes().is_empty()) {
            (true, true) => Fitness::Reusable,
            (true, false) => Fitness::Overfull,
            (false, _) => Fitness::Spent,
        };
        Ok(response)
    }

    /// The response without its body, which is at the front of the buffer then.
    fn take_head(&mut self) -> Result<Response, Failure> {
        let mut response = Response::with_status(self.heads.head.status);
        for Header { name, value, .. } in &self.heads.head.headers {
            let slot = match name {
                HeaderName::ContentType => &mut response.content_type,
                HeaderName::ContentEncoding => &mut response.rare_headers_mut().content_encoding,
                HeaderName::XSentryRateLimits => &mut response.rare_headers_mut().rate_limits,
                HeaderName::RetryAfter => &mut response.rare_headers_mut().retry_after,
                HeaderName::XSentryError => &mut response.rare_headers_mut().sentry_error,
                _ => continue,
            };
            if slot.is_none() {
                *slot = Some(match value.slice(self.read_buffer.bytes()) {
                    // What nearly every response has takes no memory.
                    JSON => Bytes::from_static(JSON),
                    _ => self.read_buffer.copy(*value)?,
                });
            } else if *name == HeaderName::XSentryRateLimits {
                // A list on several lines is one list (RFC 9110, section 5.3).
                let line = value.slice(self.read_buffer.bytes());
                let list = slot.take().unwrap_or_default();
                *slot = Some([&list[..], line].join(&b", "[..]).into());
            }
        }
        if let Some(value) = &response.rare_headers().retry_after {
            let seconds = rate_limits::parse_retry_after(value, SystemTime::now());
            response.rare_headers_mut().retry_after_seconds = seconds;
        }
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
        // What was copied of the head lives as long.
        self.read_buffer.count(self.heads.head.len + length)?;
        self.read_buffer.take(length)
    }

    async fn receive_chunked(&mut self, limits: &Limits) -> Result<Bytes, Failure> {
        let mut chunked = Chunked::of_response(limits.response_bytes);
        loop {
            let progress = chunked.decode(self.read_buffer.buffer());
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
            // Some of it may have come with the head.
            if self.read_buffer.bytes().len() > limits.response_bytes {
                return Err(Failure::TooLarge);
            }
            match self.read().await {
                Ok(()) => {}
                Err(Failure::Closed) => {
                    let rest = self.read_buffer.bytes().len();
                    return self.read_buffer.take(rest);
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Reads once.
    async fn read(&mut self) -> Result<(), Failure> {
        let read = self.read_buffer.read(&mut self.stream).await;
        self.saw_response |= !self.read_buffer.bytes().is_empty();
        read
    }
}
