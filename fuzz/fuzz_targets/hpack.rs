//! Header blocks of HTTP/2: a decoded field is within the limit, and a block made of what was decoded is decoded to the
//! same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sentry_mirror::internals::http2::hpack::{Decoder, Secrecy, append};

const LIST_BYTES: usize = 4096;

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

fuzz_target!(|data: &[u8]| {
    let Some(fields) = decode(data, LIST_BYTES) else {
        return;
    };
    let bytes: usize = fields
        .iter()
        .map(|(name, value)| name.len() + value.len() + 32)
        .sum();
    assert!(bytes <= LIST_BYTES);
    // One byte less than needed is too little.
    assert_eq!(decode(data, bytes).as_ref(), Some(&fields));
    if let Some(less) = bytes.checked_sub(1) {
        assert_eq!(decode(data, less), None);
    }

    let mut block = Vec::new();
    for (name, value) in &fields {
        append(&mut block, name, value, Secrecy::Plain);
    }
    let lower: Fields = fields
        .into_iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect();
    assert_eq!(decode(&block, LIST_BYTES), Some(lower));
});

fn decode(block: &[u8], list_bytes: usize) -> Option<Fields> {
    let mut fields = Vec::new();
    Decoder::default()
        .decode(block, list_bytes, |field| {
            fields.push((field.name.to_vec(), field.value.to_vec()))
        })
        .ok()?;
    Some(fields)
}
