//! Arguments, configuration, log, run, exit code.
//!
//! Everything else is in the library, so that tests, benches and fuzzers can reach it.

use std::path::Path;
use std::process::ExitCode;

use sentry_mirror::cli::{Arguments, Command};
use sentry_mirror::config::Config;
use sentry_mirror::demo;
use sentry_mirror::health;
use sentry_mirror::logging;
use sentry_mirror::server::notify;
use sentry_mirror::server::plan::Plan;
use sentry_mirror::server::signals::{self, Request};
use sentry_mirror::server::supervisor::{Mirror, StartError};
use tracing::{error, info, warn};

/// The mirror cannot run.
const FAILED: u8 = 1;

/// The configuration is not usable.
const BAD_CONFIG: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::of_process();
    let result = match &arguments.command {
        Some(Command::Demo { once }) => demo::run(*once).map_err(|error| (FAILED, error)),
        Some(Command::Sink { listen }) => demo::sink(*listen).map_err(|error| (FAILED, error)),
        Some(Command::Health { config }) => ask_for_health(config).map_err(|error| (FAILED, error)),
        None => run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, message)) => {
            eprintln!("sentry-mirror: {message}");
            ExitCode::from(code)
        }
    }
}

/// Checks the configuration or runs the mirror until it is told to stop.
fn run(arguments: &Arguments) -> Result<(), (u8, String)> {
    let config = load(arguments).map_err(|errors| (BAD_CONFIG, errors))?;
    if arguments.check {
        Plan::new(&config, None).map_err(|error| (BAD_CONFIG, error))?;
        for warning in &config.warnings {
            eprintln!("warning: {warning}");
        }
        print!("{}", config.describe());
        return Ok(());
    }
    let log = logging::start(&config.log).map_err(|error| (BAD_CONFIG, error))?;
    for warning in &config.warnings {
        warn!("{warning}");
    }
    // Before the workers start, so that no signal finds the process without a handler.
    let signals = signals::listen().map_err(|error| (FAILED, error))?;
    let mut mirror =
        Mirror::start(&config).map_err(|error| (exit_code(&error), error.to_string()))?;
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
    if log.dropped_lines() > 0 {
        warn!(lines = log.dropped_lines(), "log lines were dropped");
    }
    Ok(())
}

/// Reads the configuration.
fn load(arguments: &Arguments) -> Result<Config, String> {
    let mut config =
        Config::load(&arguments.config, environment()).map_err(|errors| errors.to_string())?;
    if arguments.verbose {
        "debug".clone_into(&mut config.log.filter);
    }
    Ok(config)
}

/// Asks the mirror that runs with the configuration at `path`.
fn ask_for_health(path: &Path) -> Result<(), String> {
    let config = Config::load(path, environment()).map_err(|errors| errors.to_string())?;
    health::ask(&config)
}

/// Reads the configuration again and mirrors by it from now on; a bad one changes nothing.
fn reload(arguments: &Arguments, mirror: &mut Mirror) {
    let reloaded = load(arguments).and_then(|config| {
        for warning in &config.warnings {
            warn!("{warning}");
        }
        mirror.reload(&config).map_err(|error| error.to_string())
    });
    if let Err(error) = reloaded {
        error!("the configuration is not reloaded, the old one stays in force: {error}");
    }
}

/// The variables of the environment that are text; those of this program all are.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn exit_code(error: &StartError) -> u8 {
    match error {
        StartError::Config(_) => BAD_CONFIG,
        StartError::Bind(..) | StartError::System(..) | StartError::Worker(_) => FAILED,
    }
}
