//! Runs the release binary of the mirror under load for a while, and fails if it does not keep what it
//! promises.
//!
//! It is a client, two upstreams and a watcher in one process, and shares the machine with the mirror;
//! so it is written to be cheap: blocking threads, requests made once and sent many times, upstreams that
//! read a head and skip a body. Every request has a number in a header field, which the mirror passes
//! on, and each side marks it in a table. What was promised and what arrived are compared at the end.

mod client;
mod crowd;
mod flood;
mod mirror;
mod mix;
mod sink;
mod steady;
mod tally;

use std::process::ExitCode;
use std::time::Duration;

/// What a case has to say: lines for a note, or what went wrong.
type Outcome = Result<Vec<String>, String>;

const USAGE: &str = "usage: run [MINUTES [steady | crowd | flood]...]";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let minutes = arguments.next().unwrap_or_else(|| "10".to_owned());
    let Ok(minutes) = minutes.parse::<f64>() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let mut cases: Vec<String> = arguments.collect();
    if cases.is_empty() {
        cases = ["steady", "crowd", "flood"].map(str::to_owned).to_vec();
    }
    mirror::raise_descriptor_limit();
    let mut is_fine = true;
    for case in cases {
        println!("== {case}");
        let outcome = match case.as_str() {
            "steady" => steady::run(Duration::from_secs_f64(minutes * 60.0)),
            "crowd" => crowd::run(),
            "flood" => flood::run(),
            _ => Err(USAGE.to_owned()),
        };
        match outcome {
            Ok(lines) => lines.iter().for_each(|line| println!("{line}")),
            Err(fault) => {
                println!("FAILED: {fault}");
                is_fine = false;
            }
        }
    }
    if is_fine {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
