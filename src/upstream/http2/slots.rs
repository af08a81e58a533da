//! The deliveries of a session: the response of each, as far as it has arrived.

use std::task::Waker;
use std::time::Instant;

use bytes::Bytes;
use slab::Slab;

use crate::http::head::HeaderName;
use crate::http2::connection::{Event, StreamFailure};
use crate::http2::error::ErrorCode;
use crate::http2::response_head::ResponseHead;
use crate::runtime::memory_budget::MemoryReservation;
use crate::upstream::counters::StreamEnd;
use crate::upstream::exchange::Failure;
use crate::upstream::read_buffer::{SMALL_BYTES, copy_small};
use crate::upstream::response::{MemoryPermit, Response};

/// The content type of Relay's responses.
const JSON: &[u8] = b"application/json";

/// How a delivery ended without a response.
pub(super) struct Lost {
    pub(super) failure: Failure,
    pub(super) repeat: Repeat,
    /// Whether the upstream reset the stream with `HTTP_1_1_REQUIRED`.
    pub(super) wants_http1: bool,
    /// Whether it is a failure of its own. A connection that ends is one failure, however many deliveries it had.
    pub(super) is_counted: bool,
}

/// Whether a request may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// The upstream may have processed it.
    No,
    /// As over HTTP/1.1: its connection had answered before and ended before the first byte of this response. Most
    /// likely the upstream had closed it before it saw the request.
    Once,
    /// The upstream has not processed it: it leaves, or nothing was given to the socket.
    Unprocessed,
    /// The upstream has refused it without having processed it. It has no room for it at the moment.
    Refused,
}

/// A delivery.
pub(super) struct Slot {
    /// Its stream.
    pub(super) id: u32,
    /// How many bytes the session had queued before its first one.
    pub(super) queued_before: u64,
    response_bytes_max: usize,
    response: Response,
    /// The beginning of a body that has arrived in parts.
    parts: Vec<u8>,
    memory: MemoryReservation,
    pub(super) has_head: bool,
    pub(super) received_bytes: usize,
    pub(super) received_at: Instant,
    /// Whether the windows allow more of the request, after they did not.
    pub(super) can_send: bool,
    pub(super) end: Option<Result<(), Lost>>,
    pub(super) waker: Option<Waker>,
}

impl Slot {
    pub(super) fn new(
        id: u32,
        queued_before: u64,
        response_bytes_max: usize,
        memory: MemoryReservation,
        now: Instant,
    ) -> Slot {
        Slot {
            id,
            queued_before,
            response_bytes_max,
            response: Response::default(),
            parts: Vec::new(),
            memory,
            has_head: false,
            received_bytes: 0,
            received_at: now,
            can_send: false,
            end: None,
            waker: None,
        }
    }

    /// Ends it, unless it has ended already.
    pub(super) fn finish(&mut self, end: Result<(), Lost>) {
        if self.end.is_none() {
            self.end = Some(end);
        }
        self.wake();
    }

    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The response, once it is complete.
    pub(super) fn take_response(&mut self) -> Response {
        let mut response = std::mem::take(&mut self.response);
        if !self.parts.is_empty() {
            response.body = Bytes::from(std::mem::take(&mut self.parts));
        }
        if self.memory.bytes() > 0 {
            let empty = self.memory.empty_sibling();
            response.memory = MemoryPermit::new(std::mem::replace(&mut self.memory, empty));
        }
        response
    }

    fn begin(&mut self, head: &ResponseHead) -> Result<(), Failure> {
        self.has_head = true;
        if head
            .content_length
            .is_some_and(|length| length > self.response_bytes_max)
        {
            return Err(Failure::TooLarge);
        }
        self.response = Response::with_status(head.status);
        for (name, value) in head.fields() {
            let Some(slot) = self.response.header_mut(name) else {
                continue;
            };
            let value = match slot.take() {
                None if value == JSON => Bytes::from_static(JSON),
                None => copy_small(value),
                // A list on several lines is one list (RFC 9110 section 5.3).
                Some(list) if name == HeaderName::XSentryRateLimits => {
                    [&list[..], value].join(&b", "[..]).into()
                }
                Some(first) => first,
            };
            *slot = Some(value);
        }
        self.response.parse_retry_after();
        Ok(())
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.received_bytes += bytes.len();
        if self.received_bytes > self.response_bytes_max {
            return Err(Failure::TooLarge);
        }
        if self.received_bytes > SMALL_BYTES && !self.memory.resize(self.received_bytes) {
            return Err(Failure::TooLarge);
        }
        let response = &mut self.response;
        if self.parts.is_empty() && response.body.is_empty() && bytes.len() <= SMALL_BYTES {
            response.body = copy_small(bytes);
            return Ok(());
        }
        if self.parts.is_empty() {
            self.parts.extend_from_slice(&response.body);
            response.body = Bytes::new();
        }
        self.parts.extend_from_slice(bytes);
        Ok(())
    }
}

/// What the caller has to do after an event.
pub(super) enum Reaction {
    None,
    /// Reset this stream, whose response is not wanted.
    Reset(u32),
    Ready,
    GoingAway,
    Pong,
    /// A stream has ended this way.
    Ended(StreamEnd),
}

/// Applies an event of the connection.
pub(super) fn apply(slots: &mut Slab<Slot>, event: Event<'_>, now: Instant) -> Reaction {
    match event {
        Event::Ready => Reaction::Ready,
        Event::GoingAway(_) => Reaction::GoingAway,
        Event::Pong(_) => Reaction::Pong,
        Event::CanSend { token } => {
            if let Some(slot) = slots.get_mut(token) {
                slot.can_send = true;
                slot.wake();
            }
            Reaction::None
        }
        Event::Head { token, head } => receive(slots, token, now, |slot| slot.begin(head)),
        Event::Data { token, bytes } => receive(slots, token, now, |slot| slot.add(bytes)),
        Event::End { token, is_sent } => {
            if let Some(slot) = slots.get_mut(token) {
                let status = slot.response.status;
                // The upstream does not have what it accepts.
                let is_cut_short = !is_sent && status < 300;
                slot.finish(match is_cut_short {
                    true => Err(Lost::new(Failure::CutShort(status))),
                    false => Ok(()),
                });
            }
            Reaction::None
        }
        Event::Failed { token, failure } => {
            let (lost, end) = describe(failure);
            if let Some(slot) = slots.get_mut(token) {
                slot.finish(Err(lost));
            }
            Reaction::Ended(end)
        }
    }
}

fn receive(
    slots: &mut Slab<Slot>,
    token: usize,
    now: Instant,
    take: impl FnOnce(&mut Slot) -> Result<(), Failure>,
) -> Reaction {
    let Some(slot) = slots.get_mut(token).filter(|slot| slot.end.is_none()) else {
        return Reaction::None;
    };
    slot.received_at = now;
    match take(slot) {
        Ok(()) => {
            slot.wake();
            Reaction::None
        }
        Err(failure) => {
            slot.finish(Err(Lost::new(failure)));
            Reaction::Reset(slot.id)
        }
    }
}

fn describe(failure: StreamFailure) -> (Lost, StreamEnd) {
    match failure {
        StreamFailure::Refused | StreamFailure::LeftBehind => {
            let repeat = match failure {
                StreamFailure::Refused => Repeat::Refused,
                _ => Repeat::Unprocessed,
            };
            let lost = Lost {
                repeat,
                ..Lost::new(Failure::Refused)
            };
            (lost, StreamEnd::Refused)
        }
        StreamFailure::Reset(code) => {
            let wants_http1 = code == ErrorCode::HTTP_1_1_REQUIRED;
            let lost = Lost {
                wants_http1,
                ..Lost::new(Failure::Reset(code.to_string()))
            };
            (lost, StreamEnd::Reset)
        }
        StreamFailure::Malformed(rule) => (
            Lost::new(Failure::Malformed(rule.to_owned())),
            StreamEnd::Malformed,
        ),
        StreamFailure::TooLarge => (Lost::new(Failure::TooLarge), StreamEnd::TooLarge),
    }
}

impl Lost {
    pub(super) fn new(failure: Failure) -> Lost {
        Lost {
            failure,
            repeat: Repeat::No,
            wants_http1: false,
            is_counted: true,
        }
    }
}
