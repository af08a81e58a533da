//! The head of an upstream's response: the status and the headers.
//!
//! Like a request head, it is parsed into spans and into a reused list. The reason phrase is ignored (RFC 9112 §4).
//! Interim responses (1xx) are heads like any other; the caller skips them.
//!
//! An upstream answers most requests with the same head, except for the date and the like. So a head is first
//! compared with the previous one.

use std::mem::MaybeUninit;

use super::header::{self, HeadError, Header, HeaderName, HeaderNames, Parsed, Slots, Version};
use super::known_head::KnownHead;

/// The longest response head, even if the configuration allows longer bodies. A head is parsed repeatedly while it
/// arrives, so this bounds the cost of a slow upstream.
const HEAD_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug, Default)]
pub struct ResponseHead {
    pub status: u16,
    pub version: Version,
    /// The header lines, in order.
    pub headers: Vec<Header>,
    /// The length of the head, including the blank line.
    pub len: usize,
    names: HeaderNames,
    known: KnownHead,
}

impl ResponseHead {
    /// The longest head that is accepted.
    pub fn bytes_max(response_bytes: usize) -> usize {
        response_bytes.min(HEAD_BYTES_MAX)
    }

    /// Parses the head at the start of `buffer` into `self`. The fields are meaningful only if this returns
    /// [`Parsed::Complete`].
    ///
    /// The bounds are [`ResponseHead::bytes_max`] and 256 header lines; `limits.header_count` is for requests.
    pub fn parse(&mut self, buffer: &[u8], response_bytes: usize) -> Result<Parsed, HeadError> {
        let head_bytes_max = ResponseHead::bytes_max(response_bytes);
        if self.recurs_in(buffer) && self.len <= head_bytes_max {
            return Ok(Parsed::Complete);
        }
        let mut slots: Slots<'_> = [const { MaybeUninit::uninit() }; _];
        let mut response = httparse::Response::new(&mut []);
        let mut parser = httparse::ParserConfig::default();
        // A proxy has to remove such a space (RFC 9112 §5.1). No header line of a response is forwarded unchanged.
        parser.allow_spaces_after_header_name_in_responses(true);
        match parser.parse_response_with_uninit_headers(&mut response, buffer, &mut slots)? {
            httparse::Status::Partial if buffer.len() >= head_bytes_max => Err(HeadError::TooLarge),
            httparse::Status::Partial => Ok(Parsed::Partial),
            httparse::Status::Complete(len) if len > head_bytes_max => Err(HeadError::TooLarge),
            httparse::Status::Complete(_) if response.code < Some(100) => {
                Err(HeadError::Malformed("invalid status line"))
            }
            httparse::Status::Complete(len) => {
                self.fill(&response, buffer.get(..len).unwrap_or_default());
                Ok(Parsed::Complete)
            }
        }
    }

    /// Whether the known head comes again, except for the values of headers that have no meaning here.
    fn recurs_in(&self, buffer: &[u8]) -> bool {
        let may_vary = |name| name == HeaderName::Other;
        self.known.recurs_in(buffer, &self.headers, may_vary)
    }

    /// The values of all headers `name`, in order.
    pub fn values<'b>(&self, name: HeaderName, buffer: &'b [u8]) -> impl Iterator<Item = &'b [u8]> {
        header::values(self.lines_with(name), name, buffer)
    }

    /// Whether the upstream keeps the connection open (RFC 9112 §9.3).
    pub fn keep_alive(&self, buffer: &[u8]) -> bool {
        let lines = self.lines_with(HeaderName::Connection);
        header::keep_alive(self.version, lines, buffer)
    }

    fn lines_with(&self, name: HeaderName) -> &[Header] {
        self.names.candidates(name, &self.headers)
    }

    /// Copies what httparse found in `head`.
    fn fill(&mut self, response: &httparse::Response<'_, '_>, head: &[u8]) {
        self.status = response.code.unwrap_or_default();
        self.version = Version::from_minor(response.version);
        self.len = head.len();
        self.headers.clear();
        header::locate(response.headers, head, &mut self.headers);
        self.names = HeaderNames::from_headers(&self.headers);
        self.known.keep(head);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::known_head::KEPT_BYTES_MAX;

    fn parse(text: &str) -> Result<Parsed, HeadError> {
        ResponseHead::default().parse(text.as_bytes(), usize::MAX)
    }

    #[test]
    fn a_response_of_relay_is_parsed() {
        let text = "HTTP/1.1 429 Too Many Requests\r\n\
            content-type: application/json\r\n\
            retry-after: 60\r\n\
            X-Sentry-Rate-Limits: 60:error:key\r\n\
            x-sentry-rate-limits:2700::organization\r\n\
            connection: keep-alive\r\n\
            \r\n{}";
        let buffer = text.as_bytes();
        let mut head = ResponseHead::default();
        assert_eq!(head.parse(buffer, usize::MAX), Ok(Parsed::Complete));
        assert_eq!(head.status, 429);
        assert_eq!(head.version, Version::Http11);
        assert_eq!(&buffer[head.len..], b"{}");
        let limits: Vec<_> = head.values(HeaderName::XSentryRateLimits, buffer).collect();
        assert_eq!(limits, [&b"60:error:key"[..], b"2700::organization"]);
        let waits: Vec<_> = head.values(HeaderName::RetryAfter, buffer).collect();
        assert_eq!(waits, [b"60"]);
        assert_eq!(head.headers[1].line.slice(buffer), b"retry-after: 60\r\n");
        assert!(head.keep_alive(buffer));
    }

    #[test]
    fn status_lines_of_servers_are_accepted() {
        for (line, status) in [
            ("HTTP/1.1 200 OK\r\n", 200),
            ("HTTP/1.0 200 OK\n", 200),
            ("HTTP/1.1 200 \r\n", 200),
            ("HTTP/1.1 200\r\n", 200),
            ("HTTP/1.1 100 Continue\r\n", 100),
            ("HTTP/1.1 999 \u{e9}t\u{e9}\r\n", 999),
            ("\r\nHTTP/1.1 204 No Content\r\n", 204),
        ] {
            let text = format!("{line}A: b\r\n\r\n");
            let mut head = ResponseHead::default();
            let parsed = head.parse(text.as_bytes(), usize::MAX);
            assert_eq!(parsed, Ok(Parsed::Complete), "{line:?}");
            assert_eq!(head.status, status);
            assert_eq!(head.headers[0].line.slice(text.as_bytes()), b"A: b\r\n");
            assert_eq!(head.len, text.len());
        }
    }

    #[test]
    fn white_space_before_a_colon_is_not_part_of_the_name() {
        let text =
            b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\nX-Empty\t:\r\nRetry-After \t:60\r\n\r\n{}";
        let mut head = ResponseHead::default();
        for _ in 0..2 {
            let parsed = head.parse(text, usize::MAX);
            assert_eq!(parsed, Ok(Parsed::Complete));
            let value = |name| head.values(name, text).next();
            assert_eq!(value(HeaderName::ContentLength), Some(&b"2"[..]));
            assert_eq!(value(HeaderName::RetryAfter), Some(&b"60"[..]));
            assert_eq!(head.headers[1].value.slice(text), b"");
        }
    }

    #[test]
    fn malformed_responses_are_rejected() {
        for text in [
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 -20 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/1.1  200 OK\r\n\r\n",
            "HTTP/1.1 200 a\rb\r\n\r\n",
            "HTTP/1.1 200 a\0b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA B : b\r\n\r\n",
            "HTTP/1.1 200 OK\r\n : b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n",
        ] {
            assert!(
                matches!(parse(text), Err(HeadError::Malformed(_))),
                "{text:?}"
            );
        }
        for text in ["HTTP/2 200\r\n\r\n", "SSH-2.0-OpenSSH_9.6\r\n", "<html>"] {
            assert_eq!(parse(text), Err(HeadError::Version), "{text:?}");
        }
    }

    #[test]
    fn keep_alive_depends_on_version_and_connection_header() {
        for (text, keep) in [
            ("HTTP/1.1 200 OK\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n\r\n", true),
        ] {
            let mut head = ResponseHead::default();
            head.parse(text.as_bytes(), usize::MAX).unwrap();
            assert_eq!(head.keep_alive(text.as_bytes()), keep, "{text:?}");
        }
    }

    #[test]
    fn a_head_is_bounded_and_partial_until_its_end() {
        let text = "HTTP/1.1 200 OK\r\nA: b\nC:\r\n\r\n";
        for end in 0..text.len() {
            assert_eq!(parse(&text[..end]), Ok(Parsed::Partial), "{end}");
        }
        let mut head = ResponseHead::default();
        let buffer = text.as_bytes();
        for (end, limit, parsed) in [
            (buffer.len(), buffer.len(), Ok(Parsed::Complete)),
            (buffer.len(), buffer.len() - 1, Err(HeadError::TooLarge)),
            (20, 21, Ok(Parsed::Partial)),
            (20, 20, Err(HeadError::TooLarge)),
        ] {
            assert_eq!(head.parse(&buffer[..end], limit), parsed);
        }
        let endless = format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(HEAD_BYTES_MAX));
        assert_eq!(parse(&endless), Err(HeadError::TooLarge));
        let lines = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(257));
        assert_eq!(parse(&lines), Err(HeadError::TooManyHeaders));
    }

    #[test]
    fn a_recurring_head_equals_the_parsed_one() {
        let text = "HTTP/1.1 200 OK\r\ndate: Fri, 27 Nov 2026 21:00:00 GMT\r\n\
            Content-Length: 41\r\nx-empty:\r\nvia:  1.1 google \r\nretry-after: 60\r\n\
            x-time: 0\r\n\r\n{}";
        let mut known = ResponseHead::default();
        assert_eq!(
            known.parse(text.as_bytes(), usize::MAX),
            Ok(Parsed::Complete)
        );
        let mut recurred = 0;
        for position in 0..text.len() {
            for byte in [
                b'\0', b'\t', b'\n', b'\r', b' ', b'1', b':', b'a', b'~', 0x7f, 0x80,
            ] {
                let mut other = text.as_bytes().to_vec();
                other[position] = byte;
                let mut fresh = ResponseHead::default();
                let parsed = fresh.parse(&other, usize::MAX);
                let is_same = known.recurs_in(&other);
                recurred += usize::from(is_same);
                if is_same {
                    assert_eq!(parsed, Ok(Parsed::Complete), "{position} {byte}");
                    assert_eq!(fresh.status, known.status, "{position} {byte}");
                    assert_eq!(fresh.version, known.version, "{position} {byte}");
                    assert_eq!(fresh.headers, known.headers, "{position} {byte}");
                    assert_eq!(fresh.len, known.len, "{position} {byte}");
                    let length = fresh.values(HeaderName::ContentLength, &other).next();
                    assert_eq!(length, Some(&b"41"[..]), "{position} {byte}");
                }
            }
        }
        // The values of `date`, `via` and `x-time` have 40 bytes, of which 6 are at an end.
        assert!(recurred > 34 * 5, "{recurred}");
    }

    #[test]
    fn a_recurring_head_obeys_the_current_limit() {
        let text = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n";
        let mut head = ResponseHead::default();
        assert_eq!(head.parse(text, usize::MAX), Ok(Parsed::Complete));
        assert_eq!(head.parse(text, text.len() - 1), Err(HeadError::TooLarge));
    }

    #[test]
    fn a_long_head_is_not_kept() {
        let text = format!(
            "HTTP/1.1 200 OK\r\nA: {}\r\n\r\n",
            "b".repeat(KEPT_BYTES_MAX)
        );
        let mut head = ResponseHead::default();
        assert_eq!(
            head.parse(text.as_bytes(), usize::MAX),
            Ok(Parsed::Complete)
        );
        assert!(!head.recurs_in(text.as_bytes()));
    }
}
