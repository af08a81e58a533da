//! What a worker counts about its connections to one origin.
//!
//! Gauges are published once a second by the task that sweeps idle connections, so that they cost a
//! delivery nothing.

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
