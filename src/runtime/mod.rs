//! What one core runs on.
//!
//! A [`driver`] waits for its sockets, and a [`task_pool`] carries out jobs without spawning a task for
//! each. Long work is done in [`slices`], decoding in turns by the clock ([`decoding`]), and reads and writes
//! within a [`coop_budget`], so that no connection keeps the core to itself. Everything that requests hold
//! counts in the [`memory_budget`]. [`in_flight`] and [`shutdown`] let a worker end without losing what it
//! has accepted, and a panic ends one task only ([`panics`]).

pub(crate) mod coop_budget;
pub(crate) mod deadline;
mod decode_queue;
pub(crate) mod decoding;
pub(crate) mod driver;
pub(crate) mod in_flight;
pub(crate) mod memory_budget;
pub(crate) mod panics;
pub(crate) mod resident_memory;
pub(crate) mod shutdown;
pub(crate) mod slices;
pub(crate) mod task_pool;
#[cfg(test)]
pub(crate) mod test_runtime;
