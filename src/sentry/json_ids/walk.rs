//! Walks over a JSON text and collects the values at given paths.

use super::paths::JsonPath::{Elements, Members, Value};
use super::paths::{
    ENTRY, FOUND_MAX, IdSpan, JsonPath, PAYLOAD, SEARCHED_BYTES_MAX, TRACE_ATTACHMENT,
};
use crate::sentry::envelope::{EnvelopeError, Scanner};
use crate::span::Span;

/// Appends to `found` the ids in the JSON in front of the file of a trace attachment, in its first
/// [`SEARCHED_BYTES_MAX`].
pub(crate) fn search_trace_attachment(text: &[u8], meta: Span, found: &mut Vec<IdSpan>) {
    let end = meta.start + meta.len().min(SEARCHED_BYTES_MAX);
    let text = text.get(..end).unwrap_or_default();
    // After an error, the ids in front of it are in `found`.
    let _ = find(text, meta.start, &TRACE_ATTACHMENT, found);
}

/// Walks over the JSON value at `start` of `text` and appends to `found` the values at `path`, in their order.
/// After an error, the values in front of it are in `found`.
pub(crate) fn find(
    text: &[u8],
    start: usize,
    path: &JsonPath,
    found: &mut Vec<IdSpan>,
) -> Result<(), EnvelopeError> {
    let mut scanner = Scanner {
        body: text,
        at: start,
    };
    walk(&mut scanner, path, Scanner::NESTING_MAX, found)
}

/// Walks over a payload that is an object with an array `items`: calls `entry` for each of those, with the
/// ids in it, and appends to `found` all ids in the payload.
///
/// # Errors
/// The payload is malformed or has more than `entries_max` entries. The walk ends there, and the caller has to
/// discard the entries so far.
pub(crate) fn entries(
    text: &[u8],
    payload: Span,
    entries_max: usize,
    found: &mut Vec<IdSpan>,
    mut entry: impl FnMut(Span, &[IdSpan]),
) -> Result<(), EnvelopeError> {
    let mut scanner = Scanner {
        body: text.get(..payload.end).unwrap_or_default(),
        at: payload.start,
    };
    let within = Scanner::NESTING_MAX - 1;
    let mut left = entries_max;
    let mut inside = Vec::new();
    scanner.object(|scanner, name| {
        let token = scanner.next_token()?;
        if name == b"items" && token == b'[' {
            return scanner.elements(|scanner| {
                left = left.checked_sub(1).ok_or(EnvelopeError::TooMany)?;
                let start = scanner.at;
                inside.clear();
                let walked = walk(scanner, &ENTRY, within - 1, &mut inside);
                inside.iter().for_each(|value| note(found, *value));
                walked?;
                entry(Span::new(start, scanner.at), &inside);
                Ok(())
            });
        }
        match PAYLOAD.member(name, token) {
            Some(path) => walk(scanner, path, within, found),
            None => scanner.skip_value(within),
        }
    })
}

fn note(found: &mut Vec<IdSpan>, value: IdSpan) {
    if found.len() < FOUND_MAX {
        found.push(value);
    }
}

/// Walks over a value; arrays and objects may be nested `nesting_max` deep.
fn walk(
    scanner: &mut Scanner<'_>,
    path: &JsonPath,
    nesting_max: u32,
    found: &mut Vec<IdSpan>,
) -> Result<(), EnvelopeError> {
    let within = nesting_max.saturating_sub(1);
    match (path, scanner.next_token()?) {
        (Value(kind), b'"') => {
            let (kind, span) = (*kind, scanner.string()?);
            note(found, IdSpan { kind, span });
            Ok(())
        }
        (Value(kind), b'0'..=b'9') => {
            let start = scanner.at;
            scanner.skip_scalar()?;
            let (kind, span) = (*kind, Span::new(start, scanner.at));
            note(found, IdSpan { kind, span });
            Ok(())
        }
        (Members(_), b'{') => scanner.members(|scanner, name| {
            let token = scanner.next_token()?;
            match path.member(name, token) {
                Some(path) => walk(scanner, path, within, found),
                None => scanner.skip_value(within),
            }
        }),
        (Elements(path), b'[') => scanner.elements(|scanner| walk(scanner, path, within, found)),
        _ => scanner.skip_value(nesting_max),
    }
}
