//! The length of a body (RFC 9112 §6.3).
//!
//! Request smuggling happens here: two parsers that disagree on the length of a body disagree on where the next
//! request begins. So everything ambiguous is an error and closes the connection, even where the RFC lets a recipient
//! repair it. No SDK needs that leniency. SDKs do need one rule: a POST that declares no length has no body (the TUS
//! upload of sentry-native 0.16).

use std::fmt;

use super::head::{Method, RequestHead};
use super::header::{HeaderName, Version};
use super::response::ResponseHead;

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    Empty,
    /// After this number of bytes, which may be 0.
    Length(usize),
    /// With the last chunk.
    Chunked,
    /// With the connection, for a response only.
    UntilClose,
}

/// The framing of a request's body.
pub fn for_request(head: &RequestHead, buffer: &[u8]) -> Result<Framing, FramingError> {
    let declared = declared(head.version, |name| head.values(name, buffer))?;
    Ok(declared.unwrap_or(Framing::Empty))
}

/// The framing of a response's body, for a request sent with `request_method`.
pub fn for_response(
    head: &ResponseHead,
    buffer: &[u8],
    request_method: Method,
) -> Result<Framing, FramingError> {
    // No body, whatever the headers declare: the response to HEAD has the headers of one to GET.
    if request_method == Method::Head || matches!(head.status, 100..=199 | 204 | 304) {
        return Ok(Framing::Empty);
    }
    let declared = declared(head.version, |name| head.values(name, buffer))?;
    Ok(declared.unwrap_or(Framing::UntilClose))
}

/// Whether a response declares a body although its status or the request method excludes one. A server must not with a
/// 204 (RFC 9110 §8.6, RFC 9112 §6.1), and may with a 304 and in response to HEAD. Such a server may send that body.
pub(crate) fn declares_absent_body(
    head: &ResponseHead,
    buffer: &[u8],
    request_method: Method,
) -> bool {
    let mut lengths = head.values(HeaderName::ContentLength, buffer);
    (request_method == Method::Head || matches!(head.status, 204 | 304))
        && (lengths.any(|length| length != b"0")
            || head
                .values(HeaderName::TransferEncoding, buffer)
                .next()
                .is_some())
}

/// The framing that the headers of a message declare, if they do.
fn declared<'b, V: Iterator<Item = &'b [u8]>>(
    version: Version,
    values: impl Fn(HeaderName) -> V,
) -> Result<Option<Framing>, FramingError> {
    let length =
        sole(values(HeaderName::ContentLength)).map_err(|Repeated| FramingError::RepeatedLength)?;
    let coding = sole(values(HeaderName::TransferEncoding))
        .map_err(|Repeated| FramingError::TransferEncoding)?;
    match (length, coding) {
        (None, None) => Ok(None),
        (Some(digits), None) => parse_length(digits).map(Framing::Length).map(Some),
        (Some(_), Some(_)) => Err(FramingError::LengthAndTransferEncoding),
        (None, Some(_)) if version == Version::Http10 => Err(FramingError::TransferEncodingIn10),
        (None, Some(coding)) if coding.eq_ignore_ascii_case(b"chunked") => {
            Ok(Some(Framing::Chunked))
        }
        (None, Some(_)) => Err(FramingError::TransferEncoding),
    }
}

/// A header that must be unique is repeated.
struct Repeated;

/// The value of a header that must be unique.
fn sole<'b>(mut values: impl Iterator<Item = &'b [u8]>) -> Result<Option<&'b [u8]>, Repeated> {
    let value = values.next();
    match values.next() {
        None => Ok(value),
        Some(_) => Err(Repeated),
    }
}

/// Parses a Content-Length: only digits, unlike the parser of `usize`, which accepts `+5`.
fn parse_length(digits: &[u8]) -> Result<usize, FramingError> {
    if digits.is_empty() {
        return Err(FramingError::InvalidLength);
    }
    digits
        .iter()
        .try_fold(0_usize, |length, byte| match byte {
            b'0'..=b'9' => length
                .checked_mul(10)?
                .checked_add(usize::from(byte - b'0')),
            _ => None,
        })
        .ok_or(FramingError::InvalidLength)
}

/// Why the length of a body is uncertain. The connection cannot be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramingError {
    LengthAndTransferEncoding,
    /// More than one Content-Length, even if all are equal.
    RepeatedLength,
    /// A Content-Length that is not a number, or too large.
    InvalidLength,
    /// A Transfer-Encoding other than exactly one `chunked`.
    TransferEncoding,
    /// HTTP/1.0 has no Transfer-Encoding.
    TransferEncodingIn10,
}

impl fmt::Display for FramingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FramingError::LengthAndTransferEncoding => {
                "Content-Length together with Transfer-Encoding"
            }
            FramingError::RepeatedLength => "more than one Content-Length header",
            FramingError::InvalidLength => "invalid Content-Length",
            FramingError::TransferEncoding => "Transfer-Encoding is not a single `chunked`",
            FramingError::TransferEncodingIn10 => "Transfer-Encoding in an HTTP/1.0 message",
        })
    }
}

impl std::error::Error for FramingError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::HeadLimits;

    /// The framing of a request with these header lines, separated by `|`.
    fn request(version: &str, lines: &str) -> Result<Framing, FramingError> {
        let text = format!("POST / {version}\r\n{}\r\n\r\n", lines.replace('|', "\r\n"));
        let text = text.replace("\r\n\r\n\r\n", "\r\n\r\n");
        let mut head = RequestHead::default();
        head.parse(text.as_bytes(), HeadLimits::default()).unwrap();
        for_request(&head, text.as_bytes())
    }

    /// The framing of a response with these header lines, separated by `|`.
    fn response(status: u16, lines: &str, method: Method) -> Result<Framing, FramingError> {
        let text = format!(
            "HTTP/1.1 {status} OK\r\n{}\r\n\r\n",
            lines.replace('|', "\r\n")
        );
        let text = text.replace("\r\n\r\n\r\n", "\r\n\r\n");
        let mut head = ResponseHead::default();
        head.parse(text.as_bytes(), usize::MAX).unwrap();
        for_response(&head, text.as_bytes(), method)
    }

    #[test]
    fn the_framing_of_requests_of_sdks_is_recognised() {
        for (lines, framing) in [
            ("", Framing::Empty),
            ("Content-Length: 0", Framing::Length(0)),
            ("content-length:9317", Framing::Length(9317)),
            ("CONTENT-LENGTH: \t 007 ", Framing::Length(7)),
            (
                "Content-Length: 18446744073709551615",
                Framing::Length(usize::MAX),
            ),
            ("Transfer-Encoding: chunked", Framing::Chunked),
            ("transfer-encoding:CHUNKED", Framing::Chunked),
        ] {
            assert_eq!(request("HTTP/1.1", lines), Ok(framing), "{lines}");
        }
        assert_eq!(
            request("HTTP/1.0", "Content-Length: 5"),
            Ok(Framing::Length(5))
        );
    }

    #[test]
    fn ambiguous_framing_is_rejected() {
        use FramingError::*;
        for (lines, error) in [
            (
                "Content-Length: 5|Transfer-Encoding: chunked",
                LengthAndTransferEncoding,
            ),
            (
                "Transfer-Encoding: chunked|Content-Length: 5",
                LengthAndTransferEncoding,
            ),
            (
                "Transfer-Encoding: identity|Content-Length: 5",
                LengthAndTransferEncoding,
            ),
            ("Content-Length: 5|Content-Length: 5", RepeatedLength),
            ("Content-Length: 5|content-length: 6", RepeatedLength),
            ("Content-Length: 5, 5", InvalidLength),
            ("Content-Length: +5", InvalidLength),
            ("Content-Length: -5", InvalidLength),
            ("Content-Length: 5 5", InvalidLength),
            ("Content-Length: 0x5", InvalidLength),
            ("Content-Length: 5;", InvalidLength),
            ("Content-Length: \u{665}", InvalidLength),
            ("Content-Length:", InvalidLength),
            ("Content-Length: 18446744073709551616", InvalidLength),
            ("Content-Length: 99999999999999999999999", InvalidLength),
            ("Transfer-Encoding:", TransferEncoding),
            ("Transfer-Encoding: identity", TransferEncoding),
            ("Transfer-Encoding: gzip, chunked", TransferEncoding),
            ("Transfer-Encoding: chunked, chunked", TransferEncoding),
            ("Transfer-Encoding: chunked;q=1", TransferEncoding),
            ("Transfer-Encoding: \"chunked\"", TransferEncoding),
            ("Transfer-Encoding: xchunked", TransferEncoding),
            (
                "Transfer-Encoding: chunked|Transfer-Encoding: chunked",
                TransferEncoding,
            ),
            (
                "Transfer-Encoding: chunked|Transfer-Encoding: identity",
                TransferEncoding,
            ),
        ] {
            assert_eq!(request("HTTP/1.1", lines), Err(error), "{lines}");
        }
        assert_eq!(
            request("HTTP/1.0", "Transfer-Encoding: chunked"),
            Err(TransferEncodingIn10)
        );
    }

    #[test]
    fn status_or_method_can_exclude_a_declared_body() {
        for lines in ["", "Content-Length: 5", "Transfer-Encoding: chunked"] {
            for status in [100, 103, 204, 304] {
                assert_eq!(response(status, lines, Method::Post), Ok(Framing::Empty));
            }
            assert_eq!(response(200, lines, Method::Head), Ok(Framing::Empty));
        }
    }

    #[test]
    fn a_declared_body_that_must_not_exist_is_recognised() {
        use Method::{Head, Post};
        for (method, status, lines, declares) in [
            (Head, 200, "", false),
            (Head, 200, "Content-Length: 0", false),
            (Head, 200, "Content-Length: 5", true),
            (Head, 200, "Transfer-Encoding: chunked", true),
            (Post, 204, "", false),
            (Post, 204, "Content-Length: 0", false),
            (Post, 204, "Content-Length: 5", true),
            (Post, 204, "Content-Length: 0|Content-Length: 5", true),
            (Post, 204, "Transfer-Encoding: chunked", true),
            (Post, 304, "Content-Length: 5", true),
            (Post, 200, "Content-Length: 5", false),
        ] {
            let lines = lines.replace('|', "\r\n");
            let text = format!("HTTP/1.1 {status} X\r\n{lines}\r\n\r\n");
            let mut head = ResponseHead::default();
            head.parse(text.as_bytes(), usize::MAX).unwrap();
            let found = declares_absent_body(&head, text.as_bytes(), method);
            assert_eq!(found, declares, "{text:?}");
        }
    }

    #[test]
    fn a_response_without_a_length_ends_with_the_connection() {
        for (lines, framing) in [
            ("", Ok(Framing::UntilClose)),
            ("Content-Length: 41", Ok(Framing::Length(41))),
            ("Transfer-Encoding: chunked", Ok(Framing::Chunked)),
            (
                "Content-Length: 5|Transfer-Encoding: chunked",
                Err(FramingError::LengthAndTransferEncoding),
            ),
            (
                "Transfer-Encoding: gzip",
                Err(FramingError::TransferEncoding),
            ),
            (
                "Content-Length: 5|Content-Length: 5",
                Err(FramingError::RepeatedLength),
            ),
        ] {
            for status in [200, 205, 404, 429, 503] {
                assert_eq!(response(status, lines, Method::Post), framing, "{lines}");
            }
        }
    }
}
