//! What one core runs on: tasks that are used again, slices of long work, and an orderly end.

pub(crate) mod coop;
mod decode_queue;
pub(crate) mod decoding;
pub(crate) mod in_flight;
pub(crate) mod shutdown;
pub(crate) mod task_pool;
