//! What goes to whom, and what the SDK is told.
//!
//! [`routes`] knows every inbound key and everything that can be computed about its outbounds at
//! load. For outbounds with a [`handling`] there is a [`portion`] of a request, and perhaps [`copies`] of
//! it. [`rewrite`] is the only place where outbound bytes are made. [`deliver`] sends them to all
//! outbounds at once, over [`lanes`], and keeps their outcomes; [`limited`] remembers what they asked not
//! to be sent. [`verdict`] is the only place that decides the answer from them, [`rejection`] the only
//! place that refuses a request, and [`reply`] makes the bytes of both, in `media` types that a browser
//! does not run; [`dialog`] is the one script. [`via`] is how a loop is noticed,
//! and [`changes`] what the log is told of an outbound.

pub(crate) mod access;
mod build_routes;
pub(crate) mod changes;
mod classify;
mod compression;
pub(crate) mod copies;
pub(crate) mod core;
pub(crate) mod counters;
pub(crate) mod delivery;
pub(crate) mod dialog;
pub(crate) mod dispatch;
mod escapes;
pub(crate) mod fan_out;
pub(crate) mod handling;
pub(crate) mod limited;
mod media;
mod names;
pub(crate) mod outcome;
pub(crate) mod plan;
pub(crate) mod portion;
pub(crate) mod rejection;
pub(crate) mod render;
pub(crate) mod reply;
pub(crate) mod request;
pub(crate) mod rewrite;
pub(crate) mod routes;
pub(crate) mod totals;
pub(crate) mod transform;
pub(crate) mod verdict;
pub(crate) mod via;
