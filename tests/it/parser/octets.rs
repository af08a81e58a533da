//! Every byte value in every part of a head.
//!
//! The verdicts are the character classes of RFC 9110 and RFC 3986, written independently of the program.

use super::{Answered, BAD, Forwarded, Refused, Shape, assert_verdicts_in, line, post, shape};

/// `tchar` of RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn for_every_byte(make: fn(u8) -> Shape) {
    let shapes: Vec<Shape> = (0..=u8::MAX).map(make).collect();
    assert_verdicts_in(&shapes, |_| vec![usize::MAX]);
}

#[test]
fn every_byte_in_a_method_follows_rfc_9110() {
    for_every_byte(|byte| {
        let text = [b"PO", &[byte][..], b"ST @ HTTP/1.1"].concat();
        let verdict = match byte {
            byte if is_token(byte) => Answered(&[405, 501]),
            // The target would be `ST`, followed by an invalid version.
            b' ' => Refused(&[400, 505]),
            _ => BAD,
        };
        shape("9110 9.1", line(text), verdict)
    });
}

#[test]
fn every_byte_in_a_target_follows_rfc_9112() {
    for_every_byte(|byte| {
        let text = [b"POST @&a=", &[byte][..], b"b HTTP/1.1"].concat();
        let verdict = match byte {
            // The start of a fragment, which is never sent.
            b'#' => BAD,
            b'!'..=b'~' => Forwarded("abc"),
            b' ' | b'\n' => Refused(&[400, 505]),
            // Also incomplete UTF-8; whole characters pass, since some clients send them raw.
            _ => BAD,
        };
        let text = if byte == b'@' {
            b"POST @&a=%40b HTTP/1.1".to_vec()
        } else {
            text
        };
        shape("9112 3.2", line(text), verdict)
    });
}

#[test]
fn every_byte_in_a_field_name_follows_rfc_9110() {
    for_every_byte(|byte| {
        let text = [b"X", &[byte][..], b"A: 1"].concat();
        let is_fine = is_token(byte) || byte == b':';
        Shape {
            kept: is_fine.then(|| text.clone()),
            ..shape(
                "9110 5.6.2",
                post([&text[..], b"\r\nContent-Length: 3\r\n"].concat(), "abc"),
                if is_fine { Forwarded("abc") } else { BAD },
            )
        }
    });
}

#[test]
fn every_byte_in_a_field_value_follows_rfc_9110() {
    for_every_byte(|byte| {
        let text = [b"X-A: a", &[byte][..], b"b"].concat();
        let is_fine = matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
        Shape {
            kept: is_fine.then(|| text.clone()),
            ..shape(
                "9110 5.5",
                post([&text[..], b"\r\nContent-Length: 3\r\n"].concat(), "abc"),
                if is_fine { Forwarded("abc") } else { BAD },
            )
        }
    });
}

#[test]
fn every_byte_in_a_content_length_follows_rfc_9110() {
    for_every_byte(|byte| {
        let text = [b"Content-Length: ", &[byte][..], b"3\r\n"].concat();
        let (body, verdict) = match byte {
            b'0' | b' ' | b'\t' => ("abc", Forwarded("abc")),
            b'1' => ("abcdefghijklm", Forwarded("abcdefghijklm")),
            b'2'..=b'9' => {
                return shape(
                    "9110 8.6",
                    post("Content-Length: 1\r\n", "a"),
                    Forwarded("a"),
                );
            }
            _ => ("abc", BAD),
        };
        shape("9112 6.3", post(text, body), verdict)
    });
}

#[test]
fn every_byte_in_a_chunk_size_follows_rfc_9112() {
    for_every_byte(|byte| {
        let fields = "Transfer-Encoding: chunked\r\n";
        let rest = [&[byte][..], b"3\r\nabc\r\n0\r\n\r\n"].concat();
        let verdict = match byte {
            b'0' => Forwarded("abc"),
            // A larger number than the body.
            b'1'..=b'9' | b'a'..=b'f' | b'A'..=b'F' => {
                return shape(
                    "9112 7.1",
                    post(fields, "1\r\na\r\n0\r\n\r\n"),
                    Forwarded("a"),
                );
            }
            _ => BAD,
        };
        shape("9112 7.1", post(fields, rest), verdict)
    });
}
