//! The metrics of routes and their outbounds.
//!
//! Every request that reaches a route ends in one [`RequestResult`], and every outbound it was for in one
//! [`OutcomeKind`], so that the sums of both agree. What is still under way when a worker has to stop,
//! which is what was begun and has no other end, ends as given up.

use crate::mirror::outcome::{Outcome, SkipReason};
use crate::sentry::selection::Refused;
use crate::telemetry::counters::{Counter, CounterVec};
use crate::telemetry::histogram::Histogram;
use crate::telemetry::label::{Label, labels};
use crate::telemetry::last_error::LastError;
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
    /// How a request ended for the SDK.
    pub enum RequestResult {
        /// An outbound accepted the request.
        Accepted => "accepted",
        /// The mirror replied 200 because no outbound had answered within `reply_timeout`.
        Unconfirmed => "unconfirmed",
        /// The mirror replied 429 because all outbounds that could accept the request are rate limited.
        RateLimited => "rate_limited",
        /// The SDK received the 4xx of an outbound.
        Refused => "refused",
        /// The SDK received a 5xx because no outbound accepted the request.
        Failed => "failed",
        /// The mirror replied by itself: a health check or a preflight request.
        Local => "local",
        /// The mirror rejected the request, see `sentry_mirror_rejections_total`.
        Rejected => "rejected",
        /// The SDK disconnected before its request was complete.
        Abandoned => "abandoned",
        /// An internal error of the mirror. Please report it.
        Panicked => "panicked",
        /// `timeouts.drain` ended before the reply was decided.
        GivenUp => "given_up",
    }
}

labels! {
    /// How a delivery ended.
    pub enum OutcomeKind {
        /// The upstream accepted it.
        Success => "2xx",
        /// The upstream answered 429.
        TooManyRequests => "429",
        /// The upstream answered another 4xx.
        ClientError => "4xx",
        /// The upstream answered a 5xx.
        ServerError => "5xx",
        /// The upstream answered a status that Sentry never sends here, such as a redirect.
        OtherStatus => "other_status",
        /// The host name could not be resolved.
        Dns => "dns",
        /// The connection could not be opened.
        Connect => "connect",
        /// The connection was not open within `timeouts.connect`.
        ConnectTimeout => "connect_timeout",
        /// The TLS handshake failed.
        Tls => "tls",
        /// The request could not be sent in full.
        Send => "send",
        /// Reading the response failed.
        Receive => "receive",
        /// The upstream closed the connection without a response.
        Closed => "closed",
        /// The response is not valid HTTP.
        Malformed => "malformed",
        /// The response is larger than `limits.response_bytes`.
        TooLarge => "too_large",
        /// The upstream did not respond within `timeouts.exchange`.
        Timeout => "timeout",
        /// Not sent: over `limits.in_flight`, over the share of the origin in `limits.memory_bytes`, or no memory left.
        Overloaded => "overloaded",
        /// Not sent: the circuit breaker of the upstream is open.
        Paused => "paused",
        /// Not sent: the outbound has an active rate limit.
        RateLimited => "rate_limited",
        /// Not sent: the outbound does not take any of its categories.
        Filtered => "filtered",
        /// Not sent: it is not in the sample of the outbound.
        Sampled => "sampled",
        /// An internal error of the mirror. Please report it.
        Panicked => "panicked",
        /// In progress when `timeouts.drain` ended.
        GivenUp => "given_up",
    }
}

labels! {
    /// Why an item of an envelope was left out of a delivery.
    pub enum LeftOut {
        /// The outbound does not take the category of the item.
        Filtered => "filtered",
        /// The item is not in the sample of the outbound.
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

/// An [`OutcomeKind`] in the terms of the status page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryResult {
    Delivered,
    /// Not sent because the configuration says so.
    Unwanted,
    /// Not sent, or not accepted, because of a rate limit.
    RateLimited,
    /// The outbound does not have it.
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

    pub fn with_result(&self, result: DeliveryResult) -> u64 {
        let kinds = OutcomeKind::ALL.iter();
        kinds
            .filter(|kind| kind.result() == result)
            .map(|kind| self.outcomes.get(*kind))
            .sum()
    }
}
