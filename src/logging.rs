//! Log lines: text or JSON, to standard error, never from a thread that could be blocked by it.
//!
//! A worker that waited for a full pipe would stop its core. So lines go to a thread of their own
//! through a bounded queue. What does not fit, or cannot be written, is dropped and counted.

use std::io::{self, Write};
use std::panic;

use tracing::error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::causes;
use crate::config::{Log, LogFormat};
use crate::observe::lines::{Lines, LinesGuard};
use crate::observe::words;
use crate::panics;
use crate::report::Reports;

/// The bytes of lines that may wait to be written.
const QUEUE_BYTES_MAX: usize = 1024 * 1024;

/// How much is logged of what a panic says.
const PANIC_BYTES_MAX: usize = 1000;

/// Keeps the log alive; dropping it writes what is still queued.
pub(crate) struct Logging {
    _guard: LinesGuard,
    lines: Lines,
}

/// Starts to log as `log` says, with errors going to `reports` too, and makes panics a log line instead
/// of loose text.
///
/// # Errors
/// What is wrong with the filter.
pub(crate) fn start(log: &Log, reports: Option<&Reports>) -> Result<Logging, String> {
    let filter = EnvFilter::try_new(&log.filter).map_err(|error| {
        format!(
            "log_filter: `{}` is not a filter ({error}); expected a level such as `info`, or directives such as `info,sentry_mirror=debug`",
            log.filter
        )
    })?;
    // Where the log cannot be written there is no place to say so: the count has to do.
    let (lines, guard) = Lines::start("log", QUEUE_BYTES_MAX, io::stderr(), |_result| {})
        .map_err(|error| causes::thread_error(&error))?;
    let (writer, format) = (lines.clone(), log.format);
    let layers = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(false)
        .with_writer(move || OneLine {
            lines: writer.clone(),
            format,
        });
    match log.format {
        LogFormat::Text => layers.finish().with(reports.map(Reports::layer)).init(),
        LogFormat::Json => {
            let layers = layers.json().flatten_event(true).finish();
            layers.with(reports.map(Reports::layer)).init();
        }
    }
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        error!(
            place = place.as_deref().unwrap_or("unknown"),
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

/// Writes each entry of the log on one line, whatever is in it: nobody can add an entry to the log, or
/// control the terminal that shows it.
struct OneLine {
    lines: Lines,
    format: LogFormat,
}

/// Each call is one entry.
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
    /// The way to it, for those who look how much was dropped.
    pub(crate) fn lines(&self) -> Lines {
        self.lines.clone()
    }
}
