//! The process: it starts one worker per core, reloads the configuration, and shuts down.
//!
//! The [`supervisor`] opens the `listener`s, some in the file system (`unix_socket`), and starts each [`worker`] on its
//! own thread. The [`certificates`] of listeners are watched. [`signals`] request a [`reload`] or the shutdown, and the
//! [`service_manager`] is notified when the mirror is ready or shuts down. [`status`] is the view of all this from
//! outside. `memory_limit` fits `limits.memory_bytes` to the container, and [`health_check`] checks a running process.

pub(crate) mod certificates;
pub(crate) mod health_check;
mod listener;
mod memory_limit;
pub(crate) mod reload;
pub(crate) mod service_manager;
pub(crate) mod signals;
pub(crate) mod status;
pub(crate) mod supervisor;
mod unix_socket;
mod worker;
