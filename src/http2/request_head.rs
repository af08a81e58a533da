//! Makes a header block from the head of a request that was rendered for HTTP/1.1.
//!
//! Rendering is the only place where outbound bytes are made, so what is sent over HTTP/2 is read from its result, as a
//! server would read it.

use super::hpack::encoder::{self, Secrecy};
use crate::http::head::{HeadLimits, HeaderName, Method, Parsed, RequestHead};

/// What RFC 9113 §6.5.2 adds to the length of each field.
const FIELD_OVERHEAD: usize = 32;

/// The indices of the static table for pseudo-header fields.
const AUTHORITY: usize = 1;
const METHOD: usize = 2;
const GET: usize = 2;
const POST: usize = 3;
const PATH: usize = 4;
const SCHEME_HTTP: usize = 6;
const SCHEME_HTTPS: usize = 7;

/// The bounds of the parser apply: what the mirror renders is its own.
const LIMITS: HeadLimits = HeadLimits {
    bytes: usize::MAX,
    headers: usize::MAX,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Encoded {
    /// The length of the head that was encoded; the body follows it.
    pub(super) head_bytes: usize,
    /// The length of the header list, by the count of RFC 9113 §6.5.2.
    pub(super) list_bytes: usize,
    /// Whether the method is HEAD, so that the response has no body.
    pub(super) is_head: bool,
}

/// Appends the header block for the head at the start of `rendered` to `out`. `None` if it is no head that HTTP/2 can
/// carry. `parser` is reused for its memory.
pub(super) fn encode(
    rendered: &[u8],
    is_https: bool,
    parser: &mut RequestHead,
    out: &mut Vec<u8>,
) -> Option<Encoded> {
    if parser.parse(rendered, LIMITS) != Ok(Parsed::Complete) {
        return None;
    }
    let authority = parser.values(HeaderName::Host, rendered).next()?;
    let target = parser.target.slice(rendered);
    if !target.starts_with(b"/") && target != b"*" {
        return None;
    }
    let method = parser.method_span.slice(rendered);
    match parser.method {
        Method::Get => encoder::append_indexed(out, GET),
        Method::Post => encoder::append_indexed(out, POST),
        _ => encoder::append_with_index(out, METHOD, method),
    }
    encoder::append_indexed(out, if is_https { SCHEME_HTTPS } else { SCHEME_HTTP });
    encoder::append_with_index(out, AUTHORITY, authority);
    encoder::append_with_index(out, PATH, target);
    // The names of the four above have 10, 7, 5 and 7 bytes, and the scheme at most 5.
    let mut list_bytes = method.len() + authority.len() + target.len() + 34 + 4 * FIELD_OVERHEAD;
    for header in &parser.headers {
        let secrecy = match header.name {
            HeaderName::Host
            | HeaderName::Connection
            | HeaderName::KeepAlive
            | HeaderName::ProxyConnection
            | HeaderName::Te
            | HeaderName::TransferEncoding
            | HeaderName::Upgrade => continue,
            HeaderName::Authorization | HeaderName::XSentryAuth | HeaderName::Cookie => {
                Secrecy::Secret
            }
            _ => Secrecy::Plain,
        };
        let (name, value) = (
            header.name_span.slice(rendered),
            header.value.slice(rendered),
        );
        list_bytes += name.len() + value.len() + FIELD_OVERHEAD;
        encoder::append(out, name, value, secrecy);
    }
    Some(Encoded {
        head_bytes: parser.len,
        list_bytes,
        is_head: parser.method == Method::Head,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode_text(rendered: &str) -> Option<(Encoded, Vec<(String, String)>)> {
        let mut block = Vec::new();
        let mut parser = RequestHead::default();
        let encoded = encode(rendered.as_bytes(), true, &mut parser, &mut block)?;
        let decoded = fluke_hpack::Decoder::new().decode(&block).unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let fields = decoded
            .into_iter()
            .map(|(name, value)| (text(name), text(value)));
        Some((encoded, fields.collect()))
    }

    #[test]
    fn a_rendered_request_keeps_its_fields_in_order() {
        let head = "POST /api/1/envelope/?a=b HTTP/1.1\r\n\
            User-Agent: x\r\nHost: sentry.example.com:9000\r\nX-Sentry-Auth: Sentry sentry_key=k\r\n\
            Connection: keep-alive\r\nKeep-Alive: 1\r\nTE: trailers\r\nUpgrade: h2c\r\n\
            Transfer-Encoding: chunked\r\nProxy-Connection: x\r\n\
            Empty:\r\nVia: 1.1 sentry-mirror-abc\r\nContent-Length: 2\r\n\r\n";
        let (encoded, fields) = encode_text(&format!("{head}{{}}")).unwrap();
        let expected = [
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", "sentry.example.com:9000"),
            (":path", "/api/1/envelope/?a=b"),
            ("user-agent", "x"),
            ("x-sentry-auth", "Sentry sentry_key=k"),
            ("empty", ""),
            ("via", "1.1 sentry-mirror-abc"),
            ("content-length", "2"),
        ];
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| (&name[..], &value[..]))
            .collect();
        assert_eq!(fields, expected);
        let list_bytes: usize = expected
            .iter()
            .map(|(name, value)| name.len() + value.len() + 32)
            .sum();
        let expected = Encoded {
            head_bytes: head.len(),
            list_bytes,
            is_head: false,
        };
        assert_eq!(encoded, expected);
    }

    #[test]
    fn any_method_is_kept() {
        for method in ["GET", "HEAD", "OPTIONS", "PURGE"] {
            let head = format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n");
            let (encoded, fields) = encode_text(&head).unwrap();
            assert_eq!(fields[0], (":method".to_owned(), method.to_owned()));
            assert_eq!(encoded.is_head, method == "HEAD");
        }
    }

    #[test]
    fn what_http_2_cannot_carry_is_refused() {
        for head in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n",
            "",
        ] {
            assert!(encode_text(head).is_none(), "{head}");
        }
    }
}
