//! The pages for operators, on a port of their own: metrics, status, health, configuration.
//!
//! They are served by plain threads, so that no worker has to do with them: `http` reads a request and
//! writes an answer, bounded in connections, bytes and time; `pages` knows what is where. `metrics`
//! and `status` are two views of the same numbers, with what `history` remembers of the last minutes;
//! `push` sends the first to a statsd server. The listener is there before the mirror starts and until
//! the process ends, so that `/ready` can say no.

mod history;
mod http;
mod metrics;
mod pages;
mod prior_art;
mod push;
mod status;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, OnceLock};
use std::thread;

use tracing::info;

pub use self::push::Push;

use self::history::{History, Look};
use self::pages::Pages;
use crate::server::sight::Sight;

/// The running admin listener. It stays up until the process ends.
pub struct Admin {
    address: SocketAddr,
    pages: Arc<Pages>,
}

impl Admin {
    /// Listens on `address`; until [`Admin::show`] there is no mirror to tell of.
    ///
    /// # Errors
    /// Why not, in words for an operator.
    pub fn start(address: SocketAddr) -> Result<Admin, String> {
        let listener = TcpListener::bind(address).map_err(|error| refusal(address, &error))?;
        let address = listener
            .local_addr()
            .map_err(|error| refusal(address, &error))?;
        let pages = Arc::new(Pages {
            sight: OnceLock::new(),
            history: History::default(),
        });
        let served = Arc::clone(&pages);
        thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || http::serve(&listener, &served))
            .map_err(|error| refusal(address, &error))?;
        info!("metrics and status page at http://{address}/");
        Ok(Admin { address, pages })
    }

    /// Where it listens; port 0 has become a real one.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Tells of `sight` from now on.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn show(&self, sight: Arc<Sight>) -> io::Result<()> {
        let beginning = Look::beginning(sight.started);
        self.pages.history.add(beginning);
        // A process starts one mirror.
        let _ = self.pages.sight.set(sight);
        let pages = Arc::clone(&self.pages);
        thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || pages.remember())?;
        Ok(())
    }
}

fn refusal(address: SocketAddr, error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; is another mirror running on this host? `admin.port` names another port, and `admin: off` does without"
        }
        _ => "",
    };
    format!("cannot listen on {address} for metrics and the status page: {error}{advice}")
}
