//! HTTP/2 at a sink, as far as correct clients need it: it trusts their frames.
//!
//! Its windows and its limit of streams are those that Envoy recommends for an edge: 100 streams, 64 KiB for each, 1 MiB
//! for all. Answers of one moment leave in one write, as they do from nginx, h2o and Envoy. They use neither the dynamic
//! table nor Huffman codes.

use std::collections::{HashMap, VecDeque};
use std::io;

use fluke_hpack::Decoder;

use crate::ledger::Ledger;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const ACK: u8 = 0x1;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

const STREAMS_MAX: u32 = 100;
const STREAM_WINDOW: usize = 64 * 1024;
const CONNECTION_WINDOW: usize = 1024 * 1024;

/// What every connection has without being told.
const INITIAL_WINDOW: usize = 65_535;

/// Relay's response to an envelope, with the header lines of Relay and its proxies, as over HTTP/1.1.
const FIELDS: [(&str, &str); 8] = [
    ("server", "nginx"),
    ("date", "Mon, 23 Nov 2026 15:32:05 GMT"),
    ("content-type", "application/json"),
    ("content-length", "41"),
    (
        "vary",
        "origin, access-control-request-method, access-control-request-headers",
    ),
    ("access-control-allow-origin", "*"),
    (
        "access-control-expose-headers",
        "x-sentry-error,x-sentry-rate-limits,retry-after",
    ),
    ("via", "1.1 google"),
];
const BODY: &[u8] = b"{\"id\":\"9ec79c33ec9942ab8353589fcb2e04dc\"}";

pub struct Http2 {
    decoder: Decoder<'static>,
    /// What was received of an incomplete frame.
    pending: Vec<u8>,
    has_preface: bool,
    streams: HashMap<u32, Stream>,
    /// A header block whose rest follows.
    block: Option<(Vec<u8>, u8)>,
    /// Streams to be answered, in the order in which they ended.
    ended: VecDeque<u32>,
    /// What of the window of the connection has been used.
    used: usize,
    /// Buffers of streams that have ended.
    spare: Vec<Stream>,
    answer_block: Vec<u8>,
}

#[derive(Default)]
struct Stream {
    /// As it would be over HTTP/1.1, for the ledger.
    head: Vec<u8>,
    body: Vec<u8>,
    used: usize,
}

impl Http2 {
    /// A connection, whose first frames are appended to `out`.
    pub fn new(out: &mut Vec<u8>) -> Http2 {
        let settings = [(3_u16, STREAMS_MAX), (4, STREAM_WINDOW as u32)];
        let settings = settings.map(|(name, value)| {
            let [a, b] = name.to_be_bytes();
            let [c, d, e, f] = value.to_be_bytes();
            [a, b, c, d, e, f]
        });
        append_frame(out, SETTINGS, 0, 0, settings.as_flattened());
        append_window_update(out, 0, CONNECTION_WINDOW - INITIAL_WINDOW);
        let mut answer_block = vec![0x88];
        for (name, value) in FIELDS {
            answer_block.push(0);
            append_text(&mut answer_block, name);
            append_text(&mut answer_block, value);
        }
        Http2 {
            decoder: Decoder::new(),
            pending: Vec::new(),
            has_preface: false,
            streams: HashMap::new(),
            block: None,
            ended: VecDeque::new(),
            used: 0,
            spare: Vec::new(),
            answer_block,
        }
    }

    /// Records the requests that `new` completes, and gives how many to answer. What has to be sent is appended to `out`.
    pub fn take(
        &mut self,
        new: &[u8],
        ledger: &mut Ledger,
        out: &mut Vec<u8>,
    ) -> io::Result<usize> {
        let before = self.ended.len();
        let mut pending = std::mem::take(&mut self.pending);
        let is_whole = pending.is_empty();
        if !is_whole {
            pending.extend_from_slice(new);
        }
        let mut input: &[u8] = if is_whole { new } else { &pending };
        if !self.has_preface && input.len() >= PREFACE.len() {
            let rest = input.strip_prefix(PREFACE);
            input = rest.ok_or_else(|| io::Error::other("a client without HTTP/2"))?;
            self.has_preface = true;
        }
        while self.has_preface
            && let Some((head, rest)) = input.split_at_checked(HEADER_BYTES)
        {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let Some((payload, rest)) = rest.split_at_checked(length) else {
                break;
            };
            let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            self.take_frame(head[3], head[4], id, payload, ledger, out)?;
            input = rest;
        }
        let left = input.len();
        self.pending = match is_whole {
            true => input.to_vec(),
            false => pending.split_off(pending.len() - left),
        };
        if self.used >= CONNECTION_WINDOW / 2 {
            append_window_update(out, 0, std::mem::take(&mut self.used));
        }
        Ok(self.ended.len() - before)
    }

    fn take_frame(
        &mut self,
        kind: u8,
        flags: u8,
        id: u32,
        payload: &[u8],
        ledger: &mut Ledger,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        match kind {
            DATA => {
                self.used += payload.len();
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream
                        .body
                        .extend_from_slice(content(payload, flags, false)?);
                    stream.used += payload.len();
                    if stream.used >= STREAM_WINDOW / 2 && flags & END_STREAM == 0 {
                        append_window_update(out, id, std::mem::take(&mut stream.used));
                    }
                }
                self.end_if(flags, id, ledger);
            }
            HEADERS => {
                let block = content(payload, flags, true)?;
                self.take_block(block, flags, flags, id)?;
                self.end_if(flags, id, ledger);
            }
            CONTINUATION => {
                let (mut block, first) = self.block.take().unwrap_or_default();
                block.extend_from_slice(payload);
                self.take_block(&block, first, flags, id)?;
                self.end_if(first, id, ledger);
            }
            SETTINGS if flags & ACK == 0 => append_frame(out, SETTINGS, ACK, 0, b""),
            PING if flags & ACK == 0 => append_frame(out, PING, ACK, 0, payload),
            // Clients reset streams and leave only when they stop, and never wait for a window.
            _ => {}
        }
        Ok(())
    }

    /// A header block with the `first` flags of its stream, complete or not by its `last` ones.
    fn take_block(&mut self, block: &[u8], first: u8, last: u8, id: u32) -> io::Result<()> {
        if last & END_HEADERS == 0 {
            self.block = Some((block.to_vec(), first));
            return Ok(());
        }
        let mut stream = self.spare.pop().unwrap_or_default();
        let (mut method, mut path) = (Vec::new(), Vec::new());
        let head = &mut stream.head;
        let decoded = self.decoder.decode_with_cb(block, |name, value| {
            let name: &[u8] = match &*name {
                b":method" => return method.extend_from_slice(&value),
                b":path" => return path.extend_from_slice(&value),
                b":scheme" => return,
                b":authority" => b"host",
                name => name,
            };
            for part in [name, b": ", &value, b"\r\n"] {
                head.extend_from_slice(part);
            }
        });
        decoded.map_err(|error| io::Error::other(format!("HPACK: {error:?}")))?;
        let line = [&method[..], b" ", &path, b" HTTP/2\r\n"].concat();
        head.splice(..0, line);
        head.extend_from_slice(b"\r\n");
        self.streams.insert(id, stream);
        Ok(())
    }

    /// Enters the request of a stream if these flags end it.
    fn end_if(&mut self, flags: u8, id: u32, ledger: &mut Ledger) {
        if flags & END_STREAM == 0 || self.block.is_some() {
            return;
        }
        if let Some(mut stream) = self.streams.remove(&id) {
            ledger.enter(&stream.head, &stream.body, stream.body.len());
            self.ended.push_back(id);
            stream.head.clear();
            stream.body.clear();
            stream.used = 0;
            self.spare.push(stream);
        }
    }

    /// Appends the answers to so many requests.
    pub fn answer(&mut self, requests: usize, out: &mut Vec<u8>) {
        for id in self.ended.drain(..requests) {
            append_frame(out, HEADERS, END_HEADERS, id, &self.answer_block);
            append_frame(out, DATA, END_STREAM, id, BODY);
        }
    }
}

/// The payload of HEADERS or DATA without its padding and priority.
fn content(payload: &[u8], flags: u8, is_headers: bool) -> io::Result<&[u8]> {
    let (padding, rest) = match payload.split_first() {
        Some((padding, rest)) if flags & PADDED != 0 => (usize::from(*padding), rest),
        _ => (0, payload),
    };
    let begin = if is_headers && flags & PRIORITY != 0 {
        5
    } else {
        0
    };
    let end = rest.len().saturating_sub(padding);
    let content = rest.get(begin..end);
    content.ok_or_else(|| io::Error::other("a frame that is too short"))
}

fn append_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    out.extend_from_slice(&[a, b, c, kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

fn append_window_update(out: &mut Vec<u8>, stream: u32, bytes: usize) {
    append_frame(out, WINDOW_UPDATE, 0, stream, &(bytes as u32).to_be_bytes());
}

/// Appends a text of less than 127 bytes.
fn append_text(out: &mut Vec<u8>, text: &str) {
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}
