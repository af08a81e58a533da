//! Data categories, by which Sentry counts, limits and bills.
//!
//! The names are those of `X-Sentry-Rate-Limits` (Relay 26.9, `DataCategory`). Only categories that a request or an
//! item can be recognised as are listed. A configuration may also name them by item types, some of which stand for
//! several categories, and in the plural; see [`CategorySet::parse`].

use super::endpoint::Endpoint;

/// The kind of data in an item, or in a whole request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Category {
    Attachment,
    ClientReport,
    Error,
    Feedback,
    LogItem,
    MetricBucket,
    Monitor,
    Profile,
    ProfileChunk,
    ProfileChunkUi,
    Replay,
    Security,
    Session,
    Span,
    TraceMetric,
    Transaction,
}

impl Category {
    /// In the order of their names.
    pub const ALL: [Category; 16] = [
        Category::Attachment,
        Category::ClientReport,
        Category::Error,
        Category::Feedback,
        Category::LogItem,
        Category::MetricBucket,
        Category::Monitor,
        Category::Profile,
        Category::ProfileChunk,
        Category::ProfileChunkUi,
        Category::Replay,
        Category::Security,
        Category::Session,
        Category::Span,
        Category::TraceMetric,
        Category::Transaction,
    ];

    /// The category of an envelope item by its `type`; `None` for unknown types.
    ///
    /// The list has all current and former types of Relay. Two have no category: `form_data` belongs to the event in
    /// the same envelope, as an attachment does, and `integration` never leaves the Relay that makes it. For profile
    /// chunks see [`Category::from_profile_platform`].
    pub fn from_item_type(kind: &[u8]) -> Option<Category> {
        Some(match kind {
            b"attachment" => Category::Attachment,
            b"client_report" => Category::ClientReport,
            b"event" | b"unreal_report" => Category::Error,
            b"feedback" | b"user_report" => Category::Feedback,
            // Relay turns network error reports into logs.
            b"log" | b"otel_log" | b"otel_logs_data" | b"nel" => Category::LogItem,
            b"statsd" | b"metric_buckets" | b"metric_meta" => Category::MetricBucket,
            b"check_in" => Category::Monitor,
            b"profile" => Category::Profile,
            b"replay_event" | b"replay_recording" | b"replay_video" => Category::Replay,
            b"security" | b"raw_security" => Category::Security,
            b"session" | b"sessions" => Category::Session,
            b"span" | b"otel_span" | b"otel_traces_data" => Category::Span,
            b"trace_metric" => Category::TraceMetric,
            b"transaction" => Category::Transaction,
            _ => return None,
        })
    }

    /// The category of a profile chunk by the `platform` in its item header (Relay 26.9,
    /// `ProfileType::from_platform`). Without one, no rate limit of Relay applies to the chunk.
    pub fn from_profile_platform(platform: Option<&[u8]>) -> Option<Category> {
        Some(match platform? {
            b"android" | b"cocoa" | b"javascript" => Category::ProfileChunkUi,
            _ => Category::ProfileChunk,
        })
    }

    /// The category of all requests to an endpoint; `None` if it depends on the content.
    pub fn from_endpoint(endpoint: Endpoint) -> Option<Category> {
        match endpoint {
            Endpoint::Store | Endpoint::Minidump | Endpoint::Unreal | Endpoint::Playstation => {
                Some(Category::Error)
            }
            Endpoint::Security => Some(Category::Security),
            Endpoint::Attachments => Some(Category::Attachment),
            Endpoint::Cron => Some(Category::Monitor),
            Endpoint::OtlpTraces => Some(Category::Span),
            Endpoint::OtlpLogs | Endpoint::VercelLogs | Endpoint::Nel => Some(Category::LogItem),
            Endpoint::Envelope
            | Endpoint::Tunnel
            | Endpoint::Upload
            | Endpoint::ErrorPage
            | Endpoint::Generic => None,
        }
    }

    /// The name in rate limits.
    pub const fn name(self) -> &'static str {
        match self {
            Category::Attachment => "attachment",
            Category::ClientReport => "client_report",
            Category::Error => "error",
            Category::Feedback => "feedback",
            Category::LogItem => "log_item",
            Category::MetricBucket => "metric_bucket",
            Category::Monitor => "monitor",
            Category::Profile => "profile",
            Category::ProfileChunk => "profile_chunk",
            Category::ProfileChunkUi => "profile_chunk_ui",
            Category::Replay => "replay",
            Category::Security => "security",
            Category::Session => "session",
            Category::Span => "span",
            Category::TraceMetric => "trace_metric",
            Category::Transaction => "transaction",
        }
    }
}

/// The category of the items that a limit on `name` applies to. Sentry counts some items twice, in bytes or
/// milliseconds as well as in number, and a limit on either count applies to them (Relay 26.9, `DataCategory`, "SDK
/// rate limiting behavior"). Other names are returned unchanged.
pub(crate) fn limited_category(name: &str) -> &str {
    match name {
        "attachment_item" => "attachment",
        "log_byte" => "log_item",
        "profile_duration" => "profile_chunk",
        "profile_duration_ui" => "profile_chunk_ui",
        "trace_metric_byte" => "trace_metric",
        "user_report_v2" => "feedback",
        other => other,
    }
}

/// Names other than those of the categories themselves.
const ALIASES: [(&str, &[Category]); 24] = {
    use Category::{
        Error, Feedback, LogItem, MetricBucket, Monitor, Profile, ProfileChunk, ProfileChunkUi,
        Replay, Security, Span, TraceMetric,
    };
    [
        ("check_in", &[Monitor]),
        ("cron", &[Monitor]),
        ("default", &[Error]),
        ("event", &[Error]),
        ("log", &[LogItem]),
        ("metric", &[TraceMetric, MetricBucket]),
        ("metric_meta", &[MetricBucket]),
        ("minidump", &[Error]),
        ("nel", &[LogItem]),
        ("otel_log", &[LogItem]),
        ("otel_logs_data", &[LogItem]),
        ("otel_span", &[Span]),
        ("otel_traces_data", &[Span]),
        ("profiling", &[Profile, ProfileChunk, ProfileChunkUi]),
        ("raw_security", &[Security]),
        ("replay_event", &[Replay]),
        ("replay_recording", &[Replay]),
        ("replay_video", &[Replay]),
        ("statsd", &[MetricBucket]),
        ("unreal", &[Error]),
        ("unreal_report", &[Error]),
        ("user_feedback", &[Feedback]),
        ("user_report", &[Feedback]),
        ("user_report_v2", &[Feedback]),
    ]
};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CategorySet(u32);

impl CategorySet {
    pub fn from_slice(categories: &[Category]) -> CategorySet {
        let bits = categories.iter().map(|category| 1 << (*category as u32));
        CategorySet(bits.fold(0, |all, bit| all | bit))
    }

    /// Parses a name in a configuration: one of [`CategorySet::names`], or its plural.
    pub fn parse(name: &str) -> Option<CategorySet> {
        let plural = |ending: &str, singular: &str| {
            let stem = name.strip_suffix(ending)?;
            CategorySet::from_singular(&format!("{stem}{singular}"))
        };
        CategorySet::from_singular(name)
            .or_else(|| plural("s", ""))
            .or_else(|| plural("ies", "y"))
            .or_else(|| plural("s_ui", "_ui"))
    }

    fn from_singular(name: &str) -> Option<CategorySet> {
        let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
        let category = || Category::ALL.iter().find(|known| known.name() == name);
        match alias {
            Some((_, categories)) => Some(CategorySet::from_slice(categories)),
            None => category().map(|category| CategorySet::from_slice(&[*category])),
        }
    }

    /// Every name that [`CategorySet::parse`] accepts, in the singular.
    pub fn names() -> impl Iterator<Item = &'static str> {
        let aliases = ALIASES.iter().map(|(alias, _)| *alias);
        Category::ALL.into_iter().map(Category::name).chain(aliases)
    }

    pub const fn union(self, other: CategorySet) -> CategorySet {
        CategorySet(self.0 | other.0)
    }

    pub const fn contains(self, category: Category) -> bool {
        self.0 & (1 << (category as u32)) != 0
    }

    pub fn iter(self) -> impl Iterator<Item = Category> {
        let all = Category::ALL.into_iter();
        all.filter(move |category| self.contains(*category))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_unique_and_has_a_category() {
        let names: Vec<&str> = CategorySet::names().collect();
        for name in &names {
            let set = CategorySet::parse(name).unwrap();
            assert!(set.iter().next().is_some(), "{name}");
            assert_eq!(
                names.iter().filter(|other| *other == name).count(),
                1,
                "{name}"
            );
        }
        assert_eq!(CategorySet::parse("erorr"), None);
        for category in Category::ALL {
            let found: Vec<_> = CategorySet::parse(category.name())
                .unwrap()
                .iter()
                .collect();
            assert_eq!(found, [category]);
        }
        let metrics: Vec<_> = CategorySet::parse("metrics").unwrap().iter().collect();
        assert_eq!(metrics, [Category::MetricBucket, Category::TraceMetric]);
    }

    #[test]
    fn every_name_has_a_plural() {
        for name in CategorySet::names() {
            let plural = match name.strip_suffix('y') {
                Some(stem) => format!("{stem}ies"),
                None => format!("{name}s"),
            };
            assert_eq!(
                CategorySet::parse(&plural),
                CategorySet::parse(name),
                "{plural}"
            );
        }
        let chunks = CategorySet::from_slice(&[Category::ProfileChunkUi]);
        assert_eq!(CategorySet::parse("profile_chunks_ui"), Some(chunks));
        for name in ["log_itemss", "ies", "s", "", "errory"] {
            assert_eq!(CategorySet::parse(name), None, "{name}");
        }
    }

    #[test]
    fn every_item_type_is_a_valid_name() {
        for kind in [
            "attachment",
            "client_report",
            "event",
            "unreal_report",
            "feedback",
            "user_report",
            "log",
            "otel_log",
            "otel_logs_data",
            "nel",
            "statsd",
            "metric_buckets",
            "metric_meta",
            "check_in",
            "profile",
            "replay_event",
            "replay_recording",
            "replay_video",
            "security",
            "raw_security",
            "session",
            "sessions",
            "span",
            "otel_span",
            "otel_traces_data",
            "trace_metric",
            "transaction",
        ] {
            let category = Category::from_item_type(kind.as_bytes()).unwrap();
            assert!(
                CategorySet::parse(kind).unwrap().contains(category),
                "{kind}"
            );
        }
        for kind in ["event ", "form_data", "integration"] {
            assert_eq!(Category::from_item_type(kind.as_bytes()), None, "{kind}");
        }
    }

    #[test]
    fn the_platform_of_a_profile_chunk_decides_its_category() {
        for (platform, category) in [
            (Some("javascript"), Some(Category::ProfileChunkUi)),
            (Some("cocoa"), Some(Category::ProfileChunkUi)),
            (Some("android"), Some(Category::ProfileChunkUi)),
            (Some("python"), Some(Category::ProfileChunk)),
            (Some("node"), Some(Category::ProfileChunk)),
            (Some(""), Some(Category::ProfileChunk)),
            (Some("Cocoa"), Some(Category::ProfileChunk)),
            (None, None),
        ] {
            let found = Category::from_profile_platform(platform.map(str::as_bytes));
            assert_eq!(found, category, "{platform:?}");
        }
        let profiling: Vec<_> = CategorySet::parse("profiling").unwrap().iter().collect();
        assert_eq!(
            profiling,
            [
                Category::Profile,
                Category::ProfileChunk,
                Category::ProfileChunkUi
            ]
        );
    }
}
