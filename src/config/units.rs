//! Sizes and durations with units: `64KiB`, `1.5s`.
//!
//! A size without a unit is in bytes. A duration needs a unit: other programs take a bare number for
//! seconds or for milliseconds, and a wrong guess is off by a factor of a thousand. Decimal and binary
//! units differ (`kB` is 1000, `KiB` is 1024), because the limits of other programs use both. `Display`
//! writes the largest exact unit, so that the text parses to the same value.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

const BYTE_UNITS: [(&str, u64); 11] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1000),
    ("KB", 1000),
    ("B", 1),
    ("", 1),
];

const TIME_UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1000),
    ("ns", 1),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ByteSize(pub(super) u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HumanDuration(pub(super) Duration);

/// The text is not a number with a known unit, or the number is out of range.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotAQuantity;

impl FromStr for ByteSize {
    type Err = NotAQuantity;

    fn from_str(text: &str) -> Result<ByteSize, NotAQuantity> {
        parse_quantity(text, &BYTE_UNITS)
            .map(ByteSize)
            .ok_or(NotAQuantity)
    }
}

impl FromStr for HumanDuration {
    type Err = NotAQuantity;

    fn from_str(text: &str) -> Result<HumanDuration, NotAQuantity> {
        let nanoseconds = parse_quantity(text, &TIME_UNITS).ok_or(NotAQuantity)?;
        Ok(HumanDuration(Duration::from_nanos(nanoseconds)))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_quantity(f, u128::from(self.0), &BYTE_UNITS, "B")
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_quantity(f, self.0.as_nanos(), &TIME_UNITS, "s")
    }
}

/// Parses a duration of the command line.
///
/// # Errors
/// What would be right.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<HumanDuration>();
    parsed
        .map(|duration| duration.0)
        .map_err(|_| "expected a duration with a unit, such as 200ms, 3s or 24h".to_owned())
}

/// A regular expression for sizes with their units.
pub(super) fn size_pattern() -> String {
    pattern(&BYTE_UNITS)
}

/// A regular expression for durations.
pub(super) fn duration_pattern() -> String {
    pattern(&TIME_UNITS)
}

fn pattern(units: &[(&str, u64)]) -> String {
    let units: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
    format!(r"^\s*[0-9]+(\.[0-9]+)?\s*({})\s*$", units.join("|"))
}

/// Parses a decimal number with one of `units`, and returns it in base units. Integer arithmetic keeps it
/// exact (0.1 s is 100 ms); a fraction of a base unit is an error.
fn parse_quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let number = text.trim_end_matches(|c: char| !c.is_ascii_digit() && c != '.');
    let unit = text.strip_prefix(number)?.trim_start();
    let (_, scale) = units.iter().find(|(name, _)| *name == unit)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let divisor = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let total = digits(whole)?
        .checked_mul(divisor)?
        .checked_add(digits(fraction)?)?
        .checked_mul(u128::from(*scale))?;
    let amount = total.is_multiple_of(divisor).then_some(total / divisor)?;
    u64::try_from(amount).ok()
}

/// Parses digits only; `parse` alone accepts a sign.
fn digits(text: &str) -> Option<u128> {
    let number = text.parse().ok()?;
    text.bytes().all(|b| b.is_ascii_digit()).then_some(number)
}

/// Writes `amount` in the first of `units` that divides it, or zero in `zero_unit`.
fn write_quantity(
    f: &mut fmt::Formatter<'_>,
    amount: u128,
    units: &[(&str, u64)],
    zero_unit: &str,
) -> fmt::Result {
    if amount == 0 {
        return write!(f, "0{zero_unit}");
    }
    let (name, scale) = units
        .iter()
        .map(|(name, scale)| (*name, u128::from(*scale)))
        .find(|(_, scale)| amount.is_multiple_of(*scale))
        .unwrap_or(("", 1));
    write!(f, "{}{name}", amount / scale)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::{ByteSize, HumanDuration, NotAQuantity};

    #[test]
    fn a_size_has_a_decimal_or_binary_unit_or_none() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64KiB", 65_536),
            ("64 KiB", 65_536),
            ("10MB", 10_000_000),
            ("1.5MiB", 1_572_864),
            ("2GB", 2_000_000_000),
            ("1TiB", 1 << 40),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in [
            "",
            "KiB",
            "1.5",
            "-1",
            "1e3",
            "1kib",
            "1 M",
            "1..5MiB",
            "1.MiB",
            ".5MiB",
            "1KiB2",
            "18446744073709551616",
            "99999999TiB",
            "1KiBé",
            "0.00000000000000000000000000000000000000001MiB",
        ] {
            assert_eq!(text.parse::<ByteSize>(), Err(NotAQuantity), "{text}");
        }
    }

    #[test]
    fn a_duration_has_a_unit() {
        for (text, millis) in [
            ("1.5s", 1500),
            ("0.1s", 100),
            ("250ms", 250),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
            ("1500us", 1),
        ] {
            let expected = Duration::from_millis(millis)
                + Duration::from_micros(if text == "1500us" { 500 } else { 0 });
            assert_eq!(text.parse(), Ok(HumanDuration(expected)), "{text}");
        }
        for text in [
            "", "3", "1.5", "s", "-1s", "+1s", "5.+1s", "1 year", "1m30s", "inf", "NaN", "1e3s",
        ] {
            assert_eq!(text.parse::<HumanDuration>(), Err(NotAQuantity), "{text}");
        }
    }

    #[test]
    fn display_uses_the_largest_exact_unit() {
        for (bytes, text) in [
            (0, "0B"),
            (1, "1B"),
            (1 << 20, "1MiB"),
            (1500, "1500B"),
            (3000, "3kB"),
        ] {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
        for (millis, text) in [
            (0, "0s"),
            (1500, "1500ms"),
            (75_000, "75s"),
            (120_000, "2m"),
        ] {
            assert_eq!(
                HumanDuration(Duration::from_millis(millis)).to_string(),
                text
            );
        }
    }

    proptest! {
        #[test]
        fn displayed_text_parses_to_the_same_value(amount: u64) {
            prop_assert_eq!(ByteSize(amount).to_string().parse(), Ok(ByteSize(amount)));
            let duration = HumanDuration(Duration::from_micros(amount / 1000));
            prop_assert_eq!(duration.to_string().parse(), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = text.parse::<ByteSize>();
            let _ = text.parse::<HumanDuration>();
        }
    }
}
