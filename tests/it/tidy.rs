//! Rules of the house that a compiler does not check.
//!
//! Each rule is a function from one file to complaints, run over the files it is about, with its
//! reason in the message. It knows lines and words, not Rust: a rule is to catch what somebody does
//! in good faith, and stays simple enough to be trusted. Each test also shows its rule a bad sample,
//! so that a rule which finds nothing has nothing to find.

mod advisories;
mod calls;
mod prose;
mod rooms;

use std::fs;
use std::path::Path;

/// Applies a rule to every file below `folder`, except these ones, which have to name what they forbid.
fn assert_tidy(folder: &str, rule: fn(&File) -> Vec<String>) {
    let mut files = Vec::new();
    collect(Path::new(env!("CARGO_MANIFEST_DIR")), "", &mut files);
    files.retain(|file| file.path.starts_with(folder) && !file.path.starts_with("tests/it/tidy"));
    assert!(!files.is_empty(), "there is something to check");
    let complaints: Vec<String> = files.iter().flat_map(rule).collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// Reads all text below `folder` that is written by hand.
fn collect(folder: &Path, prefix: &str, files: &mut Vec<File>) {
    const MADE: [&str; 6] = [
        "target",
        "node_modules",
        "__pycache__",
        "artifacts",
        "corpus",
        "seeds",
    ];
    for entry in fs::read_dir(folder).expect("the source tree can be read") {
        let entry = entry.expect("the source tree can be read");
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{prefix}{name}");
        if name.starts_with('.') || MADE.contains(&name.as_str()) {
            continue;
        }
        if entry.path().is_dir() {
            collect(&entry.path(), &format!("{path}/"), files);
        } else if let Ok(text) = fs::read_to_string(entry.path()) {
            files.push(File { path, text });
        }
    }
}

/// A file of the repository.
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

impl File {
    /// The lines with their numbers.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines())
    }

    /// The lines that are not comments as a whole.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_comment = |line: &str| line.trim_start().starts_with("//");
        self.lines().filter(move |(_, line)| !is_comment(line))
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The room it belongs to; none for the files that hold the rooms together.
    fn room(&self) -> Option<&str> {
        let room = self.path.strip_prefix("src/")?.split('/').next()?;
        let room = room.strip_suffix(".rs").unwrap_or(room);
        (!["lib", "main"].contains(&room)).then_some(room)
    }
}

/// Whether `line` has `word`, and not as a part of a longer name.
fn has_word(line: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let continues = |before: Option<char>, after: Option<char>| {
        before.is_some_and(is_name) && after.is_some_and(is_name)
    };
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + word.len()..]);
        !continues(before.chars().last(), word.chars().next())
            && !continues(word.chars().last(), after.chars().next())
    })
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
