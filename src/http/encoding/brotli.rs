//! `br` (RFC 7932), which Python's SDK prefers when it can.
//!
//! The decoder is made for one body and sized by it. Windows are at most 16 MiB: the "large window"
//! extension, with which a few bytes can ask for a gigabyte, is not part of the RFC and is refused.
//! What follows the end of the stream is ignored.

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};

use super::{Advance, DecodeError};

/// A brotli stream.
pub(super) struct Brotli {
    /// On the heap, for it is a few KiB of tables' heads that would move with the decoder.
    state: Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>,
    written_bytes: usize,
}

impl Brotli {
    pub(super) fn new() -> Brotli {
        let alloc = StandardAlloc::default;
        Brotli {
            state: Box::new(BrotliState::new_strict(alloc(), alloc(), alloc())),
            written_bytes: 0,
        }
    }

    pub(super) fn run(&mut self, input: &[u8], output: &mut [u8]) -> Result<Advance, DecodeError> {
        let mut advance = Advance::default();
        let result = BrotliDecompressStream(
            &mut input.len(),
            &mut advance.read_bytes,
            input,
            &mut output.len(),
            &mut advance.written_bytes,
            output,
            &mut self.written_bytes,
            &mut self.state,
        );
        advance.done = match result {
            BrotliResult::ResultSuccess => true,
            BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => false,
            BrotliResult::ResultFailure => return Err(DecodeError::Corrupt),
        };
        Ok(advance)
    }
}
