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

pub mod admin;
pub mod budget;
pub mod causes;
pub mod cli;
pub mod config;
pub mod deadline;
pub mod demo;
pub mod health;
pub mod http;
pub mod limits;
pub mod logging;
pub mod mirror;
pub mod observe;
pub mod panics;
pub mod reload;
pub mod report;
pub mod resident;
pub mod sentry;
pub mod server;
pub mod span;
pub mod sys;
pub mod upstream;
