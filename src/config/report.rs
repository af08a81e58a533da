//! What was found wrong or odd, and how that is said.
//!
//! Findings are collected with their key paths and become text in the end, in the order of the
//! file: `file:line:column: key path: what was found, what would be right`. One that stems from an
//! environment variable names the variable in the place of the file.

use std::cell::RefCell;
use std::fmt;

use super::environment::Variables;
use super::locate::{Duplicate, Position, Positions};

/// Everything that is wrong with a configuration, one line each; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<String>);

impl ConfigErrors {
    /// The messages, in the order of the file.
    pub fn messages(&self) -> &[String] {
        &self.0
    }

    /// A file that cannot even be parsed.
    pub(super) fn of_file(file_name: &str, problem: &str) -> ConfigErrors {
        ConfigErrors(vec![format!("{file_name}: {problem}")])
    }

    /// A text that is no YAML. Keys written twice are reported all at once and with both places,
    /// which the YAML error does not have.
    pub(super) fn of_syntax(
        file_name: &str,
        text: &str,
        error: &serde_yaml::Error,
    ) -> ConfigErrors {
        let problem = error.to_string();
        if problem.contains("duplicate entry") {
            let duplicates = Positions::of(text).duplicates();
            if !duplicates.is_empty() {
                let line = |duplicate| duplicate_line(file_name, &duplicate);
                return ConfigErrors(duplicates.into_iter().map(line).collect());
            }
        }
        let line = error.location().map_or(0, |location| location.line());
        if let Some(place) = Positions::indenting_tab(text, line) {
            return ConfigErrors(vec![format!(
                "{file_name}:{place}: found a tab, expected spaces: YAML allows no tab where a line is indented"
            )]);
        }
        let place = error.location().map_or(String::new(), |location| {
            format!(":{}:{}", location.line(), location.column())
        });
        ConfigErrors(vec![format!(
            "{file_name}{place}: not valid YAML: {problem}"
        )])
    }
}

fn duplicate_line(file_name: &str, duplicate: &Duplicate) -> String {
    let Duplicate {
        path,
        first,
        second,
    } = duplicate;
    format!(
        "{file_name}:{second}: {path}: found this key again, expected it once (first at {first})"
    )
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for ConfigErrors {}

/// The findings so far. Shared by all nodes of a document, hence the cell.
#[derive(Default)]
pub(super) struct Report {
    findings: RefCell<Vec<Finding>>,
}

struct Finding {
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

impl Report {
    /// The value at `path` cannot stay.
    pub(super) fn error(&self, path: &str, text: String) {
        self.add(Kind::Error, path, text);
    }

    /// The value at `path` may stay but is probably not meant.
    pub(super) fn warn(&self, path: &str, text: String) {
        self.add(Kind::Warning, path, text);
    }

    /// Nobody reads the key at `path`.
    pub(super) fn unknown_key(&self, path: &str, text: String) {
        self.add(Kind::UnknownKey, path, text);
    }

    /// Whether nothing was found.
    pub(super) fn is_empty(&self) -> bool {
        self.findings.borrow().is_empty()
    }

    fn add(&self, kind: Kind, path: &str, text: String) {
        self.findings.borrow_mut().push(Finding {
            kind,
            path: path.to_owned(),
            text,
        });
    }

    /// The errors, or else the warnings, as lines.
    pub(super) fn finish(
        self,
        file_name: &str,
        text: &str,
        variables: &Variables,
    ) -> Result<Vec<String>, ConfigErrors> {
        let findings = self.findings.into_inner();
        if findings.is_empty() {
            return Ok(Vec::new());
        }
        let positions = Positions::of(text);
        let mut errors = Vec::new();
        let mut warnings = Vec::new();
        for finding in findings {
            let variable = variables.get(&finding.path).map(String::as_str);
            let is_error = match finding.kind {
                Kind::Error => true,
                Kind::Warning => false,
                Kind::UnknownKey => variable.is_none(),
            };
            let lines = if is_error { &mut errors } else { &mut warnings };
            lines.push(finding.line(file_name, &positions, variable));
        }
        if errors.is_empty() {
            Ok(in_order(warnings))
        } else {
            Err(ConfigErrors(in_order(errors)))
        }
    }
}

impl Finding {
    /// The message and what to sort it by: the place in the file, variables after all of it.
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

fn in_order(mut lines: Vec<(bool, Option<Position>, String)>) -> Vec<String> {
    lines.sort();
    lines.into_iter().map(|(_, _, line)| line).collect()
}
