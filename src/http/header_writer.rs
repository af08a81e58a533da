//! Writes header lines.
//!
//! A request is rendered for each of its outbounds. With the formatting of the standard library, that took 3
//! percent of a request's instructions.

/// Appends the line `name: value`.
pub(crate) fn append(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends the line `name: value`, with the value in decimal.
pub(crate) fn append_number(out: &mut Vec<u8>, name: &str, value: usize) {
    append(out, name, itoa::Buffer::new().format(value).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appended_lines_end_in_crlf() {
        let mut out = b"HTTP/1.1 200 OK\r\n".to_vec();
        append(&mut out, "Host", b"o1.example.com:8080");
        append_number(&mut out, "Content-Length", 0);
        append_number(&mut out, "Age", usize::MAX);
        let expected = format!(
            "HTTP/1.1 200 OK\r\nHost: o1.example.com:8080\r\nContent-Length: 0\r\nAge: {}\r\n",
            usize::MAX
        );
        assert_eq!(out, expected.as_bytes());
    }
}
