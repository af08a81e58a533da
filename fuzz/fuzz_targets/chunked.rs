//! Chunked bodies: however the bytes arrive, the body and the place of the next request are the same,
//! and no body is longer than its limit. The first byte says into what pieces the rest is cut.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use sentry_mirror::http::chunked::{ChunkError, Chunked, Progress};

const LIMIT_BYTES: usize = 256;

fuzz_target!(|data: &[u8]| {
    let Some((piece_bytes, data)) = data.split_first() else {
        return;
    };
    let whole = decode(data, data.len().max(1));
    let in_pieces = decode(data, usize::from(*piece_bytes).max(1));
    match (&whole, &in_pieces) {
        // Which fault of several is met first may depend on the pieces.
        (Err(_), Err(_)) => {}
        _ => assert_eq!(whole, in_pieces),
    }
});

/// The body, if it is complete, and what follows it.
type Decoded = Option<(Vec<u8>, Vec<u8>)>;

fn decode(data: &[u8], piece_bytes: usize) -> Result<Decoded, ChunkError> {
    let mut decoder = Chunked::new(LIMIT_BYTES);
    let mut buffer = BytesMut::new();
    let mut unread = data;
    for piece in data.chunks(piece_bytes) {
        buffer.extend_from_slice(piece);
        unread = &unread[piece.len()..];
        if let Progress::Done { body, consumed } = decoder.decode(&mut buffer)? {
            assert!(body.len() <= LIMIT_BYTES && body.end <= consumed);
            let next = [&buffer[consumed..], unread].concat();
            return Ok(Some((body.of(&buffer).to_vec(), next)));
        }
    }
    Ok(None)
}
