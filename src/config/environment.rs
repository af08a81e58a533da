//! Environment variables that override the file.
//!
//! `SENTRY_MIRROR_PORT=8080` overrides `port`, and `SENTRY_MIRROR_LIMITS_BODY_BYTES=1MiB` overrides
//! `body_bytes` in `limits`. Values are written into the document as text before it is read, so that the
//! same code checks both. An unknown variable is only a warning, because containers inherit unrelated
//! ones; so is a variable for a key in a section that is `off`.

use std::collections::BTreeMap;

use serde_yaml::{Mapping, Value};

use super::diagnostics::{Diagnostics, Variables};
use super::key_path;
use super::value::{describe, shorten_credentials};

const PREFIX: &str = "SENTRY_MIRROR_";

/// A variable whose name begins with one of these is for a key in that section. No top-level key begins
/// like that.
const SECTIONS: [&str; 8] = [
    "admin",
    "client_address",
    "limits",
    "timeouts",
    "pool",
    "breaker",
    "dns",
    "tls",
];

/// Writes the mirror's variables in `env` into `document`. An empty variable counts as not set: that is
/// how Compose files and Helm charts omit one.
pub(super) fn overlay(
    document: &mut Mapping,
    env: &BTreeMap<String, String>,
    diagnostics: &Diagnostics,
) -> Variables {
    let mut variables = Variables::new();
    // Sorted by name, so that the variable of a section precedes those of its keys.
    for (name, value) in env {
        let Some(key) = name.strip_prefix(PREFIX) else {
            continue;
        };
        if value.is_empty() || is_service_link(key, value) {
            continue;
        }
        let key = key.to_ascii_lowercase();
        let unquoted = unquoted(value);
        let (section, key) = split_section(&key).unwrap_or(("", &key));
        let path = key_path::member(section, key);
        if let Some(unquoted) = unquoted {
            diagnostics.error(
                &path,
                format!(
                    "found {} with quotes in the value, which `docker run --env-file` does not remove; expected {name}={}",
                    describe(&value.as_str().into()),
                    shorten_credentials(unquoted)
                ),
            );
        }
        match section_of(document, section) {
            Some(mapping) => {
                mapping.insert(key.into(), unquoted.unwrap_or(value).into());
            }
            // If the section cannot be off either, that is reported as an error elsewhere.
            None => diagnostics.warn(&path, format!("has no effect: {section} is off")),
        }
        variables.insert(path, name.clone());
    }
    variables
}

/// The text between a pair of quotes. No valid value is quoted.
fn unquoted(value: &str) -> Option<&str> {
    let between = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    between('"').or_else(|| between('\''))
}

/// Splits `section_key` into section and key.
fn split_section(name: &str) -> Option<(&'static str, &str)> {
    SECTIONS.iter().find_map(|section| {
        let key = name.strip_prefix(section)?.strip_prefix('_')?;
        Some((*section, key))
    })
}

/// The mapping `section` of `document`, created if missing; `document` itself if `section` is empty.
fn section_of<'d>(document: &'d mut Mapping, section: &str) -> Option<&'d mut Mapping> {
    if section.is_empty() {
        return Some(document);
    }
    let value = document.entry(section.into()).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Mapping(Mapping::new());
    }
    value.as_mapping_mut()
}

/// Whether Kubernetes set the variable. It sets variables for every service in the namespace, for
/// example `SENTRY_MIRROR_PORT=tcp://10.0.0.1:3000` for a service `sentry-mirror`. The operator did not
/// write these, so they are ignored without a warning.
fn is_service_link(key: &str, value: &str) -> bool {
    key.starts_with("SERVICE_")
        || key.starts_with("PORT_")
        || (key == "PORT" && value.contains("://"))
}
