//! The bounds: `limits`, `timeouts`, `pool`, `breaker` and `dns`.
//!
//! The defaults and their reasons are those of [`Limits`]. The ranges keep out what cannot have
//! been meant, zero before all: no bound has an “off” but the one that is off by default.

use std::time::Duration;

use serde_yaml::Value;

use super::node::Section;
use super::value::{Read, bytes, duration, number};
use crate::limits::Limits;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
pub(super) const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A number of bytes; `None` for one that the mirror makes fit.
fn memory_budget(value: &Value) -> Read<Option<usize>> {
    if value == "auto" {
        return Ok(None);
    }
    let budget = bytes(MIB..=TIB)(value).map_err(|expected| format!("auto or {expected}"))?;
    Ok(Some(budget))
}

/// A number of connections; `None` for no bound.
fn per_peer(value: &Value) -> Read<Option<usize>> {
    if value == "off" || *value == false {
        return Ok(None);
    }
    let count = number(1..=1_000_000)(value).map_err(|expected| format!("off or {expected}"))?;
    Ok(Some(count))
}

/// Reads the five sections of bounds, and says whether `limits.memory_bytes` is among them.
pub(super) fn limits(root: &mut Section<'_>) -> (Limits, bool) {
    let Limits {
        head_bytes,
        header_count,
        body_bytes,
        decoded_bytes,
        envelope_header_bytes,
        decoded_ratio,
        response_bytes,
        connections,
        connections_per_peer,
        memory_bytes,
        in_flight,
        pool_idle_connections,
        pool_idle_timeout,
        pool_max_age,
        breaker_failures,
        breaker_pause,
        breaker_pause_max,
        dns_refresh,
        head_timeout,
        body_timeout,
        idle_timeout,
        write_timeout,
        connect_timeout,
        exchange_timeout,
        drain_timeout,
    } = Limits::default();
    let mut limits = root.take("limits").section();
    let mut timeouts = root.take("timeouts").section();
    let mut pool = root.take("pool").section();
    let mut breaker = root.take("breaker").section();
    let mut dns = root.take("dns").section();
    let memory = limits.value("memory_bytes", memory_budget, None);
    let is_memory_configured = memory.is_some();
    let mut timeout = |key, default| timeouts.value(key, duration(MILLISECOND..=HOUR), default);
    let read = Limits {
        head_bytes: limits.value("head_bytes", bytes(KIB..=MIB), head_bytes),
        header_count: limits.value("header_count", number(1..=256), header_count),
        body_bytes: limits.value("body_bytes", bytes(KIB..=2 * GIB), body_bytes),
        decoded_bytes: limits.value("decoded_bytes", bytes(KIB..=2 * GIB), decoded_bytes),
        envelope_header_bytes: limits.value(
            "envelope_header_bytes",
            bytes(KIB..=2 * GIB),
            envelope_header_bytes,
        ),
        decoded_ratio: limits.value("decoded_ratio", number(1..=1_000_000), decoded_ratio),
        response_bytes: limits.value("response_bytes", bytes(KIB..=64 * MIB), response_bytes),
        connections: limits.value("connections", number(1..=1_000_000), connections),
        connections_per_peer: limits.value("connections_per_peer", per_peer, connections_per_peer),
        memory_bytes: memory.unwrap_or(memory_bytes),
        in_flight: limits.value("in_flight", number(1..=1_000_000), in_flight),
        pool_idle_connections: pool.value(
            "idle_connections",
            number(1..=65_536),
            pool_idle_connections,
        ),
        pool_idle_timeout: pool.value(
            "idle_timeout",
            duration(MILLISECOND..=DAY),
            pool_idle_timeout,
        ),
        pool_max_age: pool.value("max_age", duration(SECOND..=DAY), pool_max_age),
        breaker_failures: breaker.value("failures", number(1..=1_000_000), breaker_failures),
        breaker_pause: breaker.value("pause", duration(MILLISECOND..=HOUR), breaker_pause),
        breaker_pause_max: breaker.value(
            "pause_max",
            duration(MILLISECOND..=HOUR),
            breaker_pause_max,
        ),
        dns_refresh: dns.value("refresh", duration(SECOND..=DAY), dns_refresh),
        head_timeout: timeout("head", head_timeout),
        body_timeout: timeout("body", body_timeout),
        idle_timeout: timeout("idle", idle_timeout),
        write_timeout: timeout("write", write_timeout),
        connect_timeout: timeout("connect", connect_timeout),
        exchange_timeout: timeout("exchange", exchange_timeout),
        drain_timeout: timeout("drain", drain_timeout),
    };
    if read.memory_bytes < read.body_bytes.max(read.decoded_bytes) {
        limits.warn(
            "memory_bytes",
            "is less than body_bytes or decoded_bytes: the largest bodies are always refused (503)",
        );
    }
    if timeouts.has("connect") && read.connect_timeout > read.exchange_timeout {
        timeouts.warn(
            "connect",
            "is more than exchange, which ends a delivery before",
        );
    }
    if breaker.has("pause") && read.breaker_pause > read.breaker_pause_max {
        breaker.warn("pause", "is more than pause_max, which is used instead");
    }
    for section in [limits, timeouts, pool, breaker, dns] {
        section.finish();
    }
    (read, is_memory_configured)
}
