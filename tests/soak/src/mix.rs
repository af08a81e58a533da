//! What SDKs send, in the shares in which they send it.
//!
//! A deck has a hundred requests: the shares are its counts. Several decks differ in the sizes of what
//! is in them. All are made at the start.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::mirror::IN_KEY;

/// The data categories of items, by their types.
pub const CATEGORIES: [(&str, &str); 7] = [
    ("event", "error"),
    ("transaction", "transaction"),
    ("session", "session"),
    ("log", "log_item"),
    ("client_report", "client_report"),
    ("replay_recording", "replay"),
    ("attachment", "attachment"),
];

/// A request that waits for its number.
pub struct Request {
    /// Request line and header lines, without the blank line.
    pub head: Vec<u8>,
    pub body: Vec<u8>,
    /// The length of the body as upstreams are to get it. The keys and DSNs of all upstreams are as
    /// long as those in the body.
    pub plain_bytes: usize,
    /// The index in [`CATEGORIES`] of its only item.
    pub category: usize,
}

/// How a request is written.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// Key in the query, chunked: Node.
    Chunked,
    /// Key in the query, a length: browsers.
    Query,
    /// Key in a header field, a length.
    Header,
    /// The same, compressed.
    Gzip,
}

/// A kind of request: its share in percent, how large it is before compression, and its form.
struct Kind {
    share: usize,
    bytes: (usize, usize),
    forms: &'static [Form],
    item: &'static str,
    has_dsn: bool,
    is_binary: bool,
}

const fn kind(
    share: usize,
    bytes: (usize, usize),
    forms: &'static [Form],
    item: &'static str,
) -> Kind {
    Kind {
        share,
        bytes,
        forms,
        item,
        has_dsn: false,
        is_binary: false,
    }
}

use Form::{Chunked, Gzip, Header, Query};

const KINDS: [Kind; 9] = [
    kind(35, (1_000, 5_000), &[Chunked, Query], "event"),
    kind(25, (3_000, 9_000), &[Gzip], "transaction"),
    kind(10, (250, 500), &[Header, Gzip], "session"),
    kind(10, (400, 4_000), &[Chunked, Gzip], "log"),
    Kind {
        has_dsn: true,
        ..kind(8, (1_000, 5_000), &[Header], "event")
    },
    kind(5, (130, 600), &[Header, Query], "client_report"),
    kind(4, (50_000, 200_000), &[Query, Gzip], "transaction"),
    Kind {
        is_binary: true,
        ..kind(2, (50_000, 500_000), &[Query], "replay_recording")
    },
    Kind {
        is_binary: true,
        ..kind(1, (1_000_000, 20_000_000), &[Header], "attachment")
    },
];

/// As many decks as told, each shuffled.
pub fn decks(count: usize) -> Vec<Request> {
    let mut chance = Chance(0x2545_f491_4f6c_dd1d);
    let mut requests = Vec::new();
    for _ in 0..count {
        let mut deck: Vec<Request> = KINDS
            .iter()
            .flat_map(|kind| (0..kind.share).map(move |turn| (kind, turn)))
            .map(|(kind, turn)| make(kind, kind.forms[turn % kind.forms.len()], &mut chance))
            .collect();
        for at in (1..deck.len()).rev() {
            deck.swap(at, chance.below(at + 1));
        }
        requests.append(&mut deck);
    }
    requests
}

/// One small event, as it is.
pub fn small() -> Request {
    make(&KINDS[4], Header, &mut Chance(1))
}

/// An attachment of so many bytes.
pub fn large(bytes: usize) -> Request {
    let kind = Kind {
        bytes: (bytes, bytes + 1),
        ..kind(1, (0, 0), &[Header], "attachment")
    };
    make(&kind, Header, &mut Chance(1))
}

fn make(kind: &Kind, form: Form, chance: &mut Chance) -> Request {
    let size = kind.bytes.0 + chance.below(kind.bytes.1 - kind.bytes.0);
    let plain = envelope(kind, size, chance);
    let plain_bytes = plain.len();
    let (body, framing) = match form {
        Chunked => {
            let mut body = format!("{:x}\r\n", plain.len()).into_bytes();
            body.extend_from_slice(&plain);
            body.extend_from_slice(b"\r\n0\r\n\r\n");
            (body, "Transfer-Encoding: chunked".to_owned())
        }
        Query | Header => {
            let framing = format!("Content-Length: {}", plain.len());
            (plain, framing)
        }
        Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&plain).expect("memory");
            let body = encoder.finish().expect("memory");
            let framing = format!("Content-Encoding: gzip\r\nContent-Length: {}", body.len());
            (body, framing)
        }
    };
    let (query, auth) = match form {
        Chunked | Query => (
            format!(
                "?sentry_version=7&sentry_key={IN_KEY}&sentry_client=sentry.javascript.node%2F11.12.0"
            ),
            String::new(),
        ),
        Header | Gzip => (
            String::new(),
            format!(
                "Content-Type: application/x-sentry-envelope\r\nX-Sentry-Auth: Sentry sentry_key={IN_KEY}, sentry_version=7, sentry_client=sentry.python/2.75.0\r\n"
            ),
        ),
    };
    let head = format!(
        "POST /api/42/envelope/{query} HTTP/1.1\r\nHost: mirror.example.com\r\nUser-Agent: soak\r\nAccept-Encoding: identity\r\n{auth}{framing}\r\n"
    );
    Request {
        head: head.into_bytes(),
        body,
        plain_bytes,
        category: CATEGORIES
            .iter()
            .position(|(item, _)| *item == kind.item)
            .expect("a category"),
    }
}

/// An envelope with one item of about so many bytes.
fn envelope(kind: &Kind, size: usize, chance: &mut Chance) -> Vec<u8> {
    let id = format!("{:016x}{:016x}", chance.next(), chance.next());
    let dsn = match kind.has_dsn {
        // As long as the DSN of an upstream at a port of five digits.
        true => format!(r#","dsn":"http://{IN_KEY}@mirror123:10000/1""#),
        false => String::new(),
    };
    let trace = format!(
        r#","trace":{{"trace_id":"{id}","environment":"prod","release":"app@1.2.3","public_key":"{IN_KEY}"}}"#
    );
    let mut payload = Vec::with_capacity(size);
    while payload.len() < size {
        if kind.is_binary {
            payload.extend_from_slice(&chance.next().to_le_bytes());
        } else {
            payload.extend_from_slice(WORDS[chance.below(WORDS.len())].as_bytes());
        }
    }
    payload.truncate(size);
    let mut envelope = format!(
        "{{\"event_id\":\"{id}\",\"sent_at\":\"2026-11-23T15:32:05.903898Z\"{dsn}{trace}}}\n{{\"type\":\"{}\",\"length\":{}}}\n",
        kind.item,
        payload.len()
    )
    .into_bytes();
    envelope.append(&mut payload);
    envelope.push(b'\n');
    envelope
}

const WORDS: [&str; 12] = [
    "\"message\":\"division by zero\",",
    "\"level\":\"error\",",
    "\"function\":\"main\",",
    "\"lineno\":42,",
    "\"in_app\":true,",
    "\"module\":\"app.views\",",
    "\"timestamp\":1700000000.123456,",
    "\"span_id\":\"b0e6f15b45c36b12\",",
    "\"op\":\"db.query\",",
    "\"description\":\"SELECT * FROM users\",",
    "\"data\":{},",
    "\"tags\":[],",
];

/// Numbers that are as good as chance here, and the same in every run.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % (limit.max(1) as u64)).unwrap_or(0)
    }
}
