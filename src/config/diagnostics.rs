//! Errors and warnings about a configuration, and how they are shown.
//!
//! Diagnostics are collected with their key paths. At the end they become text, in the order of the
//! file: `file:line:column: key path: what was found, what is expected`. If the value came from an
//! environment variable, the name of the variable replaces file and key path.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::positions::{Duplicate, Position, Positions};

/// All errors in a configuration: at least one, a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<String>);

impl ConfigErrors {
    /// In the order of the file.
    pub fn messages(&self) -> &[String] {
        &self.0
    }

    /// An error that concerns the file as a whole.
    pub(super) fn in_file(file_name: &str, problem: impl fmt::Display) -> ConfigErrors {
        ConfigErrors(vec![format!("{file_name}: {problem}")])
    }

    /// A syntax error. The error of `serde_yaml` about a duplicate key has no position, so duplicate
    /// keys are searched for again; all of them are reported, with both positions.
    pub(super) fn from_yaml(
        file_name: &str,
        text: &str,
        error: &serde_yaml::Error,
    ) -> ConfigErrors {
        let problem = error.to_string();
        if problem.contains("duplicate entry") {
            let duplicates = Positions::parse(text).duplicates();
            if !duplicates.is_empty() {
                let line = |Duplicate {
                                path,
                                first,
                                second,
                            }| {
                    format!("{file_name}:{second}: {path}: duplicate key (first at {first})")
                };
                return ConfigErrors(duplicates.into_iter().map(line).collect());
            }
        }
        let location = error.location();
        let line = location.as_ref().map_or(0, serde_yaml::Location::line);
        if let Some(position) = Positions::indenting_tab(text, line) {
            return ConfigErrors(vec![format!(
                "{file_name}:{position}: found a tab, expected spaces: YAML does not allow tabs in indentation"
            )]);
        }
        let position = location.map_or(String::new(), |location| {
            format!(":{}:{}", location.line(), location.column())
        });
        ConfigErrors::in_file(
            &format!("{file_name}{position}"),
            format_args!("invalid YAML: {problem}"),
        )
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for ConfigErrors {}

/// The names of the environment variables in use, by the key path that each overrides.
pub(super) type Variables = BTreeMap<String, String>;

/// The diagnostics so far. All nodes of a document share them, hence the cell.
#[derive(Default)]
pub(super) struct Diagnostics {
    entries: RefCell<Vec<Diagnostic>>,
    /// The references as they are written, by key path. Their values may be secret.
    references: RefCell<BTreeMap<String, String>>,
    /// The key paths of references that have no value.
    broken_references: RefCell<BTreeSet<String>>,
    /// The keys that each mapping may have, by key path.
    known_keys: RefCell<BTreeMap<String, Vec<&'static str>>>,
}

struct Diagnostic {
    kind: Kind,
    path: String,
    text: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Error,
    Warning,
    /// An error in the file, a warning in the environment.
    UnknownKey,
}

impl Diagnostics {
    pub(super) fn error(&self, path: &str, text: String) {
        self.add(Kind::Error, path, text);
    }

    /// The value at `path` is valid but probably not meant.
    pub(super) fn warn(&self, path: &str, text: String) {
        self.add(Kind::Warning, path, text);
    }

    pub(super) fn unknown_key(&self, path: &str, text: String) {
        self.add(Kind::UnknownKey, path, text);
    }

    /// The value at `path` came from the reference `written`.
    pub(super) fn add_reference(&self, path: &str, written: String) {
        let mut references = self.references.borrow_mut();
        references.insert(path.to_owned(), written);
    }

    /// The reference at `path` has no value. Nothing else is reported about that path.
    pub(super) fn add_broken_reference(&self, path: &str, problem: String) {
        self.error(path, problem);
        self.broken_references.borrow_mut().insert(path.to_owned());
    }

    /// The reference that the value at `path` came from, as it is written.
    pub(super) fn reference(&self, path: &str) -> Option<String> {
        self.references.borrow().get(path).cloned()
    }

    pub(super) fn is_broken_reference(&self, path: &str) -> bool {
        self.broken_references.borrow().contains(path)
    }

    /// The mapping at `path` may have these keys.
    pub(super) fn add_known_keys(&self, path: &str, keys: Vec<&'static str>) {
        self.known_keys.borrow_mut().insert(path.to_owned(), keys);
    }

    pub(super) fn into_known_keys(self) -> BTreeMap<String, Vec<&'static str>> {
        self.known_keys.into_inner()
    }

    /// The errors about the value at `path` and what is in it.
    pub(super) fn errors_in(&self, path: &str) -> Vec<String> {
        let is_inside = |entry: &&Diagnostic| {
            let rest = entry.path.strip_prefix(path);
            entry.kind != Kind::Warning
                && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let entries = self.entries.borrow();
        entries
            .iter()
            .filter(is_inside)
            .map(|entry| entry.text.clone())
            .collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.borrow().is_empty()
    }

    fn add(&self, kind: Kind, path: &str, text: String) {
        self.entries.borrow_mut().push(Diagnostic {
            kind,
            path: path.to_owned(),
            text,
        });
    }

    /// Returns the warnings if there is no error.
    pub(super) fn finish(
        self,
        file_name: &str,
        text: &str,
        variables: &Variables,
    ) -> Result<Vec<String>, ConfigErrors> {
        let entries = self.entries.into_inner();
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let positions = Positions::parse(text);
        let mut errors = Vec::new();
        let mut warnings = Vec::new();
        for entry in entries {
            let variable = variables.get(&entry.path).map(String::as_str);
            let is_error = match entry.kind {
                Kind::Error => true,
                Kind::Warning => false,
                Kind::UnknownKey => variable.is_none(),
            };
            let lines = if is_error { &mut errors } else { &mut warnings };
            lines.push(entry.line(file_name, &positions, variable));
        }
        if errors.is_empty() {
            Ok(sorted(warnings))
        } else {
            Err(ConfigErrors(sorted(errors)))
        }
    }
}

impl Diagnostic {
    /// The message behind its sort key: the position in the file, then the variables.
    fn line(
        &self,
        file_name: &str,
        positions: &Positions,
        variable: Option<&str>,
    ) -> (bool, Option<Position>, String) {
        if let Some(variable) = variable {
            return (true, None, format!("{variable}: {}", self.text));
        }
        let position = match self.kind {
            Kind::Error | Kind::Warning => positions.value(&self.path),
            Kind::UnknownKey => positions.key(&self.path),
        };
        let mut line = file_name.to_owned();
        if let Some(position) = position {
            line.push_str(&format!(":{position}"));
        }
        if !self.path.is_empty() {
            line.push_str(&format!(": {}", self.path));
        }
        (false, position, format!("{line}: {}", self.text))
    }
}

fn sorted(mut lines: Vec<(bool, Option<Position>, String)>) -> Vec<String> {
    lines.sort();
    lines.into_iter().map(|(_, _, line)| line).collect()
}
