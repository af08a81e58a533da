//! What the process can tell about itself.
//!
//! [`counters`] with closed sets of [`label`]s, latencies in a [`histogram`], [`change`]s that are
//! worth a log line, a [`throttle`] for lines that could be many and the last [`trouble`] are written where
//! things happen, and [`lines`] of a log on a thread of their own. [`family`] is what the numbers look like
//! to those who collect them, as [`prometheus`] text or pushed as [`statsd`] lines. What a peer wrote is
//! shown with the [`words`] for that. The room
//! knows nothing of what is counted, so that every other room can count.

pub mod change;
pub mod counters;
pub mod family;
pub mod histogram;
pub mod label;
pub mod lines;
pub mod moment;
pub mod prometheus;
pub mod statsd;
pub mod throttle;
pub mod trouble;
pub mod words;
