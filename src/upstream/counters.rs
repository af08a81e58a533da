//! What a worker knows and counts about its connections to one origin.
//!
//! The numbers that go up and down are published once a second, by the task that looks through the idle
//! connections anyway, so that a delivery pays nothing for them.

use crate::observe::counters::{Counter, CounterVec, Gauge};
use crate::observe::label::{Label, labels};
use crate::upstream::breaker::BreakerState;

/// One worker's numbers about one origin.
#[derive(Default)]
pub struct OriginCounters {
    /// Connections opened, TLS handshake included.
    pub opened: Counter,
    /// Deliveries that went over a connection which was open already.
    pub reused: Counter,
    /// Idle connections found closed by the upstream when they were to be used.
    pub stale: Counter,
    /// Deliveries sent once more because the reused connection failed.
    pub retries: Counter,
    /// Connections that could have been used again, and were closed.
    pub dropped: CounterVec<Dropped>,
    /// Connections open now.
    pub open: Gauge,
    /// Those of them that wait to be used.
    pub idle: Gauge,
    /// Deliveries under way now.
    pub in_flight: Gauge,
    /// The state of the breaker, a [`BreakerState`] as a number.
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
        /// The upstream sent data that was not part of a response.
        Unsolicited => "unsolicited_data",
        /// The upstream recently sent such data, so its connections are not pooled for a while.
        Suspended => "not_pooled",
    }
}

impl OriginCounters {
    /// The state of the breaker, as published last.
    pub fn breaker(&self) -> BreakerState {
        let is_published = |state: &&BreakerState| **state as u64 == self.breaker.get();
        let found = BreakerState::ALL.iter().find(is_published);
        found.copied().unwrap_or(BreakerState::Closed)
    }
}
