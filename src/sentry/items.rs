//! The items of an envelope, found by walking over their headers.
//!
//! Behind the envelope's header stand items: a JSON object on a line of its own, then the payload.
//! Where the object has a `length` the payload is that long and may contain line feeds, otherwise it
//! ends at the next one. Nothing is copied and no payload is looked at.

use std::borrow::Cow;

use memchr::memchr;

use super::envelope::{EnvelopeError, Scanner, unescape};
use crate::span::Span;

/// One item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item<'b> {
    /// Its `type`.
    pub kind: Cow<'b, [u8]>,
    /// The bytes of its payload.
    pub payload: Span,
}

/// The items of `body`, whose envelope header ends at `header_end`. After an error there is nothing
/// more, because nobody knows where the next item would begin.
pub fn items(body: &[u8], header_end: usize) -> Items<'_> {
    Items {
        body,
        next: end_of_line(body, header_end),
    }
}

/// See [`items`].
pub struct Items<'b> {
    body: &'b [u8],
    /// Where the next item begins.
    next: Result<usize, EnvelopeError>,
}

impl<'b> Iterator for Items<'b> {
    type Item = Result<Item<'b>, EnvelopeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let end = Ok(self.body.len());
        if self.next == end {
            return None;
        }
        let item = self.next.and_then(|start| self.read(start));
        if item.is_err() {
            self.next = end;
        }
        Some(item)
    }
}

impl<'b> Items<'b> {
    fn read(&mut self, start: usize) -> Result<Item<'b>, EnvelopeError> {
        let body = self.body;
        let mut scanner = Scanner { body, at: start };
        let (mut kind, mut length) = (None, None);
        scanner.object(|scanner, name| {
            let value = scanner.next_token()?;
            match (name, value) {
                (b"type", b'"') => kind = Some(scanner.string()?),
                (b"length", b'0'..=b'9') => length = Some(scanner.number()?),
                _ => scanner.skip_value(Scanner::NESTING_MAX - 1)?,
            }
            Ok(())
        })?;
        let kind = unescape(kind.ok_or(EnvelopeError::Malformed)?.of(body));
        let payload_start = end_of_line(body, scanner.at)?;
        let rest = body.get(payload_start..).unwrap_or_default();
        let length = match length {
            Some(length) if length > rest.len() => return Err(EnvelopeError::UnexpectedEnd),
            Some(length) => length,
            None => memchr(b'\n', rest).unwrap_or(rest.len()),
        };
        let payload = Span::new(payload_start, payload_start + length);
        self.next = end_of_line(body, payload.end);
        Ok(Item { kind, payload })
    }
}

/// The position after the line feed at `at`; the end of the body counts as one.
fn end_of_line(body: &[u8], at: usize) -> Result<usize, EnvelopeError> {
    match body.get(at) {
        Some(b'\n') => Ok(at + 1),
        None if at == body.len() => Ok(at),
        None => Err(EnvelopeError::UnexpectedEnd),
        Some(_) => Err(EnvelopeError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The types and payloads of an envelope, and the error it ends in.
    fn read(body: &str) -> (Vec<(String, String)>, Option<EnvelopeError>) {
        let header = super::super::envelope::scan(body.as_bytes(), &mut Vec::new()).unwrap();
        let mut found = Vec::new();
        for item in items(body.as_bytes(), header.end) {
            match item {
                Ok(item) => found.push((
                    String::from_utf8(item.kind.into_owned()).unwrap(),
                    String::from_utf8(item.payload.of(body.as_bytes()).to_vec()).unwrap(),
                )),
                Err(error) => return (found, Some(error)),
            }
        }
        (found, None)
    }

    #[test]
    fn items_with_and_without_a_length() {
        let cases: [(&str, &[(&str, &str)]); 9] = [
            ("{}", &[]),
            ("{}\n", &[]),
            ("{}\n{\"type\":\"session\"}\n{}", &[("session", "{}")]),
            ("{}\n{\"type\":\"session\"}\n{}\n", &[("session", "{}")]),
            ("{}\n{\"type\":\"log\"}", &[("log", "")]),
            (
                "{}\n{\"type\":\"a\",\"length\":3}\nx\ny\n{\"type\":\"b\"}\nz",
                &[("a", "x\ny"), ("b", "z")],
            ),
            (
                "{}\n{\"length\": 0 ,\"type\":\"a\"}\n\n{\"type\":\"b\",\"length\":1}\nz",
                &[("a", ""), ("b", "z")],
            ),
            (
                "{\n}\n{\"type\":\"\\u0061\",\"x\":{\"length\":9}}\nq\n",
                &[("a", "q")],
            ),
            ("{}\n{\"type\":\"a\",\"length\":null}\nq", &[("a", "q")]),
        ];
        for (body, expected) in cases {
            let (found, error) = read(body);
            let found: Vec<_> = found.iter().map(|(a, b)| (&**a, &**b)).collect();
            assert_eq!((&*found, error), (expected, None), "{body:?}");
        }
    }

    #[test]
    fn an_error_ends_the_walk_after_the_items_before_it() {
        use EnvelopeError::{Malformed, UnexpectedEnd};
        let cases = [
            ("{}\r\n", 0, Malformed),
            ("{}\n\n", 0, EnvelopeError::UnexpectedEnd),
            ("{}\n[]\n", 0, EnvelopeError::NotAnObject),
            ("{}\n{}\nx", 0, Malformed),
            ("{}\n{\"type\":\"a\",\"length\":9}\nx", 0, UnexpectedEnd),
            ("{}\n{\"type\":\"a\",\"length\":1}\nxy", 1, Malformed),
            ("{}\n{\"type\":\"a\"}\nx\n{\"type\":", 1, UnexpectedEnd),
            (
                "{}\n{\"type\":\"a\",\"length\":99999999999999999999999}\nx",
                0,
                Malformed,
            ),
        ];
        for (body, count, expected) in cases {
            let (found, error) = read(body);
            assert_eq!((found.len(), error), (count, Some(expected)), "{body:?}");
        }
    }
}
