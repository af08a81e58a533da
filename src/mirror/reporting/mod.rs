//! What operators are told about requests.
//!
//! [`counters`] and [`item_counters`] count per route and outbound, [`worker_metrics`] per worker. [`access_log`]
//! writes a line for each request. [`disagreements`] has what one outbound took and another refused, and
//! [`unknown_keys`] who sends keys that no inbound DSN has.

pub(crate) mod access_log;
pub(crate) mod counters;
pub(crate) mod disagreements;
pub(super) mod escapes;
pub(crate) mod item_counters;
pub(crate) mod unknown_keys;
pub(crate) mod worker_metrics;
