//! What Sentry has counted for a project: `GET /api/0/organizations/{organization}/stats_v2/`.
//!
//! The answer has a group for each category, outcome and reason, with its sum over the period; there are no pages.
//! Sentry says that rows can be missing where many projects are grouped, so each project is asked for alone.
//! Outcomes are `accepted`, `filtered` (inbound filters), `rate_limited`, `invalid`, `abuse`, `client_discard` (SDKs
//! reported it lost) and `cardinality_limited`.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use serde::Deserialize;

use crate::parity::counts::Period;
use crate::telemetry::timestamp::rfc3339;
use crate::telemetry::words;

/// The most items that one sum may have. No organization has as many; it keeps sums of sums within a number.
const ITEMS_MAX: f64 = 1e12;

/// The counts of one project.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Stats {
    pub(crate) categories: BTreeMap<String, CategoryStats>,
}

/// The items of one category by outcome.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct CategoryStats {
    pub(crate) accepted: u64,
    pub(crate) filtered: u64,
    pub(crate) rate_limited: u64,
    /// `invalid`, `abuse`, `cardinality_limited`, and what Sentry may add.
    pub(crate) invalid: u64,
    /// What SDKs report as lost before they sent it. It never arrived, so it is in no sum.
    pub(crate) client_discard: u64,
    /// The reasons of what was not accepted, each with its number of items.
    pub(crate) reasons: BTreeMap<String, u64>,
}

impl CategoryStats {
    /// What arrived, whether or not it was accepted.
    pub(crate) fn arrived(&self) -> u64 {
        self.accepted + self.filtered + self.rate_limited + self.invalid
    }
}

/// The path and query for the counts of `project` in `period`.
pub(crate) fn target(prefix: &str, organization: &str, project: &str, period: Period) -> String {
    let (start, end) = (time(period.start), time(period.end));
    format!(
        "{prefix}/api/0/organizations/{organization}/stats_v2/?field=sum%28quantity%29&groupBy=category&groupBy=outcome&groupBy=reason&interval=1h&project={project}&start={start}&end={end}"
    )
}

/// A time as Sentry writes it in its answer.
fn time(seconds: u64) -> String {
    let at = rfc3339(UNIX_EPOCH + Duration::from_secs(seconds));
    at.replace(".000Z", "Z")
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    start: Option<String>,
    #[serde(default)]
    end: Option<String>,
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    by: By,
    totals: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct By {
    category: String,
    outcome: String,
    /// `none` or null for what was accepted.
    #[serde(default)]
    reason: Option<String>,
}

/// Reads the answer for `period`.
///
/// # Errors
/// It has another form, or is about another period.
pub(crate) fn parse(body: &[u8], period: Period) -> Result<Stats, String> {
    let answer: Answer = serde_json::from_slice(body)
        .map_err(|error| format!("the answer is not that of stats_v2: {error}"))?;
    let asked = [time(period.start), time(period.end)];
    for (asked, answered) in asked.iter().zip([&answer.start, &answer.end]) {
        let is_other = answered.as_ref().is_some_and(|time| time != asked);
        if is_other {
            return Err(format!(
                "the answer is about {answered:?}, where {asked} was asked for"
            ));
        }
    }
    let mut stats = Stats::default();
    for group in answer.groups {
        let sum = group.totals.get("sum(quantity)").copied();
        let sum = sum.ok_or("the answer has no sum(quantity)")?;
        if sum > ITEMS_MAX {
            return Err(format!("the answer has a sum(quantity) of {sum}"));
        }
        // Sums are whole numbers, which JSON may write with a fraction.
        let count = sum.max(0.0) as u64;
        // Names are printed, also to terminals.
        let category = words::escaped(&group.by.category).into_owned();
        let category = stats.categories.entry(category).or_default();
        let sum = match group.by.outcome.as_str() {
            "accepted" => &mut category.accepted,
            "filtered" => &mut category.filtered,
            "rate_limited" => &mut category.rate_limited,
            "client_discard" => &mut category.client_discard,
            _ => &mut category.invalid,
        };
        *sum += count;
        let is_kept = matches!(group.by.outcome.as_str(), "accepted" | "client_discard");
        let reason = group
            .by
            .reason
            .filter(|reason| reason != "none" && !is_kept);
        if let Some(reason) = reason.filter(|_| count > 0) {
            let reason = words::escaped(&reason).into_owned();
            *category.reasons.entry(reason).or_default() += count;
        }
    }
    Ok(stats)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_summed_up_by_category() {
        let group = |category: &str, outcome: &str, reason: &str, sum: &str| {
            format!(
                "{{\"by\":{{\"outcome\":\"{outcome}\",\"category\":\"{category}\",\"reason\":{reason}}},\"totals\":{{\"sum(quantity)\":{sum}}},\"series\":{{\"sum(quantity)\":[{sum},0]}}}}"
            )
        };
        let groups = [
            group("error", "accepted", "\"none\"", "900"),
            group("error", "filtered", "\"browser-extensions\"", "60"),
            group("error", "filtered", "\"localhost\"", "5.0"),
            group("error", "rate_limited", "\"key_quota\"", "7"),
            group("error", "invalid", "\"too_large\"", "2"),
            group("error", "abuse", "null", "1"),
            group("error", "client_discard", "\"ratelimit_backoff\"", "40"),
            group("transaction", "accepted", "null", "3"),
            group("span", "filtered", "\"a\\u001b[31m\\n\"", "1"),
        ];
        let body = format!(
            "{{\"start\":\"2026-11-30T10:00:00Z\",\"end\":\"2026-11-30T12:00:00Z\",\"intervals\":[\"2026-11-30T10:00:00Z\",\"2026-11-30T11:00:00Z\"],\"groups\":[{}]}}",
            groups.join(",")
        );
        let period = Period {
            start: 1_796_032_800,
            end: 1_796_040_000,
        };
        let stats = parse(body.as_bytes(), period).unwrap();
        let error = &stats.categories["error"];
        assert_eq!(
            (
                error.accepted,
                error.filtered,
                error.rate_limited,
                error.invalid,
                error.client_discard
            ),
            (900, 65, 7, 3, 40)
        );
        assert_eq!(error.arrived(), 975);
        let reasons: Vec<_> = error
            .reasons
            .iter()
            .map(|(reason, count)| (reason.as_str(), *count))
            .collect();
        assert_eq!(
            reasons,
            [
                ("browser-extensions", 60),
                ("key_quota", 7),
                ("localhost", 5),
                ("too_large", 2)
            ]
        );
        assert_eq!(stats.categories["transaction"].arrived(), 3);
        assert_eq!(parse(b"{\"groups\":[]}", period), Ok(Stats::default()));
        let reasons = &stats.categories["span"].reasons;
        assert!(reasons.contains_key("a\\u{1b}[31m\\n"), "{reasons:?}");
        let large = body.replace("900", "1e18");
        assert!(
            parse(large.as_bytes(), period)
                .unwrap_err()
                .contains("1000000000000000000")
        );
        assert!(parse(b"<html>", period).is_err());
        assert!(parse(b"{\"detail\":\"no\"}", period).is_err());
        let shifted = Period {
            end: period.end + 3600,
            ..period
        };
        let error = parse(body.as_bytes(), shifted).unwrap_err();
        assert!(
            error.contains("2026-11-30T13:00:00Z was asked for"),
            "{error}"
        );
    }

    #[test]
    fn the_request_names_period_project_and_grouping() {
        let period = Period {
            start: 1_796_000_400,
            end: 1_796_004_000,
        };
        let target = target("/s", "acme", "11", period);
        assert!(
            target.starts_with("/s/api/0/organizations/acme/stats_v2/?field=sum%28quantity%29&"),
            "{target}"
        );
        for part in [
            "&groupBy=category&groupBy=outcome&groupBy=reason",
            "&project=11&",
            "&interval=1h&",
        ] {
            assert!(target.contains(part), "{part} is not in {target}");
        }
        assert!(
            target.ends_with("&start=2026-11-30T01:00:00Z&end=2026-11-30T02:00:00Z"),
            "{target}"
        );
    }
}
