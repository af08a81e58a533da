//! Undoes the escaping of a text in an unknown language.
//!
//! It undoes the character escapes of scripts, JSON, HTML and URLs in one pass, without parsing any of these
//! languages. The result serves only to search for words that a reader might find in the text.

use memchr::memchr3_iter;

/// Replaces a character outside ASCII.
const NON_ASCII: u8 = b'?';

/// The named HTML characters that may occur in a URL or a DSN.
const NAMED: [(&[u8], u8); 5] = [
    (b"amp;", b'&'),
    (b"colon;", b':'),
    (b"commat;", b'@'),
    (b"period;", b'.'),
    (b"sol;", b'/'),
];

/// Undoes one layer of escaping; `None` if `text` contains no escapes.
pub(crate) fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut copied = 0;
    for at in memchr3_iter(b'%', b'\\', b'&', text) {
        if at < copied {
            continue;
        }
        let Some((byte, length)) = text.get(at..).and_then(escape) else {
            continue;
        };
        out.extend_from_slice(text.get(copied..at).unwrap_or_default());
        out.push(byte);
        copied = at + length;
    }
    if copied == 0 {
        return None;
    }
    out.extend_from_slice(text.get(copied..).unwrap_or_default());
    Some(out)
}

/// The character of the escape at the start of `text`, and the length of the escape.
fn escape(text: &[u8]) -> Option<(u8, usize)> {
    match text {
        [b'%', digits @ ..] => number(digits, 2, 2, 16).map(|(byte, length)| (byte, length + 1)),
        [b'\\', b'u', b'{', digits @ ..] => braced(digits),
        [b'\\', b'u', digits @ ..] => {
            number(digits, 4, 4, 16).map(|(byte, length)| (byte, length + 2))
        }
        [b'\\', b'x', digits @ ..] => {
            number(digits, 2, 2, 16).map(|(byte, length)| (byte, length + 2))
        }
        [b'\\', b'0'..=b'7', ..] => {
            number(text.get(1..)?, 1, 3, 8).map(|(byte, length)| (byte, length + 1))
        }
        // A line continuation included.
        [b'\\', byte, ..] => Some((*byte, 2)),
        [b'&', b'#', b'x' | b'X', digits @ ..] => number(digits, 1, 8, 16)
            .map(|(byte, length)| (byte, length + 3 + semicolon(digits, length))),
        [b'&', b'#', digits @ ..] => number(digits, 1, 8, 10)
            .map(|(byte, length)| (byte, length + 2 + semicolon(digits, length))),
        [b'&', name @ ..] => NAMED
            .iter()
            .find(|(known, _)| name.starts_with(known))
            .map(|(known, byte)| (*byte, known.len() + 1)),
        _ => None,
    }
}

/// The character and length of `\u{…}`, where `digits` is the text after the `{`.
fn braced(digits: &[u8]) -> Option<(u8, usize)> {
    let (byte, length) = number(digits, 1, 6, 16)?;
    (digits.get(length) == Some(&b'}')).then_some((byte, length + 4))
}

/// 1 if a semicolon follows the first `length` digits, else 0: it is optional in HTML.
fn semicolon(digits: &[u8], length: usize) -> usize {
    usize::from(digits.get(length) == Some(&b';'))
}

/// The character with the number at the start of `text`, and the number of its digits, which must be from
/// `length_min` to `length_max`.
fn number(text: &[u8], length_min: usize, length_max: usize, radix: u32) -> Option<(u8, usize)> {
    let digits = text.iter().take(length_max);
    let values = digits.map_while(|digit| char::from(*digit).to_digit(radix));
    let (number, length) = values.fold((0_u32, 0), |(number, length), digit| {
        (
            number.saturating_mul(radix).saturating_add(digit),
            length + 1,
        )
    });
    let byte = u8::try_from(number).ok().filter(u8::is_ascii);
    (length >= length_min).then_some((byte.unwrap_or(NON_ASCII), length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_escape_is_undone() {
        for escaped in [
            "%61b",
            "\\u0061b",
            "\\u{61}b",
            "\\u{000061}b",
            "\\x61b",
            "\\141b",
            "\\ab",
            "&#97;b",
            "&#x61;b",
            "&#X0061;b",
            "a\\u0062",
        ] {
            assert_eq!(
                unescape(escaped.as_bytes()),
                Some(b"ab".to_vec()),
                "{escaped}"
            );
        }
        let url = br"https:\/\/k&commat;h&colon;1\u002fp&sol;2";
        assert_eq!(unescape(url), Some(b"https://k@h:1/p/2".to_vec()));
        assert_eq!(unescape(b"\\u00e9\\"), Some(b"?\\".to_vec()));
    }

    #[test]
    fn one_layer_is_undone_at_a_time() {
        assert_eq!(unescape(b"%2561"), Some(b"%61".to_vec()));
        assert_eq!(unescape(b"\\\\u0061"), Some(b"\\u0061".to_vec()));
        assert_eq!(unescape(b"&amp;#97;"), Some(b"&#97;".to_vec()));
    }

    #[test]
    fn text_without_escapes_is_none() {
        for text in ["", "plain", "100%", "%6", "a & b", "&#;", "&lt;", "\\"] {
            assert_eq!(unescape(text.as_bytes()), None, "{text}");
        }
    }
}
