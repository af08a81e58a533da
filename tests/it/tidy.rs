//! Rules about the source tree that no tool of Rust checks.

mod advisories;
mod circles;
mod imports;
mod layers;
