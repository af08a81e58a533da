//! `Content-Length`: valid and invalid values.
//!
//! RFC 9112 section 6.3 demands that an invalid value is refused with 400 and the connection closed. It
//! allows a server to repair a list of equal numbers; the mirror does not.

use super::{Answered, BAD, Forwarded, Refused, Shape, Unanswered, assert_verdicts, post, shape};

/// A request with this value as its length and the body `abc`.
fn length(section: &'static str, value: &[u8], verdict: super::Verdict) -> Shape {
    let fields = [b"Content-Length:", value, b"\r\n"].concat();
    shape(section, post(fields, "abc"), verdict)
}

#[test]
#[rustfmt::skip]
fn content_lengths_follow_rfc_9110() {
    let two = |one: &str, other: &str| post(format!("Content-Length: {one}\r\ncontent-length: {other}\r\n"), "abc");
    assert_verdicts(&[
        length("9110 8.6", b" 3", Forwarded("abc")),
        length("9110 8.6", b"3", Forwarded("abc")),
        length("9110 5.5: white space around", b" \t 3 \t ", Forwarded("abc")),
        length("9110 8.6: any number of digits", b" 03", Forwarded("abc")),
        length("9110 8.6", b" 0000000000000000000000000000000000000000003", Forwarded("abc")),
        shape("9110 8.6", post("Content-Length: 0\r\n", ""), Forwarded("")),
        shape("9110 8.6", post("Content-Length: 000\r\n", ""), Forwarded("")),
        shape("9112 6.3: none means empty", post("", ""), Forwarded("")),
        shape("9112 6.3: for GET too", format!("GET {} HTTP/1.1\r\nHost: m\r\n\r\n", super::target()), Forwarded("")),
        shape("9110 5.1: a name has no case", post("cOnTeNt-LeNgTh: 3\r\n", "abc"), Forwarded("abc")),
        shape("9112 6.3: bytes, not lines", post("Content-Length: 6\r\n", "\r\n\r\n\r\n"), Forwarded("\r\n\r\n\r\n")),
        shape("9112 6.3: whatever they are", post("Content-Length: 5\r\n", "\0\x01\x7f\r\n"), Forwarded("\0\x01\x7f\r\n")),

        length("9112 6.3", b"", BAD),
        length("9112 6.3", b" ", BAD),
        length("9112 6.3", b" +3", BAD),
        length("9112 6.3", b" -3", BAD),
        length("9112 6.3", b" -0", BAD),
        length("9112 6.3", b" 3.", BAD),
        length("9112 6.3", b" 3.0", BAD),
        length("9112 6.3", b" 3e0", BAD),
        length("9112 6.3", b" 0x3", BAD),
        length("9112 6.3", b" 0o3", BAD),
        length("9112 6.3", b" 0b11", BAD),
        length("9112 6.3", b" 3h", BAD),
        length("9112 6.3", b" \"3\"", BAD),
        length("9112 6.3", b" '3'", BAD),
        length("9112 6.3", b" (3)", BAD),
        length("9112 6.3", b" 3;", BAD),
        length("9112 6.3", b" 3;a=b", BAD),
        length("9112 6.3", b" 3 3", BAD),
        length("9112 6.3", b" 3\t3", BAD),
        length("9112 6.3", b" 1_0", BAD),
        length("9112 6.3", b" 1'000", BAD),
        length("9112 6.3", b" three", BAD),
        length("9112 6.3", b" NaN", BAD),
        length("9112 6.3", b" 3\0", BAD),
        length("9112 6.3", b" 3\x0b", BAD),
        length("9112 6.3", b" \x0c3", BAD),
        length("9112 6.3", b" \xa03", BAD),
        length("9112 6.3: digits of other scripts", "\u{663}".as_bytes(), BAD),
        length("9112 6.3", "\u{ff13}".as_bytes(), BAD),
        length("9112 6.3", "\u{b3}".as_bytes(), BAD),
        length("9112 6.3: a list, even of equals", b" 3, 3", BAD),
        length("9112 6.3", b" 3,3", BAD),
        length("9112 6.3", b" 3,", BAD),
        length("9112 6.3", b" ,3", BAD),
        length("9112 6.3", b" 3, 4", BAD),
        length("9112 6.3", b" 0, 3", BAD),
        length("9112 6.3: beyond 64 bits", b" 18446744073709551616", BAD),
        length("9112 6.3", b" 18446744073709551619", BAD),
        length("9112 6.3", b" 340282366920938463463374607431768211459", BAD),
        length("9112 6.3", b" 99999999999999999999999999999999999999999999", BAD),

        shape("9112 6.3: repeated", two("3", "3"), BAD),
        shape("9112 6.3", two("3", "4"), BAD),
        shape("9112 6.3", two("0", "3"), BAD),
        shape("9112 6.3", two("3", "0"), BAD),
        shape("9112 6.3", two("3", ""), BAD),
        shape("9112 6.3", two("", "3"), BAD),
        shape("9112 6.3", two("3", "x"), BAD),
        shape("9112 6.3", post("Content-Length: 3\r\nX: 1\r\nContent-Length: 3\r\nContent-Length: 3\r\n", "abc"), BAD),

        length("9110 15.5.14: more than is taken", b" 1048577", Refused(&[413])),
        length("9110 15.5.14", b" 4294967299", Refused(&[413])),
        length("9110 15.5.14", b" 9223372036854775807", Refused(&[413])),
        length("9110 15.5.14", b" 9223372036854775811", Refused(&[413])),
        length("9110 15.5.14", b" 18446744073709551615", Refused(&[413])),

        shape("9112 8: the end comes too early; what follows is its body", post("Content-Length: 3000\r\n", "abc"), Unanswered),
        shape("9112 8", post("Content-Length: 1000\r\nExpect: 100-continue\r\n", ""), Unanswered),

        shape("9112 9.3: a refused body is not the next request", "POST /nothing/here HTTP/1.1\r\nHost: m\r\nContent-Length: 7\r\n\r\nGET / H", Answered(&[401, 404])),
    ]);
}
