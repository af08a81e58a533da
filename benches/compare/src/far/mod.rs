//! Upstreams that are far away, which is where they are in the field: an answer takes 20 to 300 ms, and thousands
//! of deliveries are in flight.

use std::path::PathBuf;
use std::time::Duration;

use crate::contender::{Contender, Way};
use crate::machine::Machine;
use crate::tls::Tls;

use cases::{Distance, FarCase};
pub use line::FAR;
use line::Line;
use report::{CaseResult, Result as ContenderResult};
use slot::Bench;

mod cases;
mod client;
mod engine;
mod history;
mod line;
mod link;
mod namespace;
mod pipe;
mod report;
mod sinks;
mod slot;
mod tun;

/// How long a load of the short form lasts.
const SHORT: Duration = Duration::from_millis(500);

/// What is to be run.
pub struct Order<'o> {
    pub contenders: Vec<Contender>,
    pub cases: &'o [String],
    pub rounds: usize,
    pub is_quick: bool,
    /// Of the measured load.
    pub time: Duration,
    pub with_queues: bool,
    pub json: Option<&'o PathBuf>,
}

/// Where it is run.
pub struct Place<'p> {
    pub contender_cores: &'p [usize],
    pub own_cores: &'p [usize],
    pub folder: &'p std::path::Path,
    pub tls: &'p Tls,
}

/// Prints the table; gives whether everything that arrived was right.
pub fn compare(place: &Place<'_>, machine: &Machine, order: &Order<'_>) -> Result<bool, String> {
    allow_all_descriptors();
    let line = lay_line();
    if let Ok(congestion_control) = &line {
        println!("TCP with {congestion_control} over lines\n");
    }
    let bench = place.bench(order.time, false);
    let mut is_clean = true;
    let mut results = Vec::new();
    for case in cases::named(order.cases, order.is_quick) {
        let result = match &line {
            Err(reason) if matches!(case.distance, Distance::Line { .. }) => CaseResult {
                case,
                results: Vec::new(),
                skipped: Some(reason.clone()),
            },
            _ => run_case(&bench, case, order),
        };
        is_clean &= result.print(order.with_queues);
        results.push(result);
        if let Some(path) = order.json {
            // After each case, so that a run that is broken off leaves what it has.
            write_record(path, machine, order, line.as_deref().ok(), &results)?;
        }
    }
    Ok(is_clean)
}

/// A few requests over each distance, none of which may be lost or answered too early.
pub fn check(place: &Place<'_>, contenders: &[Contender]) -> Result<bool, String> {
    let line = lay_line();
    let bench = place.bench(SHORT, true);
    let mut is_clean = true;
    for case in cases::short() {
        let is_line = matches!(case.distance, Distance::Line { .. });
        if let (Err(reason), true) = (&line, is_line) {
            println!("{:<34} SKIPPED: {reason}", case.name);
            continue;
        }
        for contender in contenders
            .iter()
            .filter(|contender| takes(contender, &case))
        {
            let sample = bench.run(&case, contender);
            let sample =
                sample.map_err(|error| format!("{}, {}: {error}", case.name, contender.name))?;
            let fault = sample.fault(case.distance.round_trip());
            is_clean &= fault.is_none();
            let result = match fault {
                None => format!("all {} arrived, none too early", sample.summary.requests),
                Some(fault) => format!("NOT AS IT SHOULD BE: {fault}"),
            };
            println!("{:<34} {:<18} {result}", case.name, contender.name);
        }
    }
    Ok(is_clean)
}

impl<'p> Place<'p> {
    fn bench(&self, time: Duration, is_thorough: bool) -> Bench<'p> {
        Bench {
            contender_cores: self.contender_cores,
            own_cores: self.own_cores,
            folder: self.folder,
            tls: self.tls,
            warm_up: time.min(Duration::from_secs(3)),
            time,
            is_thorough,
        }
    }
}

/// Runs the contenders in turn, with another one first in each round.
fn run_case(bench: &Bench<'_>, case: FarCase, order: &Order<'_>) -> CaseResult {
    let takers = order
        .contenders
        .iter()
        .filter(|contender| takes(contender, &case));
    let mut results: Vec<ContenderResult> = takers
        .map(|contender| ContenderResult {
            contender: contender.clone(),
            samples: Vec::new(),
            failure: None,
        })
        .collect();
    let count = results.len();
    for round in 0..order.rounds {
        for turn in 0..count {
            let result = &mut results[(round + turn) % count];
            if result.failure.is_some() {
                continue;
            }
            match bench.run(&case, &result.contender) {
                Ok(sample) => result.samples.push(sample),
                Err(error) => result.failure = Some(error),
            }
        }
    }
    CaseResult {
        case,
        results,
        skipped: None,
    }
}

/// nginx opens a connection for each mirrored request, which uses up the local ports in seconds.
fn takes(contender: &Contender, case: &FarCase) -> bool {
    contender.way != Way::Nginx && contender.takes(&case.near)
}

/// Why no line can be laid here; otherwise how TCP behaves on it.
fn lay_line() -> Result<String, String> {
    let line = Line::lay(Duration::ZERO, 0.0);
    let _line = line.map_err(|error| format!("no line between two network namespaces: {error}"))?;
    Ok(namespace::congestion_control())
}

/// Thousands of connections are open here and in the contenders, which inherit this.
fn allow_all_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    // Without it a sink says that it could not accept.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    );
}

fn write_record(
    path: &PathBuf,
    machine: &Machine,
    order: &Order<'_>,
    congestion_control: Option<&str>,
    results: &[CaseResult],
) -> Result<(), String> {
    let record = serde_json::json!({
        "machine": machine.json(),
        "congestion_control_over_lines": congestion_control,
        "rounds": order.rounds,
        "seconds_per_slot": order.time.as_secs_f64(),
        "cases": results.iter().map(CaseResult::json).collect::<Vec<_>>(),
    });
    std::fs::write(path, format!("{record:#}\n"))
        .map_err(|error| format!("{}: {error}", path.display()))
}
