//! Imports point down: a room of `src` uses only rooms below it.
//!
//! What is allowed is a table, as strict as the code lets it be today: a new entry is a decision on
//! the architecture and is to be seen in a review. Paths through `super` stay within a room.

use std::fs;
use std::path::Path;

/// What each room may use apart from itself, from the lowest room to the highest. The
/// files that hold them together may use any.
const ROOMS: &[(&str, &[&str])] = &[
    ("span", &[]),
    ("limits", &[]),
    ("panics", &[]),
    ("deadline", &[]),
    ("sys", &[]),
    ("resident", &["sys"]),
    ("budget", &["resident"]),
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
            "span", "limits", "panics", "deadline", "budget", "resident", "sys", "causes",
            "sentry", "http", "config", "observe", "upstream", "mirror",
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

#[test]
fn imports_point_down() {
    let mut files = Vec::new();
    collect(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        "src/",
        &mut files,
    );
    assert!(!files.is_empty(), "there is something to check");
    let complaints: Vec<String> = files.iter().flat_map(imports).collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
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

/// A file of Rust below `src`.
struct File {
    /// Its path from the root, with slashes.
    path: String,
    text: String,
}

fn file(path: &str, text: &str) -> File {
    File {
        path: path.to_owned(),
        text: text.to_owned(),
    }
}

/// Reads the files below `folder`, whose path from the root is `prefix`.
fn collect(folder: &Path, prefix: &str, files: &mut Vec<File>) {
    for entry in fs::read_dir(folder).expect("the source tree can be read") {
        let entry = entry.expect("the source tree can be read");
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            collect(&entry.path(), &format!("{path}/"), files);
        } else if path.ends_with(".rs") {
            let text = fs::read_to_string(entry.path()).expect("the source tree can be read");
            files.push(File { path, text });
        }
    }
}

impl File {
    /// The lines that are not comments as a whole.
    fn code(&self) -> impl Iterator<Item = &str> {
        let is_comment = |line: &&str| line.trim_start().starts_with("//");
        self.text.lines().filter(move |line| !is_comment(line))
    }

    /// The room it belongs to; none for the files that hold the rooms together.
    fn room(&self) -> Option<&str> {
        let room = self.path.strip_prefix("src/")?.split('/').next()?;
        let room = room.strip_suffix(".rs").unwrap_or(room);
        (!["internals", "lib", "main", "run"].contains(&room)).then_some(room)
    }
}

fn imports(file: &File) -> Vec<String> {
    let Some(room) = file.room() else {
        return Vec::new();
    };
    let path = &file.path;
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return vec![format!(
            "{path}: `{room}` is no room yet: add it to `ROOMS`"
        )];
    };
    let code: String = file.code().map(str::trim).collect();
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

/// What stands between the first bracket of `text` and the one that closes it.
fn group(text: &str) -> &str {
    let mut depth = 0;
    let end = text.char_indices().find(|(_, c)| {
        match c {
            '(' | '{' | '[' => depth += 1,
            ')' | '}' | ']' => depth -= 1,
            _ => return false,
        }
        depth <= 0
    });
    let start = text.find(['(', '{', '[']).map_or(text.len(), |at| at + 1);
    text.get(start..end.map_or(text.len(), |(at, _)| at))
        .unwrap_or_default()
}
