//! The upstreams: they read requests, record them in their ledgers and answer like Relay.
//!
//! They share one core with the load, so they have to be cheaper than any contender. Requests are parsed in
//! place, bodies are not kept, and large bodies that need no check are not even copied out of the kernel.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustls::{ServerConfig, ServerConnection};

use crate::ledger::{LOOKED_AT_BYTES, Ledger};
use crate::sink_http2::Http2;

/// Relay's response to an envelope, with the header lines of Relay and its proxies.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\n\
    server: nginx\r\n\
    date: Mon, 23 Nov 2026 15:32:05 GMT\r\n\
    content-type: application/json\r\n\
    content-length: 41\r\n\
    vary: origin, access-control-request-method, access-control-request-headers\r\n\
    access-control-allow-origin: *\r\n\
    access-control-expose-headers: x-sentry-error,x-sentry-rate-limits,retry-after\r\n\
    cross-origin-resource-policy: cross-origin\r\n\
    via: 1.1 google\r\n\
    \r\n\
    {\"id\":\"9ec79c33ec9942ab8353589fcb2e04dc\"}";

/// A connection to a sink.
pub struct SinkConnection {
    stream: TcpStream,
    tls: Option<Box<ServerConnection>>,
    /// If the client chose it, with ALPN.
    http2: Option<Box<Http2>>,
    /// What is to be encrypted.
    out: Vec<u8>,
    /// Whose it is.
    pub sink: usize,
    /// The received part of an incomplete request.
    pending: Vec<u8>,
    /// How many bytes of a body are left to discard; its request is recorded already.
    skip: usize,
}

/// What is known of a request from its head.
struct Arrived {
    head_len: usize,
    /// `None`: chunked, and not complete.
    body_len: Option<usize>,
}

impl SinkConnection {
    pub fn new(
        stream: TcpStream,
        sink: usize,
        tls: Option<&Arc<ServerConfig>>,
    ) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let tls = tls.map(|config| ServerConnection::new(Arc::clone(config)).map(Box::new));
        Ok(SinkConnection {
            stream,
            tls: tls.transpose().map_err(io::Error::other)?,
            http2: None,
            out: Vec::new(),
            sink,
            pending: Vec::new(),
            skip: 0,
        })
    }

    /// Reads once and gives how many requests are to be [answered](Self::answer); `None` if the connection
    /// has ended.
    pub fn turn(&mut self, ledger: &mut Ledger, scratch: &mut [u8]) -> Option<usize> {
        if self.tls.is_some() {
            return self.turn_tls(ledger, scratch).unwrap_or(None);
        }
        if self.skip > 0 {
            return self.skip_body(scratch);
        }
        match recv(&self.stream, &mut *scratch, RecvFlags::empty()) {
            Ok((_, 0)) => None,
            Ok((_, count)) => Some(self.take(&scratch[..count], ledger)),
            Err(error) => (error == rustix::io::Errno::AGAIN).then_some(0),
        }
    }

    fn turn_tls(&mut self, ledger: &mut Ledger, scratch: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(mut tls) = self.tls.take() else {
            return Ok(None);
        };
        let count = match tls.read_tls(&mut &self.stream) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.tls = Some(tls);
                return Ok(Some(0));
            }
            Err(error) => return Err(error),
        };
        let state = tls.process_new_packets().map_err(io::Error::other)?;
        if self.http2.is_none() && tls.alpn_protocol() == Some(b"h2") {
            self.http2 = Some(Box::new(Http2::new(&mut self.out)));
        }
        let mut left = state.plaintext_bytes_to_read();
        let mut requests = 0;
        while left > 0 {
            let count = tls.reader().read(scratch)?;
            left -= count;
            requests += match &mut self.http2 {
                Some(http2) => http2.take(&scratch[..count], ledger, &mut self.out)?,
                None => self.take(&scratch[..count], ledger),
            };
        }
        encrypt(&mut tls, &mut self.out, &self.stream)?;
        self.tls = Some(tls);
        Ok((count > 0).then_some(requests))
    }

    /// Lets the kernel discard the rest of a body.
    fn skip_body(&mut self, scratch: &mut [u8]) -> Option<usize> {
        // The buffer gives the length; with this flag nothing is written to it.
        let most = self.skip.min(scratch.len());
        match recv(&self.stream, &mut scratch[..most], RecvFlags::TRUNC) {
            Ok((_, 0)) => None,
            Ok((_, count)) => {
                self.skip -= count;
                Some(usize::from(self.skip == 0))
            }
            Err(error) => (error == rustix::io::Errno::AGAIN).then_some(0),
        }
    }

    /// Records the requests that `new` completes, and gives how many to answer.
    fn take(&mut self, new: &[u8], ledger: &mut Ledger) -> usize {
        let mut pending = std::mem::take(&mut self.pending);
        let is_whole = pending.is_empty();
        if !is_whole {
            pending.extend_from_slice(new);
        }
        let mut input: &[u8] = if is_whole { new } else { &pending };
        let mut answers = 0;
        if self.skip > 0 {
            let skipped = self.skip.min(input.len());
            self.skip -= skipped;
            input = &input[skipped..];
            answers += usize::from(self.skip == 0);
        }
        while let Some(arrived) = Arrived::find(input) {
            let (head, rest) = input.split_at(arrived.head_len);
            let Some(body_len) = arrived.body_len else {
                break;
            };
            if rest.len() >= body_len {
                ledger.enter(head, &rest[..body_len], body_len);
                input = &rest[body_len..];
                answers += 1;
            } else if rest.len() >= LOOKED_AT_BYTES && !ledger.is_thorough {
                ledger.enter(head, rest, body_len);
                self.skip = body_len - rest.len();
                input = &[];
            } else {
                break;
            }
        }
        self.pending = match (is_whole, input.len()) {
            (_, 0) => {
                pending.clear();
                pending
            }
            (true, _) => input.to_vec(),
            (false, left) => pending.split_off(pending.len() - left),
        };
        answers
    }

    /// Answers so many requests; `false` if the connection is of no use any more.
    pub fn answer(&mut self, requests: usize) -> bool {
        // What answers take always fits into a socket whose peer waits for them.
        let Some(tls) = &mut self.tls else {
            return (0..requests).all(|_| {
                send(&self.stream, ANSWER, SendFlags::NOSIGNAL)
                    .is_ok_and(|count| count == ANSWER.len())
            });
        };
        if let Some(http2) = &mut self.http2 {
            http2.answer(requests, &mut self.out);
            return encrypt(tls, &mut self.out, &self.stream).is_ok();
        }
        (0..requests).all(|_| {
            self.out.extend_from_slice(ANSWER);
            encrypt(tls, &mut self.out, &self.stream).is_ok()
        })
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

/// Sends `out`, and what the session has to send by itself.
fn encrypt(
    tls: &mut ServerConnection,
    out: &mut Vec<u8>,
    mut stream: &TcpStream,
) -> io::Result<()> {
    tls.writer().write_all(out)?;
    out.clear();
    while tls.wants_write() {
        tls.write_tls(&mut stream)?;
    }
    Ok(())
}

impl Arrived {
    fn find(input: &[u8]) -> Option<Arrived> {
        let head_len = memchr::memmem::find(input, b"\r\n\r\n")? + 4;
        let length = content_length(&input[..head_len]);
        Some(Arrived {
            head_len,
            body_len: length.or_else(|| chunked_len(&input[head_len..])),
        })
    }
}

/// The value of `Content-Length` in a head of any spelling.
pub fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length:";
    // It is among the last lines of every contender's requests.
    let mut end = head.len().checked_sub(2)?;
    while let Some(line_start) = memchr::memrchr(b'\n', &head[..end.saturating_sub(1)]) {
        let line = &head[line_start + 1..end];
        if line.len() > NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME) {
            let value = line[NAME.len()..].trim_ascii();
            return std::str::from_utf8(value).ok()?.parse().ok();
        }
        end = line_start + 1;
    }
    None
}

/// The length of a complete chunked body. Only the floor sends such bodies, one at a time.
fn chunked_len(body: &[u8]) -> Option<usize> {
    body.ends_with(b"\r\n0\r\n\r\n").then_some(body.len())
}
