//! Header lines: names, values, line ends, and connection fields.
//!
//! RFC 9112 section 5 leaves little choice. If it does, as with folded lines, the mirror refuses.

use super::{BAD, Forwarded, ForwardedAndClosed, Refused, Shape, assert_verdicts, post, shape};

/// A request with one more header line and the body `abc`.
fn with(lines: impl AsRef<[u8]>) -> Vec<u8> {
    let fields = [lines.as_ref(), b"\r\nContent-Length: 3\r\n"].concat();
    post(fields, "abc")
}

/// A request whose head ends in unusual bytes.
fn ending(fields: &str) -> Vec<u8> {
    format!(
        "POST {} HTTP/1.1\r\nHost: m\r\nContent-Length: 3\r\n{fields}abc",
        super::target()
    )
    .into()
}

/// A line that must arrive unchanged.
fn kept(section: &'static str, line: &[u8]) -> Shape {
    Shape {
        kept: Some(line.to_vec()),
        ..shape(section, with(line), Forwarded("abc"))
    }
}

#[test]
#[rustfmt::skip]
fn field_names_and_values_follow_rfc_9110() {
    assert_verdicts(&[
        // Valid lines pass byte for byte.
        kept("9110 5.5", b"X-A: value"),
        kept("9112 5: no white space is needed", b"X-A:value"),
        kept("9110 5.5: an empty value", b"X-A:"),
        kept("9110 5.5", b"X-A: "),
        kept("9110 5.5: inner white space", b"X-A: a \t b"),
        kept("9112 5.1: white space around", b"X-A: \t value \t "),
        kept("9110 5.5: obs-text", b"X-A: \x80\xff\xc3\xbc"),
        kept("9110 5.6.2: every token is a name", b"!#$%&'*+-.^_`|~09azAZ: 1"),
        kept("9110 5.5: whatever is visible", b"X-A: !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"),
        kept("9110 5.1: an underscore makes another name", b"Content_Length: 99"),
        kept("9110 5.1", b"Transfer_Encoding: chunked"),
        kept("9110 5.1", b"XTransfer-Encoding: chunked"),
        kept("9110 5.1", b"Transfer-Encodingx: chunked"),
        kept("9110 5.1", b"Content-Lengths: 99"),
        kept("9110 5.1", b"Content-Length2: 99"),
        kept("9110 5.1", b"Contentlength: 99"),

        // No white space between a name and its colon (MUST be refused with 400).
        shape("9112 5.1", with("X-A : 1"), BAD),
        shape("9112 5.1", with("X-A\t: 1"), BAD),
        shape("9112 5.1", with("Host : n"), BAD),
        shape("9112 5.1", with("Content-Length : 3"), BAD),
        shape("9112 5.1", with("Transfer-Encoding : chunked"), BAD),
        shape("9112 5.1", with("Transfer-Encoding\t: chunked"), BAD),
        shape("9112 5.1", with("Transfer-Encoding\x0b: chunked"), BAD),
        shape("9112 5.1", with(b"Transfer-Encoding\xa0: chunked"), BAD),

        // Names are tokens.
        shape("9110 5.6.2", with(": 1"), BAD),
        shape("9110 5.6.2", with("X A: 1"), BAD),
        shape("9110 5.6.2", with("X(A: 1"), BAD),
        shape("9110 5.6.2", with("\"X\": 1"), BAD),
        shape("9110 5.6.2", with("X/A: 1"), BAD),
        shape("9110 5.6.2", with("X=A: 1"), BAD),
        shape("9110 5.6.2", with("[X]: 1"), BAD),
        shape("9110 5.6.2", with("X\0A: 1"), BAD),
        shape("9110 5.6.2", with("X\x7fA: 1"), BAD),
        shape("9110 5.6.2", with("X\u{fc}A: 1"), BAD),
        shape("9112 5: a line has a colon", with("X-A"), BAD),
        shape("9112 5", with("X-A 1"), BAD),
        shape("9112 5", with("GET / HTTP/1.1"), BAD),

        // Values: CR, LF and NUL must not pass; other control characters do not pass either.
        shape("9110 5.5", with("X-A: a\rb"), BAD),
        shape("9110 5.5", with("X-A: a\r"), BAD),
        shape("9110 5.5", with("X-A: \rTransfer-Encoding: chunked"), BAD),
        shape("9110 5.5", with("X-A: a\0b"), BAD),
        shape("9110 5.5", with("X-A: \0"), BAD),
        shape("9110 5.5", with("X-A: a\x01b"), BAD),
        shape("9110 5.5", with("X-A: a\x08b"), BAD),
        shape("9110 5.5", with("X-A: a\x0bb"), BAD),
        shape("9110 5.5", with("X-A: a\x0cb"), BAD),
        shape("9110 5.5", with("X-A: a\x1bb"), BAD),
        shape("9110 5.5", with("X-A: a\x7fb"), BAD),
        shape("9112 2.2: LF ends a line, and the next line is invalid", with("X-A: a\nb"), BAD),

        // Folded lines (MUST be refused or unfolded; the mirror refuses).
        shape("9112 5.2", with("X-A: a\r\n b"), BAD),
        shape("9112 5.2", with("X-A: a\r\n\tb"), BAD),
        shape("9112 5.2", with("X-A: a\n b"), BAD),
        shape("9112 5.2", with("X-A: a\r\n \r\n b"), BAD),
        shape("9112 5.2", with("X-A:\r\n a"), BAD),
        shape("9112 5.2", with("Transfer-Encoding:\r\n chunked"), BAD),
        shape("9112 5.2", with("X-A: a\r\n Transfer-Encoding: chunked"), BAD),
        shape("9112 2.2: white space behind the request line", [
            format!("POST {} HTTP/1.1\r\n Host: m\r\nContent-Length: 3\r\n\r\nabc", super::target()).as_bytes(),
        ].concat(), BAD),
        shape("9112 2.2", [
            format!("POST {} HTTP/1.1\r\n \r\nHost: m\r\nContent-Length: 3\r\n\r\nabc", super::target()).as_bytes(),
        ].concat(), BAD),

        // The end of a head.
        shape("9112 2.2: LF ends a line", ending("X-A: 1\n\r\n"), Forwarded("abc")),
        shape("9112 2.2", ending("X-A: 1\r\n\n"), Forwarded("abc")),
        shape("9112 2.2", ending("X-A: 1\n\n"), Forwarded("abc")),
        shape("9112 2.2", ending("\n"), Forwarded("abc")),
        shape("9112 2.2: CR does not", ending("X-A: 1\r\r\n\r\n"), BAD),
        shape("9112 2.2", ending("\r\r\n"), BAD),
        shape("9112 2.2", ending("\rX: 1\r\n\r\n"), BAD),
        shape("9112 2.2", ending("\r\r"), BAD),
        shape("9112 2.2", ending("X-A: 1\n\r\r\n"), BAD),

        // Their number and length.
        shape("9110 5.4: 100 lines", with(many(98)), Forwarded("abc")),
        shape("9110 5.4: one too many", with(many(99)), Refused(&[431])),
        shape("9110 5.4", with(format!("X-A: {}", "x".repeat(60_000))), Forwarded("abc")),
        shape("9110 5.4", with(format!("X-A: {}", "x".repeat(66_000))), Refused(&[431])),
        shape("9110 5.4", with(format!("{}: 1", "x".repeat(66_000))), Refused(&[431])),
        shape("9110 5.4: for ever", format!("GET / HTTP/1.1\r\n{}", "X: 1\r\n".repeat(20_000)), Refused(&[431])),
    ]);
}

/// `count` header lines besides Host and Content-Length.
fn many(count: usize) -> String {
    let lines: Vec<String> = (0..count).map(|i| format!("X-{i}: 1")).collect();
    lines.join("\r\n")
}

#[test]
#[rustfmt::skip]
fn framing_and_connection_fields_follow_rfc_9112() {
    let host = |host: &str| format!("POST {} HTTP/1.1\r\n{host}Content-Length: 3\r\n\r\nabc", super::target());
    assert_verdicts(&[
        // Host is replaced for each outbound, so nothing depends on it; two Host lines are refused.
        shape("9112 3.2", host("Host: m\r\nHost: m\r\n"), BAD),
        shape("9112 3.2", host("Host: m\r\nHost: n\r\n"), BAD),
        shape("9112 3.2", host("Host: m\r\nhOST: n\r\n"), BAD),
        shape("9112 3.2", host("Host:\r\nHost: n\r\n"), BAD),
        shape("9112 3.2: against the RFC, none is accepted, as Relay does", host(""), Forwarded("abc")),
        shape("9112 3.2: an empty one is valid", host("Host:\r\n"), Forwarded("abc")),
        shape("9112 3.2", host("Host: m:8080\r\n"), Forwarded("abc")),
        shape("9112 3.2: against the RFC, an invalid one is dropped as any", host("Host: a b/c?d\r\n"), Forwarded("abc")),

        // Connection.
        shape("9112 9.6", with("Connection: close"), ForwardedAndClosed("abc")),
        shape("9110 7.6.1: options have no case", with("CONNECTION: CLOSE"), ForwardedAndClosed("abc")),
        shape("9110 7.6.1: a list", with("Connection: keep-alive, close"), ForwardedAndClosed("abc")),
        shape("9110 7.6.1", with("Connection: close, keep-alive"), ForwardedAndClosed("abc")),
        shape("9110 5.6.1: empty elements", with("Connection: ,, ,close,"), ForwardedAndClosed("abc")),
        shape("9110 5.3: two lines are one list", with("Connection: x\r\nConnection: close"), ForwardedAndClosed("abc")),
        shape("9110 7.6.1", with("Connection: x,\tclose\t"), ForwardedAndClosed("abc")),
        shape("9110 7.6.1: unknown options mean nothing", with("Connection: closed"), Forwarded("abc")),
        shape("9110 7.6.1", with("Connection: close-notify"), Forwarded("abc")),
        shape("9110 7.6.1", with("Connection: keep-alive"), Forwarded("abc")),
        shape("9110 7.6.1", with("Connection:"), Forwarded("abc")),
        shape("9110 7.6.1: naming what frames a message does not unframe it", with("Connection: Content-Length"), Forwarded("abc")),
        shape("9110 7.6.1", with("Connection: Content-Length, Host, Content-Type"), Forwarded("abc")),
        shape("9110 7.6.1", post("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n"), Forwarded("abc")),
        shape("9110 7.6.1: what is listed goes no further", with("Connection: TE, X-Hop\r\nTE: trailers\r\nX-Hop: 1"), Forwarded("abc")),
        shape("9110 7.6.1", with("Keep-Alive: timeout=5\r\nProxy-Connection: close"), Forwarded("abc")),

        // Fields that ask the server for something.
        shape("9110 7.8: an upgrade may be ignored", with("Connection: Upgrade\r\nUpgrade: websocket"), Forwarded("abc")),
        shape("9113 3.1: so may h2c", with("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk"), Forwarded("abc")),
        shape("9110 10.1.1", with("Expect: 100-continue"), Forwarded("abc")),
        shape("9110 10.1.1: it has no case", with("Expect: 100-Continue"), Forwarded("abc")),
        shape("9110 10.1.1: others may be ignored", with("Expect: something"), Forwarded("abc")),
        shape("9110 10.1.1", with("Expect:"), Forwarded("abc")),
        shape("9110 10.1.1: nothing to wait for", post("Expect: 100-continue\r\n", ""), Forwarded("")),
        shape("9110 10.1.4", with("TE: trailers, deflate;q=0.5"), Forwarded("abc")),
        shape("9110 6.6.2", with("Trailer: X-Sum"), Forwarded("abc")),
        shape("9110 14.4: a part of nothing", with("Content-Range: bytes 0-2/3"), Forwarded("abc")),
        shape("9110 8.4: unknown codings", with("Content-Encoding: chunked"), super::Answered(&[415])),
        shape("9110 8.4", with("Content-Encoding: identity, chunked"), super::Answered(&[415])),
    ]);
}
