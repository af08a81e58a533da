//! Data categories: what Sentry counts, limits and bills by.
//!
//! The names are those of `X-Sentry-Rate-Limits` (Relay 26.9, `DataCategory`). Only the categories
//! that a request can be recognised as are here; limits on others concern nobody who asks.

use super::endpoint::Endpoint;

/// What kind of data an item, or a whole request, is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(
    missing_docs,
    reason = "the names are Sentry's, and each says all there is to say"
)]
pub enum Category {
    Attachment,
    Error,
    Feedback,
    LogItem,
    MetricBucket,
    Monitor,
    Profile,
    ProfileChunk,
    Replay,
    Security,
    Session,
    Span,
    TraceMetric,
    Transaction,
}

impl Category {
    /// The category of an envelope item by its `type`; `None` for client reports, which are not
    /// limited, and for types that are not known.
    pub fn of_item(kind: &[u8]) -> Option<Category> {
        Some(match kind {
            b"attachment" => Category::Attachment,
            b"event" => Category::Error,
            b"feedback" | b"user_report" => Category::Feedback,
            b"log" | b"otel_log" => Category::LogItem,
            b"statsd" | b"metric_buckets" => Category::MetricBucket,
            b"check_in" => Category::Monitor,
            b"profile" => Category::Profile,
            b"profile_chunk" => Category::ProfileChunk,
            b"replay_event" | b"replay_recording" | b"replay_video" => Category::Replay,
            b"security" | b"raw_security" => Category::Security,
            b"session" | b"sessions" => Category::Session,
            b"span" | b"otel_span" => Category::Span,
            b"trace_metric" => Category::TraceMetric,
            b"transaction" => Category::Transaction,
            _ => return None,
        })
    }

    /// The category of all requests to an endpoint; `None` where it depends on the content.
    pub fn of_endpoint(endpoint: Endpoint) -> Option<Category> {
        match endpoint {
            Endpoint::Store | Endpoint::Minidump | Endpoint::Unreal | Endpoint::Playstation => {
                Some(Category::Error)
            }
            Endpoint::Security => Some(Category::Security),
            Endpoint::Attachments => Some(Category::Attachment),
            Endpoint::Cron => Some(Category::Monitor),
            Endpoint::OtlpTraces => Some(Category::Span),
            Endpoint::OtlpLogs | Endpoint::VercelLogs => Some(Category::LogItem),
            Endpoint::Envelope
            | Endpoint::Tunnel
            | Endpoint::Nel
            | Endpoint::Upload
            | Endpoint::ErrorPage
            | Endpoint::Generic => None,
        }
    }

    /// The name in rate limits.
    pub const fn name(self) -> &'static str {
        match self {
            Category::Attachment => "attachment",
            Category::Error => "error",
            Category::Feedback => "feedback",
            Category::LogItem => "log_item",
            Category::MetricBucket => "metric_bucket",
            Category::Monitor => "monitor",
            Category::Profile => "profile",
            Category::ProfileChunk => "profile_chunk",
            Category::Replay => "replay",
            Category::Security => "security",
            Category::Session => "session",
            Category::Span => "span",
            Category::TraceMetric => "trace_metric",
            Category::Transaction => "transaction",
        }
    }
}
