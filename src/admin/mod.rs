//! The pages for operators, on a port of their own: metrics, status, health, configuration.
//!
//! They are served by plain threads, so that no worker has to do with them: `http` reads a request and
//! writes an answer, bounded in connections, bytes and time; `pages` knows what is where. `metrics` tells
//! what the `numbers` say and `status` how things are going, with what `history` remembers of the last
//! minutes; `push` sends the first to a statsd server. The listener is there before the mirror starts and until
//! the process ends, so that `/ready` can say no.

mod history;
mod http;
mod metrics;
mod numbers;
mod pages;
mod prior_art;
mod push;
mod status;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use tracing::info;

pub(crate) use self::push::Push;

use self::history::History;
use self::pages::Pages;
use crate::causes;
use crate::server::sight::Sight;

/// How often a port is tried that another mirror still has.
const PORT_PAUSE: Duration = Duration::from_millis(200);

/// The running admin listener. It stays up until the process ends.
pub(crate) struct Admin {
    pages: Arc<Pages>,
}

impl Admin {
    /// Listens on `address`; until [`Admin::show`] there is no mirror to tell of. Where it `follows` on
    /// a mirror that still has the port, it listens as soon as that one has ended.
    ///
    /// # Errors
    /// Why not, in words for an operator.
    pub(crate) fn start(address: SocketAddr, follows: bool) -> Result<Admin, String> {
        let listener = match TcpListener::bind(address) {
            Err(error) if follows && error.kind() == io::ErrorKind::AddrInUse => {
                info!("metrics and status page wait until {address} is free");
                None
            }
            bound => Some(bound.map_err(|error| refusal(address, &error))?),
        };
        let pages = Arc::new(Pages {
            sight: OnceLock::new(),
            history: History::default(),
        });
        let served = Arc::clone(&pages);
        thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || {
                let listener = listener.unwrap_or_else(|| await_port(address));
                if let Ok(address) = listener.local_addr() {
                    info!("metrics and status page at http://{address}/");
                }
                http::serve(&listener, &served);
            })
            .map_err(|error| causes::of_thread(&error))?;
        Ok(Admin { pages })
    }

    /// Tells of `sight` from now on.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(crate) fn show(&self, sight: Arc<Sight>) -> io::Result<()> {
        self.pages.history.begin(sight.started);
        // A process starts one mirror.
        let _ = self.pages.sight.set(sight);
        let pages = Arc::clone(&self.pages);
        thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || pages.remember())?;
        Ok(())
    }
}

/// Listens on `address` once that is possible.
fn await_port(address: SocketAddr) -> TcpListener {
    loop {
        thread::sleep(PORT_PAUSE);
        if let Ok(listener) = TcpListener::bind(address) {
            return listener;
        }
    }
}

fn refusal(address: SocketAddr, error: &io::Error) -> String {
    format!(
        "cannot listen on {address} for metrics and the status page: {}; `admin.port` names another port, and `admin: off` does without",
        causes::why_not_listening(address, "admin.ip", error)
    )
}
