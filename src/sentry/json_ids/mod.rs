//! The ids and sample rates in the JSON of an envelope or of an event.
//!
//! Sampling and copying need to know to which trace, replay or session something belongs. [`paths`] lists
//! where Sentry reads such values, [`walk`] walks over a JSON text and collects them, and [`ends`] does so
//! for payloads that are too long to be walked over.

mod ends;
mod paths;
mod walk;

pub(crate) use ends::search;
pub(crate) use paths::{HEADER, IdKind, IdSpan, SEARCHED_BYTES_MAX};
pub(crate) use walk::{entries, find, search_trace_attachment};

#[cfg(test)]
mod tests;
