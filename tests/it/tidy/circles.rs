//! No file uses a file that uses it, directly or through others.
//!
//! Code that only tests compile does not count.

use std::collections::{BTreeMap, BTreeSet};

use super::imports::{Import, imports_of_src};

#[test]
fn no_file_uses_a_file_that_uses_it() {
    let imports = imports_of_src();
    let mut report = String::new();
    for circle in circles(&imports) {
        report += &format!("a circle of {}:\n", circle.join(", "));
        for Import { from, to, .. } in imports.iter().filter(|import| !import.is_in_tests) {
            if circle.contains(&from.as_str()) && circle.contains(&to.as_str()) {
                report += &format!("  {from} uses {to}\n");
            }
        }
    }
    assert!(report.is_empty(), "\n{report}");
}

/// Groups of files that all reach each other, in the order of their names.
fn circles(imports: &BTreeSet<Import>) -> Vec<Vec<&str>> {
    let mut used: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for import in imports.iter().filter(|import| !import.is_in_tests) {
        used.entry(&import.from).or_default().push(&import.to);
    }
    let reached: BTreeMap<&str, BTreeSet<&str>> = used
        .keys()
        .map(|from| {
            let mut reached = BTreeSet::new();
            let mut next = vec![*from];
            while let Some(file) = next.pop() {
                let targets = used.get(file).into_iter().flatten();
                next.extend(targets.filter(|to| reached.insert(**to)));
            }
            (*from, reached)
        })
        .collect();
    let mut circles: Vec<Vec<&str>> = Vec::new();
    for (from, targets) in &reached {
        let is_known = circles.iter().any(|circle| circle.contains(from));
        if targets.contains(from) && !is_known {
            let back = targets
                .iter()
                .filter(|to| reached.get(*to).is_some_and(|r| r.contains(from)));
            circles.push(back.copied().collect());
        }
    }
    circles
}

#[test]
fn files_that_reach_each_other_are_a_circle() {
    let import = |from: &str, to: &str, is_in_tests| Import {
        from: from.to_owned(),
        to: to.to_owned(),
        is_in_tests,
    };
    let imports = BTreeSet::from([
        import("a", "b", false),
        import("b", "c", false),
        import("c", "a", false),
        import("c", "d", false),
        import("d", "e", false),
        import("e", "d", true),
    ]);
    assert_eq!(circles(&imports), [["a", "b", "c"]]);
}
