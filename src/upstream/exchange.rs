//! One request, one response, over one connection.
//!
//! The response decides whether the connection may be used again, and only a clean one allows it:
//! the request was sent whole, the body had a known end, nothing follows it, and the upstream did not
//! ask to close. Responses are bounded; interim ones (1xx) are skipped.

use std::fmt;
use std::io;

use bytes::{Buf, Bytes, BytesMut};

use crate::http::chunked::{Chunked, Progress};
use crate::http::framing::{self, Framing};
use crate::http::head::{FieldName, Method, Parsed};
use crate::http::response::ResponseHead;
use crate::limits::Limits;
use crate::upstream::stream::Stream;
use crate::upstream::turn::Turn;

/// How many heads a response may have, the interim ones (1xx) included. One or two are usual.
const HEADS_MAX: usize = 16;

/// A request as it goes out.
pub struct Request {
    /// Its method, which says whether the response may have a body.
    pub method: Method,
    /// Request line and header lines; short bodies follow right here.
    pub head: Vec<u8>,
    /// The rest of the body, shared by all deliveries of the request.
    pub body: Bytes,
}

/// What an upstream answered, as far as it matters to the SDK.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// The final status code.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: Option<Bytes>,
    /// `Content-Encoding`; none is asked for, so this is rare.
    pub content_encoding: Option<Bytes>,
    /// `X-Sentry-Rate-Limits`.
    pub rate_limits: Option<Bytes>,
    /// `Retry-After`.
    pub retry_after: Option<Bytes>,
    /// `X-Sentry-Error`.
    pub sentry_error: Option<Bytes>,
    /// The body, without any transfer coding.
    pub body: Bytes,
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
    /// The response is larger than `limits.response_bytes`.
    TooLarge,
    /// The whole exchange took longer than `timeouts.exchange`.
    Timeout,
    /// `limits.in_flight` deliveries to this origin are under way already.
    Overloaded,
    /// The upstream failed too often and is left alone for a while.
    Paused,
    /// Not sent, because the outbound has asked not to be sent it for so many more seconds.
    Withheld(u32),
    /// The delivery's own code failed; a bug of this program.
    Panicked,
}

impl Failure {
    /// The words that [`Failure::label`] can give.
    pub const LABELS: [&'static str; 14] = [
        "dns",
        "connect",
        "connect_timeout",
        "tls",
        "send",
        "receive",
        "closed",
        "malformed",
        "too_large",
        "timeout",
        "overloaded",
        "paused",
        "rate_limited",
        "panicked",
    ];

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
            | Failure::Withheld(_)
            | Failure::Panicked => false,
        }
    }

    /// A fixed word per kind, for logs and counters.
    pub fn label(&self) -> &'static str {
        match self {
            Failure::Dns => "dns",
            Failure::Connect(_) => "connect",
            Failure::ConnectTimeout => "connect_timeout",
            Failure::Tls(_) => "tls",
            Failure::Send(_) => "send",
            Failure::Receive(_) => "receive",
            Failure::Closed => "closed",
            Failure::Malformed(_) => "malformed",
            Failure::TooLarge => "too_large",
            Failure::Timeout => "timeout",
            Failure::Overloaded => "overloaded",
            Failure::Paused => "paused",
            Failure::Withheld(_) => "rate_limited",
            Failure::Panicked => "panicked",
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
            Failure::TooLarge => f.write_str("response larger than limits.response_bytes"),
            Failure::Timeout => f.write_str("no complete response within timeouts.exchange"),
            Failure::Overloaded => f.write_str("limits.in_flight deliveries are under way already"),
            Failure::Paused => f.write_str("left alone after repeated failures"),
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

/// A connection with its read buffer.
pub struct Connection {
    stream: Stream,
    /// Empty between exchanges.
    buffer: BytesMut,
    /// Reused from response to response for its memory.
    head: ResponseHead,
    /// Whether the last exchange left it fit for another.
    is_reusable: bool,
    /// Whether a byte of the current response has arrived.
    saw_response: bool,
    turn: Turn,
}

impl Connection {
    /// A fresh connection.
    pub fn new(stream: Stream) -> Connection {
        Connection {
            stream,
            buffer: BytesMut::new(),
            head: ResponseHead::default(),
            is_reusable: true,
            saw_response: false,
            turn: Turn::default(),
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
        let head = std::mem::take(&mut request.head);
        let body = std::mem::take(&mut request.body);
        let (sent, head, body) = self.stream.send(head, body).await;
        request.head = head;
        request.body = body;
        let received = self.receive(request.method, limits).await;
        match sent {
            Ok(()) => received,
            // An upstream may answer early, say 413, and close without reading the rest; its
            // answer is worth more than the error that the closing caused.
            Err(error) => {
                self.is_reusable = false;
                received.map_err(|_| Failure::Send(error))
            }
        }
    }

    async fn receive(&mut self, method: Method, limits: &Limits) -> Result<Response, Failure> {
        self.receive_head(limits).await?;
        let head_bytes = self.buffer.split_to(self.head.len).freeze();
        let framing = framing::of_response(&self.head, &head_bytes, method)
            .map_err(|error| Failure::Malformed(error.to_string()))?;
        let body = match framing {
            Framing::Empty => Bytes::new(),
            Framing::Length(length) => self.receive_length(length, limits).await?,
            Framing::Chunked => self.receive_chunked(limits).await?,
            Framing::UntilClose => self.receive_until_close(limits).await?,
        };
        self.is_reusable = self.head.keep_alive(&head_bytes)
            && framing != Framing::UntilClose
            && self.buffer.is_empty();
        let value = |name: FieldName| {
            let value = self.head.values(name, &head_bytes).next()?;
            Some(head_bytes.slice_ref(value))
        };
        Ok(Response {
            status: self.head.status,
            content_type: value(FieldName::ContentType),
            content_encoding: value(FieldName::ContentEncoding),
            rate_limits: value(FieldName::XSentryRateLimits),
            retry_after: value(FieldName::RetryAfter),
            sentry_error: value(FieldName::XSentryError),
            body,
        })
    }

    /// Reads up to the end of the first head that is not an interim response.
    async fn receive_head(&mut self, limits: &Limits) -> Result<(), Failure> {
        for _ in 0..HEADS_MAX {
            self.receive_one_head(limits).await?;
            match self.head.status {
                // The request asked for no other protocol, so nothing can follow a 101.
                101 => return Err(Failure::Malformed("unasked 101 response".to_owned())),
                ..200 => self.buffer.advance(self.head.len),
                _ => return Ok(()),
            }
        }
        Err(Failure::Malformed("too many interim responses".to_owned()))
    }

    async fn receive_one_head(&mut self, limits: &Limits) -> Result<(), Failure> {
        loop {
            let parsed = self
                .head
                .parse(&self.buffer, limits)
                .map_err(|error| Failure::Malformed(error.to_string()))?;
            match parsed {
                Parsed::Partial => self.read().await?,
                Parsed::Complete => return Ok(()),
            }
        }
    }

    async fn receive_length(&mut self, length: usize, limits: &Limits) -> Result<Bytes, Failure> {
        if length > limits.response_bytes {
            return Err(Failure::TooLarge);
        }
        self.buffer
            .reserve(length.saturating_sub(self.buffer.len()));
        while self.buffer.len() < length {
            self.read().await?;
        }
        Ok(self.buffer.split_to(length).freeze())
    }

    async fn receive_chunked(&mut self, limits: &Limits) -> Result<Bytes, Failure> {
        let mut chunked = Chunked::new(limits.response_bytes);
        loop {
            let progress = chunked
                .decode(&mut self.buffer)
                .map_err(|error| Failure::Malformed(error.to_string()))?;
            match progress {
                Progress::More => self.read().await?,
                Progress::Done { body, consumed } => {
                    let whole = self.buffer.split_to(consumed).freeze();
                    return Ok(whole.slice(body.start..body.end));
                }
            }
        }
    }

    async fn receive_until_close(&mut self, limits: &Limits) -> Result<Bytes, Failure> {
        loop {
            match self.read().await {
                Ok(()) if self.buffer.len() > limits.response_bytes => {
                    return Err(Failure::TooLarge);
                }
                Ok(()) => {}
                Err(Failure::Closed) => return Ok(self.buffer.split().freeze()),
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Reads once.
    async fn read(&mut self) -> Result<(), Failure> {
        let buffer = std::mem::take(&mut self.buffer);
        let (result, buffer) = self.turn.take(self.stream.receive(buffer)).await;
        self.buffer = buffer;
        match result {
            Ok(0) => Err(Failure::Closed),
            Ok(_) => {
                self.saw_response = true;
                Ok(())
            }
            Err(error) => Err(Failure::Receive(error)),
        }
    }
}
