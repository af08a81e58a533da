//! `zstd` (RFC 8878), which Relays in front of us send.
//!
//! All frames are decoded, skippable ones skipped. The window is limited to the 8 MiB that RFC 9659
//! allows for this encoding and that RFC 8878 §3.1.1.1.2 asks a decoder to support; the library's own
//! limit of 128 MiB would let a few bytes allocate that much.

use ::zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::{Advance, DecodeError};

/// The binary logarithm of 8 MiB.
const WINDOW_LOG_MAX: u32 = 23;

/// The frames of a zstd body.
pub(super) struct Zstd {
    context: DCtx<'static>,
}

impl Zstd {
    pub(super) fn new() -> Zstd {
        let mut context = DCtx::create();
        let limited = context.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX));
        debug_assert!(limited.is_ok(), "any window the format knows is accepted");
        Zstd { context }
    }

    /// What the library has allocated.
    pub(super) fn held_bytes(&self) -> usize {
        self.context.sizeof()
    }

    pub(super) fn run(
        &mut self,
        input: &[u8],
        is_last: bool,
        output: &mut [u8],
    ) -> Result<Advance, DecodeError> {
        let mut input = InBuffer::around(input);
        let mut output = OutBuffer::around(output);
        // The library stops behind each frame. A body may be all small frames, so it is asked again.
        let is_frame_end = loop {
            let decoded = self.context.decompress_stream(&mut output, &mut input);
            let missing_bytes = decoded.map_err(|_| DecodeError::Corrupt)?;
            let is_input_end = input.pos() == input.src.len();
            if missing_bytes > 0 || is_input_end || output.pos() == output.capacity() {
                break missing_bytes == 0;
            }
        };
        Ok(Advance {
            read_bytes: input.pos(),
            written_bytes: output.pos(),
            done: is_frame_end && is_last && input.pos() == input.src.len(),
        })
    }
}
