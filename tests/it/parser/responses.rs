//! Responses of upstreams: which are accepted, and which connections are reused.
//!
//! The mirror trusts an upstream no more than a client. A response with a doubtful end is not accepted, and
//! the SDK gets a 503 from the mirror. After anything but a response that ended where it had to, the next
//! request goes over a new connection: bytes on the old one could be taken for its response, and give one
//! SDK's response to another.

use crate::support::{IN_KEY, KEY_A, Process, Response, config};

use super::sink::{Answer, Sink};

/// What happens to a response.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// It is passed on with this status and body, and its connection is reused.
    Reused(u16, &'static str),
    /// It is passed on with this status and body, and its connection is closed.
    Passed(u16, &'static str),
    /// It is not accepted, and its connection is closed.
    None,
}

use Fate::{Passed, Reused};

struct Row {
    section: &'static str,
    method: &'static str,
    bytes: Vec<u8>,
    /// What follows the response later.
    late: Option<&'static str>,
    /// Whether the upstream then closes.
    closes: bool,
    fate: Fate,
}

fn row(section: &'static str, bytes: impl AsRef<[u8]>, fate: Fate) -> Row {
    Row {
        section,
        method: "POST",
        bytes: bytes.as_ref().to_vec(),
        late: None,
        closes: false,
        fate,
    }
}

impl Row {
    fn closing(self) -> Row {
        Row {
            closes: true,
            ..self
        }
    }

    fn followed_by(self, late: &'static str) -> Row {
        let late = Some(late);
        Row { late, ..self }
    }

    fn of_head(self) -> Row {
        let method = "HEAD";
        Row { method, ..self }
    }
}

/// A response with these header lines and the body `ok`.
fn ok(fields: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{fields}\r\nok").into()
}

fn chunked(body: impl AsRef<[u8]>) -> Vec<u8> {
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    [head, body.as_ref()].concat()
}

fn line(line: &str) -> Vec<u8> {
    format!("{line}\r\nContent-Length: 2\r\n\r\nok").into()
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A response that no later request may get.
const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

#[test]
#[rustfmt::skip]
fn response_heads_and_lengths_follow_rfc_9112() {
    let interim = |count: usize| [b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n".repeat(count), OK.to_vec()].concat();
    assert_fates(vec![
        row("9112 6.3", OK, Reused(200, "ok")),
        row("9112 6.3", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Reused(200, "")),
        row("9112 6.3", ok("content-length:\t002 \r\n"), Reused(200, "ok")),
        row("9112 2.2", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", Reused(200, "ok")),
        row("9112 4: no reason", line("HTTP/1.1 200 "), Reused(200, "ok")),
        row("9112 4: not even its space", line("HTTP/1.1 200"), Reused(200, "ok")),
        row("9112 4: a reason in any words", line("HTTP/1.1 200 \u{e7}a va\tbien"), Reused(200, "ok")),
        row("9110 15", line("HTTP/1.1 299 Own"), Reused(299, "ok")),
        row("9110 15", line("HTTP/1.1 418 Teapot"), Reused(418, "ok")),
        row("9110 15", line("HTTP/1.1 599 Own"), Reused(599, "ok")),

        row("9112 4", line("HTTP/1.1 20 OK"), Fate::None),
        row("9112 4", line("HTTP/1.1 2000 OK"), Fate::None),
        row("9112 4", line("HTTP/1.1 2x0 OK"), Fate::None),
        row("9112 4", line("HTTP/1.1 099 OK"), Fate::None),
        row("9112 4", line("HTTP/1.1 -20 OK"), Fate::None),
        row("9112 4", line("HTTP/1.1  200 OK"), Fate::None),
        row("9112 4", line("HTTP/1.1 OK"), Fate::None),
        row("9112 4", line("HTTP/1.1 200 O\rK"), Fate::None),
        row("9112 4", line("HTTP/1.1 200 O\0K"), Fate::None),
        row("9112 2.3", line("HTTP/2 200"), Fate::None),
        row("9112 2.3", line("http/1.1 200 OK"), Fate::None),
        row("9112 2.3", line("ICY 200 OK"), Fate::None),
        row("9112 4", "<html>not found</html>\r\n\r\n", Fate::None),
        row("9112 4", "220 m ESMTP\r\n\r\n", Fate::None),
        row("9112 4", b"\x15\x03\x01\x00\x02\x02\x28", Fate::None).closing(),
        row("9112 4", "", Fate::None).closing(),
        row("9112 8", "HTTP/1.1 200 OK\r\nContent-Le", Fate::None).closing(),

        row("9112 5.1: to be taken out, which requests do not get", ok("Content-Length : 2\r\n"), Reused(200, "ok")),
        row("9112 5.1", ok("X\t: a\r\nContent-Length \t: 2\r\n"), Reused(200, "ok")),
        row("9112 5.1", ok("Content-Length : 2\r\nContent-Length: 3\r\n"), Fate::None),
        row("9112 5.1", ok("Content-Length: 2\r\n : a\r\n"), Fate::None),
        row("9112 5.2", ok("Content-Length: 2\r\nX: a\r\n b\r\n"), Fate::None),
        row("9110 5.5", ok("Content-Length: 2\r\nX: a\rb\r\n"), Fate::None),
        row("9110 5.5", ok("Content-Length: 2\r\nX: a\0b\r\n"), Fate::None),
        row("9110 5.6.2", ok("Content-Length: 2\r\nX Y: a\r\n"), Fate::None),
        row("9110 5.4", ok(&format!("Content-Length: 2\r\n{}", "X: 1\r\n".repeat(300))), Fate::None),
        row("9110 5.4", ok(&format!("Content-Length: 2\r\nX: {}\r\n", "x".repeat(70_000))), Fate::None),

        row("9112 6.3: doubtful lengths", ok("Content-Length: 2\r\nContent-Length: 2\r\n"), Fate::None),
        row("9112 6.3", ok("Content-Length: 2\r\nContent-Length: 3\r\n"), Fate::None),
        row("9112 6.3", ok("Content-Length: 2, 2\r\n"), Fate::None),
        row("9112 6.3", ok("Content-Length: +2\r\n"), Fate::None),
        row("9112 6.3", ok("Content-Length: -2\r\n"), Fate::None),
        row("9112 6.3", ok("Content-Length: 0x2\r\n"), Fate::None),
        row("9112 6.3", ok("Content-Length: 2;\r\n"), Fate::None),
        row("9112 6.3", ok("Content-Length:\r\n"), Fate::None),
        row("9112 6.3", ok("Content-Length: 18446744073709551618\r\n"), Fate::None),
        row("9112 6.3: longer than is taken", ok("Content-Length: 1048577\r\n"), Fate::None),
        row("9112 6.3", ok("Content-Length: 18446744073709551615\r\n"), Fate::None),
        row("9112 8: shorter than it says", ok("Content-Length: 3\r\n"), Fate::None).closing(),
        row("9112 6.3: longer than it says", ok("Content-Length: 1\r\n"), Passed(200, "o")),
        row("9112 6.3", ok("Content-Length: 0\r\n"), Passed(200, "")),
        row("9112 6.3: a second response", [OK, POISON.as_bytes()].concat(), Passed(200, "ok")),
        row("9112 9.2: unsolicited", OK, Passed(200, "ok")).followed_by(POISON),
        row("9112 9.2", OK, Passed(200, "ok")).followed_by("\r\n"),
        row("9112 9.3: closed unsaid", OK, Passed(200, "ok")).closing(),

        row("9112 9.3", ok("Content-Length: 2\r\nConnection: close\r\n"), Passed(200, "ok")),
        row("9112 9.3", ok("Content-Length: 2\r\nConnection: x, Close\r\n"), Passed(200, "ok")),
        row("9112 9.3", ok("Content-Length: 2\r\nConnection: keep-alive\r\n"), Reused(200, "ok")),
        row("9112 9.3", line("HTTP/1.0 200 OK"), Passed(200, "ok")),
        row("9112 9.3", line("HTTP/1.0 200 OK\r\nConnection: keep-alive"), Reused(200, "ok")),

        row("9110 15.2: interim responses", interim(1), Reused(200, "ok")),
        row("9110 15.2", interim(15), Reused(200, "ok")),
        row("9110 15.2: one a second from a busy server", interim(500), Reused(200, "ok")),
        row("9110 15.2: a storm of them", interim(2000), Fate::None),
        row("9110 15.2: they have no body", ["HTTP/1.1 100 Continue\r\nContent-Length: 9\r\n\r\n".as_bytes(), OK].concat(), Reused(200, "ok")),
        row("9110 15.2", ["HTTP/1.1 102 Processing\r\nTransfer-Encoding: chunked\r\n\r\n".as_bytes(), OK].concat(), Reused(200, "ok")),
        row("9110 15.2: any of them", ["HTTP/1.1 199 Own\r\n\r\n".as_bytes(), OK].concat(), Reused(200, "ok")),
        row("9110 15.2", "HTTP/1.1 100 Continue\r\n\r\n", Fate::None).closing(),
        row("9110 15.2.2: no upgrade was requested", ["HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n".as_bytes(), OK].concat(), Fate::None),
    ]);
}

#[test]
#[rustfmt::skip]
fn response_bodies_follow_rfc_9112() {
    let status = |status: &str, rest: &str| format!("HTTP/1.1 {status} X\r\n{rest}").into_bytes();
    assert_fates(vec![
        // Chunks.
        row("9112 7.1", chunked("2\r\nok\r\n0\r\n\r\n"), Reused(200, "ok")),
        row("9112 7.1", chunked("0\r\n\r\n"), Reused(200, "")),
        row("9112 7.1", chunked("1\r\no\r\n01\r\nk\r\n00\r\n\r\n"), Reused(200, "ok")),
        row("9112 7.1.1", chunked("2;a=\"b\"\r\nok\r\n0;c\r\n\r\n"), Reused(200, "ok")),
        row("9112 7.1.1: padded", chunked("2  \r\nok\r\n0 \r\n\r\n"), Reused(200, "ok")),
        row("9112 7.1.1: white space in front of an extension", chunked("2 ;a=b\r\nok\r\n0\t;c\r\n\r\n"), Reused(200, "ok")),
        row("9112 5.1: in front of a trailer's colon", chunked("2\r\nok\r\n0\r\nX-Sum : 1\r\n\r\n"), Reused(200, "ok")),
        row("9112 7.1.2", chunked("2\r\nok\r\n0\r\nX-Sum: 1\r\nContent-Length: 7\r\n\r\n"), Reused(200, "ok")),
        row("9112 7.1", chunked("2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"), Passed(200, "ok")),
        row("9112 7.1", chunked("2\r\nok\r\n0\r\n\r\n").clone(), Passed(200, "ok")).followed_by("0\r\n\r\n"),
        row("9112 7.1", chunked("x\r\nok\r\n0\r\n\r\n"), Fate::None),
        row("9112 7.1", chunked("-2\r\nok\r\n0\r\n\r\n"), Fate::None),
        row("9112 7.1", chunked("+2\r\nok\r\n0\r\n\r\n"), Fate::None),
        row("9112 7.1", chunked("0x2\r\nok\r\n0\r\n\r\n"), Fate::None),
        row("9112 7.1", chunked("2 2\r\nok\r\n0\r\n\r\n"), Fate::None),
        row("9112 7.1", chunked(" 2\r\nok\r\n0\r\n\r\n"), Fate::None),
        row("9112 7.1", chunked("\r\n2\r\nok\r\n0\r\n\r\n"), Fate::None),
        row("9112 7.1", chunked("2\nok\r\n0\r\n\r\n"), Fate::None),
        row("9112 7.1", chunked("2\r\nok\n0\r\n\r\n"), Fate::None),
        row("9112 7.1", chunked("2\r\nokay\r\n0\r\n\r\n"), Fate::None),
        row("9112 7.1.1", chunked("2;a\nb\r\nok\r\n0\r\n\r\n"), Fate::None),
        row("9112 7.1", chunked("10000000000000002\r\nok\r\n0\r\n\r\n"), Fate::None),
        row("9112 7.1", chunked("ffffffffffffffff\r\nok\r\n0\r\n\r\n"), Fate::None),
        row("9112 7.1: longer than is taken", chunked("100001\r\nok"), Fate::None),
        row("9112 7.1.2", chunked("2\r\nok\r\n0\r\nX-Sum\r\n\r\n"), Fate::None),
        row("9112 7.1.2", chunked(format!("2\r\nok\r\n0\r\nX: {}\r\n\r\n", "x".repeat(20_000))), Fate::None),
        row("9112 8: cut", chunked("2\r\nok\r\n0\r\n"), Fate::None).closing(),
        row("9112 8", chunked("2\r\nok\r\n"), Fate::None).closing(),
        row("9112 8", chunked("3\r\nok"), Fate::None).closing(),

        // Codings.
        row("9112 6.3: both", ok("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n"), Fate::None),
        row("9112 6.3", ok("Transfer-Encoding: chunked\r\nContent-Length: 2\r\n"), Fate::None),
        row("9112 6.1", ok("Transfer-Encoding: gzip, chunked\r\n"), Fate::None),
        row("9112 6.1", ok("Transfer-Encoding: identity\r\n"), Fate::None),
        row("9112 6.1", ok("Transfer-Encoding: xchunked\r\n"), Fate::None),
        row("9112 6.1", ok("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), Fate::None),
        row("9112 6.1: HTTP/1.0 has none", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Fate::None),

        // To the end of the connection.
        row("9112 6.3", ok(""), Passed(200, "ok")).closing(),
        row("9112 6.3: keep-alive means nothing then", ok("Connection: keep-alive\r\n"), Passed(200, "ok")).closing(),
        row("9112 6.3", "HTTP/1.0 200 OK\r\n\r\nok", Passed(200, "ok")).closing(),
        row("9112 6.3: longer than is taken", ok(&format!("\r\n{}", "x".repeat(1_048_577))), Fate::None).closing(),

        // Responses without a body, whatever they declare.
        row("9112 6.3: 204", status("204", "\r\n"), Reused(204, "")),
        row("9110 8.6", status("204", "Content-Length: 0\r\n\r\n"), Reused(204, "")),
        row("9110 8.6: a forbidden length, so a body may follow", status("204", "Content-Length: 2\r\n\r\n"), Passed(204, "")),
        row("9112 6.1", status("204", "Transfer-Encoding: chunked\r\n\r\n"), Passed(204, "")),
        row("9112 6.3: so these bytes are none of it", status("204", "Content-Length: 2\r\n\r\nok"), Passed(204, "")),
        row("9112 6.3", status("204", &format!("\r\n{POISON}")), Passed(204, "")),
        row("9112 6.3", status("204", "\r\n"), Passed(204, "")).followed_by(POISON),
        row("9112 6.3: 304", status("304", "\r\n"), Reused(304, "")),
        row("9110 8.6: it may, but only to a conditional request", status("304", "Content-Length: 2\r\n\r\n"), Passed(304, "")),
        row("9112 6.3", status("304", "Content-Length: 2\r\n\r\nok"), Passed(304, "")),
        row("9110 15.3.6: 205 is framed like any other", status("205", "Content-Length: 0\r\n\r\n"), Reused(205, "")),
        row("9110 15.3.6", status("205", "Content-Length: 2\r\n\r\nok"), Reused(205, "ok")),
        row("9110 15.3.6", status("205", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), Reused(205, "")),
        row("9110 9.3.2: HEAD; a server that says so may well send it", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", Passed(200, "")).of_head(),
        row("9110 9.3.2", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Passed(200, "")).of_head(),
        row("9110 9.3.2", "HTTP/1.1 200 OK\r\n\r\n", Reused(200, "")).of_head(),
        row("9110 9.3.2: so these bytes are none of it", OK, Passed(200, "")).of_head(),
        row("9110 9.3.2", chunked("2\r\nok\r\n0\r\n\r\n"), Passed(200, "")).of_head(),
    ]);
}

/// Sends every row to a mirror, and checks over which connection the next request goes.
fn assert_fates(rows: Vec<Row>) {
    let rows = std::sync::Arc::new(rows);
    let played = std::sync::Arc::clone(&rows);
    let sink = Sink::start(move |seen| {
        let number = seen.values("x-row").first().map(|number| {
            let number = str::from_utf8(number).expect("our own text");
            number.parse::<usize>().expect("our own number")
        });
        match number.and_then(|number| played.get(number)) {
            Some(row) => Answer {
                bytes: row.bytes.clone(),
                late: row.late.map(|late| late.as_bytes().to_vec()),
                closes: row.closes,
            },
            // It closes, so that nothing of this request is left for the next row.
            None => Answer {
                bytes: b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nnext"
                    .to_vec(),
                late: None,
                closes: true,
            },
        }
    });
    let dsn = format!("http://{KEY_A}@{}/11", sink.address);
    let extra = "workers: 1\nreply_policy: primary\nbreaker: {failures: 1000}\ntimeouts: {exchange: 5s}\nreply_timeout: 5s";
    let config = config(&[dsn], extra);
    let complaints: Vec<String> = rows
        .iter()
        .enumerate()
        // A mirror for each row: bytes after a response suspend the pool.
        .filter_map(|(number, row)| complaint(&Process::start(&config), &sink, number, row))
        .collect();
    assert!(
        complaints.is_empty(),
        "{} complaints about {} rows:\n{}",
        complaints.len(),
        rows.len(),
        complaints.join("\n")
    );
}

fn complaint(mirror: &Process, sink: &Sink, number: usize, row: &Row) -> Option<String> {
    let answer = ask(mirror, row.method, &format!("X-Row: {number}\r\n"));
    if row.late.is_some() || row.closes {
        sink.settle();
    }
    let next = ask(mirror, "POST", "");
    let seen = sink.take();
    let [first, second] = seen.as_slice() else {
        return Some(format!("\nRFC {}: seen {seen:?}", row.section));
    };
    let is_reused = first.connection == second.connection;
    let is_from_mirror = answer.status == 503;
    let fits = match row.fate {
        Fate::None => is_from_mirror && !is_reused,
        Reused(status, body) => (answer.status, answer.text(), is_reused) == (status, body, true),
        Passed(status, body) => (answer.status, answer.text(), is_reused) == (status, body, false),
    };
    if fits && (next.status, next.text()) == (200, "next") {
        return None;
    }
    Some(format!(
        "\nRFC {}: {}\n  fate {:?}\n  told {} {:?}, reused {is_reused}, then {} {:?}",
        row.section,
        row.bytes[..row.bytes.len().min(200)].escape_ascii(),
        row.fate,
        answer.status,
        answer.text(),
        next.status,
        next.text(),
    ))
}

/// Sends a request to an endpoint whose responses are passed on unchanged.
fn ask(mirror: &Process, method: &str, fields: &str) -> Response {
    let request = format!(
        "{method} /api/42/other/?sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\n{fields}Content-Length: 0\r\n\r\n"
    );
    let mut client = mirror.client();
    client.send(request.as_bytes());
    if method == "HEAD" {
        client.response_head()
    } else {
        client.response()
    }
}
