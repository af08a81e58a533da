//! The records of a body in protobuf.
//!
//! The wire format is that of <https://protobuf.dev/programming-guides/encoding/>. Groups, which it has
//! given up and OTLP never had, are taken for an error.

use super::{Finder, Signal};
use crate::sentry::envelope::EnvelopeError::{self, Malformed, UnexpectedEnd};
use crate::sentry::sampling::SamplingKey;
use crate::span::Span;

/// `resource_spans` and `resource_logs` of a request.
const RESOURCES: u64 = 1;
/// `scope_spans` and `scope_logs` of a resource.
const SCOPES: u64 = 2;
/// `spans` and `log_records` of a scope.
const RECORDS: u64 = 2;

impl Signal {
    /// The field `trace_id` of a record.
    const fn trace_id(self) -> u64 {
        match self {
            Signal::Traces => 1,
            Signal::Logs => 9,
        }
    }
}

/// Tells `finder` of the records in `body`.
pub(super) fn find(body: &[u8], signal: Signal, finder: &mut Finder) -> Result<(), EnvelopeError> {
    let mut request = Reader::new(body, Span::new(0, body.len()));
    while let Some(field) = request.field()? {
        let Some((length, content)) = field.message(RESOURCES)? else {
            continue;
        };
        let resource = finder.begin(field.whole, length, content)?;
        let mut fields = Reader::new(body, content);
        while let Some(field) = fields.field()? {
            let Some((length, content)) = field.message(SCOPES)? else {
                continue;
            };
            let scope = finder.begin(field.whole, length, content)?;
            let mut fields = Reader::new(body, content);
            while let Some(field) = fields.field()? {
                if let Some((_, content)) = field.message(RECORDS)? {
                    let trace = trace_of(body, content, signal)?;
                    finder.record(field.whole, trace)?;
                }
            }
            finder.end(scope, field.whole.end);
        }
        finder.end(resource, field.whole.end);
    }
    Ok(())
}

/// The sampling key of the trace that a record names: sixteen bytes, not all of them zeros.
fn trace_of(
    body: &[u8],
    record: Span,
    signal: Signal,
) -> Result<Option<SamplingKey>, EnvelopeError> {
    let mut trace = None;
    let mut fields = Reader::new(body, record);
    while let Some(field) = fields.field()? {
        if let Some((_, content)) = field.message(signal.trace_id())? {
            // Of several the last counts.
            trace = <[u8; 16]>::try_from(content.slice(body))
                .ok()
                .and_then(|id| SamplingKey::from_u128(u128::from_be_bytes(id)));
        }
    }
    Ok(trace)
}

/// A number as protobuf writes it, in as few bytes as possible.
pub(super) fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// A message whose fields are read.
struct Reader<'b> {
    body: &'b [u8],
    at: usize,
    end: usize,
}

/// A field of a message.
struct Field {
    number: u64,
    /// All of it: its tag, its length where it has one, and its value.
    whole: Span,
    /// Its length and its content, where it is bytes, text or a message.
    value: Option<(Span, Span)>,
}

impl Field {
    /// The length and the content of the field, if it is the one with this `number`.
    fn message(&self, number: u64) -> Result<Option<(Span, Span)>, EnvelopeError> {
        match (self.number == number, self.value) {
            (true, Some(value)) => Ok(Some(value)),
            (true, None) => Err(Malformed),
            (false, _) => Ok(None),
        }
    }
}

impl<'b> Reader<'b> {
    fn new(body: &'b [u8], message: Span) -> Reader<'b> {
        Reader {
            body,
            at: message.start,
            end: message.end.min(body.len()),
        }
    }

    /// The next field; `None` behind the last one.
    fn field(&mut self) -> Result<Option<Field>, EnvelopeError> {
        if self.at >= self.end {
            return Ok(None);
        }
        let start = self.at;
        let tag = self.varint()?;
        let number = tag >> 3;
        if number == 0 || tag > u32::MAX.into() {
            return Err(Malformed);
        }
        let mut value = None;
        match tag & 7 {
            0 => drop(self.varint()?),
            1 => self.skip(8)?,
            2 => {
                let length_start = self.at;
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                let content_start = self.at;
                self.skip(length)?;
                let length = Span::new(length_start, content_start);
                value = Some((length, Span::new(content_start, self.at)));
            }
            5 => self.skip(4)?,
            _ => return Err(Malformed),
        }
        Ok(Some(Field {
            number,
            whole: Span::new(start, self.at),
            value,
        }))
    }

    fn varint(&mut self) -> Result<u64, EnvelopeError> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = match self.body.get(self.at) {
                Some(byte) if self.at < self.end => *byte,
                _ => return Err(UnexpectedEnd),
            };
            self.at += 1;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                // Of the tenth byte there is room for one bit.
                let fits = shift < 63 || byte <= 1;
                return if fits { Ok(number) } else { Err(Malformed) };
            }
        }
        Err(Malformed)
    }

    fn skip(&mut self, bytes: usize) -> Result<(), EnvelopeError> {
        let end = self.at.checked_add(bytes);
        self.at = end.filter(|end| *end <= self.end).ok_or(UnexpectedEnd)?;
        Ok(())
    }
}
