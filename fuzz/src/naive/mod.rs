//! A second, naive implementation of what the program should do, without its code.
//!
//! A fuzz target compares both. If the naive side is stricter than the program has to be, its result says so,
//! instead of imitating the program.

pub mod address;
pub mod envelope;
pub mod http;
pub mod ids;
pub mod json;
pub mod request;
pub mod sampling;
