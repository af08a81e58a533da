//! The metrics of routes and their outbounds.
//!
//! Every request that reaches a route is counted once as a [`RequestResult`], and every delivery once as an
//! [`OutcomeKind`]. Those still in flight when a worker has to stop are counted as given up. To know how many
//! these are, their beginnings are counted as well: whatever has begun and not ended is in flight.

use crate::mirror::fan_out::outcome::{Outcome, SkipReason};
use crate::mirror::reply::refusal::Refusal;
use crate::mirror::reporting::item_counters::{ItemCounters, ItemOutcome};
use crate::sentry::selection::Unwanted;
use crate::telemetry::counters::{Counter, CounterVec};
use crate::telemetry::histogram::Histogram;
use crate::telemetry::label::{Label, labels};
use crate::telemetry::last_error::LastError;
use crate::upstream::exchange::Failure;

/// The metrics of one worker for one route.
#[derive(Default)]
pub struct RouteCounters {
    /// Requests whose deliveries have begun.
    pub begun: Counter,
    /// Requests, by result.
    pub answers: CounterVec<RequestResult>,
    /// Outbounds that refused a request which another took, by status.
    pub disagreements: CounterVec<Refusal>,
    /// The time from the end of a request's head to the end of its reply.
    pub request_time: Histogram,
    /// The time from the start of the deliveries to the decision on the reply.
    pub reply_time: Histogram,
}

/// The metrics of one worker for one outbound of a route.
#[derive(Default)]
pub struct OutboundCounters {
    /// Deliveries begun.
    pub begun: Counter,
    /// Deliveries that have ended, by outcome.
    pub outcomes: CounterVec<OutcomeKind>,
    /// Those that got a response by which the outbound rejects all requests.
    pub rejected: Counter,
    /// The items of these deliveries, unless `item_metrics` is off.
    pub items: ItemCounters,
    /// The bytes of the requests that were sent, at least in part.
    pub bytes: Counter,
    /// The duration of the deliveries that were attempted.
    pub time: Histogram,
    /// The most recent failed outcome.
    pub last_error: LastError,
}

labels! {
    /// How a request ended for the SDK.
    pub enum RequestResult {
        /// An outbound accepted the request, or all outbounds are configured not to take it.
        Accepted => "accepted",
        /// The mirror replied with a success after `reply_timeout`: no outbound had accepted the request, and one
        /// had not answered yet.
        Unconfirmed => "unconfirmed",
        /// The SDK received a 429: all outbounds that could accept the request were rate limited, or, with
        /// `reply_policy: primary`, the primary was.
        RateLimited => "rate_limited",
        /// The SDK received a 4xx other than 429, because the outbounds refused the request.
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
        /// The upstream accepted the request.
        Success => "2xx",
        /// The upstream answered 429.
        TooManyRequests => "429",
        /// The upstream answered another 4xx.
        ClientError => "4xx",
        /// The upstream answered a 5xx.
        ServerError => "5xx",
        /// The upstream answered with a status that Sentry never sends here, such as a redirect.
        OtherStatus => "other_status",
        /// The host name could not be resolved.
        Dns => "dns",
        /// The connection could not be opened.
        Connect => "connect",
        /// The connection was not open within `timeouts.connect`.
        ConnectTimeout => "connect_timeout",
        /// The TLS handshake failed.
        Tls => "tls",
        /// The proxy could not be reached, or refused: see the log.
        Proxy => "proxy",
        /// The request could not be sent in full.
        Send => "send",
        /// Reading the response failed.
        Receive => "receive",
        /// The upstream closed the connection before the response was complete.
        Closed => "closed",
        /// The response is not valid HTTP.
        Malformed => "malformed",
        /// The response is larger than `limits.response_bytes`, or than the memory that is left.
        TooLarge => "too_large",
        /// For `timeouts.exchange` the upstream took nothing of the request, and sent nothing of its response.
        Timeout => "timeout",
        /// The upstream took the request, or sent its response, at less than the minimum rate.
        TooSlow => "too_slow",
        /// Over HTTP/2, the upstream reset the stream of the delivery, or refused it eight times.
        Reset => "reset",
        /// Not sent: `limits.in_flight` or the memory for the origin was used up, or no connection was to be had
        /// within `timeouts.exchange`.
        Overloaded => "overloaded",
        /// Not sent: the circuit breaker of the upstream is open.
        Paused => "paused",
        /// Not sent: the outbound has an active rate limit.
        RateLimited => "rate_limited",
        /// Not sent: the outbound takes none of the categories of the request.
        Filtered => "filtered",
        /// Not sent: the request is not in the sample of the outbound.
        Sampled => "sampled",
        /// Not sent: a cap of the outbound is reached, see `cap`.
        Capped => "capped",
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
        /// A cap of the outbound on the category of the item is reached.
        Capped => "capped",
    }
}

impl From<Unwanted> for LeftOut {
    fn from(unwanted: Unwanted) -> LeftOut {
        match unwanted {
            Unwanted::Filtered => LeftOut::Filtered,
            Unwanted::Sampled => LeftOut::Sampled,
            Unwanted::Capped => LeftOut::Capped,
        }
    }
}

/// A group of [`OutcomeKind`]s, as on the status page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryResult {
    Delivered,
    /// Not sent because the configuration says so.
    Unwanted,
    /// Not sent, or not accepted, because of a rate limit.
    RateLimited,
    /// Not sent or not accepted, although the outbound should get it.
    Lost,
}

impl OutcomeKind {
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
            Outcome::Skipped(SkipReason::Capped) => OutcomeKind::Capped,
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
            Failure::Proxy(_) | Failure::ProxyRefused(_) => OutcomeKind::Proxy,
            Failure::Send(_) | Failure::CutShort(_) => OutcomeKind::Send,
            Failure::Receive(_) => OutcomeKind::Receive,
            Failure::Closed => OutcomeKind::Closed,
            Failure::Malformed(_) => OutcomeKind::Malformed,
            Failure::TooLarge => OutcomeKind::TooLarge,
            Failure::Timeout => OutcomeKind::Timeout,
            Failure::TooSlow => OutcomeKind::TooSlow,
            Failure::Refused | Failure::Reset(_) => OutcomeKind::Reset,
            Failure::Overloaded | Failure::NoConnection => OutcomeKind::Overloaded,
            Failure::BreakerOpen => OutcomeKind::Paused,
        }
    }

    /// Whether the delivery was attempted, so that it has a duration.
    pub fn was_tried(self) -> bool {
        let was_dropped = matches!(self, OutcomeKind::Overloaded | OutcomeKind::Paused);
        let was_limited = self == OutcomeKind::RateLimited;
        !was_dropped && !was_limited && self.result() != DeliveryResult::Unwanted
    }

    /// Whether there was a connection, so that at least a part of the request was probably sent.
    pub fn was_sent(self) -> bool {
        let has_no_connection = matches!(
            self,
            OutcomeKind::Dns
                | OutcomeKind::Connect
                | OutcomeKind::ConnectTimeout
                | OutcomeKind::Tls
                | OutcomeKind::Proxy
        );
        self.was_tried() && !has_no_connection
    }

    /// Whether to record the outcome as the last error. Consequences of an earlier error are not recorded.
    pub fn is_recorded_as_error(self) -> bool {
        let is_consequence = matches!(self, OutcomeKind::Paused | OutcomeKind::RateLimited);
        matches!(
            self.result(),
            DeliveryResult::RateLimited | DeliveryResult::Lost
        ) && !is_consequence
    }

    /// Whether the delivery is lost because the upstream does not respond: it sent no usable response to this
    /// delivery, or earlier missing responses kept this one from being sent.
    fn is_unanswered(self) -> bool {
        match self {
            OutcomeKind::Dns
            | OutcomeKind::Connect
            | OutcomeKind::ConnectTimeout
            | OutcomeKind::Tls
            | OutcomeKind::Proxy
            | OutcomeKind::Send
            | OutcomeKind::Receive
            | OutcomeKind::Closed
            | OutcomeKind::Malformed
            | OutcomeKind::Timeout
            | OutcomeKind::TooSlow
            | OutcomeKind::Reset
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
            | OutcomeKind::Capped
            | OutcomeKind::Panicked
            | OutcomeKind::GivenUp => false,
        }
    }

    /// What became of the items of the delivery.
    pub(crate) fn item_outcome(self) -> ItemOutcome {
        match self {
            OutcomeKind::RateLimited => ItemOutcome::Withheld,
            OutcomeKind::TooManyRequests => ItemOutcome::TooManyRequests,
            OutcomeKind::Filtered => ItemOutcome::Filtered,
            OutcomeKind::Sampled => ItemOutcome::Sampled,
            OutcomeKind::Capped => ItemOutcome::Capped,
            OutcomeKind::ClientError => ItemOutcome::Refused,
            other => match other.result() {
                DeliveryResult::Delivered => ItemOutcome::Delivered,
                DeliveryResult::Unwanted | DeliveryResult::RateLimited | DeliveryResult::Lost => {
                    ItemOutcome::Lost
                }
            },
        }
    }

    pub fn result(self) -> DeliveryResult {
        match self {
            OutcomeKind::Success => DeliveryResult::Delivered,
            OutcomeKind::Filtered | OutcomeKind::Sampled | OutcomeKind::Capped => {
                DeliveryResult::Unwanted
            }
            OutcomeKind::TooManyRequests | OutcomeKind::RateLimited => DeliveryResult::RateLimited,
            OutcomeKind::ClientError
            | OutcomeKind::ServerError
            | OutcomeKind::OtherStatus
            | OutcomeKind::Dns
            | OutcomeKind::Connect
            | OutcomeKind::ConnectTimeout
            | OutcomeKind::Tls
            | OutcomeKind::Proxy
            | OutcomeKind::Send
            | OutcomeKind::Receive
            | OutcomeKind::Closed
            | OutcomeKind::Malformed
            | OutcomeKind::TooLarge
            | OutcomeKind::Timeout
            | OutcomeKind::TooSlow
            | OutcomeKind::Reset
            | OutcomeKind::Overloaded
            | OutcomeKind::Paused
            | OutcomeKind::Panicked
            | OutcomeKind::GivenUp => DeliveryResult::Lost,
        }
    }
}

impl RequestResult {
    /// Whether a request can have this result only after its deliveries have begun.
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

    /// The result of a request whose reply was decided by the outcomes.
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
    /// Counts the requests without a reply as given up. Returns their number.
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
    /// Counts the deliveries in flight as given up. Returns their number.
    pub(super) fn give_up(&self) -> u64 {
        let left = self.begun.get().saturating_sub(self.outcomes.total());
        self.outcomes.add(OutcomeKind::GivenUp, left);
        left
    }

    /// The number of deliveries lost because the upstream does not respond.
    pub fn unanswered(&self) -> u64 {
        let kinds = OutcomeKind::ALL.iter();
        kinds
            .filter(|kind| kind.is_unanswered())
            .map(|kind| self.outcomes.get(*kind))
            .sum()
    }

    pub fn with_result(&self, result: DeliveryResult) -> u64 {
        let kinds = OutcomeKind::ALL.iter();
        kinds
            .filter(|kind| kind.result() == result)
            .map(|kind| self.outcomes.get(*kind))
            .sum()
    }
}
