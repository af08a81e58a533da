//! What a file looks like to its reader: how long it is, how it opens, what may not stand in it.
//!
//! These rules are about text, comments included, so some of them hold for more than Rust.

use super::{File, assert_tidy, file, has_word};

/// The lines that a file has at most, its own tests aside.
const LINE_COUNT_MAX: usize = 400;

/// Words that mark what is unfinished, in code and in prose.
const MARKERS: &[&str] = &["TODO", "FIXME", "XXX"];

/// Where the absolute paths of somebody's machine begin.
const MACHINE_ROOTS: &[&str] = &["/tmp/", "/root/", "/home/"];

#[test]
fn files_are_one_idea_long() {
    assert_tidy("src/", line_count);
    let long = "let a = 1;\n".repeat(LINE_COUNT_MAX);
    assert!(line_count(&file("src/a.rs", &long)).is_empty());
    let longer = format!("{long}let b = 2;\n");
    assert_eq!(line_count(&file("src/a.rs", &longer)).len(), 1);
    let tested = format!("{long}#[cfg(test)]\nmod tests {{\n{long}}}\n");
    assert!(line_count(&file("src/a.rs", &tested)).is_empty());
    assert!(line_count(&file("src/a/tests.rs", &longer)).is_empty());
}

#[test]
fn files_say_what_they_are_about() {
    assert_tidy("src/", opening);
    let good = "//! The idea.\n//!\n//! Why it is\n//! so.\n\nuse std::fmt;\n";
    assert!(opening(&file("src/a.rs", good)).is_empty());
    for bad in [
        "use std::fmt;\n",
        "//! The idea.\n",
        "\n//! One. Two.\n",
        "// One. Two.\n",
    ] {
        assert_eq!(opening(&file("src/a.rs", bad)).len(), 1, "{bad}");
    }
    assert!(opening(&file("src/a/tests.rs", "use super::*;\n")).is_empty());
}

#[test]
fn nothing_is_left_for_later() {
    assert_tidy("", markers);
    for marker in MARKERS {
        let comment = format!("let a = 1; // {marker}: think\n");
        assert_eq!(markers(&file("README.md", &comment)).len(), 1, "{marker}");
    }
    assert!(markers(&file("src/a.rs", "const XXXL: u8 = 1;\n")).is_empty());
}

#[test]
fn no_path_is_that_of_a_machine() {
    assert_tidy("", machine_paths);
    for root in MACHINE_ROOTS {
        let comment = format!("// As measured in {root}bench.\n");
        assert_eq!(machine_paths(&file("README.md", &comment)).len(), 1);
        let url = format!("let url = \"https://example.com{root}page\";\n");
        assert!(machine_paths(&file("src/a.rs", &url)).is_empty());
    }
}

fn line_count(file: &File) -> Vec<String> {
    let lines: Vec<&str> = file.text.lines().collect();
    let is_tests = |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod tests");
    let tests = lines.windows(2).position(is_tests);
    let count = tests.unwrap_or(lines.len());
    if count <= LINE_COUNT_MAX || !file.is_rust() || file.is_tests() {
        return Vec::new();
    }
    let path = &file.path;
    vec![format!(
        "{path}: {count} lines, {LINE_COUNT_MAX} at most: it has more than one idea; split by idea"
    )]
}

fn opening(file: &File) -> Vec<String> {
    if !file.is_rust() || file.is_tests() {
        return Vec::new();
    }
    let doc: Vec<&str> = file
        .text
        .lines()
        .map_while(|line| line.strip_prefix("//!"))
        .collect();
    let doc = doc.join(" ");
    let words = doc.split_whitespace();
    let sentence_count = words.filter(|word| word.ends_with(['.', '?', '!'])).count();
    if sentence_count >= 2 {
        return Vec::new();
    }
    let path = &file.path;
    vec![format!(
        "{path}: its opening is shorter than two sentences: say in two to ten what the idea is, why, \
         and what it deliberately does not do"
    )]
}

fn markers(file: &File) -> Vec<String> {
    let path = &file.path;
    let is_marked = |line: &str| MARKERS.iter().any(|marker| has_word(line, marker));
    file.lines()
        .filter(|(_, line)| is_marked(line))
        .map(|(number, line)| format!("{path}:{number}: do it, or open an issue: {}", line.trim()))
        .collect()
}

fn machine_paths(file: &File) -> Vec<String> {
    let path = &file.path;
    // Behind a name or a brace the text is the path of a URL, or goes on from another path.
    let continues = |c: char| c.is_alphanumeric() || "_-.}*)".contains(c);
    let is_absolute = |line: &str, root: &str| {
        line.match_indices(root)
            .any(|(at, _)| !line[..at].ends_with(continues))
    };
    file.lines()
        .filter(|(_, line)| MACHINE_ROOTS.iter().any(|root| is_absolute(line, root)))
        .map(|(number, line)| {
            let line = line.trim();
            format!("{path}:{number}: this path exists on one machine only: {line}")
        })
        .collect()
}
