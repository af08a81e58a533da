//! sentry-mirror accepts what Sentry SDKs send to an *inbound* DSN and mirrors each request to one or
//! more *outbound* DSNs. Every module is a room that uses only the rooms below it.

#![cfg_attr(
    test,
    allow(
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unwrap_used
    )
)]

mod admin;
mod budget;
mod causes;
mod cli;
mod config;
mod deadline;
mod demo;
mod health;
mod http;
#[doc(hidden)]
pub mod internals;
mod limits;
mod logging;
mod mirror;
mod observe;
mod panics;
mod reload;
mod report;
mod resident;
mod run;
mod runtime;
mod sentry;
mod server;
mod span;
mod sys;
#[cfg(test)]
mod test_runtime;
mod upstream;

pub use cli::Arguments;
pub use run::{RunError, run};
