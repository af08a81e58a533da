//! Log lines: text or JSON, to standard error, never from a thread that could be blocked by it.
//!
//! A worker that waited for a full pipe would stop its core. So lines go to a thread of their own
//! through a bounded queue, and what does not fit is dropped; the number of dropped lines is told
//! at the end.

use std::panic;

use tracing::error;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat};
use crate::panics;
use crate::report::Reports;

/// Keeps the log alive; dropping it writes what is still queued.
pub struct Logging {
    _writer: WorkerGuard,
    dropped: ErrorCounter,
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
    let (writer, guard) = NonBlocking::new(std::io::stderr());
    let dropped = writer.error_counter();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(false)
        .with_writer(writer);
    match log.format {
        LogFormat::Text => lines.finish().with(reports.map(Reports::layer)).init(),
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).finish();
            lines.with(reports.map(Reports::layer)).init();
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
        _writer: guard,
        dropped,
    })
}

impl Logging {
    /// How many lines were dropped because nobody read them fast enough.
    pub fn dropped_lines(&self) -> usize {
        self.dropped.dropped_lines()
    }
}
