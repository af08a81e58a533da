//! Commands that try a configuration before, or while, a mirror runs with it.
//!
//! [`connect`] asks each outbound whether it would accept something, and stores nothing there. [`send`] sends one
//! real event, through the running mirror or straight to the outbounds. A `target` is an outbound as these
//! commands see it, `envelope` is what they send, `verdict` puts an answer into words, and `mirror_status`
//! is what a running mirror has counted.

pub(crate) mod connect;
mod envelope;
mod mirror_status;
pub(crate) mod send;
mod target;
mod verdict;
