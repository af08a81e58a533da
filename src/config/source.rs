//! Reading the text of a configuration, and parsing it as YAML.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::string::FromUtf8Error;

use serde::Deserialize;
use serde_yaml::{Mapping, Value};

use super::diagnostics::ConfigErrors;
use super::value;

/// The path that stands for standard input.
pub(crate) const STANDARD_INPUT: &str = "-";

/// Some editors begin UTF-8 files with it.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// The text of a configuration, read once.
pub struct Source {
    /// The name in messages.
    pub(super) name: String,
    pub(super) text: Result<String, ConfigErrors>,
}

impl Source {
    /// Reads the file at `path`, or standard input if `path` is `-`.
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
        let text = read.map_err(SourceError::Read).and_then(decode);
        let text = text.map_err(|error| ConfigErrors::in_file(&name, error));
        Source { name, text }
    }
}

/// Why a configuration has no text.
enum SourceError {
    Read(io::Error),
    Utf16,
    InvalidUtf8(FromUtf8Error),
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceError::Read(error) if error.kind() == ErrorKind::NotFound => write!(
                f,
                "cannot be read: {error}; name another file with -c FILE, see --help, or try `sentry-mirror demo`, which needs none"
            ),
            SourceError::Read(error) => write!(f, "cannot be read: {error}"),
            SourceError::Utf16 => f.write_str("found UTF-16, expected YAML in UTF-8"),
            SourceError::InvalidUtf8(error) => {
                let position = error.utf8_error().valid_up_to() + 1;
                write!(
                    f,
                    "found invalid UTF-8 at byte {position}, expected YAML in UTF-8"
                )
            }
        }
    }
}

fn decode(bytes: Vec<u8>) -> Result<String, SourceError> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(SourceError::Utf16);
    }
    String::from_utf8(bytes).map_err(SourceError::InvalidUtf8)
}

/// Removes a byte order mark, which the YAML parsers do not accept.
pub(super) fn without_byte_order_mark(text: &str) -> &str {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}

/// Parses `text`, which must be a YAML mapping.
pub(super) fn document(text: &str, file_name: &str) -> Result<Mapping, ConfigErrors> {
    let text = without_byte_order_mark(text);
    let document = serde_yaml::from_str(text)
        .map_err(|error| ConfigErrors::from_yaml(file_name, text, &error))?;
    match document {
        Value::Mapping(mut mapping) => {
            restore_text(&mut mapping, text);
            Ok(mapping)
        }
        other => {
            let found = value::describe(&other);
            let problem = format!("found {found}, expected a mapping with at least the key `keys`");
            Err(ConfigErrors::in_file(file_name, problem))
        }
    }
}

/// Keys whose values are always text: `1.10` is not a number there.
#[derive(Deserialize)]
struct TextKeys {
    default_metrics_tags: Option<BTreeMap<String, String>>,
    sentry_env: Option<String>,
}

/// Puts the values of these keys into `document` as they are written in `text`. A value that is not text
/// is left to its parser, which reports it.
fn restore_text(document: &mut Mapping, text: &str) {
    let Ok(texts) = serde_yaml::from_str::<TextKeys>(text) else {
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
