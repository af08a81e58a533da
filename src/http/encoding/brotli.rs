//! `br` (RFC 7932), which Python's SDK prefers if it has the library.
//!
//! Each body gets a new decoder, sized by that body. Windows are at most 16 MiB: the "large window" extension, by
//! which a few bytes could ask for a gigabyte, is not part of the RFC and is rejected. Bytes after the end of the
//! stream are ignored.

use std::cell::Cell;
use std::rc::Rc;

use brotli_decompressor::{
    Allocator, BrotliDecompressStream, BrotliResult, BrotliState, SliceWrapper, StandardAlloc,
};

use super::advance::{Advance, DecodeError};

pub(super) struct Brotli {
    /// Boxed, since it is a few KiB and the decoder is moved.
    state: Box<BrotliState<Counted, Counted, Counted>>,
    held_bytes: Rc<Cell<usize>>,
    written_bytes: usize,
}

/// The default allocator, with a counter of the bytes in use.
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

    /// The memory that the decoder has allocated.
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
