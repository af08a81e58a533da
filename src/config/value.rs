//! Readers: how one value of the file is understood.
//!
//! A reader takes a YAML value and gives either what it means or a description of what would be
//! right, which a message puts behind “expected”. Numbers and booleans may be written in quotes,
//! because environment variables have nothing but text.

use std::borrow::Cow;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use serde_yaml::Value;

use super::units::{ByteSize, Period};
use crate::sentry::dsn::{self, Dsn};

/// What a reader makes of a value.
pub(super) type Read<T> = Result<T, String>;

/// The longest part of a value that a message shows.
const SHOWN_CHARS: usize = 100;

/// Text.
pub(super) fn text(value: &Value) -> Read<String> {
    let text = value.as_str().filter(|text| !text.is_empty());
    text.map(str::to_owned).ok_or_else(|| "text".to_owned())
}

/// `true` or `false`.
pub(super) fn boolean(value: &Value) -> Read<bool> {
    parse(value).ok_or_else(|| "true or false".to_owned())
}

/// A DSN.
pub(super) fn dsn(value: &Value) -> Read<Dsn> {
    const FORM: &str = "a DSN of the form https://KEY@HOST/PROJECT";
    let text = value.as_str().ok_or(FORM)?;
    text.parse().map_err(|error| format!("{FORM} ({error})"))
}

/// A number in `range`.
pub(super) fn number<T: FromStr + PartialOrd + Display>(
    range: RangeInclusive<T>,
) -> impl Fn(&Value) -> Read<T> {
    move |value| {
        parse(value)
            .filter(|number| range.contains(number))
            .ok_or_else(|| format!("a number from {} to {}", range.start(), range.end()))
    }
}

/// A length of time in `range`.
pub(super) fn duration(range: RangeInclusive<Duration>) -> impl Fn(&Value) -> Read<Duration> {
    let range = Period(*range.start())..=Period(*range.end());
    move |value| {
        let period = parse(value).filter(|period| range.contains(period));
        period.map(|Period(duration)| duration).ok_or_else(|| {
            let (from, to) = (range.start(), range.end());
            match with_unit(value, &range) {
                Some(meant) => format!("a duration with its unit: {meant}"),
                None => format!("a duration from {from} to {to} such as 1.5s, 250ms or 2m"),
            }
        })
    }
}

/// What a number without a unit may mean in `range`.
fn with_unit(value: &Value, range: &RangeInclusive<Period>) -> Option<String> {
    let number: String = parse(value)?;
    number.parse::<f64>().ok()?;
    let meant = ["ms", "s"].map(|unit| format!("{number}{unit}"));
    let is_possible = |text: &&String| text.parse().is_ok_and(|period| range.contains(&period));
    let possible: Vec<&str> = meant
        .iter()
        .filter(is_possible)
        .map(|text| &**text)
        .collect();
    (!possible.is_empty()).then(|| possible.join(" or "))
}

/// A number of bytes in `range`.
pub(super) fn bytes(range: RangeInclusive<u64>) -> impl Fn(&Value) -> Read<usize> {
    let range = ByteSize(*range.start())..=ByteSize(*range.end());
    move |value| {
        let size = parse(value).filter(|size| range.contains(size));
        size.and_then(|ByteSize(bytes)| usize::try_from(bytes).ok())
            .ok_or_else(|| {
                format!(
                    "a number of bytes from {} to {} such as 4096, 64KiB or 10MB",
                    range.start(),
                    range.end()
                )
            })
    }
}

/// One of the names in `choices`.
pub(super) fn choice<T: Copy, const N: usize>(
    choices: [(&'static str, T); N],
) -> impl Fn(&Value) -> Read<T> {
    move |value| {
        let name = value.as_str();
        let chosen = choices.iter().find(|(choice, _)| name == Some(choice));
        chosen.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            names.join(" or ")
        })
    }
}

/// A scalar as `T` reads its text.
pub(super) fn parse<T: FromStr>(value: &Value) -> Option<T> {
    let text: Cow<'_, str> = match value {
        Value::Bool(boolean) => boolean.to_string().into(),
        Value::Number(number) => number.to_string().into(),
        Value::String(text) => text.as_str().into(),
        Value::Null | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => return None,
    };
    text.parse().ok()
}

/// What a message calls a value that was found. Keys of DSNs are shortened, since messages end up
/// in logs.
pub(super) fn found(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(boolean) => boolean.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => {
            let shortened = shorten_credentials(text);
            let shown: String = shortened.chars().take(SHOWN_CHARS).collect();
            let more = if shown.len() < shortened.len() {
                "…"
            } else {
                ""
            };
            format!("{shown:?}{more}")
        }
        Value::Sequence(_) => "a list".to_owned(),
        Value::Mapping(_) => "a mapping".to_owned(),
        Value::Tagged(tagged) => format!("a value with the tag {}", tagged.tag),
    }
}

/// `text` with what stands before an `@` shortened, as in a DSN, well formed or not.
pub(super) fn shorten_credentials(text: &str) -> Cow<'_, str> {
    let Some((credentials, rest)) = text.rsplit_once('@') else {
        return text.into();
    };
    let start = credentials.find("://").map_or(0, |scheme| scheme + 3);
    let (scheme, key) = credentials.split_at_checked(start).unwrap_or_default();
    format!("{scheme}{}@{rest}", dsn::shorten_key(key)).into()
}
