//! The state of the mirror as JSON, for the status page and for scripts.
//!
//! Unlike metrics, it needs no further computation: it has the rates and latencies of the last minute, the
//! steps of the last five minutes, and what is wrong with each outbound.

use std::io;
use std::time::{Instant, SystemTime};

use serde_json::{Map, Value, json};

use super::health::Observed;
use super::history::{self, History};
use crate::mirror::outbound::incidents::Incident;
use crate::mirror::reply::rejection::Reason;
use crate::mirror::reporting::counters::{DeliveryResult, OutcomeKind, RequestResult};
use crate::mirror::reporting::disagreements::Disagreements;
use crate::mirror::reporting::item_counters::ItemTotals;
use crate::mirror::reporting::worker_metrics::WorkerMetrics;
use crate::mirror::routing::routes::{Outbound, Route};
use crate::mirror::routing::routing_table::RoutingTable;
use crate::process::status::MirrorStatus;
use crate::telemetry::histogram::Distribution;
use crate::telemetry::label::Label;
use crate::telemetry::timestamp::rfc3339;
use crate::upstream::breaker::BreakerState;
use crate::upstream::counters::{OriginCounters, ProbeResult};
use crate::upstream::origin::SharedOrigin;

/// The number of steps of a minute.
const MINUTE_STEPS: usize = 12;

/// The number of unknown keys in the status.
const UNKNOWN_KEYS_SHOWN: usize = 20;

/// Writes the whole status, one outbound at a time because there can be thousands.
pub(super) fn write(
    mirror_status: &MirrorStatus,
    history: &History,
    now: Instant,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let table = mirror_status.current().table;
    let view = View {
        table: &table,
        history,
        now,
    };
    let routes = table.routes.all().iter();
    write_with_list(
        out,
        &process(mirror_status, history, now),
        "routes",
        routes,
        |out, route| {
            let outbounds = route.outbounds.iter().enumerate();
            write_with_list(
                out,
                &view.route(route),
                "outbounds",
                outbounds,
                |out, (index, outbound)| write!(out, "{}", view.outbound(route, index, outbound)),
            )
        },
    )
}

/// Writes `object` with one more member `name`: a list of what `write` writes for each of `entries`.
fn write_with_list<T>(
    out: &mut dyn io::Write,
    object: &Value,
    name: &str,
    entries: impl Iterator<Item = T>,
    write: impl Fn(&mut dyn io::Write, T) -> io::Result<()>,
) -> io::Result<()> {
    let object = object.to_string();
    let open = object.strip_suffix('}').unwrap_or(&object);
    write!(out, "{open},\"{name}\":[")?;
    for (index, entry) in entries.enumerate() {
        if index > 0 {
            out.write_all(b",")?;
        }
        write(out, entry)?;
    }
    out.write_all(b"]}")
}

fn process(mirror_status: &MirrorStatus, history: &History, now: Instant) -> Value {
    let sum = |read: &dyn Fn(&WorkerMetrics) -> u64| -> u64 {
        mirror_status
            .counters
            .iter()
            .map(|counters| read(counters))
            .sum()
    };
    let (reloads, failed_reloads) = mirror_status.reloads();
    let recent = history.recent_requests(now, &mirror_status.counters);
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "stage": if mirror_status.is_draining() { "draining" } else { "ready" },
        // Lets a reader compute ages without relying on its own clock.
        "at": rfc3339(SystemTime::now()),
        "started_at": rfc3339(mirror_status.started_at),
        "uptime_seconds": now.duration_since(mirror_status.started).as_secs(),
        "listening_on": mirror_status.listening_on,
        "driver": mirror_status.driver(),
        "workers": mirror_status.counters.len(),
        "reply_timeout_seconds": mirror_status.current().table.reply_timeout.as_secs_f64(),
        "step_seconds": history::SAMPLE_INTERVAL.as_secs(),
        "connections": {
            "open": sum(&|counters| counters.open_connections.get()),
            "accepted": sum(&|counters| counters.connections.get()),
        },
        "request_memory_bytes": sum(&|counters| counters.budget_used.get()),
        "request_memory_limit_bytes": mirror_status.current().table.limits.memory_bytes,
        "received_bytes": sum(&|counters| counters.received_bytes.get()),
        "answers": nonzero(|result: RequestResult| sum(&|counters| counters.answers.get(result))),
        "rejections": nonzero(|reason: Reason| sum(&|counters| counters.rejections.get(reason))),
        "recent": {
            "seconds": recent.seconds,
            "requests": recent.requests,
            "unknown_key": recent.unknown_key,
        },
        "unknown_keys": unknown_keys(mirror_status, now),
        "reloads": { "done": reloads, "refused": failed_reloads },
        "disagreements": disagreements(mirror_status),
    })
}

/// The keys that were rejected last, and how many requests had a key that is in no list.
fn unknown_keys(mirror_status: &MirrorStatus, now: Instant) -> Value {
    // All workers report to the same list.
    let Some(known) = mirror_status
        .counters
        .first()
        .map(|worker| &worker.unknown_keys)
    else {
        return json!({ "last": [], "others": 0 });
    };
    let age = |at: Instant| now.saturating_duration_since(at).as_secs();
    let last = known.last(UNKNOWN_KEYS_SHOWN).into_iter().map(|key| {
        json!({
            "key": key.shown(),
            "project": key.sender.project,
            "sdk": key.sender.sdk,
            "client": key.sender.client.to_string(),
            "requests": key.requests,
            "first_seconds_ago": age(key.first_at),
            "last_seconds_ago": age(key.last_at),
        })
    });
    json!({ "last": last.collect::<Vec<_>>(), "others": known.others() })
}

struct View<'v> {
    table: &'v RoutingTable,
    history: &'v History,
    now: Instant,
}

impl View<'_> {
    fn route(&self, route: &Route) -> Value {
        let (seconds, recent) = self.history.recent_of_route(self.now, &route.counters);
        let answer = |answered| {
            route
                .counters
                .sum(|counters| counters.answers.get(answered))
        };
        json!({
            "name": route.name,
            "dsn": route.shortened_dsn,
            "requests": route.counters.sum(|counters| counters.answers.total()),
            "answers": nonzero(answer),
            "per_second": rate(recent.count(), seconds),
            "latency_seconds": latency(&recent),
        })
    }

    fn outbound(&self, route: &Route, index: usize, outbound: &Outbound) -> Value {
        let counters = &outbound.counters;
        let count = |result| counters.sum(|counters| counters.with_result(result));
        let recent = self.history.recent_of_outbound(self.now, counters);
        let [delivered, rate_limited, lost] = recent.counts;
        let all = delivered + rate_limited + lost;
        let slow_share = recent.time.share_over(self.table.reply_timeout);
        let steps = self.history.steps(counters);
        let shared = self.table.origins.get(outbound.upstream);
        let breaker = shared.map(|shared| shared.breaker_state(self.now));
        let observed = Observed {
            steps: steps.rchunks(MINUTE_STEPS).next().unwrap_or_default(),
            breaker_is_open: breaker == Some(BreakerState::Open),
            slow_share,
        };
        // An outbound without deliveries, of which there may be thousands, has a short list.
        let is_used = |step: &[u64; 3]| step.iter().any(|count| *count > 0);
        let first = steps.iter().position(is_used).unwrap_or(steps.len());
        let errors = counters
            .iter()
            .filter_map(|counters| counters.last_error.get());
        let last = errors.max_by_key(|error| error.at);
        let limits = outbound.rate_limits.active(self.now);
        let limits = limits
            .iter()
            .map(|limit| json!({"categories": limit.categories.iter().collect::<Vec<_>>(), "seconds": limit.seconds}));
        json!({
            "name": outbound.name,
            "dsn": outbound.shortened_dsn,
            "is_primary": index == 0,
            "replies": index < route.replying,
            "delivered": count(DeliveryResult::Delivered),
            "unwanted": count(DeliveryResult::Unwanted),
            "rate_limited": count(DeliveryResult::RateLimited),
            "lost": count(DeliveryResult::Lost),
            "outcomes": nonzero(|kind: OutcomeKind| counters.sum(|counters| counters.outcomes.get(kind))),
            "bytes": counters.sum(|counters| counters.bytes.get()),
            "per_second": rate(all, recent.seconds),
            "success": (all > 0).then(|| delivered as f64 / all as f64),
            "latency_seconds": latency(&recent.time),
            "recent": { "seconds": recent.seconds, "delivered": delivered, "rate_limited": rate_limited, "lost": lost },
            "slow_share": slow_share,
            "state": observed.health().word(),
            "steps": steps.get(first..).unwrap_or_default(),
            "rate_limits": limits.collect::<Vec<_>>(),
            "caps": caps(outbound, self.now),
            "last_error": last.map(|error| json!({"at": rfc3339(error.at), "message": error.message})),
            "items": items(&ItemTotals::read(counters.iter().map(|worker| &worker.items))),
            "incidents": incidents(&outbound.state.list(self.now)),
            "upstream": shared.map(|shared| self.upstream(shared)),
        })
    }

    fn upstream(&self, shared: &SharedOrigin) -> Value {
        let sum = |read: fn(&OriginCounters) -> u64| shared.counters.sum(read);
        json!({
            "origin": shared.name,
            "protocol": protocol(shared),
            "breaker": shared.breaker_state(self.now).word(),
            "probes": nonzero(|result: ProbeResult| shared.counters.sum(|worker| worker.probes.get(result))),
            "in_flight": sum(|counters| counters.in_flight.get()),
            "connections_open": sum(|counters| counters.open.get()),
            "connections_idle": sum(|counters| counters.idle.get()),
            "addresses": shared.addresses().current().len(),
            "addresses_avoided": shared.addresses().avoided(self.now),
            "dns_age_seconds": shared.dns_age(self.now).map(|age| age.as_secs()),
        })
    }
}

/// The last requests about which outbounds disagreed, as docs/status.md describes them.
fn disagreements(mirror_status: &MirrorStatus) -> Value {
    let workers = mirror_status.counters.iter();
    let last = Disagreements::last(workers.map(|worker| &worker.disagreements));
    let last = last.iter().map(|one| {
        let items = one.summary.items.iter();
        let items =
            items.map(|(category, bytes)| json!({"category": category.word(), "bytes": bytes}));
        let outcomes = one.outcomes.iter().map(|side| {
            json!({
                "outbound": side.outbound,
                "outcome": side.outcome,
                "status": side.status,
                "reason": side.reason,
            })
        });
        json!({
            "at": rfc3339(one.at),
            "route": one.route,
            "endpoint": one.endpoint,
            "event_id": one.summary.event_id,
            "items": items.collect::<Vec<_>>(),
            "items_left_out": one.summary.items_left_out,
            "outcomes": outcomes.collect::<Vec<_>>(),
        })
    });
    last.collect()
}

/// The caps of an outbound, as docs/status.md describes them.
fn caps(outbound: &Outbound, now: Instant) -> Value {
    let caps = outbound.caps.iter();
    let caps = caps.flat_map(|caps| caps.used(now).zip(caps.levels(now)));
    let caps = caps.map(|((cap, used), (_, level))| {
        json!({
            "category": cap.configured().name,
            "amount": cap.configured().amount.to_string(),
            "used": used,
            "share": cap.share(),
            "level": level.word(),
        })
    });
    caps.collect()
}

/// The counts that are not zero, by category and outcome.
fn items(totals: &ItemTotals) -> Value {
    let mut categories: Map<String, Value> = Map::new();
    for (category, outcome, count) in totals.iter() {
        let outcomes = categories.entry(category.word()).or_insert(json!({}));
        if let Value::Object(outcomes) = outcomes {
            outcomes.insert(outcome.word().to_owned(), count.into());
        }
    }
    Value::Object(categories)
}

/// Incidents of an outbound, as docs/status.md describes them.
fn incidents(incidents: &[Incident]) -> Value {
    let incidents = incidents.iter().map(|incident| {
        json!({
            "kind": incident.kind.word(),
            "began_at": rfc3339(incident.began_at),
            "ended_at": incident.ended_at.map(rfc3339),
            "seconds": incident.lasted.as_secs_f64(),
            "reason": incident.reason,
            "lost_deliveries": incident.lost,
        })
    });
    incidents.collect()
}

/// The labels with a count that is not zero.
fn nonzero<L: Label>(count: impl Fn(L) -> u64) -> Value {
    let labels = L::ALL.iter().map(|label| (label.word(), count(*label)));
    let counted = labels.filter(|(_, count)| *count > 0);
    let counted: Map<String, Value> = counted
        .map(|(word, count)| (word.to_owned(), count.into()))
        .collect();
    Value::Object(counted)
}

fn rate(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        count as f64 / seconds
    } else {
        0.0
    }
}

fn latency(distribution: &Distribution) -> Value {
    json!({
        "mean": distribution.mean(),
        "p50": distribution.quantile(0.5),
        "p90": distribution.quantile(0.9),
        "p99": distribution.quantile(0.99),
    })
}

/// The protocol of the connections that are open.
fn protocol(shared: &SharedOrigin) -> &'static str {
    let open = |read: fn(&OriginCounters) -> u64| shared.counters.sum(read) > 0;
    match (
        open(|worker| worker.http2_open.get()),
        open(|worker| worker.open.get()),
    ) {
        (true, true) => "HTTP/2 and HTTP/1.1",
        (true, false) => "HTTP/2",
        (false, _) => "HTTP/1.1",
    }
}
