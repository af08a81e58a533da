//! Large work in slices, with pauses between them in which the core's other connections have their turn.
//!
//! What is done is counted as it is done, however small its pieces are: many small ones keep the core as
//! long as a large one.

use std::time::Duration;

/// How much is copied before other connections get their turn: some 0.5 ms of work, as long as the
/// memory is not new.
const COPIED_BYTES: usize = 1024 * 1024;

/// How much of payloads is walked over: some 0.5 ms of work, where they are made to take long.
const WALKED_BYTES: usize = 256 * 1024;

/// How long they get it. Yielding without sleeping would starve them on this runtime.
const PAUSE: Duration = Duration::from_millis(1);

/// Work of one kind, and how much of it was done since the last pause.
pub(super) struct Turns {
    slice: usize,
    done: usize,
}

impl Turns {
    /// For walking over payloads, counted in bytes.
    pub(super) const fn of_walks() -> Turns {
        Turns::of(WALKED_BYTES)
    }

    /// For work of which a pause is due after each `slice`.
    pub(super) const fn of(slice: usize) -> Turns {
        Turns { slice, done: 0 }
    }

    /// Takes note of what was `done`, and pauses where it is time to.
    pub(super) async fn pass(&mut self, done: usize) {
        self.done = self.done.saturating_add(done);
        if self.done >= self.slice {
            self.done = 0;
            monoio::time::sleep(PAUSE).await;
        }
    }
}

/// A text of `length` bytes that is made of `pieces`.
pub(super) async fn joined<'p>(
    pieces: impl IntoIterator<Item = &'p [u8]>,
    length: usize,
) -> Vec<u8> {
    let mut text = Vec::with_capacity(length);
    let mut turns = Turns::of(COPIED_BYTES);
    for slice in pieces
        .into_iter()
        .flat_map(|piece| piece.chunks(COPIED_BYTES))
    {
        text.extend_from_slice(slice);
        turns.pass(slice.len()).await;
    }
    text
}
