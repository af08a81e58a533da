//! The raw configuration: values that know where they stand.
//!
//! A [`Node`] is a place in the YAML document with its key path. Reading one either gives a value
//! or puts a finding into the report, and the caller goes on with the default, so that one pass
//! finds every mistake. A [`Section`] is a mapping that remembers which keys were asked for: that
//! is the whole schema, and whatever else stands there is unknown.

use serde_yaml::{Mapping, Value};

use super::nearest::nearest;
use super::report::Report;
use super::value::{Read, found, parse};

/// A place of the document, whether or not something stands there.
pub(super) struct Node<'a> {
    /// Where it is, `keys[1].outbound[0]`; empty for the document itself.
    pub(super) path: String,
    /// What stands there; null counts as nothing, as in YAML a key without a value is null.
    value: Option<&'a Value>,
    report: &'a Report,
}

impl<'a> Node<'a> {
    /// The whole of `document`.
    pub(super) fn root(document: &'a Value, report: &'a Report) -> Node<'a> {
        Node::new(String::new(), Some(document), report)
    }

    fn new(path: String, value: Option<&'a Value>, report: &'a Report) -> Node<'a> {
        let value = value.filter(|value| !value.is_null());
        Node {
            path,
            value,
            report,
        }
    }

    /// The value, as `reader` reads it, where one is given. A reader that refuses a value says what
    /// it expects instead.
    pub(super) fn optional<T>(&self, reader: impl FnOnce(&Value) -> Read<T>) -> Option<T> {
        self.value.and_then(|_| self.required(reader))
    }

    /// The value, as `reader` reads it; nothing there is an error too.
    pub(super) fn required<T>(&self, reader: impl FnOnce(&Value) -> Read<T>) -> Option<T> {
        let value = self.value.unwrap_or(&Value::Null);
        reader(value)
            .inspect_err(|expected| self.refuse(expected))
            .ok()
    }

    /// The value as a mapping; an empty one where there is none.
    pub(super) fn section(self) -> Section<'a> {
        let mapping = match self.value {
            None => None,
            Some(Value::Mapping(mapping)) => Some(mapping),
            Some(_) => {
                self.refuse("a mapping");
                None
            }
        };
        Section {
            node: self,
            mapping,
            asked: Vec::new(),
        }
    }

    /// The entries of the list that has to stand here, at least one. `expected` describes it.
    pub(super) fn entries(&self, expected: &str) -> Vec<Node<'a>> {
        let Some(Value::Sequence(entries)) = self.value else {
            self.refuse(expected);
            return Vec::new();
        };
        if entries.is_empty() {
            self.error(format!("found an empty list, expected {expected}"));
        }
        self.elements(entries)
    }

    /// The entries of the list that may stand here. `expected` describes it.
    pub(super) fn list(&self, expected: &str) -> Vec<Node<'a>> {
        match self.value {
            None => Vec::new(),
            Some(Value::Sequence(entries)) => self.elements(entries),
            Some(_) => {
                self.refuse(expected);
                Vec::new()
            }
        }
    }

    fn elements(&self, entries: &'a [Value]) -> Vec<Node<'a>> {
        let entry = |(index, value)| {
            let path = format!("{}[{index}]", self.path);
            Node::new(path, Some(value), self.report)
        };
        entries.iter().enumerate().map(entry).collect()
    }

    /// The members of the mapping that stands here, by name.
    pub(super) fn members(&self) -> Vec<(String, Node<'a>)> {
        let mapping = self.value.and_then(Value::as_mapping);
        let member = |(key, value): (&Value, &'a Value)| {
            let name = match key {
                Value::String(name) => name.clone(),
                other => found(other),
            };
            let path = key_path(&self.path, &name);
            (name, Node::new(path, Some(value), self.report))
        };
        mapping.into_iter().flatten().map(member).collect()
    }

    /// Whether nothing stands here.
    pub(super) fn is_absent(&self) -> bool {
        self.value.is_none()
    }

    /// Whether `text` stands here, or what YAML makes of it.
    pub(super) fn is(&self, text: &str) -> bool {
        self.value.and_then(parse::<String>).as_deref() == Some(text)
    }

    /// Whether a mapping stands here.
    pub(super) fn is_mapping(&self) -> bool {
        self.value.is_some_and(Value::is_mapping)
    }

    /// Reports what is wrong here.
    pub(super) fn error(&self, text: impl Into<String>) {
        self.report.error(&self.path, text.into());
    }

    /// Reports what is odd here.
    pub(super) fn warn(&self, text: impl Into<String>) {
        self.report.warn(&self.path, text.into());
    }

    /// Reports that what stands here is not what is `expected`.
    pub(super) fn refuse(&self, expected: &str) {
        let found = found(self.value.unwrap_or(&Value::Null));
        self.error(format!("found {found}, expected {expected}"));
    }
}

/// A mapping that is being read.
#[must_use = "finish() reports the unknown keys"]
pub(super) struct Section<'a> {
    node: Node<'a>,
    mapping: Option<&'a Mapping>,
    asked: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// The place of `key`.
    pub(super) fn take(&mut self, key: &'static str) -> Node<'a> {
        self.asked.push(key);
        let value = self.mapping.and_then(|mapping| mapping.get(key));
        Node::new(key_path(&self.node.path, key), value, self.node.report)
    }

    /// The value of `key` as `reader` reads it, or else `default`.
    pub(super) fn value<T>(
        &mut self,
        key: &'static str,
        reader: impl FnOnce(&Value) -> Read<T>,
        default: T,
    ) -> T {
        self.take(key).optional(reader).unwrap_or(default)
    }

    /// Whether `key` has a value.
    pub(super) fn has(&self, key: &str) -> bool {
        let value = self.mapping.and_then(|mapping| mapping.get(key));
        value.is_some_and(|value| !value.is_null())
    }

    /// Reports what is odd about the value of `key`.
    pub(super) fn warn(&self, key: &'static str, text: &str) {
        let path = key_path(&self.node.path, key);
        self.node.report.warn(&path, text.to_owned());
    }

    /// Reports what is wrong with the value of `key`.
    pub(super) fn error(&self, key: &'static str, text: &str) {
        let path = key_path(&self.node.path, key);
        self.node.report.error(&path, text.to_owned());
    }

    /// Reports every key that was not asked for.
    pub(super) fn finish(self) {
        for key in self.mapping.into_iter().flat_map(Mapping::keys) {
            let key = match key {
                Value::String(key) => key.clone(),
                other => found(other),
            };
            if self.asked.contains(&key.as_str()) {
                continue;
            }
            let path = key_path(&self.node.path, &key);
            let text = match nearest(&key, &self.asked) {
                Some(nearest) => format!("unknown key, did you mean {nearest}?"),
                None => format!("unknown key, expected one of {}", self.asked.join(", ")),
            };
            self.node.report.unknown_key(&path, text);
        }
    }
}

/// The path of `key` in the mapping at `parent`. A key that would not read as a part of a path is
/// quoted.
pub(super) fn key_path(parent: &str, key: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let dot = if parent.is_empty() { "" } else { "." };
    if !key.is_empty() && key.chars().all(is_plain) {
        format!("{parent}{dot}{key}")
    } else {
        format!("{parent}{dot}{key:?}")
    }
}
