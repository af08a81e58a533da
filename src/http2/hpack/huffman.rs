//! Decodes texts in HPACK's Huffman code (RFC 7541 §5.2, appendix B).
//!
//! The code is canonical: it follows from the lengths alone. Codes of the same length are consecutive numbers in the
//! order of their symbols, and begin where the shorter ones end.

/// The length of the code of each byte in bits, and at the end that of the symbol EOS.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// The longest code.
const LENGTH_MAX: usize = 30;

/// The codes of up to this length are found in one table.
const SHORT_BITS: usize = 8;

/// The symbols in the order of their codes.
const SYMBOLS: [u16; 257] = symbols();

/// For each length, the first code behind those of this length, as the highest bits of 32.
const ENDS: [u64; LENGTH_MAX + 1] = ends();

/// For each length, what to subtract from a code of this length to get its place in [`SYMBOLS`].
const OFFSETS: [u32; LENGTH_MAX + 1] = offsets();

/// For each beginning of 8 bits, the byte whose code it begins with, and its length; 0 if the code is longer.
const SHORT: [(u8, u8); 1 << SHORT_BITS] = short();

#[expect(clippy::indexing_slicing, reason = "evaluated at compile time")]
const fn symbols() -> [u16; 257] {
    let mut symbols = [0; 257];
    let (mut place, mut length) = (0, 1);
    while length <= LENGTH_MAX {
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                symbols[place] = symbol as u16;
                place += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    symbols
}

/// How many codes have this length.
#[expect(clippy::indexing_slicing, reason = "evaluated at compile time")]
const fn count(length: usize) -> u64 {
    let (mut count, mut symbol) = (0, 0);
    while symbol < LENGTHS.len() {
        if LENGTHS[symbol] as usize == length {
            count += 1;
        }
        symbol += 1;
    }
    count
}

#[expect(clippy::indexing_slicing, reason = "evaluated at compile time")]
const fn ends() -> [u64; LENGTH_MAX + 1] {
    let mut ends = [0; LENGTH_MAX + 1];
    let (mut end, mut length) = (0, 1);
    while length <= LENGTH_MAX {
        end += count(length) << (32 - length);
        ends[length] = end;
        length += 1;
    }
    ends
}

#[expect(clippy::indexing_slicing, reason = "evaluated at compile time")]
const fn offsets() -> [u32; LENGTH_MAX + 1] {
    let mut offsets = [0; LENGTH_MAX + 1];
    let (mut place, mut length) = (0, 1);
    while length <= LENGTH_MAX {
        let first = ENDS[length - 1] >> (32 - length);
        offsets[length] = (first as u32).wrapping_sub(place);
        place += count(length) as u32;
        length += 1;
    }
    offsets
}

#[expect(clippy::indexing_slicing, reason = "evaluated at compile time")]
const fn short() -> [(u8, u8); 1 << SHORT_BITS] {
    let mut short = [(0, 0); 1 << SHORT_BITS];
    let mut byte = 0;
    while byte < short.len() {
        let mut length = 1;
        while length <= SHORT_BITS {
            let bits = (byte as u64) << (32 - SHORT_BITS);
            if bits < ENDS[length] && length > 0 {
                let code = (bits >> (32 - length)) as u32;
                let place = code.wrapping_sub(OFFSETS[length]) as usize;
                short[byte] = (SYMBOLS[place] as u8, length as u8);
                break;
            }
            length += 1;
        }
        byte += 1;
    }
    short
}

/// Appends the text that `coded` stands for to `out`. `None` if it is not valid.
pub(super) fn decode(coded: &[u8], out: &mut Vec<u8>) -> Option<()> {
    // The bits that are not decoded yet, from the highest on.
    let (mut bits, mut filled) = (0_u64, 0_usize);
    let mut input = coded.iter();
    loop {
        while filled <= 56 {
            let Some(byte) = input.next() else { break };
            bits |= u64::from(*byte) << (56 - filled);
            filled += 8;
        }
        let Some((symbol, length)) = next_symbol(bits >> 32).filter(|next| next.1 <= filled) else {
            return is_padding(bits, filled).then_some(());
        };
        // EOS may not be sent.
        out.push(u8::try_from(symbol).ok()?);
        bits <<= length;
        filled -= length;
    }
}

/// The symbol whose code is at the start of 32 bits, and its length. `None` if there is no such code.
fn next_symbol(bits: u64) -> Option<(u16, usize)> {
    let start = usize::try_from(bits >> (32 - SHORT_BITS)).ok()?;
    let (byte, length) = SHORT.get(start)?;
    if *length > 0 {
        return Some((u16::from(*byte), usize::from(*length)));
    }
    let longer = ENDS.get(SHORT_BITS + 1..)?;
    let length = SHORT_BITS + 1 + longer.iter().position(|end| bits < *end)?;
    let code = u32::try_from(bits >> (32 - length)).ok()?;
    let place = code.wrapping_sub(*OFFSETS.get(length)?);
    let symbol = SYMBOLS.get(usize::try_from(place).ok()?)?;
    Some((*symbol, length))
}

/// Whether the rest is padding: less than a byte, of ones.
fn is_padding(bits: u64, filled: usize) -> bool {
    filled < 8 && bits >> 56 == (0xff00_u64 >> filled) & 0xff
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(coded: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        decode(coded, &mut out).map(|()| out)
    }

    /// The code of a symbol.
    fn code(symbol: usize) -> (u64, usize) {
        let place = SYMBOLS
            .iter()
            .position(|known| usize::from(*known) == symbol)
            .unwrap();
        let length = usize::from(LENGTHS[symbol]);
        (
            u64::from(OFFSETS[length].wrapping_add(place as u32)),
            length,
        )
    }

    /// Codes symbols, padded with ones.
    fn encode(symbols: impl IntoIterator<Item = usize>) -> Vec<u8> {
        let mut text: String = symbols
            .into_iter()
            .map(|symbol| {
                let (code, length) = code(symbol);
                format!("{code:0length$b}")
            })
            .collect();
        while !text.len().is_multiple_of(8) {
            text.push('1');
        }
        let bytes = text.as_bytes().chunks(8);
        bytes
            .map(|bits| u8::from_str_radix(str::from_utf8(bits).unwrap(), 2).unwrap())
            .collect()
    }

    #[test]
    fn the_examples_of_the_rfc() {
        // RFC 7541 appendix C.4 and C.6.
        for (coded, text) in [
            ("f1e3c2e5f23a6ba0ab90f4ff", "www.example.com"),
            ("a8eb10649cbf", "no-cache"),
            ("6402", "302"),
            ("aec3771a4b", "private"),
            (
                "d07abe941054d444a8200595040b8166e082a62d1bff",
                "Mon, 21 Oct 2013 20:13:21 GMT",
            ),
            (
                "9d29ad171863c78f0b97c8e9ae82ae43d3",
                "https://www.example.com",
            ),
        ] {
            let bytes: Vec<u8> = (0..coded.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&coded[at..at + 2], 16).unwrap())
                .collect();
            assert_eq!(decoded(&bytes).as_deref(), Some(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn the_code_is_complete_and_every_byte_is_decoded() {
        assert_eq!(ENDS[LENGTH_MAX], 1 << 32);
        for symbol in 0..256 {
            let expected = vec![symbol as u8; 3];
            assert_eq!(decoded(&encode([symbol; 3])), Some(expected), "{symbol}");
        }
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decoded(&encode(0..256)), Some(all));
        assert_eq!(decoded(b""), Some(Vec::new()));
    }

    #[test]
    fn wrong_padding_and_eos_are_refused() {
        // `a` is 00011.
        assert_eq!(decoded(&[0b0001_1111]).as_deref(), Some(&b"a"[..]));
        for wrong in [
            &[0b0001_1110][..],
            &[0b0001_1000],
            &[0b0001_1111, 0xff],
            &[0xff],
        ] {
            assert_eq!(decoded(wrong), None, "{wrong:?}");
        }
        assert_eq!(decoded(&encode([97, 256, 97])), None);
    }
}
