//! Header lines, which requests and responses have in common.
//!
//! httparse checks the syntax and returns slices of names and values. From where those begin follows the
//! [`Span`] of each name, value and line. Each name is classified once, here; one that this program has no
//! use for is [`HeaderName::Other`] and can still be read through its span.

use std::fmt;
use std::mem::MaybeUninit;

use crate::span::Span;

/// The maximum number of header lines, whatever the configuration allows. A slot takes 32 bytes of stack.
/// No SDK, browser or CDN sends 256; Relay's own limit is 100.
pub(super) const HEADER_COUNT_MAX: usize = 256;

/// Where httparse writes its headers. Uninitialised, since clearing it would cost more than parsing.
pub(super) type Slots<'b> = [MaybeUninit<httparse::Header<'b>>; HEADER_COUNT_MAX];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// The connection closes after the exchange, unless `Connection: keep-alive` says otherwise.
    Http10,
    /// The connection stays open, unless `Connection: close` says otherwise.
    #[default]
    Http11,
}

impl Version {
    pub(super) fn from_minor(minor: Option<u8>) -> Version {
        if minor == Some(0) {
            Version::Http10
        } else {
            Version::Http11
        }
    }
}

/// A header line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub name: HeaderName,
    /// The name as the sender wrote it.
    pub name_span: Span,
    /// The value, without surrounding white space.
    pub value: Span,
    /// The whole line including its line end, CRLF or a bare LF.
    pub line: Span,
}

/// The set of header names in a message: one bit for each name.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HeaderNames(u32);

impl HeaderNames {
    pub(super) fn from_headers(headers: &[Header]) -> HeaderNames {
        let bits = headers.iter().map(|header| HeaderNames::bit(header.name));
        HeaderNames(bits.fold(0, |names, bit| names | bit))
    }

    pub(super) const fn contains(self, name: HeaderName) -> bool {
        self.0 & HeaderNames::bit(name) != 0
    }

    /// The lines to search for `name`: all `headers`, or none if the set does not contain `name`. Each request
    /// is searched for a dozen names, and has few of them.
    pub(super) fn candidates(self, name: HeaderName, headers: &[Header]) -> &[Header] {
        match self.contains(name) {
            true => headers,
            false => &[],
        }
    }

    const fn bit(name: HeaderName) -> u32 {
        1 << name as u32
    }
}

/// The header names that this program acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderName {
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
    /// Any other header in which proxies pass the client's address: those that Relay reads before
    /// `X-Forwarded-For`, and the usual ones of other servers. `http::forwarded` tells those apart that
    /// `client_address.field` may name.
    ClientAddress,
    XForwardedProto,
    XSentryRateLimits,
    XSentryError,
    RetryAfter,
    Via,
    Other,
}

impl HeaderName {
    /// Classifies a name, ignoring case (RFC 9110 §5.1).
    pub fn parse(name: &[u8]) -> HeaderName {
        use HeaderName::*;
        // The length leaves at most three candidates, and none for most headers of a browser. The rarer fields
        // with addresses are compared last, so that the others do not wait for them.
        match name.len() {
            2 => find(name, [(b"te", Te)]),
            3 => find(name, [(b"via", Via)]),
            4 => find(name, [(b"host", Host)]),
            6 => find(name, [(b"cookie", Cookie), (b"expect", Expect)]),
            7 => find(name, [(b"trailer", Trailer), (b"upgrade", Upgrade)]),
            9 => find(
                name,
                [(b"forwarded", ClientAddress), (b"x-real-ip", ClientAddress)],
            ),
            10 => find(
                name,
                [(b"connection", Connection), (b"keep-alive", KeepAlive)],
            ),
            11 => find(name, [(b"retry-after", RetryAfter)]).or_address(name),
            12 => find(name, [(b"content-type", ContentType)]),
            13 => find(
                name,
                [
                    (b"x-sentry-auth", XSentryAuth),
                    (b"authorization", Authorization),
                ],
            )
            .or_address(name),
            14 => find(
                name,
                [
                    (b"content-length", ContentLength),
                    (b"x-sentry-error", XSentryError),
                    (b"true-client-ip", ClientAddress),
                ],
            )
            .or_address(name),
            15 => find(
                name,
                [
                    (b"accept-encoding", AcceptEncoding),
                    (b"x-forwarded-for", XForwardedFor),
                ],
            ),
            16 => find(
                name,
                [
                    (b"content-encoding", ContentEncoding),
                    (b"proxy-connection", ProxyConnection),
                    (b"cf-connecting-ip", ClientAddress),
                ],
            )
            .or_address(name),
            17 => find(
                name,
                [
                    (b"transfer-encoding", TransferEncoding),
                    (b"x-forwarded-proto", XForwardedProto),
                ],
            ),
            18 => find(name, [(b"proxy-authenticate", ProxyAuthenticate)]).or_address(name),
            19 => find(name, [(b"proxy-authorization", ProxyAuthorization)]).or_address(name),
            20 => find(name, [(b"x-sentry-rate-limits", XSentryRateLimits)]),
            22 => find(
                name,
                [
                    (b"x-sentry-forwarded-for", ClientAddress),
                    (b"x-vercel-forwarded-for", ClientAddress),
                ],
            ),
            24 | 25 => Other.or_address(name),
            _ => Other,
        }
    }

    /// `ClientAddress` instead of `Other` if `name` is one of the rarer fields. Browsers send many fields of the same
    /// lengths, which begin with `Sec-`.
    fn or_address(self, name: &[u8]) -> HeaderName {
        if self != HeaderName::Other || matches!(name, [b's' | b'S', ..]) {
            return self;
        }
        match name.len() {
            11 => address(name, [b"x-client-ip", b"x-forwarded"]),
            13 => address(name, [b"fly-client-ip", b"forwarded-for"]),
            14 => address(name, [b"cf-pseudo-ipv4", b"x-proxyuser-ip"]),
            16 => address(
                name,
                [
                    b"do-connecting-ip",
                    b"fastly-client-ip",
                    b"x-azure-clientip",
                    b"x-azure-socketip",
                ],
            ),
            18 => address(name, [b"cf-connecting-ipv6"]),
            19 => address(name, [b"x-appengine-user-ip", b"x-cluster-client-ip"]),
            24 => address(
                name,
                [b"x-envoy-external-address", b"x-original-forwarded-for"],
            ),
            25 => address(
                name,
                [b"cloudfront-viewer-address", b"x-nf-client-connection-ip"],
            ),
            _ => self,
        }
    }
}

/// `ClientAddress` if `name` is one of these in any case, or else `Other`.
fn address<const LEN: usize, const COUNT: usize>(
    name: &[u8],
    fields: [&[u8; LEN]; COUNT],
) -> HeaderName {
    find(name, fields.map(|field| (field, HeaderName::ClientAddress)))
}

/// The candidate whose name equals `name` in any case, or else `Other`. The length is known at compile time,
/// so each comparison is of the whole name at once instead of byte by byte.
fn find<const LEN: usize, const COUNT: usize>(
    name: &[u8],
    candidates: [(&[u8; LEN], HeaderName); COUNT],
) -> HeaderName {
    let Ok(name) = <&[u8; LEN]>::try_from(name) else {
        return HeaderName::Other;
    };
    let mut lower = padded(name);
    lower.make_ascii_lowercase();
    let known = candidates.iter().find(|(known, _)| padded(known) == lower);
    known.map_or(HeaderName::Other, |(_, header)| *header)
}

/// Pads a name with zeros to the width of a vector register; 13 bytes would be compared one by one.
fn padded<const LEN: usize>(name: &[u8; LEN]) -> [u8; 32] {
    let mut padded = [0; 32];
    if let Some(start) = padded.first_chunk_mut() {
        *start = *name;
    }
    padded
}

/// How much of a head is in the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    Complete,
    Partial,
}

/// A malformed or oversized head. The connection cannot be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// A syntax error by RFC 9112, and where it is.
    Malformed(&'static str),
    /// Over `limits.head_bytes`, for a request.
    TooLarge,
    /// Over `limits.header_count`, for a request.
    TooManyHeaders,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    Version,
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HeadError::Malformed(text) => text,
            HeadError::TooLarge => "the message head is too long",
            HeadError::TooManyHeaders => "too many header lines",
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
            httparse::Error::TooManyHeaders => HeadError::TooManyHeaders,
            httparse::Error::Version => HeadError::Version,
        }
    }
}

/// Where the first line begins. Empty lines before a message are skipped (RFC 9112 §2.2).
pub(super) fn first_line(buffer: &[u8]) -> usize {
    buffer
        .iter()
        .position(|byte| !matches!(byte, b'\r' | b'\n'))
        .unwrap_or(buffer.len())
}

/// Appends the spans of the headers that httparse `parsed` in `head`. A line ends where the next one begins,
/// the last at the blank line: httparse rejects folded lines.
pub(super) fn locate(parsed: &[httparse::Header<'_>], head: &[u8], headers: &mut Vec<Header>) {
    let start_of = |header: &httparse::Header<'_>| offset(header.name.as_bytes(), head);
    let blank_line = blank_line(head);
    headers.extend(parsed.iter().enumerate().map(|(index, header)| {
        let start = start_of(header);
        let end = parsed.get(index + 1).map_or(blank_line, start_of);
        let name_span = Span::new(start, start + header.name.len());
        let value_start = match header.value {
            [] => after_padding(name_span.end + 1, head),
            value => offset(value, head),
        };
        Header {
            name: HeaderName::parse(header.name.as_bytes()),
            name_span,
            value: Span::new(value_start, value_start + header.value.len()),
            line: Span::new(start, end),
        }
    }));
}

/// Where the blank line begins that ends `head`, CRLF or a bare LF.
pub(super) fn blank_line(head: &[u8]) -> usize {
    head.len() - if head.ends_with(b"\r\n") { 2 } else { 1 }
}

/// The position of `part`, a slice of `head`.
fn offset(part: &[u8], head: &[u8]) -> usize {
    part.as_ptr().addr() - head.as_ptr().addr()
}

/// The position of the first byte at or after `start` that is neither a space nor a tab.
fn after_padding(start: usize, head: &[u8]) -> usize {
    let rest = head.get(start..).unwrap_or_default();
    let is_padding = |byte: &&u8| matches!(byte, b' ' | b'\t');
    start + rest.iter().take_while(is_padding).count()
}

/// The values of all lines called `name`, in order.
pub(super) fn values<'b>(
    headers: &[Header],
    name: HeaderName,
    buffer: &'b [u8],
) -> impl Iterator<Item = &'b [u8]> {
    let named = headers.iter().filter(move |header| header.name == name);
    named.map(move |header| header.value.slice(buffer))
}

/// Whether the sender keeps the connection open (RFC 9112 §9.3). `close` wins over `keep-alive`.
pub(super) fn keep_alive(version: Version, headers: &[Header], buffer: &[u8]) -> bool {
    !connection_lists(headers, b"close", buffer)
        && match version {
            Version::Http11 => true,
            Version::Http10 => connection_lists(headers, b"keep-alive", buffer),
        }
}

/// Whether a `Connection` header lists `token`, ignoring case (RFC 9110 §7.6.1).
pub(super) fn connection_lists(headers: &[Header], token: &[u8], buffer: &[u8]) -> bool {
    values(headers, HeaderName::Connection, buffer)
        .flat_map(|value| value.split(|byte| *byte == b','))
        .any(|listed| listed.trim_ascii().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_is_classified_in_any_case() {
        let known = [
            ("Authorization", HeaderName::Authorization),
            ("X-Sentry-Auth", HeaderName::XSentryAuth),
            ("Cookie", HeaderName::Cookie),
            ("Host", HeaderName::Host),
            ("Content-Length", HeaderName::ContentLength),
            ("Content-Encoding", HeaderName::ContentEncoding),
            ("Content-Type", HeaderName::ContentType),
            ("Transfer-Encoding", HeaderName::TransferEncoding),
            ("Connection", HeaderName::Connection),
            ("Keep-Alive", HeaderName::KeepAlive),
            ("Proxy-Connection", HeaderName::ProxyConnection),
            ("Proxy-Authorization", HeaderName::ProxyAuthorization),
            ("Proxy-Authenticate", HeaderName::ProxyAuthenticate),
            ("TE", HeaderName::Te),
            ("Trailer", HeaderName::Trailer),
            ("Upgrade", HeaderName::Upgrade),
            ("Expect", HeaderName::Expect),
            ("Accept-Encoding", HeaderName::AcceptEncoding),
            ("X-Forwarded-For", HeaderName::XForwardedFor),
            ("Forwarded", HeaderName::ClientAddress),
            ("X-Real-IP", HeaderName::ClientAddress),
            ("True-Client-IP", HeaderName::ClientAddress),
            ("CF-Connecting-IP", HeaderName::ClientAddress),
            ("X-Sentry-Forwarded-For", HeaderName::ClientAddress),
            ("X-Vercel-Forwarded-For", HeaderName::ClientAddress),
            ("CF-Connecting-IPv6", HeaderName::ClientAddress),
            ("CF-Pseudo-IPv4", HeaderName::ClientAddress),
            ("CloudFront-Viewer-Address", HeaderName::ClientAddress),
            ("DO-Connecting-IP", HeaderName::ClientAddress),
            ("Fastly-Client-IP", HeaderName::ClientAddress),
            ("Fly-Client-IP", HeaderName::ClientAddress),
            ("Forwarded-For", HeaderName::ClientAddress),
            ("X-Appengine-User-IP", HeaderName::ClientAddress),
            ("X-Azure-ClientIP", HeaderName::ClientAddress),
            ("X-Azure-SocketIP", HeaderName::ClientAddress),
            ("X-Client-IP", HeaderName::ClientAddress),
            ("X-Cluster-Client-IP", HeaderName::ClientAddress),
            ("X-Envoy-External-Address", HeaderName::ClientAddress),
            ("X-Forwarded", HeaderName::ClientAddress),
            ("X-Nf-Client-Connection-Ip", HeaderName::ClientAddress),
            ("X-Original-Forwarded-For", HeaderName::ClientAddress),
            ("X-ProxyUser-Ip", HeaderName::ClientAddress),
            ("X-Forwarded-Proto", HeaderName::XForwardedProto),
            ("X-Sentry-Rate-Limits", HeaderName::XSentryRateLimits),
            ("X-Sentry-Error", HeaderName::XSentryError),
            ("Retry-After", HeaderName::RetryAfter),
            ("Via", HeaderName::Via),
        ];
        for (name, header) in known {
            assert_eq!(HeaderName::parse(name.as_bytes()), header, "{name}");
            assert_eq!(HeaderName::parse(name.to_lowercase().as_bytes()), header);
            assert_eq!(HeaderName::parse(name.to_uppercase().as_bytes()), header);
            let underscored = name.replace('-', "_");
            if underscored != name {
                assert_eq!(HeaderName::parse(underscored.as_bytes()), HeaderName::Other);
            }
        }
        for name in ["", "x", "hosts", "user-agent", "x-sentry-auth2", "origin"] {
            assert_eq!(
                HeaderName::parse(name.as_bytes()),
                HeaderName::Other,
                "{name}"
            );
        }
    }
}
