//! Tests of the program from outside: each drives the real binary over real sockets.
//!
//! In reading order:
//!
//! - `mirroring`: a request arrives, rewritten and whole, at every outbound.
//! - `replies`: what the mirror replies to the SDK, and when.
//! - `reply_table`: the whole reply table, for both policies.
//! - `rate_limits`: what a rate-limited outbound does not get.
//! - `client_address`: which address each outbound gets.
//! - `requests`: framing, limits, rejections, keep-alive, CORS, health.
//! - `limits`: limits that no reply shows.
//! - `eviction`: idle connections make room for new ones.
//! - `upstreams`: pooled, stale, dead, slow and malformed upstreams.
//! - `addresses`: hosts with several addresses, hosts that move, names that are not resolved at first.
//! - `http2`: upstreams that speak HTTP/2, and what they can do wrong.
//! - `unsolicited_responses`: upstreams that send more than one response per request.
//! - `early_responses`: responses that come before the whole request was sent.
//! - `slow_uploads`: large bodies to upstreams that take them slowly.
//! - `parser`: every doubtful byte, with a verdict from the RFCs.
//! - `chaos`: everything an upstream can do wrong, at once, under load.
//! - `process_pause`: SIGSTOP and SIGCONT.
//! - `memory_fairness`: who may take how much of the memory budget.
//! - `fd_exhaustion`: no file descriptors left.
//! - `client_disconnects`: clients that disconnect, and a mirror that stops under load.
//! - `tls`: private certificate authorities.
//! - `tls_flood`: servers that send TLS messages without end.
//! - `tls_inbound`: listeners with TLS, and what their clients can do wrong.
//! - `load`: many requests, many connections, many workers.
//! - `loops`: mirrors that send to themselves.
//! - `endpoints`: every endpoint, method and place of the key.
//! - `selection`: categories, sample rates, copies and encodings of an outbound.
//! - `cpu_exhaustion`: small requests that cause a lot of work.
//! - `dialog`: the crash-report dialog.
//! - `minidump`: the largest request that has to pass.
//! - `command_line`: configurations, exit codes, signals.
//! - `os_errors`: errors of the operating system, and their causes.
//! - `signals`: signals during a start or a reload.
//! - `listeners`: more ports, and sockets in the file system.
//! - `proxy_protocol`: connections of proxies that say for whom they connect.
//! - `handover`: a new process takes over without losing a request.
//! - `health`: the subcommand that checks a running mirror.
//! - `deploy`: the seccomp profiles, the image, the units.
//! - `metrics`: every counter moves when it should, and by how much.
//! - `connection_metrics`: counters of upstream connections and of items.
//! - `admin`: the pages for operators.
//! - `statsd`: what a statsd server receives.
//! - `access_log`: one line for each request.
//! - `report`: the mirror reports its own errors.
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
mod addresses;
mod admin;
mod breaker;
mod caps;
mod chaos;
mod client_address;
mod client_certificates;
mod client_disconnects;
mod command_line;
mod commands;
mod connection_metrics;
mod cpu_exhaustion;
mod dashboards;
mod deploy;
mod dialog;
mod disagreements;
mod documents;
mod early_responses;
mod endpoints;
mod eviction;
mod fd_exhaustion;
mod handover;
mod health;
mod http2;
mod incidents;
mod items;
mod limits;
mod listeners;
mod load;
mod log_injection;
mod loops;
mod memory;
mod memory_fairness;
mod metrics;
mod minidump;
mod mirroring;
mod names;
mod os_errors;
mod overload;
mod parity;
mod parser;
mod process_pause;
mod proxy;
mod proxy_protocol;
mod rate_limits;
mod replies;
mod reply_table;
mod report;
mod requests;
mod secrets;
mod selection;
mod signals;
mod slow_uploads;
mod state_log;
mod statsd;
mod support;
mod tidy;
mod tls;
mod tls_flood;
mod tls_inbound;
mod trial;
mod unknown_keys;
mod unsolicited_responses;
mod upstreams;
