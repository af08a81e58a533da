//! The listening socket, and the descriptors that its connections will need.
//!
//! There is one socket for all workers. It is bound without sharing its port, so that a second copy
//! of the program is told that it is one.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};
use tracing::{info, warn};

use crate::config::Config;

/// Connections that wait to be accepted; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// How long a port in use is tried again: that of a process on io_uring stays bound for some
/// milliseconds after its end.
const BIND_PATIENCE: Duration = Duration::from_secs(1);
const BIND_PAUSE: Duration = Duration::from_millis(50);

/// Listens on `address`.
///
/// # Errors
/// That of the last try.
pub fn bind(address: SocketAddr) -> io::Result<Socket> {
    let deadline = Instant::now() + BIND_PATIENCE;
    loop {
        match try_bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                thread::sleep(BIND_PAUSE);
            }
            result => return result,
        }
    }
}

/// Binds without SO_REUSEPORT: with it, a second copy started by mistake would silently take half
/// of the connections.
fn try_bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Where `listener` listens; port 0 has become a real one.
///
/// # Errors
/// The system does not say.
pub fn local_address(listener: &Socket) -> io::Result<SocketAddr> {
    let address = listener.local_addr()?.as_socket();
    address.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Allows as many descriptors as the hard limit does; soft limits are often at 1,024.
pub fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, "cannot raise the limit of file descriptors");
    }
}

/// The same configuration with no more connections than half of the descriptors allow: the other half
/// is for upstreams. Clients that take all of them would keep what they send from being delivered.
pub fn fitting(config: &Config, workers: usize) -> Config {
    let mut config = config.clone();
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let share = usize::try_from(descriptors / 2).unwrap_or(usize::MAX) / workers.max(1);
    if config.limits.connections > share {
        info!(
            descriptors,
            "limits.connections is lowered to {share} per worker, so that half of the file descriptors are left for upstreams; raise their limit to change that, for example with `--ulimit nofile=1048576`"
        );
        config.limits.connections = share.max(1);
    }
    config
}
