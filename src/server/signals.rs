//! SIGTERM and SIGINT ask the process to stop; a second one makes it stop at once.
//!
//! As process 1 of a container a program without a handler ignores SIGTERM and is killed after the
//! grace period, with everything in flight.

use std::sync::mpsc;
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing::warn;

/// The signals that ask the process to stop.
pub struct StopSignals {
    first: mpsc::Receiver<&'static str>,
}

/// Begins to listen.
///
/// # Errors
/// The system refuses a handler or a thread.
pub fn listen() -> Result<StopSignals, String> {
    let named = |error: std::io::Error| format!("cannot listen for signals: {error}");
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(named)?;
    let (sender, first) = mpsc::channel();
    let wait = move || {
        let mut arrived = signals.forever();
        if let Some(signal) = arrived.next() {
            // Whoever waits no longer is stopping anyway.
            let _ = sender.send(name(signal));
        }
        if let Some(signal) = arrived.next() {
            warn!(
                signal = name(signal),
                "asked a second time; stopping at once"
            );
            std::process::exit(128 + signal);
        }
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(wait)
        .map_err(named)?;
    Ok(StopSignals { first })
}

impl StopSignals {
    /// Waits for the first signal and gives its name.
    pub fn wait(&self) -> &'static str {
        self.first.recv().unwrap_or("the end of the signal thread")
    }
}

fn name(signal: i32) -> &'static str {
    match signal {
        SIGTERM => "SIGTERM",
        SIGINT => "SIGINT",
        _ => "unexpected signal",
    }
}
