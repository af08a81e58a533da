//! The runtime of one core.
//!
//! A [`driver`] waits for sockets, and a [`task_pool`] runs jobs without spawning a task for each. So that no
//! connection blocks the others, long work runs in [`slices`], decoding ([`decoding`]) and TLS handshakes in timed
//! turns ([`turn_queue`], by [`recent_work`]), and reads and writes within a [`coop_budget`]. A [`deadline`] bounds
//! what waits, and a [`deadline_queue`] keeps all of them. The [`memory_budget`] counts all memory of requests; a
//! [`memory_lease`] shares the budget of the process out to the workers, and [`lateness`] shows that one is
//! overloaded. [`in_flight`] and [`shutdown`] let a worker shut down without losing accepted requests, and a panic
//! ends only one task ([`panics`]).

pub(crate) mod coop_budget;
pub(crate) mod deadline;
mod deadline_queue;
pub(crate) mod decoding;
pub(crate) mod driver;
pub(crate) mod in_flight;
pub(crate) mod lateness;
pub(crate) mod memory_budget;
pub(crate) mod memory_lease;
pub(crate) mod min_data_rate;
pub(crate) mod panics;
mod recent_work;
pub(crate) mod resident_memory;
pub(crate) mod shutdown;
pub(crate) mod slices;
pub(crate) mod task_pool;
#[cfg(test)]
pub(crate) mod test_runtime;
pub(crate) mod turn_queue;
