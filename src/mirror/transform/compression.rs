//! Compresses the parts of a request, each only once.
//!
//! Outbounds with different transforms often get the same bytes: if an envelope contains only errors, an
//! outbound that takes only errors gets the same bytes as one that takes everything. The address identifies
//! the bytes; they are kept alive here, so that no other bytes can have their address. Compression runs in
//! slices with pauses between them, and its memory counts against the memory budget.

use std::rc::Rc;

use bytes::Bytes;

use crate::http::compress::{Codec, Compressed, Compressor};
use crate::mirror::core::Core;
use crate::runtime::memory_budget::MemoryReservation;
use crate::runtime::slices;

/// Compression pauses after so many bytes, which take about 0.5 ms.
const SLICE_BYTES: usize = 64 * 1024;

/// The bytes compressed so far, with their compressed form.
#[derive(Default)]
pub(super) struct Compressions(Vec<(Bytes, Rc<Compressed>)>);

impl Compressions {
    /// Compresses `rest` with `codec`. Returns `None` if `memory` cannot grow.
    pub(super) async fn compress(
        &mut self,
        rest: &Bytes,
        codec: Codec,
        core: &Core,
        memory: &mut MemoryReservation,
    ) -> Option<Rc<Compressed>> {
        let address = rest.as_ptr_range();
        let is_same = |(plain, compressed): &&(Bytes, Rc<Compressed>)| {
            plain.as_ptr_range() == address && compressed.codec == codec
        };
        if let Some((_, compressed)) = self.0.iter().find(is_same) {
            return Some(Rc::clone(compressed));
        }
        let compressed = Rc::new(compress(rest, codec, core, memory).await?);
        self.0.push((rest.clone(), Rc::clone(&compressed)));
        Some(compressed)
    }
}

/// Compresses bytes that only one delivery needs, without keeping the result.
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
        slices::yield_now().await;
    }
    let compressed = compressor.finish(&mut pool.borrow_mut());
    // It never grows here: the compressor held at least as much.
    let _ = memory.resize(reserved_bytes + compressed.bytes.len());
    Some(compressed)
}
