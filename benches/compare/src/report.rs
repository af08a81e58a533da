//! The results as tables for people and as a record for the tree.

use serde_json::{Map, Value, json};

use crate::cases::Case;
use crate::contender::Contender;
use crate::machine::Machine;
use crate::slot::Sample;
use crate::stats::Spread;

/// The rounds of one contender in one case.
pub struct Result {
    pub contender: Contender,
    pub samples: Vec<Sample>,
    /// Why it was abandoned, if it was.
    pub failure: Option<String>,
}

/// A case with the rounds of all contenders; the others are compared with the first.
pub struct CaseResult {
    pub case: Case,
    pub rate: Option<f64>,
    pub results: Vec<Result>,
}

impl Result {
    fn spread(&self, value: impl Fn(&Sample) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.samples.iter().filter_map(value))
    }

    fn median(&self, value: impl Fn(&Sample) -> Option<f64>) -> f64 {
        self.spread(value).map_or(f64::NAN, |spread| spread.median)
    }

    /// What was wrong, if anything was.
    fn complaint(&self) -> Option<String> {
        if let Some(failure) = &self.failure {
            return Some(failure.clone());
        }
        let mut bad = self
            .samples
            .iter()
            .filter(|sample| !sample.verdict.is_clean());
        let verdict = &bad.next()?.verdict;
        Some(format!(
            "{} missing, {} twice, {} wrong: {}",
            verdict.missing,
            verdict.twice,
            verdict.wrong,
            verdict.complaint.as_deref().unwrap_or(""),
        ))
    }

    /// The ratio of this contender's `value` to the first one's, by slots of the same round, which follow each
    /// other at once.
    fn ratio(&self, first: &Result, value: impl Fn(&Sample) -> Option<f64>) -> Option<Spread> {
        let rounds = self.samples.iter().zip(&first.samples);
        Spread::of(rounds.filter_map(|(own, other)| Some(value(other)? / value(own)?)))
    }

    fn json(&self, first: &Result) -> Value {
        let spread = |value: &dyn Fn(&Sample) -> Option<f64>| Spread::json(self.spread(value));
        let ratio = |value: &dyn Fn(&Sample) -> Option<f64>| Spread::json(self.ratio(first, value));
        let sum = |value: &dyn Fn(&Sample) -> usize| self.samples.iter().map(value).sum::<usize>();
        json!({
            "contender": self.contender.name,
            "rewrites": self.contender.ability().words(),
            "cpu_us_per_request": spread(&|sample| Some(sample.cpu)),
            "cpu_of_the_first_over_this": ratio(&|sample| Some(sample.cpu)),
            "requests_per_second": spread(&|sample| Some(sample.throughput)),
            "busy_share_of_its_cores": spread(&|sample| Some(sample.busy)),
            "open_load": {
                "cpu_us_per_request": spread(&|sample| sample.open_cpu),
                "p50_us": spread(&|sample| Some(sample.latency?.p50)),
                "p99_us": spread(&|sample| Some(sample.latency?.p99)),
                "p99_9_us": spread(&|sample| Some(sample.latency?.p999)),
                "p99_of_the_first_over_this": ratio(&|sample| Some(sample.latency?.p99)),
                "p99_9_of_the_first_over_this": ratio(&|sample| Some(sample.latency?.p999)),
            },
            "peak_rss_kib": spread(&|sample| Some(sample.peak_rss_kib as f64)),
            "bytes_per_idle_connection": spread(&|sample| sample.idle_bytes),
            "upstream_connections": spread(&|sample| Some(sample.upstream_connections as f64)),
            "syscalls_per_request": spread(&|sample| sample.syscalls),
            "busiest_worker_over_mean": spread(&|sample| Some(sample.imbalance)),
            "requests": sum(&|sample| sample.requests),
            "failure": self.failure,
            "missing": sum(&|sample| sample.verdict.missing),
            "twice": sum(&|sample| sample.verdict.twice),
            "wrong": sum(&|sample| sample.verdict.wrong),
        })
    }
}

impl CaseResult {
    /// Prints a table; gives whether every sink got the right requests.
    pub fn print(&self) -> bool {
        let rate = self
            .rate
            .map_or(String::new(), |rate| format!(", open load {rate:.0}/s"));
        println!("{}{rate}", self.case.name);
        println!(
            "  {:<21} {:>8} {:>15} {:>8} {:>8} {:>5} {:>8} {:>8} {:>8} {:>8} {:>9} {:>6} {:>7}  rewrites",
            "",
            "CPU µs",
            "min to max",
            "1st ÷ it",
            "req/s",
            "busy",
            "p50 µs",
            "p99 µs",
            "p99.9",
            "p99 1÷it",
            "RSS KiB",
            "conns",
            "sysc/r",
        );
        let Some(first) = self.results.first() else {
            return true;
        };
        let mut is_clean = true;
        for result in &self.results {
            let cpu = result.spread(|sample| Some(sample.cpu)).unwrap_or_default();
            let ratio = |value: &dyn Fn(&Sample) -> Option<f64>| {
                result
                    .ratio(first, value)
                    .map_or(f64::NAN, |ratio| ratio.median)
            };
            println!(
                "  {:<21} {:>8.2} {:>15} {:>8.3} {:>8.0} {:>5.2} {:>8.0} {:>8.0} {:>8.0} {:>8.2} {:>9.0} {:>6.0} {:>7.2}  {}",
                result.contender.name,
                cpu.median,
                format!("{:.2} to {:.2}", cpu.least, cpu.most),
                ratio(&|sample| Some(sample.cpu)),
                result.median(|sample| Some(sample.throughput)),
                result.median(|sample| Some(sample.busy)),
                result.median(|sample| Some(sample.latency?.p50)),
                result.median(|sample| Some(sample.latency?.p99)),
                result.median(|sample| Some(sample.latency?.p999)),
                ratio(&|sample| Some(sample.latency?.p99)),
                result.median(|sample| Some(sample.peak_rss_kib as f64)),
                result.median(|sample| Some(sample.upstream_connections as f64)),
                result.median(|sample| sample.syscalls),
                result.contender.ability().words(),
            );
            let idle = result.spread(|sample| sample.idle_bytes);
            if let Some(idle) = idle {
                println!("    {:.0} bytes for each idle connection", idle.median);
            }
            if self.case.workers > 1 {
                let imbalance = result.median(|sample| Some(sample.imbalance));
                println!("    the busiest worker did {imbalance:.2} times the average");
            }
            if let Some(complaint) = result.complaint() {
                println!("    NOT AS IT SHOULD BE: {complaint}");
                is_clean = false;
            }
        }
        println!();
        is_clean
    }

    fn json(&self) -> Value {
        let result = |result: &Result| self.results.first().map(|first| result.json(first));
        json!({
            "case": self.case.name,
            "outbounds": self.case.outbounds,
            "clients": self.case.lanes,
            "idle_connections": self.case.idle,
            "open_load_per_second": self.rate,
            "results": self.results.iter().filter_map(result).collect::<Vec<_>>(),
        })
    }
}

/// The record of a run.
pub fn record(machine: &Machine, rounds: usize, seconds: f64, cases: &[CaseResult]) -> Value {
    let mut record = Map::new();
    record.insert("machine".to_owned(), machine.json());
    record.insert("rounds".to_owned(), rounds.into());
    record.insert("seconds_per_slot".to_owned(), seconds.into());
    let cases = cases.iter().map(CaseResult::json).collect::<Vec<_>>();
    record.insert("cases".to_owned(), cases.into());
    record.into()
}
