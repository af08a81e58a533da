//! Pipelined requests, framed in every way in which two readers could disagree. The end of each does not depend
//! on the pieces in which they arrive, a naive reader of RFC 9112 finds the same ends and refuses the same
//! requests, and reads each forwarded request as exactly one request with the same body.
//!
//! The first byte of an input selects the pieces. Each byte from 0x80 on stands for one of the texts below, all
//! of which are tried in all kinds of requests before the fuzzing begins.

#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use sentry_mirror::internals::http::chunked::{Chunked, Progress};
use sentry_mirror::internals::http::framing::{self, Framing};
use sentry_mirror::internals::http::head::{HeadLimits, Parsed, RequestHead};
use sentry_mirror::internals::http::reparse::ReparseGate;
use sentry_mirror::internals::mirror::head_edits::{self, ForwardedHeaders};
use sentry_mirror::internals::mirror::render::{OutboundBody, render};
use sentry_mirror::internals::mirror::request::{Body, Request as InboundRequest};
use sentry_mirror::internals::sentry::endpoint;
use sentry_mirror_fuzz::naive::http::{self, Bounds, End, Message};
use sentry_mirror_fuzz::{expand, outbounds};

const BODY_BYTES_MAX: usize = 1024;

const BOUNDS: Bounds = Bounds {
    head_bytes: 2048,
    fields: 64,
    body_bytes: BODY_BYTES_MAX,
};

/// How a request begins. The first is the usual way.
const STARTS: &[&str] = &[
    "POST /api/42/store/ HTTP/1.1\r\nHost: m\r\n",
    "\r\n\r\nPOST /api/42/store/ HTTP/1.1\r\nHost: m\r\n",
    "\n\r\n\nPOST /api/42/store/ HTTP/1.1\r\nHost: m\r\n",
    "\r\rPOST /api/42/store/ HTTP/1.1\r\nHost: m\r\n",
    " POST /api/42/store/ HTTP/1.1\r\nHost: m\r\n",
    "Content-Length: 5\r\nPOST /api/42/store/ HTTP/1.1\r\nHost: m\r\n",
    "POST  /api/42/store/ HTTP/1.1\r\nHost: m\r\n",
    "POST /api/42/store/  HTTP/1.1\r\nHost: m\r\n",
    "POST\t/api/42/store/\tHTTP/1.1\r\nHost: m\r\n",
    "POST /api/42/store/ HTTP/1.1 \r\nHost: m\r\n",
    "POST /api/42/store/ HTTP/1.1\nHost: m\n",
    "POST /api/42/store/ HTTP/1.1\rHost: m\r",
    "POST /api/42/store/\r\nHost: m\r\n",
    "POST /api/42/store/ HTTP/1.0\r\nHost: m\r\n",
    "POST /api/42/store/ HTTP/2.0\r\nHost: m\r\n",
    "POST /api/42/store/ HTTP/1.2\r\nHost: m\r\n",
    "POST /api/42/store/ http/1.1\r\nHost: m\r\n",
    "POST http://other/api/42/store/ HTTP/1.1\r\nHost: m\r\n",
    "POST http:///api/42/store/ HTTP/1.1\r\nHost: m\r\n",
    "POST ftp://other/api/42/store/ HTTP/1.1\r\nHost: m\r\n",
    "POST /api/42/store/?a=GET\u{a0}/ HTTP/1.1\r\nHost: m\r\n",
    "POST /api/42/store/#/ HTTP/1.1\r\nHost: m\r\n",
    "GET /api/42/store/ HTTP/1.1\r\nHost: m\r\n",
    "HEAD /api/42/store/ HTTP/1.1\r\nHost: m\r\n",
    "DELETE /api/42/x/ HTTP/1.1\r\nHost: m\r\n",
    "CONNECT m:443 HTTP/1.1\r\nHost: m\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: m\r\n",
];

/// Header lines that a reader could take for the length of the body.
const LINES: &[&str] = &[
    "Content-Length: 5\r\n",
    "Content-Length: 5\r\nContent-Length: 5\r\n",
    "Content-Length: 5\r\nContent-Length: 0\r\n",
    "Content-Length: 5, 5\r\n",
    "Content-Length: 5,\r\n",
    "Content-Length: +5\r\n",
    "Content-Length: -5\r\n",
    "Content-Length: 5 \t\r\n",
    "Content-Length: 5 5\r\n",
    "Content-Length: 0x5\r\n",
    "Content-Length: 5_0\r\n",
    "Content-Length: 5.0\r\n",
    "Content-Length: 00000000000000000000005\r\n",
    "Content-Length: 18446744073709551621\r\n",
    "Content-Length: \r\n",
    "Content-Length: \"5\"\r\n",
    "Content-Length: \u{665}\r\n",
    "Content-Length : 5\r\n",
    "Content-Length\t: 5\r\n",
    " Content-Length: 5\r\n",
    "X: y\r\n Content-Length: 5\r\n",
    "X: y\r\n\tTransfer-Encoding: chunked\r\n",
    "Content-Length:\r\n 5\r\n",
    "Content_Length: 5\r\n",
    "Content-Length\0: 5\r\n",
    "Content-Length: 5\0\r\n",
    "X: y\rContent-Length: 5\r\n",
    "X: y\nContent-Length: 5\r\n",
    "X: y\r\r\nContent-Length: 5\r\n",
    "Content-Length: 5\n",
    "Transfer-Encoding: chunked\r\n",
    "transfer-encoding:CHUNKED\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked, chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer-Encoding: chunked, identity\r\n",
    "Transfer-Encoding: identity\r\n",
    "Transfer-Encoding: xchunked\r\n",
    "Transfer-Encoding: \"chunked\"\r\n",
    "Transfer-Encoding: chunked;q=1\r\n",
    "Transfer-Encoding: ,chunked\r\n",
    "Transfer-Encoding:\u{b}chunked\r\n",
    "Transfer-Encoding: chunked\u{c}\r\n",
    "Transfer-Encoding:\r\n chunked\r\n",
    "Transfer-Encoding : chunked\r\n",
    "Transfer_Encoding: chunked\r\n",
    "Transfer-Encoding: \r\n",
    "TE: trailers\r\nTrailer: Content-Length\r\n",
    "Expect: 100-continue\r\n",
    "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AA\r\n",
    "Connection: Content-Length, Transfer-Encoding, Host, Via\r\n",
    "Connection: close\r\nConnection: keep-alive\r\n",
    "Proxy-Connection: Content-Length\r\n",
    ": empty\r\n",
    "\u{e4}: no token\r\n",
    "no colon\r\n",
    "Host: second\r\n",
    "Content-Encoding: chunked\r\n",
];

/// Bodies, and texts that could be taken for bodies.
const BODIES: &[&str] = &[
    "",
    "hello",
    "5\r\nhello\r\n0\r\n\r\n",
    "05\r\nhello\r\n00\r\n\r\n",
    "+5\r\nhello\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    " 5\r\nhello\r\n0\r\n\r\n",
    "0_5\r\nhello\r\n0\r\n\r\n",
    "5;a=\"b\"\r\nhello\r\n0;c\r\n\r\n",
    "5 ;a\r\nhello\r\n0\r\n\r\n",
    "5;a\nb\r\nhello\r\n0\r\n\r\n",
    "5\nhello\n0\n\n",
    "5\r\nhello0\r\n\r\n",
    "4\r\nhello\r\n0\r\n\r\n",
    "6\r\nhello\r\n0\r\n\r\n",
    "\r\n0\r\n\r\n",
    "ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "10000000000000005\r\nhello\r\n0\r\n\r\n",
    "00000000000000000005\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n0\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\nHost: x\r\n\r\n",
    "5\r\nhello\r\n0\r\nX : y\r\n\r\n",
    "5\r\nhello\r\n0\r\n X: y\r\n\r\n",
    "0\r\n\r\n",
    "GET /api/42/store/ HTTP/1.1\r\nHost: m\r\n\r\n",
    "\r\n",
];

/// A whole request after each of them, which must not be taken for a part of it.
const SECOND: &str =
    "POST /api/7/store/ HTTP/1.1\r\nHost: second\r\nContent-Length: 6\r\n\r\nsecond";

fuzz_target!(
    init: try_all_kinds(),
    |data: &[u8]| {
        let Some((piece_bytes, data)) = data.split_first() else {
            return;
        };
        let data = expand(data, [STARTS, LINES, BODIES]);
        check(&data, usize::from(*piece_bytes).max(1));
    }
);

fn try_all_kinds() {
    let try_one = |start: &str, lines: &str, body: &str| {
        let text = format!("{start}{lines}\r\n{body}{SECOND}");
        check(text.as_bytes(), 7);
        check(text.as_bytes(), text.len());
    };
    for lines in LINES {
        for start in STARTS {
            for body in &BODIES[..3] {
                try_one(start, lines, body);
            }
        }
        for body in BODIES {
            try_one(STARTS[0], lines, body);
        }
        for more in LINES {
            for body in &BODIES[..3] {
                try_one(STARTS[0], &format!("{lines}{more}"), body);
            }
        }
    }
}

/// Asserts that all readers agree on the requests in `data`.
fn check(data: &[u8], piece_bytes: usize) {
    let whole = Pipeline::read(data, data.len().max(1));
    let in_pieces = Pipeline::read(data, piece_bytes);
    assert_eq!(whole.requests, in_pieces.requests);
    let (expected, end) = http::read_all(data, BOUNDS);
    let expected_requests = expected
        .iter()
        .map(|message| (&message.head, &message.body));
    let requests = whole.requests.iter().map(|it| (&it.head, &it.body));
    assert!(
        requests.eq(expected_requests),
        "{whole:?}, but {expected:?}"
    );
    match end {
        End::Clean => assert!(!whole.is_broken && !in_pieces.is_broken),
        // It may be invalid already.
        End::Incomplete => {}
        End::Refused(reason) => {
            assert!(
                whole.is_broken && in_pieces.is_broken,
                "not refused: {reason}"
            );
        }
    }
    for (request, message) in whole.requests.iter().zip(&expected) {
        check_sent(request, message);
    }
}

/// Asserts that a request is forwarded as one request.
fn check_sent(request: &Request, came: &Message) {
    let limits = limits();
    let (mut head, mut edits) = (RequestHead::default(), Vec::new());
    assert_eq!(head.parse(&request.head, limits), Ok(Parsed::Complete));
    endpoint::parse_target(&request.head, head.target, &mut edits);
    let forwarded = ForwardedHeaders {
        client_address: true,
        credentials: true,
        conditions: true,
    };
    head_edits::edit_head(&head, &request.head, forwarded, &mut edits);
    let inbound = InboundRequest {
        head: Bytes::copy_from_slice(&request.head),
        parsed: head,
        head_edits: edits,
        body: Body::plain(Bytes::copy_from_slice(&request.body)),
        ..InboundRequest::default()
    };
    for outbound in outbounds() {
        let sent = render(&inbound, outbound, &OutboundBody::Whole, Vec::new());
        let sent = [sent.head.as_slice(), &sent.body].concat();
        let (messages, end) = http::read_all(&sent, Bounds::NONE);
        let [message] = messages.as_slice() else {
            panic!("{} requests, {end:?}", messages.len());
        };
        assert_eq!(end, End::Clean);
        assert_eq!(message.body, request.body);
        assert_eq!(message.version, "HTTP/1.1");
        assert_eq!(message.method, came.method);
        assert_eq!(message.values("host"), [outbound.host.as_bytes()]);
        check_lines(&message.head);
        for dropped in [
            "transfer-encoding",
            "connection",
            "te",
            "trailer",
            "upgrade",
            "expect",
        ] {
            assert!(message.values(dropped).is_empty(), "{dropped}");
        }
        let lists = came.values("connection");
        let listed = lists
            .iter()
            .flat_map(|list| list.split(|byte| *byte == b','));
        for name in listed
            .map(<[u8]>::trim_ascii)
            .filter_map(|name| str::from_utf8(name).ok())
        {
            // These are the mirror's own.
            let is_own = ["host", "via", "content-length"].contains(&&*name.to_lowercase());
            assert!(is_own || message.values(name).is_empty(), "{name}");
        }
    }
}

/// Asserts that a head begins with its request line, and that all its lines end in CRLF.
fn check_lines(head: &[u8]) {
    assert!(!head.starts_with(b"\r") && !head.starts_with(b"\n"));
    let count = |text: &[u8]| {
        head.windows(text.len())
            .filter(|window| *window == text)
            .count()
    };
    assert_eq!(count(b"\n"), count(b"\r\n"));
    assert_eq!(count(b"\r"), count(b"\r\n"));
}

fn limits() -> HeadLimits {
    HeadLimits {
        bytes: BOUNDS.head_bytes,
        headers: BOUNDS.fields,
    }
}

#[derive(Debug, PartialEq)]
struct Request {
    head: Vec<u8>,
    body: Vec<u8>,
}

/// What was read of a connection.
#[derive(Debug, Default, PartialEq)]
struct Pipeline {
    requests: Vec<Request>,
    /// Whether it ended with an invalid request.
    is_broken: bool,
}

/// Where a request is broken; the connection ends there.
struct Broken;

impl Pipeline {
    /// Reads as `server` does, a piece at a time.
    fn read(data: &[u8], piece_bytes: usize) -> Pipeline {
        let mut pipeline = Pipeline::default();
        let mut reader = Reader::default();
        for piece in data.chunks(piece_bytes) {
            reader.buffer.extend_from_slice(piece);
            loop {
                match reader.next() {
                    Ok(Some(request)) => pipeline.requests.push(request),
                    Ok(None) => break,
                    Err(Broken) => {
                        pipeline.is_broken = true;
                        return pipeline;
                    }
                }
            }
        }
        pipeline
    }
}

/// The state between two pieces.
#[derive(Default)]
struct Reader {
    buffer: BytesMut,
    gate: ReparseGate,
    /// A head whose body is still to come.
    awaiting: Option<(Vec<u8>, Framing, Chunked)>,
}

impl Reader {
    fn next(&mut self) -> Result<Option<Request>, Broken> {
        if self.awaiting.is_none() {
            if self.buffer.is_empty() {
                return Ok(None);
            }
            let Some((head, framing)) = self.head()? else {
                return Ok(None);
            };
            self.awaiting = Some((head, framing, Chunked::new(BODY_BYTES_MAX)));
        }
        let Some((head, framing, chunked)) = &mut self.awaiting else {
            return Ok(None);
        };
        let body = match *framing {
            Framing::Empty => Vec::new(),
            Framing::Length(length) if length > BODY_BYTES_MAX => return Err(Broken),
            Framing::Length(length) if self.buffer.len() < length => return Ok(None),
            Framing::Length(length) => self.buffer.split_to(length).to_vec(),
            Framing::Chunked => match chunked.decode(&mut self.buffer).map_err(|_| Broken)? {
                Progress::More => return Ok(None),
                Progress::Done { body, consumed } => {
                    assert!(body.len() <= BODY_BYTES_MAX && body.end <= consumed);
                    let whole = self.buffer.split_to(consumed);
                    body.slice(&whole).to_vec()
                }
            },
            Framing::UntilClose => panic!("a request ends before its connection"),
        };
        let head = std::mem::take(head);
        self.awaiting = None;
        Ok(Some(Request { head, body }))
    }

    /// The next head, and what frames its body.
    fn head(&mut self) -> Result<Option<(Vec<u8>, Framing)>, Broken> {
        if !self.gate.should_parse(&self.buffer, BOUNDS.head_bytes) {
            return Ok(None);
        }
        let mut head = RequestHead::default();
        if head.parse(&self.buffer, limits()).map_err(|_| Broken)? == Parsed::Partial {
            return Ok(None);
        }
        self.gate = ReparseGate::default();
        let text = self.buffer.split_to(head.len).to_vec();
        let framing = framing::for_request(&head, &text).map_err(|_| Broken)?;
        Ok(Some((text, framing)))
    }
}
