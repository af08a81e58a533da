//! All metrics, from the counters of the workers.
//!
//! Every combination of labels that can occur is told, also those that are still zero: a rate can only be
//! taken of what was there before.

use std::time::{Instant, UNIX_EPOCH};

use crate::mirror::access::AccessLog;
use crate::mirror::counters::{Answered, LeftOut, OutcomeKind};
use crate::mirror::rejection::Reason;
use crate::mirror::routes::{Outbound, Route};
use crate::mirror::totals::Counters;
use crate::observe::family::{Family, Labels};
use crate::observe::histogram::{Distribution, Histogram};
use crate::observe::label::Label;
use crate::server::plan::Plan;
use crate::server::sight::{Sight, Stage};
use crate::upstream::counters::{BreakerState, OriginCounters};

/// What a request without a route has for its name.
const NO_ROUTE: &str = "none";

/// The answers that a request can get without a route.
const UNROUTED: [Answered; 4] = [
    Answered::Local,
    Answered::Rejected,
    Answered::Abandoned,
    Answered::Panicked,
];

/// The answers that a request of a route can get.
const ROUTED: [Answered; 7] = [
    Answered::Accepted,
    Answered::Assumed,
    Answered::RateLimited,
    Answered::Refused,
    Answered::Failed,
    Answered::Rejected,
    Answered::Abandoned,
];

/// Everything there is to tell of a mirror.
pub(super) fn families(sight: &Sight) -> Vec<Family> {
    let plan = sight.current().plan;
    let mut families = process(sight);
    families.extend(requests(sight, &plan));
    families.extend(deliveries(&plan));
    families.extend(upstreams(&plan));
    families
}

fn process(sight: &Sight) -> Vec<Family> {
    let version = vec![
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("driver", sight.driver().to_owned()),
    ];
    let since_1970 = sight.started_at.duration_since(UNIX_EPOCH);
    let started_at = since_1970.map_or(0.0, |since| since.as_secs_f64());
    let ready = f64::from(u8::from(sight.stage() == Stage::Ready));
    let (reloads, failed_reloads) = sight.reloads();
    let access = sight.access.as_ref();
    let dropped_lines = access.map_or(0, AccessLog::dropped_lines) as u64;
    let result = |word: &str| vec![("result", word.to_owned())];
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
            "Lines of the access log that nobody read fast enough.",
            [(vec![], dropped_lines)],
        ),
        Family::counter(
            "config_reloads",
            "Reloads of the configuration, done or refused.",
            [
                (result("done"), reloads),
                (result("refused"), failed_reloads),
            ],
        ),
    ]
}

fn requests(sight: &Sight, plan: &Plan) -> Vec<Family> {
    let sum = |read: &dyn Fn(&Counters) -> u64| -> u64 {
        sight.counters.iter().map(|counters| read(counters)).sum()
    };
    let gauge = |name, help, read: &dyn Fn(&Counters) -> u64| {
        one_gauge(name, help, vec![], sum(read) as f64)
    };
    let unrouted = UNROUTED.map(|answered| {
        let count = sum(&|counters| counters.unrouted.of(answered));
        (answer_labels(NO_ROUTE, answered), count)
    });
    let routed = plan.routes.all().iter().flat_map(|route| {
        ROUTED.map(|answered| {
            let count = route.counters.sum(|counters| counters.answers.of(answered));
            (answer_labels(&route.name, answered), count)
        })
    });
    let items = LeftOut::ALL.iter().map(|reason| {
        let count = sum(&|counters| counters.items.of(*reason));
        (vec![("reason", reason.word().to_owned())], count)
    });
    let rejections = Reason::ALL.iter().map(|reason| {
        let count = sum(&|counters| counters.rejections.of(*reason));
        (vec![("reason", reason.word().to_owned())], count)
    });
    vec![
        Family::counter(
            "sdk_connections",
            "Connections of SDKs accepted.",
            [(vec![], sum(&|counters| counters.connections.read()))],
        ),
        gauge(
            "sdk_connections_open",
            "Connections of SDKs open now.",
            &|counters| counters.open_connections.read(),
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
            "Bytes of request heads and bodies, as the SDKs sent them.",
            [(vec![], sum(&|counters| counters.received_bytes.read()))],
        ),
        gauge(
            "request_memory_bytes",
            "Bytes held for requests now.",
            &|counters| counters.budget_used.read(),
        ),
        gauge(
            "request_memory_limit_bytes",
            "Bytes that may be held for requests, over all workers.",
            &|counters| counters.budget_limit.read(),
        ),
        of_routes(
            plan,
            "request_duration_seconds",
            "From the end of a request's head to the end of its reply.",
            |route| sum_of(route.counters.iter().map(|counters| &counters.request_time)),
        ),
        of_routes(
            plan,
            "reply_wait_seconds",
            "From the start of a request's deliveries to the decision on its reply.",
            |route| sum_of(route.counters.iter().map(|counters| &counters.reply_time)),
        ),
    ]
}

fn deliveries(plan: &Plan) -> Vec<Family> {
    let now = Instant::now();
    let outcomes = outbounds(plan).flat_map(|(route, outbound)| {
        OutcomeKind::ALL.iter().map(move |kind| {
            let count = outbound
                .counters
                .sum(|counters| counters.outcomes.of(*kind));
            let mut labels = outbound_labels(route, outbound);
            labels.push(("outcome", kind.word().to_owned()));
            (labels, count)
        })
    });
    let bytes = outbounds(plan).map(|(route, outbound)| {
        let bytes = outbound.counters.sum(|counters| counters.bytes.read());
        (outbound_labels(route, outbound), bytes)
    });
    let times = outbounds(plan).map(|(route, outbound)| {
        let times = sum_of(outbound.counters.iter().map(|counters| &counters.time));
        (outbound_labels(route, outbound), times)
    });
    let limits = outbounds(plan).map(|(route, outbound)| {
        let limits = outbound.limits.in_force(now).len();
        (outbound_labels(route, outbound), limits as f64)
    });
    vec![
        Family::counter("deliveries", "Deliveries ended, by outcome.", outcomes),
        Family::counter(
            "delivered_bytes",
            "Bytes of the requests that were sent or were to be sent.",
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

fn upstreams(plan: &Plan) -> Vec<Family> {
    type Read = fn(&OriginCounters) -> u64;
    let counts: [(&str, &str, Read); 4] = [
        (
            "upstream_connections_opened",
            "Connections opened to an upstream.",
            |counters| counters.opened.read(),
        ),
        (
            "upstream_connections_reused",
            "Deliveries over a connection that was open already.",
            |counters| counters.reused.read(),
        ),
        (
            "upstream_connections_stale",
            "Idle connections that the upstream had closed when they were to be used.",
            |counters| counters.stale.read(),
        ),
        (
            "upstream_retries",
            "Deliveries sent once more because the reused connection failed.",
            |counters| counters.retries.read(),
        ),
    ];
    let gauges: [(&str, &str, Read); 4] = [
        (
            "upstream_connections_open",
            "Connections to an upstream open now.",
            |counters| counters.open.read(),
        ),
        (
            "upstream_connections_idle",
            "Those of them that wait to be used.",
            |counters| counters.idle.read(),
        ),
        (
            "deliveries_in_flight",
            "Deliveries under way now.",
            |counters| counters.in_flight.read(),
        ),
        (
            "breakers_open",
            "Workers that leave the upstream alone because it gave no answer.",
            |counters| u64::from(counters.breaker() != BreakerState::Closed),
        ),
    ];
    let origin = |origin: &crate::sentry::dsn::Origin| vec![("origin", origin.to_string())];
    let mut families = Vec::new();
    for (name, help, read) in counts {
        let samples = plan.origins.iter();
        let samples = samples.map(|shared| (origin(&shared.origin), shared.counters.sum(read)));
        families.push(Family::counter(name, help, samples));
    }
    for (name, help, read) in gauges {
        let samples = plan.origins.iter();
        let samples =
            samples.map(|shared| (origin(&shared.origin), shared.counters.sum(read) as f64));
        families.push(Family::gauge(name, help, samples));
    }
    let now = Instant::now();
    let ages = plan.origins.iter().filter_map(|shared| {
        let age = shared.dns_age(now)?;
        Some((origin(&shared.origin), age.as_secs_f64()))
    });
    families.push(Family::gauge(
        "dns_age_seconds",
        "How old the addresses of an upstream's host are.",
        ages,
    ));
    families
}

fn one_gauge(name: &'static str, help: &'static str, labels: Labels, value: f64) -> Family {
    Family::gauge(name, help, [(labels, value)])
}

fn of_routes(
    plan: &Plan,
    name: &'static str,
    help: &'static str,
    read: impl Fn(&Route) -> Distribution,
) -> Family {
    let samples = plan.routes.all().iter();
    let samples = samples.map(|route| (vec![("route", route.name.clone())], read(route)));
    Family::histogram(name, help, samples)
}

fn outbounds(plan: &Plan) -> impl Iterator<Item = (&Route, &Outbound)> {
    let routes = plan.routes.all().iter();
    routes.flat_map(|route| route.outbounds.iter().map(|outbound| (&**route, outbound)))
}

fn outbound_labels(route: &Route, outbound: &Outbound) -> Labels {
    vec![
        ("route", route.name.clone()),
        ("outbound", outbound.name.clone()),
    ]
}

fn answer_labels(route: &str, answered: Answered) -> Labels {
    vec![
        ("route", route.to_owned()),
        ("result", answered.word().to_owned()),
    ]
}

fn sum_of<'h>(histograms: impl Iterator<Item = &'h Histogram>) -> Distribution {
    Distribution::of(histograms)
}
