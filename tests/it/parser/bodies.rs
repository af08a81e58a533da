//! `Transfer-Encoding`: exactly one `chunked` in HTTP/1.1, or nothing at all.
//!
//! RFC 9112 section 6.1 demands 400 if `chunked` is not the last coding, and 501 for unknown codings; both
//! close. A request with `Content-Length` as well may be refused (section 6.3), and is.

use super::{BAD, Forwarded, Refused, Shape, assert_verdicts, post, shape};

/// Refused as a malformed or unknown coding.
const UNKNOWN: super::Verdict = Refused(&[400, 501]);

const CHUNKS: &str = "3\r\nabc\r\n0\r\n\r\n";

/// A request with these bytes after the name of the field.
fn coding(section: &'static str, value: &[u8], verdict: super::Verdict) -> Shape {
    let fields = [b"Transfer-Encoding:", value, b"\r\n"].concat();
    shape(section, post(fields, CHUNKS), verdict)
}

#[test]
#[rustfmt::skip]
fn transfer_codings_follow_rfc_9112() {
    let chunked = |method: &str, version: &str| format!("{method} {} {version}\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNKS}", super::target());
    let both = |fields: &str| post(fields, CHUNKS);
    assert_verdicts(&[
        coding("9112 7.1", b" chunked", Forwarded("abc")),
        coding("9112 7.1", b"chunked", Forwarded("abc")),
        coding("9112 7: codings have no case", b" CHUNKED", Forwarded("abc")),
        coding("9112 7", b" cHuNkEd", Forwarded("abc")),
        coding("9110 5.5", b" \t chunked \t ", Forwarded("abc")),
        shape("9110 5.1", post("tRANSFER-eNCODING: chunked\r\n", CHUNKS), Forwarded("abc")),
        shape("9112 6.1: whatever the method", chunked("GET", "HTTP/1.1"), Forwarded("abc")),
        shape("9112 6.1", chunked("HEAD", "HTTP/1.1"), Forwarded("abc")),

        coding("9112 6.1", b"", UNKNOWN),
        coding("9112 6.1", b" ", UNKNOWN),
        coding("9112 6.1", b" identity", UNKNOWN),
        coding("9112 6.1", b" gzip", UNKNOWN),
        coding("9112 6.1", b" gzip, chunked", UNKNOWN),
        coding("9112 6.1", b" deflate, chunked", UNKNOWN),
        coding("9112 6.1: not the last", b" chunked, gzip", UNKNOWN),
        coding("9112 6.1: not twice", b" chunked, chunked", UNKNOWN),
        coding("9112 6.1", b" chunked, identity", UNKNOWN),
        coding("9112 6.1", b" identity, chunked", UNKNOWN),
        coding("9112 6.1", b" identity chunked", UNKNOWN),
        coding("9112 6.1", b" chunked chunked", UNKNOWN),
        coding("9112 6.1", b" chunked,", UNKNOWN),
        coding("9112 6.1", b" ,chunked", UNKNOWN),
        coding("9112 6.1", b" , chunked", UNKNOWN),
        coding("9112 6.1", b" chunked;", UNKNOWN),
        coding("9112 6.1: it has no parameters", b" chunked;q=1", UNKNOWN),
        coding("9112 6.1", b" chunked; a=b", UNKNOWN),
        coding("9112 6.1", b" \"chunked\"", UNKNOWN),
        coding("9112 6.1", b" 'chunked'", UNKNOWN),
        coding("9112 6.1", b" xchunked", UNKNOWN),
        coding("9112 6.1", b" chunkedx", UNKNOWN),
        coding("9112 6.1", b" x-chunked", UNKNOWN),
        coding("9112 6.1", b" chunke", UNKNOWN),
        coding("9112 6.1", b" chunk", UNKNOWN),
        coding("9112 6.1", b" chun ked", UNKNOWN),
        coding("9112 6.1", b" cow", UNKNOWN),
        coding("9112 6.1", b" chunked:", UNKNOWN),
        coding("9112 6.1", b": chunked", UNKNOWN),
        coding("9112 6.1", b" [chunked]", UNKNOWN),
        coding("9110 5.5", b" chunked\0", BAD),
        coding("9110 5.5", b" \0chunked", BAD),
        coding("9110 5.5", b" \x0bchunked", BAD),
        coding("9110 5.5", b" \x0cchunked", BAD),
        coding("9110 5.5", b" chunked\x0b", BAD),
        coding("9110 5.5", b" chunked\x7f", BAD),
        coding("9110 5.5", b" chun\rked", BAD),
        coding("9112 6.1", b" \xa0chunked", UNKNOWN),
        coding("9112 6.1", b" chunked\x85", UNKNOWN),
        coding("9112 6.1: letters that only look alike", " \u{441}hunked".as_bytes(), UNKNOWN),
        coding("9112 6.1: or become them in lower case", " chun\u{212a}ed".as_bytes(), UNKNOWN),
        coding("9112 5.2", b"\r\n chunked", BAD),
        coding("9112 5.2", b" chunked\r\n ", BAD),
        coding("9112 5.2", b" x\r\n\tchunked", BAD),

        shape("9112 6.1: repeated", both("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), UNKNOWN),
        shape("9112 6.1", both("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"), UNKNOWN),
        shape("9112 6.1", both("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n"), UNKNOWN),
        shape("9112 6.1", both("Transfer-Encoding: chunked\r\ntransfer-encoding: x\r\n"), UNKNOWN),
        shape("9112 6.1", both("Transfer-Encoding:\r\nTransfer-Encoding: chunked\r\n"), UNKNOWN),

        shape("9112 6.3: both", both("Content-Length: 13\r\nTransfer-Encoding: chunked\r\n"), BAD),
        shape("9112 6.3", both("Transfer-Encoding: chunked\r\nContent-Length: 13\r\n"), BAD),
        shape("9112 6.3", both("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"), BAD),
        shape("9112 6.3", both("Content-Length: x\r\nTransfer-Encoding: chunked\r\n"), BAD),
        shape("9112 6.3", both("Content-Length:\r\nTransfer-Encoding: chunked\r\n"), BAD),
        shape("9112 6.3", both("Content-Length: 13\r\nTransfer-Encoding: identity\r\n"), UNKNOWN),
        shape("9112 6.3", both("Content-Length: 13\r\nTransfer-Encoding: xchunked\r\n"), UNKNOWN),
        shape("9112 6.3", both("Content-Length: 13\r\nTransfer-Encoding:\r\n"), UNKNOWN),
        shape("9112 6.3", both("Content-Length: 13\r\nX: 1\nTransfer-Encoding: chunked\r\n"), BAD),
        shape("9112 6.3: naming it in Connection does not help", both("Connection: Content-Length\r\nContent-Length: 13\r\nTransfer-Encoding: chunked\r\n"), BAD),
        shape("9112 6.3", both("Connection: Transfer-Encoding\r\nContent-Length: 13\r\nTransfer-Encoding: chunked\r\n"), BAD),
        shape("9112 6.3", both("Content-Length: 13\r\nContent-Length: 13\r\nTransfer-Encoding: chunked\r\n"), BAD),

        shape("9112 6.1: HTTP/1.0 has no codings", chunked("POST", "HTTP/1.0"), BAD),
        shape("9112 6.1", format!("POST {} HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNKS}", super::target()), BAD),
        shape("9112 6.1", format!("POST {} HTTP/1.0\r\nContent-Length: 13\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNKS}", super::target()), BAD),
    ]);
}
