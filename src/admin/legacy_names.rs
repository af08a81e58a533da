//! The metrics of getsentry/sentry-mirror that have an equivalent, under their names there.
//!
//! They are sent to statsd only, as that program does, so that its dashboards continue to work.
//! docs/coming-from-getsentry.md maps all of its names to ours. Two of its tags differ: `inbound_key` is the
//! name of the route, and the path is left out because it can be any text that a client sends.

use std::collections::BTreeMap;

use super::snapshot::MetricsSnapshot;
use crate::mirror::reply::rejection::Reason;
use crate::mirror::reporting::counters::{OutcomeKind, RequestResult};
use crate::telemetry::counters::CounterVecSnapshot;
use crate::telemetry::family::{Family, Labels};
use crate::telemetry::histogram::Distribution;
use crate::telemetry::label::Label;

/// The outcomes with a response: getsentry/sentry-mirror calls all of them a success.
const WITH_RESPONSE: [OutcomeKind; 5] = [
    OutcomeKind::Success,
    OutcomeKind::TooManyRequests,
    OutcomeKind::ClientError,
    OutcomeKind::ServerError,
    OutcomeKind::OtherStatus,
];

pub(super) fn families(snapshot: &MetricsSnapshot) -> Vec<Family<'_>> {
    let process = &snapshot.process;
    let rejected = |reasons: &[Reason]| {
        let counts = reasons.iter().map(|reason| process.rejections.get(*reason));
        counts.sum::<u64>()
    };
    let one = |name, count| Family::counter(name, "", [(vec![], count)]);
    let mut families = vec![
        one("handle_request.request", process.answers.total()),
        one("handle_proxy.incorrect_method", rejected(&[Reason::Method])),
        one(
            "handle_proxy.no_dsn",
            rejected(&[Reason::NoKey, Reason::NoEnvelopeKey]),
        ),
        one(
            "handle_proxy.unknown_dsn",
            rejected(&[Reason::UnknownKey, Reason::BadKey]),
        ),
        one(
            "handle_proxy.decode_error",
            rejected(&[Reason::Decode, Reason::Encoding]),
        ),
        responses(snapshot),
        Family::histogram(
            "handle_proxy.duration",
            "",
            [(vec![], request_times(snapshot))],
        ),
    ];
    families.extend(outbound_requests(snapshot));
    families
}

fn responses(snapshot: &MetricsSnapshot) -> Family<'_> {
    let has_response = |result: RequestResult| {
        !matches!(
            result,
            RequestResult::Rejected
                | RequestResult::Abandoned
                | RequestResult::Panicked
                | RequestResult::GivenUp
        )
    };
    let samples = snapshot.routes().map(move |(route, values)| {
        let labels = vec![("inbound_key", route.name.clone())];
        (labels, sum(&values.answers, has_response))
    });
    Family::counter("handle_proxy.response", "", samples)
}

fn request_times(snapshot: &MetricsSnapshot) -> Distribution {
    let mut total = Distribution::default();
    for (_, values) in snapshot.routes() {
        total.add(&values.request_time);
    }
    total
}

/// The metrics that are tagged with the host of an outbound, summed over all outbounds at that host.
fn outbound_requests(snapshot: &MetricsSnapshot) -> Vec<Family<'_>> {
    let mut times: BTreeMap<&str, Distribution> = BTreeMap::new();
    for (_, outbound, values) in snapshot.outbounds() {
        let total = times.entry(&outbound.host).or_default();
        total.add(&values.time);
    }
    let counter = |name, includes: fn(OutcomeKind) -> bool| {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for (_, outbound, values) in snapshot.outbounds() {
            *counts.entry(&outbound.host).or_default() += sum(&values.outcomes, includes);
        }
        let samples = counts.into_iter();
        Family::counter(name, "", samples.map(|(host, count)| (labels(host), count)))
    };
    let times = times.into_iter();
    vec![
        counter(
            "handle_proxy.outbound_request.start",
            OutcomeKind::was_tried,
        ),
        counter("handle_proxy.outbound_request.success", |kind| {
            WITH_RESPONSE.contains(&kind)
        }),
        counter("handle_proxy.outbound_request.failed", |kind| {
            kind.was_tried() && !WITH_RESPONSE.contains(&kind)
        }),
        counter("handle_proxy.outbound_request.sampled_out", |kind| {
            kind == OutcomeKind::Sampled
        }),
        Family::histogram(
            "handle_proxy.send_request.duration",
            "",
            times.map(|(host, total)| (labels(host), total)),
        ),
    ]
}

/// The sum over the labels that `includes` accepts.
fn sum<L: Label>(counts: &CounterVecSnapshot<L>, includes: impl Fn(L) -> bool) -> u64 {
    let labels = L::ALL.iter().filter(|label| includes(**label));
    labels.map(|label| counts.get(*label)).sum()
}

fn labels(host: &str) -> Labels {
    vec![("outbound_host", host.to_owned())]
}
