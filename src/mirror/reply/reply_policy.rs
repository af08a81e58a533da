//! Decides the reply to a request from the outcomes of its deliveries.
//!
//! [`decide`] maps the outcomes so far to a decision, or to `None` while further outcomes may change it. It
//! follows two principles. If one outbound accepted an event, the reply must not make the SDK send it again. A
//! broken or rate limited outbound must never silence the SDK for a healthy one.

use crate::config::ReplyPolicy;
use crate::mirror::fan_out::outcome::{Outcome, SkipReason};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The response of the outbound with this index.
    Answer(usize),
    /// The endpoint's success, made by the mirror: all outbounds filtered the request out, `reply_timeout` has
    /// passed and the outcomes so far decide nothing, or [`mask_rate_limits`] replaced a 429.
    Success,
    /// 429: every live outbound is rate limited.
    RateLimited,
    /// 413: the request is too large for every outbound.
    TooLarge,
    /// 503: no outbound accepted the request, and the request is not the cause.
    Unavailable,
}

/// The effect of an outcome on the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DeliveryClass {
    Accepted,
    Limited,
    TooLarge,
    /// 401, 403, 404: the outbound does not know the key or the project, so it is not live.
    NotLive,
    /// Any other 4xx: the outbound will never accept this request, but may accept others.
    Refused,
    /// 5xx, an unexpected status, or no response.
    Broken,
    /// The outbound filtered out the whole request, or its cap is reached, so it does not influence the reply.
    Unwanted,
}

/// The outcomes that may influence the reply: those of the first `count` outbounds. The others have `reply: never`.
pub(crate) fn considered(outcomes: &[Option<Outcome>], count: usize) -> &[Option<Outcome>] {
    outcomes.get(..count).unwrap_or(outcomes)
}

/// The decision on `outcomes`, which are in configuration order, with `None` for deliveries in flight.
/// `is_late` is true after `reply_timeout`. Returns `None` to wait for further outcomes.
pub(crate) fn decide(
    policy: ReplyPolicy,
    outcomes: &[Option<Outcome>],
    is_late: bool,
) -> Option<Decision> {
    let primary = outcomes.first()?.as_ref();
    if policy == ReplyPolicy::Primary && matches!(primary, Some(Outcome::Answered(_))) {
        return Some(Decision::Answer(0));
    }
    let classes = || outcomes.iter().map(|outcome| outcome.as_ref().map(class));
    let accepted = classes().position(|class| class == Some(DeliveryClass::Accepted));
    match accepted {
        Some(0) => return Some(Decision::Answer(0)),
        Some(index) if primary.is_some() || is_late => return Some(Decision::Answer(index)),
        Some(_) => return None,
        None => {}
    }
    if outcomes.iter().any(Option::is_none) {
        return is_late.then_some(Decision::Success);
    }
    Some(decide_without_success(
        &classes().flatten().collect::<Vec<_>>(),
    ))
}

/// Replaces a 429 at endpoints where Relay accepts and drops rate limited requests, because Crashpad would send
/// them again. A 429 from an upstream stays: it does not come from Relay, and the client should retry.
pub(crate) fn mask_rate_limits(decision: Decision, outcomes: &[Option<Outcome>]) -> Decision {
    let is_answered = |outcome: &Outcome| outcome.response().is_some_and(|it| it.status == 429);
    match decision {
        Decision::RateLimited if !outcomes.iter().flatten().any(is_answered) => Decision::Success,
        _ => decision,
    }
}

/// The decision when all deliveries have ended and no outbound accepted the request.
fn decide_without_success(classes: &[DeliveryClass]) -> Decision {
    let wanted: Vec<DeliveryClass> = {
        let is_wanted = |class: &&DeliveryClass| **class != DeliveryClass::Unwanted;
        classes.iter().filter(is_wanted).copied().collect()
    };
    let mut live = classes
        .iter()
        .filter(|class| **class != DeliveryClass::NotLive);
    let is_limited = wanted.contains(&DeliveryClass::Limited);
    if wanted.is_empty() {
        // All outbounds filtered it out, as configured.
        Decision::Success
    } else if is_limited && live.all(|class| *class == DeliveryClass::Limited) {
        Decision::RateLimited
    } else if wanted.iter().all(|class| *class == DeliveryClass::TooLarge) {
        Decision::TooLarge
    } else if is_limited || wanted.contains(&DeliveryClass::Broken) {
        Decision::Unavailable
    } else {
        // Every outbound that wants the request has refused it; the first stands for all.
        let first = classes
            .iter()
            .position(|class| *class != DeliveryClass::Unwanted);
        Decision::Answer(first.unwrap_or(0))
    }
}

fn class(outcome: &Outcome) -> DeliveryClass {
    match outcome {
        Outcome::Skipped(SkipReason::Filtered | SkipReason::Sampled | SkipReason::Capped) => {
            DeliveryClass::Unwanted
        }
        Outcome::Skipped(SkipReason::RateLimited(_)) => DeliveryClass::Limited,
        Outcome::Failed(_) | Outcome::Panicked => DeliveryClass::Broken,
        Outcome::Answered(response) => match response.status {
            200..=299 => DeliveryClass::Accepted,
            401 | 403 | 404 => DeliveryClass::NotLive,
            413 => DeliveryClass::TooLarge,
            429 => DeliveryClass::Limited,
            400..=499 => DeliveryClass::Refused,
            _ => DeliveryClass::Broken,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::exchange::Failure;
    use crate::upstream::response::Response;

    /// A status is a response, `0` a failure, `-1` in flight, `-2` filtered out, `-3` rate limited.
    fn outcomes(states: &[i32]) -> Vec<Option<Outcome>> {
        let outcome = |state: &i32| match state {
            -1 => None,
            -2 => Some(Outcome::Skipped(SkipReason::Filtered)),
            -3 => Some(Outcome::Skipped(SkipReason::RateLimited(60))),
            0 => Some(Outcome::Failed(Failure::Timeout)),
            status => {
                let status = u16::try_from(*status).unwrap();
                Some(Outcome::Answered(Response::with_status(status)))
            }
        };
        states.iter().map(outcome).collect()
    }

    #[test]
    fn every_row_of_the_reply_table_under_first_success() {
        use Decision::{Answer, RateLimited, Success, TooLarge, Unavailable};
        let on_time = false;
        let late = true;
        #[rustfmt::skip]
        let table: &[(&[i32], bool, Option<Decision>)] = &[
            // The primary accepted: reply at once.
            (&[200, -1], on_time, Some(Answer(0))),
            (&[202, 500], on_time, Some(Answer(0))),
            // The primary failed, another outbound accepted: the first that did.
            (&[500, 200], on_time, Some(Answer(1))),
            (&[0, -1, 200], on_time, Some(Answer(2))),
            (&[429, 200, 200], on_time, Some(Answer(1))),
            (&[403, 200], on_time, Some(Answer(1))),
            // The primary is in flight: wait until `reply_timeout`.
            (&[-1, 200], on_time, None),
            (&[-1, 200], late, Some(Answer(1))),
            (&[-1, -1], on_time, None),
            (&[-1, -1], late, Some(Success)),
            (&[500, -1], on_time, None),
            (&[500, -1], late, Some(Success)),
            (&[-1, 500], late, Some(Success)),
            // All have ended, none accepted.
            (&[429], on_time, Some(RateLimited)),
            (&[429, 429], on_time, Some(RateLimited)),
            (&[429, 403], on_time, Some(RateLimited)),
            (&[401, 404, 429], on_time, Some(RateLimited)),
            (&[429, 503], on_time, Some(Unavailable)),
            (&[429, 0], late, Some(Unavailable)),
            (&[429, 400], on_time, Some(Unavailable)),
            (&[413, 413], on_time, Some(TooLarge)),
            (&[413, 400], on_time, Some(Answer(0))),
            (&[400, 403], on_time, Some(Answer(0))),
            (&[403], on_time, Some(Answer(0))),
            (&[403, 500], on_time, Some(Unavailable)),
            (&[0], on_time, Some(Unavailable)),
            (&[0, 0], on_time, Some(Unavailable)),
            (&[302], on_time, Some(Unavailable)),
            // Some outbounds filtered out the request.
            (&[-2], on_time, Some(Success)),
            (&[-2, -2], on_time, Some(Success)),
            (&[-2, 200], on_time, Some(Answer(1))),
            (&[200, -2], on_time, Some(Answer(0))),
            (&[-2, -1], on_time, None),
            (&[-2, -1], late, Some(Success)),
            (&[-1, -2], on_time, None),
            (&[-2, 400], on_time, Some(Answer(1))),
            (&[-2, 413], on_time, Some(TooLarge)),
            (&[-2, 500], on_time, Some(Unavailable)),
            (&[-2, 0], on_time, Some(Unavailable)),
            // A 429 would silence the SDK for data that the first outbound takes.
            (&[-2, 429], on_time, Some(Unavailable)),
        ];
        for (states, is_late, expected) in table {
            let decision = decide(ReplyPolicy::FirstSuccess, &outcomes(states), *is_late);
            assert_eq!(decision, *expected, "{states:?}, late: {is_late}");
        }
    }

    #[test]
    fn outbounds_that_never_reply_do_not_influence_the_reply() {
        use Decision::{Answer, RateLimited, Success, TooLarge, Unavailable};
        // The outcomes, how many of them are considered, and the decisions on time and late.
        #[rustfmt::skip]
        type Row = (
            &'static [i32],
            usize,
            Option<Decision>,
            Option<Decision>,
        );
        let table: &[Row] = &[
            (&[200, 200], 1, Some(Answer(0)), Some(Answer(0))),
            (&[200, -1], 1, Some(Answer(0)), Some(Answer(0))),
            // Its success is none for the SDK, whether it comes first or alone.
            (&[-1, 200], 1, None, Some(Success)),
            (&[500, 200], 1, Some(Unavailable), Some(Unavailable)),
            (&[0, 200], 1, Some(Unavailable), Some(Unavailable)),
            (&[400, 200], 1, Some(Answer(0)), Some(Answer(0))),
            (&[413, 200], 1, Some(TooLarge), Some(TooLarge)),
            (&[429, 200], 1, Some(RateLimited), Some(RateLimited)),
            // Nor is its failure, or that it is in flight.
            (&[400, 500], 1, Some(Answer(0)), Some(Answer(0))),
            (&[429, 500], 1, Some(RateLimited), Some(RateLimited)),
            (&[413, -1], 1, Some(TooLarge), Some(TooLarge)),
            (&[500, -1], 1, Some(Unavailable), Some(Unavailable)),
            (&[-2, -1], 1, Some(Success), Some(Success)),
            (&[-2, 400], 1, Some(Success), Some(Success)),
            (&[0, 200, -1], 2, Some(Answer(1)), Some(Answer(1))),
            (&[-1, 500, 200], 2, None, Some(Success)),
            // Only the primary is asked.
            (&[500], 2, Some(Unavailable), Some(Unavailable)),
        ];
        for (states, count, on_time, late) in table {
            for policy in [ReplyPolicy::FirstSuccess, ReplyPolicy::Primary] {
                // The primary policy passes on what the primary answered.
                if policy == ReplyPolicy::Primary && states[0] > 0 {
                    continue;
                }
                let outcomes = outcomes(states);
                let outcomes = considered(&outcomes, *count);
                assert_eq!(decide(policy, outcomes, false), *on_time, "{states:?}");
                assert_eq!(decide(policy, outcomes, true), *late, "{states:?}, late");
            }
        }
    }

    #[test]
    fn a_rate_limit_is_masked_unless_an_upstream_responded_with_429() {
        use Decision::{Answer, RateLimited, Success, Unavailable};
        #[rustfmt::skip]
        let table: &[(&[i32], Decision, Decision)] = &[
            (&[-3],       RateLimited, Success),
            (&[-3, -3],   RateLimited, Success),
            (&[-3, 403],  RateLimited, Success),
            (&[-3, 429],  RateLimited, RateLimited),
            (&[429],      RateLimited, RateLimited),
            // Crashpad may send it again: one outbound has not dropped it.
            (&[-3, 500],  Unavailable, Unavailable),
            (&[-3, 0],    Unavailable, Unavailable),
            (&[-3, 200],  Answer(1),   Answer(1)),
        ];
        for (states, decided, masked) in table {
            let outcomes = outcomes(states);
            let decision = decide(ReplyPolicy::FirstSuccess, &outcomes, false).unwrap();
            assert_eq!(decision, *decided, "{states:?}");
            assert_eq!(mask_rate_limits(decision, &outcomes), *masked, "{states:?}");
        }
    }

    #[test]
    fn the_primary_policy_forwards_any_response_of_the_primary() {
        use Decision::{Answer, Success, Unavailable};
        #[rustfmt::skip]
        let table: &[(&[i32], bool, Option<Decision>)] = &[
            (&[200, -1], false, Some(Answer(0))),
            (&[429, 200], false, Some(Answer(0))),
            (&[500, 200], false, Some(Answer(0))),
            (&[403, -1], false, Some(Answer(0))),
            // Without a response of the primary, as under first_success.
            (&[0, 200], false, Some(Answer(1))),
            (&[-1, 200], false, None),
            (&[-1, 200], true, Some(Answer(1))),
            (&[-1, -1], true, Some(Success)),
            (&[0, 0], false, Some(Unavailable)),
            (&[-2, 200], false, Some(Answer(1))),
            (&[-2, -1], false, None),
            (&[-2, -2], false, Some(Success)),
        ];
        for (states, is_late, expected) in table {
            let decision = decide(ReplyPolicy::Primary, &outcomes(states), *is_late);
            assert_eq!(decision, *expected, "{states:?}, late: {is_late}");
        }
    }
}
