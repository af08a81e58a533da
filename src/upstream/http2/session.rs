//! One HTTP/2 connection, which deliveries share.
//!
//! A delivery reserves a stream, opens it with its request, and waits until its slot has the response. If it is dropped
//! before that, the stream is reset, so that the upstream need not work on it, and the other streams go on.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use slab::Slab;
use tracing::{debug, warn};

use crate::http2::connection::{Connection, OpenError};
use crate::http2::error::{ErrorCode, Violation};
use crate::http2::mode::Http2Mode;
use crate::net::transfer::{Phase, Transfer};
use crate::runtime::memory_budget::MemoryBudget;
use crate::upstream::addresses::Address;
use crate::upstream::counters::{OriginCounters, PingResult, SessionEnd, StreamEnd};
use crate::upstream::exchange::{Failure, OutboundRequest};
use crate::upstream::http2::output_memory::OutputMemory;
use crate::upstream::http2::slots::{self, Lost, Reaction, Repeat, Slot};
use crate::upstream::origin::SharedOrigin;
use crate::upstream::response::Response;

/// How long a session with deliveries may be silent before it has to give a sign of life. Twice the round trip, if that
/// is longer.
const SILENCE: Duration = Duration::from_secs(1);

/// How long the sign of life may take.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// A session that was idle for as long is asked for a sign of life before it is used again: address translation may
/// have forgotten it, and drops what is sent without a word.
const LONG_REST: Duration = Duration::from_secs(60);

pub(super) struct Session {
    shared: Arc<SharedOrigin>,
    worker: usize,
    pub(super) address: Arc<Address>,
    budget: Rc<MemoryBudget>,
    connection: RefCell<Connection>,
    slots: RefCell<Slab<Slot>>,
    /// Streams that are promised to deliveries that have not opened them yet.
    reserved: Cell<usize>,
    state: RefCell<State>,
    /// Whether a response has arrived.
    has_answered: Cell<bool>,
    pub(super) opened_at: Instant,
    /// The last sign of life, or the beginning of the oldest delivery if that is later.
    silent_since: Cell<Instant>,
    /// When the last delivery ended.
    idle_since: Cell<Instant>,
    pinged_at: Cell<Option<Instant>>,
    /// What the server had taken when it was looked at last, after a PING, and when it had taken more than before.
    taken: Cell<(u64, Instant)>,
    round_trip: Cell<Duration>,
    /// How many bytes were given to the socket so far, whether or not it has taken them.
    given_bytes: Cell<u64>,
    output_memory: RefCell<OutputMemory>,
    /// Deliveries that wait until the output is sent.
    stalled: RefCell<Vec<usize>>,
    /// Whether TLS has something to send by itself.
    has_flush: Cell<bool>,
    writer: RefCell<Option<Waker>>,
    reader: RefCell<Option<Waker>>,
    /// Whether its end, or the reason why it will end, was counted.
    is_end_counted: Cell<bool>,
    opener: RefCell<Option<Waker>>,
}

enum State {
    /// The server's settings have not arrived.
    Opening,
    Open,
    /// No delivery is on it since then, and what has been queued is sent before it closes.
    Closing(Instant),
    Ended(Failure),
}

/// A stream that may be opened.
pub(super) struct Reservation {
    session: Rc<Session>,
}

/// An open stream. Dropping it resets the stream if its response is not complete.
pub(super) struct Stream {
    session: Rc<Session>,
    token: usize,
    id: u32,
    head_bytes: usize,
}

impl Session {
    pub(super) fn new(
        shared: Arc<SharedOrigin>,
        worker: usize,
        address: Arc<Address>,
        budget: Rc<MemoryBudget>,
        now: Instant,
    ) -> Rc<Session> {
        Rc::new(Session {
            connection: RefCell::new(Connection::new(shared.tls.is_some(), now)),
            shared,
            worker,
            address,
            slots: RefCell::default(),
            reserved: Cell::default(),
            state: RefCell::new(State::Opening),
            has_answered: Cell::default(),
            opened_at: now,
            silent_since: Cell::new(now),
            idle_since: Cell::new(now),
            pinged_at: Cell::default(),
            taken: Cell::new((0, now)),
            round_trip: Cell::default(),
            given_bytes: Cell::default(),
            output_memory: RefCell::new(OutputMemory::new(budget.reservation())),
            stalled: RefCell::default(),
            has_flush: Cell::default(),
            writer: RefCell::default(),
            reader: RefCell::default(),
            is_end_counted: Cell::default(),
            opener: RefCell::default(),
            budget,
        })
    }

    fn counters(&self) -> &OriginCounters {
        self.shared.counters.for_worker(self.worker)
    }

    /// How many deliveries are on it.
    pub(super) fn deliveries(&self) -> usize {
        self.connection.borrow().open_streams() + self.reserved.get()
    }

    /// Whether three quarters of its streams are taken.
    pub(super) fn is_crowded(&self) -> bool {
        let streams_max = self.connection.borrow().streams_max();
        self.deliveries() * 4 >= streams_max * 3
    }

    /// Whether no delivery will be on it again.
    pub(super) fn is_ending(&self) -> bool {
        let is_open = matches!(*self.state.borrow(), State::Opening | State::Open);
        !is_open || self.connection.borrow().is_ending()
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(*self.state.borrow(), State::Ended(_))
    }

    /// Whether a delivery may begin on it. After a long rest it has to give a sign of life before.
    pub(super) fn is_usable(&self, now: Instant) -> bool {
        if self.is_ending() || self.pinged_at.get().is_some() {
            return false;
        }
        let is_idle = self.deliveries() == 0;
        if is_idle && now.saturating_duration_since(self.silent_since.get()) >= LONG_REST {
            self.ping(now);
            return false;
        }
        let connection = self.connection.borrow();
        let mut output_memory = self.output_memory.borrow_mut();
        connection.free_streams() > self.reserved.get()
            && output_memory.has_room(connection.output_bytes())
    }

    /// How much of a body could be sent at once.
    pub(super) fn free_window(&self) -> usize {
        self.connection.borrow().free_window()
    }

    pub(super) fn reserve(self: &Rc<Session>) -> Reservation {
        self.reserved.set(self.reserved.get() + 1);
        Reservation {
            session: Rc::clone(self),
        }
    }

    /// Waits until the server's settings have arrived.
    ///
    /// # Errors
    /// Why they will not.
    pub(super) async fn opened(&self) -> Result<(), Failure> {
        poll_fn(|context| match &*self.state.borrow() {
            State::Opening => {
                keep_waker(&self.opener, context);
                Poll::Pending
            }
            State::Open | State::Closing(_) => Poll::Ready(Ok(())),
            State::Ended(failure) => Poll::Ready(Err(failure.clone())),
        })
        .await
    }

    /// Processes what has arrived, and leaves the rest in `incoming`.
    pub(super) fn receive(&self, incoming: &mut BytesMut, now: Instant) {
        self.silent_since.set(now);
        if let Some(pinged_at) = self.pinged_at.take() {
            self.round_trip
                .set(now.saturating_duration_since(pinged_at));
            self.counters().pings.inc(PingResult::Answered);
        }
        let mut unwanted = Vec::new();
        let received = {
            let mut slots = self.slots.borrow_mut();
            let mut connection = self.connection.borrow_mut();
            let received = connection.receive(incoming, now, |event| {
                match slots::apply(&mut slots, event, now) {
                    Reaction::None | Reaction::Pong => {}
                    Reaction::GoingAway => self.count_end(SessionEnd::Closed),
                    Reaction::Reset(id) => unwanted.push(id),
                    Reaction::Ready => self.begin(now),
                    Reaction::Ended(end) => self.counters().stream_ends.inc(end),
                }
            });
            for id in unwanted {
                connection.reset(id, ErrorCode::CANCEL);
                self.counters().stream_ends.inc(StreamEnd::TooLarge);
            }
            received
        };
        match received {
            Ok(count) => incoming.advance(count),
            Err(violation) => {
                self.record_violation(violation, now);
                let failure = Failure::Malformed(format!("HTTP/2: {violation}"));
                self.end(failure, SessionEnd::from(violation));
            }
        }
        self.wake_writer();
        self.close_if_done();
    }

    /// Leaves a server that cannot speak HTTP/2 for HTTP/1.1, if it may.
    fn record_violation(&self, violation: Violation, now: Instant) {
        let protocol = &self.shared.protocol;
        if protocol.mode() == Http2Mode::Auto && protocol.record_violation(now) {
            warn!(
                origin = %self.shared.name,
                %violation,
                "the upstream breaks HTTP/2 again and again; for ten minutes it gets HTTP/1.1"
            );
        }
    }

    fn begin(&self, now: Instant) {
        self.round_trip
            .set(now.saturating_duration_since(self.opened_at));
        *self.state.borrow_mut() = State::Open;
        wake(&self.opener);
    }

    /// What is to be sent, into `buffer`, which is empty: what was in it has been sent. `None` if nothing will be
    /// sent any more. If the session has ended, this is the last.
    pub(super) async fn output(&self, buffer: Vec<u8>) -> Option<Vec<u8>> {
        let waiting = self.connection.borrow().output_bytes();
        self.output_memory.borrow_mut().end_sending(waiting);
        self.resume_stalled();
        let mut buffer = Some(buffer);
        poll_fn(|context| {
            let mut connection = self.connection.borrow_mut();
            // What else waits to be sent is sent over another connection.
            if self.has_ended() && !connection.is_broken() {
                return Poll::Ready(None);
            }
            if connection.output_bytes() > 0 || self.has_flush.take() {
                let output = connection.take_output(buffer.take().unwrap_or_default());
                self.given_bytes
                    .set(self.given_bytes.get() + output.len() as u64);
                self.output_memory.borrow_mut().begin_sending(output.len());
                self.resume_stalled();
                return Poll::Ready(Some(output));
            }
            if matches!(*self.state.borrow(), State::Closing(_) | State::Ended(_)) {
                return Poll::Ready(None);
            }
            keep_waker(&self.writer, context);
            Poll::Pending
        })
        .await
    }

    fn resume_stalled(&self) {
        let mut slots = self.slots.borrow_mut();
        for token in self.stalled.borrow_mut().drain(..) {
            if let Some(slot) = slots.get_mut(token) {
                slot.can_send = true;
                slot.wake();
            }
        }
    }

    /// Lets TLS send what it has to send by itself.
    pub(super) fn flush(&self) {
        self.has_flush.set(true);
        self.wake_writer();
    }

    /// Lets the writer run, because there may be output.
    fn wake_writer(&self) {
        wake(&self.writer);
    }

    /// For the reader: completes once nothing has to be read any more.
    pub(super) fn poll_unread(&self, context: &Context<'_>) -> Poll<()> {
        if matches!(*self.state.borrow(), State::Closing(_) | State::Ended(_)) {
            return Poll::Ready(());
        }
        keep_waker(&self.reader, context);
        Poll::Pending
    }

    /// For the writer: completes once the connection has failed.
    pub(super) fn poll_failed(&self, context: &Context<'_>) -> Poll<()> {
        if self.has_ended() {
            return Poll::Ready(());
        }
        keep_waker(&self.writer, context);
        Poll::Pending
    }

    /// Opens no further stream, and closes once those that are open have ended.
    pub(super) fn retire(&self, reason: SessionEnd) {
        if !self.is_ending() {
            self.count_end(reason);
            self.connection.borrow_mut().go_away();
            self.wake_writer();
        }
        self.close_if_done();
    }

    /// Closes if no stream is open and none can be opened.
    fn close_if_done(&self) {
        let is_done = {
            let connection = self.connection.borrow();
            connection.is_ending() && connection.open_streams() == 0
        };
        let mut state = self.state.borrow_mut();
        if is_done && !matches!(*state, State::Closing(_) | State::Ended(_)) {
            *state = State::Closing(Instant::now());
            drop(state);
            self.wake_all();
        }
    }

    /// The connection has failed, and with it all its deliveries. It is one failure.
    pub(super) fn end(&self, failure: Failure, reason: SessionEnd) {
        {
            let mut state = self.state.borrow_mut();
            if matches!(*state, State::Ended(_)) {
                return;
            }
            self.count_end(reason);
            if !matches!(*state, State::Closing(_)) {
                debug!(origin = %self.shared.origin, %failure, "an HTTP/2 connection has ended");
            }
            *state = State::Ended(failure.clone());
        }
        let given_bytes = self.given_bytes.get();
        let is_stale = self.has_answered.get()
            && matches!(
                failure,
                Failure::Closed | Failure::Receive(_) | Failure::Send(_)
            );
        let mut is_first = true;
        for (_, slot) in self.slots.borrow_mut().iter_mut() {
            if slot.end.is_some() {
                continue;
            }
            self.counters().stream_ends.inc(StreamEnd::Connection);
            let repeat = match slot.queued_before >= given_bytes {
                true => Repeat::Unprocessed,
                false if is_stale && !slot.has_head => Repeat::Once,
                false => Repeat::No,
            };
            slot.finish(Err(Lost {
                repeat,
                is_counted: std::mem::replace(&mut is_first, false),
                ..Lost::new(failure.clone())
            }));
        }
        self.wake_all();
    }

    fn count_end(&self, reason: SessionEnd) {
        if !self.is_end_counted.replace(true) {
            self.counters().session_ends.inc(reason);
        }
    }

    fn wake_all(&self) {
        for waker in [&self.writer, &self.reader, &self.opener] {
            wake(waker);
        }
    }

    /// Looks whether the server still lives. To be called a few times a second while there are deliveries.
    /// `taken_bytes` asks how much it has taken so far.
    pub(super) fn watch(&self, now: Instant, taken_bytes: impl FnOnce() -> u64) {
        if let State::Closing(since) = *self.state.borrow()
            && now.saturating_duration_since(since) < PING_TIMEOUT
        {
            return;
        }
        if matches!(*self.state.borrow(), State::Closing(_)) {
            return self.end(Failure::Closed, SessionEnd::Closed);
        }
        if let Some(pinged_at) = self.pinged_at.get() {
            // The PING may be behind megabytes that a slow server takes bit by bit.
            let (before, mut taken_at) = self.taken.get();
            let taken_bytes = taken_bytes();
            if taken_bytes != before {
                taken_at = now;
                self.taken.set((taken_bytes, now));
            }
            if now.saturating_duration_since(pinged_at.max(taken_at)) >= PING_TIMEOUT {
                self.counters().pings.inc(PingResult::TimedOut);
                self.shared
                    .record_address_failed(&self.address, pinged_at, now);
                self.end(Failure::Timeout, SessionEnd::Silent);
            }
            return;
        }
        let silence = now.saturating_duration_since(self.silent_since.get());
        let silence_max = SILENCE.max(2 * self.round_trip.get());
        let has_streams = self.connection.borrow().open_streams() > 0;
        if has_streams && silence >= silence_max && !self.has_ended() {
            self.ping(now);
        }
    }

    fn ping(&self, now: Instant) {
        self.pinged_at.set(Some(now));
        self.connection.borrow_mut().ping(*b"sentrymi");
        self.counters().pings.inc(PingResult::Sent);
        self.wake_writer();
    }

    /// How long it has had no delivery.
    pub(super) fn idle_for(&self, now: Instant) -> Option<Duration> {
        (self.deliveries() == 0).then(|| now.saturating_duration_since(self.idle_since.get()))
    }
}

impl Reservation {
    /// Opens a stream for `request`. What of its body the windows do not allow yet is sent by [`Stream::exchange`].
    ///
    /// # Errors
    /// It cannot be opened.
    pub(super) fn open(
        self,
        request: &OutboundRequest,
        response_bytes_max: usize,
        now: Instant,
    ) -> Result<Stream, OpenError> {
        let session = Rc::clone(&self.session);
        drop(self);
        let memory = session.budget.reservation();
        let mut slots = session.slots.borrow_mut();
        let entry = slots.vacant_entry();
        let mut connection = session.connection.borrow_mut();
        if connection.open_streams() == 0 {
            session.silent_since.set(now);
        }
        let token = entry.key();
        let queued_before = session.given_bytes.get() + connection.output_bytes() as u64;
        let body_bytes = request.body.len() + request.tail.len();
        let opened = connection.open(token, &request.head, |head_bytes| {
            request.head.len() + body_bytes > head_bytes
        })?;
        let slot = Slot::new(opened.id, queued_before, response_bytes_max, memory, now);
        entry.insert(slot);
        drop((slots, connection));
        session.wake_writer();
        Ok(Stream {
            token,
            id: opened.id,
            head_bytes: opened.head_bytes,
            session,
        })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let reserved = &self.session.reserved;
        reserved.set(reserved.get() - 1);
    }
}

impl Stream {
    /// Sends the body of `request`, and waits for the response.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn exchange(
        &self,
        request: &OutboundRequest,
        transfer: &Transfer,
        now: Instant,
    ) -> Result<Response, Lost> {
        let _exchanging = transfer.begin_stream(now);
        let in_head = request.head.get(self.head_bytes..).unwrap_or_default();
        let parts = [in_head, &request.body, &request.tail];
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let mut sent = 0;
        for part in parts {
            let mut rest = part;
            while !rest.is_empty() {
                let count = self.send(rest, sent + rest.len() == total);
                sent += count;
                rest = rest.get(count..).unwrap_or_default();
                transfer.record_taken(sent);
                if !rest.is_empty() && !self.can_send().await {
                    return self.response(transfer).await;
                }
            }
        }
        transfer.set_phase(Phase::Waiting);
        self.response(transfer).await
    }

    fn send(&self, bytes: &[u8], is_last: bool) -> usize {
        let session = &self.session;
        if let Some(slot) = session.slots.borrow_mut().get_mut(self.token) {
            slot.can_send = false;
        }
        let mut connection = session.connection.borrow_mut();
        let mut output_memory = session.output_memory.borrow_mut();
        let part = output_memory.part(bytes, connection.output_bytes());
        let is_whole = part.len() == bytes.len();
        if !is_whole {
            session.stalled.borrow_mut().push(self.token);
        }
        let count = match part.is_empty() {
            true => 0,
            false => connection.send(self.id, part, is_last && is_whole),
        };
        drop((connection, output_memory));
        session.wake_writer();
        count
    }

    /// Waits until more can be sent. `false` if the stream ends before.
    async fn can_send(&self) -> bool {
        poll_fn(|context| {
            let mut slots = self.session.slots.borrow_mut();
            let Some(slot) = slots.get_mut(self.token).filter(|slot| slot.end.is_none()) else {
                return Poll::Ready(false);
            };
            if slot.can_send {
                return Poll::Ready(true);
            }
            slot.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    async fn response(&self, transfer: &Transfer) -> Result<Response, Lost> {
        poll_fn(|context| {
            let mut slots = self.session.slots.borrow_mut();
            let Some(slot) = slots.get_mut(self.token) else {
                return Poll::Ready(Err(Lost::new(Failure::Closed)));
            };
            if slot.has_head {
                transfer.set_phase(Phase::Receiving);
                transfer.record_received(slot.received_bytes, slot.received_at);
            }
            let Some(end) = slot.end.take() else {
                slot.waker = Some(context.waker().clone());
                return Poll::Pending;
            };
            // Whatever it was, the stream is gone.
            slot.end = Some(Ok(()));
            if end.is_ok() && !self.session.has_answered.replace(true) {
                self.session.address.record_answered();
            }
            Poll::Ready(end.map(|()| slot.take_response()))
        })
        .await
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let session = &self.session;
        let slot = session.slots.borrow_mut().try_remove(self.token);
        if slot.is_some_and(|slot| slot.end.is_none()) {
            session
                .connection
                .borrow_mut()
                .reset(self.id, ErrorCode::CANCEL);
            session.counters().stream_ends.inc(StreamEnd::Cancelled);
            session.wake_writer();
        }
        if session.connection.borrow().open_streams() == 0 {
            session.idle_since.set(Instant::now());
        }
        session.close_if_done();
    }
}

fn keep_waker(place: &RefCell<Option<Waker>>, context: &Context<'_>) {
    *place.borrow_mut() = Some(context.waker().clone());
}

fn wake(place: &RefCell<Option<Waker>>) {
    if let Some(waker) = place.borrow_mut().take() {
        waker.wake();
    }
}
