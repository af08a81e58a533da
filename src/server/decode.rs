//! Undoing a content coding without keeping the core from its other connections.
//!
//! Decoding a body of many megabytes takes as long as a thousand requests. It is done in slices with
//! pauses between them, and within what is left of the memory budget, so that a bomb costs no more
//! than the limit on decoded bytes.

use std::cell::RefCell;
use std::time::Duration;

use bytes::Bytes;

use crate::budget::Reservation;
use crate::http::encoding::{Decoder, Decompressors, Encoding, Step};
use crate::mirror::rejection::Rejection;

/// How much a decoder puts out before other connections get their turn: about 0.5 ms of work.
const SLICE_BYTES: usize = 512 * 1024;

/// How long they get it. Yielding without sleeping would starve them on this runtime.
const PAUSE: Duration = Duration::from_millis(1);

/// The decoded form of `body`, at most `bytes_max` long. `share` covers `body`, and the decoded form
/// afterwards; in between it grows by what the decoder takes.
pub async fn decode(
    encoding: Encoding,
    body: Bytes,
    bytes_max: usize,
    share: &mut Reservation,
    decompressors: &RefCell<Decompressors>,
) -> Result<Bytes, Rejection> {
    if encoding == Encoding::Identity || body.is_empty() {
        return Ok(body);
    }
    let before = share.bytes();
    let coded_bytes = body.len();
    let mut decoder = Decoder::new(encoding, body, bytes_max, &mut decompressors.borrow_mut());
    loop {
        let step = decoder.step(SLICE_BYTES).map_err(Rejection::Decode)?;
        if !share.resize(before + decoder.output_bytes() + decoder.state_bytes()) {
            return Err(Rejection::Overloaded);
        }
        match step {
            Step::More => monoio::time::sleep(PAUSE).await,
            Step::Done => break,
        }
    }
    share.shrink(coded_bytes + decoder.state_bytes());
    Ok(decoder.finish(&mut decompressors.borrow_mut()))
}
