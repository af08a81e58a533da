//! The admin port, with pages for operators: metrics, status, health, configuration.
//!
//! Plain threads serve it, so it takes no time from workers. `server` speaks HTTP and `handlers` make its pages;
//! `page` is the one for a browser. `metrics` is the catalogue of metrics, read from a snapshot of the counters
//! (`snapshot`); `dogstatsd_exporter` sends the same metrics to a statsd server. `status` is the state as JSON, with
//! rates of the last minutes from `history`, and a word for each outbound from `health`. `hours` are the items of the
//! last days by hour, which `hour_keeper` counts and keeps in the `state_file`. The port opens before the mirror
//! starts and stays open until the process ends, so that `/ready` can answer 503.

mod dogstatsd_exporter;
mod handlers;
mod health;
mod history;
mod hour_keeper;
mod hours;
mod legacy_names;
mod metrics;
mod page;
pub(crate) mod reference;
mod server;
mod snapshot;
mod status;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, SystemTime};

use tracing::info;

pub(crate) use self::dogstatsd_exporter::Push;

use self::handlers::Pages;
use self::history::History;
use self::hour_keeper::HourKeeper;
use crate::os_errors;
use crate::process::status::MirrorStatus;

/// How often to retry a port that the previous process still uses.
const BIND_RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// The running admin listener. It stays up until the process ends.
pub(crate) struct Admin {
    pages: Arc<Pages>,
}

impl Admin {
    /// Listens on `address`. Until [`Admin::show`] the pages say that the mirror is starting. If this
    /// process `replaces` one that still uses the port, it listens as soon as that one has ended.
    ///
    /// # Errors
    /// Why it cannot listen, for an operator.
    pub(crate) fn start(address: SocketAddr, replaces: bool) -> Result<Admin, String> {
        let listener = match TcpListener::bind(address) {
            Err(error) if replaces && error.kind() == io::ErrorKind::AddrInUse => {
                info!("the admin port waits until {address} is free");
                None
            }
            bound => Some(bound.map_err(|error| bind_error(address, &error))?),
        };
        let pages = Arc::new(Pages {
            mirror_status: OnceLock::new(),
            history: History::default(),
            hours: OnceLock::new(),
        });
        let served = Arc::clone(&pages);
        thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || {
                let listener = listener.unwrap_or_else(|| await_port(address));
                if let Ok(address) = listener.local_addr() {
                    info!("metrics and status page at http://{address}/");
                }
                server::serve(&listener, &served);
            })
            .map_err(|error| os_errors::thread_error(&error))?;
        Ok(Admin { pages })
    }

    /// Shows the running mirror from now on.
    ///
    /// # Errors
    /// If no thread can be created.
    pub(crate) fn show(
        &self,
        mirror_status: Arc<MirrorStatus>,
        state_file: Option<PathBuf>,
    ) -> io::Result<()> {
        // Cannot fail, as below.
        let _ = self
            .pages
            .hours
            .set(HourKeeper::new(state_file, SystemTime::now()));
        self.pages.history.start(mirror_status.started);
        // Cannot fail: a process starts one mirror.
        let _ = self.pages.mirror_status.set(mirror_status);
        let pages = Arc::clone(&self.pages);
        thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || pages.record_history())?;
        Ok(())
    }
}

impl Admin {
    /// Writes the `state_file` once more, after the last delivery has ended.
    pub(crate) fn finish(&self) {
        self.pages.finish();
    }
}

/// Retries until it can listen on `address`.
fn await_port(address: SocketAddr) -> TcpListener {
    loop {
        thread::sleep(BIND_RETRY_INTERVAL);
        if let Ok(listener) = TcpListener::bind(address) {
            return listener;
        }
    }
}

fn bind_error(address: SocketAddr, error: &io::Error) -> String {
    format!(
        "cannot listen on {address} for metrics and the status page: {}; set another `admin.port`, or turn the admin port off with `admin: off`",
        os_errors::listen_error_cause(address, "admin.ip", error)
    )
}
