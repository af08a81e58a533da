//! Arguments, configuration, log, run, exit code.
//!
//! Everything else is in the library, so that tests, benches and fuzzers can reach it.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use sentry_mirror::admin::{Admin, Push};
use sentry_mirror::causes;
use sentry_mirror::cli::{Arguments, Command};
use sentry_mirror::config::{Config, STANDARD_INPUT};
use sentry_mirror::demo;
use sentry_mirror::health;
use sentry_mirror::logging;
use sentry_mirror::observe::label::Label;
use sentry_mirror::observe::lines::DropReason;
use sentry_mirror::reload;
use sentry_mirror::report::Reports;
use sentry_mirror::server::notify;
use sentry_mirror::server::plan::Plan;
use sentry_mirror::server::signals::{self, Request};
use sentry_mirror::server::supervisor::{Mirror, StartError};
use sentry_mirror::sys;
use tracing::{error, info, warn};

/// The mirror cannot run.
const FAILED: u8 = 1;

/// The configuration is not usable.
const BAD_CONFIG: u8 = 2;

fn main() -> ExitCode {
    sys::keep_freed_memory();
    let arguments = Arguments::of_process();
    let result = match &arguments.command {
        Some(Command::Demo { once }) => demo::run(*once).map_err(|error| (FAILED, error)),
        Some(Command::Sink { listen }) => demo::sink(*listen).map_err(|error| (FAILED, error)),
        Some(Command::Health { config }) => {
            ask_for_health(config.as_deref()).map_err(|error| (FAILED, error))
        }
        None => run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, message)) => {
            complain(&format!("sentry-mirror: {message}"));
            ExitCode::from(code)
        }
    }
}

/// Checks the configuration or runs the mirror until it is told to stop.
fn run(arguments: &Arguments) -> Result<(), (u8, String)> {
    if arguments.check {
        let config = load(arguments).map_err(|errors| (BAD_CONFIG, errors))?;
        Plan::new(&config, 1, None).map_err(|error| (BAD_CONFIG, error))?;
        for warning in &config.warnings {
            complain(&format!("warning: {warning}"));
        }
        return print(&config.describe()).map_err(|error| (FAILED, error));
    }
    // Before all else, so that hardly any signal finds the process without a handler. One that comes before
    // the mirror has started is heard then.
    let signals = signals::listen().map_err(|error| (FAILED, error))?;
    let config = load(arguments).map_err(|errors| (BAD_CONFIG, errors))?;
    let reports = config.self_report.as_ref().map(Reports::start).transpose();
    let reports = reports.map_err(|error| (FAILED, error))?;
    let log = logging::start(&config.log, reports.as_ref()).map_err(|error| (FAILED, error))?;
    for warning in &config.warnings {
        warn!("{warning}");
    }
    // Before the mirror, so that `/ready` can say that it is not there yet.
    let follows = config.reuse_port;
    let admin = config.admin.map(|address| Admin::start(address, follows));
    let admin = match admin.transpose() {
        Err(error) if config.admin_is_default => {
            warn!("there are no metrics and no status page: {error}");
            None
        }
        admin => admin.map_err(|error| (FAILED, error))?,
    };
    let mut mirror = Mirror::start_unless_stopping(&config, signals.is_stopping())
        .map_err(|error| (exit_code(&error), error.to_string()))?;
    let sight = mirror.sight();
    sight.logs_to(log.lines());
    info!(
        version = env!("CARGO_PKG_VERSION"),
        configuration = %arguments.config.display(),
        routes = config.routes.len(),
        workers = sight.counters.len(),
        driver = sight.driver(),
        "sentry-mirror has started"
    );
    let push = show(&config, admin.as_ref(), &mirror)
        .map_err(|error| (FAILED, causes::of_thread(&error)))?;
    notify::ready();
    loop {
        match signals.next() {
            Request::Reload => reload(arguments, &mut mirror),
            Request::Stop(signal) => {
                info!(signal, "stopping: finishing what is in flight");
                notify::stopping();
                mirror.stop();
                break;
            }
        }
    }
    if let Some(push) = push {
        push.finish();
    }
    if let Some(reports) = reports {
        reports.flush();
    }
    let lines: u64 = DropReason::ALL
        .iter()
        .map(|reason| log.lines().dropped(*reason))
        .sum();
    if lines > 0 {
        warn!(lines, "log lines were dropped");
    }
    Ok(())
}

/// Lets the mirror be seen wherever the configuration says.
fn show(config: &Config, admin: Option<&Admin>, mirror: &Mirror) -> io::Result<Option<Push>> {
    if let Some(admin) = admin {
        admin.show(mirror.sight())?;
    }
    let target = config.statsd.clone();
    target
        .map(|target| Push::start(target, mirror.sight()))
        .transpose()
}

/// Reads the configuration.
fn load(arguments: &Arguments) -> Result<Config, String> {
    let mut config =
        Config::load(&arguments.config, environment()).map_err(|errors| errors.to_string())?;
    if arguments.verbose {
        "debug".clone_into(&mut config.log.filter);
    }
    if arguments.strict && !config.warnings.is_empty() {
        return Err(format!(
            "{}\nwith --strict these warnings are errors",
            config.warnings.join("\n")
        ));
    }
    Ok(config)
}

/// Asks the mirror that runs with the configuration at `path`.
fn ask_for_health(path: Option<&Path>) -> Result<(), String> {
    let environment: Vec<_> = environment().collect();
    let health = health::ask(path, &environment);
    for complaint in health.complaints {
        complain(&format!("warning: {complaint}"));
    }
    health.mirror
}

/// Reads the configuration again and mirrors by it from now on; a bad one changes nothing.
fn reload(arguments: &Arguments, mirror: &mut Mirror) {
    let again = match arguments.config == Path::new(STANDARD_INPUT) {
        true => Err("it came from standard input, which is read only once".to_owned()),
        false => load(arguments),
    };
    let reloaded = again.and_then(|config| {
        for warning in &config.warnings {
            warn!("{warning}");
        }
        let changes = mirror.reload(&config).map_err(|error| error.to_string())?;
        reload::tell(&arguments.config, &changes, config.routes.len());
        Ok(())
    });
    if let Err(error) = reloaded {
        mirror.sight().reload_failed();
        error!(%error, "the configuration is not reloaded, the old one stays in force");
    }
}

/// Writes `text` to standard output. A reader that has seen enough, such as `head`, is no failure.
fn print(text: &str) -> Result<(), String> {
    let mut output = io::stdout().lock();
    match output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("cannot write to standard output: {error}"))
        }
        _ => Ok(()),
    }
}

/// Writes a line to standard error, if that can be written to.
fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// The variables of the environment that are text; those of this program all are.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn exit_code(error: &StartError) -> u8 {
    match error {
        StartError::Config(_) => BAD_CONFIG,
        StartError::Bind(..)
        | StartError::System(..)
        | StartError::Thread(_)
        | StartError::Worker(_) => FAILED,
    }
}
