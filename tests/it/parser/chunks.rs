//! Chunked bodies: sizes, extensions, line ends, trailers.
//!
//! The mirror repairs nothing here. RFC 9112 section 7.1 has a trap that many parsers miss: the text of an
//! extension means nothing, but its end does.

use super::{
    BAD, Forwarded, Refused, Shape, Unanswered, assert_verdicts, chunked as request, shape,
};

fn chunked(section: &'static str, body: impl AsRef<[u8]>, verdict: super::Verdict) -> Shape {
    shape(section, request(body), verdict)
}

/// The size line of a chunk of three bytes.
fn size(section: &'static str, size: impl AsRef<[u8]>, verdict: super::Verdict) -> Shape {
    chunked(
        section,
        [size.as_ref(), b"\r\nabc\r\n0\r\n\r\n"].concat(),
        verdict,
    )
}

#[test]
#[rustfmt::skip]
fn chunk_sizes_follow_rfc_9112() {
    assert_verdicts(&[
        size("9112 7.1", "3", Forwarded("abc")),
        size("9112 7.1: leading zeros", "03", Forwarded("abc")),
        size("9112 7.1", "0000000000000003", Forwarded("abc")),
        size("9112 7.1: more digits than 64 bits have are refused", "00000000000000003", BAD),
        size("9112 7.1", "0".repeat(400) + "3", BAD),
        chunked("9112 7.1", "a\r\n0123456789\r\n0\r\n\r\n", Forwarded("0123456789")),
        chunked("9112 7.1: digits have no case", "A\r\n0123456789\r\n0\r\n\r\n", Forwarded("0123456789")),
        chunked("9112 7.1", "0a\r\n0123456789\r\n000\r\n\r\n", Forwarded("0123456789")),
        chunked("9112 7.1: several", "1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n", Forwarded("abc")),
        chunked("9112 7.1: none", "0\r\n\r\n", Forwarded("")),
        chunked("9112 7.1", "0000\r\n\r\n", Forwarded("")),
        chunked("9112 7.1: data is data", "7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", Forwarded("\r\n0\r\n\r\n")),

        size("9112 7.1", "", BAD),
        size("9112 7.1", " ", BAD),
        size("9112 7.1", " 3", BAD),
        size("9112 7.1", "\t3", BAD),
        size("9112 7.1", "3 ", BAD),
        size("9112 7.1", "3\t", BAD),
        size("9112 7.1", "+3", BAD),
        size("9112 7.1", "-3", BAD),
        size("9112 7.1", "-0", BAD),
        size("9112 7.1", "0x3", BAD),
        size("9112 7.1", "0X3", BAD),
        size("9112 7.1", "3h", BAD),
        size("9112 7.1", "$3", BAD),
        size("9112 7.1", "#3", BAD),
        size("9112 7.1", "g", BAD),
        size("9112 7.1", "3.0", BAD),
        size("9112 7.1", "3,3", BAD),
        size("9112 7.1", "3_", BAD),
        size("9112 7.1", "3 3", BAD),
        size("9112 7.1", "\"3\"", BAD),
        size("9112 7.1", "\u{663}", BAD),
        size("9112 7.1", "\u{ff13}", BAD),
        size("9112 7.1", "3\0", BAD),
        size("9112 7.1", "\x003", BAD),
        size("9112 7.1", "3\x0b", BAD),
        size("9112 7.1", b"3\xa0", BAD),
        size("9112 7.1", "three", BAD),
        size("9112 7.1: letters of a number, which is longer than what comes", "3abc", Unanswered),

        size("9110 15.5.14: one too many", "100001", Refused(&[413])),
        size("9110 15.5.14", "80000000", Refused(&[413])),
        size("9110 15.5.14", "100000003", Refused(&[413])),
        size("9110 15.5.14", "7fffffffffffffff", Refused(&[413])),
        size("9110 15.5.14", "8000000000000003", Refused(&[413])),
        size("9110 15.5.14", "ffffffffffffffff", Refused(&[413])),
        size("9112 7.1: beyond 64 bits, where it would be 3 again", "10000000000000003", BAD),
        size("9112 7.1", "fffffffffffffffff", BAD),
        chunked("9110 15.5.14: one by one", format!("{}0\r\n\r\n", format!("10000\r\n{}\r\n", "x".repeat(65_536)).repeat(17)), Refused(&[413])),
        chunked("9110 15.5.14: together beyond 64 bits", "3\r\nabc\r\nffffffffffffffff\r\nx", Refused(&[413])),
    ]);
}

#[test]
#[rustfmt::skip]
fn chunk_lines_follow_rfc_9112() {
    assert_verdicts(&[
        // Extensions are ignored.
        size("9112 7.1.1", "3;a", Forwarded("abc")),
        size("9112 7.1.1", "3;a=b", Forwarded("abc")),
        size("9112 7.1.1", "3;a=\"b c\"", Forwarded("abc")),
        size("9112 7.1.1", "3;a=b;c;d=e", Forwarded("abc")),
        size("9112 7.1.1", "3; a = b", Forwarded("abc")),
        size("9112 7.1.1", "3;\ta=b", Forwarded("abc")),
        size("9112 7.1.1: a size in an extension is ignored", "3;5", Forwarded("abc")),
        size("9112 7.1.1", "3;a=\"\u{fc}\"", Forwarded("abc")),
        chunked("9112 7.1.1", "0;a=b\r\n\r\n", Forwarded("")),
        size("9112 7.1.1: white space before it, which the mirror refuses", "3 ;a=b", BAD),
        size("9112 7.1.1", "3\t;a", BAD),
        size("9112 7.1.1: only a semicolon begins one", "3 a=b", BAD),
        size("9112 7.1.1", "3:a=b", BAD),
        size("9112 7.1.1", "3=a", BAD),
        size("9112 7.1.1: it ends where the line ends", "3;a\nb", BAD),
        size("9112 7.1.1", "3;\n", BAD),
        size("9112 7.1.1", "3;a\rb", BAD),
        size("9112 7.1.1", "3;a=\"\rb\"", BAD),
        size("9112 7.1.1", "3;a\r", BAD),
        size("9112 7.1.1", "3;a\0", BAD),
        size("9112 7.1.1", "3;a\x01", BAD),
        size("9112 7.1.1", "3;a\x7f", BAD),
        size("9112 7.1.1: a quoted line end is a line end", "3;a=\"\r\n", BAD),
        size("9112 7.1.1: bounded", format!("3;{}", "x".repeat(20_000)), BAD),
        chunked("9112 7.1.1: bounded together", format!("{}0\r\n\r\n", format!("1;{}\r\na\r\n", "x".repeat(1000)).repeat(20)), BAD),

        // Line ends: CRLF and nothing else.
        chunked("9112 7.1", "3\nabc\r\n0\r\n\r\n", BAD),
        chunked("9112 7.1", "3\rabc\r\n0\r\n\r\n", BAD),
        chunked("9112 7.1", "3\r\r\nabc\r\n0\r\n\r\n", BAD),
        chunked("9112 7.1", "3\n\rabc\r\n0\r\n\r\n", BAD),
        chunked("9112 7.1", "\r\n3\r\nabc\r\n0\r\n\r\n", BAD),
        chunked("9112 7.1: behind the data", "3\r\nabc\n0\r\n\r\n", BAD),
        chunked("9112 7.1", "3\r\nabc\r0\r\n\r\n", BAD),
        chunked("9112 7.1", "3\r\nabc0\r\n\r\n", BAD),
        chunked("9112 7.1", "3\r\nabc\r\n\r\n0\r\n\r\n", BAD),
        chunked("9112 7.1", "3\r\nabc \r\n0\r\n\r\n", BAD),
        chunked("9112 7.1: more than it says", "3\r\nabcd\r\n0\r\n\r\n", BAD),
        chunked("9112 7.1: less than it says", "4\r\nabc\r\n0\r\n\r\n", BAD),
        chunked("9112 7.1", "5\r\nabc\r\n0\r\n\r\n", BAD),
        chunked("9112 7.1: the last chunk", "3\r\nabc\r\n0\n\r\n", BAD),
        chunked("9112 7.1", "3\r\nabc\r\n0\r\n\n", BAD),
        chunked("9112 7.1", "3\r\nabc\r\n0\n\n", BAD),
        chunked("9112 7.1", "3\r\nabc\r\n0\r\r\n\r\n", BAD),
        chunked("9112 7.1: or another", "3\r\nabc\r\n-0\r\n\r\n", BAD),
        chunked("9112 7.1", "3\r\nabc\r\n0 \r\n\r\n", BAD),
        chunked("9112 7.1: missing, so the canary is taken for a size", "3\r\nabc\r\n", BAD),
        chunked("9112 7.1: half, so it is taken for a trailer", "3\r\nabc\r\n0\r\n", BAD),
        chunked("9112 8: the end comes too early", "ffff\r\nabc", Unanswered),

        // Trailers are dropped.
        chunked("9112 7.1.2", "3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n", Forwarded("abc")),
        chunked("9112 7.1.2", "3\r\nabc\r\n0\r\nX-Sum:\r\nY: \t2\t\r\n\r\n", Forwarded("abc")),
        chunked("9110 6.5.1: none that frames", "3\r\nabc\r\n0\r\nContent-Length: 999\r\n\r\n", Forwarded("abc")),
        chunked("9110 6.5.1", "3\r\nabc\r\n0\r\nTransfer-Encoding: identity\r\n\r\n", Forwarded("abc")),
        chunked("9110 6.5.1: or routes", "3\r\nabc\r\n0\r\nHost: n\r\nX-Sentry-Auth: Sentry sentry_key=x\r\n\r\n", Forwarded("abc")),
        chunked("9110 6.5.1", "3\r\nabc\r\n0\r\nConnection: close\r\n\r\n", Forwarded("abc")),
        chunked("9112 7.1.2: they are header lines", "3\r\nabc\r\n0\r\nX-Sum : 1\r\n\r\n", BAD),
        chunked("9112 7.1.2", "3\r\nabc\r\n0\r\n X-Sum: 1\r\n\r\n", BAD),
        chunked("9112 7.1.2", "3\r\nabc\r\n0\r\nX: 1\r\n 2\r\n\r\n", BAD),
        chunked("9112 7.1.2", "3\r\nabc\r\n0\r\nX-Sum\r\n\r\n", BAD),
        chunked("9112 7.1.2", "3\r\nabc\r\n0\r\n: 1\r\n\r\n", BAD),
        chunked("9112 7.1.2", "3\r\nabc\r\n0\r\nX: \0\r\n\r\n", BAD),
        chunked("9112 7.1.2", "3\r\nabc\r\n0\r\nX: a\rb\r\n\r\n", BAD),
        chunked("9112 7.1.2", "3\r\nabc\r\n0\r\nX: 1\n\r\n", BAD),
        chunked("9112 7.1.2", "3\r\nabc\r\n0\r\nX: 1\r\n\n", BAD),
        chunked("9112 7.1.2: bounded", format!("3\r\nabc\r\n0\r\nX: {}\r\n\r\n", "x".repeat(20_000)), BAD),
        chunked("9112 7.1.2", format!("3\r\nabc\r\n0\r\n{}\r\n", "X: 1\r\n".repeat(5000)), BAD),
    ]);
}
