//! Decodes header blocks. A connection has one decoder, which gets all of its blocks in order: the dynamic table that
//! some servers use must stay in step with theirs.

use super::dynamic_table::{self, DynamicTable};
use super::{huffman, integer, static_table};
use crate::span::Span;

/// What RFC 7541 §4.1 adds to the length of each field.
const FIELD_OVERHEAD: usize = 32;

/// Why a header block cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// It is not HPACK, or refers to an entry that there is not.
    Malformed,
    /// The header list is longer than allowed.
    TooLarge,
}

/// A field of a header block.
#[derive(Clone, Copy, Debug)]
pub struct Field<'f> {
    pub name: &'f [u8],
    pub value: &'f [u8],
    /// Where the block has the coded value. It ends where the field ends, and is empty if the static table has the
    /// value.
    pub(crate) coded_value: Span,
}

#[derive(Debug, Default)]
pub struct Decoder {
    table: DynamicTable,
    has_used_table: bool,
    /// Reused for their memory.
    name: Vec<u8>,
    value: Vec<u8>,
}

/// How many times longer than allowed a header list may be so that its connection goes on.
const TOO_LARGE_FACTOR_MAX: usize = 4;

/// The first index of the dynamic table.
const FIRST_DYNAMIC: usize = 62;

impl Decoder {
    /// Whether the last block added something to the dynamic table, or referred to it. Otherwise an equal block means
    /// the same at any time.
    pub(crate) fn has_used_table(&self) -> bool {
        self.has_used_table
    }

    /// Passes each field of `block` to `on_field`.
    ///
    /// # Errors
    /// The block is not valid, or it has more than `list_bytes_max` by the count of RFC 9113 §6.5.2. After the
    /// latter, the next block can be decoded.
    pub fn decode(
        &mut self,
        block: &[u8],
        list_bytes_max: usize,
        mut on_field: impl FnMut(Field<'_>),
    ) -> Result<(), DecodeError> {
        let mut rest = block;
        let mut list_bytes = 0;
        let mut has_field = false;
        self.has_used_table = false;
        while let Some(first) = rest.first().copied() {
            // Size updates are allowed only at the beginning (RFC 7541 §4.2).
            if matches!(first, 0x20..=0x3f) {
                let size_max = integer::take(&mut rest, 5).ok_or(DecodeError::Malformed)?;
                if has_field || size_max > dynamic_table::SIZE_MAX {
                    return Err(DecodeError::Malformed);
                }
                self.table.set_size_max(size_max);
                continue;
            }
            has_field = true;
            let mut add = |name: &[u8], value: &[u8], coded_value| {
                list_bytes += name.len() + value.len() + FIELD_OVERHEAD;
                if list_bytes <= list_bytes_max {
                    on_field(Field {
                        name,
                        value,
                        coded_value,
                    });
                }
            };
            match first {
                0x80.. => {
                    let index = integer::take(&mut rest, 7).ok_or(DecodeError::Malformed)?;
                    self.has_used_table |= index >= FIRST_DYNAMIC;
                    let (name, value) = self.indexed(index).ok_or(DecodeError::Malformed)?;
                    let end = block.len() - rest.len();
                    add(name, value, Span::new(end, end));
                }
                _ => self.literal(first, block, &mut rest, &mut add)?,
            }
            if list_bytes > list_bytes_max && !self.table.is_possible() {
                return Err(DecodeError::TooLarge);
            }
            // Otherwise the table has to be kept in step, unless that takes too much: each byte can refer to 4 KiB.
            if list_bytes > TOO_LARGE_FACTOR_MAX * list_bytes_max {
                return Err(DecodeError::Malformed);
            }
        }
        match list_bytes > list_bytes_max {
            true => Err(DecodeError::TooLarge),
            false => Ok(()),
        }
    }

    /// The field with this index.
    fn indexed(&self, index: usize) -> Option<(&[u8], &[u8])> {
        match index.checked_sub(FIRST_DYNAMIC) {
            Some(age) => self.table.get(age),
            None => static_table::get(index),
        }
    }

    /// Passes on a literal whose first byte is `first`: to be added to the dynamic table, not to be, or never.
    fn literal<'b>(
        &mut self,
        first: u8,
        block: &'b [u8],
        rest: &mut &'b [u8],
        add: &mut impl FnMut(&[u8], &[u8], Span),
    ) -> Result<(), DecodeError> {
        let is_added = first & 0x40 != 0;
        let prefix_bits = if is_added { 6 } else { 4 };
        let index = integer::take(rest, prefix_bits).ok_or(DecodeError::Malformed)?;
        let Decoder {
            table, name, value, ..
        } = self;
        let name = match index {
            0 => text(rest, name)?,
            FIRST_DYNAMIC.. => {
                self.has_used_table = true;
                let found = table.get(index - FIRST_DYNAMIC);
                name.clear();
                name.extend_from_slice(found.ok_or(DecodeError::Malformed)?.0);
                name
            }
            _ => static_table::get(index).ok_or(DecodeError::Malformed)?.0,
        };
        let start = block.len() - rest.len();
        let value = text(rest, value)?;
        add(name, value, Span::new(start, block.len() - rest.len()));
        if is_added && table.is_possible() {
            self.has_used_table = true;
            table.add(name, value);
        }
        Ok(())
    }

    /// The value whose coding begins `rest`, which is moved behind it.
    pub(crate) fn value<'d, 'b: 'd>(
        &'d mut self,
        rest: &mut &'b [u8],
    ) -> Result<&'d [u8], DecodeError> {
        text(rest, &mut self.value)
    }
}

/// The text at the front of `rest`. A Huffman coded one is decoded into `memory`.
fn text<'d, 'b: 'd>(rest: &mut &'b [u8], memory: &'d mut Vec<u8>) -> Result<&'d [u8], DecodeError> {
    let is_coded = rest.first().is_some_and(|first| first & 0x80 != 0);
    let length = integer::take(rest, 7).ok_or(DecodeError::Malformed)?;
    let (text, after) = rest
        .split_at_checked(length)
        .ok_or(DecodeError::Malformed)?;
    *rest = after;
    if !is_coded {
        return Ok(text);
    }
    // The shortest code has 5 bits, so a coded text grows by less than two thirds, and a block is bounded.
    memory.clear();
    huffman::decode(text, memory).ok_or(DecodeError::Malformed)?;
    Ok(memory)
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use proptest::prelude::*;

    use super::*;
    use crate::http2::hpack::encoder::{self, Secrecy};

    type Fields = Vec<(Vec<u8>, Vec<u8>)>;

    fn decode(block: &[u8]) -> Result<Fields, DecodeError> {
        decode_next(&mut Decoder::default(), block)
    }

    fn decode_next(decoder: &mut Decoder, block: &[u8]) -> Result<Fields, DecodeError> {
        let mut fields = Vec::new();
        decoder
            .decode(block, 1 << 20, |field| {
                fields.push((field.name.to_vec(), field.value.to_vec()))
            })
            .map(|()| fields)
    }

    fn field(name: &str, value: &str) -> (Vec<u8>, Vec<u8>) {
        (name.into(), value.into())
    }

    #[test]
    fn all_kinds_of_fields_are_decoded() {
        let block = b"\x20\x20\x88\x40\x01a\x01b\x00\x01c\x01d\x10\x01e\x01f\x5f\x01g\x0f\x0d\x01h";
        let expected = [
            field(":status", "200"),
            field("a", "b"),
            field("c", "d"),
            field("e", "f"),
            field("content-type", "g"),
            field("content-length", "h"),
        ];
        assert_eq!(decode(block), Ok(expected.to_vec()));
        // RFC 7541 appendix C.6.1.
        let coded = b"\x48\x82\x64\x02\x58\x85\xae\xc3\x77\x1a\x4b";
        let expected = [field(":status", "302"), field("cache-control", "private")];
        assert_eq!(decode(coded), Ok(expected.to_vec()));
        assert_eq!(decode(b""), Ok(Vec::new()));
    }

    #[test]
    fn what_refers_to_a_dynamic_table_or_is_cut_short_is_refused() {
        for block in [
            &b"\x80"[..],
            b"\xbe",
            b"\x7f\x00\x01a",
            b"\x7e\x01a",
            b"\x3f\xe2\x1f",
            b"\x88\x20",
            b"\x40\x01a",
            b"\x40\x05a\x01b",
            b"\x40\x81\xff\x01b",
            b"\xff",
            b"\xff\xff\xff\xff\xff\xff",
        ] {
            assert_eq!(decode(block), Err(DecodeError::Malformed), "{block:?}");
        }
    }

    #[test]
    fn a_header_list_is_limited_by_its_decoded_length() {
        let block = b"\x20\x40\x01a\x01b\x40\x01a\x81\x1f";
        let mut decoder = Decoder::default();
        let mut decode = |bytes_max| decoder.decode(block, bytes_max, |_| {});
        assert_eq!(decode(68), Ok(()));
        assert_eq!(decode(67), Err(DecodeError::TooLarge));
        assert_eq!(decode(34), Err(DecodeError::TooLarge));
    }

    #[test]
    fn a_dynamic_table_that_was_not_announced_is_kept_in_step() {
        let mut decoder = Decoder::default();
        let added = b"\x88\x40\x01a\x01b\x5f\x01c\x40\x01d\x02ab";
        let fields = [
            field(":status", "200"),
            field("a", "b"),
            field("content-type", "c"),
            field("d", "ab"),
        ];
        assert_eq!(decode_next(&mut decoder, added), Ok(fields.to_vec()));
        assert!(decoder.has_used_table());
        // From the newest on; the names of literals may be there, too.
        let referred = b"\xc0\x0f\x2f\x01x\x7e\x01y\xbe\xbf";
        let expected = [
            field("a", "b"),
            field("d", "x"),
            field("d", "y"),
            field("d", "y"),
            field("d", "ab"),
        ];
        assert_eq!(decode_next(&mut decoder, referred), Ok(expected.to_vec()));
        // A list that is too long has added its entries all the same.
        let result = decoder.decode(b"\x40\x01e\x01f", 33, |_| {});
        assert_eq!(result, Err(DecodeError::TooLarge));
        assert_eq!(
            decode_next(&mut decoder, b"\xbe"),
            Ok(vec![field("e", "f")])
        );
        assert_eq!(
            decoder.decode(b"\x40\x01e\x01f\xbe\xbe\xbe\xbe", 33, |_| {}),
            Err(DecodeError::Malformed)
        );
        assert_eq!(
            decode_next(&mut decoder, b"\x20\x88"),
            Ok(vec![field(":status", "200")])
        );
        assert!(!decoder.has_used_table());
        assert_eq!(
            decode_next(&mut decoder, b"\xbe"),
            Err(DecodeError::Malformed)
        );
    }

    proptest! {
        #[test]
        fn what_another_encoder_wrote_is_decoded(
            fields in prop::collection::vec(("[a-z:-]{0,20}", "[ -~]{0,60}"), 0..12),
        ) {
            let fields: Fields =
                fields.iter().map(|(name, value)| field(name, value)).collect();
            let mut theirs = fluke_hpack::Encoder::new();
            theirs.set_max_table_size(0);
            let block = theirs.encode(fields.iter().map(|(name, value)| (&name[..], &value[..])));
            prop_assert_eq!(decode(&block), Ok(fields));
        }

        #[test]
        fn what_another_encoder_wrote_with_a_dynamic_table_is_decoded(
            blocks in prop::collection::vec(
                prop::collection::vec(("[a-c:-]{0,2}", "[ -~]{0,2}|[x-z]{500}"), 0..12),
                1..12,
            ),
            sizes in prop::collection::vec(0..12_usize, 0..3),
        ) {
            let mut theirs = fluke_hpack::Encoder::new();
            let mut ours = Decoder::default();
            for (place, fields) in blocks.iter().enumerate() {
                let fields: Fields =
                    fields.iter().map(|(name, value)| field(name, value)).collect();
                let mut block = Vec::new();
                if sizes.contains(&place) {
                    // This encoder does not write the update by itself.
                    let size = 300 * place;
                    theirs.set_max_table_size(size);
                    integer::append(&mut block, 0x20, 5, size);
                }
                block.extend(theirs.encode(fields.iter().map(|(name, value)| (&name[..], &value[..]))));
                prop_assert_eq!(decode_next(&mut ours, &block), Ok(fields));
            }
        }

        #[test]
        fn another_decoder_reads_what_was_encoded(
            fields in prop::collection::vec(("[A-Za-z:-]{0,20}", "[ -~]{0,300}"), 1..12),
        ) {
            let mut block = Vec::new();
            encoder::append_no_table(&mut block);
            for (name, value) in &fields {
                encoder::append(&mut block, name.as_bytes(), value.as_bytes(), Secrecy::Plain);
            }
            let expected: Fields =
                fields.iter().map(|(name, value)| field(&name.to_lowercase(), value)).collect();
            let theirs = fluke_hpack::Decoder::new().decode(&block).unwrap();
            prop_assert_eq!(&theirs, &expected);
            prop_assert_eq!(decode(&block), Ok(expected));
        }

        #[test]
        fn both_decoders_agree_on_any_bytes(block in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut theirs = fluke_hpack::Decoder::new();
            // It panics at a size update that is cut short (0.3.1).
            let theirs = catch_unwind(AssertUnwindSafe(|| theirs.decode(&block).ok())).unwrap_or(None);
            // Where it accepts a block, it is one that a server may send; it is laxer on size updates.
            if let (Ok(ours), Some(theirs)) = (decode(&block), theirs) {
                prop_assert_eq!(ours, theirs);
            }
        }
    }
}
