//! What a worker counts about its connections to one origin.
//!
//! Gauges are published once a second by the task that sweeps idle connections, so that they cost a
//! delivery nothing.

use crate::http2::error::Violation;
use crate::telemetry::counters::{Counter, CounterVec, Gauge};
use crate::telemetry::label::labels;

#[derive(Default)]
pub struct OriginCounters {
    /// Connections opened, TLS handshake included.
    pub opened: Counter,
    /// Deliveries over a pooled connection.
    pub reused: Counter,
    /// Deliveries that had to wait for a connection, because none was idle.
    pub waited: Counter,
    /// Pooled connections that the upstream had closed before they were used again.
    pub stale: Counter,
    /// Deliveries sent again because their pooled connection was stale.
    pub retries: Counter,
    /// Reusable connections that were closed.
    pub dropped: CounterVec<Dropped>,
    pub open: Gauge,
    pub idle: Gauge,
    /// Connections that are being opened.
    pub dialing: Gauge,
    /// Deliveries that wait for a connection.
    pub waiting: Gauge,
    pub in_flight: Gauge,
    /// The time of the last response, in nanoseconds after the beginning of the origin; 0 for none. Written by each
    /// delivery, so it lies here and not beside what all workers read.
    pub answered_at: Gauge,
    /// Probes, by result.
    pub probes: CounterVec<ProbeResult>,
    /// Connections opened for HTTP/2. They are also in `opened`.
    pub http2_opened: Counter,
    pub http2_open: Gauge,
    /// HTTP/2 connections that have ended, by reason.
    pub session_ends: CounterVec<SessionEnd>,
    /// Streams opened for deliveries.
    pub streams: Counter,
    pub open_streams: Gauge,
    /// Streams that ended without a response, by reason.
    pub stream_ends: CounterVec<StreamEnd>,
    pub pings: CounterVec<PingResult>,
}

labels! {
    /// Why a reusable connection was closed.
    pub enum Dropped {
        /// The pool already had `pool.idle_connections` idle connections.
        OverLimit => "idle_connections",
        /// More connections were open than were in use at the same time recently.
        Surplus => "surplus",
        /// The connection was idle for `pool.idle_timeout`.
        Idle => "idle_timeout",
        /// The connection was older than `pool.max_age`.
        Old => "max_age",
        /// The host no longer has the address of the connection.
        Moved => "address_removed",
        /// The upstream sent data that was not part of a response.
        Unsolicited => "unsolicited_data",
        /// The upstream recently sent unsolicited data, so its connections are not reused for a while.
        Suspended => "not_pooled",
    }
}

labels! {
    /// How a probe ended: the connect with which an open breaker finds out whether the upstream is back.
    pub enum ProbeResult {
        /// A connection was opened, TLS handshake included. That closes the breaker.
        Connected => "connected",
        /// The host has no known address, or the connection was refused or failed.
        Failed => "failed",
        /// The connection was not open within `timeouts.connect`.
        TimedOut => "timeout",
        /// The mirror's own process or host ran out of a resource, for example descriptors.
        Shortage => "shortage",
    }
}

labels! {
    /// Why an HTTP/2 connection ended.
    pub enum SessionEnd {
        /// It had no delivery for `pool.idle_timeout`.
        Idle => "idle_timeout",
        /// It was older than `pool.max_age`.
        Old => "max_age",
        /// The host no longer has its address.
        Moved => "address_removed",
        /// The origin no longer gets HTTP/2.
        Off => "off",
        /// The upstream closed it, or asked that no more is sent over it (GOAWAY).
        Closed => "closed",
        /// Reading or writing failed.
        Broken => "broken",
        /// It gave no sign of life for five seconds, or never began.
        Silent => "silent",
        /// The upstream broke the protocol.
        Protocol => "protocol",
        /// The upstream sent an endless header block.
        HeaderBlock => "header_block",
        /// The upstream sent a flood of SETTINGS frames.
        SettingsFlood => "settings_flood",
        /// The upstream sent a flood of PING frames.
        PingFlood => "ping_flood",
        /// The upstream reset too many streams in a second.
        ResetFlood => "reset_flood",
        /// The upstream sent a flood of other frames that bring nothing.
        UselessFrames => "useless_frames",
    }
}

impl From<Violation> for SessionEnd {
    fn from(violation: Violation) -> SessionEnd {
        match violation {
            Violation::Protocol(_)
            | Violation::FrameSize
            | Violation::FlowControl
            | Violation::Compression => SessionEnd::Protocol,
            Violation::HeaderBlock => SessionEnd::HeaderBlock,
            Violation::SettingsFlood => SessionEnd::SettingsFlood,
            Violation::PingFlood => SessionEnd::PingFlood,
            Violation::ResetFlood => SessionEnd::ResetFlood,
            Violation::UselessFrames => SessionEnd::UselessFrames,
        }
    }
}

labels! {
    /// Why an HTTP/2 stream ended without a response.
    pub enum StreamEnd {
        /// The upstream has not processed it, and said so. It is sent again, up to seven times.
        Refused => "refused",
        /// The upstream reset it.
        Reset => "reset",
        /// Its response broke the protocol.
        Malformed => "malformed",
        /// Its response was larger than `limits.response_bytes`.
        TooLarge => "too_large",
        /// The mirror gave it up at a deadline.
        Cancelled => "cancelled",
        /// Its connection ended.
        Connection => "connection",
    }
}

labels! {
    /// A PING with which the mirror looks whether a silent upstream still lives.
    pub enum PingResult {
        /// It was sent, because the upstream was silent with deliveries in flight, or rested for long.
        Sent => "sent",
        /// There was a sign of life.
        Answered => "answered",
        /// There was none for five seconds, which ended the connection.
        TimedOut => "timeout",
    }
}
