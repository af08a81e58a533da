//! How far the transfer of one exchange has come, as TCP counts it.
//!
//! The socket takes up to 4 MiB of a request at once, so what was written says little about what the upstream
//! took. The kernel knows what was acknowledged. It is asked only when a deadline needs to know, so an exchange that
//! is answered soon pays nothing for this.

use std::cell::Cell;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use monoio::net::TcpStream;

use crate::sys;

pub(crate) use crate::sys::TcpProgress;

/// What an exchange shows to the deadline of its delivery.
#[derive(Default)]
pub struct Transfer {
    /// The socket of the connection that the exchange uses at present.
    socket: Cell<Option<RawFd>>,
    /// How many connections were used so far.
    connections: Cell<u32>,
    phase: Cell<Phase>,
    /// Over HTTP/2: what the stream has moved.
    stream: Cell<Option<StreamProgress>>,
}

/// What one stream of a connection has moved. TCP's count is that of all its streams together.
#[derive(Clone, Copy)]
struct StreamProgress {
    /// What the flow control of the upstream let pass.
    taken_bytes: u64,
    received_bytes: u64,
    received_at: Instant,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The request is written to the socket.
    #[default]
    Sending,
    /// The socket has the whole request. The head of the response has not arrived.
    Waiting,
    /// The body of the response is arriving.
    Receiving,
}

/// What was seen of a transfer at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The number of the connection. The bytes of different connections cannot be compared.
    pub(crate) connection: u32,
    pub(crate) phase: Phase,
    pub(crate) tcp: TcpProgress,
}

impl Transfer {
    /// Begins an exchange over `stream`, which must live until the result is dropped.
    pub(crate) fn begin(&self, stream: &TcpStream) -> Exchanging<'_> {
        self.socket.set(Some(stream.as_raw_fd()));
        self.connections.set(self.connections.get().wrapping_add(1));
        self.phase.set(Phase::Sending);
        Exchanging(self)
    }

    /// Begins an exchange over a stream of HTTP/2.
    pub(crate) fn begin_stream(&self, now: Instant) -> Exchanging<'_> {
        self.stream.set(Some(StreamProgress {
            taken_bytes: 0,
            received_bytes: 0,
            received_at: now,
        }));
        self.connections.set(self.connections.get().wrapping_add(1));
        self.phase.set(Phase::Sending);
        Exchanging(self)
    }

    /// Records that the stream has moved in all so many bytes of the request.
    pub(crate) fn record_taken(&self, taken_bytes: usize) {
        if let Some(mut progress) = self.stream.get() {
            progress.taken_bytes = u64::try_from(taken_bytes).unwrap_or(u64::MAX);
            self.stream.set(Some(progress));
        }
    }

    /// Records that the stream has brought in all so many bytes of the response.
    pub(crate) fn record_received(&self, received_bytes: usize, now: Instant) {
        if let Some(mut progress) = self.stream.get() {
            progress.received_bytes = u64::try_from(received_bytes).unwrap_or(u64::MAX);
            progress.received_at = now;
            self.stream.set(Some(progress));
        }
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.set(phase);
    }

    /// Whether the response has begun.
    pub(crate) fn is_receiving(&self) -> bool {
        self.phase.get() == Phase::Receiving
    }

    /// `None` while there is no connection.
    pub(crate) fn look(&self) -> Option<Seen> {
        let tcp = match self.stream.get() {
            Some(progress) => TcpProgress {
                taken_bytes: progress.taken_bytes,
                has_untaken_bytes: false,
                received_bytes: progress.received_bytes,
                since_received: progress.received_at.elapsed(),
            },
            None => sys::tcp_progress(self.socket.get()?)?,
        };
        Some(Seen {
            connection: self.connections.get(),
            phase: self.phase.get(),
            tcp,
        })
    }
}

/// An exchange that uses a socket or a stream, until it is dropped.
pub(crate) struct Exchanging<'t>(&'t Transfer);

impl Drop for Exchanging<'_> {
    fn drop(&mut self) {
        self.0.socket.set(None);
        self.0.stream.set(None);
    }
}

impl Seen {
    /// The bytes that tell whether the upstream makes progress. While it owes the head of its response there is nothing
    /// that it could take or send piece by piece: interim responses are no progress.
    pub(crate) fn bytes(&self) -> u64 {
        match self.phase {
            Phase::Sending | Phase::Waiting => self.tcp.taken_bytes,
            Phase::Receiving => self.tcp.taken_bytes + self.tcp.received_bytes,
        }
    }

    /// Whether a body is on its way, so that it has a data rate.
    pub(crate) fn is_moving(&self) -> bool {
        match self.phase {
            Phase::Sending | Phase::Receiving => true,
            Phase::Waiting => self.tcp.has_untaken_bytes,
        }
    }

    /// How long the body of the response has been silent. `None` if it has not begun.
    pub(crate) fn silence(&self) -> Option<Duration> {
        (self.phase == Phase::Receiving).then_some(self.tcp.since_received)
    }
}
