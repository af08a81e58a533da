//! SIGTERM, SIGINT and SIGQUIT ask the process to stop, a second one to stop at once; SIGHUP asks it to read
//! its configuration again.
//!
//! As process 1 of a container a program without a handler ignores SIGTERM and is killed after the
//! grace period, with everything in flight.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing::warn;

use crate::os_errors;

/// How long the last log line is given to be written.
const LOG_PATIENCE: Duration = Duration::from_millis(100);

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// To stop, and the name of the signal.
    Stop(&'static str),
    /// To read the configuration again.
    Reload,
}

/// The requests made by signals.
pub(crate) struct Requests {
    arrived: mpsc::Receiver<Request>,
    is_stopping: Arc<AtomicBool>,
}

/// Begins to listen.
///
/// # Errors
/// The system refuses a handler or a thread.
pub(crate) fn listen() -> Result<Requests, String> {
    let named = |error: std::io::Error| format!("cannot listen for signals: {error}");
    let signals = Signals::new([SIGTERM, SIGINT, SIGQUIT, SIGHUP]).map_err(named)?;
    let (sender, arrived) = mpsc::channel();
    let is_stopping = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&is_stopping);
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || forward(signals, &sender, &told))
        .map_err(|error| os_errors::thread_error(&error))?;
    Ok(Requests {
        arrived,
        is_stopping,
    })
}

impl Requests {
    /// Waits for the next one.
    pub(crate) fn next(&self) -> Request {
        let end = Request::Stop("the end of the signal thread");
        self.arrived.recv().unwrap_or(end)
    }

    /// Becomes true with the first request to stop, also while nobody waits for one.
    pub(crate) fn is_stopping(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_stopping)
    }

    /// Waits for any of them, where there is no configuration to read: a terminal that is closed
    /// sends SIGHUP.
    pub(crate) fn wait_for_stop(&self) {
        self.next();
    }
}

fn forward(mut signals: Signals, requests: &mpsc::Sender<Request>, is_stopping: &AtomicBool) {
    for signal in signals.forever() {
        let request = match signal {
            SIGHUP => Request::Reload,
            SIGINT => Request::Stop("SIGINT"),
            SIGQUIT => Request::Stop("SIGQUIT"),
            _ => Request::Stop("SIGTERM"),
        };
        if let Request::Stop(name) = request
            && is_stopping.swap(true, Ordering::Relaxed)
        {
            warn!(signal = name, "asked a second time; stopping at once");
            // The thread that writes the log is not waited for by an exit.
            thread::sleep(LOG_PATIENCE);
            std::process::exit(128 + signal);
        }
        // Whoever listens no longer is stopping anyway.
        let _ = requests.send(request);
    }
}
