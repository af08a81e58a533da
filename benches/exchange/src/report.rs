//! The results: a table for people, a JSON document for programs.
//!
//! They are medians, because a few bad slots on a busy machine distort a mean. A cost comes with the spread of
//! its samples, a ratio with the confidence interval of its median, which a comparison needs.

use serde_json::{Value, json};

use crate::check::Finding;
use crate::measure::{CONNECTIONS, Samples, Size};
use crate::ways::Way;
use crate::ways::ours::Ours;

/// The share of a ratio that its interval may span before the run is called noisy.
const NOISE_MAX: f64 = 0.06;

/// The middle of some values.
struct Summary {
    median: f64,
    /// The bounds of the middle half.
    quartiles: [f64; 2],
    least: f64,
    /// The 95 % confidence interval of the median, for any distribution.
    interval: [f64; 2],
}

impl Summary {
    /// A summary of `values`, which must not be empty.
    fn of(values: &[f64]) -> Summary {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        // How many values lie below the true median is binomial; this is 1.96 standard deviations.
        let doubt = 0.98 / (sorted.len() as f64).sqrt();
        Summary {
            median: quantile(&sorted, 0.5),
            quartiles: [quantile(&sorted, 0.25), quantile(&sorted, 0.75)],
            least: quantile(&sorted, 0.0),
            interval: [0.5 - doubt, 0.5 + doubt].map(|at| quantile(&sorted, at.clamp(0.0, 1.0))),
        }
    }

    fn doubt(&self) -> f64 {
        (self.interval[1] - self.interval[0]) / self.median
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
    pub fn new(results: &'s [(&'s Size, [Samples; 5])]) -> Report<'s> {
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

    /// The table in Markdown, and whether the run was quiet enough.
    pub fn print(&self) {
        println!("| body | way | median | middle half | least | times ours | 95 % interval |");
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
                ratio.interval[0],
                ratio.interval[1],
            );
        }
        let doubts = self.rows.iter().map(|row| row.ratio.doubt());
        let doubt = doubts.fold(0.0, f64::max);
        let advice = if doubt > NOISE_MAX {
            "NOISY: measure again when the machine has less to do"
        } else {
            "quiet enough"
        };
        println!(
            "\nThe widest of these intervals spans {:.1} % of its ratio: {advice}.",
            doubt * 100.0
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
                    "interval_95": row.ratio.interval,
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
        assert_eq!(Summary::of(&[7.0]).interval, [7.0, 7.0]);
    }

    #[test]
    fn an_interval_narrows_with_the_number_of_samples() {
        let evenly = |count: u32| Summary::of(&(0..count).map(f64::from).collect::<Vec<_>>());
        // Of 101 ordered values, the 40.7th to the 60.2nd: a share of 0.0975 on either side.
        let [low, high] = evenly(101).interval;
        assert!((40.0..41.0).contains(&low) && (59.0..60.0).contains(&high));
        assert!(evenly(10_001).doubt() < evenly(101).doubt() / 9.0);
        assert_eq!(evenly(3).interval, [0.0, 2.0]);
    }
}
