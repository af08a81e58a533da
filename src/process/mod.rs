//! The process: it starts one worker per core, changes their configuration, and stops them.
//!
//! The [`supervisor`] opens the `listener` and starts every [`worker`] on a thread of its own. [`signals`]
//! ask for a [`reload`] or for the end, and the [`service_manager`] is told of both. [`status`] is what
//! can be seen of all this from outside. `memory_limit` fits `limits.memory_bytes` to the container, and a
//! [`health_check`] asks a running process.

pub(crate) mod health_check;
mod listener;
mod memory_limit;
pub(crate) mod reload;
pub(crate) mod service_manager;
pub(crate) mod signals;
pub(crate) mod status;
pub(crate) mod supervisor;
mod worker;
