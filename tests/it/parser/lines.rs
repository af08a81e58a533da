//! Request lines: methods, targets, versions, and the bytes before them.
//!
//! RFC 9112 section 3 lets a server answer an invalid request line with 400. The mirror also closes the
//! connection, since its sender may get other things wrong, too.

use super::{Answered, BAD, Forwarded, ForwardedAndClosed, Refused, assert_verdicts, line, shape};

/// Neither HTTP/1.0 nor HTTP/1.1: malformed (RFC 9112 section 3) or an unsupported version (RFC 9110
/// section 15.6.6). The difference does not matter.
const NO_VERSION: super::Verdict = Refused(&[400, 505]);

/// An unknown target: any client error will do.
const NOTHING_THERE: super::Verdict = Answered(&[400, 401, 404, 405]);

#[test]
#[rustfmt::skip]
fn request_lines_follow_rfc_9112() {
    assert_verdicts(&[
        // Methods.
        shape("9110 9.3.3", line("POST @ HTTP/1.1"), Forwarded("abc")),
        shape("9110 9.3.1: content in a GET is framed like any other", line("GET @ HTTP/1.1"), Forwarded("abc")),
        shape("9110 9.3.2: and in a HEAD", line("HEAD @ HTTP/1.1"), Forwarded("abc")),
        shape("9110 9.3.5", line("DELETE /api/42/other/?sentry_key=0123456789abcdef0123456789abcdef HTTP/1.1"), Forwarded("abc")),
        shape("9110 9.3.4", line("PUT /api/42/other/?sentry_key=0123456789abcdef0123456789abcdef HTTP/1.1"), Forwarded("abc")),
        shape("9110 15.5.6", line("PUT @ HTTP/1.1"), Answered(&[405])),
        shape("9110 9.1: methods are case-sensitive", line("post @ HTTP/1.1"), Answered(&[405, 501])),
        shape("9110 9.1", line("Post @ HTTP/1.1"), Answered(&[405, 501])),
        shape("9110 9.1: any token is a method", line("P!#$%&'*+-.^_`|~9 @ HTTP/1.1"), Answered(&[405, 501])),
        shape("9110 9.3.6: this is no proxy", line("CONNECT m:80 HTTP/1.1"), BAD),
        shape("9110 9.3.8", line("TRACE @ HTTP/1.1"), Answered(&[405, 501])),
        shape("9110 9.3.7", line("OPTIONS @ HTTP/1.1"), Answered(&[200])),
        shape("9112 3: the method is a token", line("PO(ST @ HTTP/1.1"), BAD),
        shape("9112 3", line("PO\"ST @ HTTP/1.1"), BAD),
        shape("9112 3", line("POST: @ HTTP/1.1"), BAD),
        shape("9112 3", line("P\u{d6}ST @ HTTP/1.1"), BAD),
        shape("9112 3", line("PO\0ST @ HTTP/1.1"), BAD),
        shape("9112 3", line("@ HTTP/1.1"), BAD),

        // White space: exactly one SP stands between the parts.
        shape("9112 3", line("POST  @ HTTP/1.1"), BAD),
        shape("9112 3", line("POST @  HTTP/1.1"), NO_VERSION),
        shape("9112 3", line("POST @ HTTP/1.1 "), BAD),
        shape("9112 3", line("POST @ HTTP/1.1\t"), BAD),
        shape("9112 3", line("POST\t@ HTTP/1.1"), BAD),
        shape("9112 3", line("POST @\tHTTP/1.1"), BAD),
        shape("9112 3", line("POST\x0b@ HTTP/1.1"), BAD),
        shape("9112 3", line("POST\x0c@ HTTP/1.1"), BAD),
        shape("9112 3", line("POST\r@ HTTP/1.1"), BAD),
        shape("9112 3", line("POST @\rHTTP/1.1"), BAD),
        shape("9112 2.2", line(" POST @ HTTP/1.1"), BAD),
        shape("9112 2.2", line("\tPOST @ HTTP/1.1"), BAD),
        shape("9112 3.2: no white space in a target", line("POST @&a=b c HTTP/1.1"), NO_VERSION),
        shape("9112 3.2", line("POST @&a=b HTTP/1.1 HTTP/1.1"), BAD),
        shape("9112 3.2", line("POST /x HTTP/1.1\tPOST @ HTTP/1.1"), BAD),

        // Empty lines in front are skipped; anything else is not an empty line.
        shape("9112 2.2", line("\r\nPOST @ HTTP/1.1"), Forwarded("abc")),
        shape("9112 2.2", line("\r\n\r\n\r\nPOST @ HTTP/1.1"), Forwarded("abc")),
        shape("9112 2.2: LF alone ends a line", line("\nPOST @ HTTP/1.1"), Forwarded("abc")),
        shape("9112 2.2: CR alone does not", line("\rPOST @ HTTP/1.1"), BAD),
        shape("9112 2.2", line("\r\r\nPOST @ HTTP/1.1"), BAD),
        shape("9112 2.2", line("\0POST @ HTTP/1.1"), BAD),
        shape("9112 2.2", line("\u{feff}POST @ HTTP/1.1"), BAD),
        shape("9112 2.2", line(" \r\nPOST @ HTTP/1.1"), BAD),

        // Line ends.
        shape("9112 2.2: LF alone ends a line", line("POST @ HTTP/1.1\nX: 1"), Forwarded("abc")),
        shape("9112 2.2", line("POST @ HTTP/1.1\r"), BAD),
        shape("9112 2.2", line("POST @ HTTP/1.1\rX: 1"), BAD),
        shape("9112 2.2", line("POST @ HTTP/1.1\n\r"), BAD),
    ]);
}

#[test]
#[rustfmt::skip]
fn versions_and_other_protocols_follow_rfc_9112() {
    assert_verdicts(&[
        // Versions.
        shape("9112 9.3: HTTP/1.0 ends with its request", line("POST @ HTTP/1.0"), ForwardedAndClosed("abc")),
        shape("9112 9.3", line("POST @ HTTP/1.0\r\nConnection: keep-alive"), Forwarded("abc")),
        shape("9112 9.3", line("POST @ HTTP/1.0\r\nConnection: Keep-Alive"), Forwarded("abc")),
        shape("9112 9.3", line("POST @ HTTP/1.0\r\nConnection: keep-alive, close"), ForwardedAndClosed("abc")),
        shape("9112 9.3: only Connection says so", line("POST @ HTTP/1.0\r\nKeep-Alive: timeout=5"), ForwardedAndClosed("abc")),
        shape("9112 9.3", line("POST @ HTTP/1.0\r\nProxy-Connection: keep-alive"), ForwardedAndClosed("abc")),
        shape("9110 15.6.6: 1.2 could be taken for 1.1, but no client sends it", line("POST @ HTTP/1.2"), NO_VERSION),
        shape("9112 2.3: one digit each", line("POST @ HTTP/1.10"), NO_VERSION),
        shape("9112 2.3", line("POST @ HTTP/1.01"), NO_VERSION),
        shape("9112 2.3", line("POST @ HTTP/01.1"), NO_VERSION),
        shape("9112 2.3", line("POST @ HTTP/1"), NO_VERSION),
        shape("9112 2.3", line("POST @ HTTP/1."), NO_VERSION),
        shape("9112 2.3", line("POST @ HTTP/.1"), NO_VERSION),
        shape("9112 2.3", line("POST @ HTTP/1,1"), NO_VERSION),
        shape("9112 2.3", line("POST @ HTTP/1.x"), NO_VERSION),
        shape("9112 2.3", line("POST @ HTTP /1.1"), NO_VERSION),
        shape("9112 2.3: case-sensitive", line("POST @ http/1.1"), NO_VERSION),
        shape("9112 2.3", line("POST @ HTTPS/1.1"), NO_VERSION),
        shape("9112 2.3", line("POST @ HTP/1.1"), NO_VERSION),
        shape("9112 2.3", line("POST @ FTP/1.1"), NO_VERSION),
        shape("9112 2.3", line("POST @ HTTP/1.1x"), NO_VERSION),
        shape("9110 15.6.6", line("POST @ HTTP/0.9"), NO_VERSION),
        shape("9110 15.6.6", line("POST @ HTTP/2.0"), NO_VERSION),
        shape("9110 15.6.6", line("POST @ HTTP/2"), NO_VERSION),
        shape("9110 15.6.6", line("POST @ HTTP/3.0"), NO_VERSION),
        shape("9112 3: HTTP/0.9 had no version", "GET /api/42/store/\r\n", NO_VERSION),
        shape("9112 3", "GET /\r\n\r\n", NO_VERSION),
        shape("9112 3", "GET\r\n\r\n", BAD),
        shape("9113 3.4: the preface of HTTP/2 is meant to be refused", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", NO_VERSION),

        // Other protocols.
        shape("9112 3: TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", BAD),
        shape("9112 3: SSH", "SSH-2.0-OpenSSH_9.2\r\n", BAD),
        shape("9112 3: PROXY protocol 1", "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", BAD),
        shape("9112 3: PROXY protocol 2", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c", BAD),
        shape("9112 3: a status line", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", BAD),
        shape("9112 3: SMTP", "HELO m\r\n", NO_VERSION),
    ]);
}

#[test]
#[rustfmt::skip]
fn request_targets_follow_rfc_9112() {
    let key = super::IN_KEY;
    let absolute = |start: &str| line(format!("POST {start}{} HTTP/1.1", super::target()));
    let long = |length: usize| line(format!("POST @&x={} HTTP/1.1", "x".repeat(length)));
    assert_verdicts(&[
        // Absolute form: accepted, and Host means nothing beside it (RFC 9112 section 3.2.2).
        shape("9112 3.2.2", absolute("http://m"), Forwarded("abc")),
        shape("9112 3.2.2: another host than Host says", absolute("http://elsewhere.example"), Forwarded("abc")),
        shape("9112 3.2.2", absolute("http://elsewhere.example:8080"), Forwarded("abc")),
        shape("9112 3.2.2", absolute("https://elsewhere.example"), Forwarded("abc")),
        shape("9112 3.2.2: a scheme has no case", absolute("HTTP://ELSEWHERE.example"), Forwarded("abc")),
        shape("9112 3.2.2", absolute("http://[::1]:80"), Forwarded("abc")),
        shape("9112 3.2.2", line("POST http://m HTTP/1.1"), NOTHING_THERE),
        shape("9112 3.2.2", line("GET http://m/ HTTP/1.1"), NOTHING_THERE),
        shape("9112 3.2.2", line("GET http:// HTTP/1.1"), BAD),
        shape("9110 4.2.1: a URL of HTTP has a host", line("POST http:///api/42/store/ HTTP/1.1"), BAD),
        shape("9112 3.2.2: the schemes of HTTP", absolute("ftp://m"), BAD),
        shape("9112 3.2.2: one space stands behind it", absolute("http://m "), NO_VERSION),
        shape("9112 3.2.2: two Host lines stay two", [
            format!("POST http://m/api/42/store/?sentry_key={key} HTTP/1.1\r\nHost: m\r\nHost: n\r\n\r\n").as_bytes(),
        ].concat(), BAD),

        // Other forms.
        shape("9112 3.2.3: authority form is for CONNECT", line("POST m:80 HTTP/1.1"), BAD),
        shape("9112 3.2.4: asterisk form is for OPTIONS", line("GET * HTTP/1.1"), BAD),
        shape("9112 3.2.4", line("OPTIONS * HTTP/1.1"), Answered(&[200])),
        shape("9112 3.2", line(format!("POST api/42/store/?sentry_key={key} HTTP/1.1")), BAD),
        shape("9112 3.2", line("POST ? HTTP/1.1"), BAD),
        shape("9112 3.2", line("OPTIONS *x HTTP/1.1"), BAD),
        shape("9112 3.2: a fragment is never sent", line("POST @#a HTTP/1.1"), BAD),
        shape("9112 3.2", line(format!("POST /api/42/store/#?sentry_key={key} HTTP/1.1")), BAD),
        shape("9112 3.2.2: nor in absolute form", absolute("http://m#"), BAD),
        shape("3986 2.1: an encoded number sign starts no fragment", line("POST @&a=%23 HTTP/1.1"), Forwarded("abc")),

        // Bytes of a target.
        shape("3986 2: letters beyond ASCII pass as they are", line("POST @&a=\u{fc} HTTP/1.1"), Forwarded("abc")),
        shape("9112 3.2", line("POST @&a=\0 HTTP/1.1"), BAD),
        shape("9112 3.2", line("POST @&a=\x01 HTTP/1.1"), BAD),
        shape("9112 3.2", line("POST @&a=\x7f HTTP/1.1"), BAD),
        shape("9112 3.2", line("POST @&a=\rb HTTP/1.1"), BAD),
        shape("9112 3.2: a line end in a target ends the line", line("POST @&a=\nb HTTP/1.1"), NO_VERSION),
        shape("9112 3.2", line("POST @&a=\r\nb HTTP/1.1"), NO_VERSION),
        shape("3986 2.1: an encoded line end ends no line", line("POST @&a=%0d%0aX:%201 HTTP/1.1"), Forwarded("abc")),
        shape("3986 2.1", line("POST @&a=%00 HTTP/1.1"), Forwarded("abc")),
        shape("3986 2.1", line("POST @&a=%20HTTP/1.1 HTTP/1.1"), Forwarded("abc")),
        shape("3986 2.1: an incomplete escape passes", line("POST @&a=% HTTP/1.1"), Forwarded("abc")),

        // Lengths.
        shape("9112 3: 8000 bytes at least", long(8000), Forwarded("abc")),
        shape("9112 3", long(60_000), Forwarded("abc")),
        shape("9112 3 wants 414; the mirror has one limit and one status for a head", long(70_000), Refused(&[414, 431])),
        shape("9112 3: a method longer than any", "X".repeat(70_000), Refused(&[400, 414, 431, 501])),
        shape("9112 2.2: empty lines for ever", "\r\n".repeat(40_000), Refused(&[400, 431])),
    ]);
}
