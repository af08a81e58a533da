//! The program as its users meet it: every test drives the real binary over real sockets.
//!
//! In reading order:
//!
//! - `mirroring`: a request arrives, rewritten and whole, at every outbound.
//! - `replies`: what the SDK is told, and when.
//! - `reply_table`: the whole reply table, for both policies.
//! - `rate_limits`: what an outbound is not sent while it is rate limited.
//! - `requests`: framing, limits, rejections, keep-alive, CORS, health.
//! - `limits`: bounds that no answer tells of.
//! - `upstreams`: pooled, stale, dead, slow and malformed upstreams.
//! - `unsolicited_responses`: upstreams that send more than they were asked for.
//! - `early_responses`: what upstreams say before they have the whole request.
//! - `parser`: every doubtful byte, with a verdict from the RFCs.
//! - `chaos`: everything an upstream can do wrong, at once, under load.
//! - `process_pause`: a process that is stopped and goes on.
//! - `memory_fairness`: who may take how much of the memory budget.
//! - `fd_exhaustion`: no file descriptors left.
//! - `client_disconnects`: clients that vanish, and a mirror that stops under load.
//! - `tls`: private certificate authorities.
//! - `tls_flood`: servers that send messages of TLS without end.
//! - `load`: many requests, many connections, many workers.
//! - `loops`: a mirror that would feed itself.
//! - `endpoints`: every endpoint, method and place of the key.
//! - `selection`: categories, shares, copies and forms of an outbound.
//! - `cpu_exhaustion`: small requests that are a lot of work for outbounds with options.
//! - `dialog`: the crash-report dialog.
//! - `minidump`: the largest request that has to pass.
//! - `command_line`: configurations good and bad, exit codes, signals.
//! - `os_errors`: errors of the system, with the cause that holds.
//! - `signals`: signals while the mirror reads, resolves, starts.
//! - `handover`: one process follows on another without losing a request.
//! - `health`: the sub-command that asks a running mirror.
//! - `deploy`: what deploys it says what it should.
//! - `metrics`: every counter moves when it should, and by how much.
//! - `connection_metrics`: connections to upstreams and items, counted.
//! - `admin`: the pages for operators, and that they can be left running.
//! - `statsd`: what a statsd server receives.
//! - `access_log`: one line for each request.
//! - `report`: the mirror's own errors, reported.
//! - `dashboards`: the dashboard and the alerts.
//! - `documents`: generated parts of the documents match the code.
//! - `tidy`: the layers, no circles of imports, and crates with known advisories.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used
)]

mod access_log;
mod admin;
mod chaos;
mod client_disconnects;
mod command_line;
mod connection_metrics;
mod cpu_exhaustion;
mod dashboards;
mod deploy;
mod dialog;
mod documents;
mod early_responses;
mod endpoints;
mod fd_exhaustion;
mod handover;
mod health;
mod limits;
mod load;
mod log_injection;
mod loops;
mod memory;
mod memory_fairness;
mod metrics;
mod minidump;
mod mirroring;
mod os_errors;
mod parser;
mod process_pause;
mod rate_limits;
mod replies;
mod reply_table;
mod report;
mod requests;
mod selection;
mod signals;
mod state_log;
mod statsd;
mod support;
mod tidy;
mod tls;
mod tls_flood;
mod unsolicited_responses;
mod upstreams;
