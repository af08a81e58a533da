//! What the program should do, written a second time: slowly, in the plainest way, and without its code.
//!
//! A fuzz target compares both. Where this side is stricter than the program has to be, it says so in its
//! result rather than to follow the program's ways.

pub mod envelope;
pub mod http;
pub mod ids;
pub mod json;
pub mod request;
pub mod sampling;
