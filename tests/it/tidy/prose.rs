//! What may not stand in a file: marks of unfinished work, and paths of one machine.
//!
//! These rules are about text, comments included, so some of them hold for more than Rust.

use super::{File, assert_tidy, file, has_word};

/// Words that mark what is unfinished, in code and in prose.
const MARKERS: &[&str] = &["TODO", "FIXME", "XXX"];

/// Where the absolute paths of somebody's machine begin.
const MACHINE_ROOTS: &[&str] = &["/tmp/", "/root/", "/home/"];

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
