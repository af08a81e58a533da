//! Log lines: text or JSON, to standard error, never from a thread that could be blocked by it.
//!
//! A worker that waited for a full pipe would stop its core. So lines go to a thread of their own
//! through a bounded queue. What does not fit, or cannot be written, is dropped and counted.

use std::{io, panic};

use tracing::error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::causes;
use crate::config::{Log, LogFormat};
use crate::observe::lines::{Lines, LinesGuard};
use crate::panics;
use crate::report::Reports;

/// The bytes of lines that may wait to be written.
const QUEUE_BYTES_MAX: usize = 1024 * 1024;

/// Keeps the log alive; dropping it writes what is still queued.
pub struct Logging {
    _guard: LinesGuard,
    lines: Lines,
}

/// Starts to log as `log` says, with errors going to `reports` too, and makes panics a log line instead
/// of loose text.
///
/// # Errors
/// What is wrong with the filter.
pub fn start(log: &Log, reports: Option<&Reports>) -> Result<Logging, String> {
    let filter = EnvFilter::try_new(&log.filter).map_err(|error| {
        format!(
            "log_filter: `{}` is not a filter ({error}); expected a level such as `info`, or directives such as `info,sentry_mirror=debug`",
            log.filter
        )
    })?;
    // Where the log cannot be written there is no place to say so: the count has to do.
    let (lines, guard) = Lines::start("log", QUEUE_BYTES_MAX, io::stderr(), |_result| {})
        .map_err(|error| causes::of_thread(&error))?;
    let writer = lines.clone();
    let layers = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(false)
        .with_writer(move || writer.clone());
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
            panic = panics::message(panic.payload()),
            "internal error, please report it"
        );
    }));
    Ok(Logging {
        _guard: guard,
        lines,
    })
}

impl Logging {
    /// The way to it, for those who look how much was dropped.
    pub fn lines(&self) -> Lines {
        self.lines.clone()
    }
}
