//! `br` (RFC 7932), which Python's SDK prefers when it can.
//!
//! The decoder is made for one body and sized by it. Windows are at most 16 MiB: the "large window"
//! extension, with which a few bytes can ask for a gigabyte, is not part of the RFC and is refused.
//! What follows the end of the stream is ignored.

use std::cell::Cell;
use std::rc::Rc;

use brotli_decompressor::{
    Allocator, BrotliDecompressStream, BrotliResult, BrotliState, SliceWrapper, StandardAlloc,
};

use super::{Advance, DecodeError};

/// A brotli stream.
pub(super) struct Brotli {
    /// On the heap, for it is a few KiB of tables' heads that would move with the decoder.
    state: Box<BrotliState<Counted, Counted, Counted>>,
    held_bytes: Rc<Cell<usize>>,
    written_bytes: usize,
}

/// The usual allocator, which adds up what it has given.
#[derive(Clone)]
struct Counted(Rc<Cell<usize>>);

impl<T: Clone + Default> Allocator<T> for Counted {
    type AllocatedMemory = <StandardAlloc as Allocator<T>>::AllocatedMemory;

    fn alloc_cell(&mut self, len: usize) -> Self::AllocatedMemory {
        self.0.set(self.0.get() + len * size_of::<T>());
        StandardAlloc::default().alloc_cell(len)
    }

    fn free_cell(&mut self, data: Self::AllocatedMemory) {
        self.0
            .set(self.0.get().saturating_sub(size_of_val(data.slice())));
        StandardAlloc::default().free_cell(data);
    }
}

impl Brotli {
    pub(super) fn new() -> Brotli {
        let held_bytes = Rc::default();
        let alloc = || Counted(Rc::clone(&held_bytes));
        Brotli {
            state: Box::new(BrotliState::new_strict(alloc(), alloc(), alloc())),
            held_bytes,
            written_bytes: 0,
        }
    }

    /// What the decoder has allocated.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes.get()
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
