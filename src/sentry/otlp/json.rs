//! Parses a body in JSON. In this encoding of OTLP, names are in lowerCamelCase and trace ids in hexadecimal.

use std::mem;

use super::nodes::{NodeList, Signal};
use crate::sentry::envelope::EnvelopeError::{self, Malformed};
use crate::sentry::envelope::{Scanner, unescape};
use crate::sentry::sampling::SamplingKey;
use crate::span::Span;

impl Signal {
    /// The names of the arrays of resources, of scopes and of records.
    const fn arrays(self) -> [&'static str; 3] {
        match self {
            Signal::Traces => ["resourceSpans", "scopeSpans", "spans"],
            Signal::Logs => ["resourceLogs", "scopeLogs", "logRecords"],
        }
    }
}

/// Appends the records in `body` to `list`.
pub(super) fn parse(body: &[u8], signal: Signal, list: &mut NodeList) -> Result<(), EnvelopeError> {
    let [resources, scopes, records] = signal.arrays();
    let mut scanner = Scanner { body, at: 0 };
    let nesting = Scanner::NESTING_MAX - 1;
    array(&mut scanner, resources, nesting, |scanner| {
        group(scanner, list, |scanner, list| {
            array(scanner, scopes, nesting - 2, |scanner| {
                group(scanner, list, |scanner, list| {
                    array(scanner, records, nesting - 4, |scanner| {
                        record(scanner, nesting - 6, list)
                    })
                })
            })
        })
    })
}

/// Walks over an object, and calls `element` to walk over each element of its array `name`. Other values may be
/// nested `nesting_max` deep.
fn array(
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
        // Relay rejects a second one.
        if mem::replace(&mut was_there, true) {
            return Err(Malformed);
        }
        scanner.elements(&mut element)
    })
}

/// Appends a group, and calls `walk` to walk over its content.
fn group(
    scanner: &mut Scanner<'_>,
    list: &mut NodeList,
    walk: impl FnOnce(&mut Scanner<'_>, &mut NodeList) -> Result<(), EnvelopeError>,
) -> Result<(), EnvelopeError> {
    let start = Span::new(scanner.at, scanner.at);
    let index = list.begin(start, Span::default(), start)?;
    walk(scanner, list)?;
    list.end(index, scanner.at);
    Ok(())
}

fn record(
    scanner: &mut Scanner<'_>,
    nesting_max: u32,
    list: &mut NodeList,
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
    list.record(Span::new(start, scanner.at), key)
}
