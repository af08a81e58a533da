//! The real binary, scripted upstreams, a raw client.
//!
//! Nothing here shares code with the mirror, so that the tests show mistakes of its parsers. Nothing sleeps to
//! wait for a condition; every wait ends with its condition, or fails after [`PATIENCE`].

pub(crate) mod client;
pub(crate) mod config;
pub(crate) mod documented_limits;
pub(crate) mod http2;
pub(crate) mod ledger;
pub(crate) mod metrics;
pub(crate) mod proc;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod reloadable;
pub(crate) mod tls;
pub(crate) mod upstream;

use std::time::Duration;

pub(crate) use client::{Client, Response};
pub(crate) use config::{Config, outbound};
pub(crate) use metrics::Metrics;
pub(crate) use proc::wait_until;
pub(crate) use process::Process;
pub(crate) use reloadable::Reloadable;
pub(crate) use upstream::{Action, Upstream, deaf};

/// How long a test waits for something that should happen at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Whether a test has to be skipped, because the machine lacks what it needs. It fails there, so that a
/// test that did not run never looks like one that passed; `ALLOW_SKIP=1` in the environment lets it.
pub(crate) fn is_skipped(can_run: bool, needs: &str) -> bool {
    let is_allowed = std::env::var_os("ALLOW_SKIP").is_some();
    assert!(
        can_run || is_allowed,
        "not run: it needs {needs}; ALLOW_SKIP=1 skips it"
    );
    !can_run
}

/// The inbound key of most tests.
pub(crate) const IN_KEY: &str = "0123456789abcdef0123456789abcdef";
/// The keys of their outbounds.
pub(crate) const KEY_A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
pub(crate) const KEY_B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

/// A configuration with one route from `IN_KEY` to `outbounds`, on a free port of the loopback,
/// with the lines of `extra` first. See [`Config`] for anything else.
pub(crate) fn config(outbounds: &[String], extra: &str) -> String {
    let list: String = outbounds
        .iter()
        .map(|dsn| format!("      - {dsn}\n"))
        .collect();
    format!(
        "ip: 127.0.0.1\nport: 0\n{extra}\nkeys:\n  - inbound: http://{IN_KEY}@mirror.example.com/42\n    outbound:\n{list}"
    )
}

/// The value of the field `name`, which must occur at most once.
fn only<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut found = fields
        .iter()
        .filter(|(known, _)| known.eq_ignore_ascii_case(name));
    let value = found.next().map(|(_, value)| value.as_str());
    assert!(found.next().is_none(), "{name} occurs twice");
    value
}

/// A small error envelope as sentry-python sends it, with `id` as its event id.
pub(crate) fn envelope(id: &str) -> String {
    let event = format!(r#"{{"event_id":"{id}","message":"division by zero","level":"error"}}"#);
    format!(
        "{{\"event_id\":\"{id}\",\"dsn\":\"http://{IN_KEY}@mirror.example.com/42\",\"trace\":{{\"trace_id\":\"771a43a4192642f0b136d5159a501700\",\"public_key\":\"{IN_KEY}\"}}}}\n{{\"type\":\"event\",\"length\":{}}}\n{event}\n",
        event.len()
    )
}

/// An envelope request with header auth and a length.
pub(crate) fn envelope_request(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /api/42/envelope/ HTTP/1.1\r\nHost: mirror.example.com\r\nX-Sentry-Auth: Sentry sentry_key={IN_KEY}, sentry_version=7\r\nContent-Type: application/x-sentry-envelope\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}
