//! The items of an envelope, found by walking over their headers.
//!
//! Behind the envelope's header stand items: a JSON object on a line of its own, then the payload.
//! Where the object has a `length` the payload is that long and may contain line feeds, otherwise it
//! ends at the next one. Nothing is copied and no payload is looked at. The walk agrees with Relay's
//! parser wherever Relay accepts, but for headers that are longer than any SDK makes them; where Relay
//! refuses, some of what is wrong inside of an item's header is not noticed, but never where an item
//! begins or ends, or of what type it is.

use std::borrow::Cow;

use memchr::memchr;

use super::envelope::{EnvelopeError, Scanner, unescape};
use crate::span::Span;

/// How many items an envelope may have; Relay refuses one with more.
pub const ITEMS_MAX: usize = 500;

/// How long the header of an item may be: fifty times what SDKs make it. A longer one would keep the
/// core from everything else while it is walked over.
const HEADER_BYTES_MAX: usize = 16 * 1024;

/// One item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item<'b> {
    /// Its `type`.
    pub kind: Cow<'b, [u8]>,
    /// Its `attachment_type`, if it is a string.
    pub attachment_type: Option<Span>,
    /// The digits of its `length`.
    pub length: Option<Span>,
    /// The digits of its `item_count`.
    pub item_count: Option<Span>,
    /// The bytes of its payload.
    pub payload: Span,
    /// All of it, the line feed behind it included where there is one.
    pub whole: Span,
}

/// The items of `body`, whose envelope header ends at `header_end`. After an error there is nothing
/// more, because nobody knows where the next item would begin.
pub fn items(body: &[u8], header_end: usize) -> Items<'_> {
    Items {
        body,
        next: end_of_line(body, header_end),
        left: ITEMS_MAX,
    }
}

/// See [`items`].
pub struct Items<'b> {
    body: &'b [u8],
    /// Where the next item begins.
    next: Result<usize, EnvelopeError>,
    /// How many may follow.
    left: usize,
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
        self.left = self.left.checked_sub(1).ok_or(EnvelopeError::TooMany)?;
        // Cut off, a header that is too long has no end.
        let header_end = body.len().min(start + HEADER_BYTES_MAX);
        let mut scanner = Scanner {
            body: body.get(..header_end).unwrap_or_default(),
            at: start,
        };
        let header = ItemHeader::read(&mut scanner).map_err(|error| match error {
            EnvelopeError::UnexpectedEnd if header_end < body.len() => EnvelopeError::TooLong,
            error => error,
        })?;
        let kind = unescape(header.kind.ok_or(EnvelopeError::Malformed)?.of(body));
        let payload_start = end_of_line(body, scanner.at)?;
        let rest = body.get(payload_start..).unwrap_or_default();
        let length = match header.length {
            Some((_, length)) if length > rest.len() => return Err(EnvelopeError::UnexpectedEnd),
            Some((_, length)) => length,
            None => memchr(b'\n', rest).unwrap_or(rest.len()),
        };
        let payload = Span::new(payload_start, payload_start + length);
        self.next = end_of_line(body, payload.end);
        Ok(Item {
            kind,
            attachment_type: header.attachment_type,
            length: header.length.map(|(digits, _)| digits),
            item_count: header.item_count,
            payload,
            // Where it ends wrongly the next step says so.
            whole: Span::new(start, self.next.unwrap_or(payload.end)),
        })
    }
}

/// What the header of an item says.
#[derive(Default)]
struct ItemHeader {
    kind: Option<Span>,
    attachment_type: Option<Span>,
    length: Option<(Span, usize)>,
    item_count: Option<Span>,
}

impl ItemHeader {
    /// Reads what Relay reads, and refuses as Relay does what it cannot mean: a name that comes twice, or
    /// a `length` that is none.
    fn read(scanner: &mut Scanner<'_>) -> Result<ItemHeader, EnvelopeError> {
        let mut header = ItemHeader::default();
        scanner.object(|scanner, name| {
            let value = scanner.next_token()?;
            match (name, value) {
                (b"type", b'"') => once(&mut header.kind, scanner.string()?),
                (b"attachment_type", b'"') => once(&mut header.attachment_type, scanner.string()?),
                (b"length", b'0'..=b'9') => once(&mut header.length, scanner.digits()?),
                (b"item_count", b'0'..=b'9') => once(&mut header.item_count, scanner.digits()?.0),
                // `null`, as if it were not there.
                (b"length" | b"item_count", b'n') => scanner.skip_scalar(),
                (b"length" | b"item_count", _) => Err(EnvelopeError::Malformed),
                _ => scanner.skip_value(Scanner::NESTING_MAX - 1),
            }
        })?;
        Ok(header)
    }
}

fn once<T>(place: &mut Option<T>, value: T) -> Result<(), EnvelopeError> {
    match place.replace(value) {
        Some(_) => Err(EnvelopeError::Malformed),
        None => Ok(()),
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
mod protocol;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod twin;
