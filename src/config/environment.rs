//! Environment variables that replace what the file says.
//!
//! `SENTRY_MIRROR_PORT=8080` does what `port: 8080` at the top level of the file does, and
//! `SENTRY_MIRROR_LIMITS_BODY_BYTES=1MiB` what `body_bytes` in `limits` does. The values are put into
//! the document before anything is read, as text, so that one code checks both; the names are kept, so
//! that a message can point at the variable. A variable nobody reads is a warning only: containers
//! carry strays. So is one for a key in a section that is `off`, in the file or by another variable.

use std::collections::BTreeMap;

use serde_yaml::{Mapping, Value};

use super::node;
use super::report::Report;
use super::value::{found, shorten_credentials};

const PREFIX: &str = "SENTRY_MIRROR_";

/// The sections: a variable that begins with the name of one is about a key in it. No key of the top
/// level begins like that.
const SECTIONS: [&str; 7] = [
    "admin", "limits", "timeouts", "pool", "breaker", "dns", "tls",
];

/// The names of the variables that are meant for us, by the key path they replace.
pub(super) type Variables = BTreeMap<String, String>;

/// Writes the variables of `env` that are meant for us into `document`. An empty one counts as not
/// set: that is how Compose files and charts leave a variable out.
pub(super) fn overlay(
    document: &mut Mapping,
    env: impl Iterator<Item = (String, String)>,
    report: &Report,
) -> Variables {
    let mut variables = Variables::new();
    // In order of their names, so that one for a section comes before those for keys in it.
    for (name, value) in env.collect::<BTreeMap<_, _>>() {
        let Some(key) = name.strip_prefix(PREFIX) else {
            continue;
        };
        if value.is_empty() || is_service_link(key, &value) {
            continue;
        }
        let key = key.to_ascii_lowercase();
        let unquoted = unquoted(&value);
        let (section, key) = match in_section(&key) {
            Some((section, key)) => (section, key),
            None => ("", &*key),
        };
        let path = node::key_path(section, key);
        if let Some(unquoted) = unquoted {
            report.error(
                &path,
                format!(
                    "found {}, with the quotes as a part of the value, as `docker run --env-file` keeps them; expected {name}={}",
                    found(&value.as_str().into()),
                    shorten_credentials(unquoted)
                ),
            );
        }
        match section_of(document, section) {
            Some(mapping) => {
                mapping.insert(key.into(), unquoted.unwrap_or(&value).into());
            }
            // Where it may not be off either, that is an error of its own.
            None => report.warn(&path, format!("has no effect: {section} is off")),
        }
        variables.insert(path, name);
    }
    variables
}

/// What stands between a pair of quotes. No value has any.
fn unquoted(value: &str) -> Option<&str> {
    let between = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    between('"').or_else(|| between('\''))
}

/// The section that `key` is in, and its name there.
fn in_section(key: &str) -> Option<(&'static str, &str)> {
    SECTIONS.iter().find_map(|section| {
        let rest = key.strip_prefix(section)?.strip_prefix('_')?;
        Some((*section, rest))
    })
}

/// The mapping `section` of `document`, made where there is none; the document where it is empty.
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

/// Whether Kubernetes made the variable: it tells every pod of the services in its namespace, and
/// for one named `sentry-mirror` that reads `SENTRY_MIRROR_PORT=tcp://10.0.0.1:3000`. Nobody set
/// these, so that they are neither an error nor worth a warning.
fn is_service_link(key: &str, value: &str) -> bool {
    key.starts_with("SERVICE_")
        || key.starts_with("PORT_")
        || (key == "PORT" && value.contains("://"))
}
