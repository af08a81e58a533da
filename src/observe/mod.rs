//! What the process can tell about itself: counters with closed sets of labels, and changes that
//! are worth a log line.
//!
//! The room knows nothing of what is counted, so that every other room can count.

pub mod change;
pub mod counters;
