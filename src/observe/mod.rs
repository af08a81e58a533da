//! What the process can tell about itself: counters with closed sets of labels.
//!
//! The room knows nothing of what is counted, so that every other room can count.

pub mod counters;
