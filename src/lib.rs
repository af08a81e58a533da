//! sentry-mirror accepts what Sentry SDKs send to an *inbound DSN* and mirrors each request to one or more
//! *outbound DSNs*. A worker per core, on io_uring or epoll, accepts connections, parses, rewrites and
//! delivers. Workers share the listening socket, the routing table, and what is known of an upstream: its
//! addresses, its rate limits, whether it is up. Each has its own connections and counters, and leases a part of
//! one memory budget.
//!
//! # The life of a request
//!
//! ```text
//! inbound/accept                      a worker accepts a connection, and spawns a session
//! inbound/session                     read a head; handle; write the reply; again
//!   inbound/connection                  reads and writes the socket
//!   mirror/request/client_address       who sent it: the peer, or the client that a trusted proxy names
//!   inbound/request_log                 counts the request, adds it to the access log
//!   inbound/handle                      the way of one request:
//!     mirror/request                      parse_target: what its path asks for (sentry/endpoint)
//!     inbound/local_replies               health checks, preflights, wrong methods: reply here
//!     inbound/route                       the route of the key in the head (inbound/authenticate)
//!     inbound/body                        read, decode as far as needed, scan the envelope header
//!     inbound/route                       for a tunnel: the route of the key in the envelope
//!     mirror/request/head_edits           what changes in the head
//!     mirror/fan_out/send                 check that all fits into memory; dispatch; wait for the reply
//!       mirror/fan_out/dispatch             each outbound: rate limited? memory? → render → a delivery
//!         mirror/transform/transformer        some outbounds, in one task: select, copy, compress
//!         mirror/fan_out/render               the only place where texts of the request are replaced
//!       mirror/fan_out/delivery             on a pooled task, to its outcome:
//!         upstream/pool                       breaker, connection, again over another one
//!         upstream/exchange, upstream/http2   send the request, read the response
//!         upstream/silence                    ends it if nothing moves
//!       mirror/fan_out                      records the outcomes
//!       mirror/reply/reply_policy           decides from them; mirror/reply makes the reply
//! ```
//!
//! # When an outbound is slow or dead
//!
//! Its deliveries wait alone. Each has a task and a deadline; all of an upstream have a number and a share of the
//! memory that they may not exceed (`upstream/pool`, `runtime/memory_budget`). After several failures the circuit
//! breaker drops them at once (`upstream/breaker`). A panic ends one delivery (`mirror/fan_out/delivery`). Its rate
//! limits are passed on only if every live outbound has them too (`mirror/outbound/rate_limit_store`). The SDK
//! waits for `reply_timeout` at most: for the primary, and for the others while none has accepted
//! (`mirror/reply/reply_policy`). The memory of a request is held until its last delivery ends.
//!
//! Isolation is by upstream. Outbounds with the same scheme, host, port, TLS settings and proxy share connections
//! and a circuit.
//!
//! # What workers share
//!
//! A request writes to almost no cache line that another worker reads or writes, so that more cores stay as fast.
//! All exceptions are in this table:
//!
//! | what | who writes, how often |
//! | --- | --- |
//! | routes, the routing table, limits | nobody: a worker has an `Rc` of its own for each (`mirror/routing/local_route`) |
//! | counters, gauges, histograms | each worker its own, on lines of their own (`telemetry/counters`) |
//! | the memory budget | a lease of up to 4 MiB (`runtime/memory_lease`) |
//! | resident memory | each worker after 1 MiB of reservations (`runtime/resident_memory`) |
//! | the access log | a block of 32 KiB, or ten times a second (`telemetry/line_buffer`) |
//! | numbers of open connections | each worker its own, for each connection of an SDK (`inbound/accept_balance`) |
//! | addresses of an upstream | for each connection to it (`upstream/addresses`) |
//! | breaker, rate limits, the log of an outage | only at a failure, or while there is one |
//!
//! # The layers
//!
//! Each uses only those below it, and no two files use each other; `tests/it/tidy` checks both. `internals`
//! gives benches and fuzz targets what they need.
//!
//! | module | what it is |
//! | --- | --- |
//! | `run` | what the command line asks for |
//! | `parity` | compares what the mirror has counted with what Sentry has |
//! | `trial` | `--check --connect` and `test`, to try a configuration |
//! | `demo` | `demo` and `sink`, to see the mirror work |
//! | `admin` | the port for operators: metrics, status, health |
//! | `process` | supervisor, workers, signals, reload |
//! | `inbound` | the side that faces SDKs: one connection, one request |
//! | `mirror` | routes, the request, what outbounds get of it, the reply |
//! | `upstream` | one origin: addresses, pool, exchange, circuit breaker |
//! | `blocking` | HTTP/1.1 over blocking sockets, for `parity`, `trial` and `demo` |
//! | `net` | plain and TLS sockets |
//! | `telemetry` | counters, metrics and their exporters, the log |
//! | `runtime` | one core: driver, tasks, memory budget, shutdown |
//! | `config` | file and environment to a configuration |
//! | `sentry` | Sentry's protocol, without I/O |
//! | `http2` | the client side of HTTP/2, without I/O |
//! | `http` | HTTP/1.1, without I/O |
//! | `limits`, `os_errors`, `sys`, `span` | bounds, advice on system errors, system calls, a range of bytes |
//!
//! # Where to add what
//!
//! | to add | go to |
//! | --- | --- |
//! | a content coding that SDKs may send | `http/encoding`: a file of its own, `name.rs`, `decoder.rs`; `Accept-Encoding` in `mirror/reply/mod.rs` |
//! | a content coding for outbounds | `http/compress.rs`; `Compression` in `config/model.rs`, `mirror/transform/mod.rs` |
//! | an endpoint | its path in `classify` of `sentry/endpoint/target.rs`, its kind in `kind.rs`, its answer in `answer.rs`; its items in `sentry/category.rs` |
//! | an item type of Sentry | `from_item_type` in `sentry/category.rs`; `item_kind.rs` if it is an event or belongs to one, `quantity.rs` if it holds several |
//! | a rule of the reply | by outcomes: `mirror/reply/reply_policy.rs`, with a row in its table of tests; before any outbound: `inbound/local_replies.rs`; a request that the mirror refuses: `mirror/reply/rejection.rs` |
//! | a metric | `admin/metrics.rs`, one row of the catalogue; a new counter in `mirror/reporting/counters.rs` or `mirror/reporting/worker_metrics.rs`, and its line in `admin/snapshot.rs` |
//! | a reason for not sending | `SkipReason` in `mirror/fan_out/outcome.rs`, `OutcomeKind` in `mirror/reporting/counters.rs`, `class` in `mirror/reply/reply_policy.rs` |
//! | a limit | `limits.rs`; its key in `config/limits.rs`, `config/effective.rs` and `config.example.yml` |
//! | a header for outbounds | a fixed one is configured (`config/headers.rs`); a computed one: `append_own_headers` in `mirror/fan_out/render.rs`, and `edit_head` in `mirror/request/head_edits.rs` removes the client's own |
//! | an option of outbounds | `config/model.rs`, `outbound.rs`, `effective.rs`, `describe.rs`; then `mirror/routing/routes.rs` and `route_builder.rs` |
//!
//! # Words
//!
//! *Inbound* is the side that faces SDKs, *outbound* a configured target DSN. A *route* is an inbound key with its
//! outbounds; the first is the *primary*. An *origin* is scheme, host and port, and an *upstream* an origin with
//! the TLS settings and the proxy by which it is reached: what a pooled connection belongs to. A *key site* is a
//! place where the inbound key is written, and an *edit* a place of a request that changes. A *transform* is what
//! is done for outbounds that do not get the whole body: a *selection* of its items, copies, a compression. What it
//! makes has a *front*, in which each outbound's texts differ, and a *rest* that all share. A *delivery* is one
//! outbound request; it ends in an *outcome*. A *rejection* is a request that the mirror itself refuses. An
//! outbound is *live* unless it answered 401, 403 or 404. Memory is *keyless* while no configured key of the
//! request is known. A *worker* is one thread with its own runtime; `Core` is what its requests share.

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
mod blocking;
mod cli;
mod config;
mod demo;
mod http;
mod http2;
mod inbound;
#[doc(hidden)]
pub mod internals;
mod limits;
mod mirror;
mod net;
mod os_errors;
mod parity;
mod process;
mod run;
mod runtime;
mod sentry;
mod span;
mod sys;
mod telemetry;
mod trial;
mod upstream;

pub use cli::Arguments;
pub use run::{RunError, run};
