//! The metrics of getsentry/sentry-mirror that mean something here, under their old names.
//!
//! They only go to statsd, which is where that program sends them, so that dashboards made for it go on
//! showing what they showed. The README maps all of its names to ours. Two of its tags are not kept: the
//! whole inbound key, which is shortened, and the path, which is whatever a client sends.

use std::collections::BTreeMap;

use crate::mirror::counters::{Answered, OutcomeKind};
use crate::mirror::rejection::Reason;
use crate::mirror::routes::Outbound;
use crate::mirror::totals::Counters;
use crate::observe::family::{Family, Labels};
use crate::observe::histogram::Distribution;
use crate::observe::label::Label;
use crate::server::plan::Plan;
use crate::server::sight::Sight;

/// The outcomes with any response, which is what it calls a success.
const ANSWERED: [OutcomeKind; 5] = [
    OutcomeKind::Success,
    OutcomeKind::TooManyRequests,
    OutcomeKind::ClientError,
    OutcomeKind::ServerError,
    OutcomeKind::OtherStatus,
];

/// The old names with their numbers.
pub(super) fn families(sight: &Sight) -> Vec<Family> {
    let plan = sight.current().plan;
    let sum = |read: &dyn Fn(&Counters) -> u64| -> u64 {
        sight.counters.iter().map(|counters| read(counters)).sum()
    };
    let rejected = |reasons: &[Reason]| {
        let of = |reason: &Reason| sum(&|counters| counters.rejections.of(*reason));
        reasons.iter().map(of).sum::<u64>()
    };
    let one = |name, count| Family::counter(name, "", [(vec![], count)]);
    let mut families = vec![
        one(
            "handle_request.request",
            sum(&|counters| counters.answers.sum()),
        ),
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
        responses(&plan),
        Family::histogram(
            "handle_proxy.duration",
            "",
            [(vec![], request_times(&plan))],
        ),
    ];
    families.extend(outbound_requests(&plan));
    families
}

fn responses(plan: &Plan) -> Family {
    let replied = |route: &crate::mirror::routes::Route| {
        let counters = &route.counters;
        let told = Answered::ALL.iter().filter(|answered| {
            !matches!(
                answered,
                Answered::Rejected | Answered::Abandoned | Answered::Panicked
            )
        });
        told.map(|answered| counters.sum(|counters| counters.answers.of(*answered)))
            .sum::<u64>()
    };
    let samples = plan.routes.all().iter();
    let samples = samples.map(|route| (vec![("inbound_key", route.name.clone())], replied(route)));
    Family::counter("handle_proxy.response", "", samples)
}

fn request_times(plan: &Plan) -> Distribution {
    let routes = plan.routes.all().iter();
    let histograms = routes.flat_map(|route| {
        let counters = route.counters.iter();
        counters.map(|counters| &counters.request_time)
    });
    Distribution::of(histograms)
}

/// What is tagged with the host of an outbound, over all outbounds at that host.
fn outbound_requests(plan: &Plan) -> Vec<Family> {
    let mut hosts: BTreeMap<&str, Vec<&Outbound>> = BTreeMap::new();
    for outbound in plan.routes.all().iter().flat_map(|route| &route.outbounds) {
        hosts.entry(&outbound.host).or_default().push(outbound);
    }
    let count = |outbounds: &[&Outbound], is_meant: &dyn Fn(OutcomeKind) -> bool| -> u64 {
        let kinds = || OutcomeKind::ALL.iter().filter(|kind| is_meant(**kind));
        let of = |outbound: &&Outbound| -> u64 {
            kinds()
                .map(|kind| {
                    outbound
                        .counters
                        .sum(|counters| counters.outcomes.of(*kind))
                })
                .sum()
        };
        outbounds.iter().map(of).sum()
    };
    let samples = |is_meant: &dyn Fn(OutcomeKind) -> bool| -> Vec<(Labels, u64)> {
        let hosts = hosts.iter();
        hosts
            .map(|(host, outbounds)| (labels(host), count(outbounds, is_meant)))
            .collect()
    };
    let is_answered = |kind: OutcomeKind| ANSWERED.contains(&kind);
    let times = hosts.iter().map(|(host, outbounds)| {
        let counters = outbounds
            .iter()
            .flat_map(|outbound| outbound.counters.iter());
        (
            labels(host),
            Distribution::of(counters.map(|counters| &counters.time)),
        )
    });
    vec![
        Family::counter(
            "handle_proxy.outbound_request.start",
            "",
            samples(&OutcomeKind::was_tried),
        ),
        Family::counter(
            "handle_proxy.outbound_request.success",
            "",
            samples(&is_answered),
        ),
        Family::counter(
            "handle_proxy.outbound_request.failed",
            "",
            samples(&|kind| kind.was_tried() && !is_answered(kind)),
        ),
        Family::histogram("handle_proxy.send_request.duration", "", times),
    ]
}

fn labels(host: &str) -> Labels {
    vec![("outbound_host", host.to_owned())]
}
