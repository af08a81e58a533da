//! Parses a body in protobuf.
//!
//! The wire format is described at <https://protobuf.dev/programming-guides/encoding/>. Groups are an error: they
//! are deprecated, and OTLP never had them.

use super::nodes::{NodeList, Signal};
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
    /// The number of the field `trace_id` in a record.
    const fn trace_id(self) -> u64 {
        match self {
            Signal::Traces => 1,
            Signal::Logs => 9,
        }
    }
}

/// Appends the records in `body` to `list`.
pub(super) fn parse(body: &[u8], signal: Signal, list: &mut NodeList) -> Result<(), EnvelopeError> {
    let mut request = Reader::new(body, Span::new(0, body.len()));
    while let Some(field) = request.field()? {
        let Some((length, content)) = field.message(RESOURCES)? else {
            continue;
        };
        let resource = list.begin(field.whole, length, content)?;
        let mut fields = Reader::new(body, content);
        while let Some(field) = fields.field()? {
            let Some((length, content)) = field.message(SCOPES)? else {
                continue;
            };
            let scope = list.begin(field.whole, length, content)?;
            let mut fields = Reader::new(body, content);
            while let Some(field) = fields.field()? {
                if let Some((_, content)) = field.message(RECORDS)? {
                    let trace = trace_key(body, content, signal)?;
                    list.record(field.whole, trace)?;
                }
            }
            list.end(scope, field.whole.end);
        }
        list.end(resource, field.whole.end);
    }
    Ok(())
}

/// The sampling key of a record's trace id: sixteen bytes, not all of them zeros.
fn trace_key(
    body: &[u8],
    record: Span,
    signal: Signal,
) -> Result<Option<SamplingKey>, EnvelopeError> {
    let mut trace = None;
    let mut fields = Reader::new(body, record);
    while let Some(field) = fields.field()? {
        if let Some((_, content)) = field.message(signal.trace_id())? {
            // The last of several counts.
            trace = <[u8; 16]>::try_from(content.slice(body))
                .ok()
                .and_then(|id| SamplingKey::from_u128(u128::from_be_bytes(id)));
        }
    }
    Ok(trace)
}

/// Encodes a number as a varint, in as few bytes as possible.
pub(super) fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// Reads the fields of a message.
struct Reader<'b> {
    body: &'b [u8],
    at: usize,
    end: usize,
}

struct Field {
    number: u64,
    /// Tag, length if there is one, and value.
    whole: Span,
    /// Length and content, for bytes, strings and messages.
    value: Option<(Span, Span)>,
}

impl Field {
    /// Length and content, if this is field `number`.
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

    /// The next field; `None` after the last.
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
                // The tenth byte has the last of the 64 bits.
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
