//! How a delivery ended: with a response, with a failure, or before anything was tried.

use crate::sentry::selection::Refused;
use crate::upstream::exchange::Failure;
use crate::upstream::response::Response;

/// How a delivery ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The upstream sent a response, whatever its status.
    Answered(Response),
    /// There is no response.
    Failed(Failure),
    /// The mirror did not try, because the outbound does not want the request.
    Skipped(SkipReason),
    /// The delivery's own code panicked: a bug in this program.
    Panicked,
}

/// Why an outbound was not sent a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SkipReason {
    /// It takes none of the request's categories.
    Filtered,
    /// It takes a share of them, and this request is not in it.
    Sampled,
    /// It asked for nothing of the kind for so many more seconds.
    RateLimited(u32),
}

impl Outcome {
    /// The response, if there is one.
    pub(crate) fn response(&self) -> Option<&Response> {
        match self {
            Outcome::Answered(response) => Some(response),
            Outcome::Failed(_) | Outcome::Skipped(_) | Outcome::Panicked => None,
        }
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

impl From<Refused> for SkipReason {
    fn from(refused: Refused) -> SkipReason {
        match refused {
            Refused::Filtered => SkipReason::Filtered,
            Refused::Sampled => SkipReason::Sampled,
        }
    }
}
