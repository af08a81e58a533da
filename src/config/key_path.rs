//! Key paths, such as `keys[1].outbound[0].dsn`.

/// The path of `key` in the mapping at `parent`. A key that is not a plain word is quoted.
pub(super) fn member(parent: &str, key: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let dot = if parent.is_empty() { "" } else { "." };
    if !key.is_empty() && key.chars().all(is_plain) {
        format!("{parent}{dot}{key}")
    } else {
        format!("{parent}{dot}{key:?}")
    }
}

/// The path of the entry at `index` in the list at `parent`.
pub(super) fn entry(parent: &str, index: usize) -> String {
    format!("{parent}[{index}]")
}

/// The path of the mapping or list around `path`; empty for a top-level key.
pub(super) fn parent(path: &str) -> &str {
    let end = path.rfind(['.', '[']).unwrap_or_default();
    path.get(..end).unwrap_or_default()
}
