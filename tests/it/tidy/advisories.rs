//! Known advisories of crates in the lock file.
//!
//! `cargo deny check` with `deny.toml` needs the database of advisories, which a machine that reaches
//! only registries cannot fetch. This table holds the advisories that were known when the dependencies were
//! chosen, so that no change of the lock file brings one back.

use std::fs;

/// Affected crates, the first version that is not affected, and the advisory.
const FIXED: [(&str, [u64; 3], &str); 5] = [
    ("bytes", [1, 11, 1], "RUSTSEC-2026-0007"),
    ("rustls", [0, 23, 45], "RUSTSEC-2026-0285"),
    ("rustls-webpki", [0, 103, 13], "RUSTSEC-2026-0098"),
    ("rustls-webpki", [0, 103, 13], "RUSTSEC-2026-0099"),
    ("rustls-webpki", [0, 103, 13], "RUSTSEC-2026-0104"),
];

/// Crates that are unsound or abandoned in every version.
const NEVER: [(&str, &str); 2] = [
    ("libyml", "RUSTSEC-2025-0067"),
    ("serde_yml", "RUSTSEC-2025-0068"),
];

#[test]
fn no_crate_with_a_known_advisory_is_locked() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock");
    let lock = fs::read_to_string(path).expect("the lock file is committed");
    assert_eq!(complaints(&lock), Vec::<String>::new());
    let old =
        "name = \"rustls\"\nversion = \"0.23.44\"\n\nname = \"libyml\"\nversion = \"9.0.0\"\n";
    assert_eq!(complaints(old).len(), 2);
    assert_eq!(
        complaints("name = \"rustls\"\nversion = \"0.24.0\"\n").len(),
        0
    );
}

fn complaints(lock: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = lock.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(name) = quoted(line, "name = ") else {
            continue;
        };
        let Some(version) = lines.peek().and_then(|line| quoted(line, "version = ")) else {
            continue;
        };
        for (affected, fixed, advisory) in FIXED {
            if affected == name && numbers(version) < fixed {
                found.push(format!("{name} {version}: {advisory}, fixed in {fixed:?}"));
            }
        }
        for (affected, advisory) in NEVER {
            if affected == name {
                found.push(format!("{name} {version}: {advisory}"));
            }
        }
    }
    found
}

fn quoted<'l>(line: &'l str, key: &str) -> Option<&'l str> {
    line.strip_prefix(key)?.strip_prefix('"')?.strip_suffix('"')
}

fn numbers(version: &str) -> [u64; 3] {
    let core = version.split(['-', '+']).next().expect("a part");
    let mut numbers = core
        .split('.')
        .map(|number| number.parse().expect("a number"));
    std::array::from_fn(|_| numbers.next().unwrap_or(0))
}
