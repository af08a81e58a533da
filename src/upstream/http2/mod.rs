//! HTTP/2 to an upstream: a connection carries many deliveries at a time.
//!
//! [`sessions`] holds one worker's connections to an origin, chooses one for a delivery, and opens more. A
//! [`session`] is such a connection, with a [`slots`] entry for each delivery and [`output_memory`] for what it has
//! to send, over the state machine of `crate::http2`. Its [`tasks`] read, write, and watch for silence. Deliveries
//! only add frames to the output of their session: the task that writes runs after all that is ready to run, so the
//! frames of one turn of the event loop leave in one send.

pub(crate) mod sessions;

mod output_memory;
mod session;
mod slots;
mod tasks;
