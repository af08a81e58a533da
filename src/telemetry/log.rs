//! The log on standard error, as text or JSON.
//!
//! A worker that waited for a full pipe would stall its core, so a thread of its own writes the lines from
//! a bounded queue. Lines that do not fit or cannot be written are dropped and counted.

use std::io::{self, Write};
use std::panic;

use tracing::error;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat};
use crate::os_errors;
use crate::runtime::panics;
use crate::telemetry::lines::{Lines, LinesGuard};
use crate::telemetry::self_report::Reports;
use crate::telemetry::words;

const QUEUE_BYTES_MAX: usize = 1024 * 1024;

/// The maximum length of a panic message in the log.
const PANIC_BYTES_MAX: usize = 1000;

/// The running log. Dropping it writes the queued lines.
pub(crate) struct Logging {
    _guard: LinesGuard,
    lines: Lines,
}

/// Starts the log, which also passes errors to `reports`, and logs panics instead of printing them.
///
/// # Errors
/// If the filter is invalid or no thread can be created, in words for an operator.
pub(crate) fn start(log: &Log, reports: Option<&Reports>) -> Result<Logging, String> {
    let filter = log.filter.parse::<Targets>().map_err(|error| {
        format!(
            "log_filter: `{}` is not a filter ({error}); expected a level such as `info`, or directives such as `info,sentry_mirror=debug`",
            log.filter
        )
    })?;
    // A failure of the log itself cannot be logged. It shows in `log_dropped_total`.
    let (lines, guard) = Lines::start("log", QUEUE_BYTES_MAX, io::stderr(), |_result| {})
        .map_err(|error| os_errors::thread_error(&error))?;
    let (writer, format) = (lines.clone(), log.format);
    let layers = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_target(false)
        .with_ansi(false)
        .with_writer(move || OneLine {
            lines: writer.clone(),
            format,
        });
    match log.format {
        LogFormat::Text => {
            let layers = layers.finish().with(filter);
            layers.with(reports.map(Reports::layer)).init();
        }
        LogFormat::Json => {
            let layers = layers.json().flatten_event(true).finish().with(filter);
            layers.with(reports.map(Reports::layer)).init();
        }
    }
    panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        error!(
            location = location.as_deref().unwrap_or("unknown"),
            panic = words::sanitized(
                panics::message(panic.payload()).as_bytes(),
                PANIC_BYTES_MAX,
                &[]
            ),
            "internal error, please report it"
        );
    }));
    Ok(Logging {
        _guard: guard,
        lines,
    })
}

/// Writes each log entry on one line and escapes what it contains, so that text from a peer can neither
/// forge an entry nor control a terminal.
struct OneLine {
    lines: Lines,
    format: LogFormat,
}

/// `tracing_subscriber` writes each entry with one call.
impl Write for OneLine {
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(entry.strip_suffix(b"\n").unwrap_or(entry));
        let escaped = match self.format {
            LogFormat::Text => words::escaped(&text),
            LogFormat::Json => words::escaped_json(&text),
        };
        self.lines.push(format!("{escaped}\n").as_bytes());
        Ok(entry.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Logging {
    /// The queue, which counts dropped lines.
    pub(crate) fn lines(&self) -> Lines {
        self.lines.clone()
    }
}
