//! The parsers, checked against verdicts from the RFCs.
//!
//! A row of a table is a shape of a request: its bytes, its verdict, and the section that demands it. The
//! verdicts come from RFC 9110 and RFC 9112, never from what the program does. If these leave a choice and
//! two parsers could read the bytes in two ways, the mirror chooses the strict reading, and the row says so.
//!
//! Every shape is followed by a canary on the same connection: a valid request. It must arrive at the
//! upstream unchanged, or not at all; this shows if one of its bytes is taken for another request, or a byte
//! of another request for it. Every shape is sent in one piece and then byte by byte, with the same verdict.

mod bodies;
mod chunks;
mod fields;
mod lengths;
mod lines;
mod octets;
mod recurring;
mod responses;
mod sink;
mod smuggling;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use crate::support::{IN_KEY, KEY_A, PATIENCE, Process, config};

use sink::{Answer, Seen, Sink};

/// What must happen to a shape and to the canary behind it.
#[derive(Clone, Copy, Debug)]
enum Verdict {
    /// It is forwarded with this body, and the connection goes on with the canary.
    Forwarded(&'static str),
    /// It is forwarded with this body, and the connection ends.
    ForwardedAndClosed(&'static str),
    /// It is answered with one of these without being forwarded; the canary follows.
    Answered(&'static [u16]),
    /// It is refused with one of these, and the connection ends.
    Refused(&'static [u16]),
    /// It is forwarded with this body; the bytes between it and the canary make the canary a request
    /// that is refused with this.
    Spoils(&'static str, u16),
    /// It is answered with the first without being forwarded; it takes a part of the canary, and the rest
    /// is refused with the second.
    Eats(u16, u16),
    /// It never ends, so nothing is forwarded and nothing is answered.
    Unanswered,
}

use Verdict::{Answered, Eats, Forwarded, ForwardedAndClosed, Refused, Spoils, Unanswered};

/// The usual verdict on malformed bytes.
const BAD: Verdict = Refused(&[400]);

/// A shape of a request.
struct Shape {
    section: &'static str,
    bytes: Vec<u8>,
    verdict: Verdict,
    /// A header line that must arrive byte for byte.
    kept: Option<Vec<u8>>,
}

fn shape(section: &'static str, bytes: impl Into<Vec<u8>>, verdict: Verdict) -> Shape {
    Shape {
        section,
        bytes: bytes.into(),
        verdict,
        kept: None,
    }
}

/// The target of most shapes: an endpoint that takes any body as it is.
fn target() -> String {
    format!("/api/42/store/?sentry_key={IN_KEY}")
}

/// A request with these header lines, and `rest` after the head.
fn post(fields: impl AsRef<[u8]>, rest: impl AsRef<[u8]>) -> Vec<u8> {
    let start = format!("POST {} HTTP/1.1\r\nHost: m\r\n", target());
    [start.as_bytes(), fields.as_ref(), b"\r\n", rest.as_ref()].concat()
}

/// A request that begins with `line`, in which `@` stands for the target, and has the body `abc`.
fn line(line: impl AsRef<[u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for byte in line.as_ref() {
        match byte {
            b'@' => bytes.extend_from_slice(target().as_bytes()),
            byte => bytes.push(*byte),
        }
    }
    bytes.extend_from_slice(b"\r\nHost: m\r\nContent-Length: 3\r\n\r\nabc");
    bytes
}

/// A chunked request with this body.
fn chunked(body: impl AsRef<[u8]>) -> Vec<u8> {
    post("Transfer-Encoding: chunked\r\n", body)
}

/// The request that smuggling shapes contain; it must never arrive.
fn hidden() -> String {
    format!(
        "POST /api/42/store/?sentry_key={IN_KEY}&hidden=1 HTTP/1.1\r\nHost: m\r\nContent-Length: 0\r\n\r\n"
    )
}

const CANARY_BODY: &str = "{\"canary\":\"sings\"}";

fn canary() -> String {
    format!(
        "POST /api/42/store/?sentry_key={IN_KEY}&canary=1 HTTP/1.1\r\nHost: m\r\nX-Canary: 1\r\nContent-Length: {}\r\n\r\n{CANARY_BODY}",
        CANARY_BODY.len()
    )
}

/// The configuration of the mirror between the client and the sink.
const LIMITS: &str = "workers: 1\nlimits: {body_bytes: 1MiB, decoded_bytes: 1MiB}";

/// A mirror between a misbehaving client and a strict sink.
struct Bench {
    mirror: Process,
    sink: Sink,
    /// The head of a canary without a shape before it.
    canary_head: Vec<u8>,
}

impl Bench {
    fn start() -> Bench {
        let sink = Sink::start(|_| Answer {
            bytes: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".to_vec(),
            late: None,
            closes: false,
        });
        let dsn = format!("http://{KEY_A}@{}/11", sink.address);
        let mirror = Process::start(&config(&[dsn], LIMITS));
        let mut bench = Bench {
            mirror,
            sink,
            canary_head: Vec::new(),
        };
        let told = bench.tell(canary().as_bytes(), usize::MAX);
        assert_eq!(told.statuses(false), [200]);
        bench.canary_head = bench.sink.take().remove(0).head;
        bench
    }

    /// Sends `bytes` in pieces, closes the sending side, and reads to the end.
    fn tell(&self, bytes: &[u8], piece_bytes: usize) -> Told {
        let mut stream = TcpStream::connect(self.mirror.address).expect("the mirror listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        let all_sent = bytes
            .chunks(piece_bytes)
            .try_for_each(|piece| stream.write_all(piece))
            .and_then(|()| stream.shutdown(Shutdown::Write));
        let mut told = Told {
            bytes: Vec::new(),
            is_reset: all_sent.is_err(),
        };
        match stream.read_to_end(&mut told.bytes) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => told.is_reset = true,
            Err(error) => panic!("the mirror does not end the connection: {error}"),
        }
        told
    }

    /// A report if `shape` does not get its verdict.
    fn complaint(&self, shape: &Shape, piece_bytes: usize) -> Option<String> {
        let bytes = [shape.bytes.as_slice(), canary().as_bytes()].concat();
        let told = self.tell(&bytes, piece_bytes);
        let statuses = told.statuses(shape.bytes.starts_with(b"HEAD "));
        let seen = self.sink.take();
        let fault = self.fault(shape, &told, &statuses, &seen)?;
        Some(format!(
            "\nRFC {}: {fault}\n  sent in pieces of {}: {}\n  verdict {:?}\n  told {statuses:?}, seen {seen:?}",
            shape.section,
            piece_bytes.min(bytes.len()),
            shape.bytes[..shape.bytes.len().min(400)].escape_ascii(),
            shape.verdict,
        ))
    }

    fn fault(
        &self,
        shape: &Shape,
        told: &Told,
        statuses: &[u16],
        seen: &[Seen],
    ) -> Option<&'static str> {
        let is_one_of = |allowed: &[u16], status: u16| allowed.contains(&status);
        let (body, canary_arrives, is_told) = match (shape.verdict, statuses) {
            (Forwarded(body), told) => (Some(body), true, told == [200, 200]),
            (ForwardedAndClosed(body), told) => (Some(body), false, told == [200]),
            (Answered(any), [one, 200]) => (None, true, is_one_of(any, *one)),
            (Refused(any), [one]) => (None, false, is_one_of(any, *one)),
            (Spoils(body, next), told) => (Some(body), false, told == [200, next]),
            (Eats(first, next), told) => (None, false, told == [first, next]),
            (Unanswered, told) => (None, false, told.is_empty()),
            (Answered(_) | Refused(_), _) => (None, false, false),
        };
        if !is_told {
            return Some("wrong answers");
        }
        // A client that keeps sending after `Connection: close` may get a reset (RFC 9112 9.6).
        if told.is_reset && !matches!(shape.verdict, ForwardedAndClosed(_)) {
            return Some("the connection was reset, which can destroy an answer");
        }
        let (shapes, canaries) = match (body, canary_arrives, seen) {
            (Some(_), true, [first, second]) => (Some(first), Some(second)),
            (Some(_), false, [first]) => (Some(first), None),
            (None, true, [second]) => (None, Some(second)),
            (None, false, []) => (None, None),
            _ => return Some("wrong number of requests at the upstream"),
        };
        if let Some(canary) = canaries
            && (canary.head != self.canary_head || canary.body != CANARY_BODY.as_bytes())
        {
            return Some("the canary has changed");
        }
        let request = shapes?;
        if request.body != body.unwrap_or_default().as_bytes() {
            return Some("wrong body");
        }
        framing_fault(request).or_else(|| {
            let kept = shape.kept.as_deref()?;
            let mut lines = request.head.split(|byte| *byte == b'\n');
            let is_there = lines.any(|line| line.strip_suffix(b"\r") == Some(kept));
            (!is_there).then_some("a header line has changed")
        })
    }
}

/// What is ambiguous in a request made by the mirror.
fn framing_fault(request: &Seen) -> Option<&'static str> {
    if request.values("host").len() != 1 {
        return Some("not exactly one Host");
    }
    if !request.values("transfer-encoding").is_empty() {
        return Some("a Transfer-Encoding was forwarded");
    }
    let lengths = request.values("content-length").len();
    if lengths > 1 || (lengths == 0 && !request.body.is_empty()) {
        return Some("not exactly one Content-Length");
    }
    let hop_by_hop = [
        "connection",
        "te",
        "trailer",
        "upgrade",
        "keep-alive",
        "expect",
    ];
    let is_leaked = |name: &&str| !request.values(name).is_empty();
    if hop_by_hop.iter().any(is_leaked) {
        return Some("a field of the connection was forwarded");
    }
    let mut lines = request.head.split(|byte| *byte == b'\n');
    let is_strict = |line: &[u8]| {
        line.is_empty()
            || line
                .strip_suffix(b"\r")
                .is_some_and(|line| !line.contains(&b'\r'))
    };
    (!lines.all(is_strict)).then_some("a line without CRLF was forwarded")
}

/// All that the mirror sent on a connection.
struct Told {
    bytes: Vec<u8>,
    is_reset: bool,
}

impl Told {
    /// The final statuses, in order. A response to HEAD, which is the first, has no body.
    fn statuses(&self, is_head: bool) -> Vec<u16> {
        let mut statuses = Vec::new();
        let mut rest = self.bytes.as_slice();
        while !rest.is_empty() {
            let end = rest.windows(4).position(|end| end == b"\r\n\r\n");
            let (head, body) = rest.split_at(end.expect("a whole head") + 4);
            let head = str::from_utf8(head).expect("a head of text");
            let status = head
                .strip_prefix("HTTP/1.1 ")
                .and_then(|rest| rest.get(..3));
            let status: u16 = status.expect("a status line").parse().expect("a status");
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("Content-Length: "))
                .map_or(0, |length| length.parse().expect("a length"));
            let is_bodiless = status < 200 || (is_head && statuses.is_empty());
            rest = &body[if is_bodiless { 0 } else { length }..];
            if status >= 200 {
                statuses.push(status);
            }
        }
        statuses
    }
}

/// The size of the pieces in which a shape is sent the second time.
fn small_pieces(shape: &Shape) -> usize {
    if shape.bytes.len() < 2000 { 1 } else { 1000 }
}

/// Asserts that every shape gets its verdict, whole and in pieces.
fn assert_verdicts(shapes: &[Shape]) {
    assert_verdicts_in(shapes, |shape| vec![usize::MAX, small_pieces(shape)]);
}

fn assert_verdicts_in(shapes: &[Shape], pieces: fn(&Shape) -> Vec<usize>) {
    let bench = Bench::start();
    let complaints: Vec<String> = shapes
        .iter()
        .flat_map(|shape| pieces(shape).into_iter().map(move |pieces| (shape, pieces)))
        .filter_map(|(shape, pieces)| bench.complaint(shape, pieces))
        .collect();
    assert!(
        complaints.is_empty(),
        "{} complaints about {} shapes:\n{}",
        complaints.len(),
        shapes.len(),
        complaints.join("\n")
    );
}
