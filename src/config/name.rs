//! Names of routes and outbounds.
//!
//! A name stands in labels of metrics and in log lines, so it has only characters that need no quotes there.
//! None of these occurs in every DSN (`:` and `/` do), so that a name differs from each shortened DSN, which
//! is shown where there is no name.

use std::collections::HashMap;

use serde_yaml::Value;

use super::node::Node;
use super::value::Parsed;

/// The value of the label `route` for requests without a route. No route can have this name.
pub(crate) const NO_ROUTE: &str = "none";

/// Some names fit into one line, and statsd tags may have 200 characters (Datadog).
const BYTES_MAX: usize = 64;

/// A public key has 32 hexadecimal digits.
const KEY_BYTES: usize = 32;

/// The names read so far, each with the path at which it is.
#[derive(Default)]
pub(super) struct Names {
    paths: HashMap<String, String>,
}

impl Names {
    /// The name in `node`, if there is one. A name that was read before is an error.
    pub(super) fn read(&mut self, node: &Node<'_>) -> Option<String> {
        // The usual error would show the value.
        if node.optional(|value| Ok(is_key(value))) == Some(true) {
            node.error("found a public key, expected a name, which is shown in full");
            return None;
        }
        let name = node.optional(name)?;
        if let Some(first) = self.paths.get(&name) {
            node.error(format!("is the same as {first}, expected a different one"));
        } else {
            self.paths.insert(name.clone(), node.path.clone());
        }
        Some(name)
    }
}

fn is_key(value: &Value) -> bool {
    let is_key =
        |text: &str| text.len() == KEY_BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    value.as_str().is_some_and(is_key)
}

fn name(value: &Value) -> Parsed<String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let form = || format!("a name of at most {BYTES_MAX} letters, digits, -, _ and .");
    let name = match value {
        Value::String(name) => name,
        Value::Number(_) | Value::Bool(_) => return Err(format!("{}, in quotes", form())),
        Value::Null | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => {
            return Err(form());
        }
    };
    if name == NO_ROUTE {
        return Err(format!(
            "another name: {NO_ROUTE} stands for requests without a route"
        ));
    }
    if name.is_empty() || name.len() > BYTES_MAX || !name.bytes().all(is_allowed) {
        return Err(form());
    }
    Ok(name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_letters_digits_and_a_few_other_characters() {
        let parsed = |text: &str| name(&Value::from(text));
        let longest = "x".repeat(BYTES_MAX);
        for valid in ["a", "checkout", "EU-1_b.c", "-", "1.5", &longest] {
            assert_eq!(parsed(valid), Ok(valid.to_owned()));
        }
        let form = "a name of at most 64 letters, digits, -, _ and .";
        let too_long = "x".repeat(BYTES_MAX + 1);
        for invalid in [
            "", "a b", "a/b", "a:b", "\"", "ä", "a\n", "a,b", "{a}", &too_long,
        ] {
            assert_eq!(parsed(invalid), Err(form.to_owned()), "{invalid}");
        }
        let key = "0123456789abcdef0123456789ABCDEF";
        assert!(is_key(&Value::from(key)));
        assert!(!is_key(&Value::from(&key[1..])));
        assert!(!is_key(&Value::from(key.replace('0', "g"))));
        let error = parsed("none").unwrap_err();
        assert_eq!(
            error,
            "another name: none stands for requests without a route"
        );
        for number in ["1", "1.50", "true"] {
            let value = serde_yaml::from_str(number).unwrap();
            assert_eq!(name(&value), Err(format!("{form}, in quotes")));
        }
        for other in ["[a]", "{a: b}"] {
            let value = serde_yaml::from_str(other).unwrap();
            assert_eq!(name(&value), Err(form.to_owned()));
        }
    }
}
