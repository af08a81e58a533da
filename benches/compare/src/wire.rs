//! The requests, and what must arrive.
//!
//! The field `x-request-id`, which every contender passes on, identifies each request: a running number, so
//! that a sink knows which requests it got and how often, and the number of its kind, which determines the
//! body. Bodies are JSON as SDKs write it, without spaces, so that a contender that parses and writes the
//! header produces the same bytes as one that replaces the keys in place.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;

use flate2::Compression;
use flate2::write::GzEncoder;

/// The key that is mirrored.
pub const INBOUND_KEY: &str = "0123456789abcdef0123456789abcdef";

/// The DSN that has it.
pub const INBOUND_DSN: &str = "http://0123456789abcdef0123456789abcdef@mirror.example.com/42";

/// The field that names a request; seven digits for the number, two for the kind.
pub const ID_FIELD: &[u8] = b"x-request-id: ";

/// The length of its value, such as `1234567-00`.
pub const ID_LEN: usize = 10;

/// The form of a body on its way to the contender.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    Identity,
    Gzip,
    Chunked,
}

/// Where the key is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// `X-Sentry-Auth`, as most SDKs send it.
    Field,
    /// `sentry_key` in the query, as the SDKs for JavaScript send it.
    Query,
}

/// What a body is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// An envelope with a trace and text.
    Text,
    /// An envelope with a trace, a DSN and text.
    TextWithDsn,
    /// An envelope with a trace and bytes that are no text, such as a replay.
    Binary,
    /// A minidump, which is no envelope.
    Minidump,
}

/// A kind of request.
#[derive(Clone, Copy)]
pub struct Kind {
    /// How many of a hundred requests are of this kind.
    pub share: usize,
    /// The body, before it is coded.
    pub bytes: usize,
    pub coding: Coding,
    pub key: Key,
    pub content: Content,
}

/// A kind of request, written out.
pub struct Template {
    /// All of it; the number of the request is to be filled in.
    pub wire: Vec<u8>,
    id_at: usize,
    kind: usize,
    /// The body as it was before it was coded.
    plain: Vec<u8>,
    content: Content,
    coding: Coding,
}

/// An outbound as a sink knows it.
pub struct Target {
    pub key: String,
    pub project: u32,
    pub dsn: String,
}

impl Target {
    /// The outbound with this index, whose sink listens at `address`.
    pub fn new(index: usize, address: SocketAddr, is_tls: bool) -> Target {
        let key = format!("{:032x}", 0xaaaa_0000_u64 + index as u64);
        let project = 1001 + index as u32;
        let scheme = if is_tls { "https" } else { "http" };
        let dsn = format!("{scheme}://{key}@{address}/{project}");
        Target { key, project, dsn }
    }
}

impl Template {
    /// Writes out the kind with this index.
    pub fn new(kind: usize, of: &Kind) -> Template {
        let plain = body(of.content, of.bytes);
        let coded = match of.coding {
            Coding::Identity => plain.clone(),
            Coding::Gzip => gzip(&plain),
            Coding::Chunked => chunked(&plain),
        };
        let (head, id_at) = head(of, coded.len());
        let mut wire = head.into_bytes();
        wire.extend_from_slice(&coded);
        Template {
            wire,
            id_at,
            kind,
            plain,
            content: of.content,
            coding: of.coding,
        }
    }

    /// Sets the number of the request.
    pub fn name(&mut self, number: usize) {
        let id = format!("{number:07}-{:02}", self.kind);
        let end = self.id_at + ID_LEN;
        self.wire[self.id_at..end].copy_from_slice(id.as_bytes());
    }

    /// Whether its body is an envelope, which names the key as well.
    pub fn is_envelope(&self) -> bool {
        self.content != Content::Minidump
    }

    /// The body that must arrive if it is decoded and rewritten for `target`.
    pub fn rewritten(&self, target: &Target) -> Vec<u8> {
        if !self.is_envelope() {
            return self.plain.clone();
        }
        let line = memchr::memchr(b'\n', &self.plain).unwrap_or(self.plain.len());
        let (header, rest) = self.plain.split_at(line);
        let header = String::from_utf8_lossy(header)
            .replace(INBOUND_DSN, &target.dsn)
            .replace(INBOUND_KEY, &target.key);
        [header.as_bytes(), rest].concat()
    }

    /// The body that must arrive if it is only decoded.
    pub fn decoded(&self) -> &[u8] {
        &self.plain
    }

    /// The body that must arrive if it is passed on unchanged.
    pub fn untouched(&self) -> &[u8] {
        // A contender that reads the chunks of a body sends it with a length.
        if self.coding == Coding::Chunked {
            return &self.plain;
        }
        let head_end = memchr::memmem::find(&self.wire, b"\r\n\r\n").unwrap_or(0) + 4;
        &self.wire[head_end..]
    }
}

/// The head with a place for the number, and where that is.
fn head(of: &Kind, length: usize) -> (String, usize) {
    let endpoint = match of.content {
        Content::Minidump => "minidump",
        Content::Text | Content::TextWithDsn | Content::Binary => "envelope",
    };
    let query = match of.key {
        Key::Field => String::new(),
        Key::Query => format!(
            "?sentry_version=7&sentry_key={INBOUND_KEY}\
             &sentry_client=sentry.javascript.node%2F11.12.0"
        ),
    };
    let mut head = format!(
        "POST /api/42/{endpoint}/{query} HTTP/1.1\r\n\
         host: mirror.example.com\r\n\
         x-request-id: "
    );
    let id_at = head.len();
    head.push_str("0000000-00\r\n");
    head.push_str("user-agent: sentry.python/2.75.0\r\naccept-encoding: identity\r\n");
    head.push_str(match of.content {
        Content::Minidump => "content-type: application/octet-stream\r\n",
        _ => "content-type: application/x-sentry-envelope\r\n",
    });
    if of.key == Key::Field {
        let _ = write!(
            head,
            "x-sentry-auth: Sentry sentry_key={INBOUND_KEY}, sentry_version=7, \
             sentry_client=sentry.python/2.75.0\r\n"
        );
    }
    match of.coding {
        Coding::Identity => {}
        Coding::Gzip => head.push_str("content-encoding: gzip\r\n"),
        Coding::Chunked => head.push_str("transfer-encoding: chunked\r\n"),
    }
    if of.coding != Coding::Chunked {
        let _ = write!(head, "content-length: {length}\r\n");
    }
    head.push_str("\r\n");
    (head, id_at)
}

fn body(content: Content, bytes: usize) -> Vec<u8> {
    let trace = format!(
        "\"trace\":{{\"trace_id\":\"771a43a4192642f0b136d5159a501700\",\"environment\":\"prod\",\
         \"release\":\"app@1.2.3\",\"public_key\":\"{INBOUND_KEY}\",\"sample_rate\":\"1.0\"}}"
    );
    let dsn = match content {
        Content::TextWithDsn => format!("\"dsn\":\"{INBOUND_DSN}\","),
        Content::Text | Content::Binary | Content::Minidump => String::new(),
    };
    let mut out = match content {
        Content::Minidump => b"MDMP".to_vec(),
        Content::Text | Content::TextWithDsn | Content::Binary => format!(
            "{{\"event_id\":\"9ec79c33ec9942ab8353589fcb2e04dc\",\
             \"sent_at\":\"2026-11-23T15:32:05.903Z\",{dsn}{trace}}}\n{{\"type\":\"event\"}}\n"
        )
        .into_bytes(),
    };
    let least = out.len();
    let mut number = 1_u32;
    while out.len() < bytes {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        match content {
            Content::Text | Content::TextWithDsn => {
                let (module, line) = (number >> 24, number >> 16);
                let _ = write!(
                    out,
                    "{{\"function\":\"handle_{module}\",\"module\":\"app.views.module_{module}\",\
                     \"lineno\":{line},\"in_app\":true,\"vars\":{{\"id\":\"{number:08x}\"}}}},"
                );
            }
            Content::Binary | Content::Minidump => out.extend_from_slice(&number.to_be_bytes()),
        }
    }
    out.truncate(bytes.max(least));
    out
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let written = encoder.write_all(plain).and_then(|()| encoder.finish());
    // Memory takes any bytes.
    written.unwrap_or_default()
}

/// One chunk, as Node sends a body that it has in one piece.
fn chunked(plain: &[u8]) -> Vec<u8> {
    let mut out = format!("{:x}\r\n", plain.len()).into_bytes();
    out.extend_from_slice(plain);
    out.extend_from_slice(b"\r\n0\r\n\r\n");
    out
}
