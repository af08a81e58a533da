//! Sockets: plain and TLS connections to upstreams, and what SDK connections share with them.
//!
//! A [`stream`] is a plain [`socket`], or [`tls`] with the settings of [`tls_client`]. While it sends,
//! [`early_response`] looks for a response that comes before the request is sent whole. How far an exchange has come
//! is in its [`transfer`]. A proxy in front of the mirror may begin with a header of the [`proxy_protocol`]. What
//! waits for a response has one of the [`spare_buffers`]. For HTTP/2, a stream is split into the halves of a
//! [`duplex`] connection. Commands that ask a server once use [`blocking`] sessions.
//!
//! A [`server_stream`] is the other side, that of an SDK: a plain socket too, or what became of a handshake
//! ([`tls_accept`]) with the certificates of its listener ([`tls_server`]).

pub(crate) mod blocking;
mod certificate;
pub(crate) mod duplex;
pub(crate) mod early_response;
mod identity;
pub(crate) mod proxy_protocol;
pub(crate) mod server_stream;
pub(crate) mod socket;
pub(crate) mod spare_buffers;
pub(crate) mod stream;
pub(crate) mod tls;
pub(crate) mod tls_accept;
pub(crate) mod tls_client;
pub(crate) mod tls_clients;
pub(crate) mod tls_failure;
mod tls_overhead;
pub(crate) mod tls_server;
pub(crate) mod transfer;
