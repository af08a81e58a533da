//! The records of a body in JSON.
//!
//! Names are in lowerCamelCase and trace ids in hexadecimal digits, as the OTLP specification says of its
//! JSON encoding.

use std::mem;

use super::{Finder, Signal};
use crate::sentry::envelope::EnvelopeError::{self, Malformed};
use crate::sentry::envelope::{Scanner, unescape};
use crate::sentry::places::elements;
use crate::sentry::sampling::SamplingKey;
use crate::span::Span;

impl Signal {
    /// The arrays on the way to the records: of resources, of scopes, of records.
    const fn arrays(self) -> [&'static str; 3] {
        match self {
            Signal::Traces => ["resourceSpans", "scopeSpans", "spans"],
            Signal::Logs => ["resourceLogs", "scopeLogs", "logRecords"],
        }
    }
}

/// Tells `finder` of the records in `body`.
pub(super) fn find(body: &[u8], signal: Signal, finder: &mut Finder) -> Result<(), EnvelopeError> {
    let [resources, scopes, records] = signal.arrays();
    let mut scanner = Scanner { body, at: 0 };
    let nesting = Scanner::NESTING_MAX - 1;
    array_of(&mut scanner, resources, nesting, |scanner| {
        group(scanner, finder, |scanner, finder| {
            array_of(scanner, scopes, nesting - 2, |scanner| {
                group(scanner, finder, |scanner, finder| {
                    array_of(scanner, records, nesting - 4, |scanner| {
                        record(scanner, nesting - 6, finder)
                    })
                })
            })
        })
    })
}

/// Walks over an object, and with `element` over each element of its array `name`. Values in the object may
/// be nested `nesting_max` deep.
fn array_of(
    scanner: &mut Scanner<'_>,
    name: &str,
    nesting_max: u32,
    mut element: impl FnMut(&mut Scanner<'_>) -> Result<(), EnvelopeError>,
) -> Result<(), EnvelopeError> {
    let mut was_there = false;
    scanner.object(|scanner, member| {
        if member != name.as_bytes() || scanner.next_token()? != b'[' {
            return scanner.skip_value(nesting_max);
        }
        // Relay takes no second one.
        if mem::replace(&mut was_there, true) {
            return Err(Malformed);
        }
        elements(scanner, &mut element)
    })
}

/// Walks over a group, with `walk` over its content.
fn group(
    scanner: &mut Scanner<'_>,
    finder: &mut Finder,
    walk: impl FnOnce(&mut Scanner<'_>, &mut Finder) -> Result<(), EnvelopeError>,
) -> Result<(), EnvelopeError> {
    let start = Span::new(scanner.at, scanner.at);
    let index = finder.begin(start, Span::default(), start)?;
    walk(scanner, finder)?;
    finder.end(index, scanner.at);
    Ok(())
}

fn record(
    scanner: &mut Scanner<'_>,
    nesting_max: u32,
    finder: &mut Finder,
) -> Result<(), EnvelopeError> {
    let start = scanner.at;
    let mut trace = None;
    scanner.object(|scanner, name| {
        if name == b"traceId" && scanner.next_token()? == b'"' {
            trace = Some(scanner.string()?);
            return Ok(());
        }
        scanner.skip_value(nesting_max)
    })?;
    let body = scanner.body;
    let key = trace.and_then(|trace| SamplingKey::from_id(&unescape(trace.slice(body))));
    finder.record(Span::new(start, scanner.at), key)
}
