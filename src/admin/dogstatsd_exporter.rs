//! Pushes metrics to a statsd server, every ten seconds and once more at the end of the process.
//!
//! A thread of its own reads the counters and sends their increase since the last push. It resolves the
//! server's name for every push, because the address can change. As usual with statsd, metrics that cannot
//! be sent are lost; the failure is logged once, and so is the recovery.

use std::io;
use std::net::{ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use tracing::{info, warn};

use super::legacy_names;
use super::metrics;
use super::snapshot::MetricsSnapshot;
use crate::config::{StatsdServer, StatsdTarget};
use crate::mirror::routing::routing_table::RoutingTable;
use crate::process::status::MirrorStatus;
use crate::telemetry::statsd::Statsd;

/// The flush interval that statsd servers have by default.
const PUSH_INTERVAL: Duration = Duration::from_secs(10);

/// How long the end of the process waits for the last push, which can hang in the resolver.
const LAST_PUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a server at a socket in the file system may not read before the rest of a push is lost.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// The running exporter.
pub(crate) struct Push {
    stop: mpsc::Sender<()>,
    /// Closed by the thread when it ends.
    ended: mpsc::Receiver<()>,
}

impl Push {
    /// # Errors
    /// If no thread can be created.
    pub(crate) fn start(
        target: StatsdTarget,
        mirror_status: Arc<MirrorStatus>,
    ) -> io::Result<Push> {
        let (stop, stopped) = mpsc::channel();
        let (running, ended) = mpsc::channel::<()>();
        let mut pusher = Pusher::new(target, mirror_status);
        thread::Builder::new()
            .name("statsd".to_owned())
            .spawn(move || {
                // If the wait ends by anything but its timeout, the process ends.
                while stopped.recv_timeout(PUSH_INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
                    pusher.push();
                }
                pusher.push();
                drop(running);
            })?;
        Ok(Push { stop, ended })
    }

    /// Makes the last push, within [`LAST_PUSH_TIMEOUT`].
    pub(crate) fn finish(self) {
        self.finish_within(LAST_PUSH_TIMEOUT);
    }

    fn finish_within(self, timeout: Duration) {
        drop(self.stop);
        // Nothing is ever sent. If the thread has panicked, that is in the log already.
        let _ = self.ended.recv_timeout(timeout);
    }
}

fn tags(target: &StatsdTarget) -> impl Iterator<Item = (&str, &str)> {
    let tags = target.tags.iter();
    tags.map(|(name, tag)| (name.as_str(), tag.as_str()))
}

struct Pusher {
    target: StatsdTarget,
    mirror_status: Arc<MirrorStatus>,
    statsd: Statsd,
    /// The counters at the last push.
    pushed: MetricsSnapshot,
    is_failing: bool,
}

impl Pusher {
    fn new(target: StatsdTarget, mirror_status: Arc<MirrorStatus>) -> Pusher {
        Pusher {
            statsd: Statsd::new(tags(&target)),
            target,
            pushed: MetricsSnapshot::zero(mirror_status.current().table),
            mirror_status,
            is_failing: false,
        }
    }

    fn push(&mut self) {
        let server = self.target.server.clone();
        match self.send_increase() {
            Ok(()) if self.is_failing => {
                info!(%server, "sending metrics to statsd_addr again");
                self.is_failing = false;
            }
            Ok(()) => {}
            Err(error) => {
                if !self.is_failing {
                    warn!(%server, %error, "cannot send metrics to statsd_addr; they are lost until this works again");
                }
                self.is_failing = true;
            }
        }
    }

    /// Sends the increase since the last push. If that fails, it is not sent again.
    fn send_increase(&mut self) -> io::Result<()> {
        let socket = self.socket();
        let (before, table) = (
            Arc::clone(&self.pushed.table),
            self.mirror_status.current().table,
        );
        let mut result = Ok(());
        if !Arc::ptr_eq(&before, &table) {
            // The increase before a reload belongs to the routes and names of the previous routing table.
            result = self.send_increase_of(before, &socket);
        }
        result.and(self.send_increase_of(table, &socket))
    }

    fn send_increase_of(
        &mut self,
        table: Arc<RoutingTable>,
        socket: &io::Result<Outlet>,
    ) -> io::Result<()> {
        let now = MetricsSnapshot::read(&self.mirror_status, table);
        let increase = now.since(&self.pushed);
        self.pushed = now;
        let socket = match socket {
            Ok(socket) => socket,
            Err(error) => return Err(io::Error::new(error.kind(), error.to_string())),
        };
        let families = metrics::families(&self.mirror_status, &increase);
        let families = families.chain(legacy_names::families(&increase));
        self.statsd
            .send(families, &mut |datagram| socket.send(datagram))
    }

    fn socket(&self) -> io::Result<Outlet> {
        match &self.target.server {
            StatsdServer::Udp { host, port } => udp_socket(host, *port).map(Outlet::Udp),
            StatsdServer::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                // A server that does not read takes only a few datagrams (`net.unix.max_dgram_qlen`).
                socket.set_write_timeout(Some(SEND_TIMEOUT))?;
                Ok(Outlet::Unix(socket))
            }
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this runs on a thread of its own, not on a worker"
)]
fn udp_socket(host: &str, port: u16) -> io::Result<UdpSocket> {
    let Some(address) = (host, port).to_socket_addrs()?.next() else {
        return Err(io::Error::other("the host name has no address"));
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

/// A socket that is connected to the server.
enum Outlet {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl Outlet {
    fn send(&self, datagram: &[u8]) -> io::Result<()> {
        match self {
            // If the port is closed, a later datagram may fail with this error, or not. Treat both alike.
            Outlet::Udp(socket) => match socket.send(datagram) {
                Err(error) if error.kind() != io::ErrorKind::ConnectionRefused => Err(error),
                _ => Ok(()),
            },
            Outlet::Unix(socket) => socket.send(datagram).map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finish_does_not_wait_for_a_push_that_hangs() {
        let (stop, stopped) = mpsc::channel();
        // While this exists, the thread has not ended.
        let (_running, ended) = mpsc::channel();
        Push { stop, ended }.finish_within(Duration::from_millis(1));
        assert_eq!(
            stopped.recv(),
            Err(mpsc::RecvError),
            "the thread is asked to stop"
        );
    }
}
