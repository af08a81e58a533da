//! Undoing a content coding without keeping the core from its other connections.
//!
//! Decoding a body of many megabytes takes as long as a thousand requests. It is done in slices with
//! pauses between them, and within what is left of the memory budget, so that a bomb costs no more
//! than the limit on decoded bytes.

use std::cell::RefCell;
use std::time::Duration;

use bytes::Bytes;

use crate::http::encoding::{Decoder, Decompressors, Encoding, Step};
use crate::mirror::rejection::Rejection;
use crate::server::budget::Reservation;

/// How much a decoder puts out before other connections get their turn: about 0.5 ms of work.
const SLICE_BYTES: usize = 512 * 1024;

/// How long they get it. Yielding without sleeping would starve them on this runtime.
const PAUSE: Duration = Duration::from_millis(1);

/// The decoded form of `body`, at most `bytes_max` long, for which `share` grows as needed.
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
    let coded_bytes = share.bytes();
    let mut decoder = Decoder::new(encoding, body, bytes_max, &mut decompressors.borrow_mut());
    loop {
        let step = decoder.step(SLICE_BYTES).map_err(Rejection::Decode)?;
        if !share.resize(coded_bytes + decoder.held_bytes()) {
            return Err(Rejection::Overloaded);
        }
        match step {
            Step::More => monoio::time::sleep(PAUSE).await,
            Step::Done => break,
        }
    }
    let decoded = decoder.finish(&mut decompressors.borrow_mut());
    // The coded form is gone now; a smaller share is always granted.
    let _ = share.resize(share.bytes() - coded_bytes);
    Ok(decoded)
}
