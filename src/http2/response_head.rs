//! The head of a response: its status and the fields that the mirror acts on.
//!
//! A field that HTTP/2 does not allow makes the response malformed (RFC 9113 §8.1.1), which ends its stream only.

use super::hpack::decoder::{DecodeError, Decoder};
use crate::http::head::HeaderName;
use crate::span::Span;

/// The longest header list, by the count of RFC 9113 §6.5.2. It is announced, so a server knows it.
pub(crate) const LIST_BYTES_MAX: usize = 64 * 1024;

/// A final or interim head. It is reused for its memory.
#[derive(Debug, Default)]
pub struct ResponseHead {
    pub status: u16,
    pub content_length: Option<usize>,
    fields: Vec<(HeaderName, Span)>,
    text: Vec<u8>,
    /// The length of its header block.
    pub(super) block_bytes: usize,
}

/// Why a header block is no head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadError {
    /// The block is not HPACK.
    Compression,
    /// It is longer than [`LIST_BYTES_MAX`].
    TooLarge,
    /// It breaks this rule.
    Malformed(&'static str),
}

impl From<DecodeError> for HeadError {
    fn from(error: DecodeError) -> HeadError {
        match error {
            DecodeError::Malformed => HeadError::Compression,
            DecodeError::TooLarge => HeadError::TooLarge,
        }
    }
}

impl ResponseHead {
    /// The fields that have a meaning here, in order.
    pub fn fields(&self) -> impl Iterator<Item = (HeaderName, &[u8])> {
        let fields = self.fields.iter();
        fields.map(|(name, value)| (*name, value.slice(&self.text)))
    }

    /// Reads a head from its header block.
    pub(super) fn read(&mut self, block: &[u8], decoder: &mut Decoder) -> Result<(), HeadError> {
        self.clear(block.len());
        let mut status = None;
        let mut wrong = None;
        let mut has_field = false;
        decoder.decode(block, LIST_BYTES_MAX, |name, value| {
            let read = match name {
                b":status" if status.is_some() => Err("a second :status"),
                b":status" if has_field => Err(":status after a field"),
                b":status" => {
                    status = parse_status(value);
                    status.map(|_| ()).ok_or("an invalid :status")
                }
                _ => {
                    has_field = true;
                    self.add(name, value)
                }
            };
            wrong = wrong.or(read.err());
        })?;
        if let Some(rule) = wrong {
            return Err(HeadError::Malformed(rule));
        }
        self.status = status.ok_or(HeadError::Malformed("no :status"))?;
        Ok(())
    }

    /// Checks the fields after a body. They have no meaning here.
    pub(super) fn read_trailers(
        &mut self,
        block: &[u8],
        decoder: &mut Decoder,
    ) -> Result<(), HeadError> {
        self.clear(block.len());
        let mut wrong = None;
        decoder.decode(block, LIST_BYTES_MAX, |name, value| {
            wrong = wrong.or(self.add(name, value).err());
        })?;
        wrong.map_or(Ok(()), |rule| Err(HeadError::Malformed(rule)))
    }

    fn clear(&mut self, block_bytes: usize) {
        self.status = 0;
        self.content_length = None;
        self.fields.clear();
        self.text.clear();
        self.block_bytes = block_bytes;
    }

    fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), &'static str> {
        if name.is_empty() || !name.iter().all(|byte| is_name_byte(*byte)) {
            return Err("an invalid field name");
        }
        // All bytes, so that the compiler can compare many at a time: invalid values are rare.
        let is_invalid = value.iter().fold(false, |found, byte| {
            found | matches!(byte, 0 | b'\r' | b'\n')
        });
        if is_invalid {
            return Err("an invalid field value");
        }
        let value = value.trim_ascii();
        let name = HeaderName::parse(name);
        match name {
            HeaderName::Connection
            | HeaderName::KeepAlive
            | HeaderName::ProxyConnection
            | HeaderName::TransferEncoding
            | HeaderName::Upgrade => return Err("a field of HTTP/1.1 connections"),
            HeaderName::ContentLength if self.content_length.is_some() => {
                return Err("a second content-length");
            }
            HeaderName::ContentLength => {
                self.content_length = Some(parse_length(value).ok_or("an invalid content-length")?);
            }
            HeaderName::ContentType
            | HeaderName::ContentEncoding
            | HeaderName::XSentryRateLimits
            | HeaderName::RetryAfter
            | HeaderName::XSentryError => {
                let start = self.text.len();
                self.text.extend_from_slice(value);
                self.fields.push((name, Span::new(start, self.text.len())));
            }
            _ => {}
        }
        Ok(())
    }
}

/// Whether a name may have this byte: those of a token (RFC 9110 §5.6.2) without upper case (RFC 9113 §8.2.1).
fn is_name_byte(byte: u8) -> bool {
    matches!(
        byte,
        b'a'..=b'z' | b'0'..=b'9' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~'
    )
}

fn parse_status(value: &[u8]) -> Option<u16> {
    let digits = str::from_utf8(value)
        .ok()
        .filter(|digits| digits.len() == 3)?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let status = digits.parse().ok().filter(|_| is_number)?;
    (status >= 100).then_some(status)
}

fn parse_length(value: &[u8]) -> Option<usize> {
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let digits = str::from_utf8(value).ok().filter(|_| is_number)?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::hpack::encoder::{self, Secrecy};

    fn read(fields: &[(&str, &str)]) -> Result<ResponseHead, HeadError> {
        let mut head = ResponseHead::default();
        head.read(&block(fields), &mut Decoder::default())
            .map(|()| head)
    }

    fn block(fields: &[(&str, &str)]) -> Vec<u8> {
        let mut block = Vec::new();
        for (name, value) in fields {
            // The encoder makes names lower-case, so they are written as they are.
            block.push(0);
            block.push(name.len() as u8);
            block.extend_from_slice(name.as_bytes());
            let mut literal = Vec::new();
            encoder::append(&mut literal, b"x", value.as_bytes(), Secrecy::Plain);
            block.extend_from_slice(&literal[3..]);
        }
        block
    }

    #[test]
    fn the_fields_that_have_a_meaning_are_kept() {
        let head = read(&[
            (":status", "429"),
            ("content-type", " application/json\t"),
            ("server", "x"),
            ("x-sentry-rate-limits", "60:error:key"),
            ("content-length", "017"),
            ("x-sentry-rate-limits", "1::"),
        ]);
        let head = head.unwrap();
        assert_eq!((head.status, head.content_length), (429, Some(17)));
        let fields: Vec<_> = head.fields().collect();
        let expected = [
            (HeaderName::ContentType, &b"application/json"[..]),
            (HeaderName::XSentryRateLimits, b"60:error:key"),
            (HeaderName::XSentryRateLimits, b"1::"),
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn what_http_2_does_not_allow_is_malformed() {
        let status = (":status", "200");
        for fields in [
            &[][..],
            &[("a", "b")],
            &[(":status", "20")],
            &[(":status", "2000")],
            &[(":status", "+20")],
            &[(":status", "099")],
            &[status, status],
            &[("a", "b"), status],
            &[status, (":path", "/")],
            &[status, ("Upper", "b")],
            &[status, ("", "b")],
            &[status, ("a b", "b")],
            &[status, ("a", "b\r\nc")],
            &[status, ("a", "b\0")],
            &[status, ("connection", "close")],
            &[status, ("transfer-encoding", "chunked")],
            &[status, ("content-length", "+1")],
            &[status, ("content-length", "")],
            &[status, ("content-length", "99999999999999999999999")],
            &[status, ("content-length", "1"), ("content-length", "1")],
        ] {
            let error = read(fields).err();
            assert!(
                matches!(error, Some(HeadError::Malformed(_))),
                "{fields:?}: {error:?}"
            );
        }
    }

    #[test]
    fn trailers_have_no_status() {
        let trailers = |fields: &[(&str, &str)]| {
            ResponseHead::default().read_trailers(&block(fields), &mut Decoder::default())
        };
        assert_eq!(trailers(&[("a", "b")]), Ok(()));
        assert!(trailers(&[(":status", "200")]).is_err());
    }
}
