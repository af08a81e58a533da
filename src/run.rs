//! The program behind the command line: it checks the configuration, or runs the mirror until a signal
//! stops it.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;

use tracing::{error, info, warn};

use crate::admin::{Admin, Push};
use crate::cli::{Arguments, Command};
use crate::config::{Config, STANDARD_INPUT};
use crate::demo;
use crate::mirror::routing_table::RoutingTable;
use crate::os_errors;
use crate::process::health_check;
use crate::process::reload;
use crate::process::service_manager;
use crate::process::signals::{self, Request};
use crate::process::supervisor::{Mirror, StartError};
use crate::sys;
use crate::telemetry::label::Label;
use crate::telemetry::lines::DropReason;
use crate::telemetry::log;
use crate::telemetry::self_report::Reports;

/// Why the program ends before it was asked to. The text is for the operator.
#[derive(Debug)]
pub enum RunError {
    /// The configuration cannot be used.
    Config(String),
    /// The mirror cannot run, or the one that was asked about is not well.
    Failed(String),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Config(message) | RunError::Failed(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for RunError {}

impl From<StartError> for RunError {
    fn from(error: StartError) -> RunError {
        match error {
            StartError::Config(_) => RunError::Config(error.to_string()),
            StartError::Bind(..)
            | StartError::System(..)
            | StartError::Thread(_)
            | StartError::Worker(_) => RunError::Failed(error.to_string()),
        }
    }
}

/// Does what the command line asks for.
///
/// # Errors
/// Why it cannot, or could not go on.
pub fn run(arguments: &Arguments) -> Result<(), RunError> {
    sys::keep_freed_memory();
    match &arguments.command {
        Some(Command::Demo { once }) => demo::run(*once).map_err(RunError::Failed),
        Some(Command::Sink { listen }) => demo::sink(*listen).map_err(RunError::Failed),
        Some(Command::Health { config }) => {
            ask_for_health(config.as_deref()).map_err(RunError::Failed)
        }
        None if arguments.check => check(arguments),
        None => mirror(arguments),
    }
}

/// Prints the routes of a configuration that can be used.
fn check(arguments: &Arguments) -> Result<(), RunError> {
    let config = load(arguments)?;
    RoutingTable::new(&config, 1, None).map_err(RunError::Config)?;
    for warning in &config.warnings {
        complain(&format!("warning: {warning}"));
    }
    print(&config.describe()).map_err(RunError::Failed)
}

/// Runs the mirror until it is told to stop.
fn mirror(arguments: &Arguments) -> Result<(), RunError> {
    // Before all else, so that hardly any signal finds the process without a handler. One that comes before
    // the mirror has started is heard then.
    let signals = signals::listen().map_err(RunError::Failed)?;
    let config = load(arguments)?;
    let reports = config.self_report.as_ref().map(Reports::start).transpose();
    let reports = reports.map_err(RunError::Failed)?;
    let log = log::start(&config.log, reports.as_ref()).map_err(RunError::Failed)?;
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
        admin => admin.map_err(RunError::Failed)?,
    };
    let mut mirror = Mirror::start_unless_stopping(&config, signals.is_stopping())?;
    let mirror_status = mirror.mirror_status();
    mirror_status.logs_to(log.lines());
    info!(
        version = env!("CARGO_PKG_VERSION"),
        configuration = %arguments.config.display(),
        routes = config.routes.len(),
        workers = mirror_status.counters.len(),
        driver = mirror_status.driver(),
        "sentry-mirror has started"
    );
    let push = show(&config, admin.as_ref(), &mirror)
        .map_err(|error| RunError::Failed(os_errors::thread_error(&error)))?;
    service_manager::ready();
    loop {
        match signals.next() {
            Request::Reload => reload(arguments, &mut mirror),
            Request::Stop(signal) => {
                info!(signal, "stopping: finishing what is in flight");
                service_manager::stopping();
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
        admin.show(mirror.mirror_status())?;
    }
    let target = config.statsd.clone();
    target
        .map(|target| Push::start(target, mirror.mirror_status()))
        .transpose()
}

/// Reads the configuration.
fn load(arguments: &Arguments) -> Result<Config, RunError> {
    let mut config = Config::load(&arguments.config, environment())
        .map_err(|errors| RunError::Config(errors.to_string()))?;
    if arguments.verbose {
        "debug".clone_into(&mut config.log.filter);
    }
    if arguments.strict && !config.warnings.is_empty() {
        return Err(RunError::Config(format!(
            "{}\nwith --strict these warnings are errors",
            config.warnings.join("\n")
        )));
    }
    Ok(config)
}

/// Asks the mirror that runs with the configuration at `path`.
fn ask_for_health(path: Option<&Path>) -> Result<(), String> {
    let environment: Vec<_> = environment().collect();
    let health = health_check::check(path, &environment);
    for warning in health.warnings {
        complain(&format!("warning: {warning}"));
    }
    health.mirror
}

/// Reads the configuration again and mirrors by it from now on; a bad one changes nothing.
fn reload(arguments: &Arguments, mirror: &mut Mirror) {
    let again = match arguments.config == Path::new(STANDARD_INPUT) {
        true => Err("it came from standard input, which is read only once".to_owned()),
        false => load(arguments).map_err(|error| error.to_string()),
    };
    let reloaded = again.and_then(|config| {
        for warning in &config.warnings {
            warn!("{warning}");
        }
        let changes = mirror.reload(&config).map_err(|error| error.to_string())?;
        reload::log_changes(&arguments.config, &changes, config.routes.len());
        Ok(())
    });
    if let Err(error) = reloaded {
        mirror.mirror_status().reload_failed();
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
