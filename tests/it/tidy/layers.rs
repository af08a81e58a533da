//! Imports point down: each layer of `src` uses only layers below it.
//!
//! The table is as strict as the code allows today. A new entry is a decision on the architecture
//! and belongs into a review.

use super::imports::{Import, imports_of_src};

/// The layers from the lowest to the highest, each with the other layers that it may use. A layer is
/// a folder or a file at the top of `src`.
const LAYERS: &[(&str, &[&str])] = &[
    ("test_runtime", &[]),
    ("span", &[]),
    ("panics", &["test_runtime"]),
    ("deadline", &["test_runtime"]),
    ("sys", &[]),
    ("resident", &["sys"]),
    ("budget", &["resident"]),
    ("causes", &[]),
    ("sentry", &["span"]),
    ("http", &["span"]),
    ("limits", &["http"]),
    ("config", &["limits", "sentry"]),
    ("observe", &[]),
    ("runtime", &["test_runtime", "limits", "budget", "http"]),
    (
        "upstream",
        &[
            "test_runtime",
            "span",
            "limits",
            "deadline",
            "budget",
            "sys",
            "causes",
            "sentry",
            "http",
            "observe",
        ],
    ),
    (
        "mirror",
        &[
            "test_runtime",
            "span",
            "limits",
            "panics",
            "deadline",
            "budget",
            "sentry",
            "http",
            "config",
            "observe",
            "runtime",
            "upstream",
        ],
    ),
    (
        "server",
        &[
            "test_runtime",
            "span",
            "limits",
            "panics",
            "deadline",
            "budget",
            "resident",
            "sys",
            "causes",
            "sentry",
            "http",
            "config",
            "observe",
            "runtime",
            "upstream",
            "mirror",
        ],
    ),
    (
        "admin",
        &[
            "causes", "sentry", "config", "observe", "upstream", "mirror", "server",
        ],
    ),
    (
        "demo",
        &[
            "span", "causes", "sentry", "http", "config", "observe", "server",
        ],
    ),
    ("cli", &[]),
    ("health", &["config", "cli"]),
    ("reload", &["config"]),
    ("report", &["causes", "config"]),
    (
        "logging",
        &["panics", "causes", "config", "observe", "report"],
    ),
];

/// Files that connect the layers and may use any of them.
const ABOVE_ALL: [&str; 3] = ["internals", "lib", "run"];

#[test]
fn imports_point_down() {
    let imports = imports_of_src();
    assert!(!imports.is_empty(), "the source tree has imports");
    let complaints: Vec<String> = imports.iter().filter_map(complaint).collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn layers_stand_above_the_layers_that_they_use() {
    for (index, (layer, allowed)) in LAYERS.iter().enumerate() {
        for used in *allowed {
            let is_below = LAYERS[..index].iter().any(|(name, _)| name == used);
            assert!(is_below, "{layer} uses {used}");
        }
    }
}

#[test]
fn an_import_that_points_up_is_a_complaint() {
    let complains = |from: &str, to: &str| {
        let (from, to) = (from.to_owned(), to.to_owned());
        complaint(&Import {
            from,
            to,
            is_in_tests: false,
        })
        .is_some()
    };
    assert!(complains("span.rs", "limits.rs"));
    assert!(complains("http/head.rs", "sentry/dsn.rs"));
    assert!(complains("mirror/deliver.rs", "run.rs"));
    assert!(complains("new/file.rs", "span.rs"));
    assert!(!complains("http/head.rs", "span.rs"));
    assert!(!complains("http/head.rs", "http/fields.rs"));
    assert!(!complains("run.rs", "demo/mod.rs"));
}

fn complaint(import: &Import) -> Option<String> {
    let (from, to) = (layer(&import.from), layer(&import.to));
    if from == to || ABOVE_ALL.contains(&from) {
        return None;
    }
    let known = LAYERS.iter().find(|(name, _)| *name == from);
    let allowed = known.map_or(&[][..], |(_, allowed)| *allowed);
    (!allowed.contains(&to)).then(|| {
        format!(
            "{} uses {}, but `{from}` may use only {allowed:?}",
            import.from, import.to
        )
    })
}

fn layer(path: &str) -> &str {
    let first = path.split('/').next().unwrap_or(path);
    first.trim_end_matches(".rs")
}
