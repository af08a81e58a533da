//! The response of an upstream, as far as it can be passed on to the SDK.
//!
//! A large response holds a permit of the memory budget for as long as any copy of it lives, so that many
//! slow readers of large responses cannot take more than the budget.

use std::fmt;
use std::rc::Rc;
use std::time::SystemTime;

use bytes::Bytes;

use crate::http::head::HeaderName;
use crate::runtime::memory_budget::MemoryReservation;
use crate::sentry::rate_limits;

/// It is moved often, so it is kept small: headers that few responses have are boxed.
#[derive(Clone, Debug, Default)]
pub struct Response {
    pub status: u16,
    pub content_type: Option<Bytes>,
    /// The body, without any transfer coding.
    pub body: Bytes,
    pub memory: MemoryPermit,
    rare_headers: Option<Box<RareHeaders>>,
}

/// Headers that few responses have. If a header occurs several times, the first one counts, except in a
/// list.
#[derive(Clone, Debug, Default)]
pub struct RareHeaders {
    /// Rare because requests do not accept any.
    pub content_encoding: Option<Bytes>,
    /// All lines of `X-Sentry-Rate-Limits` as one list.
    pub rate_limits: Option<Bytes>,
    pub retry_after: Option<Bytes>,
    /// The value of `retry_after` in seconds from when it was received.
    pub retry_after_seconds: Option<u32>,
    pub sentry_error: Option<Bytes>,
}

static NO_RARE_HEADERS: RareHeaders = RareHeaders {
    content_encoding: None,
    rate_limits: None,
    retry_after: None,
    retry_after_seconds: None,
    sentry_error: None,
};

impl Response {
    pub fn with_status(status: u16) -> Response {
        Response {
            status,
            ..Response::default()
        }
    }

    /// Where the value of a header is kept; `None` if it is not kept.
    pub(crate) fn header_mut(&mut self, name: HeaderName) -> Option<&mut Option<Bytes>> {
        Some(match name {
            HeaderName::ContentType => &mut self.content_type,
            HeaderName::ContentEncoding => &mut self.rare_headers_mut().content_encoding,
            HeaderName::XSentryRateLimits => &mut self.rare_headers_mut().rate_limits,
            HeaderName::RetryAfter => &mut self.rare_headers_mut().retry_after,
            HeaderName::XSentryError => &mut self.rare_headers_mut().sentry_error,
            _ => return None,
        })
    }

    /// Reads `retry_after`, once all headers are there.
    pub(crate) fn parse_retry_after(&mut self) {
        if let Some(value) = &self.rare_headers().retry_after {
            let seconds = rate_limits::parse_retry_after(value, SystemTime::now());
            self.rare_headers_mut().retry_after_seconds = seconds;
        }
    }

    pub fn rare_headers(&self) -> &RareHeaders {
        self.rare_headers.as_deref().unwrap_or(&NO_RARE_HEADERS)
    }

    pub fn rare_headers_mut(&mut self) -> &mut RareHeaders {
        self.rare_headers.get_or_insert_default()
    }
}

/// A reservation in the memory budget that lives as long as any copy of a response.
#[derive(Clone, Default)]
pub struct MemoryPermit(Option<Rc<MemoryReservation>>);

impl MemoryPermit {
    pub fn new(reservation: MemoryReservation) -> MemoryPermit {
        MemoryPermit(Some(Rc::new(reservation)))
    }
}

impl fmt::Debug for MemoryPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.as_ref().map_or(0, |reservation| reservation.bytes());
        write!(f, "{bytes} bytes")
    }
}
