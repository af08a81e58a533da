//! Metrics pushed to a statsd server, every ten seconds and once more at the end.
//!
//! It is a thread of its own that reads the same numbers as everybody who looks. The server's name is
//! resolved anew for every push, since it may move; what cannot be sent is lost, as statsd has it, and told
//! once until it works again.

use std::io;
use std::net::{ToSocketAddrs, UdpSocket};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tracing::{info, warn};

use super::metrics;
use super::prior_art;
use crate::config::StatsdTarget;
use crate::observe::statsd::Statsd;
use crate::server::sight::Sight;

/// The time between two pushes, which is that over which statsd servers add up.
const PERIOD: Duration = Duration::from_secs(10);

/// The thread that pushes.
pub struct Push {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Push {
    /// Begins to push what can be seen of a mirror.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start(target: StatsdTarget, sight: Arc<Sight>) -> io::Result<Push> {
        let (stop, stopped) = mpsc::channel();
        let mut pusher = Pusher {
            statsd: Statsd::new(tags(&target)),
            target,
            sight,
            is_failing: false,
        };
        let thread = thread::Builder::new()
            .name("statsd".to_owned())
            .spawn(move || {
                // Whatever ends the waiting but time is the end of the process.
                while stopped.recv_timeout(PERIOD) == Err(mpsc::RecvTimeoutError::Timeout) {
                    pusher.push();
                }
                pusher.push();
            })?;
        Ok(Push { stop, thread })
    }

    /// Pushes what is new and ends.
    pub fn finish(self) {
        drop(self.stop);
        // A panic there has been logged and changes nothing here.
        let _ = self.thread.join();
    }
}

fn tags(target: &StatsdTarget) -> impl Iterator<Item = (&str, &str)> {
    let tags = target.tags.iter();
    tags.map(|(name, tag)| (name.as_str(), tag.as_str()))
}

struct Pusher {
    target: StatsdTarget,
    sight: Arc<Sight>,
    statsd: Statsd,
    is_failing: bool,
}

impl Pusher {
    fn push(&mut self) {
        let mut families = metrics::families(&self.sight);
        families.extend(prior_art::families(&self.sight));
        let datagrams = self.statsd.datagrams(&families);
        let (host, port) = (&self.target.host, self.target.port);
        match self.send(&datagrams) {
            Ok(()) if self.is_failing => {
                info!(host, port, "metrics reach statsd_addr again");
                self.is_failing = false;
            }
            Ok(()) => {}
            Err(error) => {
                if !self.is_failing {
                    warn!(host, port, %error, "metrics cannot be sent to statsd_addr; they are lost until they can");
                }
                self.is_failing = true;
            }
        }
    }

    fn send(&self, datagrams: &[Vec<u8>]) -> io::Result<()> {
        let target = (self.target.host.as_str(), self.target.port);
        let Some(address) = target.to_socket_addrs()?.next() else {
            return Err(io::Error::other("the name has no address"));
        };
        let any = if address.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let socket = UdpSocket::bind(any)?;
        socket.connect(address)?;
        for datagram in datagrams {
            // Nobody listening is told by an error on a later datagram, if at all.
            if let Err(error) = socket.send(datagram)
                && error.kind() != io::ErrorKind::ConnectionRefused
            {
                return Err(error);
            }
        }
        Ok(())
    }
}
