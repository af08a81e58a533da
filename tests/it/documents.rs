//! Links in the documents lead somewhere, configurations in them are valid, and generated parts match the
//! code.
//!
//! A generated part is between `<!-- generated: NAME -->` and `<!-- end -->`. To generate another one, put
//! these lines into a document and add a row to [`parts`].

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use sentry_mirror::internals;

use crate::support::process::file;
use crate::support::tls::Authority;

const UPDATE: &str = "UPDATE_DOCS=1 cargo test --locked --test it documents";

struct Part {
    file: &'static str,
    name: &'static str,
    text: String,
}

fn parts() -> Vec<Part> {
    vec![
        Part {
            file: "docs/metrics.md",
            name: "metrics",
            text: internals::admin::reference::markdown(),
        },
        Part {
            file: "docs/alerts.md",
            name: "alerts",
            text: alerts(),
        },
    ]
}

/// The alerts as a list: when each fires, and what it means.
fn alerts() -> String {
    let path = Path::new(ROOT).join("deploy/prometheus-alerts.yml");
    let text = fs::read_to_string(path).expect("the alerts");
    let file: serde_yaml::Value = serde_yaml::from_str(&text).expect("YAML");
    let groups = file["groups"].as_sequence().expect("groups");
    let rules = groups
        .iter()
        .flat_map(|group| group["rules"].as_sequence().expect("rules"));
    let items = rules.map(|rule| {
        let text = |value: &serde_yaml::Value| value.as_str().expect("a text").to_owned();
        let wait = rule["for"]
            .as_str()
            .map_or("at once".to_owned(), |time| format!("after {time}"));
        let severity = text(&rule["labels"]["severity"]);
        let description = without_templates(&text(&rule["annotations"]["description"]));
        let name = text(&rule["alert"]);
        format!("* `{name}` ({severity}, {wait}): {description}")
    });
    items.collect::<Vec<_>>().join("\n")
}

/// A text of an alert with the names of what Prometheus fills in.
fn without_templates(text: &str) -> String {
    let mut parts = text.split("{{ ");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (template, rest) = part.split_once(" }}").expect("the end of a template");
        let first = template.split(' ').next().unwrap_or_default();
        let name = first.trim_start_matches("$labels.").trim_start_matches('$');
        plain.push_str(&format!("`{name}`{rest}"));
    }
    plain
}

/// The paths of the keys that the example has outside of `keys`, and the names of those in an outbound.
fn configuration_keys() -> Vec<String> {
    let text = fs::read_to_string(Path::new(ROOT).join("config.example.yml")).expect("the example");
    let example: serde_yaml::Value = serde_yaml::from_str(&text).expect("YAML");
    let mut keys = Vec::new();
    for (name, value) in example.as_mapping().expect("a mapping") {
        let name = name.as_str().expect("a name");
        match value.as_mapping() {
            Some(section) if name != "default_metrics_tags" => {
                keys.extend(
                    section
                        .keys()
                        .map(|key| format!("{name}.{}", key.as_str().unwrap())),
                );
            }
            _ if name == "keys" => {}
            _ => keys.push(name.to_owned()),
        }
    }
    let outbound = example["keys"][0]["outbound"][1]
        .as_mapping()
        .expect("a mapping");
    let options = outbound
        .keys()
        .map(|key| key.as_str().unwrap())
        .filter(|key| *key != "dsn");
    keys.extend(options.map(|key| format!("keys[].outbound[].{key}")));
    keys
}

#[test]
fn every_configuration_key_is_documented() {
    let read = |path: &str| fs::read_to_string(Path::new(ROOT).join(path)).expect("a document");
    let tables = read("docs/configuration.md") + &read("docs/limits.md");
    let is_missing = |key: &String| !tables.contains(&format!("`{key}`"));
    let missing: Vec<String> = configuration_keys()
        .into_iter()
        .filter(is_missing)
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(
        configuration_keys().len() > 40,
        "{:?}",
        configuration_keys()
    );
}

#[test]
fn generated_parts_of_the_documents_match_the_code() {
    let should_update = std::env::var_os("UPDATE_DOCS").is_some();
    for Part { file, name, text } in parts() {
        let path = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
        let document = fs::read_to_string(&path).expect("the document exists");
        let start = format!("<!-- generated: {name} -->\n");
        let (before, rest) = document.split_once(&start).expect("the part has a start");
        let (_, after) = rest
            .split_once("<!-- end -->")
            .expect("the part has an end");
        let expected = format!("{before}{start}\n{text}\n<!-- end -->{after}");
        if should_update {
            fs::write(&path, &expected).expect("the document is writable");
        } else {
            assert!(
                document == expected,
                "{file} is out of date; run `{UPDATE}` and commit the result"
            );
        }
    }
}

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Everything that people read, relative to the root.
fn documents() -> Vec<PathBuf> {
    let top = [
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
    ];
    let other = ["benches/allocators.md", "deploy/seccomp/README.md"];
    let mut found: Vec<PathBuf> = top.iter().chain(&other).map(PathBuf::from).collect();
    let entries = |folder: &str| {
        let list = fs::read_dir(Path::new(ROOT).join(folder)).expect("a folder");
        let names = list.map(|entry| entry.expect("an entry").file_name());
        names
            .map(|name| Path::new(folder).join(name))
            .collect::<Vec<_>>()
    };
    found.extend(entries("docs"));
    for folder in ["tests", "benches"] {
        let readmes = entries(folder)
            .into_iter()
            .map(|path| path.join("README.md"));
        found.extend(readmes.filter(|path| Path::new(ROOT).join(path).exists()));
    }
    found
}

/// The lines outside of code blocks.
fn prose(document: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    document.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// The anchors that GitHub gives the headings of a document.
fn anchors(document: &str) -> BTreeSet<String> {
    let mut seen = BTreeMap::new();
    let headings = prose(document).filter_map(|line| {
        line.trim_start_matches('#')
            .strip_prefix(' ')
            .filter(|_| line.starts_with('#'))
    });
    headings
        .map(|heading| {
            let is_kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
            let kept: String = heading.trim().chars().filter(is_kept).collect();
            let anchor = kept.to_lowercase().replace(' ', "-");
            let count = seen.entry(anchor.clone()).or_insert(0);
            *count += 1;
            match *count {
                1 => anchor,
                again => format!("{anchor}-{}", again - 1),
            }
        })
        .collect()
}

/// The targets of the links in a text, without those to other sites.
fn links(document: &str) -> Vec<String> {
    // Links may have a line end in their text.
    let text = prose(document).collect::<Vec<_>>().join("\n");
    let targets = text.split("](").skip(1);
    let targets =
        targets.filter_map(|rest| rest.split_once(')').map(|(target, _)| target.to_owned()));
    targets.filter(|target| !target.contains("://")).collect()
}

/// The code blocks of a language.
fn blocks(document: &str, language: &str) -> Vec<String> {
    let mut blocks: Vec<String> = Vec::new();
    let (mut is_code, mut is_wanted) = (false, false);
    for line in document.lines() {
        if let Some(info) = line.trim_start().strip_prefix("```") {
            is_code = !is_code;
            is_wanted = is_code && info == language;
            if is_wanted {
                blocks.push(String::new());
            }
        } else if is_wanted {
            blocks.last_mut().expect("a block").extend([line, "\n"]);
        }
    }
    blocks
}

/// Makes a configuration of an excerpt: of a list of outbounds, or of all of a file.
fn configuration(excerpt: &str) -> String {
    let inbound = "keys:\n  - inbound: http://00000000000000000000000000000000@m/1\n";
    if excerpt.contains("keys:\n") {
        return excerpt.to_owned();
    }
    let indent = excerpt.len() - excerpt.trim_start().len();
    let lines = excerpt
        .lines()
        .map(|line| format!("    {}\n", &line[indent..]));
    format!("{inbound}{}", lines.collect::<String>())
}

#[test]
fn every_configuration_in_the_documents_is_valid() {
    let mut count = 0;
    let (cert_file, key_file) = Authority::new().server_files(&["localhost"]);
    for document in documents() {
        let text = fs::read_to_string(Path::new(ROOT).join(&document)).expect("a document");
        for excerpt in blocks(&text, "yaml") {
            count += 1;
            let excerpt = excerpt
                .replace(
                    "/etc/sentry-mirror/tls/fullchain.pem",
                    &cert_file.display().to_string(),
                )
                .replace(
                    "/etc/sentry-mirror/tls/privkey.pem",
                    &key_file.display().to_string(),
                );
            let path = file("config.yml", &configuration(&excerpt));
            let output = Command::new(env!("CARGO_BIN_EXE_sentry-mirror"))
                .args([OsStr::new("--check"), OsStr::new("-c"), path.as_os_str()])
                .output()
                .expect("the mirror runs");
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}: {stderr}", document.display());
        }
    }
    assert!(count >= 4, "only {count} were found");
}

/// A path without `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => assert!(normal.pop(), "{} leaves the root", path.display()),
            other => normal.push(other),
        }
    }
    normal
}

#[test]
fn every_link_of_the_documents_has_a_target() {
    let read = |path: &Path| fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_default();
    let mut broken = Vec::new();
    let mut count = 0;
    for document in documents() {
        for link in links(&read(&document)) {
            count += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match path {
                "" => document.clone(),
                path => normal(&document.parent().unwrap().join(path)),
            };
            let is_there = Path::new(ROOT).join(&target).exists();
            if !is_there || (!anchor.is_empty() && !anchors(&read(&target)).contains(anchor)) {
                broken.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(count > 100, "only {count} links were found");
}
