//! The arguments of `sentry-mirror sink`: how a stand-in for Sentry answers.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use crate::config::parse_duration;
use crate::sentry::category::{Category, CategorySet};

/// How long a rate limit lasts without a duration of its own, as Relay's usual limits.
const LIMIT_DEFAULT: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub struct SinkArguments {
    /// Address to listen on, for example 127.0.0.1:9000; port 0 takes a free port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9000")]
    pub listen: SocketAddr,

    /// Wait before each answer, for example 3s or 200ms
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub delay: Option<Duration>,

    /// Answer with this status instead of 200, for example 503 or 403
    #[arg(long, value_name = "CODE", value_parser = clap::value_parser!(u16).range(200..600))]
    pub status: Option<u16>,

    /// Answer 429 to requests of these categories, for example error,session or all, or error:30s
    /// for another duration than 60s; other requests are answered as usual
    #[arg(long, value_name = "CATEGORIES[:DURATION]", value_parser = rate_limit)]
    pub rate_limit: Option<RateLimit>,

    /// Read each request, then close its connection without an answer
    #[arg(long, conflicts_with_all = ["status", "rate_limit"])]
    pub close: bool,

    /// Print all header fields of each request, with keys shortened
    #[arg(long)]
    pub headers: bool,
}

/// A rate limit that a sink has reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// `None` limits everything.
    pub(crate) categories: Option<CategorySet>,
    pub(crate) seconds: u64,
}

impl RateLimit {
    /// Whether it applies to a request with these categories.
    pub(crate) fn applies_to(&self, mut categories: impl Iterator<Item = Category>) -> bool {
        let Some(limited) = self.categories else {
            return true;
        };
        categories.any(|category| limited.contains(category))
    }

    /// The value of `X-Sentry-Rate-Limits`.
    pub(crate) fn field(&self) -> String {
        let names = self.categories.into_iter().flat_map(CategorySet::iter);
        let names: Vec<&str> = names.map(Category::name).collect();
        format!(
            "{}:{}:organization:sink_limit",
            self.seconds,
            names.join(";")
        )
    }
}

fn rate_limit(text: &str) -> Result<RateLimit, String> {
    let (names, duration) = match text.split_once(':') {
        Some((names, duration)) => (names, parse_duration(duration)?),
        None => (text, LIMIT_DEFAULT),
    };
    let mut categories = CategorySet::default();
    for name in names.split(',').filter(|_| names != "all") {
        let set = CategorySet::parse(name).ok_or_else(|| {
            let known = Category::ALL.map(Category::name).join(", ");
            format!("{name:?} is not a category; expected all, or some of {known}")
        })?;
        categories = categories.union(set);
    }
    Ok(RateLimit {
        categories: (names != "all").then_some(categories),
        seconds: duration.as_secs().max(1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_limit_names_categories_and_a_duration() {
        for (text, field) in [
            ("error", "60:error:organization:sink_limit"),
            (
                "session,errors:2m",
                "120:error;session:organization:sink_limit",
            ),
            ("all", "60::organization:sink_limit"),
            ("all:1s", "1::organization:sink_limit"),
        ] {
            assert_eq!(rate_limit(text).unwrap().field(), field);
        }
        for (text, problem) in [
            ("eror", "\"eror\" is not a category; expected all, or some"),
            ("", "is not a category"),
            ("error,", "is not a category"),
            ("error:60", "a duration with a unit"),
        ] {
            let error = rate_limit(text).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn a_rate_limit_applies_to_requests_that_have_one_of_its_categories() {
        let applies = |text: &str, categories: &[Category]| {
            let limit = rate_limit(text).unwrap();
            limit.applies_to(categories.iter().copied())
        };
        assert!(applies("error", &[Category::Session, Category::Error]));
        assert!(!applies("error", &[Category::Session]));
        assert!(!applies("error", &[]));
        assert!(applies("all", &[]));
    }
}
