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
pub(crate) mod changes;
pub(crate) mod copies;
pub(crate) mod counters;
pub(crate) mod deliver;
pub(crate) mod dialog;
mod escapes;
pub(crate) mod handling;
pub(crate) mod lanes;
pub(crate) mod limited;
mod media;
mod names;
pub(crate) mod outcome;
pub(crate) mod portion;
pub(crate) mod rejection;
pub(crate) mod reply;
pub(crate) mod rewrite;
pub(crate) mod routes;
pub(crate) mod totals;
pub(crate) mod verdict;
pub(crate) mod via;
