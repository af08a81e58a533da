//! From samples to what is read: a table for people, a JSON document for programs.
//!
//! Medians with the range of the middle half, because a mean is at the mercy of one bad slot on a
//! machine with other work to do.

use serde_json::{Value, json};

use crate::check::Finding;
use crate::measure::{CONNECTIONS, Samples, Size};
use crate::ways::Way;
use crate::ways::ours::Ours;

/// The share of the median that the middle half may span before a figure is called noisy.
const NOISE_MAX: f64 = 0.10;

/// The middle of some values, and how far they lie apart.
struct Summary {
    median: f64,
    /// The bounds of the middle half.
    quartiles: [f64; 2],
    least: f64,
}

impl Summary {
    /// A summary of `values`, of which there is at least one.
    fn of(values: &[f64]) -> Summary {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Summary {
            median: quantile(&sorted, 0.5),
            quartiles: [quantile(&sorted, 0.25), quantile(&sorted, 0.75)],
            least: quantile(&sorted, 0.0),
        }
    }

    fn spread(&self) -> f64 {
        (self.quartiles[1] - self.quartiles[0]) / self.median
    }
}

/// The value below which the share `at` of `sorted` lies, interpolated.
fn quantile(sorted: &[f64], at: f64) -> f64 {
    let position = at * (sorted.len() - 1) as f64;
    let below = sorted[position.floor() as usize];
    let above = sorted[position.ceil() as usize];
    below + (above - below) * position.fract()
}

/// One way with one size: the cost, and the cost compared with ours.
struct Row<'s> {
    size: &'s Size,
    samples: &'s Samples,
    cost: Summary,
    ratio: Summary,
}

/// All that was measured.
pub struct Report<'s> {
    rows: Vec<Row<'s>>,
}

impl<'s> Report<'s> {
    pub fn new(results: &'s [(&'s Size, [Samples; 4])]) -> Report<'s> {
        let rows = results.iter().flat_map(|(size, ways)| {
            let ours = ways.iter().find(|samples| samples.way == Ours::NAME);
            let ours = ours.map_or(&[][..], |samples| &samples.values);
            ways.iter().map(move |samples| {
                let pairs = samples.values.iter().zip(ours);
                let ratios: Vec<f64> = pairs.map(|(value, ours)| value / ours).collect();
                Row {
                    size,
                    samples,
                    cost: Summary::of(&samples.values),
                    ratio: Summary::of(&ratios),
                }
            })
        });
        Report {
            rows: rows.collect(),
        }
    }

    /// The table, in Markdown, and whether it can be trusted.
    pub fn print(&self) {
        println!("| body | way | median | middle half | least | times ours | middle half |");
        println!("| --- | --- | --- | --- | --- | --- | --- |");
        for row in &self.rows {
            let (cost, ratio) = (&row.cost, &row.ratio);
            println!(
                "| {} | {} | {:.2} µs | {:.2} to {:.2} | {:.2} | **{:.2}** | {:.2} to {:.2} |",
                row.size.name,
                row.samples.way,
                cost.median,
                cost.quartiles[0],
                cost.quartiles[1],
                cost.least,
                ratio.median,
                ratio.quartiles[0],
                ratio.quartiles[1],
            );
        }
        println!();
        let spread = self.rows.iter().map(|row| row.ratio.spread());
        let spread = spread.fold(0.0, f64::max);
        let advice = if spread > NOISE_MAX {
            "NOISY: measure again when the machine has less to do"
        } else {
            "quiet enough"
        };
        println!(
            "The middle halves of the ratios span at most {:.0} % of their medians: {advice}.",
            spread * 100.0
        );
    }

    /// Everything, with the samples.
    pub fn json(&self, machine: &str, findings: &[Finding]) -> Value {
        let costs = self.rows.iter().map(|row| {
            json!({
                "body_bytes": row.size.body_bytes,
                "exchanges_per_sample": row.size.exchanges,
                "way": row.samples.way,
                "cpu_us": {
                    "median": row.cost.median,
                    "quartiles": row.cost.quartiles,
                    "least": row.cost.least,
                    "samples": row.samples.values,
                },
                "times_ours": {
                    "median": row.ratio.median,
                    "quartiles": row.ratio.quartiles,
                },
            })
        });
        let checks = findings.iter().map(|finding| {
            json!({
                "scenario": finding.scenario,
                "way": finding.way,
                "verdict": finding.verdict.to_string(),
                "expected": finding.is_expected(),
            })
        });
        json!({
            "machine": machine,
            "connections": CONNECTIONS,
            "costs": costs.collect::<Vec<_>>(),
            "checks": checks.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_about_the_middle() {
        let summary = Summary::of(&[9.0, 1.0, 2.0, 3.0, 1000.0]);
        assert_eq!(summary.median, 3.0);
        assert_eq!(summary.quartiles, [2.0, 9.0]);
        assert_eq!(summary.least, 1.0);
        assert_eq!(Summary::of(&[1.0, 2.0]).median, 1.5);
        assert_eq!(Summary::of(&[7.0]).quartiles, [7.0, 7.0]);
    }
}
