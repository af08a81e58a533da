//! Parsers for single values.
//!
//! If a value is invalid, its parser returns a description of a valid one, which follows “expected” in
//! the message. Numbers and booleans may be quoted, because environment variables are always text.

use std::borrow::Cow;
use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use serde_yaml::Value;

use super::model::Names;
use super::units::{ByteSize, HumanDuration};
use crate::sentry::dsn::{self, Dsn};

/// A value, or a description of what is expected.
pub(super) type Parsed<T> = Result<T, String>;

/// How much of a value a message shows.
const SHOWN_CHARS: usize = 100;

pub(super) fn text(value: &Value) -> Parsed<String> {
    let text = value.as_str().filter(|text| !text.is_empty());
    text.map(str::to_owned).ok_or_else(|| "text".to_owned())
}

pub(super) fn boolean(value: &Value) -> Parsed<bool> {
    parse_scalar(value).ok_or_else(|| "true or false".to_owned())
}

pub(super) fn ip_address(value: &Value) -> Parsed<IpAddr> {
    parse_scalar(value).ok_or_else(|| "an IP address such as 0.0.0.0 or ::".to_owned())
}

pub(super) fn dsn(value: &Value) -> Parsed<Dsn> {
    const FORM: &str = "a DSN of the form https://KEY@HOST/PROJECT";
    let text = value.as_str().ok_or(FORM)?;
    text.parse().map_err(|error| format!("{FORM} ({error})"))
}

pub(super) fn number<T: FromStr + PartialOrd + Display>(
    range: RangeInclusive<T>,
) -> impl Fn(&Value) -> Parsed<T> {
    move |value| {
        parse_scalar(value)
            .filter(|number| range.contains(number))
            .ok_or_else(|| format!("a number from {} to {}", range.start(), range.end()))
    }
}

pub(super) fn duration(range: RangeInclusive<Duration>) -> impl Fn(&Value) -> Parsed<Duration> {
    let range = HumanDuration(*range.start())..=HumanDuration(*range.end());
    move |value| {
        let duration = parse_scalar(value).filter(|duration| range.contains(duration));
        duration
            .map(|HumanDuration(duration)| duration)
            .ok_or_else(|| {
                let (from, to) = (range.start(), range.end());
                match with_unit(value, &range) {
                    Some(candidates) => format!("a duration with a unit: {candidates}"),
                    None => format!("a duration from {from} to {to} such as 1.5s, 250ms or 2m"),
                }
            })
    }
}

/// The durations in `range` that a number without a unit may stand for.
fn with_unit(value: &Value, range: &RangeInclusive<HumanDuration>) -> Option<String> {
    let number: String = parse_scalar(value)?;
    number.parse::<f64>().ok()?;
    let in_range = |text: &String| text.parse().is_ok_and(|duration| range.contains(&duration));
    let candidates = ["ms", "s"].map(|unit| format!("{number}{unit}"));
    let candidates: Vec<String> = candidates.into_iter().filter(in_range).collect();
    (!candidates.is_empty()).then(|| candidates.join(" or "))
}

pub(super) fn bytes(range: RangeInclusive<u64>) -> impl Fn(&Value) -> Parsed<usize> {
    let range = ByteSize(*range.start())..=ByteSize(*range.end());
    move |value| {
        let size = parse_scalar(value).filter(|size| range.contains(size));
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
    choices: Names<T, N>,
) -> impl Fn(&Value) -> Parsed<T> {
    move |value| {
        let name = value.as_str();
        let chosen = choices.iter().find(|(choice, _)| name == Some(choice));
        chosen.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let names = choices.map(|(name, _)| name);
            match names.split_last() {
                Some((last, others)) if !others.is_empty() => {
                    format!("{} or {last}", others.join(", "))
                }
                _ => names.concat(),
            }
        })
    }
}

/// The name of `value` in `names`, which has every value of its type.
pub(super) fn name<T: PartialEq, const N: usize>(value: T, names: Names<T, N>) -> &'static str {
    let mut names = names.iter();
    names
        .find(|(_, named)| *named == value)
        .map_or("", |(name, _)| name)
}

/// Parses the text of a scalar.
pub(super) fn parse_scalar<T: FromStr>(value: &Value) -> Option<T> {
    let text: Cow<'_, str> = match value {
        Value::Bool(boolean) => boolean.to_string().into(),
        Value::Number(number) => number.to_string().into(),
        Value::String(text) => text.as_str().into(),
        Value::Null | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => return None,
    };
    text.parse().ok()
}

/// Describes a value for a message. Keys of DSNs are shortened, because messages end up in logs.
pub(super) fn describe(value: &Value) -> String {
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

/// Shortens everything before the last `@`, as in a DSN, whether or not `text` is a valid one.
pub(super) fn shorten_credentials(text: &str) -> Cow<'_, str> {
    let Some((credentials, rest)) = text.rsplit_once('@') else {
        return text.into();
    };
    let start = credentials.find("://").map_or(0, |scheme| scheme + 3);
    let (scheme, key) = credentials.split_at_checked(start).unwrap_or_default();
    // Without any part of a secret, however short the key is.
    let key = key.split(':').next().unwrap_or_default();
    format!("{scheme}{}@{rest}", dsn::shorten_key(key)).into()
}
