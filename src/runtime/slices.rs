//! Long work in slices, with pauses in which the core's other connections are served.
//!
//! Work is counted as it is done, however small its pieces are: many small ones keep the core as long as
//! a large one.

use std::time::Duration;

/// How much is copied in a slice: some 0.5 ms of work, as long as the memory is not new.
const COPIED_BYTES: usize = 1024 * 1024;

/// How much of payloads is walked over in a slice: some 0.5 ms of work on crafted ones.
const WALKED_BYTES: usize = 256 * 1024;

/// The pause between slices. To yield without sleeping would starve the other tasks on this runtime.
const PAUSE: Duration = Duration::from_millis(1);

/// Work of one kind, and how much of it was done since the last pause.
pub(crate) struct Slices {
    slice: usize,
    done: usize,
}

impl Slices {
    /// For walking over payloads, counted in bytes.
    pub(crate) const fn of_walks() -> Slices {
        Slices::new(WALKED_BYTES)
    }

    /// For work with a pause after each `slice` of it.
    pub(crate) const fn new(slice: usize) -> Slices {
        Slices { slice, done: 0 }
    }

    /// Counts what was `done`, and pauses after a slice.
    pub(crate) async fn spend(&mut self, done: usize) {
        self.done = self.done.saturating_add(done);
        if self.done >= self.slice {
            self.done = 0;
            pause().await;
        }
    }
}

/// Lets the core's other connections be served.
pub(crate) async fn pause() {
    monoio::time::sleep(PAUSE).await;
}

/// The concatenation of `pieces`, which have `length` bytes.
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
