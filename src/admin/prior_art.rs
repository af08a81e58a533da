//! The metrics of getsentry/sentry-mirror that mean something here, under their old names.
//!
//! They only go to statsd, which is where that program sends them, so that dashboards made for it go on
//! showing what they showed. The README maps all of its names to ours. Two of its tags are not kept: the
//! whole inbound key, which is shortened, and the path, which is whatever a client sends.

use std::collections::BTreeMap;

use super::numbers::Numbers;
use crate::mirror::counters::{OutcomeKind, RequestResult};
use crate::mirror::rejection::Reason;
use crate::observe::counters::CounterVecSnapshot;
use crate::observe::family::{Family, Labels};
use crate::observe::histogram::Distribution;
use crate::observe::label::Label;

/// The outcomes with any response, which is what it calls a success.
const ANSWERED: [OutcomeKind; 5] = [
    OutcomeKind::Success,
    OutcomeKind::TooManyRequests,
    OutcomeKind::ClientError,
    OutcomeKind::ServerError,
    OutcomeKind::OtherStatus,
];

/// The old names with their numbers.
pub(super) fn families(numbers: &Numbers) -> Vec<Family<'_>> {
    let counted = &numbers.process;
    let rejected = |reasons: &[Reason]| {
        let of = |reason: &Reason| counted.rejections.get(*reason);
        reasons.iter().map(of).sum::<u64>()
    };
    let one = |name, count| Family::counter(name, "", [(vec![], count)]);
    let mut families = vec![
        one("handle_request.request", counted.answers.total()),
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
        responses(numbers),
        Family::histogram(
            "handle_proxy.duration",
            "",
            [(vec![], request_times(numbers))],
        ),
    ];
    families.extend(outbound_requests(numbers));
    families
}

fn responses(numbers: &Numbers) -> Family<'_> {
    let has_response = |answered: RequestResult| {
        !matches!(
            answered,
            RequestResult::Rejected
                | RequestResult::Abandoned
                | RequestResult::Panicked
                | RequestResult::GivenUp
        )
    };
    let samples = numbers.routes().map(move |(route, numbers)| {
        let labels = vec![("inbound_key", route.name.clone())];
        (labels, sum(&numbers.answers, has_response))
    });
    Family::counter("handle_proxy.response", "", samples)
}

fn request_times(numbers: &Numbers) -> Distribution {
    let mut total = Distribution::default();
    for (_, numbers) in numbers.routes() {
        total.add(&numbers.request_time);
    }
    total
}

/// What is tagged with the host of an outbound, over all outbounds at that host.
fn outbound_requests(numbers: &Numbers) -> Vec<Family<'_>> {
    let mut times: BTreeMap<&str, Distribution> = BTreeMap::new();
    for (_, outbound, numbers) in numbers.outbounds() {
        let total = times.entry(&outbound.host).or_default();
        total.add(&numbers.time);
    }
    let counter = |name, is_meant: fn(OutcomeKind) -> bool| {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for (_, outbound, numbers) in numbers.outbounds() {
            *counts.entry(&outbound.host).or_default() += sum(&numbers.outcomes, is_meant);
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
            ANSWERED.contains(&kind)
        }),
        counter("handle_proxy.outbound_request.failed", |kind| {
            kind.was_tried() && !ANSWERED.contains(&kind)
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

/// How many of `tallied` have a label that `is_meant`.
fn sum<L: Label>(tallied: &CounterVecSnapshot<L>, is_meant: impl Fn(L) -> bool) -> u64 {
    let labels = L::ALL.iter().filter(|label| is_meant(**label));
    labels.map(|label| tallied.get(*label)).sum()
}

fn labels(host: &str) -> Labels {
    vec![("outbound_host", host.to_owned())]
}
