//! Imports point down: each layer of `src` uses only layers below it.
//!
//! The table is as strict as the code allows today. A new entry is a decision on the architecture
//! and belongs into a review.

use super::imports::{Import, imports_of_src};

/// The layers from the lowest to the highest, each with the other layers that it may use. A layer is
/// a folder or a file at the top of `src`.
const LAYERS: &[(&str, &[&str])] = &[
    ("span", &[]),
    ("sys", &[]),
    ("os_errors", &[]),
    ("http", &["span"]),
    ("http2", &["span", "http"]),
    ("limits", &["http"]),
    ("sentry", &["span"]),
    ("config", &["http", "http2", "limits", "sentry"]),
    ("cli", &["sentry", "config"]),
    ("runtime", &["sys", "os_errors", "http", "limits", "config"]),
    ("telemetry", &["os_errors", "config", "runtime"]),
    ("net", &["sys", "http", "config", "runtime", "telemetry"]),
    ("blocking", &["http", "telemetry", "net"]),
    (
        "upstream",
        &[
            "span",
            "os_errors",
            "http",
            "http2",
            "limits",
            "sentry",
            "config",
            "runtime",
            "telemetry",
            "net",
        ],
    ),
    (
        "mirror",
        &[
            "span",
            "http",
            "http2",
            "limits",
            "sentry",
            "config",
            "runtime",
            "telemetry",
            "net",
            "upstream",
        ],
    ),
    (
        "inbound",
        &[
            "sys",
            "http",
            "limits",
            "sentry",
            "config",
            "runtime",
            "telemetry",
            "net",
            "upstream",
            "mirror",
        ],
    ),
    (
        "process",
        &[
            "sys",
            "os_errors",
            "limits",
            "sentry",
            "config",
            "cli",
            "runtime",
            "telemetry",
            "net",
            "upstream",
            "mirror",
            "inbound",
        ],
    ),
    (
        "admin",
        &[
            "os_errors",
            "sentry",
            "config",
            "telemetry",
            "net",
            "upstream",
            "mirror",
            "process",
        ],
    ),
    (
        "parity",
        &["sentry", "config", "telemetry", "net", "blocking", "mirror"],
    ),
    (
        "trial",
        &[
            "sentry",
            "config",
            "telemetry",
            "net",
            "upstream",
            "blocking",
            "mirror",
        ],
    ),
    (
        "demo",
        &[
            "span",
            "os_errors",
            "sentry",
            "config",
            "cli",
            "telemetry",
            "blocking",
            "process",
        ],
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
