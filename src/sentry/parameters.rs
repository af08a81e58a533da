//! Lists of `name=value` in auth headers and in queries.
//!
//! Both have the same parameters: in headers plain and separated by commas, in queries form-urlencoded and separated by
//! ampersands. This module finds the parameters of a list, and the bytes to remove so that a well-formed list remains.
//! What they mean is not known here.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

use crate::span::Span;

/// The syntax of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Syntax {
    /// Separated by commas, with optional white space. There is no quoting and no escaping.
    Header,
    /// Separated by ampersands, names and values form-urlencoded.
    Query,
}

impl Syntax {
    const fn separator(self) -> u8 {
        match self {
            Syntax::Header => b',',
            Syntax::Query => b'&',
        }
    }

    /// Decodes a name or a value.
    pub(super) fn decode(self, written: &[u8]) -> Cow<'_, [u8]> {
        match self {
            Syntax::Header => Cow::Borrowed(written),
            Syntax::Query => form_decode(written),
        }
    }
}

/// A `name=value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parameter {
    /// The name, without surrounding white space.
    pub(super) name: Span,
    /// Everything after the first `=`, without surrounding white space.
    pub(super) value: Span,
    /// Everything between the two separators or the ends of the list.
    pub(super) whole: Span,
    /// Whether the parameter has no `=`. Then the whole parameter is its name.
    pub(super) is_bare: bool,
}

impl Parameter {
    /// The parameter with the separator before it.
    pub(super) fn with_separator_before(&self) -> Span {
        Span::new(self.whole.start.saturating_sub(1), self.whole.end)
    }

    /// The parameter with the separator after it, if `list` has one, and the white space after that.
    pub(super) fn with_separator_after(&self, buffer: &[u8], list: Span) -> Span {
        let rest = Span::new((self.whole.end + 1).min(list.end), list.end);
        Span::new(self.name.start, trim(buffer, rest).start)
    }
}

/// The parameters of `list` in order.
pub(super) fn parameters(
    buffer: &[u8],
    list: Span,
    syntax: Syntax,
) -> impl Iterator<Item = Parameter> {
    let separator = syntax.separator();
    let mut start = list.start;
    std::iter::from_fn(move || {
        if start > list.end {
            return None;
        }
        let rest = Span::new(start, list.end);
        let length = memchr(separator, rest.slice(buffer)).unwrap_or(rest.len());
        let whole = Span::new(start, start + length);
        start = whole.end + 1;
        let equals = memchr(b'=', whole.slice(buffer)).map(|length| whole.start + length);
        let name_end = equals.unwrap_or(whole.end);
        let value_start = equals.map_or(whole.end, |equals| equals + 1);
        Some(Parameter {
            name: trim(buffer, Span::new(whole.start, name_end)),
            value: trim(buffer, Span::new(value_start, whole.end)),
            whole,
            is_bare: equals.is_none(),
        })
    })
}

/// `span` without white space at its ends; empty, at its end, if it is all white space.
fn trim(buffer: &[u8], span: Span) -> Span {
    let text = span.slice(buffer);
    let start = span.end - text.trim_ascii_start().len();
    let end = span.start + text.trim_ascii_end().len();
    Span::new(start, end.max(start))
}

/// Decodes `application/x-www-form-urlencoded` by the URL standard: a percent sign that is not followed by two
/// hexadecimal digits stands for itself.
pub(super) fn form_decode(written: &[u8]) -> Cow<'_, [u8]> {
    match memchr2(b'%', b'+', written) {
        None => Cow::Borrowed(written),
        Some(_) => Cow::Owned(decoded(written, b' ')),
    }
}

/// Decodes a path segment, in which a plus stands for itself.
pub(super) fn percent_decode(written: &[u8]) -> Cow<'_, [u8]> {
    match memchr(b'%', written) {
        None => Cow::Borrowed(written),
        Some(_) => Cow::Owned(decoded(written, b'+')),
    }
}

fn decoded(written: &[u8], plus: u8) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(written.len());
    let mut rest = written;
    while let [byte, after @ ..] = rest {
        rest = after;
        decoded.push(match (byte, after) {
            (b'+', _) => plus,
            (b'%', [high, low, after @ ..]) => match (hex_digit(*high), hex_digit(*low)) {
                (Some(high), Some(low)) => {
                    rest = after;
                    high << 4 | low
                }
                (None, _) | (_, None) => b'%',
            },
            (byte, _) => *byte,
        });
    }
    decoded
}

/// Parses at least one decimal digit, up to 64 bits.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| match digit {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add((digit - b'0').into()),
        _ => None,
    })
}

pub(super) fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(list: &str, syntax: Syntax) -> Vec<(&str, &str, &str)> {
        let text = |span: Span| &list[span.start..span.end];
        parameters(list.as_bytes(), Span::new(0, list.len()), syntax)
            .filter(|parameter| !parameter.is_bare)
            .map(|parameter| {
                let Parameter {
                    name, value, whole, ..
                } = parameter;
                (text(name), text(value), text(whole))
            })
            .collect()
    }

    #[test]
    fn lists_are_split_into_parameters() {
        assert_eq!(
            pairs(" a = 1 ,, x,b=2=3,c=", Syntax::Header),
            [
                ("a", "1", " a = 1 "),
                ("b", "2=3", "b=2=3"),
                ("c", "", "c=")
            ]
        );
        assert_eq!(
            pairs("&a=1&x&b=2,3&=", Syntax::Query),
            [("a", "1", "a=1"), ("b", "2,3", "b=2,3"), ("", "", "=")]
        );
        assert_eq!(pairs("", Syntax::Query), []);
    }

    #[test]
    fn escapes_are_decoded() {
        for (written, decoded) in [
            ("plain", "plain"),
            ("a+b", "a b"),
            ("%61%4A%4a", "aJJ"),
            ("%", "%"),
            ("%4", "%4"),
            ("%zz%41", "%zzA"),
            ("%%41", "%A"),
            ("%252E", "%2E"),
        ] {
            assert_eq!(form_decode(written.as_bytes()), decoded.as_bytes());
        }
        assert!(matches!(form_decode(b"plain"), Cow::Borrowed(_)));
        assert_eq!(&*Syntax::Header.decode(b"%41+"), b"%41+");
    }

    proptest! {
        #[test]
        fn parameters_are_the_parts_between_separators(list in "[a=, \t]{0,24}") {
            let expected: Vec<_> = list
                .split(',')
                .filter_map(|whole| {
                    let (name, value) = whole.split_once('=')?;
                    Some((name.trim(), value.trim(), whole))
                })
                .collect();
            prop_assert_eq!(pairs(&list, Syntax::Header), expected);
        }

        /// The standard library also accepts a leading plus.
        #[test]
        fn digits_are_parsed_as_by_the_standard_library(digits in "[0-9]{0,22}|[0-9+ ./:a]{0,3}") {
            let parsed = digits.parse().ok().filter(|_| !digits.starts_with('+'));
            prop_assert_eq!(decimal(digits.as_bytes()), parsed);
        }

        #[test]
        fn encoded_bytes_decode_to_themselves(bytes: Vec<u8>, plain: Vec<bool>) {
            let written: String = bytes
                .iter()
                .zip(plain.into_iter().chain(std::iter::repeat(false)))
                .map(|(byte, plain)| match byte {
                    b' ' if plain => "+".to_owned(),
                    byte if plain && byte.is_ascii_alphanumeric() => char::from(*byte).to_string(),
                    byte => format!("%{byte:02x}"),
                })
                .collect();
            prop_assert_eq!(&*form_decode(written.as_bytes()), &*bytes);
        }
    }
}
