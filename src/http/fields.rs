//! What the heads of requests and responses have in common: header lines, their names, their faults.
//!
//! httparse checks the syntax and tells names from values; it hands out slices, though, and keeps
//! nothing of the line around them. Where they begin says where the lines are, which gives every place
//! as a [`Span`]. A name is classified here, once, so that nobody compares header names a second time; a
//! name this program has no use for is [`FieldName::Other`] and can still be read through its span.

use std::fmt;
use std::mem::MaybeUninit;

use crate::span::Span;

/// The header lines that fit at most, whatever the configuration allows. A slot is 32 bytes of the
/// stack; 256 is beyond what any SDK, browser or CDN sends, and beyond Relay's own limit of 100.
pub(super) const FIELD_COUNT_MAX: usize = 256;

/// Room for httparse's headers, left uninitialised: clearing it would cost more than parsing.
pub(super) type Slots<'b> = [MaybeUninit<httparse::Header<'b>>; FIELD_COUNT_MAX];

/// A version of HTTP this program speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: a connection ends with its request, unless `Connection: keep-alive` says otherwise.
    Http10,
    /// HTTP/1.1: a connection is kept, unless `Connection: close` says otherwise.
    #[default]
    Http11,
}

impl Version {
    /// The version for httparse's minor version number.
    pub(super) fn of_minor(minor: Option<u8>) -> Version {
        if minor == Some(0) {
            Version::Http10
        } else {
            Version::Http11
        }
    }
}

/// A header line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Which header it is.
    pub name: FieldName,
    /// The name as it is written.
    pub name_span: Span,
    /// The value without the white space around it; it may be empty.
    pub value: Span,
    /// The whole line with its line end, which is CRLF or a bare LF.
    pub line: Span,
}

/// Which headers a message has, a bit for each name.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FieldNames(u32);

impl FieldNames {
    /// The names of these lines.
    pub(super) fn of(fields: &[Field]) -> FieldNames {
        let bits = fields.iter().map(|field| FieldNames::bit(field.name));
        FieldNames(bits.fold(0, |names, bit| names | bit))
    }

    /// Whether there is a line called so.
    pub(super) const fn contain(self, name: FieldName) -> bool {
        self.0 & FieldNames::bit(name) != 0
    }

    /// The lines of `fields`, whose names these are, among which those called `name` are: none if there
    /// are no such lines. That is most of what is asked for, a dozen times for each request.
    pub(super) fn lines_with(self, name: FieldName, fields: &[Field]) -> &[Field] {
        match self.contain(name) {
            true => fields,
            false => &[],
        }
    }

    const fn bit(name: FieldName) -> u32 {
        1 << name as u32
    }
}

/// The header names that mean something to this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Each other variant is the header of its name.
pub enum FieldName {
    Authorization,
    XSentryAuth,
    Cookie,
    Host,
    ContentLength,
    ContentEncoding,
    ContentType,
    TransferEncoding,
    Connection,
    KeepAlive,
    ProxyConnection,
    ProxyAuthorization,
    ProxyAuthenticate,
    Te,
    Trailer,
    Upgrade,
    Expect,
    AcceptEncoding,
    XForwardedFor,
    /// Another header in which proxies tell the address of the client: those that Relay looks at
    /// before `X-Forwarded-For`, and the usual ones of other servers.
    ClientAddress,
    XForwardedProto,
    XSentryRateLimits,
    XSentryError,
    RetryAfter,
    Via,
    /// Any other header.
    Other,
}

impl FieldName {
    /// Classifies a name, ignoring case (RFC 9110 §5.1).
    pub fn of(name: &[u8]) -> FieldName {
        // The length leaves at most three candidates, and none for most headers of a browser.
        match name.len() {
            2 => find(name, [(b"te", FieldName::Te)]),
            3 => find(name, [(b"via", FieldName::Via)]),
            4 => find(name, [(b"host", FieldName::Host)]),
            6 => find(
                name,
                [
                    (b"cookie", FieldName::Cookie),
                    (b"expect", FieldName::Expect),
                ],
            ),
            7 => find(
                name,
                [
                    (b"trailer", FieldName::Trailer),
                    (b"upgrade", FieldName::Upgrade),
                ],
            ),
            9 => find(
                name,
                [
                    (b"forwarded", FieldName::ClientAddress),
                    (b"x-real-ip", FieldName::ClientAddress),
                ],
            ),
            10 => find(
                name,
                [
                    (b"connection", FieldName::Connection),
                    (b"keep-alive", FieldName::KeepAlive),
                ],
            ),
            11 => find(name, [(b"retry-after", FieldName::RetryAfter)]),
            12 => find(name, [(b"content-type", FieldName::ContentType)]),
            13 => find(
                name,
                [
                    (b"x-sentry-auth", FieldName::XSentryAuth),
                    (b"authorization", FieldName::Authorization),
                ],
            ),
            14 => find(
                name,
                [
                    (b"content-length", FieldName::ContentLength),
                    (b"x-sentry-error", FieldName::XSentryError),
                    (b"true-client-ip", FieldName::ClientAddress),
                ],
            ),
            15 => find(
                name,
                [
                    (b"accept-encoding", FieldName::AcceptEncoding),
                    (b"x-forwarded-for", FieldName::XForwardedFor),
                ],
            ),
            16 => find(
                name,
                [
                    (b"content-encoding", FieldName::ContentEncoding),
                    (b"proxy-connection", FieldName::ProxyConnection),
                    (b"cf-connecting-ip", FieldName::ClientAddress),
                ],
            ),
            17 => find(
                name,
                [
                    (b"transfer-encoding", FieldName::TransferEncoding),
                    (b"x-forwarded-proto", FieldName::XForwardedProto),
                ],
            ),
            18 => find(
                name,
                [(b"proxy-authenticate", FieldName::ProxyAuthenticate)],
            ),
            19 => find(
                name,
                [(b"proxy-authorization", FieldName::ProxyAuthorization)],
            ),
            20 => find(
                name,
                [(b"x-sentry-rate-limits", FieldName::XSentryRateLimits)],
            ),
            22 => find(
                name,
                [
                    (b"x-sentry-forwarded-for", FieldName::ClientAddress),
                    (b"x-vercel-forwarded-for", FieldName::ClientAddress),
                ],
            ),
            _ => FieldName::Other,
        }
    }
}

/// The field of the one of `candidates` that `name` is. Names of a known length are compared as a whole,
/// without a branch per byte.
fn find<const LEN: usize, const COUNT: usize>(
    name: &[u8],
    candidates: [(&[u8; LEN], FieldName); COUNT],
) -> FieldName {
    let Ok(name) = <&[u8; LEN]>::try_from(name) else {
        return FieldName::Other;
    };
    let mut lower = padded(name);
    lower.make_ascii_lowercase();
    let known = candidates.iter().find(|(known, _)| padded(known) == lower);
    known.map_or(FieldName::Other, |(_, field)| *field)
}

/// A name with zeros behind it. Of this length it fills vectors, where one of 13 bytes would be taken
/// byte by byte.
fn padded<const LEN: usize>(name: &[u8; LEN]) -> [u8; 32] {
    let mut padded = [0; 32];
    if let Some(start) = padded.first_chunk_mut() {
        *start = *name;
    }
    padded
}

/// How far a head got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// It is all there.
    Complete,
    /// Its end is not in the buffer yet.
    Partial,
}

/// What is wrong with a head. The connection cannot be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// It breaks the syntax of RFC 9112; the text says where.
    Malformed(&'static str),
    /// It is longer than allowed: `limits.head_bytes` for a request.
    TooLarge,
    /// It has more header lines than allowed: `limits.header_count` for a request.
    TooManyFields,
    /// It is neither HTTP/1.0 nor HTTP/1.1.
    Version,
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HeadError::Malformed(text) => text,
            HeadError::TooLarge => "the message head is too long",
            HeadError::TooManyFields => "too many header lines",
            HeadError::Version => "neither HTTP/1.0 nor HTTP/1.1",
        })
    }
}

impl std::error::Error for HeadError {}

impl From<httparse::Error> for HeadError {
    fn from(error: httparse::Error) -> HeadError {
        match error {
            httparse::Error::HeaderName => HeadError::Malformed(
                "invalid header name: a space before the colon, a folded line or a byte that is no token",
            ),
            httparse::Error::HeaderValue => {
                HeadError::Malformed("invalid header value: a control byte or a bare CR")
            }
            httparse::Error::NewLine => HeadError::Malformed("invalid line end: a bare CR"),
            httparse::Error::Status => HeadError::Malformed("invalid status line"),
            httparse::Error::Token => HeadError::Malformed("invalid request line"),
            httparse::Error::TooManyHeaders => HeadError::TooManyFields,
            httparse::Error::Version => HeadError::Version,
        }
    }
}

/// The position of the first byte that is no line end: empty lines in front of a message are skipped
/// (RFC 9112 §2.2).
pub(super) fn first_line(buffer: &[u8]) -> usize {
    buffer
        .iter()
        .position(|byte| !matches!(byte, b'\r' | b'\n'))
        .unwrap_or(buffer.len())
}

/// Appends the places in `head` of the headers that httparse found there. Each begins a line, which ends
/// where the next begins, the last at the blank line: httparse knows no folded lines.
pub(super) fn locate(headers: &[httparse::Header<'_>], head: &[u8], fields: &mut Vec<Field>) {
    let start_of = |header: &httparse::Header<'_>| offset(header.name.as_bytes(), head);
    let blank_line = blank_line(head);
    fields.extend(headers.iter().enumerate().map(|(index, header)| {
        let start = start_of(header);
        let end = headers.get(index + 1).map_or(blank_line, start_of);
        let name_span = Span::new(start, start + header.name.len());
        let value_start = match header.value {
            [] => after_padding(name_span.end + 1, head),
            value => offset(value, head),
        };
        Field {
            name: FieldName::of(header.name.as_bytes()),
            name_span,
            value: Span::new(value_start, value_start + header.value.len()),
            line: Span::new(start, end),
        }
    }));
}

/// Where the blank line begins that ends `head`: with CRLF, or with a bare LF.
pub(super) fn blank_line(head: &[u8]) -> usize {
    head.len() - if head.ends_with(b"\r\n") { 2 } else { 1 }
}

/// Where `part` of `head` begins.
fn offset(part: &[u8], head: &[u8]) -> usize {
    part.as_ptr().addr() - head.as_ptr().addr()
}

/// The position of the first byte from `start` on that is neither a space nor a tab.
fn after_padding(start: usize, head: &[u8]) -> usize {
    let rest = head.get(start..).unwrap_or_default();
    let is_padding = |byte: &&u8| matches!(byte, b' ' | b'\t');
    start + rest.iter().take_while(is_padding).count()
}

/// The values of all lines called `name`, in order.
pub(super) fn values<'b>(
    fields: &[Field],
    name: FieldName,
    buffer: &'b [u8],
) -> impl Iterator<Item = &'b [u8]> {
    let named = fields.iter().filter(move |field| field.name == name);
    named.map(move |field| field.value.slice(buffer))
}

/// Whether the sender means to use the connection again (RFC 9112 §9.3). `close` wins over
/// `keep-alive` where both are said.
pub(super) fn keep_alive(version: Version, fields: &[Field], buffer: &[u8]) -> bool {
    !connection_lists(fields, b"close", buffer)
        && match version {
            Version::Http11 => true,
            Version::Http10 => connection_lists(fields, b"keep-alive", buffer),
        }
}

/// Whether a `Connection` header lists `token`, ignoring case (RFC 9110 §7.6.1).
pub(super) fn connection_lists(fields: &[Field], token: &[u8], buffer: &[u8]) -> bool {
    values(fields, FieldName::Connection, buffer)
        .flat_map(|value| value.split(|byte| *byte == b','))
        .any(|listed| listed.trim_ascii().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_is_classified_in_any_case() {
        let known = [
            ("Authorization", FieldName::Authorization),
            ("X-Sentry-Auth", FieldName::XSentryAuth),
            ("Cookie", FieldName::Cookie),
            ("Host", FieldName::Host),
            ("Content-Length", FieldName::ContentLength),
            ("Content-Encoding", FieldName::ContentEncoding),
            ("Content-Type", FieldName::ContentType),
            ("Transfer-Encoding", FieldName::TransferEncoding),
            ("Connection", FieldName::Connection),
            ("Keep-Alive", FieldName::KeepAlive),
            ("Proxy-Connection", FieldName::ProxyConnection),
            ("Proxy-Authorization", FieldName::ProxyAuthorization),
            ("Proxy-Authenticate", FieldName::ProxyAuthenticate),
            ("TE", FieldName::Te),
            ("Trailer", FieldName::Trailer),
            ("Upgrade", FieldName::Upgrade),
            ("Expect", FieldName::Expect),
            ("Accept-Encoding", FieldName::AcceptEncoding),
            ("X-Forwarded-For", FieldName::XForwardedFor),
            ("Forwarded", FieldName::ClientAddress),
            ("X-Real-IP", FieldName::ClientAddress),
            ("True-Client-IP", FieldName::ClientAddress),
            ("CF-Connecting-IP", FieldName::ClientAddress),
            ("X-Sentry-Forwarded-For", FieldName::ClientAddress),
            ("X-Vercel-Forwarded-For", FieldName::ClientAddress),
            ("X-Forwarded-Proto", FieldName::XForwardedProto),
            ("X-Sentry-Rate-Limits", FieldName::XSentryRateLimits),
            ("X-Sentry-Error", FieldName::XSentryError),
            ("Retry-After", FieldName::RetryAfter),
            ("Via", FieldName::Via),
        ];
        for (name, field) in known {
            assert_eq!(FieldName::of(name.as_bytes()), field, "{name}");
            assert_eq!(FieldName::of(name.to_lowercase().as_bytes()), field);
            assert_eq!(FieldName::of(name.to_uppercase().as_bytes()), field);
            let underscored = name.replace('-', "_");
            if underscored != name {
                assert_eq!(FieldName::of(underscored.as_bytes()), FieldName::Other);
            }
        }
        for name in ["", "x", "hosts", "user-agent", "x-sentry-auth2", "origin"] {
            assert_eq!(FieldName::of(name.as_bytes()), FieldName::Other, "{name}");
        }
    }
}
