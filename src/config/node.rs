//! YAML values with their key paths.
//!
//! Reading a [`Node`] returns a value or adds an error to the diagnostics. The caller then continues with
//! the default, so that one pass finds every mistake. A [`Section`] is a mapping that records which keys
//! were read: these are the schema, and every other key is unknown.

use serde_yaml::{Mapping, Value};

use super::diagnostics::Diagnostics;
use super::key_path;
use super::suggest::suggest;
use super::value::{Parsed, describe, parse_scalar};

/// A key path in the document, with or without a value.
pub(super) struct Node<'a> {
    /// Empty for the document itself.
    pub(super) path: String,
    /// `None` also for null: in YAML, a key without a value is null.
    value: Option<&'a Value>,
    diagnostics: &'a Diagnostics,
}

impl<'a> Node<'a> {
    pub(super) fn root(document: &'a Value, diagnostics: &'a Diagnostics) -> Node<'a> {
        Node::new(String::new(), Some(document), diagnostics)
    }

    fn new(path: String, value: Option<&'a Value>, diagnostics: &'a Diagnostics) -> Node<'a> {
        let value = value.filter(|value| !value.is_null());
        Node {
            path,
            value,
            diagnostics,
        }
    }

    /// Parses the value, if there is one.
    pub(super) fn optional<T>(&self, parse: impl Fn(&Value) -> Parsed<T>) -> Option<T> {
        self.value.and_then(|_| self.required(parse))
    }

    /// Parses the value. A missing value is an error.
    pub(super) fn required<T>(&self, parse: impl Fn(&Value) -> Parsed<T>) -> Option<T> {
        let value = self.value.unwrap_or(&Value::Null);
        let parsed = parse(value).map_err(|expected| {
            // The description may quote the value, which is secret if it came from a reference.
            let is_quotable = self.diagnostics.reference(&self.path).is_none();
            match is_quotable {
                true => expected,
                false => parse(&Value::Null).err().unwrap_or_default(),
            }
        });
        parsed.inspect_err(|expected| self.reject(expected)).ok()
    }

    /// The value as a mapping, empty if there is no value.
    pub(super) fn section(self) -> Section<'a> {
        let mapping = match self.value {
            None => None,
            Some(Value::Mapping(mapping)) => Some(mapping),
            Some(_) => {
                self.reject("a mapping");
                None
            }
        };
        Section {
            node: self,
            mapping,
            known: Vec::new(),
        }
    }

    /// The entries of a list that must have at least one. `expected` describes the list.
    pub(super) fn required_list(&self, expected: &str) -> Vec<Node<'a>> {
        let Some(Value::Sequence(entries)) = self.value else {
            self.reject(expected);
            return Vec::new();
        };
        if entries.is_empty() {
            self.error(format!("found an empty list, expected {expected}"));
        }
        self.entries(entries)
    }

    /// The entries of a list that may be missing. `expected` describes the list.
    pub(super) fn optional_list(&self, expected: &str) -> Vec<Node<'a>> {
        match self.value {
            None => Vec::new(),
            Some(Value::Sequence(entries)) => self.entries(entries),
            Some(_) => {
                self.reject(expected);
                Vec::new()
            }
        }
    }

    fn entries(&self, entries: &'a [Value]) -> Vec<Node<'a>> {
        let entry = |(index, value)| {
            let path = key_path::entry(&self.path, index);
            Node::new(path, Some(value), self.diagnostics)
        };
        entries.iter().enumerate().map(entry).collect()
    }

    /// The keys and values of a mapping; none if the value is not a mapping.
    pub(super) fn members(&self) -> Vec<(String, Node<'a>)> {
        let mapping = self.value.and_then(Value::as_mapping);
        let member = |(key, value): (&Value, &'a Value)| {
            let name = key_name(key);
            let path = key_path::member(&self.path, &name);
            (name, Node::new(path, Some(value), self.diagnostics))
        };
        mapping.into_iter().flatten().map(member).collect()
    }

    /// The same place as if nothing stood there.
    pub(super) fn without_value(&self) -> Node<'a> {
        Node::new(self.path.clone(), None, self.diagnostics)
    }

    pub(super) fn is_absent(&self) -> bool {
        self.value.is_none()
    }

    /// Whether the value is the scalar `text`, quoted or not.
    pub(super) fn is(&self, text: &str) -> bool {
        self.value.and_then(parse_scalar::<String>).as_deref() == Some(text)
    }

    pub(super) fn is_mapping(&self) -> bool {
        self.value.is_some_and(Value::is_mapping)
    }

    pub(super) fn error(&self, text: impl Into<String>) {
        self.diagnostics.error(&self.path, text.into());
    }

    pub(super) fn warn(&self, text: impl Into<String>) {
        self.diagnostics.warn(&self.path, text.into());
    }

    /// Reports that the value is not what is `expected`.
    pub(super) fn reject(&self, expected: &str) {
        if self.diagnostics.is_broken_reference(&self.path) {
            return;
        }
        let found = match self.diagnostics.reference(&self.path) {
            Some(written) => format!("another value from {}", describe(&written.into())),
            None => describe(self.value.unwrap_or(&Value::Null)),
        };
        self.error(format!("found {found}, expected {expected}"));
    }
}

/// A mapping, and the keys that were read from it.
#[must_use = "finish() reports the unknown keys"]
pub(super) struct Section<'a> {
    node: Node<'a>,
    mapping: Option<&'a Mapping>,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    pub(super) fn take(&mut self, key: &'static str) -> Node<'a> {
        self.known.push(key);
        let value = self.mapping.and_then(|mapping| mapping.get(key));
        Node::new(self.path(key), value, self.node.diagnostics)
    }

    /// The parsed value of `key`, or `default` if it is missing or invalid.
    pub(super) fn value<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&Value) -> Parsed<T>,
        default: T,
    ) -> T {
        self.take(key).optional(parse).unwrap_or(default)
    }

    /// Whether `key` has a value.
    pub(super) fn has(&self, key: &str) -> bool {
        let value = self.mapping.and_then(|mapping| mapping.get(key));
        value.is_some_and(|value| !value.is_null())
    }

    pub(super) fn warn(&self, key: &'static str, text: &str) {
        let path = self.path(key);
        self.node.diagnostics.warn(&path, text.to_owned());
    }

    pub(super) fn error(&self, key: &'static str, text: &str) {
        let path = self.path(key);
        self.node.diagnostics.error(&path, text.to_owned());
    }

    fn path(&self, key: &str) -> String {
        key_path::member(&self.node.path, key)
    }

    /// Reports every key that was not read.
    pub(super) fn finish(self) {
        for key in self.mapping.into_iter().flat_map(Mapping::keys) {
            let key = key_name(key);
            if self.known.contains(&key.as_str()) {
                continue;
            }
            let text = match suggest(&key, &self.known) {
                Some(suggestion) => format!("unknown key, did you mean {suggestion}?"),
                None => format!("unknown key, expected one of {}", self.known.join(", ")),
            };
            self.node.diagnostics.unknown_key(&self.path(&key), text);
        }
        let Section { node, known, .. } = self;
        node.diagnostics.add_known_keys(&node.path, known);
    }
}

pub(super) fn key_name(key: &Value) -> String {
    match key {
        Value::String(name) => name.clone(),
        other => describe(other),
    }
}
