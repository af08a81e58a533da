//! What a worker counts about its connections to one origin.
//!
//! Gauges are published once a second by the task that sweeps idle connections, so that they cost a
//! delivery nothing.

use crate::telemetry::counters::{Counter, CounterVec, Gauge};
use crate::telemetry::label::{Label, labels};
use crate::upstream::breaker::BreakerState;

#[derive(Default)]
pub struct OriginCounters {
    /// Connections opened, TLS handshake included.
    pub opened: Counter,
    /// Deliveries over a pooled connection.
    pub reused: Counter,
    /// Pooled connections that the upstream had closed before they were used again.
    pub stale: Counter,
    /// Deliveries sent again because their pooled connection was stale.
    pub retries: Counter,
    /// Reusable connections that were closed.
    pub dropped: CounterVec<Dropped>,
    pub open: Gauge,
    pub idle: Gauge,
    pub in_flight: Gauge,
    /// A [`BreakerState`] as a number.
    pub breaker: Gauge,
}

labels! {
    /// Why a reusable connection was closed.
    pub enum Dropped {
        /// The pool already had `pool.idle_connections` idle connections.
        Surplus => "idle_connections",
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

impl OriginCounters {
    /// The state of the breaker when it was published last.
    pub fn breaker(&self) -> BreakerState {
        let is_published = |state: &&BreakerState| **state as u64 == self.breaker.get();
        let found = BreakerState::ALL.iter().find(is_published);
        found.copied().unwrap_or(BreakerState::Closed)
    }
}
