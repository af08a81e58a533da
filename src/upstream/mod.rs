//! Upstreams, from the name of an origin to the response of its server.
//!
//! - [`origin`]: what all workers share about an origin, such as its addresses and whether it is up.
//! - [`addresses`]: its addresses, what is known of each, and which to try first.
//! - [`resolver`]: keeps the addresses fresh, on a few threads; [`lookup_schedule`] says when.
//! - [`connector`]: opens a connection.
//! - [`exchange`]: sends one request over it and reads one [`response`] from its [`read_buffer`].
//! - [`silence`] ends an exchange whose transfer does not move.
//! - [`pool`]: one worker's deliveries to an origin, with the limit on how many are in flight and the retry of a
//!   stale connection.
//! - [`connections`]: the connections of a pool. [`demand`] says how many to keep, [`dial_window`] how many
//!   to open at a time, both from the [`shortest`] of recent durations; [`waiting`] holds the deliveries that
//!   wait for a [`pooled`] connection. [`pooling`] suspends the reuse of connections.
//! - [`http2`]: connections that carry many deliveries at a time, where [`protocol`] says that an origin gets HTTP/2.
//! - [`breaker`]: when deliveries are dropped because the upstream is down. Its [`circuit`]s count failures, its
//!   [`probe_schedule`] says when to [`probe`], and [`shared_breaker`] shares it among the workers.
//! - [`counters`]: what a worker counts about an origin.

pub(crate) mod addresses;
pub(crate) mod breaker;
mod circuit;
pub(crate) mod connections;
pub(crate) mod connector;
pub(crate) mod counters;
pub(crate) mod demand;
pub(crate) mod dial_window;
pub(crate) mod exchange;
pub(crate) mod http2;
mod jitter;
mod lookup_schedule;
pub(crate) mod origin;
pub(crate) mod pool;
pub(crate) mod pooled;
pub(crate) mod pooling;
pub(crate) mod probe;
mod probe_schedule;
pub(crate) mod protocol;
pub(crate) mod read_buffer;
pub(crate) mod resolver;
pub(crate) mod response;
pub(crate) mod shared_breaker;
mod shared_time;
pub(crate) mod shortest;
pub(crate) mod silence;
pub(crate) mod tunnel;
pub(crate) mod waiting;
