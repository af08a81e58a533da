//! The items of an envelope as a JSON library finds them: slowly, and in the plainest way.
//!
//! It is what the walk over item headers is compared with, here and by fuzzing, so it shares no code with
//! that. A name that comes twice is an error of the derived code, as it is in Relay's.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;
use serde_json::Value;

/// What is read of an item's header.
#[derive(Deserialize)]
struct Header {
    r#type: String,
    length: Option<u32>,
    #[serde(rename = "item_count")]
    _item_count: Option<u32>,
    #[serde(rename = "attachment_type")]
    _attachment_type: Option<String>,
    #[serde(flatten)]
    _others: BTreeMap<String, Value>,
}

/// The type of each item and where its payload is, if all are well-formed.
pub(crate) fn items(body: &[u8], header_end: usize) -> Option<Vec<(Vec<u8>, Range<usize>)>> {
    let mut found = Vec::new();
    let mut at = after_line(body, header_end)?;
    while at < body.len() {
        let mut stream = serde_json::Deserializer::from_slice(&body[at..]).into_iter::<Header>();
        let header = stream.next()?.ok()?;
        let start = after_line(body, at + stream.byte_offset())?;
        let rest = &body[start..];
        let length = match header.length {
            Some(length) => length as usize,
            None => rest
                .iter()
                .position(|byte| *byte == b'\n')
                .unwrap_or(rest.len()),
        };
        if length > rest.len() || found.len() == 500 {
            return None;
        }
        found.push((header.r#type.into_bytes(), start..start + length));
        at = after_line(body, start + length)?;
    }
    Some(found)
}

/// The position behind the line feed at `at`; the end of the body is as good as one.
fn after_line(body: &[u8], at: usize) -> Option<usize> {
    match body.get(at) {
        Some(b'\n') => Some(at + 1),
        Some(_) => None,
        None => Some(body.len()),
    }
}
