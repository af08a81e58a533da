//! What the process reports about itself: metrics, the status and the log.
//!
//! Workers write to [`counters`] with closed sets of [`label`]s, to [`histogram`]s of durations, and to
//! [`last_error`]. [`change`] and [`throttle`] limit how often something is logged, [`lines`] writes log
//! lines on a thread of its own, and [`words`] escapes text from peers. [`family`] holds metrics in the
//! form in which [`prometheus`] and [`statsd`] export them. Nothing here depends on what is counted, so
//! every other module can use it.

pub(crate) mod change;
pub(crate) mod counters;
pub(crate) mod family;
pub(crate) mod histogram;
pub(crate) mod label;
pub(crate) mod last_error;
pub(crate) mod lines;
pub(crate) mod prometheus;
pub(crate) mod statsd;
pub(crate) mod throttle;
pub(crate) mod timestamp;
pub(crate) mod words;
