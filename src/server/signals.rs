//! SIGTERM and SIGINT ask the process to stop, a second one to stop at once; SIGHUP asks it to read
//! its configuration again.
//!
//! As process 1 of a container a program without a handler ignores SIGTERM and is killed after the
//! grace period, with everything in flight.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing::warn;

/// How long the last log line is given to be written.
const LOG_PATIENCE: Duration = Duration::from_millis(100);

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// To stop, and the name of the signal.
    Stop(&'static str),
    /// To read the configuration again.
    Reload,
}

/// The requests made by signals.
pub struct Requests {
    arrived: mpsc::Receiver<Request>,
}

/// Begins to listen.
///
/// # Errors
/// The system refuses a handler or a thread.
pub fn listen() -> Result<Requests, String> {
    let named = |error: std::io::Error| format!("cannot listen for signals: {error}");
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(named)?;
    let (sender, arrived) = mpsc::channel();
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || forward(signals, &sender))
        .map_err(named)?;
    Ok(Requests { arrived })
}

impl Requests {
    /// Waits for the next one.
    pub fn next(&self) -> Request {
        let end = Request::Stop("the end of the signal thread");
        self.arrived.recv().unwrap_or(end)
    }

    /// Waits for any of them, where there is no configuration to read: a terminal that is closed
    /// sends SIGHUP.
    pub fn wait_for_stop(&self) {
        self.next();
    }
}

fn forward(mut signals: Signals, requests: &mpsc::Sender<Request>) {
    let mut is_stopping = false;
    for signal in signals.forever() {
        let request = match signal {
            SIGHUP => Request::Reload,
            SIGINT => Request::Stop("SIGINT"),
            _ => Request::Stop("SIGTERM"),
        };
        if let Request::Stop(name) = request
            && std::mem::replace(&mut is_stopping, true)
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
