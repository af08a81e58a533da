//! What is compressed of a request, each piece once.
//!
//! Outbounds with different transforms often get the same bytes: where an envelope has no item but errors,
//! one that takes errors only gets what one that takes everything gets. A piece is known by where it lies
//! in memory, and is kept here so that nothing else comes to lie there. It is compressed in slices with
//! pauses between them, and counts in the memory budget.

use std::rc::Rc;

use bytes::Bytes;

use crate::http::compress::{Codec, Compressed, Compressor};
use crate::mirror::core::Core;
use crate::runtime::memory_budget::MemoryReservation;
use crate::runtime::slices;

/// How much is compressed before other connections get their turn: some 0.5 ms of work.
const SLICE_BYTES: usize = 64 * 1024;

/// What was compressed so far.
#[derive(Default)]
pub(super) struct Compressions(Vec<(Bytes, Rc<Compressed>)>);

impl Compressions {
    /// `rest` in the coding `codec`; `None` if `memory` allows no more memory.
    pub(super) async fn compress(
        &mut self,
        rest: &Bytes,
        codec: Codec,
        core: &Core,
        memory: &mut MemoryReservation,
    ) -> Option<Rc<Compressed>> {
        let place = rest.as_ptr_range();
        let mut known = self.0.iter();
        let known = known.find(|(of, made)| of.as_ptr_range() == place && made.codec == codec);
        if let Some((_, compressed)) = known {
            return Some(Rc::clone(compressed));
        }
        let compressed = Rc::new(compress(rest, codec, core, memory).await?);
        self.0.push((rest.clone(), Rc::clone(&compressed)));
        Some(compressed)
    }
}

/// The same for a piece that nobody else gets.
pub(super) async fn compress(
    rest: &Bytes,
    codec: Codec,
    core: &Core,
    memory: &mut MemoryReservation,
) -> Option<Compressed> {
    let reserved_bytes = memory.bytes();
    let pool = &core.compressors;
    let mut compressor = Compressor::new(codec, rest.clone(), &mut pool.borrow_mut());
    loop {
        let is_done = compressor.step(SLICE_BYTES).ok()?;
        if !memory.resize(reserved_bytes + compressor.held_bytes()) {
            memory.shrink(memory.bytes() - reserved_bytes);
            return None;
        }
        if is_done {
            break;
        }
        slices::pause().await;
    }
    let compressed = compressor.finish(&mut pool.borrow_mut());
    // No more than it took while it was made.
    let _ = memory.resize(reserved_bytes + compressed.bytes.len());
    Some(compressed)
}
