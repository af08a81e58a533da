//! What an upstream answered, as far as the SDK can be told of it. A large answer holds its share of the
//! memory budget for as long as any copy of it lives, so that many slow readers of large answers cannot
//! take more than the budget.

use std::fmt;
use std::rc::Rc;

use bytes::Bytes;

use crate::budget::Reservation;

/// What an upstream answered, as far as it matters to the SDK. It passes through many hands, so it is
/// kept small: what few responses have lies apart.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// The final status code.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: Option<Bytes>,
    /// The body, without any transfer coding.
    pub body: Bytes,
    /// What a large one takes of the memory budget.
    pub memory: MemoryPermit,
    rare_headers: Option<Box<RareHeaders>>,
}

/// The headers that few responses have. A value is that of the first line of its name, unless the name is
/// that of a list.
#[derive(Clone, Debug, Default)]
pub struct RareHeaders {
    /// `Content-Encoding`; none is asked for, so this is rare.
    pub content_encoding: Option<Bytes>,
    /// `X-Sentry-Rate-Limits`, all lines of it as one list.
    pub rate_limits: Option<Bytes>,
    /// `Retry-After`.
    pub retry_after: Option<Bytes>,
    /// The seconds that it said when it was received.
    pub retry_after_seconds: Option<u32>,
    /// `X-Sentry-Error`.
    pub sentry_error: Option<Bytes>,
}

/// Those of a response with none.
static NO_RARE_HEADERS: RareHeaders = RareHeaders {
    content_encoding: None,
    rate_limits: None,
    retry_after: None,
    retry_after_seconds: None,
    sentry_error: None,
};

impl Response {
    /// A response with nothing but a status.
    pub fn with_status(status: u16) -> Response {
        Response {
            status,
            ..Response::default()
        }
    }

    /// The headers that few responses have.
    pub fn rare_headers(&self) -> &RareHeaders {
        self.rare_headers.as_deref().unwrap_or(&NO_RARE_HEADERS)
    }

    /// The same, to be filled in.
    pub fn rare_headers_mut(&mut self) -> &mut RareHeaders {
        self.rare_headers.get_or_insert_default()
    }
}

/// A reservation in the memory budget that lives as long as any copy of a response. It says nothing about
/// the response, so all are equal.
#[derive(Clone, Default)]
pub struct MemoryPermit(Option<Rc<Reservation>>);

impl MemoryPermit {
    /// Keeps `reservation` for as long as the response.
    pub fn new(reservation: Reservation) -> MemoryPermit {
        MemoryPermit(Some(Rc::new(reservation)))
    }
}

impl fmt::Debug for MemoryPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.as_ref().map_or(0, |share| share.bytes());
        write!(f, "{bytes} bytes")
    }
}
