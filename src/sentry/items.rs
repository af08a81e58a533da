//! The items of an envelope.
//!
//! After the envelope's header come the items: a JSON object on a line of its own, then the payload. If the object
//! has a `length`, the payload is that long and may contain line feeds; otherwise it ends at the next one. Nothing is
//! copied, and payloads are not read. The walk agrees with Relay's parser on every envelope that Relay accepts,
//! except for headers longer than any SDK's. On envelopes that Relay rejects, some errors inside an item header are
//! not noticed, but the start, the end and the type of an item are always Relay's.

use std::borrow::Cow;

use memchr::memchr;

use super::envelope::{EnvelopeError, Scanner, unescape};
use crate::span::Span;

/// The maximum number of items in an envelope, as in Relay.
pub(crate) const ITEMS_MAX: usize = 500;

/// The longest header of an item, fifty times the length of SDKs' headers. A walk over a longer one would keep the core
/// from everything else.
const HEADER_BYTES_MAX: usize = 16 * 1024;

/// An item and the members of its header. Those of another type than expected are `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item<'b> {
    /// The member `type`.
    pub kind: Cow<'b, [u8]>,
    pub attachment_type: Option<Span>,
    pub filename: Option<Span>,
    pub content_type: Option<Span>,
    pub platform: Option<Span>,
    pub meta_length: Option<usize>,
    /// Whether there is a `span_id`, even `null`.
    pub has_span_id: bool,
    /// The digits of `length`.
    pub length: Option<Span>,
    /// The digits of `item_count`.
    pub item_count: Option<Span>,
    pub payload: Span,
    /// The whole item, with the line feed after it if there is one.
    pub whole: Span,
}

/// The content type of trace attachments (Relay 26.9, `ContentType::TraceAttachment`).
const TRACE_ATTACHMENT: &[u8] = b"application/vnd.sentry.trace-attachment";

impl Item<'_> {
    /// Whether it is a file that belongs to a trace instead of an event. `body` is the envelope.
    pub fn is_trace_attachment(&self, body: &[u8]) -> bool {
        let is_of_trace = |content_type: Span| {
            let name = unescape(content_type.slice(body));
            let start = name.get(..TRACE_ATTACHMENT.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(TRACE_ATTACHMENT))
        };
        *self.kind == *b"attachment" && self.content_type.is_some_and(is_of_trace)
    }

    /// The JSON in front of the file of a trace attachment, `meta_length` bytes of the payload. Empty without that
    /// number; Relay rejects such an item.
    pub fn meta(&self) -> Span {
        let length = self.meta_length.unwrap_or(0);
        match length <= self.payload.len() {
            true => Span::new(self.payload.start, self.payload.start + length),
            false => Span::default(),
        }
    }
}

/// The items of `body`, of which the envelope header ends at `header_end`. After an error there are no more, since the
/// start of the next item is unknown.
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
    /// How many more items are allowed.
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
        // A header that is too long has no end in the part that is read.
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
            // If the end is malformed, the next step returns the error.
            whole: Span::new(start, self.next.unwrap_or(payload.end)),
        })
    }
}

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
    /// Missing or `null`.
    #[default]
    Absent,
    /// The digits and their value.
    Digits(Span, usize),
    /// Something else. It is an error only if no other member of this name follows.
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
    /// Reads the members that Relay reads. The last of several members with one name counts, with any value (Relay 26.9
    /// reads the header into a map).
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

/// Reads the value at `scanner`: the content of a string, or `None`.
fn string(scanner: &mut Scanner<'_>, token: u8) -> Result<Option<Span>, EnvelopeError> {
    match token {
        b'"' => scanner.string().map(Some),
        _ => skipped(scanner),
    }
}

/// Reads the value at `scanner` as a number.
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

/// The position after the line feed at `at`; the end of the body counts as a line feed.
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
