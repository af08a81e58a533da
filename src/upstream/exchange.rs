//! One request, one response, over one connection.
//!
//! The response decides whether the connection may be used again, and only a clean one allows it:
//! the request was sent whole, the body had a known end, nothing follows it, and the upstream did not
//! ask to close. Responses are bounded; interim ones (1xx) are skipped.

use std::fmt;
use std::io;
use std::time::SystemTime;

use bytes::Bytes;

use crate::budget::Reservation;
use crate::http::chunked::{ChunkError, Chunked, Progress};
use crate::http::due::Due;
use crate::http::framing::{self, Framing};
use crate::http::head::{Field, FieldName, Method, Parsed};
use crate::http::response::ResponseHead;
use crate::limits::Limits;
use crate::sentry::rate_limits;
use crate::upstream::incoming::Incoming;
use crate::upstream::response::Response;
use crate::upstream::stream::{Sent, Stream};

/// How many heads a response may have, the interim ones (1xx) included. One or two are usual.
const HEADS_MAX: usize = 16;

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
    /// `limits.in_flight` deliveries to this origin are under way already, or `limits.memory_bytes`
    /// leave no room to make this one.
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
    /// Whether it says that the upstream is down: nothing came back, and neither the request nor
    /// this process can be the reason.
    pub fn is_outage(&self) -> bool {
        match self {
            Failure::Dns | Failure::ConnectTimeout | Failure::Tls(_) | Failure::Timeout => true,
            Failure::Connect(error) => !is_own_shortage(error),
            Failure::Send(_) | Failure::Receive(_) | Failure::Closed => true,
            Failure::Malformed(_)
            | Failure::TooLarge
            | Failure::Overloaded
            | Failure::Paused
            | Failure::Filtered
            | Failure::Sampled
            | Failure::Withheld(_)
            | Failure::Panicked => false,
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
            Failure::Receive(error) => write!(f, "cannot read the response: {error}"),
            Failure::Closed => f.write_str("closed before the response was complete"),
            Failure::Malformed(reason) => write!(f, "malformed response: {reason}"),
            Failure::TooLarge => f.write_str(
                "response larger than limits.response_bytes, or than the rest of limits.memory_bytes",
            ),
            Failure::Timeout => f.write_str("no complete response within timeouts.exchange"),
            Failure::Overloaded => f.write_str(
                "limits.in_flight deliveries are under way already, or no memory is left to make this one",
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
    incoming: Incoming,
    /// Reused from response to response for its memory.
    head: ResponseHead,
    /// Whether the last exchange left it fit for another.
    is_reusable: bool,
    /// Whether a byte of the current response has arrived.
    saw_response: bool,
}

impl Connection {
    /// A fresh connection, and the still empty share for large responses.
    pub fn new(stream: Stream, share: Reservation) -> Connection {
        Connection {
            stream,
            incoming: Incoming::new(share),
            head: ResponseHead::default(),
            is_reusable: true,
            saw_response: false,
        }
    }

    /// Whether another exchange may follow.
    pub fn is_reusable(&self) -> bool {
        self.is_reusable
    }

    /// Whether a byte of the response arrived before the exchange failed; if not, the upstream may
    /// have closed the connection before it saw the request.
    pub fn saw_response(&self) -> bool {
        self.saw_response
    }

    /// Whether nothing happened on the connection since its last exchange.
    pub fn is_quiet(&self) -> bool {
        self.stream.is_quiet()
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
        self.is_reusable = false;
        self.saw_response = false;
        let mut head = std::mem::take(&mut request.head);
        let mut body = std::mem::take(&mut request.body);
        let mut is_tail = false;
        let error = loop {
            match self.stream.send(head, body).await {
                Sent::Whole(tail, _) if is_tail => {
                    request.tail = tail;
                    return self.receive(request.method, limits).await;
                }
                Sent::Whole(sent_head, sent_body) => {
                    (request.head, request.body) = (sent_head, sent_body);
                    if request.tail.is_empty() {
                        return self.receive(request.method, limits).await;
                    }
                    is_tail = true;
                    (head, body) = (std::mem::take(&mut request.tail), Bytes::new());
                }
                Sent::Broken(error, tail, _) if is_tail => {
                    request.tail = tail;
                    break Some(error);
                }
                Sent::Broken(error, head, body) => {
                    (request.head, request.body) = (head, body);
                    break Some(error);
                }
                Sent::Answered => {
                    self.saw_response = true;
                    break None;
                }
            }
        };
        // An upstream may answer early, say 413, and read no further or even close; its answer is
        // worth more than the error that the closing caused.
        let received = self.receive(request.method, limits).await;
        self.is_reusable = false;
        match error {
            Some(error) => received.map_err(|_| Failure::Send(error)),
            None => received,
        }
    }

    async fn receive(&mut self, method: Method, limits: &Limits) -> Result<Response, Failure> {
        self.receive_head(limits).await?;
        let head = self.incoming.bytes().get(..self.head.len);
        let head = head.unwrap_or_default();
        let framing = framing::of_response(&self.head, head, method)
            .map_err(|error| Failure::Malformed(error.to_string()))?;
        let is_kept = self.head.keep_alive(head) && framing != Framing::UntilClose;
        let mut response = self.take_head()?;
        response.body = match framing {
            Framing::Empty => Bytes::new(),
            Framing::Length(length) => self.receive_length(length, limits).await?,
            Framing::Chunked => self.receive_chunked(limits).await?,
            Framing::UntilClose => self.receive_until_close(limits).await?,
        };
        response.share = self.incoming.give_share();
        self.is_reusable = is_kept && self.incoming.bytes().is_empty();
        Ok(response)
    }

    /// The response without its body, which is at the front of the buffer then.
    fn take_head(&mut self) -> Result<Response, Failure> {
        let mut response = Response::with_status(self.head.status);
        for Field { name, value, .. } in &self.head.fields {
            let slot = match name {
                FieldName::ContentType => &mut response.content_type,
                FieldName::ContentEncoding => &mut response.notices_mut().content_encoding,
                FieldName::XSentryRateLimits => &mut response.notices_mut().rate_limits,
                FieldName::RetryAfter => &mut response.notices_mut().retry_after,
                FieldName::XSentryError => &mut response.notices_mut().sentry_error,
                _ => continue,
            };
            if slot.is_none() {
                *slot = Some(match value.of(self.incoming.bytes()) {
                    // What nearly every response has takes no memory.
                    JSON => Bytes::from_static(JSON),
                    _ => self.incoming.copy(*value)?,
                });
            } else if *name == FieldName::XSentryRateLimits {
                // A list on several lines is one list (RFC 9110, section 5.3).
                let line = value.of(self.incoming.bytes());
                let list = slot.take().unwrap_or_default();
                *slot = Some([&list[..], line].join(&b", "[..]).into());
            }
        }
        if let Some(value) = &response.notices().retry_after {
            let seconds = rate_limits::parse_retry_after(value, SystemTime::now());
            response.notices_mut().retry_after_seconds = seconds;
        }
        self.incoming.skip(self.head.len);
        Ok(response)
    }

    /// Reads up to the end of the first head that is not an interim response.
    async fn receive_head(&mut self, limits: &Limits) -> Result<(), Failure> {
        for _ in 0..HEADS_MAX {
            self.receive_one_head(limits).await?;
            match self.head.status {
                // The request asked for no other protocol, so nothing can follow a 101.
                101 => return Err(Failure::Malformed("unasked 101 response".to_owned())),
                ..200 => self.incoming.skip(self.head.len),
                _ => return Ok(()),
            }
        }
        Err(Failure::Malformed("too many interim responses".to_owned()))
    }

    async fn receive_one_head(&mut self, limits: &Limits) -> Result<(), Failure> {
        let mut due = Due::default();
        loop {
            let bytes = self.incoming.bytes();
            if due.is_due(bytes, ResponseHead::bytes_max(limits)) {
                let parsed = self.head.parse(bytes, limits);
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
        // What was copied of the head lives as long.
        self.incoming.reserve(self.head.len + length)?;
        while self.incoming.bytes().len() < length {
            self.read().await?;
        }
        self.incoming.take(length)
    }

    async fn receive_chunked(&mut self, limits: &Limits) -> Result<Bytes, Failure> {
        let mut chunked = Chunked::of_response(limits.response_bytes);
        loop {
            let progress = chunked.decode(self.incoming.buffer());
            let progress = progress.map_err(|error| match error {
                ChunkError::TooLarge => Failure::TooLarge,
                ChunkError::Malformed(reason) => Failure::Malformed(reason.to_owned()),
            });
            match progress? {
                Progress::More => self.read().await?,
                Progress::Done { body, consumed } => {
                    return Ok(self.incoming.take(consumed)?.slice(body.start..body.end));
                }
            }
        }
    }

    async fn receive_until_close(&mut self, limits: &Limits) -> Result<Bytes, Failure> {
        loop {
            // Some of it may have come with the head.
            if self.incoming.bytes().len() > limits.response_bytes {
                return Err(Failure::TooLarge);
            }
            match self.read().await {
                Ok(()) => {}
                Err(Failure::Closed) => {
                    let rest = self.incoming.bytes().len();
                    return self.incoming.take(rest);
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Reads once.
    async fn read(&mut self) -> Result<(), Failure> {
        let read = self.incoming.read(&mut self.stream).await;
        self.saw_response |= !self.incoming.bytes().is_empty();
        read
    }
}
