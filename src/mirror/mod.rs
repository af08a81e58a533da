//! What goes to whom, and what the SDK is told.
//!
//! - [`routes`] knows every inbound key and everything that follows from the configuration of its outbounds;
//!   `route_builder` builds it. A [`routing_table`] is that with the origins and the limits.
//! - A [`request`] is what an SDK sent. [`head_edits`] lists what changes in its head.
//! - [`send`] sends it: [`dispatch`] starts a [`delivery`] to every outbound. [`render`] is the only place where outbound bytes
//!   are made. For outbounds with a [`transform`], the [`transformer`] makes the body first: a `selector`
//!   takes what the outbound wants by [`filter`]s, then come [`copies`] and `compression`. The [`rate_limit_store`] says what an outbound does not want for a while.
//! - A [`fan_out`] records each [`outcome`]. [`reply_policy`] is the only place that decides the reply from
//!   them, [`rejection`] names every reason to refuse a request, and [`reply`] makes the bytes of both.
//! - [`core`] is what all requests of one core share.
//! - [`counters`], [`worker_metrics`], [`access_log`] and [`outbound_log`] tell operators what happens.
//! - [`crash_dialog`] is the one script that is passed on, and [`via`] shows a loop.

pub(crate) mod access_log;
mod classify;
mod compression;
pub(crate) mod copies;
pub(crate) mod core;
pub(crate) mod counters;
pub(crate) mod crash_dialog;
pub(crate) mod delivery;
mod delivery_end;
pub(crate) mod dispatch;
mod escapes;
pub(crate) mod fan_out;
pub(crate) mod filter;
pub(crate) mod head_edits;
mod media_type;
mod metric_names;
pub(crate) mod outbound_log;
pub(crate) mod outcome;
pub(crate) mod rate_limit_store;
pub(crate) mod rejection;
pub(crate) mod render;
pub(crate) mod reply;
pub(crate) mod reply_policy;
pub(crate) mod request;
mod route_builder;
pub(crate) mod routes;
pub(crate) mod routing_table;
mod selector;
pub(crate) mod send;
pub(crate) mod transform;
pub(crate) mod transformer;
pub(crate) mod via;
pub(crate) mod worker_metrics;
