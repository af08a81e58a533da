//! The header block of the response before, to find out whether it comes again.
//!
//! A server mostly sends the same header block over and over, except for a date, an id, or how long it took. Equal
//! blocks mean the same, unless they use a dynamic table, and then none is kept. To compare a block with the one before
//! takes far fewer instructions than to decode it.

use super::common_prefix::common_prefix;
use super::hpack::decoder::{Decoder, Field};
use crate::span::Span;

/// The longest block that is kept for comparison. Usual ones have 100 to 400 bytes.
pub(super) const KEPT_BYTES_MAX: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct KnownBlock {
    /// Empty if there is none.
    bytes: Vec<u8>,
    fields: Vec<KnownField>,
}

#[derive(Debug)]
struct KnownField {
    coded_value: Span,
    /// Whether its value has no meaning.
    may_vary: bool,
}

impl KnownBlock {
    pub(super) fn forget(&mut self) {
        self.bytes.clear();
        self.fields.clear();
    }

    /// Adds a field of the block that is being decoded.
    pub(super) fn add(&mut self, field: &Field<'_>, may_vary: bool) {
        let coded_value = field.coded_value;
        if coded_value.end <= KEPT_BYTES_MAX {
            self.fields.push(KnownField {
                coded_value,
                may_vary: may_vary && !coded_value.is_empty(),
            });
        }
    }

    /// Keeps `block`, which is valid, and all of whose fields were added.
    pub(super) fn keep(&mut self, block: &[u8]) {
        match block.len() <= KEPT_BYTES_MAX {
            true => self.bytes.extend_from_slice(block),
            false => self.forget(),
        }
    }

    /// Whether `block` is the same again, except for values that may vary and for which `is_valid` holds. Then it is
    /// kept in place of the one before.
    pub(super) fn recurs_in(
        &mut self,
        block: &[u8],
        decoder: &mut Decoder,
        is_valid: impl Fn(&[u8]) -> bool,
    ) -> bool {
        if self.bytes == block {
            return !block.is_empty();
        }
        if self.bytes.is_empty() || block.len() > KEPT_BYTES_MAX {
            return false;
        }
        loop {
            let same = common_prefix(&self.bytes, block);
            if same == self.bytes.len() && same == block.len() {
                return true;
            }
            if self
                .replace_value(same, block, decoder, &is_valid)
                .is_none()
            {
                return false;
            }
        }
    }

    /// Takes the value in which `block` differs, at `same`, from it. `None` if it differs in anything else.
    fn replace_value(
        &mut self,
        same: usize,
        block: &[u8],
        decoder: &mut Decoder,
        is_valid: impl Fn(&[u8]) -> bool,
    ) -> Option<()> {
        let index = self
            .fields
            .partition_point(|field| field.coded_value.end <= same);
        let (field, later) = self.fields.get_mut(index..)?.split_first_mut()?;
        let before = field.coded_value;
        if !field.may_vary || same < before.start {
            return None;
        }
        let mut rest = block.get(before.start..)?;
        let value = decoder.value(&mut rest).ok()?;
        if !is_valid(value) {
            return None;
        }
        let now = Span::new(before.start, block.len() - rest.len());
        let coded = now.slice(block).iter().copied();
        self.bytes.splice(before.start..before.end, coded);
        field.coded_value = now;
        for KnownField { coded_value, .. } in later {
            let shifted = |at: usize| at + now.end - before.end;
            *coded_value = Span::new(shifted(coded_value.start), shifted(coded_value.end));
        }
        Some(())
    }
}
