//! `cap`: how many items of a category an outbound gets at most.

use serde_yaml::{Mapping, Value};

use super::cap_settings::{Amount, Cap, Period};
use super::category_name::expected_category;
use super::node::Node;
use super::suggest::suggest;
use super::value::Parsed;
use crate::sentry::category::{Category, CategorySet};

const FORM: &str = "an amount of the form 100/s, 6000/min, 300000/h or 5000/day";

/// The caps in the mapping `node`, which replace `defaults` as a whole; `none` for no caps.
pub(super) fn caps(node: &Node<'_>, defaults: &[Cap]) -> Vec<Cap> {
    if node.is_absent() {
        return defaults.to_vec();
    }
    if node.is("none") {
        return Vec::new();
    }
    if !node.is_mapping() {
        node.reject("none, or a mapping from categories to amounts such as {error: 100/s}");
        return defaults.to_vec();
    }
    let mut caps: Vec<Cap> = Vec::new();
    let mut seen: Vec<Category> = Vec::new();
    for (name, node) in node.members() {
        let name = name.to_ascii_lowercase();
        let Some(categories) = CategorySet::parse(&name) else {
            let expected = expected_category(&name);
            node.error(format!("found {name:?}, expected {expected}"));
            continue;
        };
        if let Some(duplicate) = categories.iter().find(|category| seen.contains(category)) {
            node.error(format!("duplicate cap for {}", duplicate.name()));
        }
        seen.extend(categories.iter());
        // Null lifts nothing, because the defaults are replaced as a whole; it is more likely an unfinished line.
        if let Some(amount) = node.required(amount) {
            caps.push(Cap {
                name,
                categories,
                amount,
            });
        }
    }
    caps
}

fn amount(value: &Value) -> Parsed<Amount> {
    let text = match value {
        Value::Number(number) => {
            return Err(format!(
                "{FORM}; is {number} per second, minute, hour or day?"
            ));
        }
        value => value.as_str().ok_or(FORM)?,
    };
    let (items, period) = text.split_once('/').ok_or(FORM)?;
    let digits = items.trim();
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let items: Option<u64> = digits.parse().ok().filter(|_| is_number);
    let items = items.ok_or(FORM)?;
    let period = period.trim();
    let names: Vec<&str> = Period::NAMES.iter().map(|(name, _)| *name).collect();
    let mut known = Period::NAMES.iter();
    let Some((_, period)) = known.find(|(name, _)| *name == period) else {
        let near = match &*period.to_ascii_lowercase() {
            "sec" | "second" => Some("s"),
            "m" | "minute" => Some("min"),
            "hour" => Some("h"),
            "d" => Some("day"),
            other => suggest(other, &names),
        };
        return Err(match near {
            Some(near) => format!("a period, did you mean /{near}?"),
            None => format!("a period, one of /{}", names.join(", /")),
        });
    };
    let amount = Amount::new(items, *period);
    amount.ok_or_else(|| "at least 1 item per period, and at most 1000000 per second".to_owned())
}

/// The caps as in the file.
pub(super) fn effective(caps: &[Cap]) -> Value {
    let members = caps.iter();
    let members: Mapping = members
        .map(|cap| (cap.name.clone().into(), cap.amount.to_string().into()))
        .collect();
    match members.is_empty() {
        true => "none".into(),
        false => Value::Mapping(members),
    }
}

/// The caps in words, for `--check`.
pub(super) fn describe(caps: &[Cap]) -> String {
    let caps: Vec<String> = caps.iter().map(ToString::to_string).collect();
    match caps.is_empty() {
        true => "none".to_owned(),
        false => caps.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_a_number_and_a_period() {
        for (text, shown, rate, burst) in [
            ("100/s", "100/s", 100.0, 100),
            ("6000/min", "6000/min", 100.0, 600),
            (" 5 / h ", "5/h", 5.0 / 3600.0, 1),
            ("5000/day", "5000/day", 5000.0 / 86_400.0, 500),
            ("1/s", "1/s", 1.0, 1),
            ("1000000/s", "1000000/s", 1e6, 1_000_000),
        ] {
            let amount = amount(&text.into()).unwrap();
            assert_eq!(amount.to_string(), shown);
            assert_eq!((amount.rate(), amount.burst()), (rate, burst), "{text}");
        }
        for (value, expected) in [
            (Value::from("100"), FORM),
            ("many/s".into(), FORM),
            ("-1/s".into(), FORM),
            ("1.5/s".into(), FORM),
            ("+1/s".into(), FORM),
            ("/s".into(), FORM),
            (Value::Bool(true), FORM),
            (100.into(), "; is 100 per second, minute, hour or day?"),
            ("100/m".into(), "did you mean /min?"),
            ("100/d".into(), "did you mean /day?"),
            ("100/MIN".into(), "did you mean /min?"),
            ("100/dai".into(), "did you mean /day?"),
            ("100/week".into(), "one of /s, /min, /h, /day"),
            ("0/s".into(), "at least 1 item"),
            ("1000001/s".into(), "at most 1000000 per second"),
            ("99999999999999999999/s".into(), FORM),
        ] {
            let error = amount(&value).unwrap_err();
            assert!(error.contains(expected), "{value:?}: {error}");
        }
    }
}
