//! A reference implementation: finds the items of an envelope with a JSON library.
//!
//! The walk over item headers is compared with it, so it shares no code with that. A header is a map, in which the
//! last of several members with one name stays, as in Relay.

use std::ops::Range;

use serde_json::{Map, Value};

/// The type and the payload of each item, if all are well-formed.
pub(crate) fn items(body: &[u8], header_end: usize) -> Option<Vec<(Vec<u8>, Range<usize>)>> {
    let mut found = Vec::new();
    let mut at = after_line(body, header_end)?;
    while at < body.len() {
        let mut stream = serde_json::Deserializer::from_slice(&body[at..]).into_iter();
        let header: Map<String, Value> = stream.next()?.ok()?;
        let kind = header.get("type")?.as_str()?;
        let length = number(&header, "length")?;
        number(&header, "item_count")?;
        let start = after_line(body, at + stream.byte_offset())?;
        let rest = &body[start..];
        let length = match length {
            Some(length) => length as usize,
            None => rest
                .iter()
                .position(|byte| *byte == b'\n')
                .unwrap_or(rest.len()),
        };
        if length > rest.len() || found.len() == 500 {
            return None;
        }
        found.push((kind.as_bytes().to_vec(), start..start + length));
        at = after_line(body, start + length)?;
    }
    Some(found)
}

/// An optional number; `None` for any other value.
fn number(header: &Map<String, Value>, name: &str) -> Option<Option<u32>> {
    match header.get(name) {
        None | Some(Value::Null) => Some(None),
        Some(value) => Some(Some(u32::try_from(value.as_u64()?).ok()?)),
    }
}

/// The position after the line feed at `at`; the end of the body counts as a line feed.
fn after_line(body: &[u8], at: usize) -> Option<usize> {
    match body.get(at) {
        Some(b'\n') => Some(at + 1),
        Some(_) => None,
        None => Some(body.len()),
    }
}
