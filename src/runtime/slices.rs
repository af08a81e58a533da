//! Runs long work in slices. Between slices the core serves its other connections.
//!
//! All work counts, however small its pieces are: many small ones take as long as a large one.

use crate::runtime::coop_budget::YIELD_INTERVAL;

/// How many bytes a slice copies: about 0.5 ms of work if the memory is not new.
const COPIED_BYTES: usize = 1024 * 1024;

/// How many bytes of payloads a slice scans: about 0.5 ms of work on crafted ones.
const SCANNED_BYTES: usize = 256 * 1024;

/// How much work of one kind was done in the current slice.
pub(crate) struct Slices {
    slice: usize,
    done: usize,
}

impl Slices {
    /// For scanning payloads, counted in bytes.
    pub(crate) const fn for_scans() -> Slices {
        Slices::new(SCANNED_BYTES)
    }

    /// For any work, in slices of this size.
    pub(crate) const fn new(slice: usize) -> Slices {
        Slices { slice, done: 0 }
    }

    /// Counts work that was `done`. Yields at the end of a slice.
    pub(crate) async fn spend(&mut self, done: usize) {
        self.done = self.done.saturating_add(done);
        if self.done >= self.slice {
            self.done = 0;
            yield_now().await;
        }
    }
}

/// Lets the core serve its other connections.
pub(crate) async fn yield_now() {
    monoio::time::sleep(YIELD_INTERVAL).await;
}

/// Concatenates `pieces`, which have `length` bytes together.
pub(crate) async fn concat<'p>(
    pieces: impl IntoIterator<Item = &'p [u8]>,
    length: usize,
) -> Vec<u8> {
    let mut text = Vec::with_capacity(length);
    let mut slices = Slices::new(COPIED_BYTES);
    for slice in pieces
        .into_iter()
        .flat_map(|piece| piece.chunks(COPIED_BYTES))
    {
        text.extend_from_slice(slice);
        slices.spend(slice.len()).await;
    }
    text
}
