//! All reasons to reject a request, with the status and the text of the reply.
//!
//! Status and text are those of Relay if Relay has the same case, because SDKs know them. Each rejection also
//! decides whether the connection stays open: after a framing error, the start of the next request is unknown.

use std::fmt;

use crate::http::chunked::ChunkError;
use crate::http::encoding::DecodeError;
use crate::http::framing::FramingError;
use crate::http::head::HeadError;
use crate::mirror::reply::rejected_key::RejectedKey;
use crate::runtime::decoding::DecodeFailure;
use crate::sentry::auth::AuthError;
use crate::sentry::endpoint::Endpoint;
use crate::sentry::envelope::EnvelopeError;
use crate::telemetry::label::labels;

/// Why the mirror rejects a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// The request line or a header line is not valid HTTP.
    Head(HeadError),
    /// The length of the body is ambiguous or invalid (RFC 9112 section 6.3).
    Framing(FramingError),
    /// The chunked body is malformed (RFC 9112 section 7.1).
    Chunk(ChunkError),
    /// The request came without TLS to a listener with TLS.
    PlainHttp,
    /// The head took longer than `timeouts.head`.
    HeadTimeout,
    /// The body made no progress for `timeouts.body`.
    BodyTimeout,
    /// The declared length of the body is over `limits.body_bytes`.
    BodyTooLarge,
    /// The content coding of the body is not supported.
    Encoding,
    /// The body is not valid in its content coding.
    Decode(DecodeError),
    /// The request has several keys, or a malformed authentication header.
    Auth(AuthError),
    /// The request has no key.
    NoKey,
    /// The request has no key, and its envelope header has no usable `dsn`.
    NoEnvelopeKey,
    /// The key does not have the form of a Sentry key.
    BadKey(RejectedKey),
    /// No inbound DSN has the key.
    UnknownKey(RejectedKey),
    /// The path does not contain a project ID where it should.
    BadProject,
    /// The envelope header is not a JSON object.
    Envelope(EnvelopeError),
    /// The endpoint does not support the method.
    Method(Endpoint),
    /// There is no endpoint at the path.
    NotFound,
    /// The URL of a request for the crash-report dialog is too long to be put into its script.
    UrlTooLong,
    /// The request has passed this route before, according to its `Via` header.
    Loop,
    /// The request does not fit into the free part of `limits.memory_bytes`.
    Overloaded,
    /// The worker is so far behind that the request would wait for seconds.
    Late,
}

labels! {
    /// A [`Rejection`] without its details. Exceeding a limit and being malformed are separate reasons.
    pub enum Reason {
        /// The request line or a header is not valid HTTP.
        Head => "head",
        /// The head is larger than `limits.head_bytes`.
        HeadTooLarge => "head_too_large",
        /// The head has more than `limits.header_count` headers.
        TooManyHeaders => "too_many_headers",
        /// The length of the body is ambiguous or invalid (RFC 9112 section 6.3).
        Framing => "framing",
        /// The chunked body is malformed (RFC 9112 section 7.1).
        Chunk => "chunk",
        /// The request came without TLS to a listener with `tls`.
        PlainHttp => "plain_http",
        /// The head took longer than `timeouts.head`.
        HeadTimeout => "head_timeout",
        /// The body made no progress for `timeouts.body`.
        BodyTimeout => "body_timeout",
        /// The body, as declared or as received, is larger than `limits.body_bytes`.
        BodyTooLarge => "body_too_large",
        /// The decoded body is larger than `limits.decoded_bytes` or `limits.decoded_ratio` allows.
        DecodedTooLarge => "decoded_too_large",
        /// The content coding is not supported.
        Encoding => "encoding",
        /// The body cannot be decoded: it is corrupt or cut off.
        Decode => "decode",
        /// The request has several keys, or a malformed authentication header.
        Auth => "auth",
        /// The request has no key.
        NoKey => "no_key",
        /// Neither the request nor the envelope header has a key.
        NoEnvelopeKey => "no_envelope_key",
        /// The key does not have the form of a Sentry key.
        BadKey => "bad_key",
        /// No inbound DSN has this key.
        UnknownKey => "unknown_key",
        /// The path does not contain a project ID where it should.
        BadProject => "bad_project",
        /// The envelope header is not a JSON object, or is larger than `limits.envelope_header_bytes`.
        Envelope => "envelope",
        /// The endpoint does not support the method.
        Method => "method",
        /// There is no endpoint at the path.
        NotFound => "not_found",
        /// The URL of the crash-report dialog is too long to be put into its script.
        UrlTooLong => "url_too_long",
        /// The request has passed this route before, according to its `Via` header.
        Loop => "loop",
        /// Too little of `limits.memory_bytes` was free for the request.
        Overloaded => "overloaded",
        /// The worker was overloaded: for three seconds, none of its timers had fired less than 0.5 s late.
        Late => "late",
    }
}

impl From<DecodeFailure> for Rejection {
    fn from(failure: DecodeFailure) -> Rejection {
        match failure {
            DecodeFailure::Coding(error) => Rejection::Decode(error),
            DecodeFailure::Memory => Rejection::Overloaded,
        }
    }
}

impl Rejection {
    /// The reason without details, for logs and counters.
    pub(crate) fn reason(&self) -> Reason {
        self.properties().0
    }

    pub(crate) fn status(&self) -> u16 {
        self.properties().1
    }

    /// The key of the request, if it was rejected because no inbound DSN has it.
    pub(crate) fn unknown_key(&self) -> Option<&RejectedKey> {
        match self {
            Rejection::BadKey(key) | Rejection::UnknownKey(key) => Some(key),
            _ => None,
        }
    }

    /// Whether the connection must be closed, because the start of the next request is unknown.
    pub(crate) fn closes_connection(&self) -> bool {
        self.properties().2 == Connection::Closed
    }

    #[rustfmt::skip]
    fn properties(&self) -> (Reason, u16, Connection) {
        use Connection::{Closed, Kept};
        match self {
            Rejection::Head(HeadError::TooLarge) => (Reason::HeadTooLarge, 431, Closed),
            Rejection::Head(HeadError::TooManyHeaders) => (Reason::TooManyHeaders, 431, Closed),
            Rejection::Head(HeadError::Malformed(_)) => (Reason::Head, 400, Closed),
            Rejection::Head(HeadError::Version) => (Reason::Head, 505, Closed),
            Rejection::Framing(_) => (Reason::Framing, 400, Closed),
            Rejection::Chunk(ChunkError::Malformed(_)) => (Reason::Chunk, 400, Closed),
            Rejection::Chunk(ChunkError::TooLarge) => (Reason::BodyTooLarge, 413, Closed),
            Rejection::PlainHttp => (Reason::PlainHttp, 400, Closed),
            Rejection::HeadTimeout => (Reason::HeadTimeout, 408, Closed),
            Rejection::BodyTimeout => (Reason::BodyTimeout, 408, Closed),
            Rejection::BodyTooLarge => (Reason::BodyTooLarge, 413, Kept),
            Rejection::Encoding => (Reason::Encoding, 415, Kept),
            Rejection::Decode(DecodeError::TooLarge) => (Reason::DecodedTooLarge, 413, Kept),
            Rejection::Decode(DecodeError::Corrupt | DecodeError::Truncated) => (Reason::Decode, 400, Kept),
            Rejection::Auth(AuthError::Multiple | AuthError::Unparsable) => (Reason::Auth, 401, Kept),
            Rejection::Auth(AuthError::BadVersion) => (Reason::Auth, 400, Kept),
            Rejection::NoKey => (Reason::NoKey, 401, Kept),
            Rejection::NoEnvelopeKey => (Reason::NoEnvelopeKey, 401, Kept),
            Rejection::BadKey(_) => (Reason::BadKey, 400, Kept),
            Rejection::UnknownKey(_) => (Reason::UnknownKey, 403, Kept),
            Rejection::BadProject => (Reason::BadProject, 400, Kept),
            Rejection::Envelope(_) => (Reason::Envelope, 400, Kept),
            Rejection::Method(_) => (Reason::Method, 405, Kept),
            Rejection::NotFound => (Reason::NotFound, 404, Kept),
            Rejection::UrlTooLong => (Reason::UrlTooLong, 414, Kept),
            Rejection::Loop => (Reason::Loop, 508, Kept),
            Rejection::Overloaded => (Reason::Overloaded, 503, Kept),
            Rejection::Late => (Reason::Late, 503, Kept),
        }
    }
}

/// The effect of a rejection on the connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Connection {
    Kept,
    Closed,
}

impl std::error::Error for Rejection {}

/// The `detail` of the reply's JSON.
impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rejection::Head(error) => write!(f, "invalid request head: {error}"),
            Rejection::Framing(error) => write!(f, "invalid request framing: {error}"),
            Rejection::Chunk(error) => write!(f, "invalid chunked body: {error}"),
            Rejection::PlainHttp => f.write_str("plain HTTP request sent to a port for HTTPS"),
            Rejection::HeadTimeout => f.write_str("request head not received in time"),
            Rejection::BodyTimeout => f.write_str("request body not received in time"),
            Rejection::BodyTooLarge => f.write_str("request body length limit exceeded"),
            Rejection::Encoding => f.write_str(
                "unsupported content encoding, expected zstd, gzip, deflate, br or identity",
            ),
            Rejection::Decode(error) => write!(f, "failed to decode the request body: {error}"),
            Rejection::Auth(error) => error.fmt(f),
            Rejection::NoKey => f.write_str("missing authorization information"),
            Rejection::NoEnvelopeKey => f.write_str("bad envelope authentication header"),
            Rejection::BadKey(_) => f.write_str("bad sentry DSN public key"),
            Rejection::UnknownKey(_) => f.write_str(
                "event submission rejected with_reason: the mirror has no route for this key",
            ),
            Rejection::BadProject => f.write_str("bad project path parameter"),
            Rejection::Envelope(error) => write!(f, "invalid event envelope: {error}"),
            Rejection::Method(endpoint) => {
                write!(
                    f,
                    "method not allowed, expected {}",
                    endpoint.allow_header()
                )
            }
            Rejection::NotFound => f.write_str("not found"),
            Rejection::UrlTooLong => f.write_str("the URL is too long for the crash-report dialog"),
            Rejection::Loop => {
                f.write_str("loop detected: this request has been through this mirror before")
            }
            Rejection::Overloaded | Rejection::Late => f.write_str("the mirror is overloaded"),
        }
    }
}
