//! The sections `limits`, `timeouts`, `pool`, `breaker` and `dns`.
//!
//! [`Limits`] has the defaults and their reasons. The ranges here reject values that nobody can want. Zero is one
//! of them: it does not turn a limit off. Only a limit that is off by default can be turned off, with `off`.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_yaml::Value;

use super::node::Section;
use super::value::{Parsed, bytes, duration, number};
use crate::limits::{BreakerLimits, HeadLimits, Limits, PoolLimits, Timeouts};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
pub(super) const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

const MILLION: usize = 1_000_000;
const IDLE_CONNECTIONS_MAX: usize = 65_536;

/// Reads the five sections. Returns also whether `limits.memory_bytes` is set.
pub(super) fn limits(root: &mut Section<'_>) -> (Limits, bool) {
    let defaults = Limits::default();
    let mut section = root.take("limits").section();
    let memory_bytes = section.value("memory_bytes", memory_budget, None);
    let in_flight = section.value("in_flight", auto(1..=MILLION), None);
    let in_flight = in_flight.unwrap_or(defaults.in_flight);
    let limits = Limits {
        head: HeadLimits {
            bytes: section.value("head_bytes", bytes(KIB..=MIB), defaults.head.bytes),
            headers: section.value("header_count", number(1..=256), defaults.head.headers),
        },
        body_bytes: section.value("body_bytes", bytes(KIB..=2 * GIB), defaults.body_bytes),
        decoded_bytes: section.value(
            "decoded_bytes",
            bytes(KIB..=2 * GIB),
            defaults.decoded_bytes,
        ),
        envelope_header_bytes: section.value(
            "envelope_header_bytes",
            bytes(KIB..=2 * GIB),
            defaults.envelope_header_bytes,
        ),
        decoded_ratio: section.value("decoded_ratio", number(1..=MILLION), defaults.decoded_ratio),
        response_bytes: section.value(
            "response_bytes",
            bytes(KIB..=64 * MIB),
            defaults.response_bytes,
        ),
        connections: section.value("connections", number(1..=MILLION), defaults.connections),
        connections_per_peer: section.value("connections_per_peer", per_peer, None),
        tls_handshakes: section.value(
            "tls_handshakes",
            number(1..=MILLION),
            defaults.tls_handshakes,
        ),
        memory_bytes: memory_bytes.unwrap_or(defaults.memory_bytes),
        in_flight,
        timeouts: timeouts(root.take("timeouts").section(), &defaults.timeouts),
        pool: pool(root.take("pool").section(), &defaults.pool, in_flight),
        breaker: breaker(root.take("breaker").section(), &defaults.breaker),
        dns_refresh: dns_refresh(root.take("dns").section(), defaults.dns_refresh),
    };
    if limits.memory_bytes < limits.body_bytes.max(limits.decoded_bytes) {
        section.warn(
            "memory_bytes",
            "is less than body_bytes or decoded_bytes: the largest bodies are always rejected (503)",
        );
    }
    section.finish();
    (limits, memory_bytes.is_some())
}

fn timeouts(mut section: Section<'_>, defaults: &Timeouts) -> Timeouts {
    let mut timeout = |key, default| section.value(key, duration(MILLISECOND..=HOUR), default);
    let timeouts = Timeouts {
        head: timeout("head", defaults.head),
        body: timeout("body", defaults.body),
        idle: timeout("idle", defaults.idle),
        write: timeout("write", defaults.write),
        connect: timeout("connect", defaults.connect),
        exchange: timeout("exchange", defaults.exchange),
        drain: timeout("drain", defaults.drain),
    };
    if section.has("connect") && timeouts.connect > timeouts.exchange {
        section.warn(
            "connect",
            "is longer than exchange, which ends the delivery first",
        );
    }
    section.finish();
    timeouts
}

fn pool(mut section: Section<'_>, defaults: &PoolLimits, in_flight: usize) -> PoolLimits {
    let (idle_timeout, max_age) = (duration(MILLISECOND..=DAY), duration(SECOND..=DAY));
    let idle_connections = section.value("idle_connections", auto(1..=IDLE_CONNECTIONS_MAX), None);
    let pool = PoolLimits {
        idle_connections: idle_connections.unwrap_or(in_flight.min(IDLE_CONNECTIONS_MAX)),
        idle_timeout: section.value("idle_timeout", idle_timeout, defaults.idle_timeout),
        max_age: section.value("max_age", max_age, defaults.max_age),
    };
    section.finish();
    pool
}

fn breaker(mut section: Section<'_>, defaults: &BreakerLimits) -> BreakerLimits {
    let pause = duration(MILLISECOND..=HOUR);
    let breaker = BreakerLimits {
        failures: section.value("failures", number(1..=1_000_000), defaults.failures),
        pause: section.value("pause", &pause, defaults.pause),
        pause_max: section.value("pause_max", &pause, defaults.pause_max),
    };
    if section.has("pause") && breaker.pause > breaker.pause_max {
        section.warn("pause", "is longer than pause_max, which is used instead");
    }
    section.finish();
    breaker
}

fn dns_refresh(mut section: Section<'_>, default: Duration) -> Duration {
    let refresh = section.value("refresh", duration(SECOND..=DAY), default);
    section.finish();
    refresh
}

/// A number of bytes, or `None` to derive it from the available memory.
fn memory_budget(value: &Value) -> Parsed<Option<usize>> {
    if value == "auto" {
        return Ok(None);
    }
    let budget = bytes(MIB..=TIB)(value).map_err(|expected| format!("auto or {expected}"))?;
    Ok(Some(budget))
}

/// A number, or `None` for a default that depends on other values.
fn auto(range: RangeInclusive<usize>) -> impl Fn(&Value) -> Parsed<Option<usize>> {
    move |value| {
        if value == "auto" {
            return Ok(None);
        }
        let count =
            number(range.clone())(value).map_err(|expected| format!("auto or {expected}"))?;
        Ok(Some(count))
    }
}

/// A number of connections, or `None` for no limit.
fn per_peer(value: &Value) -> Parsed<Option<usize>> {
    if value == "off" || *value == false {
        return Ok(None);
    }
    let count = number(1..=MILLION)(value).map_err(|expected| format!("off or {expected}"))?;
    Ok(Some(count))
}
