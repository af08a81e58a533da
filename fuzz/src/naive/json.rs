//! JSON as serde_json reads it, with the positions of its values.

use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{self, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The deepest nesting that is read here.
const NESTING_MAX: usize = 100;

/// A value, and its position in the text.
#[derive(Clone, Debug)]
pub struct Node {
    pub place: Range<usize>,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub enum Value {
    Object(Vec<(String, Node)>),
    Array(Vec<Node>),
    /// The decoded text of a string.
    Text(String),
    /// A number, as it is written.
    Number(String),
    True,
    False,
    Null,
}

impl Node {
    /// The position of the content of a string, or of any other value as a whole.
    pub fn content(&self) -> Range<usize> {
        match self.value {
            Value::Text(_) => self.place.start + 1..self.place.end - 1,
            _ => self.place.clone(),
        }
    }

    /// All members of an object called `name`.
    pub fn members<'n>(&'n self, name: &'n str) -> impl DoubleEndedIterator<Item = &'n Node> {
        let members = match &self.value {
            Value::Object(members) => members.as_slice(),
            _ => &[],
        };
        let named = members.iter().filter(move |(known, _)| known == name);
        named.map(|(_, member)| member)
    }

    /// The last of them, which is the one that counts.
    pub fn member<'n>(&'n self, name: &'n str) -> Option<&'n Node> {
        self.members(name).next_back()
    }

    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// The value of `text` at `start`, after optional white space. `None` if serde_json refuses it, or it is nested
/// too deeply.
pub fn read(text: &[u8], start: usize) -> Option<Node> {
    let rest = text.get(start..)?;
    let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<&RawValue>();
    let raw = values.next()?.ok()?;
    node(text, raw, NESTING_MAX)
}

fn node(text: &[u8], raw: &RawValue, nesting_max: usize) -> Option<Node> {
    let written = raw.get();
    let start = written.as_ptr().addr() - text.as_ptr().addr();
    let nesting_max = nesting_max.checked_sub(1)?;
    let value = match written.as_bytes().first()? {
        b'{' => {
            let Members(members) = serde_json::from_str(written).ok()?;
            let members = members.into_iter().map(|(name, member)| {
                let member = node(text, member, nesting_max)?;
                Some((name, member))
            });
            Value::Object(members.collect::<Option<_>>()?)
        }
        b'[' => {
            let elements: Vec<&RawValue> = serde_json::from_str(written).ok()?;
            let elements = elements.into_iter();
            let elements = elements.map(|element| node(text, element, nesting_max));
            Value::Array(elements.collect::<Option<_>>()?)
        }
        b'"' => Value::Text(serde_json::from_str(written).ok()?),
        b't' => Value::True,
        b'f' => Value::False,
        b'n' => Value::Null,
        _ => Value::Number(written.to_owned()),
    };
    Some(Node {
        place: start..start + written.len(),
        value,
    })
}

/// All members of an object, including duplicates.
struct Members<'t>(Vec<(String, &'t RawValue)>);

impl<'t> Deserialize<'t> for Members<'t> {
    fn deserialize<D: de::Deserializer<'t>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;

        impl<'t> Visitor<'t> for Visit {
            type Value = Members<'t>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'t>>(self, mut map: A) -> Result<Members<'t>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Visit)
    }
}
