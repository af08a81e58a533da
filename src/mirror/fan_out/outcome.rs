//! How a delivery ended: with a response, with a failure, or without an attempt.

use crate::mirror::reply::refusal::Refusal;
use crate::sentry::selection::Unwanted;
use crate::upstream::exchange::Failure;
use crate::upstream::response::Response;

#[derive(Debug)]
pub(crate) enum Outcome {
    /// The upstream sent a response, whatever its status.
    Answered(Response),
    /// The upstream sent no usable response, or the mirror could not send the request: see [`Failure`].
    Failed(Failure),
    /// The mirror did not attempt the delivery, because the outbound does not want the request
    /// or has limited its rate.
    Skipped(SkipReason),
    /// The delivery panicked: a bug in this program.
    Panicked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SkipReason {
    /// The outbound takes none of the request's categories.
    Filtered,
    /// The request is not in the outbound's sample.
    Sampled,
    /// A cap of the outbound is reached.
    Capped,
    /// The outbound's rate limits on the request last for so many more seconds.
    RateLimited(u32),
}

impl Outcome {
    pub(crate) fn response(&self) -> Option<&Response> {
        match self {
            Outcome::Answered(response) => Some(response),
            Outcome::Failed(_) | Outcome::Skipped(_) | Outcome::Panicked => None,
        }
    }
}

impl Outcome {
    /// How the outbound refused the request; `None` if it did not.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        Refusal::from_status(self.response()?.status)
    }

    fn is_success(&self) -> bool {
        let response = self.response();
        response.is_some_and(|response| matches!(response.status, 200..=299))
    }

    /// Whether one of the outbounds took what another refused.
    pub(super) fn disagree(outcomes: &[Option<Outcome>]) -> bool {
        let mut known = outcomes.iter().flatten();
        known.clone().any(Outcome::is_success) && known.any(|one| one.refusal().is_some())
    }
}

impl From<Result<Response, Failure>> for Outcome {
    fn from(result: Result<Response, Failure>) -> Outcome {
        match result {
            Ok(response) => Outcome::Answered(response),
            Err(failure) => Outcome::Failed(failure),
        }
    }
}

impl From<Unwanted> for SkipReason {
    fn from(unwanted: Unwanted) -> SkipReason {
        match unwanted {
            Unwanted::Filtered => SkipReason::Filtered,
            Unwanted::Sampled => SkipReason::Sampled,
            Unwanted::Capped => SkipReason::Capped,
        }
    }
}
