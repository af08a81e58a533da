//! All metrics, from the counters of the workers.
//!
//! Every combination of labels that can occur is told, also those that are still zero: a rate can only be
//! taken of what was there before. Only a histogram in which nothing is yet is left out, for it is twenty
//! lines; the rates of its count are those of counters that are there.

use std::time::{Instant, UNIX_EPOCH};

use super::numbers::{Numbers, OriginNumbers, RouteNumbers};
use crate::mirror::counters::{LeftOut, OutcomeKind, RequestResult};
use crate::mirror::rejection::Reason;
use crate::mirror::routes::{Outbound, Route};
use crate::mirror::totals::{Closing, Counters, Pause};
use crate::observe::family::{Family, Labels};
use crate::observe::histogram::Distribution;
use crate::observe::label::Label;
use crate::observe::lines::DropReason;
use crate::server::sight::{Sight, Stage};
use crate::upstream::counters::{Dropped, OriginCounters};

/// What a request without a route has for its name.
const NO_ROUTE: &str = "none";

/// The answers that a request can get without a route.
const UNROUTED: [RequestResult; 4] = [
    RequestResult::Local,
    RequestResult::Rejected,
    RequestResult::Abandoned,
    RequestResult::Panicked,
];

/// The answers that a request of a route can get.
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

/// Everything there is to tell of a mirror, whose counters say `numbers`.
pub(super) fn families<'n>(sight: &Sight, numbers: &'n Numbers) -> Vec<Family<'n>> {
    let mut families = process(sight, numbers);
    families.extend(requests(sight, numbers));
    families.extend(deliveries(numbers));
    families.extend(upstreams(numbers));
    families
}

fn process<'n>(sight: &Sight, numbers: &'n Numbers) -> Vec<Family<'n>> {
    let version = vec![
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("driver", sight.driver().to_owned()),
    ];
    let since_1970 = sight.started_at.duration_since(UNIX_EPOCH);
    let started_at = since_1970.map_or(0.0, |since| since.as_secs_f64());
    let ready = f64::from(u8::from(sight.stage() == Stage::Ready));
    let counted = &numbers.process;
    let result = |word: &str| vec![("result", word.to_owned())];
    let dropped = |counts: [u64; DropReason::ALL.len()]| {
        let reasons = DropReason::ALL.iter().zip(counts);
        reasons.map(|(reason, count)| (vec![("reason", reason.word().to_owned())], count))
    };
    vec![
        one_gauge("build_info", "Version and driver, as labels.", version, 1.0),
        one_gauge(
            "start_time_seconds",
            "When the process began to accept, in seconds since 1970.",
            vec![],
            started_at,
        ),
        one_gauge(
            "ready",
            "1 while requests are accepted, 0 while draining.",
            vec![],
            ready,
        ),
        one_gauge(
            "workers",
            "Threads that serve.",
            vec![],
            sight.counters.len() as f64,
        ),
        Family::counter(
            "access_log_dropped",
            "Lines of the access log that were dropped, by reason.",
            dropped(counted.dropped_access_lines),
        ),
        Family::counter(
            "log_dropped",
            "Lines of the log that were dropped, by reason.",
            dropped(counted.dropped_log_lines),
        ),
        Family::counter(
            "config_reloads",
            "Reloads of the configuration, done or refused.",
            [
                (result("done"), counted.reloads),
                (result("refused"), counted.failed_reloads),
            ],
        ),
    ]
}

fn requests<'n>(sight: &Sight, numbers: &'n Numbers) -> Vec<Family<'n>> {
    let gauge = |name, help, read: &dyn Fn(&Counters) -> u64| {
        let sum: u64 = sight.counters.iter().map(|counters| read(counters)).sum();
        one_gauge(name, help, vec![], sum as f64)
    };
    let counted = &numbers.process;
    let unrouted = UNROUTED.map(|answered| {
        let count = counted.unrouted.get(answered);
        (answer_labels(NO_ROUTE, answered), count)
    });
    let routed = numbers.routes().flat_map(|(route, numbers)| {
        let of = |answered| {
            let count = numbers.answers.get(answered);
            (answer_labels(&route.name, answered), count)
        };
        ROUTED.map(of)
    });
    let items = LeftOut::ALL.iter().map(|reason| {
        let count = counted.items.get(*reason);
        (vec![("reason", reason.word().to_owned())], count)
    });
    let closings = Closing::ALL.iter().map(|reason| {
        let count = counted.closings.get(*reason);
        (vec![("reason", reason.word().to_owned())], count)
    });
    let pauses = Pause::ALL.iter().map(|reason| {
        let count = counted.pauses.get(*reason);
        (vec![("reason", reason.word().to_owned())], count)
    });
    let rejections = Reason::ALL.iter().map(|reason| {
        let count = counted.rejections.get(*reason);
        (vec![("reason", reason.word().to_owned())], count)
    });
    vec![
        Family::counter(
            "sdk_connections",
            "Connections of SDKs accepted.",
            [(vec![], counted.connections)],
        ),
        gauge(
            "sdk_connections_open",
            "Connections of SDKs open now.",
            &|counters| counters.open_connections.get(),
        ),
        Family::counter(
            "sdk_connections_closed",
            "Connections of SDKs closed because they were idle or took no reply, by timeout.",
            closings,
        ),
        Family::counter(
            "accept_pauses",
            "Times that a worker accepted no connection for a while, by reason.",
            pauses,
        ),
        Family::counter(
            "requests",
            "Requests, by route and by what the SDK was told.",
            routed.chain(unrouted),
        ),
        Family::counter(
            "rejections",
            "Requests refused by the mirror, by reason.",
            rejections,
        ),
        Family::counter(
            "items_left_out",
            "Items of envelopes left out of a delivery, because the outbound does not want them.",
            items,
        ),
        Family::counter(
            "received_bytes",
            "Bytes read from SDKs: heads and bodies as they were sent, whole or not, taken or refused.",
            [(vec![], counted.received_bytes)],
        ),
        gauge(
            "request_memory_bytes",
            "Bytes held for requests now.",
            &|counters| counters.budget_used.get(),
        ),
        gauge(
            "request_memory_limit_bytes",
            "Bytes that may be held for requests, over all workers.",
            &|counters| counters.budget_limit.get(),
        ),
        of_routes(
            numbers,
            "request_duration_seconds",
            "From the end of a request's head to the end of its reply.",
            |route| route.request_time,
        ),
        of_routes(
            numbers,
            "reply_wait_seconds",
            "From the start of a request's deliveries to the decision on its reply.",
            |route| route.reply_time,
        ),
    ]
}

fn deliveries(numbers: &Numbers) -> Vec<Family<'_>> {
    let now = Instant::now();
    let outcomes = numbers.outbounds().flat_map(|(route, outbound, numbers)| {
        OutcomeKind::ALL.iter().map(move |kind| {
            let mut labels = outbound_labels(route, outbound);
            labels.push(("outcome", kind.word().to_owned()));
            (labels, numbers.outcomes.get(*kind))
        })
    });
    let bytes = numbers.outbounds();
    let bytes =
        bytes.map(|(route, outbound, numbers)| (outbound_labels(route, outbound), numbers.bytes));
    let times = numbers.outbounds().map(|(route, outbound, numbers)| {
        let labels = outbound_labels(route, outbound);
        (labels, numbers.time)
    });
    let limits = numbers.outbounds().map(move |(route, outbound, _)| {
        let limits = outbound.limits.in_force(now).len();
        (outbound_labels(route, outbound), limits as f64)
    });
    vec![
        Family::counter("deliveries", "Deliveries ended, by outcome.", outcomes),
        Family::counter(
            "delivered_bytes",
            "Bytes of the requests that were sent to the outbound, also of those that broke off.",
            bytes,
        ),
        Family::histogram(
            "delivery_duration_seconds",
            "From the start of a request's deliveries to the end of this one.",
            times,
        ),
        Family::gauge(
            "rate_limits",
            "Rate limits of the outbound in force now.",
            limits,
        ),
    ]
}

fn upstreams(numbers: &Numbers) -> Vec<Family<'_>> {
    /// Name, help, and what tells the number.
    type Row<T> = (&'static str, &'static str, fn(&T) -> u64);
    let counts: [Row<OriginNumbers>; 5] = [
        (
            "upstream_connections_opened",
            "Connections opened to an upstream.",
            |numbers| numbers.opened,
        ),
        (
            "upstream_connections_reused",
            "Deliveries over a connection that was open already.",
            |numbers| numbers.reused,
        ),
        (
            "upstream_connections_stale",
            "Idle connections that the upstream had closed when they were to be used.",
            |numbers| numbers.stale,
        ),
        (
            "upstream_retries",
            "Deliveries sent once more because the reused connection failed.",
            |numbers| numbers.retries,
        ),
        (
            "dns_failures",
            "Times that the host of an upstream could not be resolved.",
            |numbers| numbers.dns_failures,
        ),
    ];
    let gauges: [Row<OriginCounters>; 4] = [
        (
            "upstream_connections_open",
            "Connections to an upstream open now.",
            |counters| counters.open.get(),
        ),
        (
            "upstream_connections_idle",
            "Those of them that wait to be used.",
            |counters| counters.idle.get(),
        ),
        (
            "deliveries_in_flight",
            "Deliveries under way now.",
            |counters| counters.in_flight.get(),
        ),
        (
            "breakers_open",
            "Workers that leave the upstream alone because it gave no answer.",
            |counters| u64::from(counters.breaker().is_open()),
        ),
    ];
    let origin = |origin: &crate::sentry::dsn::Origin| vec![("origin", origin.to_string())];
    let mut families = Vec::new();
    for (name, help, read) in counts {
        let samples = numbers.origins();
        let samples =
            samples.map(move |(shared, numbers)| (origin(&shared.origin), read(&numbers)));
        families.push(Family::counter(name, help, samples));
    }
    for (name, help, read) in gauges {
        let samples = numbers.origins();
        let samples = samples
            .map(move |(shared, _)| (origin(&shared.origin), shared.counters.sum(read) as f64));
        families.push(Family::gauge(name, help, samples));
    }
    let dropped = numbers.origins().flat_map(move |(shared, numbers)| {
        Dropped::ALL.iter().map(move |reason| {
            let mut labels = origin(&shared.origin);
            labels.push(("reason", reason.word().to_owned()));
            (labels, numbers.dropped.get(*reason))
        })
    });
    families.push(Family::counter(
        "upstream_connections_dropped",
        "Connections to an upstream that could have been used again and were closed, by reason.",
        dropped,
    ));
    let now = Instant::now();
    let ages = numbers.origins().filter_map(move |(shared, _)| {
        let age = shared.dns_age(now)?;
        Some((origin(&shared.origin), age.as_secs_f64()))
    });
    families.push(Family::gauge(
        "dns_age_seconds",
        "How old the addresses of an upstream's host are.",
        ages,
    ));
    let refreshes = numbers.origins().filter_map(move |(shared, _)| {
        let refresh = shared.dns_refresh()?;
        Some((origin(&shared.origin), refresh.as_secs_f64()))
    });
    families.push(Family::gauge(
        "dns_refresh_seconds",
        "How often an upstream's host is resolved again.",
        refreshes,
    ));
    families
}

fn one_gauge(
    name: &'static str,
    help: &'static str,
    labels: Labels,
    value: f64,
) -> Family<'static> {
    Family::gauge(name, help, [(labels, value)])
}

fn of_routes<'n>(
    numbers: &'n Numbers,
    name: &'static str,
    help: &'static str,
    read: fn(RouteNumbers) -> Distribution,
) -> Family<'n> {
    let samples = numbers.routes().map(move |(route, numbers)| {
        let labels = vec![("route", route.name.clone())];
        (labels, read(numbers))
    });
    Family::histogram(name, help, samples)
}

fn outbound_labels(route: &Route, outbound: &Outbound) -> Labels {
    vec![
        ("route", route.name.clone()),
        ("outbound", outbound.name.clone()),
    ]
}

fn answer_labels(route: &str, answered: RequestResult) -> Labels {
    vec![
        ("route", route.to_owned()),
        ("result", answered.word().to_owned()),
    ]
}
