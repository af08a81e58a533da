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
    /// Why a connection that could have been used again was closed.
    pub enum Dropped {
        /// `pool.idle_connections` were waiting already.
        Surplus => "idle_connections",
        /// Nobody used it for `pool.idle_timeout`.
        Idle => "idle_timeout",
        /// It was open for `pool.max_age`.
        Old => "max_age",
        /// Something came over it that nobody had asked for.
        Unsolicited => "unsolicited_data",
        /// That has happened to the origin a short while ago.
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
