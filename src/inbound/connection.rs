//! The I/O of one SDK connection: request heads, bodies, replies, and the lingering close.
//!
//! Every wait has a timeout. An abandoned read may have consumed bytes, so after a timeout the connection is
//! only written to and closed. Received bytes are counted when they are read, whatever their request's result.

mod lingering_close;

use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use monoio::net::TcpStream;
use tracing::debug;

use crate::http::chunked::{Chunked, Progress};
use crate::http::framing::Framing;
use crate::http::head::{HeadError, Parsed, RequestHead};
use crate::http::reparse::ReparseGate;
use crate::inbound::idle::{IdleEntry, WaitEnd};
use crate::inbound::idle_list::Awaited;
use crate::inbound::spares::Spares;
use crate::limits::Limits;
use crate::mirror::reply::rejection::Rejection;
use crate::mirror::reporting::worker_metrics::{Closing, WorkerMetrics};
use crate::net::server_stream::ServerStream;
use crate::net::socket::READ_BYTES;
use crate::runtime::coop_budget::CoopBudget;
use crate::runtime::deadline::in_time;
use crate::runtime::memory_budget::MemoryReservation;
use crate::runtime::min_data_rate::MinDataRate;

/// The interim response to `Expect: 100-continue` (RFC 9110 section 10.1.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The largest body of a rejected request that is read and discarded to keep the connection. A load balancer
/// sends the requests of many clients over one connection and should not lose it because of one of them.
const DISCARD_BYTES_MAX: usize = 256 * 1024;

/// How long a worker that shuts down waits for the first request of an accepted connection. A client that has
/// just connected is about to send a request; later, silence is normal.
pub(super) const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// After a longer message the read buffer is replaced, so that its memory is freed.
const KEPT_BYTES_MAX: usize = READ_BYTES;

/// A connection that can be served, unless `S` is a socket over which more than requests may come.
pub(crate) struct Accepted<S = ServerStream> {
    pub(crate) stream: S,
    /// The client, or a proxy that does not say for whom it connects.
    pub(crate) peer: SocketAddr,
    /// What has been received already.
    pub(crate) received: BytesMut,
}

impl Accepted<TcpStream> {
    pub(crate) fn new(stream: TcpStream, peer: SocketAddr) -> Accepted<TcpStream> {
        Accepted {
            stream,
            peer,
            received: BytesMut::new(),
        }
    }

    /// A connection of plain HTTP.
    pub(crate) fn plain(self) -> Accepted {
        Accepted {
            stream: ServerStream::Plain(self.stream),
            peer: self.peer,
            received: self.received,
        }
    }
}

/// The address in its usual form. On a dual-stack socket the kernel maps IPv4 addresses into IPv6, as
/// `::ffff:192.0.2.1` (RFC 4291 section 2.5.5.2).
pub(super) fn canonical(peer: SocketAddr) -> SocketAddr {
    match peer.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::from((ip, peer.port())),
        IpAddr::V6(_) => peer,
    }
}

pub(crate) struct Connection {
    pub peer: SocketAddr,
    stream: ServerStream,
    counters: Arc<WorkerMetrics>,
    spares: Rc<Spares>,
    /// Received bytes that are not used yet.
    buffer: BytesMut,
    /// The empty lines, in bytes, that were skipped since the last request.
    skipped_bytes: u32,
    is_new: bool,
    pub(super) body_state: BodyState,
    coop: CoopBudget,
}

/// How much of a request's body has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyState {
    Unread(Framing),
    /// A part. Where the next request begins is unknown.
    Broken,
    Read,
}

/// Whether to read and discard the body of a rejected request to keep the connection. The length of a chunked
/// body is unknown in advance; reading it fails if it is too long.
pub(crate) fn is_discardable(framing: Framing) -> bool {
    match framing {
        Framing::Length(length) => length <= DISCARD_BYTES_MAX,
        Framing::Empty | Framing::Chunked => true,
        Framing::UntilClose => false,
    }
}

/// Why the mirror stops handling a request.
#[derive(Debug)]
pub(crate) enum Abort {
    /// The client has disconnected, or the connection is broken. No reply is possible.
    Gone,
    /// The request is rejected with a reply.
    Rejected(Rejection),
}

impl From<Rejection> for Abort {
    fn from(rejection: Rejection) -> Abort {
        Abort::Rejected(rejection)
    }
}

impl Connection {
    pub(crate) fn new(
        accepted: Accepted,
        counters: &Arc<WorkerMetrics>,
        spares: &Rc<Spares>,
    ) -> Connection {
        // Replies are written as a whole, so Nagle's algorithm would only delay them. An error means that the
        // connection is broken, which the first read reports.
        let _ = accepted.stream.socket().set_nodelay(true);
        Connection {
            peer: accepted.peer,
            stream: accepted.stream,
            counters: Arc::clone(counters),
            spares: Rc::clone(spares),
            buffer: accepted.received,
            skipped_bytes: 0,
            is_new: true,
            body_state: BodyState::Broken,
            coop: CoopBudget::default(),
        }
    }

    /// Waits for the first byte of a request, as an idle connection, which holds no read buffer. Returns `false`
    /// if the connection is to be closed instead.
    pub(crate) async fn await_request(&mut self, idle: &IdleEntry) -> bool {
        if self.skip_empty_lines() {
            return true;
        }
        if !self.buffer.is_empty() {
            // Half an empty line. It does not keep a whole read buffer.
            let rest = BytesMut::from(&self.buffer[..]);
            self.buffer.clear();
            self.release_buffer();
            self.buffer = rest;
        }
        self.release_buffer();
        self.stream.shrink();
        let awaited = match self.is_new {
            true => Awaited::FirstRequest,
            false => Awaited::NextRequest,
        };
        idle.enter(awaited, Instant::now());
        let waited = self.await_readable(idle).await;
        let has_request = match waited {
            Waited::Readable => true,
            Waited::Broken => false,
            // On a ring, `readable` needs an iteration of the event loop even if data is there already. After a
            // pause of the process, epoll hears the timers before the sockets.
            Waited::Ended(_) if self.stream.has_input() => true,
            Waited::Ended(WaitEnd::ShutDown) if self.is_new => {
                let first_request = Box::pin(async {
                    let readable = pin!(self.stream.socket().readable(false));
                    in_time(Instant::now() + FIRST_REQUEST_TIMEOUT, readable).await
                });
                matches!(first_request.await, Some(Ok(())))
            }
            Waited::Ended(WaitEnd::ShutDown) => false,
            Waited::Ended(WaitEnd::Expired) => {
                self.counters.closings.inc(Closing::Idle);
                false
            }
            Waited::Ended(WaitEnd::Evicted) => {
                self.counters.closings.inc(Closing::Evicted);
                false
            }
        };
        // A connection that ends leaves when it is closed.
        if has_request {
            idle.leave();
        }
        has_request
    }

    /// Waits until there is something to read, or the waiting is to end. Nothing else interrupts it: an
    /// operation that is given up and begun again is work for the kernel.
    async fn await_readable(&self, idle: &IdleEntry) -> Waited {
        if self.stream.has_plaintext() {
            return Waited::Readable;
        }
        let mut readable = pin!(self.stream.socket().readable(false));
        poll_fn(|context| match readable.as_mut().poll(context) {
            Poll::Ready(Ok(())) => Poll::Ready(Waited::Readable),
            Poll::Ready(Err(_)) => Poll::Ready(Waited::Broken),
            Poll::Pending => idle.poll_end(context).map(Waited::Ended),
        })
        .await
    }

    pub(crate) fn is_tls(&self) -> bool {
        matches!(self.stream, ServerStream::Tls(_))
    }

    /// Answers the end of a TLS session that the client has ended.
    pub(crate) fn answer_end(&mut self) {
        self.stream.answer_end();
    }

    /// Tells the client of a TLS session that it ends, before an idle connection is closed.
    pub(crate) fn announce_end(&mut self) {
        self.stream.announce_end();
    }

    /// Gives the read buffer back, unless something in it is still to be used.
    fn release_buffer(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        match buffer.is_empty() {
            true => self.spares.return_buffer(buffer),
            false => self.buffer = buffer,
        }
    }

    /// Reads and parses a request head into `head`. Its bytes stay at the front of the buffer. A head larger
    /// than one read is reserved in `memory`. Returns `false` if only empty lines have arrived, so that the
    /// connection is still idle.
    pub(crate) async fn read_head(
        &mut self,
        head: &mut RequestHead,
        memory: &mut MemoryReservation,
        limits: &Limits,
    ) -> Result<bool, Abort> {
        let deadline = Instant::now() + limits.timeouts.head;
        let mut reparse = ReparseGate::default();
        loop {
            if reparse.should_parse(&self.buffer, limits.head.bytes) {
                match head.parse(&self.buffer, limits.head) {
                    Ok(Parsed::Complete) => return Ok(true),
                    Ok(Parsed::Partial) => {}
                    Err(error) => return Err(Rejection::Head(error).into()),
                }
            }
            match self.fill(deadline, READ_BYTES).await {
                ReadOutcome::Data => {}
                ReadOutcome::End => return Err(Abort::Gone),
                ReadOutcome::Violation => return Err(self.count_violation()),
                ReadOutcome::TimedOut => return Err(Rejection::HeadTimeout.into()),
            }
            let has_begun = self.skip_empty_lines();
            if self.skipped_bytes as usize > limits.head.bytes {
                return Err(Rejection::Head(HeadError::TooLarge).into());
            }
            if !has_begun {
                return Ok(false);
            }
            let held_bytes = self.buffer.capacity();
            if held_bytes > READ_BYTES && !memory.resize(held_bytes) {
                return Err(Rejection::Overloaded.into());
            }
        }
    }

    /// Skips empty lines before a request; some old clients send one after a body (RFC 9112 section 2.2).
    /// Returns `false` if the buffer has nothing else, or only the first half of another empty line.
    fn skip_empty_lines(&mut self) -> bool {
        loop {
            let length = match &self.buffer[..] {
                [b'\n', ..] => 1,
                [b'\r', b'\n', ..] => 2,
                [] | [b'\r'] => return false,
                _ => return true,
            };
            self.buffer.advance(length);
            self.skipped_bytes = self.skipped_bytes.saturating_add(length as u32);
        }
    }

    /// Takes the first `length` bytes, a head or a body, out of the buffer.
    pub(crate) fn take(&mut self, length: usize) -> Bytes {
        self.is_new = false;
        self.skipped_bytes = 0;
        let message = self.buffer.split_to(length).freeze();
        // The rest of the buffer keeps the whole memory alive. After a large message, this memory would not be
        // counted any more.
        if length > KEPT_BYTES_MAX {
            self.buffer = BytesMut::from(&self.buffer[..]);
        }
        message
    }

    /// Whether the first byte of the body has arrived.
    pub(crate) fn has_body_bytes(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Sends 100 (Continue), so that the client sends the body.
    pub(crate) async fn write_continue(&mut self, limits: &Limits) -> Result<(), Abort> {
        self.write(limits, |outgoing| {
            outgoing.extend_from_slice(CONTINUE);
            Bytes::new()
        })
        .await
    }

    /// Reads a body of up to `bytes_max`, which begins at the front of the buffer. `memory` grows by it.
    pub(crate) async fn read_body(
        &mut self,
        framing: Framing,
        bytes_max: usize,
        memory: &mut MemoryReservation,
        limits: &Limits,
    ) -> Result<Bytes, Abort> {
        let body = match framing {
            Framing::Empty | Framing::UntilClose => Bytes::new(),
            Framing::Length(length) => {
                if length > bytes_max {
                    return Err(Rejection::BodyTooLarge.into());
                }
                self.read_length(length, memory, limits).await?
            }
            Framing::Chunked => self.read_chunked(bytes_max, memory, limits).await?,
        };
        // While the request waits for its upstreams, the rest of the buffer serves others.
        self.release_buffer();
        Ok(body)
    }

    async fn read_length(
        &mut self,
        length: usize,
        memory: &mut MemoryReservation,
        limits: &Limits,
    ) -> Result<Bytes, Abort> {
        let head_bytes = held_with_head(memory);
        let whole = head_bytes.saturating_add(length);
        // An announced body reserves no memory before it arrives. But if it does not fit now, reading it is
        // useless.
        if !memory.can_resize(whole) {
            return Err(Rejection::Overloaded.into());
        }
        // Most bodies have arrived with their head.
        if self.buffer.len() < length {
            let mut rate = MinDataRate::new(limits.timeouts.body, Instant::now());
            while self.buffer.len() < length {
                let missing_bytes = length - self.buffer.len();
                self.reserve(missing_bytes, head_bytes, memory)?;
                // The next request is not read together with the body, because its memory would not be counted.
                self.fill_body(missing_bytes, &mut rate, limits).await?;
            }
        }
        if !memory.resize(whole) {
            return Err(Rejection::Overloaded.into());
        }
        Ok(self.take(length))
    }

    async fn read_chunked(
        &mut self,
        bytes_max: usize,
        memory: &mut MemoryReservation,
        limits: &Limits,
    ) -> Result<Bytes, Abort> {
        let head_bytes = held_with_head(memory);
        let mut chunked = Chunked::new(bytes_max);
        let mut rate = MinDataRate::new(limits.timeouts.body, Instant::now());
        loop {
            match chunked.decode(&mut self.buffer).map_err(Rejection::Chunk)? {
                Progress::More => {}
                Progress::Done { body, consumed } => {
                    let whole = self.take(consumed);
                    return Ok(whole.slice(body.start..body.end));
                }
            }
            let bytes_max = chunked.missing_bytes().max(READ_BYTES);
            self.reserve(usize::MAX, head_bytes, memory)?;
            self.fill_body(bytes_max, &mut rate, limits).await?;
        }
    }

    /// Grows the buffer for the next read of a body with at most `missing_bytes` to come, and `memory` with it.
    ///
    /// The buffer doubles each time the received bytes have filled it, so a client cannot take memory by
    /// announcing a large body. Nothing is reserved here for bytes that fit into the read buffer after the head: a
    /// connection has that buffer anyway.
    fn reserve(
        &mut self,
        missing_bytes: usize,
        head_bytes: usize,
        memory: &mut MemoryReservation,
    ) -> Result<(), Rejection> {
        let received_bytes = self.buffer.len();
        // With less free space, the read would grow the buffer itself.
        if self.buffer.capacity() - received_bytes >= missing_bytes.min(self.stream.read_bytes()) {
            return Ok(());
        }
        let free_bytes = received_bytes.max(READ_BYTES).min(missing_bytes);
        let held_bytes = head_bytes + received_bytes + free_bytes;
        if !memory.resize(memory.bytes().max(held_bytes)) {
            return Err(Rejection::Overloaded);
        }
        self.buffer.reserve(free_bytes);
        Ok(())
    }

    /// Reads at most `bytes_max` of a body once, and checks its minimum data rate.
    async fn fill_body(
        &mut self,
        bytes_max: usize,
        rate: &mut MinDataRate,
        limits: &Limits,
    ) -> Result<(), Abort> {
        let now = Instant::now();
        if !rate.check(self.buffer.len(), now) {
            return Err(Rejection::BodyTimeout.into());
        }
        match self.fill(now + limits.timeouts.body, bytes_max).await {
            ReadOutcome::Data => Ok(()),
            ReadOutcome::End => Err(Abort::Gone),
            ReadOutcome::Violation => Err(self.count_violation()),
            ReadOutcome::TimedOut => Err(Rejection::BodyTimeout.into()),
        }
    }

    fn count_violation(&self) -> Abort {
        self.counters.closings.inc(Closing::Tls);
        debug!(worker = self.counters.worker, peer = %self.peer, "connection closed: the client violated TLS");
        Abort::Gone
    }

    /// Reads the body of a rejected request and discards it. Returns `false` if that fails, for example
    /// because the body is too large. The connection must be closed then.
    pub(crate) async fn discard_body(
        &mut self,
        framing: Framing,
        memory: &mut MemoryReservation,
        limits: &Limits,
    ) -> bool {
        let body = pin!(self.read_body(framing, DISCARD_BYTES_MAX, memory, limits));
        let deadline = Instant::now() + limits.timeouts.body;
        matches!(in_time(deadline, body).await, Some(Ok(_)))
    }

    /// Writes the bytes that `fill` appends to an empty buffer, followed by those that it returns.
    pub(crate) async fn write(
        &mut self,
        limits: &Limits,
        fill: impl FnOnce(&mut Vec<u8>) -> Bytes,
    ) -> Result<(), Abort> {
        let mut outgoing = self.spares.reply();
        let rest = fill(&mut outgoing);
        let stream = &mut self.stream;
        let writing = pin!(async {
            let (written, outgoing) = stream.write(outgoing).await;
            if written.is_err() || rest.is_empty() {
                return (written, outgoing);
            }
            (stream.write(rest).await.0, outgoing)
        });
        let writing = in_time(Instant::now() + limits.timeouts.write, writing);
        let written = self.coop.run(pin!(writing)).await;
        let outgoing = match written {
            Some((Ok(()), outgoing)) => outgoing,
            Some((Err(_), _)) => return Err(Abort::Gone),
            None => {
                self.counters.closings.inc(Closing::Write);
                return Err(Abort::Gone);
            }
        };
        self.spares.return_reply(outgoing);
        Ok(())
    }

    /// Reads once, at most `bytes_max`.
    async fn fill(&mut self, deadline: Instant, bytes_max: usize) -> ReadOutcome {
        let buffer = match self.buffer.capacity() {
            0 => self.spares.buffer(),
            _ => std::mem::take(&mut self.buffer),
        };
        let reading = pin!(self.stream.read(buffer, bytes_max));
        let reading = in_time(deadline, reading);
        match self.coop.run(pin!(reading)).await {
            None => ReadOutcome::TimedOut,
            Some((result, buffer)) => {
                self.buffer = buffer;
                let is_violation = ServerStream::is_violation(&result);
                // Any other error, such as a reset, means that the client has disconnected.
                let count = result.unwrap_or(0);
                self.counters.received_bytes.add_bytes(count);
                if count > READ_BYTES {
                    self.coop.spend(count).await;
                }
                match count {
                    0 if is_violation => ReadOutcome::Violation,
                    0 => ReadOutcome::End,
                    _ => ReadOutcome::Data,
                }
            }
        }
    }
}

/// How much memory a request holds before its body is read: the reservation in `memory`, but at least one read
/// buffer. The head was received in that buffer, so the request keeps it.
pub(crate) fn held_with_head(memory: &MemoryReservation) -> usize {
    memory.bytes().max(READ_BYTES)
}

/// How waiting for a request ended.
enum Waited {
    /// Data or the end of the stream has arrived.
    Readable,
    Broken,
    Ended(WaitEnd),
}

/// How a read ended.
enum ReadOutcome {
    /// At least one byte has arrived.
    Data,
    /// The end of the stream, or an error.
    End,
    /// What the client sent is not TLS.
    Violation,
    /// The read was abandoned, and the buffer is lost with it.
    TimedOut,
}
