//! References in values: `${NAME}`, `${NAME:-default}` and `file:/run/secrets/x`.
//!
//! They are replaced in the parsed document, so that no text of a variable or a file is read as YAML, and none
//! is searched for further references. Of the texts with a `$`, only those with `${` can change: getsentry's
//! mirror gives `$` no meaning. Its keys that take any text keep a reference that leads nowhere, with a warning.

use std::collections::BTreeMap;
use std::path::Path;

use serde_yaml::{Mapping, Value};

use super::diagnostics::Diagnostics;
use super::key_path;
use super::node::key_name;
use super::regular_file::read_regular_file;
use super::value::describe;

/// A secret is a line or a few; a larger file is probably another one.
const FILE_BYTES_MAX: u32 = 64 * 1024;

/// Keys of getsentry/sentry-mirror whose values may be any text.
const FREE_TEXTS: [&str; 2] = ["sentry_env", "default_metrics_tags"];

/// Replaces the references in all values of `document`. An empty variable counts as not set.
pub(super) fn resolve(
    document: &mut Mapping,
    env: &BTreeMap<String, String>,
    diagnostics: &Diagnostics,
) {
    let references = References { env, diagnostics };
    references.resolve_members(document, "");
}

struct References<'a> {
    env: &'a BTreeMap<String, String>,
    diagnostics: &'a Diagnostics,
}

impl References<'_> {
    fn resolve_members(&self, mapping: &mut Mapping, path: &str) {
        for (key, value) in mapping.iter_mut() {
            self.resolve_in(value, &key_path::member(path, &key_name(key)));
        }
    }

    fn resolve_in(&self, value: &mut Value, path: &str) {
        match value {
            Value::String(text) => self.resolve_text(text, path),
            Value::Sequence(entries) => {
                for (index, entry) in entries.iter_mut().enumerate() {
                    self.resolve_in(entry, &key_path::entry(path, index));
                }
            }
            Value::Mapping(mapping) => self.resolve_members(mapping, path),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Tagged(_) => {}
        }
    }

    fn resolve_text(&self, text: &mut String, path: &str) {
        let resolved = match text.strip_prefix("file:") {
            Some(file) => self.expand(file).and_then(|file| read(&file, text)),
            None if text.contains("${") => self.expand(text),
            None => return,
        };
        match resolved {
            Ok(resolved) => {
                let written = std::mem::replace(text, resolved);
                self.diagnostics.add_reference(path, written);
            }
            Err(problem) if FREE_TEXTS.iter().any(|key| path.starts_with(key)) => {
                let text = format!("{problem}; the text stays as it is");
                self.diagnostics.warn(path, text);
            }
            Err(problem) => self.diagnostics.add_broken_reference(path, problem),
        }
    }

    /// Replaces the variables in `text`.
    fn expand(&self, text: &str) -> Result<String, String> {
        let mut expanded = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            if let Some(before) = before.strip_suffix('$') {
                expanded.push_str(before);
                expanded.push_str("${");
                rest = after;
                continue;
            }
            expanded.push_str(before);
            let (reference, after) = split_reference(after)?;
            expanded.push_str(self.variable(reference)?);
            rest = after;
        }
        expanded.push_str(rest);
        Ok(expanded)
    }

    fn variable<'t>(&'t self, reference: Reference<'t>) -> Result<&'t str, String> {
        let Reference { name, default } = reference;
        let value = self.env.get(name).map(String::as_str);
        let value = value.filter(|value| !value.is_empty());
        value.or(default).ok_or_else(|| {
            format!(
                "the environment variable {name} is not set or empty; expected a value, or ${{{name}:-DEFAULT}}"
            )
        })
    }
}

struct Reference<'t> {
    name: &'t str,
    default: Option<&'t str>,
}

/// Splits `text`, which follows `${`, at the end of the reference.
fn split_reference(text: &str) -> Result<(Reference<'_>, &str), String> {
    let split = text.split_once('}').and_then(|(inside, after)| {
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        let is_simple = default.is_none_or(|default| !default.contains("${"));
        (is_name(name) && is_simple).then_some((Reference { name, default }, after))
    });
    split.ok_or_else(|| {
        "found ${ without the name of a variable and }, expected ${NAME} or ${NAME:-DEFAULT}, or $${ for the \
         text ${"
            .to_owned()
    })
}

fn is_name(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.bytes().all(is_part) && text.starts_with(|c: char| !c.is_ascii_digit())
}

/// The text of a file, without the line end that editors add. `written` is the reference, for messages.
fn read(path: &str, written: &str) -> Result<String, String> {
    let shown = describe(&written.into());
    if !path.starts_with('/') {
        return Err(format!(
            "found {shown}, expected an absolute path, such as file:/run/secrets/sentry_dsn"
        ));
    }
    let bytes = read_regular_file(Path::new(path), FILE_BYTES_MAX)
        .map_err(|error| format!("{shown}: the file cannot be read: {error}"))?;
    let text =
        String::from_utf8(bytes).map_err(|_| format!("{shown}: the file is not text in UTF-8"))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    match text.is_empty() {
        true => Err(format!("{shown}: the file is empty")),
        false => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn expand(text: &str) -> Result<String, String> {
        let env = [("A", "a"), ("EMPTY", ""), ("_B2", "${A}")];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let references = References {
            env: &env.into(),
            diagnostics: &Diagnostics::default(),
        };
        references.expand(text)
    }

    #[test]
    fn a_reference_is_replaced_once_and_other_dollars_stay() {
        for (text, expected) in [
            ("${A}", "a"),
            ("x${A}y${A}z", "xayaz"),
            ("${_B2}", "${A}"),
            ("${EMPTY:-b}${C:-}${A:-c}", "ba"),
            ("${C:-a:-b$}", "a:-b$"),
            ("$${A} $${", "${A} ${"),
            ("$A $$ $", "$A $$ $"),
            ("é${A}é", "éaé"),
        ] {
            assert_eq!(expand(text).as_deref(), Ok(expected), "{text}");
        }
        for text in [
            "${EMPTY}",
            "${C}",
            "${",
            "${A",
            "${}",
            "${1}",
            "${a-b}",
            "${A:?x}",
            "${é}",
            "${C:-${A}}",
        ] {
            assert!(expand(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_is_read_without_its_line_end() {
        let folder = std::env::temp_dir().join(format!("references-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("secret");
        let path = file.display().to_string();
        let full = vec![b'x'; usize::try_from(FILE_BYTES_MAX).unwrap()];
        for (bytes, expected) in [
            (&b"a\n"[..], Some("a")),
            (b"a\r\n", Some("a")),
            (b"a\n\n", Some("a\n")),
            (b" a b", Some(" a b")),
            (b"", None),
            (b"\n", None),
            (b"\xff", None),
            (&full, Some(std::str::from_utf8(&full).unwrap())),
            (&[&full[..], b"x"].concat(), None),
        ] {
            fs::write(&file, bytes).unwrap();
            let text = read(&path, "file:/x");
            assert_eq!(text.as_deref().ok(), expected);
            assert!(text.is_ok() || text.unwrap_err().starts_with("\"file:/x\": the file "));
        }
        for (path, problem) in [
            ("/dev/zero", "not a regular file"),
            ("/", "not a regular file"),
            ("/does/not/exist", "No such file"),
            ("relative", "expected an absolute path"),
        ] {
            let error = read(path, "file:x").unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
