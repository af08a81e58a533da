//! The side that faces SDKs.
//!
//! A worker [`accept`]s its share of the connections ([`accept_balance`]), as many from one address as
//! `peers` allows, and serves each as a `session`: one request after the other, read and answered through a
//! `connection`. `handle` is the way of one request: `local_replies`, the key to `authenticate` it by, its
//! `body`, its fan-out. A `request_log` counts it. A client that is slower than the `min_data_rate` is
//! refused.

pub(crate) mod accept;
pub(crate) mod accept_balance;
mod authenticate;
mod body;
mod connection;
mod handle;
mod local_replies;
mod min_data_rate;
mod peers;
mod request_log;
mod route;
mod session;
