//! Imports point down: a room of `src` uses only rooms below it.
//!
//! What is allowed is a table, as strict as the code lets it be today: a new entry is a decision on
//! the architecture and is to be seen in a review. Paths through `super` stay within a room.

use super::{File, assert_tidy, file, group};

/// What each room may use apart from itself, from the lowest room to the highest. `lib.rs` and
/// `main.rs` hold them together and may use any.
const ROOMS: &[(&str, &[&str])] = &[
    ("span", &[]),
    ("limits", &[]),
    ("panics", &[]),
    ("deadline", &[]),
    ("budget", &[]),
    ("sys", &[]),
    ("causes", &[]),
    ("sentry", &["span"]),
    ("http", &["span", "limits"]),
    ("config", &["limits", "sentry"]),
    ("observe", &[]),
    (
        "upstream",
        &[
            "span", "limits", "deadline", "budget", "sys", "causes", "sentry", "http", "observe",
        ],
    ),
    (
        "mirror",
        &[
            "span", "limits", "panics", "deadline", "sentry", "http", "config", "observe",
            "upstream",
        ],
    ),
    (
        "server",
        &[
            "span", "limits", "panics", "deadline", "budget", "sys", "causes", "sentry", "http",
            "config", "observe", "upstream", "mirror",
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
            "span", "limits", "causes", "sentry", "http", "config", "server",
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

#[test]
fn imports_point_down() {
    assert_tidy("src/", imports);
    for (path, bad, room) in [
        ("src/http/head.rs", "use crate::sentry::dsn;", "sentry"),
        (
            "src/sentry/dsn.rs",
            "    let a = crate::http::head::x();",
            "http",
        ),
        (
            "src/upstream/pool.rs",
            "use crate::{sys, mirror::routes};",
            "mirror",
        ),
        ("src/span.rs", "use crate::limits::Limits;", "limits"),
        (
            "src/mirror/deliver.rs",
            "use crate::{\n    server::{a, b},\n};",
            "server",
        ),
        ("src/server/worker.rs", "use crate::cellar;", "cellar"),
    ] {
        let complaints = imports(&file(path, bad));
        let [complaint] = complaints.as_slice() else {
            panic!("{path}: {complaints:?}");
        };
        assert!(complaint.contains(&format!("`{room}`")), "{complaint}");
    }
    let good = "//! See crate::mirror.\nuse crate::span::Span;\nuse crate::http::fields;\n";
    assert!(imports(&file("src/http/head.rs", good)).is_empty());
    assert_eq!(imports(&file("src/cellar/a.rs", "")).len(), 1);
}

#[test]
fn rooms_stand_on_the_rooms_before_them() {
    for (index, (room, allowed)) in ROOMS.iter().enumerate() {
        for below in *allowed {
            let mut rooms_before = ROOMS[..index].iter();
            assert!(
                rooms_before.any(|(name, _)| name == below),
                "{room} uses {below}"
            );
        }
    }
}

fn imports(file: &File) -> Vec<String> {
    let Some(room) = file.room().filter(|_| file.is_rust()) else {
        return Vec::new();
    };
    let path = &file.path;
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return vec![format!(
            "{path}: `{room}` is no room yet: add it to `ROOMS`"
        )];
    };
    let code: String = file.code().map(|(_, line)| line.trim()).collect();
    used_rooms(&code)
        .into_iter()
        .filter(|used| *used != room && !allowed.contains(used))
        .map(|used| {
            format!(
                "{path}: `{used}` may not be used here: imports point down, and `{room}` may use \
                 {allowed:?}"
            )
        })
        .collect()
}

/// The first names of all paths in `code` that begin with `crate::`.
fn used_rooms(code: &str) -> Vec<&str> {
    let first_name = |path: &'_ str| path.find(|c: char| !c.is_alphanumeric() && c != '_');
    let mut rooms = Vec::new();
    for (at, keyword) in code.match_indices("crate::") {
        let path = &code[at + keyword.len()..];
        let paths = if path.starts_with('{') {
            top_level_items(group(path))
        } else {
            vec![path]
        };
        rooms.extend(
            paths
                .into_iter()
                .map(|path| &path[..first_name(path).unwrap_or(path.len())])
                .filter(|name| !name.is_empty()),
        );
    }
    rooms
}

/// The items of a list in which each item may hold a list in braces.
fn top_level_items(list: &str) -> Vec<&str> {
    let mut depth = 0;
    list.split(|c| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
    .map(str::trim)
    .collect()
}
