//! Runs what the command line asks for: a configuration check, a health check, a trial, the demo, or the mirror
//! until a signal shuts it down.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::SystemTime;

use tracing::{error, info, warn};

use crate::admin::{Admin, Push};
use crate::cli::{Arguments, Command, ParityArguments, manual};
use crate::config::{Config, STANDARD_INPUT, json_schema, starter};
use crate::demo;
use crate::mirror::routing::routing_table::RoutingTable;
use crate::os_errors;
use crate::parity::command::{self as parity, Order};
use crate::process::certificates::Certificates;
use crate::process::health_check;
use crate::process::reload;
use crate::process::service_manager;
use crate::process::signals::{self, SignalAction};
use crate::process::supervisor::{Mirror, StartError};
use crate::sys;
use crate::telemetry::label::Label;
use crate::telemetry::lines::DropReason;
use crate::telemetry::log;
use crate::telemetry::self_report::Reports;
use crate::trial::connect;
use crate::trial::send::{self, RunningMirror};

/// Why the program failed, as a text for the operator.
#[derive(Debug)]
pub enum RunError {
    /// The configuration is invalid.
    Config(String),
    /// The mirror cannot run, or the health check found that it is unhealthy.
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
            StartError::Bind(_)
            | StartError::System(..)
            | StartError::Thread(_)
            | StartError::Worker(_) => RunError::Failed(error.to_string()),
        }
    }
}

/// # Errors
/// Why the program failed.
pub fn run(arguments: &Arguments) -> Result<(), RunError> {
    sys::keep_freed_memory();
    match &arguments.command {
        Some(Command::Demo { once }) => demo::run(*once).map_err(RunError::Failed),
        Some(Command::Sink(arguments)) => demo::sink(arguments).map_err(RunError::Failed),
        Some(Command::Test {
            config,
            route,
            direct,
        }) => test(config, route.as_deref(), *direct),
        Some(Command::Parity(arguments)) => compare(arguments),
        Some(Command::Health { config }) => {
            check_health(config.as_deref()).map_err(RunError::Failed)
        }
        Some(Command::Init {
            output,
            inbound,
            outbound,
        }) => init(output.as_deref(), inbound, outbound),
        Some(Command::Schema) => print(&json_schema()).map_err(RunError::Failed),
        Some(Command::Completions { shell }) => {
            print(&manual::completions(*shell)).map_err(RunError::Failed)
        }
        Some(Command::Man { subcommand }) => {
            let page = manual::page(subcommand.as_deref()).map_err(RunError::Config)?;
            print(&page).map_err(RunError::Failed)
        }
        None if arguments.check => check(arguments),
        None => mirror(arguments),
    }
}

/// Writes a first configuration to a new file or standard output.
fn init(output: Option<&Path>, inbound: &str, outbounds: &[String]) -> Result<(), RunError> {
    let text = starter(inbound, outbounds);
    let text = text.map_err(|errors| RunError::Config(errors.to_string()))?;
    let Some(path) = output else {
        return print(&text).map_err(RunError::Failed);
    };
    let write = || File::create_new(path)?.write_all(text.as_bytes());
    write().map_err(|error| RunError::Failed(format!("cannot write {}: {error}", path.display())))
}

/// Validates the configuration and prints its routes. With `--connect`, asks the outbounds.
fn check(arguments: &Arguments) -> Result<(), RunError> {
    let config = load(arguments)?;
    let table = RoutingTable::new(&config, 1, None).map_err(RunError::Config)?;
    for warning in &config.warnings {
        print_error(&format!("warning: {warning}"));
    }
    let certificates = Certificates::load(&config).map_err(RunError::Config)?;
    let expired = certificates.expired(SystemTime::now());
    if arguments.strict && !expired.is_empty() {
        return Err(RunError::Config(expired.join("\n")));
    }
    for expired in expired {
        print_error(&format!("warning: {expired}"));
    }
    let plan = config.describe() + &certificates.describe();
    print(&plan).map_err(RunError::Failed)?;
    if !arguments.connect {
        return Ok(());
    }
    let report = connect::connect(&table);
    print(&format!("\nasked each outbound\n{}", report.text)).map_err(RunError::Failed)?;
    match report.bad {
        0 => Ok(()),
        bad => Err(RunError::Failed(format!(
            "{bad} of {} outbounds do not accept",
            report.asked
        ))),
    }
}

/// Prints what the mirror and the organizations have counted, and why it differs.
fn compare(arguments: &ParityArguments) -> Result<(), RunError> {
    let config = Config::load(&arguments.config, environment())
        .map_err(|errors| RunError::Config(errors.to_string()))?;
    let table = RoutingTable::new(&config, 1, None).map_err(RunError::Config)?;
    let mut mirrors = arguments.mirror.clone();
    if mirrors.is_empty() {
        mirrors.extend(config.admin.map(health_check::reachable));
    }
    if mirrors.is_empty() {
        let message = "the configuration has `admin: off`; name the admin port with --mirror";
        return Err(RunError::Config(message.to_owned()));
    }
    let order = Order {
        since: arguments.since,
        tolerance: arguments.tolerance,
        is_json: arguments.json,
        mirrors,
    };
    let comparison = parity::run(&config, &table, &order).map_err(RunError::Failed)?;
    for warning in comparison.warnings {
        print_error(&format!("warning: {warning}"));
    }
    print(&comparison.text).map_err(RunError::Failed)?;
    match comparison.is_good {
        true => Ok(()),
        false => Err(RunError::Failed("a difference is not explained".to_owned())),
    }
}

/// Sends an error event, and prints what became of it.
fn test(path: &Path, route: Option<&str>, is_direct: bool) -> Result<(), RunError> {
    let config =
        Config::load(path, environment()).map_err(|errors| RunError::Config(errors.to_string()))?;
    let table = RoutingTable::new(&config, 1, None).map_err(RunError::Config)?;
    let index = send::find_route(&table, route).map_err(RunError::Config)?;
    let (Some(route), Some(configured)) = (table.routes.all().get(index), config.routes.get(index))
    else {
        return Ok(());
    };
    let report = match is_direct {
        true => send::direct(&table, route),
        false => {
            let mirror = RunningMirror {
                address: health_check::reachable(SocketAddr::new(config.ip, config.port)),
                admin: config.admin.map(health_check::reachable),
            };
            send::through(mirror, &configured.inbound, route).map_err(RunError::Failed)?
        }
    };
    print(&report.text).map_err(RunError::Failed)?;
    match report.is_good {
        true => Ok(()),
        false => Err(RunError::Failed(
            "the event did not arrive everywhere".to_owned(),
        )),
    }
}

fn mirror(arguments: &Arguments) -> Result<(), RunError> {
    // First of all, so that hardly any signal arrives without a handler. A signal that arrives during the
    // start is handled after it.
    let signals = signals::listen().map_err(RunError::Failed)?;
    let config = load(arguments)?;
    let reports = config.self_report.as_ref().map(Reports::start).transpose();
    let reports = reports.map_err(RunError::Failed)?;
    let log = log::start(&config.log, reports.as_ref()).map_err(RunError::Failed)?;
    for warning in &config.warnings {
        warn!("{warning}");
    }
    // Before the mirror, so that `/ready` can report that the mirror is still starting.
    let replaces = config.reuse_port;
    let admin = config.admin.map(|address| Admin::start(address, replaces));
    let admin = match admin.transpose() {
        Err(error) if config.admin_is_default => {
            warn!("the metrics and the status page are not available: {error}");
            None
        }
        admin => admin.map_err(RunError::Failed)?,
    };
    let mut mirror = Mirror::start_unless_stopping(&config, signals.is_stopping())?;
    let mirror_status = mirror.mirror_status();
    mirror_status.set_log(log.lines());
    info!(
        version = env!("CARGO_PKG_VERSION"),
        configuration = %arguments.config.display(),
        routes = config.routes.len(),
        workers = mirror_status.counters.len(),
        driver = mirror_status.driver(),
        "sentry-mirror has started"
    );
    let push = start_monitoring(&config, admin.as_ref(), &mirror)
        .map_err(|error| RunError::Failed(os_errors::thread_error(&error)))?;
    service_manager::ready();
    loop {
        match signals.next() {
            SignalAction::Reload => reload(arguments, &mut mirror),
            SignalAction::Shutdown(signal) => {
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
    if let Some(admin) = &admin {
        admin.finish();
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

/// Shows the mirror on the admin port and starts to push its metrics, as far as they are configured.
fn start_monitoring(
    config: &Config,
    admin: Option<&Admin>,
    mirror: &Mirror,
) -> io::Result<Option<Push>> {
    if let Some(admin) = admin {
        admin.show(mirror.mirror_status(), config.state_file.clone())?;
    }
    let target = config.statsd.clone();
    target
        .map(|target| Push::start(target, mirror.mirror_status()))
        .transpose()
}

/// Reads the configuration and applies `--verbose` and `--strict`.
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

/// Checks the mirror that runs with the configuration at `path`.
fn check_health(path: Option<&Path>) -> Result<(), String> {
    let environment: Vec<_> = environment().collect();
    let health = health_check::check(path, &environment);
    for warning in health.warnings {
        print_error(&format!("warning: {warning}"));
    }
    health.mirror
}

/// Reads the configuration again and applies it. An invalid one changes nothing.
fn reload(arguments: &Arguments, mirror: &mut Mirror) {
    let loaded = match arguments.config == Path::new(STANDARD_INPUT) {
        true => Err("it came from standard input, which is read only once".to_owned()),
        false => load(arguments).map_err(|error| error.to_string()),
    };
    let reloaded = loaded.and_then(|config| {
        for warning in &config.warnings {
            warn!("{warning}");
        }
        let changes = mirror.reload(&config).map_err(|error| error.to_string())?;
        reload::log_changes(&arguments.config, &changes, config.routes.len());
        Ok(())
    });
    if let Err(error) = reloaded {
        mirror.mirror_status().record_failed_reload();
        error!(%error, "the configuration is not reloaded, the old one stays in force");
    }
}

/// Writes `text` to standard output. A reader that closes early, such as `head`, is not an error.
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

/// Writes a line to standard error, if possible.
fn print_error(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// The environment variables that are valid UTF-8, as all variables of this program are.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}
