//! The far-away results as tables for people and as a record.

use serde_json::{Value, json};

use super::cases::FarCase;
use super::history::WINDOW;
use super::slot::{Sample, Step};
use crate::contender::Contender;
use crate::stats::Spread;

/// The rounds of one contender in one case.
pub struct Result {
    pub contender: Contender,
    pub samples: Vec<Sample>,
    /// Why it was abandoned, if it was.
    pub failure: Option<String>,
}

/// A case with the rounds of all contenders.
pub struct CaseResult {
    pub case: FarCase,
    pub results: Vec<Result>,
    /// Why it was not run.
    pub skipped: Option<String>,
}

/// The contender by which the CPU of the others is divided.
const REFERENCE: &str = "tokio build";

impl Result {
    fn spread(&self, value: impl Fn(&Sample) -> f64) -> Option<Spread> {
        Spread::of(self.samples.iter().map(value))
    }

    fn median(&self, value: impl Fn(&Sample) -> f64) -> f64 {
        self.spread(value).map_or(f64::NAN, |spread| spread.median)
    }

    fn sum(&self, value: impl Fn(&Sample) -> usize) -> usize {
        self.samples.iter().map(value).sum()
    }

    /// The CPU relative to `other`'s, by slots of the same round.
    fn ratio(&self, other: Option<&Result>) -> Option<Spread> {
        let rounds = self.samples.iter().zip(&other?.samples);
        Spread::of(rounds.map(|(own, other)| own.cpu / other.cpu))
    }

    fn json(&self, reference: Option<&Result>) -> Value {
        let spread = |value: &dyn Fn(&Sample) -> f64| Spread::json(self.spread(value));
        json!({
            "contender": self.contender.name,
            "failure": self.failure,
            "cpu_us_per_request": spread(&|sample| sample.cpu),
            "cpu_over_tokio": Spread::json(self.ratio(reference)),
            "p50_us": spread(&|sample| sample.summary.latency.p50),
            "p99_us": spread(&|sample| sample.summary.latency.p99),
            "p999_us": spread(&|sample| sample.summary.latency.p999),
            "requests": self.sum(|sample| sample.summary.requests),
            "lost": self.sum(|sample| sample.summary.lost),
            "not_2xx": self.sum(|sample| sample.summary.refused),
            "unanswered": self.sum(|sample| sample.summary.unanswered),
            "not_mirrored_to_all": self.sum(|sample| sample.summary.not_mirrored),
            "twice": self.sum(|sample| sample.verdict.twice),
            "opened": spread(&|sample| sample.opened as f64),
            "opened_per_1000_when_warm": spread(&|sample| sample.opened_per_1000),
            "in_flight": spread(&|sample| sample.in_flight),
            "bytes_per_request_in_flight": spread(&|sample| sample.bytes_in_flight),
            "calm_after_s": self.samples.iter().map(|sample| sample.summary.calm_after)
                .collect::<Vec<_>>(),
            "restless_share_after": spread(&|sample| sample.summary.restless),
            "load_late_p99_us": spread(&|sample| sample.summary.late_p99_us),
            "queues": self.samples.iter().map(queue_json).collect::<Vec<_>>(),
        })
    }

    fn print(&self, reference: Option<&Result>) {
        let calm = self.median(|sample| sample.summary.calm_after.unwrap_or(f64::INFINITY));
        let calm = match calm {
            calm if calm.is_infinite() => "never".to_owned(),
            calm => format!("{calm:.2}"),
        };
        let cpu = self.spread(|sample| sample.cpu).unwrap_or_default();
        let ratio = self.ratio(reference).map_or(f64::NAN, |ratio| ratio.median);
        println!(
            "  {:<24} {:>8.1} {:>15} {:>7.2} {:>8.1} {:>8.1} {:>8} {:>7} {:>7} {:>7.1} {:>7.1} {:>7.0} {:>6} {:>5.2} {:>6.1}",
            self.contender.name,
            cpu.median,
            format!("{:.1} to {:.1}", cpu.least, cpu.most),
            ratio,
            self.median(|sample| sample.summary.latency.p50 / 1000.0),
            self.median(|sample| sample.summary.latency.p99 / 1000.0),
            self.sum(|sample| sample.summary.lost),
            self.sum(|sample| sample.summary.refused + sample.summary.unanswered),
            self.sum(|sample| sample.summary.not_mirrored),
            self.median(|sample| sample.opened_per_1000),
            self.median(|sample| sample.bytes_in_flight / 1024.0),
            self.median(|sample| sample.in_flight),
            calm,
            self.median(|sample| sample.summary.restless),
            self.median(|sample| sample.summary.late_p99_us / 1000.0),
        );
        let remarks = self
            .samples
            .iter()
            .filter_map(|sample| sample.remark.as_deref());
        for remark in self.failure.as_deref().into_iter().chain(remarks).take(1) {
            println!("    {remark}");
        }
        let mut wrong = self.samples.iter().filter(|sample| !sample.is_right());
        if let Some(sample) = wrong.next() {
            let verdict = &sample.verdict;
            let complaint = verdict.complaint.as_deref().unwrap_or("");
            println!(
                "    NOT AS IT SHOULD BE: {} wrong: {complaint}",
                verdict.wrong
            );
        }
    }

    fn is_clean(&self) -> bool {
        self.failure.is_none() && self.samples.iter().all(Sample::is_right)
    }
}

impl CaseResult {
    /// Prints a table; gives whether everything that arrived was right.
    pub fn print(&self, with_queues: bool) -> bool {
        let requests = self
            .results
            .first()
            .map_or(0, |result| result.sum(|sample| sample.summary.requests));
        println!("{} ({requests} requests)", self.case.name);
        if let Some(reason) = &self.skipped {
            println!("  SKIPPED: {reason}\n");
            return true;
        }
        println!(
            "  {:<24} {:>8} {:>15} {:>7} {:>8} {:>8} {:>8} {:>7} {:>7} {:>7} {:>7} {:>7} {:>6} {:>5} {:>6}",
            "",
            "CPU µs",
            "min to max",
            "÷ tokio",
            "p50 ms",
            "p99 ms",
            "lost",
            "not 2xx",
            "unmirr.",
            "op/1000",
            "KiB/rq",
            "flight",
            "calm s",
            "after",
            "late",
        );
        let reference = self.reference();
        for result in &self.results {
            result.print(reference);
        }
        println!();
        if with_queues {
            for result in &self.results {
                print_queue(result);
            }
        }
        self.results.iter().all(Result::is_clean)
    }

    fn reference(&self) -> Option<&Result> {
        let mut results = self.results.iter();
        results.find(|result| result.contender.name == REFERENCE)
    }

    pub fn json(&self) -> Value {
        let reference = self.reference();
        let results = self.results.iter().map(|result| result.json(reference));
        json!({
            "case": self.case.name,
            "round_trip_ms": self.case.distance.round_trip().as_millis() as u64,
            "skipped": self.skipped,
            "results": results.collect::<Vec<_>>(),
        })
    }
}

/// Prints how the first round of a contender went on.
fn print_queue(result: &Result) {
    let Some(sample) = result.samples.first() else {
        return;
    };
    println!(
        "  {}\n  {:>6} {:>8} {:>8} {:>9} {:>10} {:>8} {:>8} {:>8} {:>8} {:>6} {:>8}",
        result.contender.name,
        "s",
        "requests",
        "not 2xx",
        "in flight",
        "bef. sinks",
        "opened",
        "open",
        "p50 ms",
        "p99 ms",
        "CPU",
        "RSS MiB",
    );
    for (index, pair) in sample.steps.windows(2).enumerate() {
        let [before, step] = pair else { continue };
        let busy = step.cpu.total_since(&before.cpu).as_secs_f64() / WINDOW.as_secs_f64();
        println!(
            "  {:>6.2} {:>8} {:>8} {:>9} {:>10} {:>8} {:>8} {:>8.1} {:>8.1} {:>6.2} {:>8.1}",
            (index + 1) as f64 * WINDOW.as_secs_f64(),
            step.requests - before.requests,
            step.refused - before.refused,
            step.in_flight,
            step.before_sinks,
            step.opened - before.opened,
            step.open,
            step.latency
                .map_or(f64::NAN, |latency| latency.p50 / 1000.0),
            step.latency
                .map_or(f64::NAN, |latency| latency.p99 / 1000.0),
            busy,
            step.rss_kib as f64 / 1024.0,
        );
    }
    println!();
}

fn queue_json(sample: &Sample) -> Value {
    let list = |value: &dyn Fn(&Step) -> usize| sample.steps.iter().map(value).collect::<Vec<_>>();
    json!({
        "in_flight": list(&|step| step.in_flight),
        "before_sinks": list(&|step| step.before_sinks),
        "opened": list(&|step| step.opened),
        "refused": list(&|step| step.refused),
    })
}
