//! The only place that decides what the SDK is told about its deliveries.
//!
//! One function from the outcomes so far to a decision, or to none as long as waiting may still
//! change it. Two principles stand behind the table: what one outbound accepted must never be
//! answered with something that makes the SDK send it again, and a broken or limited outbound must
//! never silence the SDK for a healthy one.

use crate::config::ReplyPolicy;
use crate::mirror::outcome::{Outcome, SkipReason};

/// What the SDK is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The answer of the outbound with this index.
    Answer(usize),
    /// The endpoint's success, locally made, because nobody knows better yet.
    Success,
    /// 429: every live outbound is rate limited.
    RateLimited,
    /// 413: the request is too large for every outbound.
    TooLarge,
    /// 503: nobody accepted it, and not because of the request.
    Unavailable,
}

/// What an outcome means for the SDK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Accepted,
    Limited,
    TooLarge,
    /// 401, 403, 404: this outbound will never take anything; it does not count as live.
    Dead,
    /// Another 4xx: the request will never be taken.
    Refused,
    /// 5xx, a status that makes no sense here, or no answer at all.
    Broken,
    /// The outbound wants nothing of the request, so that it has no say.
    Absent,
}

/// The decision on `outcomes`, which stand in configuration order with `None` for what is still in
/// flight; `is_late` says that `reply_timeout` is over. `None` means: wait.
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
    let accepted = classes().position(|class| class == Some(Class::Accepted));
    match accepted {
        Some(0) => return Some(Decision::Answer(0)),
        Some(index) if primary.is_some() || is_late => return Some(Decision::Answer(index)),
        Some(_) => return None,
        None => {}
    }
    if outcomes.iter().any(Option::is_none) {
        return is_late.then_some(Decision::Success);
    }
    Some(nobody_accepted(&classes().flatten().collect::<Vec<_>>()))
}

/// `decision` at an endpoint where Relay never answers 429: it takes what is limited there, and drops it.
/// Crashpad sends again what was answered otherwise. Where an upstream has itself answered 429, that is
/// no answer of Relay's, and to send again is right.
pub(crate) fn mask_rate_limits(decision: Decision, outcomes: &[Option<Outcome>]) -> Decision {
    let is_answered = |outcome: &Outcome| outcome.response().is_some_and(|it| it.status == 429);
    match decision {
        Decision::RateLimited if !outcomes.iter().flatten().any(is_answered) => Decision::Success,
        _ => decision,
    }
}

/// The decision when every delivery ended and none was accepted.
fn nobody_accepted(classes: &[Class]) -> Decision {
    let present: Vec<Class> = {
        let is_present = |class: &&Class| **class != Class::Absent;
        classes.iter().filter(is_present).copied().collect()
    };
    let mut live = classes.iter().filter(|class| **class != Class::Dead);
    let is_limited = present.contains(&Class::Limited);
    if present.is_empty() {
        // All went as the operator wants it.
        Decision::Success
    } else if is_limited && live.all(|class| *class == Class::Limited) {
        Decision::RateLimited
    } else if present.iter().all(|class| *class == Class::TooLarge) {
        Decision::TooLarge
    } else if is_limited || present.contains(&Class::Broken) {
        Decision::Unavailable
    } else {
        // Only permanent answers are left; the first speaks for all.
        let first = classes.iter().position(|class| *class != Class::Absent);
        Decision::Answer(first.unwrap_or(0))
    }
}

fn class(outcome: &Outcome) -> Class {
    match outcome {
        Outcome::Skipped(SkipReason::Filtered | SkipReason::Sampled) => Class::Absent,
        Outcome::Skipped(SkipReason::RateLimited(_)) => Class::Limited,
        Outcome::Failed(_) | Outcome::Panicked => Class::Broken,
        Outcome::Answered(response) => match response.status {
            200..=299 => Class::Accepted,
            401 | 403 | 404 => Class::Dead,
            413 => Class::TooLarge,
            429 => Class::Limited,
            400..=499 => Class::Refused,
            _ => Class::Broken,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::exchange::Failure;
    use crate::upstream::response::Response;

    /// `200` and so on is an answer, `0` a failure, `-1` still in flight, `-2` not wanted, `-3` withheld.
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
            // The primary accepted: at once.
            (&[200, -1], on_time, Some(Answer(0))),
            (&[202, 500], on_time, Some(Answer(0))),
            // The primary did not, another did: the first of them.
            (&[500, 200], on_time, Some(Answer(1))),
            (&[0, -1, 200], on_time, Some(Answer(2))),
            (&[429, 200, 200], on_time, Some(Answer(1))),
            (&[403, 200], on_time, Some(Answer(1))),
            // The primary is still in flight: it is waited for, but not for ever.
            (&[-1, 200], on_time, None),
            (&[-1, 200], late, Some(Answer(1))),
            (&[-1, -1], on_time, None),
            (&[-1, -1], late, Some(Success)),
            (&[500, -1], on_time, None),
            (&[500, -1], late, Some(Success)),
            (&[-1, 500], late, Some(Success)),
            // All finished, none accepted.
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
            // Some want nothing of it, and have no say.
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
            // To be told to wait would silence the SDK for what the first does want.
            (&[-2, 429], on_time, Some(Unavailable)),
        ];
        for (states, is_late, expected) in table {
            let decision = decide(ReplyPolicy::FirstSuccess, &outcomes(states), *is_late);
            assert_eq!(decision, *expected, "{states:?}, late: {is_late}");
        }
    }

    #[test]
    fn a_limit_that_relay_would_not_tell_is_told_only_by_an_upstream() {
        use Decision::{Answer, RateLimited, Success, Unavailable};
        #[rustfmt::skip]
        let table: &[(&[i32], Decision, Decision)] = &[
            (&[-3],       RateLimited, Success),
            (&[-3, -3],   RateLimited, Success),
            (&[-3, 403],  RateLimited, Success),
            (&[-3, 429],  RateLimited, RateLimited),
            (&[429],      RateLimited, RateLimited),
            // Crashpad may send it again: not everyone has dropped it.
            (&[-3, 500],  Unavailable, Unavailable),
            (&[-3, 0],    Unavailable, Unavailable),
            (&[-3, 200],  Answer(1),   Answer(1)),
        ];
        for (states, told, untold) in table {
            let outcomes = outcomes(states);
            let decision = decide(ReplyPolicy::FirstSuccess, &outcomes, false).unwrap();
            assert_eq!(decision, *told, "{states:?}");
            assert_eq!(mask_rate_limits(decision, &outcomes), *untold, "{states:?}");
        }
    }

    #[test]
    fn the_primary_policy_passes_on_whatever_the_primary_says() {
        use Decision::{Answer, Success, Unavailable};
        #[rustfmt::skip]
        let table: &[(&[i32], bool, Option<Decision>)] = &[
            (&[200, -1], false, Some(Answer(0))),
            (&[429, 200], false, Some(Answer(0))),
            (&[500, 200], false, Some(Answer(0))),
            (&[403, -1], false, Some(Answer(0))),
            // Without any answer of the primary the table holds.
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
