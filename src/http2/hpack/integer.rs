//! Integers with a prefix (RFC 7541 §5.1).

/// The largest integer that is accepted: more than any length or index that the mirror takes.
const VALUE_MAX: usize = 1 << 24;

/// Reads an integer with a prefix of `prefix_bits` from the front of `input`. `None` if it is not complete or too
/// large.
pub(super) fn take(input: &mut &[u8], prefix_bits: u32) -> Option<usize> {
    let (first, mut rest) = input.split_first()?;
    let prefix_max = (1_usize << prefix_bits) - 1;
    let mut value = usize::from(*first) & prefix_max;
    if value == prefix_max {
        // Four more bytes hold VALUE_MAX; longer forms are padded with zeros.
        for shift in [0, 7, 14, 21] {
            let (byte, after) = rest.split_first()?;
            rest = after;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                *input = rest;
                return (value <= VALUE_MAX).then_some(value);
            }
        }
        return None;
    }
    *input = rest;
    Some(value)
}

/// Appends an integer with a prefix of `prefix_bits`, whose other bits are `pattern`.
pub(super) fn append(out: &mut Vec<u8>, pattern: u8, prefix_bits: u32, value: usize) {
    let prefix_max = (1_usize << prefix_bits) - 1;
    if value < prefix_max {
        return out.push(pattern | low_byte(value));
    }
    out.push(pattern | low_byte(prefix_max));
    let mut rest = value - prefix_max;
    while rest >= 0x80 {
        out.push(low_byte(rest) | 0x80);
        rest >>= 7;
    }
    out.push(low_byte(rest));
}

/// How many bytes [`append`] appends.
pub(super) fn bytes(prefix_bits: u32, value: usize) -> usize {
    let prefix_max = (1_usize << prefix_bits) - 1;
    let Some(rest) = value.checked_sub(prefix_max) else {
        return 1;
    };
    let bits = usize::BITS - rest.leading_zeros();
    1 + usize::try_from(bits.div_ceil(7).max(1)).unwrap_or(usize::MAX)
}

fn low_byte(value: usize) -> u8 {
    let [.., low] = value.to_be_bytes();
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_rfc() {
        // RFC 7541 appendix C.1.
        for (value, bits, bytes) in [
            (10, 5, &[10][..]),
            (1337, 5, &[31, 154, 10]),
            (42, 8, &[42]),
        ] {
            let mut out = Vec::new();
            append(&mut out, 0, bits, value);
            assert_eq!(out, bytes);
            assert_eq!(take(&mut &out[..], bits), Some(value));
        }
    }

    #[test]
    fn an_integer_is_read_as_it_was_written() {
        for bits in 4..=7 {
            for value in (0..1000).chain([VALUE_MAX - 1, VALUE_MAX]) {
                let mut out = Vec::new();
                append(&mut out, 0x80, bits, value);
                assert_eq!(out.len(), super::bytes(bits, value));
                out.push(0xaa);
                let mut input = &out[..];
                assert_eq!(take(&mut input, bits), Some(value));
                assert_eq!(input, [0xaa]);
                for end in 0..out.len() - 1 {
                    assert_eq!(take(&mut &out[..end], bits), None);
                }
            }
        }
    }

    #[test]
    fn an_integer_that_is_too_large_or_too_long_is_refused() {
        let mut large = Vec::new();
        append(&mut large, 0, 7, VALUE_MAX + 1);
        assert_eq!(take(&mut &large[..], 7), None);
        assert_eq!(take(&mut &[0x7f, 0x80, 0x80, 0x80, 0x80, 0][..], 7), None);
        assert_eq!(
            take(&mut &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f][..], 7),
            None
        );
    }
}
