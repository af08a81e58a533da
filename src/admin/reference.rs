//! The reference of metrics in `docs/metrics.md`, generated from the catalogue.

use std::fmt::Write;

use super::metrics::{CATALOGUE, Metric, Reader, ValuesWithMeanings};
use crate::telemetry::family::PREFIX;

/// A closed set of label values with the metrics that have it.
struct ValueSet {
    label: &'static str,
    values: ValuesWithMeanings,
    metrics: Vec<String>,
}

/// Markdown tables of all metrics and of the values of their labels.
pub fn markdown() -> String {
    let mut out = "| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n".to_owned();
    let mut sets: Vec<ValueSet> = Vec::new();
    for metric in CATALOGUE {
        let (name, kind) = name_and_type(metric);
        let labels = metric.labels.iter();
        let labels: Vec<String> = labels.map(|label| format!("`{}`", label.name)).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "| `{name}` | {kind} | {} | {} |",
            labels.join(", "),
            metric.help
        );
        for label in metric.labels {
            let Some(values) = label.values else {
                continue;
            };
            let (label, values) = (label.name, values());
            let mut known = sets.iter_mut();
            match known.find(|set| set.label == label && set.values == values) {
                Some(set) => set.metrics.push(name.clone()),
                None => sets.push(ValueSet {
                    label,
                    values,
                    metrics: vec![name.clone()],
                }),
            }
        }
    }
    for set in sets {
        let metrics = set.metrics.iter().map(|name| format!("`{name}`"));
        let metrics = metrics.collect::<Vec<_>>().join(" and ");
        let _ = write!(
            out,
            "\n### `{}` of {metrics}\n\n| value | meaning |\n| --- | --- |\n",
            set.label
        );
        for (value, meaning) in set.values {
            let _ = writeln!(out, "| `{value}` | {meaning} |");
        }
    }
    out
}

/// The full name, and the type as Prometheus calls it.
fn name_and_type(metric: &Metric) -> (String, &'static str) {
    let (suffix, kind) = match metric.reader {
        Reader::Counter(_) => ("_total", "counter"),
        Reader::Gauge(_) => ("", "gauge"),
        Reader::Histogram(_) => ("", "histogram"),
    };
    (format!("{PREFIX}_{}{suffix}", metric.name), kind)
}
