//! Compares sentry-mirror with its alternatives: one command, one machine, one run.
//!
//! It builds the mirror and a tokio implementation of the same job, and adds nginx if it is installed and a
//! floor that only moves bytes. They alternate in every case: the contender on one core, clients and upstreams
//! on the other. The claims are the ratios; they hold on a machine that is not quiet, since the slots of a
//! round follow each other at once.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::cases::Case;
use crate::contender::{Contender, Way};
use crate::machine::Machine;
use crate::report::CaseResult;
use crate::slot::{Bench, Plan};
use crate::tls::Tls;

mod audience;
mod cases;
mod contender;
mod engine;
mod far;
mod floor;
mod kernel;
mod lane;
mod ledger;
mod machine;
mod nginx;
mod report;
mod sink;
mod sink_http2;
mod slot;
mod stats;
mod tls;
mod wire;

/// Compares sentry-mirror with a tokio build, nginx, a floor, and any binary of yours.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,

    /// Rounds of each case: 7, or 3 with --far.
    #[arg(long, value_name = "COUNT")]
    rounds: Option<usize>,

    /// Seconds of each load of a slot: 3, or 12 with --cost, so that it includes a push to statsd, or 10 with
    /// --far.
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,

    /// Run only the cases whose names contain one of these; separated by semicolons.
    #[arg(long, value_name = "TEXT", value_delimiter = ';')]
    cases: Vec<String>,

    /// Add another binary, which takes `-c FILE` with the same configuration.
    #[arg(long, value_name = "BIN")]
    peer: Vec<PathBuf>,

    /// Leave out contenders whose names contain one of these; separated by semicolons.
    #[arg(long, value_name = "TEXT", value_delimiter = ';')]
    without: Vec<String>,

    /// Run the far-away cases instead.
    #[arg(long, conflicts_with = "cost")]
    far: bool,

    /// Also print how many requests were in flight every 250 ms, with --far.
    #[arg(long, requires = "far")]
    queues: bool,

    /// Add an earlier build of the mirror.
    #[arg(long, value_name = "BIN")]
    before: Vec<PathBuf>,

    /// Add the mirror with further lines of configuration, such as `driver: epoll`.
    #[arg(long, value_name = "YAML")]
    variant: Vec<String>,

    /// Compare the mirror with itself while its metrics are scraped and its access log is written.
    #[arg(long)]
    cost: bool,

    /// Run one round of half a second; with --far one of four seconds, and fewer cases.
    #[arg(long)]
    quick: bool,

    /// Only check that every contender mirrors and rewrites.
    #[arg(long)]
    check: bool,

    /// Write a record to this file, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Use the mirror binary that was built before.
    #[arg(long, value_name = "BIN")]
    mirror: Option<PathBuf>,

    /// Use the tokio build that was built before.
    #[arg(long, value_name = "BIN")]
    tokio: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Role {
    /// Run the floor; used by the comparison itself.
    #[command(hide = true)]
    Floor {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        upstream: Vec<SocketAddr>,
        #[arg(long)]
        inflate: bool,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.role {
        Some(Role::Floor {
            listen,
            upstream,
            inflate,
        }) => floor::run(listen, upstream, inflate).map(|()| true),
        None => compare(&arguments),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("error: not every sink got every request once and rewritten");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(arguments: &Arguments) -> Result<bool, String> {
    let cores = kernel::cores()?;
    let contenders = contenders(arguments)?;
    let (first, last) = match cores.as_slice() {
        [first, .., last] => (*first, *last),
        _ => {
            return Err("this needs two cores: one for the contender, one for the load".to_owned());
        }
    };
    let folder = slot::folder()?;
    let (time, rounds) = extent(arguments);
    let bench = Bench {
        contender_cores: vec![first],
        all_cores: vec![first, last],
        own_cores: vec![last],
        tls: Tls::new(&folder)?,
        folder,
        time,
    };
    let machine = Machine::describe(cores.len());
    println!("{}\n", machine.line());
    kernel::bind(&bench.own_cores)?;

    let far = far::Place {
        contender_cores: &bench.contender_cores,
        own_cores: &bench.own_cores,
        folder: &bench.folder,
        tls: &bench.tls,
    };
    let is_clean = if arguments.check {
        check_all(&bench, &far, arguments, &contenders)
    } else if arguments.far {
        let order = far::Order {
            contenders,
            cases: &arguments.cases,
            rounds,
            is_quick: arguments.quick,
            time,
            with_queues: arguments.queues,
            json: arguments.json.as_ref(),
        };
        far::compare(&far, &machine, &order)
    } else {
        run_all(&bench, &machine, arguments, &contenders, rounds)
    };
    // Nothing in the folder is of use any more.
    let _ = std::fs::remove_dir_all(&bench.folder);
    is_clean
}

/// The near cases, and without a choice of them the short form of the far ones, too.
fn check_all(
    bench: &Bench,
    far: &far::Place<'_>,
    arguments: &Arguments,
    contenders: &[Contender],
) -> Result<bool, String> {
    let mut is_clean = true;
    if !arguments.far {
        for case in cases::named(&arguments.cases) {
            is_clean &= check(bench, &case, contenders)?;
        }
    }
    if arguments.far || arguments.cases.is_empty() {
        is_clean &= far::check(far, contenders)?;
    }
    Ok(is_clean)
}

fn run_all(
    bench: &Bench,
    machine: &Machine,
    arguments: &Arguments,
    contenders: &[Contender],
    rounds: usize,
) -> Result<bool, String> {
    let mut results = Vec::new();
    let mut is_clean = true;
    for case in cases::named(&arguments.cases) {
        let result = run_case(bench, case, contenders, rounds);
        is_clean &= result.print();
        results.push(result);
    }
    if let Some(path) = &arguments.json {
        let record = report::record(machine, rounds, bench.time.as_secs_f64(), &results);
        let text = format!("{record:#}\n");
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(is_clean)
}

/// The time of a load and the number of rounds.
fn extent(arguments: &Arguments) -> (Duration, usize) {
    let (seconds, rounds) = match arguments {
        Arguments { quick, far, .. } if *quick => (if *far { 4.0 } else { 0.5 }, 1),
        Arguments { far: true, .. } => (10.0, 3),
        Arguments { cost: true, .. } => (12.0, 7),
        _ => (3.0, 7),
    };
    let seconds = arguments.seconds.unwrap_or(seconds);
    (
        Duration::from_secs_f64(seconds),
        arguments.rounds.unwrap_or(rounds),
    )
}

/// Runs the contenders in turn, with another one first in each round.
fn run_case(bench: &Bench, case: Case, contenders: &[Contender], rounds: usize) -> CaseResult {
    let takes = |contender: &&Contender| contender.takes(&case);
    let mut results: Vec<report::Result> = contenders
        .iter()
        .filter(takes)
        .map(|contender| report::Result {
            contender: contender.clone(),
            samples: Vec::new(),
            failure: None,
        })
        .collect();
    // All get the same load: half of what the slowest can do.
    let mut slowest = f64::INFINITY;
    for result in &mut results {
        match bench.run(&case, &result.contender, Plan::default()) {
            Ok(sample) => slowest = slowest.min(sample.throughput),
            Err(error) => result.failure = Some(error),
        }
    }
    let rate = slowest.is_finite().then_some(slowest / 2.0);

    let count = results.len();
    for round in 0..rounds {
        for turn in 0..count {
            let result = &mut results[(round + turn) % count];
            if result.failure.is_some() {
                continue;
            }
            let plan = Plan {
                rate,
                counts_syscalls: round == 0,
                is_check: false,
            };
            match bench.run(&case, &result.contender, plan) {
                Ok(sample) => result.samples.push(sample),
                Err(error) => result.failure = Some(error),
            }
        }
    }
    CaseResult {
        case,
        rate,
        results,
    }
}

fn check(bench: &Bench, case: &Case, contenders: &[Contender]) -> Result<bool, String> {
    // Neither sends requests that the others do not.
    if case.idle > 0 || case.workers > 1 {
        return Ok(true);
    }
    let plan = Plan {
        is_check: true,
        ..Plan::default()
    };
    let mut is_clean = true;
    for contender in contenders.iter().filter(|contender| contender.takes(case)) {
        let sample = bench.run(case, contender, plan);
        let sample =
            sample.map_err(|error| format!("{}, {}: {error}", case.name, contender.name))?;
        let result = match &sample.verdict {
            verdict if verdict.is_clean() => format!("all {} arrived", sample.requests),
            verdict => format!(
                "NOT AS IT SHOULD BE: {}",
                verdict.complaint.as_deref().unwrap_or("")
            ),
        };
        let ability = contender.ability().words();
        println!(
            "{:<34} {:<18} {result}, rewritten: {ability}",
            case.name, contender.name
        );
        is_clean &= sample.verdict.is_clean();
    }
    Ok(is_clean)
}

/// The contenders; the mirror is the first.
fn contenders(arguments: &Arguments) -> Result<Vec<Contender>, String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.join("../..");
    let mirror = match &arguments.mirror {
        Some(binary) => binary.clone(),
        None => {
            build(&root, "sentry-mirror")?;
            root.join("target/release/sentry-mirror")
        }
    };
    let mut contenders = if arguments.cost {
        against_watched(&mirror)
    } else {
        against_others(here, mirror.clone(), arguments.tokio.clone())?
    };
    let variants = arguments.variant.iter();
    let mirror = Contender::new("sentry-mirror", Way::Mirror(mirror));
    let others: Vec<Contender> = variants
        .map(|settings| mirror.with(settings))
        .chain(arguments.before.iter().map(|binary| earlier(binary)))
        .collect();
    contenders.splice(1..1, others);
    for peer in &arguments.peer {
        let name = peer
            .file_name()
            .unwrap_or(peer.as_os_str())
            .to_string_lossy();
        contenders.push(Contender::new(&name, Way::Mirror(peer.clone())));
    }
    contenders.retain(|contender| {
        !arguments
            .without
            .iter()
            .any(|part| contender.name.contains(part.as_str()))
    });
    Ok(contenders)
}

/// An earlier build, named by its file and folder.
fn earlier(binary: &Path) -> Contender {
    let parts = binary.components().rev().take(2).collect::<Vec<_>>();
    let parts = parts
        .iter()
        .rev()
        .map(|part| part.as_os_str().to_string_lossy());
    let name = parts.collect::<Vec<_>>().join("/");
    Contender::new(&name, Way::Mirror(binary.to_owned()))
}

fn against_others(
    here: &Path,
    mirror: PathBuf,
    tokio: Option<PathBuf>,
) -> Result<Vec<Contender>, String> {
    let tokio = match tokio {
        Some(binary) => binary,
        None => {
            build(here, "tokio-mirror")?;
            here.join("target/release/tokio-mirror")
        }
    };
    let mirror = Contender::new("sentry-mirror", Way::Mirror(mirror));
    let tokio = Contender::new("tokio build", Way::Mirror(tokio));
    let mut contenders = vec![
        mirror.clone(),
        mirror.over_http2(),
        mirror.spared(),
        tokio.clone(),
        tokio.over_http2(),
        Contender::new("floor", Way::Floor { inflate: false }),
        Contender::new("floor and inflate", Way::Floor { inflate: true }),
    ];
    if nginx::version().is_some() {
        contenders.push(Contender::new("nginx", Way::Nginx));
    }
    Ok(contenders)
}

/// The mirror alone, then with scrapes and pushes of its metrics, then with an access log, too.
fn against_watched(mirror: &Path) -> Vec<Contender> {
    let watched = |logs| Way::Watched {
        mirror: mirror.to_owned(),
        logs,
    };
    vec![
        Contender::new("sentry-mirror", Way::Mirror(mirror.to_owned())),
        Contender::new("all told", watched(false)),
        Contender::new("with access log", watched(true)),
    ]
}

/// Builds a binary of the package in `folder`.
fn build(folder: &Path, binary: &str) -> Result<(), String> {
    let mut command = Command::new("cargo");
    command.args(["build", "--release", "--locked", "--bin", binary]);
    command
        .arg("--manifest-path")
        .arg(folder.join("Cargo.toml"));
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("cargo could not build {binary}: {status}")),
        Err(error) => Err(format!("cannot run cargo: {error}")),
    }
}
