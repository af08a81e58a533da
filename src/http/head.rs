//! The head of a request: request line and header lines, as spans of the buffer they were read into.
//!
//! httparse parses the syntax, with SIMD and without copying. This file turns its slices into spans, classifies
//! names and method, and adds what httparse leaves to its caller: the bounds and the rule on `Host`. A
//! [`RequestHead`] is refilled for one request after the other, so parsing allocates nothing once its list has grown.
//!
//! Where one kind of SDK sends most requests, their heads differ only in values. So a head is first compared with the
//! one that was parsed into the same [`RequestHead`] before, which may have come over another connection.
//!
//! A growing buffer is parsed from its start each time; [`ReparseGate`](super::reparse::ReparseGate) decides when.
//! Nearly every head of an SDK arrives in one read.

use std::mem::{self, MaybeUninit};

use memchr::memchr;

pub(crate) use super::header::{HeadError, Version};
pub use super::header::{Header, HeaderName, Parsed};

use super::header::{self, HeaderNames, Slots};
use super::known_head::KnownHead;
use crate::span::Span;

const BAD_TARGET: &str =
    "invalid request target: neither a path nor an http URL, or with a fragment";

/// A request method. Names are case-sensitive (RFC 9110 §9.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
    /// Any other method; its name is at [`RequestHead::method_span`].
    Other,
}

/// What [`RequestHead::parse`] accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of request line and header lines. Relay accepts URIs below 64 KiB and larger header
    /// blocks; browsers and CDNs stay below 16 KiB.
    pub bytes: usize,
    /// Header lines; the default is Relay's own limit.
    pub headers: usize,
}

impl Default for HeadLimits {
    fn default() -> HeadLimits {
        HeadLimits {
            bytes: 64 * 1024,
            headers: 100,
        }
    }
}

impl Method {
    fn parse(name: &str) -> Method {
        match name {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            "PUT" => Method::Put,
            "PATCH" => Method::Patch,
            "DELETE" => Method::Delete,
            "OPTIONS" => Method::Options,
            _ => Method::Other,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    pub method: Method,
    /// The name of the method. The request begins here: no span covers the empty lines that may come before it (RFC
    /// 9112 §2.2).
    pub method_span: Span,
    /// The request target: a path with a query, an absolute URI, or `*` for OPTIONS.
    pub target: Span,
    pub version: Version,
    pub version_span: Span,
    /// The header lines, in order.
    pub headers: Vec<Header>,
    /// The length of the head, including the blank line.
    pub len: usize,
    /// Whether any line ends in a bare LF.
    pub bare_lf: bool,
    names: HeaderNames,
    known: KnownHead,
}

impl RequestHead {
    /// Parses the head at the start of `buffer` into `self`. The fields are meaningful only if this returns
    /// [`Parsed::Complete`].
    pub fn parse(&mut self, buffer: &[u8], limits: HeadLimits) -> Result<Parsed, HeadError> {
        // No value has a meaning here, and `Host` cannot become another header.
        if self.known.recurs_in(buffer, &self.headers, |_| true)
            && self.len <= limits.bytes
            && self.headers.len() <= limits.headers
        {
            return Ok(Parsed::Complete);
        }
        let (mut headers, mut known) = (mem::take(&mut self.headers), mem::take(&mut self.known));
        headers.clear();
        known.forget();
        *self = RequestHead {
            headers,
            known,
            ..RequestHead::default()
        };

        let mut slots: Slots<'_> = [const { MaybeUninit::uninit() }; _];
        let slot_count = limits.headers.min(slots.len());
        let slots = slots.get_mut(..slot_count).unwrap_or_default();
        let mut request = httparse::Request::new(&mut []);
        let parsed = request.parse_with_uninit_headers(buffer, slots);
        let status = match parsed {
            Ok(status) => status,
            Err(error) => match head_error(error, buffer) {
                Some(error) => return Err(error),
                None => httparse::Status::Partial,
            },
        };
        match status {
            httparse::Status::Partial if buffer.len() >= limits.bytes => Err(HeadError::TooLarge),
            httparse::Status::Partial => Ok(Parsed::Partial),
            httparse::Status::Complete(len) if len > limits.bytes => Err(HeadError::TooLarge),
            httparse::Status::Complete(len) => {
                self.fill(&request, buffer.get(..len).unwrap_or_default());
                if !is_target(self.method, self.target.slice(buffer)) {
                    return Err(HeadError::Malformed(BAD_TARGET));
                }
                if self.values(HeaderName::Host, buffer).nth(1).is_some() {
                    // RFC 9112 §3.2. It may be missing: Relay accepts that, and nothing is routed by it.
                    return Err(HeadError::Malformed("more than one Host header"));
                }
                self.known.keep(buffer.get(..len).unwrap_or_default());
                Ok(Parsed::Complete)
            }
        }
    }

    /// Whether there is a header `name`.
    pub fn has(&self, name: HeaderName) -> bool {
        self.names.contains(name)
    }

    fn lines_with(&self, name: HeaderName) -> &[Header] {
        self.names.candidates(name, &self.headers)
    }

    /// The values of all headers `name`, in order.
    pub fn values<'b>(&self, name: HeaderName, buffer: &'b [u8]) -> impl Iterator<Item = &'b [u8]> {
        header::values(self.lines_with(name), name, buffer)
    }

    /// Whether the client keeps the connection open (RFC 9112 §9.3).
    pub fn keep_alive(&self, buffer: &[u8]) -> bool {
        let lines = self.lines_with(HeaderName::Connection);
        header::keep_alive(self.version, lines, buffer)
    }

    /// Whether the client waits for `100 Continue` before it sends the body. HTTP/1.0 clients cannot (RFC 9110
    /// §10.1.1).
    pub fn expects_continue(&self, buffer: &[u8]) -> bool {
        self.version == Version::Http11
            && self
                .values(HeaderName::Expect, buffer)
                .any(|value| value.eq_ignore_ascii_case(b"100-continue"))
    }

    /// Copies what httparse found in `head`.
    fn fill(&mut self, request: &httparse::Request<'_, '_>, head: &[u8]) {
        let method = request.method.unwrap_or_default();
        let target = request.path.unwrap_or_default();
        let start = header::first_line(head);
        // There is exactly one space between the three: httparse accepts no other request line.
        self.method = Method::parse(method);
        self.method_span = Span::new(start, start + method.len());
        self.target = Span::new(0, target.len()).shifted(self.method_span.end + 1);
        self.version = Version::from_minor(request.version);
        self.version_span = Span::new(0, "HTTP/1.1".len()).shifted(self.target.end + 1);
        self.len = head.len();

        header::locate(request.headers, head, &mut self.headers);
        self.names = HeaderNames::from_headers(&self.headers);
        let is_bare = |end: usize| !head.get(..end).unwrap_or_default().ends_with(b"\r\n");
        let first_line_end = self.headers.first().map(|header| header.line.start);
        self.bare_lf = is_bare(head.len())
            || is_bare(first_line_end.unwrap_or_else(|| header::blank_line(head)))
            || self.headers.iter().any(|header| is_bare(header.line.end));
    }
}

/// Converts the `error` of httparse for the head in `buffer`. httparse reports a wrong version also for lines that
/// are not HTTP at all, such as those of the PROXY protocol. `None` if what follows decides.
fn head_error(error: httparse::Error, buffer: &[u8]) -> Option<HeadError> {
    match error {
        httparse::Error::Version if !names_http(buffer)? => Some(httparse::Error::Token.into()),
        error => Some(error.into()),
    }
}

/// Whether the third word of the first line begins with `HTTP/`, in any case. `None` if too little of it has arrived.
fn names_http(buffer: &[u8]) -> Option<bool> {
    let line = buffer.get(header::first_line(buffer)..).unwrap_or_default();
    let Some(version) = line.splitn(3, |byte| *byte == b' ').nth(2) else {
        return Some(false);
    };
    match version.get(.."HTTP/".len()) {
        Some(name) => Some(name.eq_ignore_ascii_case(b"HTTP/")),
        None => memchr(b'\n', version).map(|_| false),
    }
}

/// Whether a target has one of the forms for servers in RFC 9112 §3.2: origin form, absolute form, or for OPTIONS
/// asterisk form. None of them has a fragment.
fn is_target(method: Method, target: &[u8]) -> bool {
    let has_form = target.starts_with(b"/")
        || is_absolute(target)
        || (method == Method::Options && target == b"*");
    has_form && memchr(b'#', target).is_none()
}

/// Whether a target is an HTTP URL with a host (RFC 9110 §4.2.1).
fn is_absolute(target: &[u8]) -> bool {
    let schemes: [&[u8]; 2] = [b"http://", b"https://"];
    schemes.iter().any(|scheme| {
        let start = target.get(..scheme.len());
        let next = target.get(scheme.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(scheme))
            && next.is_some_and(|next| !matches!(next, b'/' | b'?' | b':'))
    })
}

#[cfg(test)]
mod tests;
