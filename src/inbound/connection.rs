//! One SDK connection as reads and writes: heads, bodies, replies, a polite end.
//!
//! Every wait has a bound. A read that was given up on may have swallowed bytes, so after a timeout
//! the connection is only ever written to and closed. What is read is counted as it is read, whatever
//! becomes of it.

mod lingering_close;

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use monoio::net::TcpStream;
use monoio::time::timeout;

use crate::http::chunked::{Chunked, Progress};
use crate::http::framing::Framing;
use crate::http::head::{HeadError, Parsed, RequestHead};
use crate::http::reparse::ReparseGate;
use crate::inbound::min_data_rate::MinDataRate;
use crate::limits::Limits;
use crate::mirror::rejection::Rejection;
use crate::mirror::worker_metrics::{Closing, WorkerMetrics};
use crate::net::socket::{READ_BYTES, read_some, write_all};
use crate::runtime::coop_budget::CoopBudget;
use crate::runtime::deadline::in_time;
use crate::runtime::memory_budget::MemoryReservation;
use crate::runtime::shutdown::ShutdownSignal;
use crate::sys;

/// The interim answer to `Expect: 100-continue` (RFC 9110 section 10.1.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// How much of the body of a refused request is read and thrown away to keep the connection. A
/// load balancer carries many clients over one connection; it should not lose it to one of them.
const DISCARD_BYTES_MAX: usize = 256 * 1024;

/// How long a stopping worker waits for the first request of a connection it has accepted. Whoever
/// connects has something to say; after later requests silence is normal.
const NEWCOMER_PATIENCE: Duration = Duration::from_secs(1);

/// How long a connection may be silent before it gives its read buffer away.
const BUSY_SILENCE: Duration = Duration::from_millis(50);

/// How much of a taken message's memory may stay with what follows it: that of one read.
const KEPT_BYTES_MAX: usize = READ_BYTES;

/// How much memory for replies a connection keeps. Usual ones have 300 bytes.
const KEPT_OUTGOING_BYTES_MAX: usize = 1024;

/// A connection of an SDK.
pub(crate) struct Connection {
    /// Where it comes from.
    pub peer: SocketAddr,
    stream: TcpStream,
    /// Where what is read is counted.
    counters: Arc<WorkerMetrics>,
    /// What was read and not used yet.
    buffer: BytesMut,
    /// Replies on their way out; kept for its memory.
    outgoing: Vec<u8>,
    /// How much came since the last request that begins none.
    skipped_bytes: u32,
    is_new: bool,
    pub(super) body_state: BodyState,
    coop: CoopBudget,
}

/// How much of a request's body was read when its reply was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyState {
    Unread(Framing),
    /// Some of it; the place where the next request begins is lost.
    Broken,
    Read,
}

/// Whether the body of a refused request is worth reading to keep the connection. A chunked one does
/// not say how long it is; it is given up where it turns out too long.
pub(crate) fn is_discardable(framing: Framing) -> bool {
    match framing {
        Framing::Length(length) => length <= DISCARD_BYTES_MAX,
        Framing::Empty | Framing::Chunked => true,
        Framing::UntilClose => false,
    }
}

/// Why a connection yields no request, or no body.
#[derive(Debug)]
pub(crate) enum Abort {
    /// The client is gone, or the connection is broken: there is nobody to answer.
    Gone,
    /// The client is to be told.
    Rejected(Rejection),
}

impl From<Rejection> for Abort {
    fn from(rejection: Rejection) -> Abort {
        Abort::Rejected(rejection)
    }
}

impl Connection {
    /// Takes over an accepted connection.
    pub(crate) fn new(
        stream: TcpStream,
        peer: SocketAddr,
        counters: &Arc<WorkerMetrics>,
    ) -> Connection {
        // Replies are written whole; waiting to merge them with later ones would only delay them.
        // Where the option cannot be set the connection is broken, which the first read will tell.
        let _ = stream.set_nodelay(true);
        Connection {
            peer,
            stream,
            counters: Arc::clone(counters),
            buffer: BytesMut::new(),
            outgoing: Vec::new(),
            skipped_bytes: 0,
            is_new: true,
            body_state: BodyState::Broken,
            coop: CoopBudget::default(),
        }
    }

    /// Waits for the first byte of a request, and calls `idle` if it does not come at once. `false` if none
    /// will come: after silence for too long, or if the worker stops and nothing has arrived.
    pub(crate) async fn await_request(
        &mut self,
        patience: Duration,
        shutdown: &ShutdownSignal,
        idle: impl FnOnce(),
    ) -> bool {
        if self.skip_empty_lines() {
            return true;
        }
        let short = patience.min(BUSY_SILENCE);
        let mut input = self.await_readable(short, false, shutdown).await;
        if input == Readiness::Late {
            // An idle connection holds no read buffer. Most of the memory of a process with ten
            // thousand of them would be these.
            self.buffer = BytesMut::from(&self.buffer[..]);
            idle();
            input = self.await_readable(patience - short, true, shutdown).await;
        }
        match input {
            Readiness::Some => true,
            Readiness::Late => {
                self.counters.closings.inc(Closing::Idle);
                false
            }
            Readiness::Broken => false,
            // On a ring, even what is there already takes a turn to be told.
            Readiness::Stopping if sys::has_input(&self.stream) => true,
            Readiness::Stopping if self.is_new => {
                let newcomer = Box::pin(async {
                    let readable = pin!(self.stream.readable(false));
                    in_time(Instant::now() + NEWCOMER_PATIENCE, readable).await
                });
                matches!(newcomer.await, Some(Ok(())))
            }
            Readiness::Stopping => false,
        }
    }

    /// Waits until there is something to read. Where it `counts` that there was nothing, there is one
    /// more look.
    async fn await_readable(
        &self,
        patience: Duration,
        counts: bool,
        shutdown: &ShutdownSignal,
    ) -> Readiness {
        let readable = pin!(self.stream.readable(false));
        let mut readable = pin!(async {
            match counts {
                true => in_time(Instant::now() + patience, readable).await,
                false => timeout(patience, readable).await.ok(),
            }
        });
        poll_fn(|context| match readable.as_mut().poll(context) {
            Poll::Ready(Some(Ok(()))) => Poll::Ready(Readiness::Some),
            Poll::Ready(Some(Err(_))) => Poll::Ready(Readiness::Broken),
            Poll::Ready(None) => Poll::Ready(Readiness::Late),
            Poll::Pending => shutdown
                .poll_triggered(context)
                .map(|()| Readiness::Stopping),
        })
        .await
    }

    /// Reads and parses a request head into `head`; its bytes stay at the front of the buffer. One that
    /// is larger than a read takes `memory` of the memory budget. `false` where what came begins no
    /// request, so that the connection is as idle as it was.
    pub(crate) async fn read_head(
        &mut self,
        head: &mut RequestHead,
        memory: &mut MemoryReservation,
        limits: &Limits,
    ) -> Result<bool, Abort> {
        let deadline = Instant::now() + limits.timeouts.head;
        let mut gate = ReparseGate::default();
        loop {
            if gate.should_parse(&self.buffer, limits.head.bytes) {
                match head.parse(&self.buffer, limits.head) {
                    Ok(Parsed::Complete) => return Ok(true),
                    Ok(Parsed::Partial) => {}
                    Err(error) => return Err(Rejection::Head(error).into()),
                }
            }
            match self.fill(deadline, READ_BYTES).await {
                ReadOutcome::Some => {}
                ReadOutcome::End => return Err(Abort::Gone),
                ReadOutcome::Late => return Err(Rejection::HeadTimeout.into()),
            }
            let is_begun = self.skip_empty_lines();
            if self.skipped_bytes as usize > limits.head.bytes {
                return Err(Rejection::Head(HeadError::TooLarge).into());
            }
            if !is_begun {
                return Ok(false);
            }
            let held_bytes = self.buffer.capacity();
            if held_bytes > READ_BYTES && !memory.resize(held_bytes) {
                return Err(Rejection::Overloaded.into());
            }
        }
    }

    /// Throws empty lines away that stand in front of a request, such as old clients send behind a body
    /// (RFC 9112 section 2.2). `false` where there is nothing else, or just the first half of one more.
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

    /// The first `length` bytes of the buffer, which are its own from now on.
    pub(crate) fn take(&mut self, length: usize) -> Bytes {
        self.is_new = false;
        self.skipped_bytes = 0;
        let taken = self.buffer.split_to(length).freeze();
        // What is left keeps the memory of what was taken. After a large message that would be memory
        // which nobody counts any more.
        if length > KEPT_BYTES_MAX {
            self.buffer = BytesMut::from(&self.buffer[..]);
        }
        taken
    }

    /// Whether a byte of the body has arrived.
    pub(crate) fn has_body_bytes(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Tells the client to go on with the body it announced.
    pub(crate) async fn write_continue(&mut self, limits: &Limits) -> Result<(), Abort> {
        self.write(limits, |outgoing| {
            outgoing.extend_from_slice(CONTINUE);
            Bytes::new()
        })
        .await
    }

    /// Reads a body that begins at the front of the buffer, as large as `bytes_max`, within what
    /// `memory` can grow by.
    pub(crate) async fn read_body(
        &mut self,
        framing: Framing,
        bytes_max: usize,
        memory: &mut MemoryReservation,
        limits: &Limits,
    ) -> Result<Bytes, Abort> {
        match framing {
            Framing::Empty | Framing::UntilClose => Ok(Bytes::new()),
            Framing::Length(length) => {
                if length > bytes_max {
                    return Err(Rejection::BodyTooLarge.into());
                }
                self.read_length(length, memory, limits).await
            }
            Framing::Chunked => self.read_chunked(bytes_max, memory, limits).await,
        }
    }

    async fn read_length(
        &mut self,
        length: usize,
        memory: &mut MemoryReservation,
        limits: &Limits,
    ) -> Result<Bytes, Abort> {
        let head_bytes = held_with_head(memory);
        let whole = head_bytes.saturating_add(length);
        // What is only announced takes no memory from others; but where it cannot fit now, there
        // is no use in beginning.
        if !memory.can_resize(whole) {
            return Err(Rejection::Overloaded.into());
        }
        let mut rate = MinDataRate::new(limits.timeouts.body, Instant::now());
        while self.buffer.len() < length {
            let missing = length - self.buffer.len();
            self.make_room(missing, head_bytes, memory)?;
            // What follows the body is not read with it: nobody would count that.
            self.fill_body(missing, &mut rate, limits).await?;
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
            self.make_room(usize::MAX, head_bytes, memory)?;
            self.fill_body(bytes_max, &mut rate, limits).await?;
        }
    }

    /// Makes room for a read of a body of which `missing` bytes are to come at most: for as much as has come
    /// so far. What is only announced takes nothing, and neither does what fits behind the head: a
    /// connection has that buffer in any case.
    fn make_room(
        &mut self,
        missing: usize,
        head_bytes: usize,
        memory: &mut MemoryReservation,
    ) -> Result<(), Rejection> {
        let have = self.buffer.len();
        // With less room a read would make its own.
        if self.buffer.capacity() - have >= missing.min(READ_BYTES / 4) {
            return Ok(());
        }
        let room = have.max(READ_BYTES).min(missing);
        if !memory.resize(memory.bytes().max(head_bytes + have + room)) {
            return Err(Rejection::Overloaded);
        }
        self.buffer.reserve(room);
        Ok(())
    }

    /// Reads once of a body that has to keep its `rate`, `bytes_max` of it at most.
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
            ReadOutcome::Some => Ok(()),
            ReadOutcome::End => Err(Abort::Gone),
            ReadOutcome::Late => Err(Rejection::BodyTimeout.into()),
        }
    }

    /// Reads the body of a refused request and throws it away; `false` where that is too much to
    /// read, so that the connection has to be closed.
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

    /// Writes what `fill` appends to an empty buffer, and what it returns.
    pub(crate) async fn write(
        &mut self,
        limits: &Limits,
        fill: impl FnOnce(&mut Vec<u8>) -> Bytes,
    ) -> Result<(), Abort> {
        let mut outgoing = std::mem::take(&mut self.outgoing);
        let rest = fill(&mut outgoing);
        let stream = &mut self.stream;
        let writing = pin!(async {
            let (written, outgoing) = write_all(stream, outgoing).await;
            if written.is_err() || rest.is_empty() {
                return (written, outgoing);
            }
            (write_all(stream, rest).await.0, outgoing)
        });
        let writing = in_time(Instant::now() + limits.timeouts.write, writing);
        let written = self.coop.run(pin!(writing)).await;
        let mut outgoing = match written {
            Some((Ok(()), outgoing)) => outgoing,
            Some((Err(_), _)) => return Err(Abort::Gone),
            None => {
                self.counters.closings.inc(Closing::Write);
                return Err(Abort::Gone);
            }
        };
        outgoing.clear();
        outgoing.shrink_to(KEPT_OUTGOING_BYTES_MAX);
        self.outgoing = outgoing;
        Ok(())
    }

    /// Reads once, `bytes_max` at most.
    async fn fill(&mut self, deadline: Instant, bytes_max: usize) -> ReadOutcome {
        let buffer = std::mem::take(&mut self.buffer);
        let reading = pin!(read_some(&mut self.stream, buffer, bytes_max));
        let reading = in_time(deadline, reading);
        match self.coop.run(pin!(reading)).await {
            None => ReadOutcome::Late,
            Some((result, buffer)) => {
                self.buffer = buffer;
                // An error is a reset or its kin: the client is gone, and there is nobody to tell.
                let count = result.unwrap_or(0);
                self.counters.received_bytes.add_bytes(count);
                if count > READ_BYTES {
                    self.coop.spend(count).await;
                }
                if count > 0 {
                    ReadOutcome::Some
                } else {
                    ReadOutcome::End
                }
            }
        }
    }
}

/// How many bytes a request takes of which nothing but the head has come: what `memory` has for it, and as
/// much as the buffer at least that the head came in, which is the connection's no more when the request is
/// on its way.
pub(crate) fn held_with_head(memory: &MemoryReservation) -> usize {
    memory.bytes().max(READ_BYTES)
}

/// What waiting for a request brought.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Readiness {
    /// Bytes, or the end of the stream.
    Some,
    /// Nothing in time.
    Late,
    /// An error.
    Broken,
    /// The order to stop.
    Stopping,
}

/// What a read brought.
enum ReadOutcome {
    /// At least one byte.
    Some,
    /// The end of the stream, or an error.
    End,
    /// Nothing in time; the buffer is lost with the read.
    Late,
}
