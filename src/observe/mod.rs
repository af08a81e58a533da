//! What the process can tell about itself: counters with closed sets of labels.

pub mod counters;
