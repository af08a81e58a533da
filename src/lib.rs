//! sentry-mirror accepts what Sentry SDKs send to an *inbound DSN* and mirrors each request to one or more
//! *outbound DSNs*. One io_uring runtime per core accepts connections, parses, rewrites and delivers; cores
//! share nothing mutable but counters.
//!
//! # The life of a request
//!
//! ```text
//! inbound/accept            a worker accepts a connection               → serve(core, connection)
//! inbound/session           read a head, handle it, write the reply, again
//! inbound/handle            the way of one request:
//!   sentry/endpoint           what its path asks for
//!   inbound/local_replies     health checks, preflights, wrong methods  → reply
//!   inbound/authenticate      the key, and so the route
//!   inbound/body              read and decode, as far as the route needs
//!   sentry/envelope           what changes in the envelope header
//!   mirror/head_edits         what changes in the head
//! mirror/dispatch           for each outbound: rate limited? memory? → render → deliver
//!   mirror/transformer        for some outbounds first: filter, copy, compress
//! mirror/delivery           one outbound request, on a task of the pool
//!   upstream/pool             a connection: check out → exchange → check in
//! mirror/fan_out            records the outcomes, until reply_policy can decide
//! inbound/request_log       counts the request, adds it to the access log
//! ```
//!
//! # The layers
//!
//! Each uses only those below it, and no two files use each other; `tests/it/tidy` checks both.
//!
//! | module | what it is |
//! | --- | --- |
//! | `run` | what the command line asks for |
//! | `demo` | `demo` and `sink`, to see the mirror work |
//! | `admin` | the port for operators: metrics, status, health |
//! | `process` | supervisor, workers, signals, reload |
//! | `inbound` | the side that faces SDKs: one connection, one request |
//! | `mirror` | routes, the request, what outbounds get of it, the reply |
//! | `upstream` | one origin: addresses, pool, exchange, circuit breaker |
//! | `net` | plain and TLS sockets |
//! | `telemetry` | counters, metrics and their exporters, the log |
//! | `runtime` | one core: driver, tasks, memory budget, shutdown |
//! | `config` | file and environment to a configuration |
//! | `sentry` | Sentry's protocol, without I/O |
//! | `http` | HTTP/1.1, without I/O |
//! | `limits`, `os_errors`, `sys`, `span` | bounds, advice on system errors, system calls, a range of bytes |
//!
//! # Where to add what
//!
//! | to add | go to |
//! | --- | --- |
//! | a content coding | `http/encoding`: a file of its own, and a row in `name.rs` and `decoder.rs` |
//! | an endpoint | `sentry/endpoint/kind.rs`; the compiler names the other places |
//! | a rule of the reply | `mirror/reply_policy.rs`, with a row in its table of tests |
//! | a metric | `admin/metrics.rs`, one row of the catalogue |
//! | a limit | `limits.rs`, and its key in `config/limits.rs` |
//! | a header for outbounds | `mirror/render.rs`, `append_own_headers` |
//! | an option of outbounds | `config/outbound.rs`, then `mirror/routes.rs` |
//!
//! # Words
//!
//! *Inbound* is the side that faces SDKs, *outbound* a configured target DSN. A *route* is an inbound key
//! with its outbounds; the first is the *primary*. An *origin* is scheme, host and port: what a pooled
//! connection belongs to. A *key site* is a place where the inbound key is written, and an *edit* a place of
//! a request that changes. A *delivery* is one outbound request; it ends in an *outcome*. A *rejection* is a
//! request that the mirror itself refuses. A *worker* is one thread with its own runtime.

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
mod cli;
mod config;
mod demo;
mod http;
mod inbound;
#[doc(hidden)]
pub mod internals;
mod limits;
mod mirror;
mod net;
mod os_errors;
mod process;
mod run;
mod runtime;
mod sentry;
mod span;
mod sys;
mod telemetry;
mod upstream;

pub use cli::Arguments;
pub use run::{RunError, run};
