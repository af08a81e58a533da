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

pub mod access;
pub mod changes;
pub mod copies;
pub mod counters;
pub mod deliver;
pub mod dialog;
mod escapes;
pub mod handling;
pub mod lanes;
pub mod limited;
mod media;
mod names;
pub mod portion;
pub mod rejection;
pub mod reply;
pub mod rewrite;
pub mod routes;
pub mod totals;
pub mod verdict;
pub mod via;
