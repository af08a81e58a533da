//! The catalogue of metrics.
//!
//! Every combination of labels that can occur is exported, even at zero: a rate needs a value before the
//! first event. Only empty histograms are left out when they are written, because each has twenty lines;
//! the counters beside them give the same rate.

use std::time::{Duration, Instant, UNIX_EPOCH};

use super::snapshot::{
    MetricsSnapshot, OriginSnapshot, OutboundSnapshot, ProcessSnapshot, ReloadResult, RouteSnapshot,
};
use crate::config::NO_ROUTE;
use crate::mirror::reply::refusal::Refusal;
use crate::mirror::reply::rejection::Reason;
use crate::mirror::reporting::counters::{LeftOut, OutcomeKind, RequestResult};
use crate::mirror::reporting::item_counters::{ItemCategory, ItemOutcome};
use crate::mirror::reporting::worker_metrics::{Closing, Pause, WorkerMetrics};
use crate::mirror::routing::routes::{Outbound, Route};
use crate::net::tls_accept::HandshakeResult;
use crate::process::status::MirrorStatus;
use crate::telemetry::counters::CounterVecSnapshot;
use crate::telemetry::family::{Family, Labels, Samples, Values};
use crate::telemetry::histogram::Distribution;
use crate::telemetry::label::Label;
use crate::telemetry::lines::DropReason;
use crate::upstream::addresses::Addresses;
use crate::upstream::breaker::BreakerState;
use crate::upstream::counters::{
    Dropped, OriginCounters, PingResult, ProbeResult, SessionEnd, StreamEnd,
};
use crate::upstream::origin::SharedOrigin;

/// A row of the catalogue.
pub(super) struct Metric {
    /// Without the prefix and, for a counter, without `_total`.
    pub(super) name: &'static str,
    pub(super) labels: &'static [LabelName],
    pub(super) help: &'static str,
    pub(super) reader: Reader,
}

/// How the values of a metric are read. The variant is the type of the metric.
pub(super) enum Reader {
    Counter(for<'n> fn(Source<'n>) -> Values<'n, u64>),
    Gauge(for<'n> fn(Source<'n>) -> Values<'n, f64>),
    Histogram(for<'n> fn(Source<'n>) -> Values<'n, Distribution>),
}

pub(super) struct LabelName {
    pub(super) name: &'static str,
    /// The values, if they are a closed set.
    pub(super) values: Option<fn() -> ValuesWithMeanings>,
}

pub(super) type ValuesWithMeanings = Vec<(&'static str, &'static str)>;

/// What metrics are read from.
#[derive(Clone, Copy)]
pub(super) struct Source<'n> {
    mirror_status: &'n MirrorStatus,
    snapshot: &'n MetricsSnapshot,
    now: Instant,
}

/// The results of requests without a route.
const UNROUTED: [RequestResult; 4] = [
    RequestResult::Local,
    RequestResult::Rejected,
    RequestResult::Abandoned,
    RequestResult::Panicked,
];

/// The results of requests with a route.
const ROUTED: [RequestResult; 8] = [
    RequestResult::Accepted,
    RequestResult::Unconfirmed,
    RequestResult::RateLimited,
    RequestResult::Refused,
    RequestResult::Failed,
    RequestResult::Rejected,
    RequestResult::Abandoned,
    RequestResult::GivenUp,
];

const ROUTE: LabelName = open("route");
const OUTBOUND: LabelName = open("outbound");
const ORIGIN: LabelName = open("origin");

pub(super) const CATALOGUE: &[Metric] = &[
    Metric {
        name: "build_info",
        labels: &[open("version"), open("driver")],
        help: "Version and I/O driver of the process, as labels. The value is always 1.",
        reader: Reader::Gauge(|source| {
            let version = ("version", env!("CARGO_PKG_VERSION").to_owned());
            let driver = ("driver", source.mirror_status.driver().to_owned());
            one(vec![version, driver], 1.0)
        }),
    },
    Metric {
        name: "start_time_seconds",
        labels: &[],
        help: "Unix time at which the process started to accept connections.",
        reader: Reader::Gauge(|source| {
            let since_1970 = source.mirror_status.started_at.duration_since(UNIX_EPOCH);
            unlabelled(since_1970.map_or(0.0, |since| since.as_secs_f64()))
        }),
    },
    Metric {
        name: "ready",
        labels: &[],
        help: "1 while the process accepts requests, 0 while it is draining.",
        reader: Reader::Gauge(|source| {
            unlabelled(f64::from(u8::from(!source.mirror_status.is_draining())))
        }),
    },
    Metric {
        name: "workers",
        labels: &[],
        help: "Number of worker threads.",
        reader: Reader::Gauge(|source| unlabelled(source.mirror_status.counters.len() as f64)),
    },
    Metric {
        name: "access_log_dropped",
        labels: &[closed::<DropReason>("reason")],
        help: "Access log lines dropped, by reason.",
        reader: Reader::Counter(|source| by_reason(&source.process().dropped_access_lines)),
    },
    Metric {
        name: "log_dropped",
        labels: &[closed::<DropReason>("reason")],
        help: "Log lines dropped, by reason.",
        reader: Reader::Counter(|source| by_reason(&source.process().dropped_log_lines)),
    },
    Metric {
        name: "config_reloads",
        labels: &[closed::<ReloadResult>("result")],
        help: "Configuration reloads, by result.",
        reader: Reader::Counter(|source| by_label("result", &source.process().reloads)),
    },
    Metric {
        name: "sdk_connections",
        labels: &[],
        help: "Connections accepted from SDKs.",
        reader: Reader::Counter(|source| unlabelled(source.process().connections)),
    },
    Metric {
        name: "sdk_connections_open",
        labels: &[],
        help: "Open connections from SDKs.",
        reader: Reader::Gauge(|source| {
            over_workers(source, |worker| worker.open_connections.get())
        }),
    },
    Metric {
        name: "sdk_connections_closed",
        labels: &[closed::<Closing>("reason")],
        help: "SDK connections that the mirror closed because of a timeout or a limit, by reason.",
        reader: Reader::Counter(|source| by_reason(&source.process().closings)),
    },
    Metric {
        name: "sdk_tls_handshakes",
        labels: &[closed::<HandshakeResult>("result")],
        help: "TLS handshakes with SDKs, by result.",
        reader: Reader::Counter(|source| by_label("result", &source.process().handshakes)),
    },
    Metric {
        name: "listener_certificate_expiry_timestamp_seconds",
        labels: &[open("listener"), open("certificate")],
        help: "Unix time at which a certificate of a listener expires, by its file.",
        reader: Reader::Gauge(certificate_expiry),
    },
    Metric {
        name: "listener_certificate_reloads",
        labels: &[closed::<ReloadResult>("result")],
        help: "Changes of the certificates of a listener, by result.",
        reader: Reader::Counter(|source| by_label("result", &source.process().certificate_reloads)),
    },
    Metric {
        name: "accept_pauses",
        labels: &[closed::<Pause>("reason")],
        help: "Number of times a worker paused accepting connections, by reason.",
        reader: Reader::Counter(|source| by_reason(&source.process().pauses)),
    },
    Metric {
        name: "requests",
        labels: &[ROUTE, closed::<RequestResult>("result")],
        help: "Requests from SDKs, by route and by how they ended for the SDK.",
        reader: Reader::Counter(requests),
    },
    Metric {
        name: "rejections",
        labels: &[closed::<Reason>("reason")],
        help: "Requests that the mirror itself rejected, by reason.",
        reader: Reader::Counter(|source| by_reason(&source.process().rejections)),
    },
    Metric {
        name: "items_left_out",
        labels: &[closed::<LeftOut>("reason")],
        help: "Items of envelopes and records of OTLP requests left out of deliveries, by reason. Each counts once for each outbound that does not get it.",
        reader: Reader::Counter(|source| by_reason(&source.process().items)),
    },
    Metric {
        name: "received_bytes",
        labels: &[],
        help: "Bytes of requests read from SDKs, including rejected and incomplete requests.",
        reader: Reader::Counter(|source| unlabelled(source.process().received_bytes)),
    },
    Metric {
        name: "request_memory_bytes",
        labels: &[],
        help: "Memory reserved for requests, in bytes.",
        reader: Reader::Gauge(|source| over_workers(source, |worker| worker.budget_used.get())),
    },
    Metric {
        name: "request_memory_limit_bytes",
        labels: &[],
        help: "Memory that may be reserved for requests, in bytes: limits.memory_bytes.",
        reader: Reader::Gauge(|source| {
            let limits = &source.mirror_status.current().table.limits;
            unlabelled(limits.memory_bytes as f64)
        }),
    },
    Metric {
        name: "request_duration_seconds",
        labels: &[ROUTE],
        help: "Time from the end of a request's head to the end of its reply.",
        reader: Reader::Histogram(|source| per_route(source, |route| route.request_time)),
    },
    Metric {
        name: "reply_wait_seconds",
        labels: &[ROUTE],
        help: "Time from the start of a request's deliveries to the decision on its reply.",
        reader: Reader::Histogram(|source| per_route(source, |route| route.reply_time)),
    },
    Metric {
        name: "deliveries",
        labels: &[ROUTE, OUTBOUND, closed::<OutcomeKind>("outcome")],
        help: "Deliveries to an outbound, by outcome. They include those that were not sent.",
        reader: Reader::Counter(deliveries),
    },
    Metric {
        name: "items",
        labels: &[
            ROUTE,
            OUTBOUND,
            closed::<ItemCategory>("category"),
            closed::<ItemOutcome>("outcome"),
        ],
        help: "Items by data category, as Sentry counts them, and by what became of them. A category is exported once it has an item.",
        reader: Reader::Counter(items),
    },
    Metric {
        name: "disagreements",
        labels: &[ROUTE, closed::<Refusal>("status")],
        help: "Refusals of requests that another outbound of the route took, by status. See `disagreements` in the status.",
        reader: Reader::Counter(disagreements),
    },
    Metric {
        name: "delivered_bytes",
        labels: &[ROUTE, OUTBOUND],
        help: "Bytes of requests sent to an outbound. A request that was sent in part counts in full.",
        reader: Reader::Counter(|source| per_outbound(source, |_, outbound| outbound.bytes)),
    },
    Metric {
        name: "delivery_duration_seconds",
        labels: &[ROUTE, OUTBOUND],
        help: "Time from the start of a request's deliveries to the end of its delivery to this outbound. Only attempted deliveries count.",
        reader: Reader::Histogram(|source| per_outbound(source, |_, outbound| outbound.time)),
    },
    Metric {
        name: "rate_limits",
        labels: &[ROUTE, OUTBOUND],
        help: "Number of active rate limits of an outbound.",
        reader: Reader::Gauge(|source| {
            let now = source.now;
            per_outbound(source, move |outbound, _| {
                outbound.rate_limits.active(now).len() as f64
            })
        }),
    },
    Metric {
        name: "cap_used_ratio",
        labels: &[ROUTE, OUTBOUND, open("cap")],
        help: "What was asked for of a cap of an outbound, as a share of what it allows. From 1 on the rest is capped.",
        reader: Reader::Gauge(cap_gauge),
    },
    Metric {
        name: "upstream_connections_opened",
        labels: &[ORIGIN],
        help: "Connections opened to an upstream.",
        reader: Reader::Counter(|source| origin_counter(source, |origin| origin.opened)),
    },
    Metric {
        name: "upstream_connections_reused",
        labels: &[ORIGIN],
        help: "Deliveries to an upstream that were sent over a pooled connection.",
        reader: Reader::Counter(|source| origin_counter(source, |origin| origin.reused)),
    },
    Metric {
        name: "upstream_connection_waits",
        labels: &[ORIGIN],
        help: "Deliveries to an upstream that had to wait for a connection, because none was idle.",
        reader: Reader::Counter(|source| origin_counter(source, |origin| origin.waited)),
    },
    Metric {
        name: "upstream_connections_stale",
        labels: &[ORIGIN],
        help: "Pooled connections that the upstream had already closed when a delivery needed them.",
        reader: Reader::Counter(|source| origin_counter(source, |origin| origin.stale)),
    },
    Metric {
        name: "upstream_retries",
        labels: &[ORIGIN],
        help: "Deliveries sent again over a new connection, because the upstream no longer served the pooled one.",
        reader: Reader::Counter(|source| origin_counter(source, |origin| origin.retries)),
    },
    Metric {
        name: "upstream_address_failures",
        labels: &[ORIGIN],
        help: "Times that an address of an upstream failed, so that connections began with its other addresses for a while.",
        reader: Reader::Counter(|source| origin_counter(source, |origin| origin.address_failures)),
    },
    Metric {
        name: "dns_lookups",
        labels: &[ORIGIN],
        help: "Attempts to resolve the host name of an upstream, failed ones included.",
        reader: Reader::Counter(|source| origin_counter(source, |origin| origin.dns_lookups)),
    },
    Metric {
        name: "dns_failures",
        labels: &[ORIGIN],
        help: "Failed attempts to resolve the host name of an upstream.",
        reader: Reader::Counter(|source| origin_counter(source, |origin| origin.dns_failures)),
    },
    Metric {
        name: "upstream_addresses",
        labels: &[ORIGIN],
        help: "Known addresses of an upstream.",
        reader: Reader::Gauge(|source| addresses(source, |known, _| known.current().len())),
    },
    Metric {
        name: "upstream_addresses_avoided",
        labels: &[ORIGIN],
        help: "Addresses of an upstream that failed a short time ago and are only tried after its others.",
        reader: Reader::Gauge(|source| addresses(source, Addresses::avoided)),
    },
    Metric {
        name: "upstream_connections_open",
        labels: &[ORIGIN],
        help: "Open connections to an upstream.",
        reader: Reader::Gauge(|source| origin_gauge(source, |worker| worker.open.get())),
    },
    Metric {
        name: "upstream_connections_idle",
        labels: &[ORIGIN],
        help: "Idle pooled connections to an upstream.",
        reader: Reader::Gauge(|source| origin_gauge(source, |worker| worker.idle.get())),
    },
    Metric {
        name: "upstream_connections_dialing",
        labels: &[ORIGIN],
        help: "Connections to an upstream that are being opened.",
        reader: Reader::Gauge(|source| origin_gauge(source, |worker| worker.dialing.get())),
    },
    Metric {
        name: "deliveries_waiting",
        labels: &[ORIGIN],
        help: "Deliveries to an upstream that wait for a connection.",
        reader: Reader::Gauge(|source| origin_gauge(source, |worker| worker.waiting.get())),
    },
    Metric {
        name: "deliveries_in_flight",
        labels: &[ORIGIN],
        help: "Deliveries to an upstream that are in progress.",
        reader: Reader::Gauge(|source| origin_gauge(source, |worker| worker.in_flight.get())),
    },
    Metric {
        name: "breakers_open",
        labels: &[ORIGIN],
        help: "1 while the circuit breaker of an upstream is open, otherwise 0.",
        reader: Reader::Gauge(breakers_open),
    },
    Metric {
        name: "upstream_probes",
        labels: &[ORIGIN, closed::<ProbeResult>("result")],
        help: "Connections that an open circuit breaker tried to open, to find out whether the upstream is back, by result.",
        reader: Reader::Counter(probes),
    },
    Metric {
        name: "upstream_connections_dropped",
        labels: &[ORIGIN, closed::<Dropped>("reason")],
        help: "Connections to an upstream that the mirror closed instead of keeping them for reuse, by reason.",
        reader: Reader::Counter(connections_dropped),
    },
    Metric {
        name: "upstream_http2_connections_opened",
        labels: &[ORIGIN],
        help: "Connections to an upstream for HTTP/2. They are also among the connections opened.",
        reader: Reader::Counter(|source| origin_counter(source, |origin| origin.http2_opened)),
    },
    Metric {
        name: "upstream_http2_connections_open",
        labels: &[ORIGIN],
        help: "Open HTTP/2 connections to an upstream. They are not among the open connections, which are those for HTTP/1.1.",
        reader: Reader::Gauge(|source| origin_gauge(source, |worker| worker.http2_open.get())),
    },
    Metric {
        name: "upstream_http2_connections_ended",
        labels: &[ORIGIN, closed::<SessionEnd>("reason")],
        help: "HTTP/2 connections to an upstream that ended, by reason.",
        reader: Reader::Counter(|source| {
            origin_counters(source, "reason", |values| values.session_ends)
        }),
    },
    Metric {
        name: "upstream_http2_streams_opened",
        labels: &[ORIGIN],
        help: "Deliveries to an upstream that were sent over HTTP/2, each time that they were.",
        reader: Reader::Counter(|source| origin_counter(source, |origin| origin.streams)),
    },
    Metric {
        name: "upstream_http2_streams_open",
        labels: &[ORIGIN],
        help: "Deliveries to an upstream that are in progress over HTTP/2.",
        reader: Reader::Gauge(|source| origin_gauge(source, |worker| worker.open_streams.get())),
    },
    Metric {
        name: "upstream_http2_streams_failed",
        labels: &[ORIGIN, closed::<StreamEnd>("reason")],
        help: "HTTP/2 streams to an upstream that ended without a response, by reason.",
        reader: Reader::Counter(|source| {
            origin_counters(source, "reason", |values| values.stream_ends)
        }),
    },
    Metric {
        name: "upstream_http2_pings",
        labels: &[ORIGIN, closed::<PingResult>("result")],
        help: "PING frames with which the mirror asked a silent upstream for a sign of life.",
        reader: Reader::Counter(|source| origin_counters(source, "result", |values| values.pings)),
    },
    Metric {
        name: "dns_age_seconds",
        labels: &[ORIGIN],
        help: "Seconds since the host name of an upstream was last resolved.",
        reader: Reader::Gauge(|source| dns_gauge(source, SharedOrigin::dns_age)),
    },
    Metric {
        name: "dns_refresh_seconds",
        labels: &[ORIGIN],
        help: "Configured interval between DNS lookups of the host name of an upstream (dns.refresh), in seconds.",
        reader: Reader::Gauge(|source| dns_gauge(source, |origin, _| origin.dns_refresh())),
    },
];

/// All metrics with the values of `snapshot`.
pub(super) fn families<'n>(
    mirror_status: &'n MirrorStatus,
    snapshot: &'n MetricsSnapshot,
) -> impl Iterator<Item = Family<'n>> {
    let source = Source {
        mirror_status,
        snapshot,
        now: Instant::now(),
    };
    CATALOGUE.iter().map(move |metric| Family {
        name: metric.name,
        help: metric.help,
        samples: match metric.reader {
            Reader::Counter(read) => Samples::Counter(read(source)),
            Reader::Gauge(read) => Samples::Gauge(read(source)),
            Reader::Histogram(read) => Samples::Histogram(read(source)),
        },
    })
}

/// A label whose values come from the configuration or the environment.
const fn open(name: &'static str) -> LabelName {
    LabelName { name, values: None }
}

const fn closed<L: Label>(name: &'static str) -> LabelName {
    LabelName {
        name,
        values: Some(|| {
            let labels = L::ALL.iter();
            labels
                .map(|label| (label.word(), label.meaning()))
                .collect()
        }),
    }
}

impl<'n> Source<'n> {
    fn process(self) -> &'n ProcessSnapshot {
        &self.snapshot.process
    }
}

fn one<'n, T: 'n>(labels: Labels, value: T) -> Values<'n, T> {
    Box::new(std::iter::once((labels, value)))
}

fn unlabelled<'n, T: 'n>(value: T) -> Values<'n, T> {
    one(vec![], value)
}

fn by_reason<L: Label>(counts: &CounterVecSnapshot<L>) -> Values<'_, u64> {
    by_label("reason", counts)
}

fn by_label<'n, L: Label>(
    name: &'static str,
    counts: &'n CounterVecSnapshot<L>,
) -> Values<'n, u64> {
    let labels = L::ALL.iter();
    Box::new(labels.map(move |label| (vec![(name, label.word().to_owned())], counts.get(*label))))
}

fn over_workers<'n>(source: Source<'n>, read: fn(&WorkerMetrics) -> u64) -> Values<'n, f64> {
    let workers = source.mirror_status.counters.iter();
    unlabelled(workers.map(|worker| read(worker)).sum::<u64>() as f64)
}

fn certificate_expiry(source: Source<'_>) -> Values<'_, f64> {
    let all = source.mirror_status.certificates.all().into_iter();
    Box::new(all.map(|(listener, certificate)| {
        let file = certificate.file.display().to_string();
        let labels = vec![("listener", listener), ("certificate", file)];
        (labels, certificate.not_after as f64)
    }))
}

fn per_route<'n>(
    source: Source<'n>,
    read: fn(RouteSnapshot) -> Distribution,
) -> Values<'n, Distribution> {
    let routes = source.snapshot.routes();
    Box::new(routes.map(move |(route, values)| (vec![("route", route.name.clone())], read(values))))
}

fn per_outbound<'n, T: 'n>(
    source: Source<'n>,
    read: impl Fn(&Outbound, OutboundSnapshot) -> T + 'n,
) -> Values<'n, T> {
    let outbounds = source.snapshot.outbounds();
    Box::new(outbounds.map(move |(route, outbound, values)| {
        (outbound_labels(route, outbound), read(outbound, values))
    }))
}

fn cap_gauge(source: Source<'_>) -> Values<'_, f64> {
    let (now, outbounds) = (source.now, source.snapshot.outbounds());
    Box::new(outbounds.flat_map(move |(route, outbound, _)| {
        let caps = outbound.caps.iter().flat_map(move |caps| caps.used(now));
        caps.map(|(cap, used)| {
            let mut labels = outbound_labels(route, outbound);
            labels.push(("cap", cap.configured().name.clone()));
            (labels, used)
        })
    }))
}

fn origin_counter(source: Source<'_>, read: fn(&OriginSnapshot) -> u64) -> Values<'_, u64> {
    let origins = source.snapshot.origins();
    Box::new(origins.map(move |(shared, values)| (origin_label(shared), read(&values))))
}

/// The sums over the workers.
fn origin_gauge(source: Source<'_>, read: fn(&OriginCounters) -> u64) -> Values<'_, f64> {
    let origins = source.snapshot.origins();
    Box::new(origins.map(move |(shared, _)| {
        let sum = shared.counters.sum(read);
        (origin_label(shared), sum as f64)
    }))
}

fn addresses(source: Source<'_>, count: fn(&Addresses, Instant) -> usize) -> Values<'_, f64> {
    let origins = source.snapshot.origins();
    Box::new(origins.map(move |(shared, _)| {
        let count = count(shared.addresses(), source.now);
        (origin_label(shared), count as f64)
    }))
}

/// The seconds of those origins that have a host name to resolve.
fn dns_gauge(
    source: Source<'_>,
    read: fn(&SharedOrigin, Instant) -> Option<Duration>,
) -> Values<'_, f64> {
    let origins = source.snapshot.origins();
    Box::new(origins.filter_map(move |(shared, _)| {
        let seconds = read(shared, source.now)?.as_secs_f64();
        Some((origin_label(shared), seconds))
    }))
}

fn requests(source: Source<'_>) -> Values<'_, u64> {
    let labels = |route: &str, result: RequestResult| -> Labels {
        let route = ("route", route.to_owned());
        vec![route, ("result", result.word().to_owned())]
    };
    let routed = source.snapshot.routes().flat_map(move |(route, values)| {
        ROUTED.map(|result| (labels(&route.name, result), values.answers.get(result)))
    });
    let unrouted = UNROUTED.map(|result| {
        let count = source.process().unrouted.get(result);
        (labels(NO_ROUTE, result), count)
    });
    Box::new(routed.chain(unrouted))
}

fn deliveries(source: Source<'_>) -> Values<'_, u64> {
    let outbounds = source.snapshot.outbounds();
    Box::new(outbounds.flat_map(|(route, outbound, values)| {
        OutcomeKind::ALL.iter().map(move |kind| {
            let mut labels = outbound_labels(route, outbound);
            labels.push(("outcome", kind.word().to_owned()));
            (labels, values.outcomes.get(*kind))
        })
    }))
}

fn disagreements(source: Source<'_>) -> Values<'_, u64> {
    let routes = source.snapshot.routes();
    Box::new(routes.flat_map(|(route, values)| {
        Refusal::ALL.iter().map(move |refusal| {
            let route = ("route", route.name.clone());
            let labels = vec![route, ("status", refusal.word().to_owned())];
            (labels, values.disagreements.get(*refusal))
        })
    }))
}

fn items(source: Source<'_>) -> Values<'_, u64> {
    let outbounds = source.snapshot.outbounds();
    Box::new(outbounds.flat_map(|(route, outbound, values)| {
        let categories: Vec<ItemCategory> = values.items.categories().collect();
        categories.into_iter().flat_map(move |category| {
            let counts = ItemOutcome::ALL.iter();
            let counts = counts.map(|outcome| (*outcome, values.items.get(category, *outcome)));
            let counts: Vec<(ItemOutcome, u64)> = counts.collect();
            counts.into_iter().map(move |(outcome, count)| {
                let mut labels = outbound_labels(route, outbound);
                labels.push(("category", category.word().to_owned()));
                labels.push(("outcome", outcome.word().to_owned()));
                (labels, count)
            })
        })
    }))
}

fn connections_dropped(source: Source<'_>) -> Values<'_, u64> {
    origin_counters(source, "reason", |values| values.dropped)
}

fn probes(source: Source<'_>) -> Values<'_, u64> {
    origin_counters(source, "result", |values| values.probes)
}

/// The counters of each origin by a label of a closed set.
fn origin_counters<'n, L: Label>(
    source: Source<'n>,
    name: &'static str,
    read: fn(OriginSnapshot) -> CounterVecSnapshot<L>,
) -> Values<'n, u64> {
    let origins = source.snapshot.origins();
    Box::new(origins.flat_map(move |(shared, values)| {
        let counts = read(values);
        L::ALL.iter().map(move |label| {
            let mut labels = origin_label(shared);
            labels.push((name, label.word().to_owned()));
            (labels, counts.get(*label))
        })
    }))
}

fn breakers_open(source: Source<'_>) -> Values<'_, f64> {
    let origins = source.snapshot.origins();
    Box::new(origins.map(move |(shared, _)| {
        let is_open = shared.breaker_state(source.now) == BreakerState::Open;
        (origin_label(shared), f64::from(u8::from(is_open)))
    }))
}

fn outbound_labels(route: &Route, outbound: &Outbound) -> Labels {
    let route = ("route", route.name.clone());
    vec![route, ("outbound", outbound.name.clone())]
}

fn origin_label(shared: &SharedOrigin) -> Labels {
    vec![("origin", shared.name.clone())]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::Config;
    use crate::mirror::routing::routing_table::RoutingTable;
    use crate::process::status::CurrentConfig;

    #[test]
    fn samples_have_the_labels_that_the_catalogue_lists() {
        let text = "keys: [{inbound: 'http://a@m/1', outbound: ['http://b@127.0.0.1/1']}]";
        let config = Config::parse(text, "test", std::iter::empty()).unwrap();
        let table = Arc::new(RoutingTable::new(&config, 1, None).unwrap());
        let current = CurrentConfig {
            table: Arc::clone(&table),
            configuration: "".into(),
        };
        let mirror_status = MirrorStatus::new(String::new(), vec![], None, Arc::default(), current);
        let snapshot = MetricsSnapshot::live(&mirror_status, table);
        for (metric, family) in CATALOGUE.iter().zip(families(&mirror_status, &snapshot)) {
            let samples: Vec<Labels> = match family.samples {
                Samples::Counter(values) => values.map(|(labels, _)| labels).collect(),
                Samples::Gauge(values) => values.map(|(labels, _)| labels).collect(),
                Samples::Histogram(values) => values.map(|(labels, _)| labels).collect(),
            };
            for labels in samples {
                assert_eq!(labels.len(), metric.labels.len(), "{}", metric.name);
                for ((name, value), expected) in labels.iter().zip(metric.labels) {
                    assert_eq!(*name, expected.name, "{}", metric.name);
                    let values = expected.values.map(|values| values());
                    let is_listed = |values: Vec<(&str, &str)>| {
                        values.iter().any(|(listed, _)| listed == value)
                    };
                    assert!(values.is_none_or(is_listed), "{}: {value}", metric.name);
                }
            }
        }
    }

    /// Counts what is written.
    #[derive(Default)]
    struct Written {
        lines: usize,
        bytes: usize,
        largest: usize,
    }

    impl std::io::Write for Written {
        fn write(&mut self, piece: &[u8]) -> std::io::Result<usize> {
            self.lines += piece.iter().filter(|byte| **byte == b'\n').count();
            self.bytes += piece.len();
            self.largest = self.largest.max(piece.len());
            Ok(piece.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The page that docs/metrics.md states the size of.
    #[test]
    fn all_categories_of_many_outbounds_are_written_in_small_pieces() {
        use crate::sentry::quantity::{Quantities, Quantity};
        use crate::telemetry::prometheus;

        let mut text = "keys:\n".to_owned();
        for route in 0..200 {
            text += &format!(
                "- name: application-{route:03}\n  inbound: http://{route:032x}@m/1\n  outbound:\n"
            );
            for name in ["saas", "self-hosted"] {
                text += &format!("  - {{name: {name}, dsn: 'http://{route:032x}@127.0.0.1/1'}}\n");
            }
        }
        let config = Config::parse(&text, "test", std::iter::empty()).unwrap();
        let table = Arc::new(RoutingTable::new(&config, 2, None).unwrap());
        for outbound in table.routes.all().iter().flat_map(|route| &route.outbounds) {
            for worker in outbound.counters.iter() {
                for category in ItemCategory::ALL {
                    let items = Quantities::from(Quantity::one(category.0));
                    worker.items.add(&items, ItemOutcome::Delivered);
                }
            }
        }
        let current = CurrentConfig {
            table: Arc::clone(&table),
            configuration: "".into(),
        };
        let mirror_status = MirrorStatus::new(String::new(), vec![], None, Arc::default(), current);
        let snapshot = MetricsSnapshot::live(&mirror_status, table);
        let mut written = Written::default();
        let families = families(&mirror_status, &snapshot);
        let families = families.filter(|family| family.name == "items");
        prometheus::write(families, prometheus::Format::Plain, &mut written).unwrap();
        assert_eq!(written.lines, 2 + 400 * 17 * 8);
        assert!(written.bytes < 7_000_000, "{} bytes", written.bytes);
        assert!(written.bytes > 4_000_000, "{} bytes", written.bytes);
        assert!(written.largest < 20_000, "{} bytes", written.largest);
    }
}
