//! HTTP/1.1 over blocking sockets, for commands and the demo: simple, and independent of the mirror's own code.
//!
//! [`client`] asks a server once, [`concurrently`] many of them at a time. [`message`] reads what arrives, of clients
//! and of servers.

pub(crate) mod client;
pub(crate) mod concurrently;
pub(crate) mod message;
