//! What the process reports about itself: metrics, the status and the log.
//!
//! Workers write to [`counters`] with closed sets of [`label`]s, to [`histogram`]s of durations, and to
//! [`last_error`]. [`log_on_change`] and [`throttle`] limit how often something is logged, [`lines`] writes log lines
//! on a thread of its own, for which a [`line_buffer`] collects them, and [`words`] escapes text from peers.
//! [`family`] holds metrics in the form in which [`prometheus`] and [`statsd`] export them. [`log`] is the log of the
//! process, and [`self_report`] sends its errors to Sentry. Nothing here depends on what is counted, so the layers
//! above can all use it.

pub(crate) mod counters;
pub(crate) mod family;
pub(crate) mod histogram;
pub(crate) mod label;
pub(crate) mod last_error;
pub(crate) mod line_buffer;
pub(crate) mod lines;
pub(crate) mod log;
pub(crate) mod log_on_change;
pub(crate) mod prometheus;
pub(crate) mod self_report;
pub(crate) mod statsd;
pub(crate) mod throttle;
pub(crate) mod timestamp;
pub(crate) mod words;
