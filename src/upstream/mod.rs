//! The network out: from an origin's name to the answer of its server.
//!
//! In reading order: [`origin`] is what all workers know of an origin (addresses, TLS, whether it
//! is up), [`dns`] keeps the addresses fresh from a thread of its own, [`stream`] is one connection
//! (plain or [`tls`], whose `certificate` is checked and whose `tls_failure`s are told) with a
//! [`probe`] for early answers, [`connect`] opens it, [`exchange`] sends one request over it and reads
//! one [`response`] from what is [`incoming`], and [`pool`] is a worker's own side of an origin: its
//! pool, its cap on deliveries in flight, its [`breaker`] and the retry of a stale connection.
//! [`pooling`] is whether connections to an origin may be used again at all. [`counters`] are what a
//! worker can tell of it. [`turn`] keeps any of it from taking the core for itself.

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
