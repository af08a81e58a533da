//! Appends header fields to a header block: indices of the static table, and literals that no table keeps.

use super::{integer, static_table};

/// Whether a value may be kept by a proxy on the way (RFC 7541 §7.1.3).
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Secrecy {
    Plain,
    /// It is a credential.
    Secret,
}

/// Appends that the dynamic table has the size 0, as the first header block of a connection has to (RFC 7541 §4.2).
pub(crate) fn append_no_table(out: &mut Vec<u8>) {
    out.push(0x20);
}

/// Appends the field at this index of the static table.
pub(crate) fn append_indexed(out: &mut Vec<u8>, index: usize) {
    integer::append(out, 0x80, 7, index);
}

/// Appends a field whose name is at this index of the static table.
pub(crate) fn append_with_index(out: &mut Vec<u8>, index: usize, value: &[u8]) {
    integer::append(out, 0, 4, index);
    append_text(out, value);
}

/// Appends a field. Its name becomes lower-case (RFC 9113 §8.2).
pub fn append(out: &mut Vec<u8>, name: &[u8], value: &[u8], secrecy: Secrecy) {
    let pattern = if secrecy == Secrecy::Secret { 0x10 } else { 0 };
    let start = out.len();
    out.push(pattern);
    integer::append(out, 0, 7, name.len());
    let name_start = out.len();
    out.extend_from_slice(name);
    let lower = out.get_mut(name_start..).unwrap_or_default();
    lower.make_ascii_lowercase();
    if let Some(index) = static_table::index_of(lower) {
        out.truncate(start);
        integer::append(out, pattern, 4, index);
    }
    append_text(out, value);
}

/// Appends a text that is not Huffman coded.
pub(crate) fn append_text(out: &mut Vec<u8>, text: &[u8]) {
    integer::append(out, 0, 7, text.len());
    out.extend_from_slice(text);
}

/// How many bytes [`append_text`] appends for a text of this length.
pub(crate) fn text_bytes(len: usize) -> usize {
    integer::bytes(7, len) + len
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_static_table_are_indices_and_others_become_lower_case() {
        let mut out = Vec::new();
        append_no_table(&mut out);
        append_indexed(&mut out, 3);
        append_with_index(&mut out, 4, b"/x");
        append(&mut out, b"Content-Type", b"a/b", Secrecy::Plain);
        append(&mut out, b"X-Sentry-Auth", b"s", Secrecy::Secret);
        append(&mut out, b"Authorization", b"s", Secrecy::Secret);
        let expected = b"\x20\x83\x04\x02/x\x0f\x10\x03a/b\x10\x0dx-sentry-auth\x01s\x1f\x08\x01s";
        assert_eq!(out, expected);
    }
}
