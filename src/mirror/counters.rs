//! What is counted about routes and their outbounds.
//!
//! Every request that reaches a route ends in one [`RequestResult`], and every outbound it was for in one
//! [`OutcomeKind`], so that the sums of both agree. What is still under way when a worker has to stop,
//! which is what was begun and has no other end, ends as given up.

use crate::mirror::outcome::{Outcome, SkipReason};
use crate::observe::counters::{Counter, CounterVec};
use crate::observe::histogram::Histogram;
use crate::observe::label::{Label, labels};
use crate::observe::last_error::LastError;
use crate::sentry::selection::Refused;
use crate::upstream::exchange::Failure;

/// One worker's numbers about one route.
#[derive(Default)]
pub struct RouteCounters {
    /// Requests that deliveries were begun for.
    pub begun: Counter,
    /// Requests, by what the SDK was told.
    pub answers: CounterVec<RequestResult>,
    /// From the end of a request's head to that of its reply.
    pub request_time: Histogram,
    /// From the start of the deliveries to the decision on the reply.
    pub reply_time: Histogram,
}

/// One worker's numbers about one outbound of a route.
#[derive(Default)]
pub struct OutboundCounters {
    /// Deliveries begun.
    pub begun: Counter,
    /// Deliveries, by how they ended.
    pub outcomes: CounterVec<OutcomeKind>,
    /// Bytes of the requests of which anything was sent.
    pub bytes: Counter,
    /// How long the deliveries took that were sent or were to be sent.
    pub time: Histogram,
    /// The most recent failed outcome.
    pub last_error: LastError,
}

labels! {
    /// What an SDK was told, as far as it matters to an operator.
    pub enum RequestResult {
        /// The success of an outbound.
        Accepted => "accepted",
        /// 200 from the mirror itself, because no outbound had answered within `reply_timeout`.
        Unconfirmed => "unconfirmed",
        /// 429, because every live outbound is rate limited.
        RateLimited => "rate_limited",
        /// A 4xx of an outbound.
        Refused => "refused",
        /// A 5xx, or 503 because no outbound accepted it.
        Failed => "failed",
        /// Something that concerns the mirror only: a health check, a preflight request.
        Local => "local",
        /// Refused by the mirror, with a reason that is counted by itself.
        Rejected => "rejected",
        /// Nothing, because the SDK was gone before its request was complete.
        Abandoned => "abandoned",
        /// Nothing, because of a bug in this program.
        Panicked => "panicked",
        /// Nothing, because `timeouts.drain` was over while its deliveries were under way.
        GivenUp => "given_up",
    }
}

labels! {
    /// How a delivery ended.
    pub enum OutcomeKind {
        /// Accepted.
        Success => "2xx",
        /// Rate limited by the upstream.
        TooManyRequests => "429",
        /// Refused.
        ClientError => "4xx",
        /// The upstream has a problem.
        ServerError => "5xx",
        /// A status that makes no sense here.
        OtherStatus => "other_status",
        /// See [`Failure::Dns`].
        Dns => "dns",
        /// See [`Failure::Connect`].
        Connect => "connect",
        /// See [`Failure::ConnectTimeout`].
        ConnectTimeout => "connect_timeout",
        /// See [`Failure::Tls`].
        Tls => "tls",
        /// See [`Failure::Send`] and [`Failure::CutShort`].
        Send => "send",
        /// See [`Failure::Receive`].
        Receive => "receive",
        /// See [`Failure::Closed`].
        Closed => "closed",
        /// See [`Failure::Malformed`].
        Malformed => "malformed",
        /// See [`Failure::TooLarge`].
        TooLarge => "too_large",
        /// See [`Failure::Timeout`].
        Timeout => "timeout",
        /// See [`Failure::Overloaded`].
        Overloaded => "overloaded",
        /// See [`Failure::Paused`].
        Paused => "paused",
        /// See [`SkipReason::RateLimited`].
        RateLimited => "rate_limited",
        /// See [`SkipReason::Filtered`].
        Filtered => "filtered",
        /// See [`SkipReason::Sampled`].
        Sampled => "sampled",
        /// See [`Outcome::Panicked`].
        Panicked => "panicked",
        /// Still under way when `timeouts.drain` was over.
        GivenUp => "given_up",
    }
}

labels! {
    /// Why an item of an envelope was left out of a delivery.
    pub enum LeftOut {
        /// The outbound does not take its category.
        Filtered => "filtered",
        /// The outbound gets a share, and this is not in it.
        Sampled => "sampled",
    }
}

impl From<Refused> for LeftOut {
    fn from(refused: Refused) -> LeftOut {
        match refused {
            Refused::Filtered => LeftOut::Filtered,
            Refused::Sampled => LeftOut::Sampled,
        }
    }
}

/// What an outcome means to an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryResult {
    /// The outbound has it.
    Delivered,
    /// It was not sent because the outbound does not want it: that is how it is configured.
    Unwanted,
    /// It was not sent, or not taken, because of a rate limit.
    RateLimited,
    /// It is lost to this outbound.
    Lost,
}

impl OutcomeKind {
    /// The kind of an outcome.
    pub(crate) fn from_outcome(outcome: &Outcome) -> OutcomeKind {
        match outcome {
            Outcome::Answered(response) => match response.status {
                200..=299 => OutcomeKind::Success,
                429 => OutcomeKind::TooManyRequests,
                400..=499 => OutcomeKind::ClientError,
                500..=599 => OutcomeKind::ServerError,
                _ => OutcomeKind::OtherStatus,
            },
            Outcome::Failed(failure) => OutcomeKind::from_failure(failure),
            Outcome::Skipped(SkipReason::Filtered) => OutcomeKind::Filtered,
            Outcome::Skipped(SkipReason::Sampled) => OutcomeKind::Sampled,
            Outcome::Skipped(SkipReason::RateLimited(_)) => OutcomeKind::RateLimited,
            Outcome::Panicked => OutcomeKind::Panicked,
        }
    }

    fn from_failure(failure: &Failure) -> OutcomeKind {
        match failure {
            Failure::Dns => OutcomeKind::Dns,
            Failure::Connect(_) => OutcomeKind::Connect,
            Failure::ConnectTimeout => OutcomeKind::ConnectTimeout,
            Failure::Tls(_) => OutcomeKind::Tls,
            Failure::Send(_) | Failure::CutShort(_) => OutcomeKind::Send,
            Failure::Receive(_) => OutcomeKind::Receive,
            Failure::Closed => OutcomeKind::Closed,
            Failure::Malformed(_) => OutcomeKind::Malformed,
            Failure::TooLarge => OutcomeKind::TooLarge,
            Failure::Timeout => OutcomeKind::Timeout,
            Failure::Overloaded => OutcomeKind::Overloaded,
            Failure::Paused => OutcomeKind::Paused,
        }
    }

    /// Whether something was sent, or was to be sent, so that it took time.
    pub fn was_tried(self) -> bool {
        let was_dropped = matches!(self, OutcomeKind::Overloaded | OutcomeKind::Paused);
        let was_withheld = self == OutcomeKind::RateLimited;
        !was_dropped && !was_withheld && self.result() != DeliveryResult::Unwanted
    }

    /// Whether anything was sent, as far as that is known: there was a connection to send it over.
    pub fn was_sent(self) -> bool {
        let has_no_connection = matches!(
            self,
            OutcomeKind::Dns
                | OutcomeKind::Connect
                | OutcomeKind::ConnectTimeout
                | OutcomeKind::Tls
        );
        self.was_tried() && !has_no_connection
    }

    /// Whether to record it as the last error: it failed, and not merely because an earlier delivery did.
    pub fn is_recorded_as_error(self) -> bool {
        let is_consequence = matches!(self, OutcomeKind::Paused | OutcomeKind::RateLimited);
        matches!(
            self.result(),
            DeliveryResult::RateLimited | DeliveryResult::Lost
        ) && !is_consequence
    }

    /// Whether it is lost for want of an answer: there was none, or nothing was sent because there had
    /// been none.
    fn is_unanswered(self) -> bool {
        match self {
            OutcomeKind::Dns
            | OutcomeKind::Connect
            | OutcomeKind::ConnectTimeout
            | OutcomeKind::Tls
            | OutcomeKind::Send
            | OutcomeKind::Receive
            | OutcomeKind::Closed
            | OutcomeKind::Malformed
            | OutcomeKind::Timeout
            | OutcomeKind::Overloaded
            | OutcomeKind::Paused => true,
            OutcomeKind::Success
            | OutcomeKind::TooManyRequests
            | OutcomeKind::ClientError
            | OutcomeKind::ServerError
            | OutcomeKind::OtherStatus
            | OutcomeKind::TooLarge
            | OutcomeKind::RateLimited
            | OutcomeKind::Filtered
            | OutcomeKind::Sampled
            | OutcomeKind::Panicked
            | OutcomeKind::GivenUp => false,
        }
    }

    /// What it means to an operator.
    pub fn result(self) -> DeliveryResult {
        match self {
            OutcomeKind::Success => DeliveryResult::Delivered,
            OutcomeKind::Filtered | OutcomeKind::Sampled => DeliveryResult::Unwanted,
            OutcomeKind::TooManyRequests | OutcomeKind::RateLimited => DeliveryResult::RateLimited,
            OutcomeKind::ClientError
            | OutcomeKind::ServerError
            | OutcomeKind::OtherStatus
            | OutcomeKind::Dns
            | OutcomeKind::Connect
            | OutcomeKind::ConnectTimeout
            | OutcomeKind::Tls
            | OutcomeKind::Send
            | OutcomeKind::Receive
            | OutcomeKind::Closed
            | OutcomeKind::Malformed
            | OutcomeKind::TooLarge
            | OutcomeKind::Timeout
            | OutcomeKind::Overloaded
            | OutcomeKind::Paused
            | OutcomeKind::Panicked
            | OutcomeKind::GivenUp => DeliveryResult::Lost,
        }
    }
}

impl RequestResult {
    /// Whether it is the end of a request that deliveries were begun for.
    fn ends_deliveries(self) -> bool {
        match self {
            RequestResult::Accepted
            | RequestResult::Unconfirmed
            | RequestResult::RateLimited
            | RequestResult::Refused
            | RequestResult::Failed
            | RequestResult::GivenUp => true,
            RequestResult::Local
            | RequestResult::Rejected
            | RequestResult::Abandoned
            | RequestResult::Panicked => false,
        }
    }

    /// By the status of a reply that an outbound's answer, or the lack of one, has led to.
    pub fn from_status(status: u16) -> RequestResult {
        match status {
            200..=299 => RequestResult::Accepted,
            429 => RequestResult::RateLimited,
            400..=499 => RequestResult::Refused,
            _ => RequestResult::Failed,
        }
    }
}

impl RouteCounters {
    /// Counts the requests that were not answered as given up, and tells how many they are.
    pub(super) fn give_up(&self) -> u64 {
        let ends = RequestResult::ALL
            .iter()
            .filter(|end| end.ends_deliveries());
        let ended: u64 = ends.map(|end| self.answers.get(*end)).sum();
        let left = self.begun.get().saturating_sub(ended);
        self.answers.add(RequestResult::GivenUp, left);
        left
    }
}

impl OutboundCounters {
    /// Counts the deliveries that have not ended as given up, and tells how many they are.
    pub(super) fn give_up(&self) -> u64 {
        let left = self.begun.get().saturating_sub(self.outcomes.total());
        self.outcomes.add(OutcomeKind::GivenUp, left);
        left
    }

    /// How many deliveries were lost for want of an answer.
    pub fn unanswered(&self) -> u64 {
        let kinds = OutcomeKind::ALL.iter();
        kinds
            .filter(|kind| kind.is_unanswered())
            .map(|kind| self.outcomes.get(*kind))
            .sum()
    }

    /// How many deliveries the outbound refused.
    pub fn refused(&self) -> u64 {
        let of = |kind| self.outcomes.get(kind);
        of(OutcomeKind::ClientError) + of(OutcomeKind::ServerError) + of(OutcomeKind::OtherStatus)
    }

    /// How many deliveries ended so that they mean `meaning`.
    pub fn meaning(&self, meaning: DeliveryResult) -> u64 {
        let kinds = OutcomeKind::ALL.iter();
        kinds
            .filter(|kind| kind.result() == meaning)
            .map(|kind| self.outcomes.get(*kind))
            .sum()
    }
}
