//! What the parser of the configuration accepts at a place.

use std::collections::BTreeMap;

use serde_yaml::{Mapping, Value};

use super::super::diagnostics::Diagnostics;
use super::super::proxy::EnvironmentProxies;
use super::super::{key_path, schema};

/// A place in a configuration: a key path in steps.
#[derive(Clone)]
pub(super) struct Place {
    path: String,
    steps: Vec<Step>,
}

#[derive(Clone)]
enum Step {
    Member(String),
    Entry(usize),
    /// The only entry of a list that is made for it.
    OnlyEntry,
}

impl Place {
    pub(super) fn root() -> Place {
        Place {
            path: String::new(),
            steps: Vec::new(),
        }
    }

    pub(super) fn member(&self, key: &str) -> Place {
        let path = key_path::member(&self.path, key);
        self.then(path, Step::Member(key.to_owned()))
    }

    pub(super) fn entry(&self, index: usize) -> Place {
        self.then(key_path::entry(&self.path, index), Step::Entry(index))
    }

    pub(super) fn only_entry(&self) -> Place {
        self.then(key_path::entry(&self.path, 0), Step::OnlyEntry)
    }

    fn then(&self, path: String, step: Step) -> Place {
        let mut steps = self.steps.clone();
        steps.push(step);
        Place { path, steps }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }
}

/// `inside` with `value` at the end of `steps`.
fn put(steps: &[Step], inside: Value, value: Value) -> Value {
    let Some((step, rest)) = steps.split_first() else {
        return value;
    };
    match (step, inside) {
        (Step::Member(key), inside) => {
            let mut mapping = match inside {
                Value::Mapping(mapping) => mapping,
                _ => Mapping::new(),
            };
            let member = mapping.get(key.as_str()).cloned().unwrap_or_default();
            mapping.insert(key.as_str().into(), put(rest, member, value));
            Value::Mapping(mapping)
        }
        (Step::Entry(index), Value::Sequence(mut entries)) => {
            if let Some(entry) = entries.get_mut(*index) {
                *entry = put(rest, std::mem::take(entry), value);
            }
            Value::Sequence(entries)
        }
        (Step::Entry(_) | Step::OnlyEntry, _) => {
            Value::Sequence(vec![put(rest, Value::Null, value)])
        }
    }
}

/// The parser, with a valid configuration in which one value at a time is replaced.
pub(super) struct Oracle {
    example: Value,
    keys: BTreeMap<String, Vec<&'static str>>,
}

impl Oracle {
    pub(super) fn new(example: Value) -> Oracle {
        let diagnostics = Diagnostics::default();
        schema::config(&example, &EnvironmentProxies::default(), &diagnostics);
        Oracle {
            example,
            keys: diagnostics.into_known_keys(),
        }
    }

    /// The keys of the mapping at `place`; `None` if there is none with known keys.
    pub(super) fn keys(&self, place: &Place) -> Option<Vec<&'static str>> {
        self.keys.get(place.path()).cloned()
    }

    pub(super) fn accepts(&self, place: &Place, value: Value) -> bool {
        self.errors(place, value).is_empty()
    }

    /// What the parser says that it expects at `place`; empty if it does not say.
    pub(super) fn expected(&self, place: &Place) -> String {
        // No key takes a list of lists.
        let nothing_valid = Value::Sequence(vec![Value::Sequence(Vec::new())]);
        let errors = self.errors(place, nothing_valid);
        let expected = errors
            .iter()
            .find_map(|error| error.split_once("expected "));
        expected.map_or(String::new(), |(_, expected)| expected.to_owned())
    }

    fn errors(&self, place: &Place, value: Value) -> Vec<String> {
        let document = put(&place.steps, self.example.clone(), value);
        let diagnostics = Diagnostics::default();
        schema::config(&document, &EnvironmentProxies::default(), &diagnostics);
        diagnostics.errors_in(place.path())
    }
}
