//! Connections to upstreams, from the name of an origin to the response of its server.
//!
//! - [`origin`]: what all workers share about an origin, such as its addresses and whether it is up.
//! - [`dns`]: keeps the addresses fresh, on threads of its own.
//! - [`connect`] opens a [`stream`]: a plain [`socket`], or [`tls`] with the settings of [`tls_client`].
//! - [`exchange`] sends one request over it and reads one [`response`] from its read buffer
//!   ([`incoming`]), while [`probe`] looks for early responses.
//! - [`pool`]: one worker's connections to an origin, with its limit on deliveries in flight, its
//!   [`breaker`] and the retry of a stale connection. [`pooling`] suspends the reuse of connections.
//! - [`counters`]: what a worker counts about an origin.
//! - [`turn`]: cooperative yielding, so that no connection keeps the core to itself.

pub(crate) mod breaker;
mod certificate;
pub(crate) mod connect;
pub(crate) mod counters;
pub(crate) mod dns;
pub(crate) mod exchange;
pub(crate) mod incoming;
pub(crate) mod origin;
pub(crate) mod pool;
pub(crate) mod pooling;
pub(crate) mod probe;
pub(crate) mod response;
pub(crate) mod socket;
pub(crate) mod stream;
pub(crate) mod tls;
pub(crate) mod tls_client;
mod tls_failure;
pub(crate) mod turn;
