//! Content codings: no input makes the output longer than its limit, needs more memory than the limit and a
//! slice, or runs for ever; and the result does not depend on the slices. The first byte of the input selects
//! the coding, the second the size of a slice.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sentry_mirror::internals::http::encoding::{
    DecodeError, Decoder, Decompressors, Encoding, Step,
};

const LIMIT_BYTES: usize = 16 * 1024;

const CODINGS: [Encoding; 5] = [
    Encoding::Gzip,
    Encoding::Deflate,
    Encoding::Brotli,
    Encoding::Zstd,
    Encoding::Identity,
];

fuzz_target!(|data: &[u8]| {
    let [coding, slice, data @ ..] = data else {
        return;
    };
    let coding = CODINGS[usize::from(*coding) % CODINGS.len()];
    let mut pool = Decompressors::default();
    let whole = decode(coding, data, LIMIT_BYTES + 1, &mut pool);
    let in_slices = decode(coding, data, 1 + 16 * usize::from(*slice), &mut pool);
    match (&whole, &in_slices) {
        // Which of several faults is found first may depend on the slices.
        (Err(_), Err(_)) => {}
        _ => assert_eq!(whole, in_slices),
    }
});

fn decode(
    coding: Encoding,
    data: &[u8],
    slice_bytes: usize,
    pool: &mut Decompressors,
) -> Result<Bytes, DecodeError> {
    let input = Bytes::copy_from_slice(data);
    let mut decoder = Decoder::new(coding, input, LIMIT_BYTES, pool);
    // Each step reads or writes something, and some headers take a step of their own.
    for _ in 0..=data.len() + LIMIT_BYTES + 1 {
        let step = decoder.step(slice_bytes);
        assert!(decoder.output_bytes() <= LIMIT_BYTES + 1 + slice_bytes);
        if step? == Step::Done {
            let decoded = decoder.finish(pool);
            assert!(decoded.len() <= LIMIT_BYTES);
            return Ok(decoded);
        }
    }
    panic!("{coding:?} does not end");
}
