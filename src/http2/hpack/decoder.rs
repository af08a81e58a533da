//! Decodes a header block. Nothing is kept between blocks, because there is no dynamic table.

use super::{huffman, integer, static_table};
use crate::span::Span;

/// What RFC 7541 §4.1 adds to the length of each field.
const FIELD_OVERHEAD: usize = 32;

/// Why a header block cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// It is not HPACK, or refers to a dynamic table, which there is not.
    Malformed,
    /// The header list is longer than allowed.
    TooLarge,
}

/// A field of a header block.
#[derive(Clone, Copy, Debug)]
pub struct Field<'f> {
    pub name: &'f [u8],
    pub value: &'f [u8],
    /// Where the block has the coded value. It ends where the field ends, and is empty if the static table has the value.
    pub(crate) coded_value: Span,
}

/// Memory that decoding reuses.
#[derive(Debug, Default)]
pub struct Decoder {
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Decoder {
    /// Passes each field of `block` to `on_field`.
    ///
    /// # Errors
    /// The block is not valid, or it has more than `list_bytes_max` by the count of RFC 9113 §6.5.2.
    pub fn decode(
        &mut self,
        block: &[u8],
        list_bytes_max: usize,
        mut on_field: impl FnMut(Field<'_>),
    ) -> Result<(), DecodeError> {
        let mut rest = block;
        let mut list_bytes = 0;
        let mut has_field = false;
        while let Some(first) = rest.first().copied() {
            let (name, value, coded_bytes): (&[u8], &[u8], usize) = match first {
                0x80.. => {
                    let index = integer::take(&mut rest, 7);
                    let found = index.and_then(static_table::get);
                    let (name, value) = found.ok_or(DecodeError::Malformed)?;
                    (name, value, 0)
                }
                // Size updates are allowed only at the beginning (RFC 7541 §4.2), and no other size than 0.
                0x20..=0x3f => {
                    if has_field || integer::take(&mut rest, 5) != Some(0) {
                        return Err(DecodeError::Malformed);
                    }
                    continue;
                }
                _ => self.literal(first, &mut rest, list_bytes_max - list_bytes)?,
            };
            has_field = true;
            list_bytes += name.len() + value.len() + FIELD_OVERHEAD;
            if list_bytes > list_bytes_max {
                return Err(DecodeError::TooLarge);
            }
            let end = block.len() - rest.len();
            on_field(Field {
                name,
                value,
                coded_value: Span::new(end - coded_bytes, end),
            });
        }
        Ok(())
    }

    /// A literal whose first byte is `first`: to be indexed (which a table of size 0 makes empty), not to be, or never.
    /// Returns its name, its value, and the length of its coded value.
    fn literal<'d, 'b: 'd>(
        &'d mut self,
        first: u8,
        rest: &mut &'b [u8],
        bytes_max: usize,
    ) -> Result<(&'d [u8], &'d [u8], usize), DecodeError> {
        let prefix_bits = if first & 0x40 != 0 { 6 } else { 4 };
        let index = integer::take(rest, prefix_bits).ok_or(DecodeError::Malformed)?;
        let name = match index {
            0 => text(rest, &mut self.name, bytes_max)?,
            index => static_table::get(index).ok_or(DecodeError::Malformed)?.0,
        };
        let before = rest.len();
        let value = text(rest, &mut self.value, bytes_max)?;
        Ok((name, value, before - rest.len()))
    }

    /// The value whose coding begins `rest`, which is moved behind it.
    pub(crate) fn value<'d, 'b: 'd>(
        &'d mut self,
        rest: &mut &'b [u8],
    ) -> Result<&'d [u8], DecodeError> {
        text(rest, &mut self.value, usize::MAX)
    }
}

/// The text at the front of `rest`. A Huffman coded one is decoded into `memory`.
fn text<'d, 'b: 'd>(
    rest: &mut &'b [u8],
    memory: &'d mut Vec<u8>,
    bytes_max: usize,
) -> Result<&'d [u8], DecodeError> {
    let is_coded = rest.first().is_some_and(|first| first & 0x80 != 0);
    let length = integer::take(rest, 7).ok_or(DecodeError::Malformed)?;
    let (text, after) = rest
        .split_at_checked(length)
        .ok_or(DecodeError::Malformed)?;
    *rest = after;
    if !is_coded {
        return Ok(text);
    }
    // The shortest code has 5 bits, so a coded text grows by less than two thirds.
    if length > bytes_max {
        return Err(DecodeError::TooLarge);
    }
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
        let mut fields = Vec::new();
        Decoder::default()
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
            b"\x21",
            b"\x3f\x00",
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
        let block = b"\x40\x01a\x01b\x40\x01a\x81\x1f";
        let mut decoder = Decoder::default();
        let mut decode = |bytes_max| decoder.decode(block, bytes_max, |_| {});
        assert_eq!(decode(68), Ok(()));
        assert_eq!(decode(67), Err(DecodeError::TooLarge));
        assert_eq!(decode(34), Err(DecodeError::TooLarge));
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
            theirs.set_max_allowed_table_size(0);
            theirs.set_max_table_size(0);
            // It panics at a size update that is cut short (0.3.1).
            let theirs = catch_unwind(AssertUnwindSafe(|| theirs.decode(&block).ok())).unwrap_or(None);
            // Where it accepts a block, it is one that a server may send; it is laxer on size updates.
            if let (Ok(ours), Some(theirs)) = (decode(&block), theirs) {
                prop_assert_eq!(ours, theirs);
            }
        }
    }
}
