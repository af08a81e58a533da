//! The JSON schema of the configuration, for editors.
//!
//! It has no list of keys of its own, which could differ from the parser's: it asks the parser. The example
//! has every key. Parsing it shows which keys each mapping may have. Then each key gets one value after
//! another, and the schema allows what the parser accepts. Where the parser names words or bounds in what it
//! expects, these are tried, too. Descriptions are the comments of the example and what the parser expects.

mod comments;
mod oracle;

use serde_json::{Map, Value as Json, json};
use serde_yaml::Value;

use self::comments::Comments;
use self::oracle::{Oracle, Place};
use super::units;

/// Every key with its default and a comment.
const EXAMPLE: &str = include_str!("../../config.example.yml");

/// A list that is empty in the example.
const LISTEN: &str =
    "[{address: unix:/run/mirror.sock, mode: '0660', proxy_protocol: [10.0.0.0/8]},
    {address: '0.0.0.0:3443', tls: {cert_file: /a.pem, key_file: /a.key}},
    {address: '0.0.0.0:3444', tls: {certificates: [{cert_file: /a.pem, key_file: /a.key}]}}]";

/// A text that no key takes for a word of its own; one that accepts it takes any text.
const ANY_TEXT: &str = "a2f9x";

/// Texts in the forms that keys ask for, besides the value in the example.
const FORMS: [&str; 7] = [
    "https://0123456789abcdef0123456789abcdef@other.example.com/1",
    "https://other.example.com",
    "localhost:8125",
    "other.example.com",
    "192.0.2.1",
    "192.0.2.0/24",
    "/etc/other",
];

/// The schema as JSON text.
pub(crate) fn json_schema() -> String {
    let mut example: Value = serde_yaml::from_str(EXAMPLE).unwrap_or_default();
    if let Some(keys) = example.as_mapping_mut() {
        let listen = serde_yaml::from_str(LISTEN).unwrap_or_default();
        keys.insert("listen".into(), listen);
    }
    let writer = Writer {
        comments: Comments::new(EXAMPLE),
        oracle: Oracle::new(example.clone()),
    };
    let mut schema = writer.mapping(&Place::root(), &example);
    schema.insert(
        "$schema".into(),
        "http://json-schema.org/draft-07/schema#".into(),
    );
    schema.insert("title".into(), "Configuration of sentry-mirror".into());
    let reference = json!({
        "description": "A reference: ${NAME}, ${NAME:-default} or file:/path",
        "type": "string",
        "pattern": r"\$\{|^file:",
    });
    schema.insert("definitions".into(), json!({ "reference": reference }));
    format!("{:#}\n", Json::Object(schema))
}

struct Writer {
    comments: Comments,
    oracle: Oracle,
}

impl Writer {
    /// The schema of the value at `place`, which is `example` there.
    fn value(&self, place: &Place, example: &Value) -> Json {
        let is_mapping = self.oracle.keys(place).is_some();
        let expected = self.oracle.expected(place);
        let mut alternatives = match example {
            Value::Sequence(entries) if !entries.is_empty() => vec![self.list(place, entries)],
            _ if is_mapping => vec![Json::Object(self.mapping(place, example))],
            _ => Vec::new(),
        };
        let has_structure = !alternatives.is_empty();
        alternatives.extend(self.scalars(place, example, &expected));
        if !has_structure {
            alternatives.extend(self.collections(place));
        }
        // In YAML, a key without a value is null.
        let is_optional = self.oracle.accepts(place, Value::Null);
        if is_optional && (example.is_null() || has_structure) {
            alternatives.push(json!({ "type": "null" }));
        }
        let mut schema = any_of(alternatives);
        if let Some(members) = schema.as_object_mut() {
            self.describe(place, members, &expected);
            // Below `keys` the example shows values that are no defaults.
            let has_default = is_optional && !place.path().starts_with("keys");
            let is_default = has_default && !has_structure && !example.is_null();
            if let (true, Ok(default)) = (is_default, serde_json::to_value(example)) {
                members.insert("default".into(), default);
            }
        }
        schema
    }

    fn mapping(&self, place: &Place, example: &Value) -> Map<String, Json> {
        let keys = self.oracle.keys(place).unwrap_or_default();
        let absent = Value::Null;
        let member = |key: &&'static str| {
            let example = example.get(*key).unwrap_or(&absent);
            ((*key).to_owned(), self.value(&place.member(key), example))
        };
        let properties: Map<String, Json> = keys.iter().map(member).collect();
        let is_required = |key: &&&str| !self.oracle.accepts(&place.member(key), Value::Null);
        let required: Vec<&str> = keys.iter().filter(is_required).copied().collect();
        let mut schema = Map::new();
        schema.insert("type".into(), "object".into());
        schema.insert("properties".into(), properties.into());
        schema.insert("additionalProperties".into(), false.into());
        if !required.is_empty() {
            schema.insert("required".into(), required.into());
        }
        schema
    }

    /// A list, whose entries may be as any of those in the example.
    fn list(&self, place: &Place, entries: &[Value]) -> Json {
        let mut items: Vec<Json> = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let item = self.value(&place.entry(index), entry);
            if !items.contains(&item) {
                items.push(item);
            }
        }
        let min = usize::from(!self.oracle.accepts(place, Value::Sequence(Vec::new())));
        json!({ "type": "array", "minItems": min, "items": any_of(items) })
    }

    /// Lists and mappings of whose entries the example tells nothing.
    fn collections(&self, place: &Place) -> Vec<Json> {
        let mut found = Vec::new();
        if self
            .oracle
            .accepts(place, Value::Mapping(serde_yaml::Mapping::new()))
        {
            found.push(json!({ "type": "object" }));
        }
        if self.oracle.accepts(place, Value::Sequence(Vec::new())) {
            let entry = place.only_entry();
            let items = self.scalars(&entry, &Value::Null, &self.oracle.expected(&entry));
            found.push(json!({ "type": "array", "items": any_of(items) }));
        }
        found
    }

    /// The booleans, numbers and texts that the parser accepts.
    fn scalars(&self, place: &Place, example: &Value, expected: &str) -> Vec<Json> {
        let accepts = |value: Value| self.oracle.accepts(place, value);
        let accepts_any = |texts: &[&str]| texts.iter().any(|text| accepts((*text).into()));
        let mut found = Vec::new();
        match (accepts(true.into()), accepts(false.into())) {
            (true, true) => found.push(json!({ "type": "boolean" })),
            (true, false) => found.push(json!({ "const": true })),
            (false, true) => found.push(json!({ "const": false })),
            (false, false) => {}
        }
        found.extend(
            self.number(place, expected)
                .or_else(|| self.versions(place, expected)),
        );
        if accepts(ANY_TEXT.into()) {
            found.push(json!({ "type": "string" }));
            return found;
        }
        let words: Vec<&str> = words(expected)
            .filter(|word| accepts((*word).into()))
            .collect();
        if accepts_any(&["1ms", "1s", "1m", "1h"]) {
            found.push(json!({ "type": "string", "pattern": units::duration_pattern() }));
        } else if accepts_any(&["1KiB", "1MiB", "1GiB"]) {
            found.push(json!({ "type": "string", "pattern": units::size_pattern() }));
        } else if accepts_any(&FORMS)
            || (example.is_string() && !words.contains(&as_text(example)))
                && accepts(example.clone())
        {
            found.push(json!({ "type": "string" }));
            return found;
        }
        if !words.is_empty() {
            found.push(json!({ "enum": words }));
        }
        if !found.is_empty() {
            found.push(json!({ "$ref": "#/definitions/reference" }));
        }
        found
    }

    /// Numbers such as 1.2 that stand for themselves, with or without quotes.
    fn versions(&self, place: &Place, expected: &str) -> Option<Json> {
        let named = all_words(expected).filter(|word| word.contains('.'));
        let versions = named.filter_map(|word| Some((word, word.parse::<f64>().ok()?)));
        let accepts = |number: f64| self.oracle.accepts(place, number.into());
        let allowed: Vec<Json> = versions
            .filter(|(_, number)| accepts(*number))
            .flat_map(|(word, number)| [Json::from(number), Json::from(word)])
            .collect();
        (!allowed.is_empty()).then(|| json!({ "enum": allowed }))
    }

    /// Numbers, with those bounds that are in `expected`.
    fn number(&self, place: &Place, expected: &str) -> Option<Json> {
        let accepts = |number: i64| self.oracle.accepts(place, number.into());
        let is_number = |word: &str| word.parse::<i64>().ok();
        let named: Vec<i64> = all_words(expected).filter_map(is_number).collect();
        let sizes = [1, 1 << 12, 1 << 20, 1 << 30];
        let accepted = named
            .iter()
            .chain(&sizes)
            .copied()
            .find(|number| accepts(*number))?;
        let has_fractions = [accepted, accepted - 1]
            .iter()
            .any(|whole| self.oracle.accepts(place, (*whole as f64 + 0.5).into()));
        let kind = if has_fractions { "number" } else { "integer" };
        let mut schema = Map::new();
        schema.insert("type".into(), kind.into());
        for number in named.iter().copied().filter(|number| accepts(*number)) {
            if !accepts(number.saturating_sub(1)) {
                schema.insert("minimum".into(), number.into());
            }
            if !accepts(number.saturating_add(1)) {
                schema.insert("maximum".into(), number.into());
            }
        }
        Some(Json::Object(schema))
    }

    fn describe(&self, place: &Place, schema: &mut Map<String, Json>, expected: &str) {
        let comment = self.comments.of(place.path());
        let expected = match expected {
            "" | "a mapping" => None,
            expected => Some(format!("Expected: {expected}")),
        };
        let parts: Vec<String> = comment.into_iter().chain(expected).collect();
        if !parts.is_empty() {
            schema.insert("description".into(), parts.join("\n\n").into());
        }
    }
}

fn any_of(mut alternatives: Vec<Json>) -> Json {
    match alternatives.len() {
        1 => alternatives.remove(0),
        _ => json!({ "anyOf": alternatives }),
    }
}

fn as_text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The words that may be values, in what is expected without its examples.
fn words(expected: &str) -> impl Iterator<Item = &str> {
    let examples = ["such as", "of the form"].iter();
    let end = examples.filter_map(|start| expected.find(start)).min();
    let end = end.unwrap_or(expected.len());
    let words = all_words(expected.get(..end).unwrap_or_default());
    let is_word = |word: &&str| {
        word.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && word.starts_with(|c: char| c.is_ascii_alphabetic())
            && !matches!(*word, "true" | "false")
    };
    words.filter(is_word)
}

fn all_words(expected: &str) -> impl Iterator<Item = &str> {
    expected
        .split([' ', ',', ';', '(', ')'])
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests;
