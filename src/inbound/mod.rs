//! The side that faces SDKs.
//!
//! A worker [`accept`]s connections, balanced with the other workers ([`accept_balance`]), as long as there is
//! `room`, and limited per client (`peers`). A proxy may say first for whom it connects (`proxied`), and a TLS
//! `handshake` may follow; meanwhile the connection is idle (`beginning`). It serves each as a `session` of requests,
//! which are read and replied to over a `connection`. Between requests the connection is `idle`, in the order of the
//! `idle_list`, and holds none of the memory in `spares`.
//! `handle` processes one request: `local_replies`, `authenticate` and `route`, `body`, and the fan-out. A
//! `request_log` counts it. A body that arrives more slowly than the minimum data rate is rejected.

pub(crate) mod accept;
pub(crate) mod accept_balance;
mod address_warning;
mod authenticate;
mod beginning;
mod body;
mod connection;
mod handle;
mod handshake;
mod idle;
mod idle_list;
mod local_replies;
mod peers;
mod proxied;
mod request_log;
mod room;
mod route;
mod session;
mod spares;
