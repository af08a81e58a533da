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
pub(crate) const ITEMS_MAX: usize = 500;

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
    /// Its `filename`, if it is a string.
    pub filename: Option<Span>,
    /// Its `content_type`, if it is a string.
    pub content_type: Option<Span>,
    /// Its `platform`, if it is a string.
    pub platform: Option<Span>,
    /// Its `meta_length`, if it is a number.
    pub meta_length: Option<usize>,
    /// Whether it has a `span_id`, be it `null`.
    pub has_span_id: bool,
    /// The digits of its `length`.
    pub length: Option<Span>,
    /// The digits of its `item_count`.
    pub item_count: Option<Span>,
    /// The bytes of its payload.
    pub payload: Span,
    /// All of it, the line feed behind it included where there is one.
    pub whole: Span,
}

/// The content type of a file that belongs to a trace (Relay 26.9, `ContentType::TraceAttachment`).
const TRACE_ATTACHMENT: &[u8] = b"application/vnd.sentry.trace-attachment";

impl Item<'_> {
    /// Whether it is a file that belongs to a trace, and to no event: `body` is the envelope.
    pub fn is_trace_attachment(&self, body: &[u8]) -> bool {
        let is_of_trace = |content_type: Span| {
            let name = unescape(content_type.slice(body));
            let start = name.get(..TRACE_ATTACHMENT.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(TRACE_ATTACHMENT))
        };
        *self.kind == *b"attachment" && self.content_type.is_some_and(is_of_trace)
    }

    /// The JSON in front of a trace attachment's file, `meta_length` bytes of the payload. Without that
    /// number there is none, and Relay refuses the item.
    pub fn meta(&self) -> Span {
        let length = self.meta_length.unwrap_or(0);
        match length <= self.payload.len() {
            true => Span::new(self.payload.start, self.payload.start + length),
            false => Span::default(),
        }
    }
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
        let kind = unescape(header.kind.ok_or(EnvelopeError::Malformed)?.slice(body));
        let payload_start = end_of_line(body, scanner.at)?;
        let rest = body.get(payload_start..).unwrap_or_default();
        let declared = header.length.checked()?;
        let item_count = header.item_count.checked()?;
        let length = match declared {
            Some((_, length)) if length > rest.len() => return Err(EnvelopeError::UnexpectedEnd),
            Some((_, length)) => length,
            None => memchr(b'\n', rest).unwrap_or(rest.len()),
        };
        let payload = Span::new(payload_start, payload_start + length);
        self.next = end_of_line(body, payload.end);
        Ok(Item {
            kind,
            attachment_type: header.attachment_type,
            filename: header.filename,
            content_type: header.content_type,
            platform: header.platform,
            meta_length: header.meta_length,
            has_span_id: header.has_span_id,
            length: declared.map(|(digits, _)| digits),
            item_count: item_count.map(|(digits, _)| digits),
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
    filename: Option<Span>,
    content_type: Option<Span>,
    platform: Option<Span>,
    meta_length: Option<usize>,
    has_span_id: bool,
    length: Number,
    item_count: Number,
}

/// The value of a member that has to be a number.
#[derive(Clone, Copy, Default)]
enum Number {
    /// There is none, or `null`.
    #[default]
    Absent,
    /// Its digits, and what they say.
    Digits(Span, usize),
    /// Something else, which is no fault where another member of this name follows.
    Invalid,
}

impl Number {
    fn checked(self) -> Result<Option<(Span, usize)>, EnvelopeError> {
        match self {
            Number::Absent => Ok(None),
            Number::Digits(digits, number) => Ok(Some((digits, number))),
            Number::Invalid => Err(EnvelopeError::Malformed),
        }
    }
}

impl ItemHeader {
    /// Reads what Relay reads: of several members with one name the last counts, whatever its value is
    /// (Relay 26.9 reads the header into a map). Refuses a `length` or an `item_count` that is no number.
    fn read(scanner: &mut Scanner<'_>) -> Result<ItemHeader, EnvelopeError> {
        let mut header = ItemHeader::default();
        scanner.object(|scanner, name| {
            let value = scanner.next_token()?;
            match name {
                b"type" => header.kind = string(scanner, value)?,
                b"attachment_type" => header.attachment_type = string(scanner, value)?,
                b"filename" => header.filename = string(scanner, value)?,
                b"content_type" => header.content_type = string(scanner, value)?,
                b"platform" => header.platform = string(scanner, value)?,
                b"meta_length" => {
                    header.meta_length = match value {
                        b'0'..=b'9' => scanner.digits().ok().map(|(_, number)| number),
                        _ => skipped(scanner)?,
                    };
                }
                b"span_id" => {
                    header.has_span_id = true;
                    scanner.skip_value(Scanner::NESTING_MAX - 1)?;
                }
                b"length" => header.length = number(scanner, value)?,
                b"item_count" => header.item_count = number(scanner, value)?,
                _ => scanner.skip_value(Scanner::NESTING_MAX - 1)?,
            }
            Ok(())
        })?;
        Ok(header)
    }
}

/// The content of a string in front of which the scanner stands; `None` for any other value.
fn string(scanner: &mut Scanner<'_>, token: u8) -> Result<Option<Span>, EnvelopeError> {
    match token {
        b'"' => scanner.string().map(Some),
        _ => skipped(scanner),
    }
}

/// A number in front of which the scanner stands.
fn number(scanner: &mut Scanner<'_>, token: u8) -> Result<Number, EnvelopeError> {
    match token {
        b'0'..=b'9' => {
            let read = scanner.digits();
            Ok(read.map_or(Number::Invalid, |(digits, number)| {
                Number::Digits(digits, number)
            }))
        }
        b'n' => scanner.skip_scalar().map(|()| Number::Absent),
        _ => {
            scanner.skip_value(Scanner::NESTING_MAX - 1)?;
            Ok(Number::Invalid)
        }
    }
}

fn skipped<T>(scanner: &mut Scanner<'_>) -> Result<Option<T>, EnvelopeError> {
    scanner.skip_value(Scanner::NESTING_MAX - 1).map(|()| None)
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
mod reference;
#[cfg(test)]
mod tests;
