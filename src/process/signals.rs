//! SIGTERM, SIGINT and SIGQUIT shut the process down; a second one ends it immediately. SIGHUP reloads the
//! configuration.
//!
//! As process 1 of a container, a program without a handler ignores SIGTERM. It is killed after the grace
//! period, with everything in flight.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing::warn;

use crate::os_errors;

/// How long an immediate exit sleeps, to give the log time to write its last line.
const LOG_FLUSH_TIME: Duration = Duration::from_millis(100);

/// What a signal requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignalAction {
    /// A shutdown, with the name of the signal.
    Shutdown(&'static str),
    /// A reload of the configuration.
    Reload,
}

/// Receives the signals of the process.
pub(crate) struct SignalReceiver {
    actions: mpsc::Receiver<SignalAction>,
    is_stopping: Arc<AtomicBool>,
}

/// Installs the signal handlers.
///
/// # Errors
/// The system refuses a handler or a thread.
pub(crate) fn listen() -> Result<SignalReceiver, String> {
    let signals = Signals::new([SIGTERM, SIGINT, SIGQUIT, SIGHUP])
        .map_err(|error| format!("cannot listen for signals: {error}"))?;
    let (sender, actions) = mpsc::channel();
    let is_stopping = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&is_stopping);
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || forward(signals, &sender, &flag))
        .map_err(|error| os_errors::thread_error(&error))?;
    Ok(SignalReceiver {
        actions,
        is_stopping,
    })
}

impl SignalReceiver {
    /// Waits for the next signal.
    pub(crate) fn next(&self) -> SignalAction {
        let ended = SignalAction::Shutdown("the end of the signal thread");
        self.actions.recv().unwrap_or(ended)
    }

    /// A flag that the first shutdown signal sets, even while no thread waits for signals.
    pub(crate) fn is_stopping(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_stopping)
    }

    /// Waits for any signal. For programs without a configuration, which end on SIGHUP, too: a terminal
    /// sends it when it is closed.
    pub(crate) fn wait_for_shutdown(&self) {
        self.next();
    }
}

fn forward(mut signals: Signals, actions: &mpsc::Sender<SignalAction>, is_stopping: &AtomicBool) {
    for signal in signals.forever() {
        let action = match signal {
            SIGHUP => SignalAction::Reload,
            SIGINT => SignalAction::Shutdown("SIGINT"),
            SIGQUIT => SignalAction::Shutdown("SIGQUIT"),
            _ => SignalAction::Shutdown("SIGTERM"),
        };
        if let SignalAction::Shutdown(name) = action
            && is_stopping.swap(true, Ordering::Relaxed)
        {
            warn!(
                signal = name,
                "received a second signal; exiting immediately"
            );
            // `exit` does not wait for the thread that writes the log.
            thread::sleep(LOG_FLUSH_TIME);
            std::process::exit(128 + signal);
        }
        // If the receiver is gone, the process is ending anyway.
        let _ = actions.send(action);
    }
}
