//! The same upstream exchange through the mirror's own client and through its alternatives.
//!
//! monoio-http and monoio-http-client are the obvious crates for this work, but are not in the data path. This
//! program keeps the reasons checkable: their cost, and their behaviour when an upstream misbehaves. It is a
//! separate package, so that they stay out of the mirror's lock file.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use monoio::net::TcpStream;

use crate::check::Finding;
use crate::machine::Role;
use crate::measure::{CONNECTIONS, SIZES};
use crate::report::Report;

mod check;
mod machine;
mod measure;
mod report;
mod sink;
mod ways;

/// Runs one upstream exchange through several HTTP clients: first whether they are sound, then what
/// they cost.
#[derive(Parser)]
struct Arguments {
    /// Only check, do not measure.
    #[arg(long)]
    check: bool,

    /// Also write all samples to this file.
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    json: Option<PathBuf>,

    /// Samples of each way and size.
    #[arg(long, value_name = "COUNT", default_value = "120")]
    rounds: NonZeroUsize,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode, String> {
    // A thread inherits the cores of the thread that starts it, so the sink starts first.
    let core_count = machine::core_count()?;
    let upstream = sink::start()?;
    let mut runtime = machine::runtime(Role::Client)?;
    let machine = machine::describe(core_count, &runtime.kind);
    println!("{machine}\n");

    let findings = runtime.block_on(check::check(upstream));
    print_findings(&findings);
    if !findings.iter().all(Finding::is_expected) {
        eprintln!("error: a client does not behave as benches/exchange/README.md says");
        return Ok(ExitCode::FAILURE);
    }
    if arguments.check {
        return Ok(ExitCode::SUCCESS);
    }

    let mut results = Vec::new();
    for size in &SIZES {
        let measured = measure::measure(upstream, size, arguments.rounds.get());
        results.push((size, runtime.block_on(measured)?));
    }
    let report = Report::new(&results);
    println!(
        "CPU time of the client's thread per exchange; {CONNECTIONS} connections, {} samples\n",
        arguments.rounds
    );
    report.print();
    if let Some(path) = &arguments.json {
        let text = format!("{:#}\n", report.json(&machine, &findings));
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print_findings(findings: &[Finding]) {
    for of_scenario in findings.chunk_by(|one, next| one.scenario == next.scenario) {
        if let [first, ..] = of_scenario {
            println!("{}", first.scenario);
        }
        for finding in of_scenario {
            println!("{finding}");
        }
    }
}

/// A connection as all ways use it: with `TCP_NODELAY`.
async fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect_addr(address).await;
    let stream = stream.map_err(|error| format!("cannot connect: {error}"))?;
    stream
        .set_nodelay(true)
        .map_err(|error| error.to_string())?;
    Ok(stream)
}
