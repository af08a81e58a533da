//! Metrics pushed to a statsd server, every ten seconds and once more at the end.
//!
//! It is a thread of its own that reads the same numbers as everybody who looks, and remembers what it has
//! told of them. The server's name is resolved anew for every push, since it may move; what cannot be sent
//! is lost, as statsd has it, and told once until it works again.

use std::io;
use std::net::{ToSocketAddrs, UdpSocket};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use tracing::{info, warn};

use super::metrics;
use super::numbers::Numbers;
use super::prior_art;
use crate::config::StatsdTarget;
use crate::observe::statsd::Statsd;
use crate::server::plan::Plan;
use crate::server::sight::Sight;

/// The time between two pushes, which is that over which statsd servers add up.
const PERIOD: Duration = Duration::from_secs(10);

/// How long the end of the process waits for the last push, which may hang in the resolver.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// The thread that pushes.
pub(crate) struct Push {
    stop: mpsc::Sender<()>,
    /// Closed by the thread when it ends.
    ended: mpsc::Receiver<()>,
}

impl Push {
    /// Begins to push what can be seen of a mirror.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(crate) fn start(target: StatsdTarget, sight: Arc<Sight>) -> io::Result<Push> {
        let (stop, stopped) = mpsc::channel();
        let (running, ended) = mpsc::channel::<()>();
        let mut pusher = Pusher::new(target, sight);
        thread::Builder::new()
            .name("statsd".to_owned())
            .spawn(move || {
                // Whatever ends the waiting but time is the end of the process.
                while stopped.recv_timeout(PERIOD) == Err(mpsc::RecvTimeoutError::Timeout) {
                    pusher.push();
                }
                pusher.push();
                drop(running);
            })?;
        Ok(Push { stop, ended })
    }

    /// Pushes what is new and ends, or gives up after a while.
    pub(crate) fn finish(self) {
        self.finish_within(LAST_PATIENCE);
    }

    fn finish_within(self, patience: Duration) {
        drop(self.stop);
        // Nothing is ever sent. A panic there has been logged and changes nothing here.
        let _ = self.ended.recv_timeout(patience);
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
    /// What the counters said at the last push.
    told: Numbers,
    is_failing: bool,
}

impl Pusher {
    fn new(target: StatsdTarget, sight: Arc<Sight>) -> Pusher {
        Pusher {
            statsd: Statsd::new(tags(&target)),
            target,
            // A process starts with all of them at zero.
            told: Numbers::zero(sight.current().plan),
            sight,
            is_failing: false,
        }
    }

    fn push(&mut self) {
        let (host, port) = (self.target.host.clone(), self.target.port);
        match self.send_news() {
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

    /// Sends what has come since the last push. What cannot be sent is not sent later.
    fn send_news(&mut self) -> io::Result<()> {
        let socket = self.socket();
        let (before, plan) = (Arc::clone(&self.told.plan), self.sight.current().plan);
        let mut result = Ok(());
        if !Arc::ptr_eq(&before, &plan) {
            // What came before the reload belongs to the names of that time, and some of it to nothing
            // that is still there.
            result = self.send_news_of(before, &socket);
        }
        result.and(self.send_news_of(plan, &socket))
    }

    fn send_news_of(&mut self, plan: Arc<Plan>, socket: &io::Result<UdpSocket>) -> io::Result<()> {
        let now = Numbers::read(&self.sight, plan);
        let fresh = now.since(&self.told);
        self.told = now;
        let socket = match socket {
            Ok(socket) => socket,
            Err(error) => return Err(io::Error::new(error.kind(), error.to_string())),
        };
        let mut families = metrics::families(&self.sight, &fresh);
        families.extend(prior_art::families(&fresh));
        self.statsd.send(families, &mut |datagram| {
            // Nobody listening is told by an error on a later datagram, if at all.
            match socket.send(datagram) {
                Err(error) if error.kind() != io::ErrorKind::ConnectionRefused => Err(error),
                _ => Ok(()),
            }
        })
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the pusher has a thread of its own"
    )]
    fn socket(&self) -> io::Result<UdpSocket> {
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
        Ok(socket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_does_not_wait_for_a_push_that_hangs() {
        let (stop, stopped) = mpsc::channel();
        // As long as it is there, the thread has not ended.
        let (_running, ended) = mpsc::channel();
        Push { stop, ended }.finish_within(Duration::from_millis(1));
        assert_eq!(stopped.recv(), Err(mpsc::RecvError), "it was told to stop");
    }
}
