//! The text of a configuration: where it comes from, and what YAML makes of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use serde::Deserialize;
use serde_yaml::{Mapping, Value};

use super::report::ConfigErrors;
use super::value;

/// The path that stands for standard input.
pub(crate) const STANDARD_INPUT: &str = "-";

/// With what some editors begin a text in UTF-8.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// A configuration that was read once and is to be understood.
pub struct Source {
    /// What messages call it.
    pub(super) name: String,
    pub(super) text: Result<String, ConfigErrors>,
}

impl Source {
    /// Reads the file at `path`, or standard input where that is `-`.
    pub fn read(path: &Path) -> Source {
        let is_input = path == Path::new(STANDARD_INPUT);
        let name = match is_input {
            true => "standard input".to_owned(),
            false => path.display().to_string(),
        };
        let mut bytes = Vec::new();
        let read = match is_input {
            true => io::stdin().read_to_end(&mut bytes).map(|_| bytes),
            false => fs::read(path),
        };
        let text = match read {
            Ok(bytes) => text(bytes),
            Err(error) => Err(unreadable(&error)),
        };
        let text = text.map_err(|problem| ConfigErrors::of_file(&name, &problem));
        Source { name, text }
    }
}

fn unreadable(error: &io::Error) -> String {
    let advice = match error.kind() {
        ErrorKind::NotFound => {
            "; -c FILE names another, --help tells more, and `sentry-mirror demo` needs none"
        }
        _ => "",
    };
    format!("not readable: {error}{advice}")
}

fn text(bytes: Vec<u8>) -> Result<String, String> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err("found UTF-16, expected YAML in UTF-8".to_owned());
    }
    String::from_utf8(bytes).map_err(|error| {
        let place = error.utf8_error().valid_up_to() + 1;
        format!("found bytes that are not UTF-8 at byte {place}, expected YAML in UTF-8")
    })
}

/// `text` without a byte order mark, which the YAML parsers do not take.
pub(super) fn without_mark(text: &str) -> &str {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}

/// The mapping that `text` holds.
pub(super) fn document(text: &str, file_name: &str) -> Result<Mapping, ConfigErrors> {
    let text = without_mark(text);
    let document = serde_yaml::from_str(text)
        .map_err(|error| ConfigErrors::of_syntax(file_name, text, &error))?;
    match document {
        Value::Mapping(mut mapping) => {
            restore_texts(&mut mapping, text);
            Ok(mapping)
        }
        other => {
            let found = value::found(&other);
            let problem = format!("found {found}, expected a mapping with at least the key keys");
            Err(ConfigErrors::of_file(file_name, &problem))
        }
    }
}

/// The keys that are text whatever it looks like: `1.10` is no number there.
#[derive(Deserialize)]
struct Texts {
    default_metrics_tags: Option<BTreeMap<String, String>>,
    sentry_env: Option<String>,
}

/// Puts texts into `document` as they stand in `text`. What is no text is left for its reader to refuse.
fn restore_texts(document: &mut Mapping, text: &str) {
    let Ok(texts) = serde_yaml::from_str::<Texts>(text) else {
        return;
    };
    if let Some(tags) = texts.default_metrics_tags {
        let tags = tags
            .into_iter()
            .map(|(name, tag)| (Value::from(name), Value::from(tag)));
        document.insert(
            "default_metrics_tags".into(),
            Value::Mapping(tags.collect()),
        );
    }
    if let Some(environment) = texts.sentry_env {
        document.insert("sentry_env".into(), environment.into());
    }
}
