//! What the process can tell about itself.
//!
//! [`counters`] with closed sets of [`label`]s, latencies in a [`histogram`], [`change`]s that are
//! worth a log line, a [`throttle`] for lines that could be many and the last [`trouble`] are written where
//! things happen, and [`lines`] of a log on a thread of their own. [`family`] is what the numbers look like
//! to those who collect them, as [`prometheus`] text or pushed as [`statsd`] lines. What a peer wrote is
//! shown with the [`words`] for that. The room
//! knows nothing of what is counted, so that every other room can count.

pub(crate) mod change;
pub(crate) mod counters;
pub(crate) mod family;
pub(crate) mod histogram;
pub(crate) mod label;
pub(crate) mod lines;
pub(crate) mod moment;
pub(crate) mod prometheus;
pub(crate) mod statsd;
pub(crate) mod throttle;
pub(crate) mod trouble;
pub(crate) mod words;
