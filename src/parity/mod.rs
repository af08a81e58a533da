//! `sentry-mirror parity`: does each organization have what the mirror sent, and if not, why?
//!
//! [`counts`] are what a running mirror has counted, by hour. [`stats`] are what Sentry says. [`compare`] puts both
//! side by side, and explains the difference. [`report`] is that as a table or as JSON. [`command`] asks everybody.
//! All but `command` are pure.

mod api;
pub(crate) mod command;
mod compare;
mod counts;
mod report;
mod stats;
