//! The comparison as a table for people, and as JSON for scripts.

use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::parity::compare::Row;
use crate::parity::counts::Period;
use crate::telemetry::timestamp::rfc3339;

/// The rows of routes that have projects in common.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) routes: Vec<String>,
    /// By category, then in the order of the projects.
    pub(crate) rows: Vec<Row>,
}

const COLUMNS: [&str; 8] = [
    "came in",
    "sent",
    "accepted",
    "filtered",
    "limited",
    "invalid",
    "SDKs lost",
    "difference",
];

/// The numbers of a row, in the order of [`COLUMNS`].
fn numbers(row: &Row) -> [i64; 8] {
    let there = &row.there;
    [
        row.came_in.cast_signed(),
        row.sent.cast_signed(),
        there.accepted.cast_signed(),
        there.filtered.cast_signed(),
        there.rate_limited.cast_signed(),
        there.invalid.cast_signed(),
        there.client_discard.cast_signed(),
        row.difference(),
    ]
}

/// The reasons of a difference, in one line.
fn reasons(row: &Row, tolerance: f64) -> String {
    if let Some(reason) = row.incomparable {
        return format!("not compared: {reason}");
    }
    let explained = row.explained.iter();
    let mut parts: Vec<String> = explained
        .map(|explanation| format!("{} {}", explanation.items, explanation.reason))
        .collect();
    let mark = if row.is_over(tolerance) { "✗ " } else { "" };
    match row.unexplained {
        0 => {}
        1.. => parts.push(format!(
            "{mark}{} unexplained: delivered, but not counted there",
            row.unexplained
        )),
        _ => parts.push(format!(
            "{mark}{} unexplained: more arrived than the mirror sent; does anything else send there?",
            row.unexplained
        )),
    }
    parts.join("; ")
}

/// The table, and what it means.
pub(crate) fn text(period: Period, groups: &[Group], tolerance: f64) -> String {
    let mut text = format!(
        "{} whole hours, {} to {}\n",
        period.hours(),
        time(period.start),
        time(period.end)
    );
    for group in groups {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n{}\n", group.routes.join(", "));
        text += &table(group, tolerance);
    }
    let rows = || groups.iter().flat_map(|group| &group.rows);
    let over = rows().filter(|row| row.is_over(tolerance)).count();
    let percent = tolerance * 100.0;
    text += &match (over, rows().count()) {
        (_, 0) => "\nnothing was sent, and nothing arrived\n".to_owned(),
        (0, _) => format!("\nevery difference over {percent} % is explained\n"),
        (over, _) => format!("\n{over} differences over {percent} % are not explained, see ✗\n"),
    };
    text
}

fn table(group: &Group, tolerance: f64) -> String {
    let heads = || {
        let project = |row: &Row| format!("{} ({})", row.project, row.outbounds.join(", "));
        group
            .rows
            .iter()
            .map(move |row| [row.category.clone(), project(row)])
    };
    let width = |index: usize, title: &str| {
        let cells = heads().map(|cells| cells.get(index).map_or(0, |cell| cell.chars().count()));
        cells.max().unwrap_or(0).max(title.len())
    };
    let (first, second) = (width(0, "category"), width(1, "project"));
    let mut text = format!("  {:first$}  {:second$}", "category", "project");
    for title in COLUMNS {
        let _ = write!(text, "  {title:>10}");
    }
    text += "\n";
    let mut last = "";
    for (row, [_, project]) in group.rows.iter().zip(heads()) {
        let category = if row.category == last {
            ""
        } else {
            &row.category
        };
        last = &row.category;
        let _ = write!(text, "  {category:first$}  {project:second$}");
        for number in numbers(row) {
            let _ = write!(text, "  {number:>10}");
        }
        let reasons = reasons(row, tolerance);
        let gap = if reasons.is_empty() { "" } else { "  " };
        let _ = writeln!(text, "{gap}{reasons}");
    }
    text
}

/// The same as JSON.
pub(crate) fn json(period: Period, groups: &[Group], tolerance: f64) -> String {
    let row = |row: &Row| {
        let explained = row.explained.iter();
        json!({
            "category": row.category,
            "project": row.project,
            "outbounds": row.outbounds,
            "came_in": row.came_in,
            "sent": row.sent,
            "accepted": row.there.accepted,
            "filtered": row.there.filtered,
            "rate_limited": row.there.rate_limited,
            "invalid": row.there.invalid,
            "client_discard": row.there.client_discard,
            "reasons": row.there.reasons,
            "difference": row.difference(),
            "explained": explained
                .map(|explanation| json!({"items": explanation.items, "reason": explanation.reason}))
                .collect::<Vec<_>>(),
            "unexplained": row.unexplained,
            "not_compared": row.incomparable,
            "over_tolerance": row.is_over(tolerance),
        })
    };
    let group = |group: &Group| {
        json!({
            "routes": group.routes,
            "rows": group.rows.iter().map(row).collect::<Vec<Value>>(),
        })
    };
    let document = json!({
        "start": time(period.start),
        "end": time(period.end),
        "tolerance": tolerance,
        "groups": groups.iter().map(group).collect::<Vec<Value>>(),
    });
    format!("{document:#}\n")
}

fn time(seconds: u64) -> String {
    rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)).replace(":00.000Z", "Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parity::compare::Explanation;
    use crate::parity::stats::CategoryStats;

    fn row(category: &str, project: &str, unexplained: i64) -> Row {
        Row {
            category: category.to_owned(),
            project: project.to_owned(),
            outbounds: vec!["eu".to_owned()],
            came_in: 1000,
            sent: 900,
            there: CategoryStats {
                accepted: 900_u64.saturating_add_signed(-unexplained),
                ..CategoryStats::default()
            },
            explained: vec![Explanation {
                items: 100,
                reason: "lost".to_owned(),
            }],
            unexplained,
            incomparable: None,
        }
    }

    #[test]
    fn the_table_has_a_line_for_each_row_and_says_what_is_not_explained() {
        let period = Period {
            start: 1_796_000_400,
            end: 1_796_007_600,
        };
        let group = |unexplained| Group {
            routes: vec!["shop".to_owned()],
            rows: vec![
                row("error", "acme/11", 0),
                row("error", "acme-eu/22", unexplained),
            ],
        };
        let good = text(period, &[group(0)], 0.01);
        let lines: Vec<&str> = good.lines().collect();
        assert_eq!(
            lines[0],
            "2 whole hours, 2026-11-30T01:00Z to 2026-11-30T03:00Z"
        );
        assert_eq!(lines[2], "shop");
        assert!(
            lines[4].starts_with("  error     acme/11 (eu)           1000"),
            "{}",
            lines[4]
        );
        assert!(lines[4].ends_with("       100  100 lost"), "{}", lines[4]);
        assert!(
            lines[5].starts_with("            acme-eu/22 (eu)"),
            "{}",
            lines[5]
        );
        assert!(
            good.ends_with("\nevery difference over 1 % is explained\n"),
            "{good}"
        );
        let bad = text(period, &[group(50), group(-50)], 0.01);
        for part in [
            "100 lost; ✗ 50 unexplained: delivered",
            "✗ -50 unexplained: more arrived",
            "\n2 differences over 1 %",
        ] {
            assert!(bad.contains(part), "{part} is not in {bad}");
        }
        let none = text(period, &[], 0.01);
        assert!(none.contains("nothing was sent"), "{none}");
    }

    #[test]
    fn json_has_the_same() {
        let period = Period {
            start: 0,
            end: 3600,
        };
        let group = Group {
            routes: vec!["shop".to_owned()],
            rows: vec![row("error", "acme/11", 50)],
        };
        let document: Value = serde_json::from_str(&json(period, &[group], 0.01)).unwrap();
        let row = &document["groups"][0]["rows"][0];
        assert_eq!(row["difference"], 150);
        assert_eq!(row["unexplained"], 50);
        assert_eq!(row["over_tolerance"], true);
        assert_eq!(row["explained"][0]["items"], 100);
        assert_eq!(document["end"], "1970-01-01T01:00Z");
    }
}
