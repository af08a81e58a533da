//! Request smuggling: requests within requests, on which two parsers in a row could disagree.
//!
//! Each shape carries a whole request where a careless parser would find one: in a body, after a false
//! length, in a chunk extension, after an early response. It must not arrive.

use super::{
    Answered, BAD, Eats, Forwarded, ForwardedAndClosed, Refused, Spoils, assert_verdicts, canary,
    chunked, hidden, post, shape,
};

/// A request for another target, with the hidden one as its body.
fn around(line: &str, fields: &str) -> Vec<u8> {
    let hidden = hidden();
    format!(
        "{line} HTTP/1.1\r\nHost: m\r\n{fields}Content-Length: {}\r\n\r\n{hidden}",
        hidden.len()
    )
    .into()
}

/// The same in chunks.
fn around_in_chunks(line: &str, fields: &str) -> Vec<u8> {
    let hidden = hidden();
    format!(
        "{line} HTTP/1.1\r\nHost: m\r\n{fields}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{hidden}\r\n0\r\n\r\n",
        hidden.len()
    )
    .into()
}

#[test]
#[rustfmt::skip]
fn a_false_length_smuggles_no_request() {
    let hidden = hidden();
    let length = hidden.len();
    let te = "Transfer-Encoding: chunked\r\n";
    let ending = format!("0\r\n\r\n{hidden}");
    let both = |one: String, other: &str| post(format!("{one}{other}"), &ending);
    let cl = format!("Content-Length: {}\r\n", ending.len());
    assert_verdicts(&[
        // CL.TE and TE.CL: the front server reads one, the back server the other.
        shape("9112 6.3: CL.TE", both(cl.clone(), te), BAD),
        shape("9112 6.3: TE.CL", both(te.to_owned(), &cl), BAD),
        shape("9112 6.3: TE.CL", post(format!("{te}Content-Length: 4\r\n"), format!("{length:x}\r\n{hidden}\r\n0\r\n\r\n")), BAD),
        shape("9112 6.3: CL.TE, short", post(format!("Content-Length: 6\r\n{te}"), "0\r\n\r\nG"), BAD),
        shape("9112 6.3: CL.0", post(format!("Content-Length: 0\r\nContent-Length: {length}\r\n"), &hidden), BAD),
        shape("9112 6.3: 0.CL", post(format!("Content-Length: {length}\r\nContent-Length: 0\r\n"), &hidden), BAD),
        shape("9112 6.3: CL.CL", post(format!("Content-Length: {length}\r\nContent-Length:\t{length}\r\n"), &hidden), BAD),

        // TE.TE: one of the two servers does not recognise the coding.
        shape("9112 6.1", both(cl.clone(), "Transfer-Encoding: xchunked\r\n"), Refused(&[400, 501])),
        shape("9112 6.1", both(cl.clone(), "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n"), Refused(&[400, 501])),
        shape("9112 6.1", both(cl.clone(), "Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n"), Refused(&[400, 501])),
        shape("9112 5.1", both(cl.clone(), "Transfer-Encoding : chunked\r\n"), BAD),
        shape("9112 2.2", both(cl.clone(), "X: x\nTransfer-Encoding: chunked\r\n"), BAD),
        shape("9110 5.5", both(cl.clone(), "X: x\rTransfer-Encoding: chunked\r\n"), BAD),
        shape("9112 5.2", both(cl.clone(), " Transfer-Encoding: chunked\r\n"), BAD),
        shape("9112 5.2", both(cl.clone(), "Transfer-Encoding:\r\n chunked\r\n"), BAD),
        shape("9110 5.6.2", both(cl.clone(), "Transfer-Encoding\0: chunked\r\n"), BAD),
        shape("9110 5.6.2", both(cl.clone(), "\x0bTransfer-Encoding: chunked\r\n"), BAD),
        shape("9112 6.1", both(cl.clone(), "Transfer-Encoding:\tchunked\r\n"), BAD),
        shape("9112 6.1", both(cl.clone(), "Transfer-Encoding: \"chunked\"\r\n"), Refused(&[400, 501])),
        shape("9110 5.1: which is no Transfer-Encoding", post(format!("{cl}Transfer_Encoding: chunked\r\n"), &ending), Forwarded(leak(&ending))),
        shape("9110 5.1", post(format!("{cl}Transfer-Encodin: chunked\r\n"), &ending), Forwarded(leak(&ending))),

        // The head ends somewhere else.
        shape("9112 2.2", post("X: \r\r\n\r\n", &hidden), BAD),
        shape("9112 5.2", post("X: 1\r\n \r\n", &hidden), BAD),
        shape("9110 5.5", post("Content-Length: 3\r\nX: 1\0\r\n\r\n", &hidden), BAD),
        shape("9112 3", format!("GET / HTTP/1.1\r\rHost: m\r\r\r\r{hidden}"), BAD),
        shape("9112 3", format!("GET /?\r\n{hidden}"), Refused(&[400, 505])),
        shape("9112 3.2: two requests in a line", format!("GET / HTTP/1.1 {hidden}"), BAD),

        // Chunks that end somewhere else.
        shape("9112 7.1.1: TERM.EXT", chunked(format!("3;\n{hidden}\r\n0\r\n\r\n")), BAD),
        shape("9112 7.1.1: EXT.TERM", chunked(format!("3;x\nabc\r\n{length:x}\r\n{hidden}\r\n0\r\n\r\n")), BAD),
        shape("9112 7.1: TERM.SPILL", chunked(format!("3\r\nabcXX{length:x}\r\n{hidden}\r\n0\r\n\r\n")), BAD),
        shape("9112 7.1: SPILL.TERM", chunked(format!("5\r\nabc\r\n{length:x}\r\n{hidden}\r\n0\r\n\r\n")), BAD),
        shape("9112 7.1: ONE.TWO", chunked(format!("3\r\nabc\n\n{length:x}\r\n{hidden}\r\n0\r\n\r\n")), BAD),
        shape("9112 7.1: ZERO.TWO", chunked(format!("3\r\nabc{length:x}\r\n{hidden}\r\n0\r\n\r\n")), BAD),
        shape("9112 7.1.2: a request is no trailer", chunked(format!("0\r\n{hidden}")), BAD),
        shape("9112 7.1.2", chunked("0\r\nX: 1\r\nGET / HTTP/1.1\r\n\r\n"), BAD),
        shape("9112 7.1: a size that would wrap to nothing", chunked(format!("10000000000000000\r\n\r\n{hidden}")), BAD),
        shape("9112 7.1", chunked(format!("100000000000000000000000000000000\r\n\r\n{hidden}")), BAD),
        shape("9112 7.1: an invalid size", chunked(format!("0x0\r\n\r\n{hidden}")), BAD),
        shape("9112 7.1", chunked(format!("0;\r0\r\n\r\n{hidden}")), BAD),
        shape("9112 7.1", chunked(format!("\r\n0\r\n\r\n{hidden}")), BAD),
    ]);
}

#[test]
#[rustfmt::skip]
fn a_body_that_looks_like_a_request_is_not_one() {
    let store = format!("POST {}", super::target());
    let unknown = "POST /api/42/store/?sentry_key=ffffffffffffffffffffffffffffffff";
    let body = leak(&hidden());
    assert_verdicts(&[
        // A body stays a body.
        shape("9112 6.3", around(&store, ""), Forwarded(body)),
        shape("9112 7.1", around_in_chunks(&store, ""), Forwarded(body)),
        shape("9110 9.3.1", around(&store.replace("POST", "GET"), ""), Forwarded(body)),
        shape("9110 9.3.1", around_in_chunks(&store.replace("POST", "GET"), ""), Forwarded(body)),
        shape("9110 9.3.2", around(&store.replace("POST", "HEAD"), ""), Forwarded(body)),
        shape("9110 10.1.1", around(&store, "Expect: 100-continue\r\n"), Forwarded(body)),
        shape("9110 10.1.1", around(&store, "Expect: y 100-continue\r\n"), Forwarded(body)),
        shape("9110 10.1.1", around_in_chunks(&store, "Expect: 100-continue\r\n"), Forwarded(body)),
        shape("9110 7.8", around(&store, "Connection: Upgrade\r\nUpgrade: h2c\r\n"), Forwarded(body)),
        shape("9110 7.6.1", around(&store, "Connection: Content-Length\r\n"), Forwarded(body)),
        shape("9112 3.2.2: another host", around(&store.replace("/api", "http://elsewhere/api"), ""), Forwarded(body)),
        shape("9112 9.6: what follows is not read", around(&store, "Connection: close\r\n"), ForwardedAndClosed(body)),
        shape("9112 6.3: a canary in a canary", post(format!("Content-Length: {}\r\n", canary().len()), canary()), Forwarded(leak(&canary()))),

        // Requests that are answered before their body is read.
        shape("9112 9.3: 200", around("GET /health", ""), Answered(&[200])),
        shape("9112 9.3", around_in_chunks("GET /health", ""), Answered(&[200])),
        shape("9112 9.3", around("HEAD /health", ""), Answered(&[200])),
        shape("9112 9.3", around("OPTIONS /api/42/store/", ""), Answered(&[200])),
        shape("9112 9.3", around_in_chunks("OPTIONS *", ""), Answered(&[200])),
        shape("9112 9.3: 401", around("POST /api/42/store/", ""), Answered(&[401])),
        shape("9112 9.3: 403", around(unknown, ""), Answered(&[403])),
        shape("9112 9.3", around_in_chunks(unknown, ""), Answered(&[403])),
        shape("9112 9.3: 404", around("GET /nothing", ""), Answered(&[404])),
        shape("9112 9.3: 405", around(&store.replace("POST", "BREW"), ""), Answered(&[405])),
        shape("9112 9.3: 415", around(&store, "Content-Encoding: x\r\n"), Answered(&[415])),
        shape("9112 9.3: 400", around(&store, "Content-Encoding: gzip\r\n"), Answered(&[400])),
        shape("9110 10.1.1: without 100 Continue the body may or may not follow", around(unknown, "Expect: 100-continue\r\n"), Refused(&[403])),
        shape("9110 10.1.1", around("GET /health", "Expect: 100-continue\r\n"), Refused(&[200])),
        shape("9112 9.3: too much to read for nothing", post_unknown(unknown, 300_000), Refused(&[403])),

        // Lengths that reach into the next request.
        shape("9112 6.3: five bytes of the canary", "GET /health HTTP/1.1\r\nContent-Length: 5\r\n\r\n", Eats(200, 400)),
        shape("9112 6.3", format!("{unknown} HTTP/1.1\r\nContent-Length: 5\r\n\r\n"), Eats(403, 400)),

        // Bytes between requests belong to the next one.
        shape("9112 2.2: empty lines", [post("Content-Length: 3\r\n", "abc"), b"\r\n".to_vec()].concat(), Forwarded("abc")),
        shape("9112 2.2", [post("Content-Length: 3\r\n", "abc"), b"\r\n\r\n".to_vec()].concat(), Forwarded("abc")),
        shape("9112 2.2", chunked("3\r\nabc\r\n0\r\n\r\n\r\n"), Forwarded("abc")),
        shape("9112 2.2", chunked("3\r\nabc\r\n0\r\n\r\n\n"), Forwarded("abc")),
        shape("9112 9.3: too long by one", post("Content-Length: 3\r\n", "abcd"), Spoils("abc", 405)),
        shape("9112 9.3", post("Content-Length: 0\r\n", "X"), Spoils("", 405)),
        shape("9112 9.3", post("", "X"), Spoils("", 405)),
        shape("9112 9.3", post("Content-Length: 3\r\n", "abc "), Spoils("abc", 400)),
        shape("9112 9.3", post("Content-Length: 3\r\n", "abc\0"), Spoils("abc", 400)),
        shape("9112 9.3", post("Content-Length: 3\r\n", "abc\r"), Spoils("abc", 400)),
        shape("9112 9.3", chunked("3\r\nabc\r\n0\r\n\r\n0\r\n\r\n"), Spoils("abc", 400)),
        shape("9112 9.3", chunked("0\r\n\r\nX: "), Spoils("", 400)),
    ]);
}

/// A request with an unknown key and a body of `length` bytes.
fn post_unknown(line: &str, length: usize) -> Vec<u8> {
    let head = format!("{line} HTTP/1.1\r\nHost: m\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), &vec![b'x'; length]].concat()
}

/// The texts of a table live as long as the test.
fn leak(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}
