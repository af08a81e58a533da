//! What the mirror counted and what Sentry counted, side by side, with the difference explained.
//!
//! For each project and category, everything that came in for it is either accepted there, or is explained: left out
//! by the mirror (sampled, not taken, capped, withheld), lost on the way, or dropped by Sentry (filtered, limited,
//! invalid). What remains is unexplained. A request that ended in a 4xx, or without an answer, may have been counted
//! by Sentry or not; so what arrived there may be anything between what was delivered and that with these.

use std::collections::BTreeMap;

use crate::parity::counts::Outcomes;
use crate::parity::stats::{CategoryStats, Stats};

/// So many unexplained items of a category are no difference: requests at the edges of an hour, which the mirror
/// and Sentry may count in different ones.
const EDGE_ITEMS: u64 = 3;

/// A project, and who sends there.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Project {
    /// The organization and the id of the project, for example `acme/11`.
    pub(crate) name: String,
    /// The names of the outbounds that send there.
    pub(crate) outbounds: Vec<String>,
    /// The sums of these outbounds.
    pub(crate) sent: Outcomes,
    pub(crate) stats: Stats,
    /// Whether an outbound multiplies what it gets.
    pub(crate) multiplies: bool,
}

/// One category of a project.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) category: String,
    pub(crate) project: String,
    pub(crate) outbounds: Vec<String>,
    /// The items that came in for these outbounds.
    pub(crate) came_in: u64,
    /// Those that Sentry said it accepted.
    pub(crate) sent: u64,
    pub(crate) there: CategoryStats,
    /// Why fewer are accepted than came in.
    pub(crate) explained: Vec<Explanation>,
    /// The rest of the difference. Negative if more arrived than was sent.
    pub(crate) unexplained: i64,
    /// Why the two sides cannot be compared, if so. Then nothing is unexplained.
    pub(crate) incomparable: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Explanation {
    pub(crate) items: u64,
    pub(crate) reason: String,
}

impl Row {
    /// How many fewer are accepted than came in.
    pub(crate) fn difference(&self) -> i64 {
        self.came_in.cast_signed() - self.there.accepted.cast_signed()
    }

    /// Whether more is unexplained than `tolerance`, a share of what was sent.
    pub(crate) fn is_over(&self, tolerance: f64) -> bool {
        let allowed = self.sent.max(self.there.arrived()) as f64 * tolerance;
        self.unexplained.unsigned_abs() as f64 > allowed.max(EDGE_ITEMS as f64)
    }
}

/// The rows of a project, one for each category.
pub(crate) fn rows(project: &Project) -> Vec<Row> {
    let mut sent = Outcomes::new();
    for (category, outcomes) in &project.sent {
        let category = sent.entry(counted_as(category).to_owned()).or_default();
        for (outcome, count) in outcomes {
            *category.entry(outcome.clone()).or_default() += count;
        }
    }
    let nothing = BTreeMap::new();
    let mut categories: Vec<&String> = sent.keys().collect();
    // Others, such as bytes of logs, follow from what was sent in another category.
    let there = project.stats.categories.keys();
    categories
        .extend(there.filter(|category| !sent.contains_key(*category) && is_comparable(category)));
    categories.sort();
    let row = |category: &String| {
        let there = project.stats.categories.get(category);
        let there = there.cloned().unwrap_or_default();
        row(
            project,
            category,
            sent.get(category).unwrap_or(&nothing),
            there,
        )
    };
    categories.into_iter().map(row).collect()
}

/// The category in which Sentry counts items of another one. Security reports are errors there.
fn counted_as(category: &str) -> &str {
    match category {
        "security" => "error",
        other => other,
    }
}

fn is_comparable(category: &str) -> bool {
    incomparable(category).is_none()
}

/// Why Sentry's count of a category has another meaning than the mirror's.
fn incomparable(category: &str) -> Option<&'static str> {
    match category {
        "error" | "feedback" | "log_item" | "monitor" | "profile" | "profile_chunk"
        | "profile_chunk_ui" | "trace_metric" | "transaction" => None,
        "attachment" => Some("Sentry counts bytes"),
        "replay" => Some("Sentry counts replays, the mirror items of them"),
        "span" => Some("Sentry counts spans of transactions, too"),
        "session" => Some("Sentry counts no sessions here"),
        _ => Some("Sentry has no such count"),
    }
}

fn row(
    project: &Project,
    category: &str,
    outcomes: &BTreeMap<String, u64>,
    there: CategoryStats,
) -> Row {
    let count = |outcome: &str| outcomes.get(outcome).copied().unwrap_or(0);
    let sent = count("delivered");
    let incomparable = match project.multiplies {
        true => Some("an outbound has a multiplier"),
        false => incomparable(category),
    };
    // What arrived although it was not accepted at once. A 429 surely was counted, an outage hardly.
    let mut arrived_too = there.arrived().saturating_sub(sent);
    let mut still = |outcome: &str| {
        let all = count(outcome);
        let arrived = all.min(arrived_too);
        arrived_too -= arrived;
        all - arrived
    };
    let too_many = still("too_many_requests");
    let refused = still("refused");
    let lost = still("lost");
    let more = arrived_too;
    let missing = sent.saturating_sub(there.arrived());
    let reasons = reasons(&there);
    let explained = [
        (
            count("sampled"),
            "sampled by the mirror (sample_rate)".to_owned(),
        ),
        (count("filtered"), "not taken (categories)".to_owned()),
        (
            count("capped"),
            "over the cap of the outbound (cap)".to_owned(),
        ),
        (
            count("withheld"),
            "withheld by the mirror (rate limits of the outbound)".to_owned(),
        ),
        (too_many, "answered 429".to_owned()),
        (refused, "answered another 4xx".to_owned()),
        (lost, "lost on the way (outage, timeout, 5xx)".to_owned()),
        (there.filtered, format!("filtered by Sentry{reasons}")),
        (
            there.rate_limited,
            format!("rate limited by Sentry{reasons}"),
        ),
        (there.invalid, format!("invalid to Sentry{reasons}")),
    ];
    let explained = explained.into_iter().filter(|(items, _)| *items > 0);
    Row {
        category: category.to_owned(),
        project: project.name.clone(),
        outbounds: project.outbounds.clone(),
        came_in: outcomes.values().sum(),
        sent,
        explained: explained
            .map(|(items, reason)| Explanation { items, reason })
            .collect(),
        unexplained: match incomparable {
            None => missing.cast_signed() - more.cast_signed(),
            Some(_) => 0,
        },
        there,
        incomparable,
    }
}

/// The reasons that Sentry gives, in brackets.
fn reasons(there: &CategoryStats) -> String {
    let reasons = there.reasons.iter();
    let reasons: Vec<String> = reasons
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    match reasons.is_empty() {
        true => String::new(),
        false => format!(" ({})", reasons.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(outcomes: &[(&str, u64)]) -> BTreeMap<String, u64> {
        let outcomes = outcomes.iter();
        outcomes
            .map(|(outcome, count)| ((*outcome).to_owned(), *count))
            .collect()
    }

    fn project(category: &str, outcomes: &[(&str, u64)], there: CategoryStats) -> Project {
        Project {
            name: "acme/11".to_owned(),
            outbounds: vec!["shop eu".to_owned()],
            sent: Outcomes::from([(category.to_owned(), sent(outcomes))]),
            stats: Stats {
                categories: BTreeMap::from([(category.to_owned(), there)]),
            },
            multiplies: false,
        }
    }

    fn accepted(accepted: u64) -> CategoryStats {
        CategoryStats {
            accepted,
            ..CategoryStats::default()
        }
    }

    /// The only row. Its explanations and the rest always add up to the difference.
    fn only(project: &Project) -> Row {
        let rows = rows(project);
        let [row] = &rows[..] else {
            panic!("{rows:?}");
        };
        let explained: u64 = row
            .explained
            .iter()
            .map(|explanation| explanation.items)
            .sum();
        assert_eq!(
            explained.cast_signed() + row.unexplained,
            row.difference(),
            "{row:?}"
        );
        row.clone()
    }

    #[test]
    fn each_difference_is_explained_and_adds_up() {
        let filtered = CategoryStats {
            filtered: 40,
            reasons: BTreeMap::from([("web-crawlers".to_owned(), 40)]),
            ..accepted(960)
        };
        let limited = CategoryStats {
            rate_limited: 100,
            ..accepted(300)
        };
        for (what, outcomes, there, explained) in [
            ("equal", &[("delivered", 1000)][..], accepted(1000), &[][..]),
            (
                "sampled",
                &[("delivered", 50), ("sampled", 950)],
                accepted(50),
                &[950],
            ),
            ("inbound filters", &[("delivered", 1000)], filtered, &[40]),
            // 100 got the 429, and the mirror withheld the others.
            (
                "limited",
                &[
                    ("delivered", 300),
                    ("too_many_requests", 100),
                    ("withheld", 600),
                ],
                limited,
                &[600, 100],
            ),
            // Of 100 without an answer, 30 had arrived.
            (
                "outage",
                &[("delivered", 900), ("lost", 100)],
                accepted(930),
                &[70],
            ),
            ("another category", &[("filtered", 7)], accepted(0), &[7]),
        ] {
            let row = only(&project("error", outcomes, there));
            assert_eq!(row.unexplained, 0, "{what}: {row:?}");
            let items: Vec<u64> = row
                .explained
                .iter()
                .map(|explanation| explanation.items)
                .collect();
            assert_eq!(items, explained, "{what}: {row:?}");
            assert!(!row.is_over(0.0), "{what}");
        }
    }

    #[test]
    fn what_is_missing_or_came_from_elsewhere_is_unexplained() {
        let missing = only(&project("error", &[("delivered", 1000)], accepted(980)));
        assert_eq!((missing.unexplained, missing.difference()), (20, 20));
        assert!(missing.is_over(0.01) && !missing.is_over(0.02));
        let more = only(&project(
            "error",
            &[("delivered", 100), ("lost", 5)],
            accepted(205),
        ));
        assert_eq!(more.unexplained, -100);
        assert!(more.is_over(0.01));
        let only_there = only(&project("error", &[], accepted(50)));
        assert_eq!((only_there.came_in, only_there.unexplained), (0, -50));
        let at_the_edge = only(&project("error", &[("delivered", 3)], accepted(0)));
        assert!(!at_the_edge.is_over(0.0));
    }

    #[test]
    fn security_reports_are_errors_there() {
        let mut project = project("error", &[("delivered", 5)], accepted(9));
        project
            .sent
            .insert("security".to_owned(), sent(&[("delivered", 4)]));
        assert_eq!(only(&project).unexplained, 0);
    }

    #[test]
    fn counts_with_another_meaning_are_shown_but_not_compared() {
        for category in [
            "attachment",
            "replay",
            "span",
            "session",
            "client_report",
            "other",
        ] {
            let row = rows(&project(category, &[("delivered", 5)], accepted(123_456))).remove(0);
            assert!(
                row.incomparable.is_some() && !row.is_over(0.0),
                "{category}"
            );
            // What only Sentry counts is no row at all.
            assert_eq!(rows(&project(category, &[], accepted(5))).len(), 1);
            let mut only_there = project(category, &[], accepted(5));
            only_there.sent.clear();
            assert!(rows(&only_there).is_empty());
        }
        let mut copies = project("error", &[("delivered", 5)], accepted(10));
        copies.multiplies = true;
        assert!(rows(&copies)[0].incomparable.is_some());
    }
}
