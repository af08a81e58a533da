//! The listening socket, and the descriptors that its connections will need.
//!
//! There is one socket for all workers. By default it is bound without sharing its port, so that a
//! second copy of the program is told that it is one. A process is replaced without losing a request
//! in one of two ways: `reuse_port` lets the next process bind the same port while this one still
//! serves, or a service manager keeps the socket and passes it to each process in turn.
//!
//! Whoever closes a listening socket resets the connections that wait in it to be accepted, and those
//! whose handshake is under way. So an end has two steps: [`Listener::turn_away`] keeps new ones from
//! beginning, and [`Listener::close`] comes when the workers have accepted the rest.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, SockFilter, Socket, Type};
use tracing::{debug, info, warn};

use crate::config::Config;
use crate::limits::Limits;
use crate::process::memory_limit;
use crate::sys;

/// Connections that wait to be accepted; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// How long a port in use is tried again: that of a process on io_uring stays bound for some
/// milliseconds after its end.
const BIND_PATIENCE: Duration = Duration::from_secs(1);
const BIND_PAUSE: Duration = Duration::from_millis(50);

/// How long a handshake that has begun may take to end before the socket is closed: a round trip
/// to a client that is not on the other side of the world.
pub(crate) const HANDSHAKE_PATIENCE: Duration = Duration::from_millis(100);

/// The instructions of a packet filter that begins at the TCP header and drops the segments which
/// have SYN and not ACK: those with which a client opens a connection. Its kernel sends them again
/// after a second, when another process has the port, or nobody.
const TURN_AWAY: [SockFilter; 5] = [
    instruction(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 13),
    instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0x12),
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, 0x02),
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0),
    instruction(libc::BPF_RET | libc::BPF_K, 0, u32::MAX),
];

/// One instruction: what to do, how many to pass over where a comparison fails, and with what value.
const fn instruction(code: u32, pass_over: u8, value: u32) -> SockFilter {
    // A code is less than 256.
    SockFilter::new(code as u16, 0, pass_over, value)
}

/// The listening socket and who else has it.
pub(crate) struct Listener {
    socket: Socket,
    owner: Owner,
}

/// Whose the socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// This process's, and so is the port.
    Process,
    /// This process's, but others may have bound sockets of their own to the port.
    Neighbours,
    /// A service manager's, which keeps it open when this process has ended.
    Manager,
}

impl Listener {
    /// The socket that a service manager has passed, or one bound to the address of `config`.
    ///
    /// # Errors
    /// That of the last try to bind, or what was passed is no listening socket.
    pub(crate) fn open(config: &Config) -> io::Result<Listener> {
        if let Some(descriptor) = sys::inherited_descriptor()? {
            return Listener::inherited(Socket::from(descriptor), config);
        }
        let owner = match config.reuse_port {
            true => Owner::Neighbours,
            false => Owner::Process,
        };
        let address = SocketAddr::new(config.ip, config.port);
        let deadline = Instant::now() + BIND_PATIENCE;
        loop {
            match bind(address, owner) {
                Err(error)
                    if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline =>
                {
                    thread::sleep(BIND_PAUSE);
                }
                result => return result.map(|socket| Listener { socket, owner }),
            }
        }
    }

    fn inherited(socket: Socket, config: &Config) -> io::Result<Listener> {
        if !socket.is_listener()? {
            let what = "the socket that the service manager passed does not listen";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let owner = Owner::Manager;
        let listener = Listener { socket, owner };
        let (address, configured) = (listener.address()?, (config.ip, config.port));
        info!(%address, "using the socket that the service manager passed");
        if (address.ip(), address.port()) != configured && !is_same_door(address, configured) {
            let (ip, port) = configured;
            warn!(
                "the service manager passed a socket at {address}, while ip and port say {}: `sentry-mirror health` asks there",
                SocketAddr::new(ip, port)
            );
        }
        Ok(listener)
    }

    /// Where it listens; port 0 has become a real one.
    ///
    /// # Errors
    /// The system does not say.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        let address = self.socket.local_addr()?.as_socket();
        address.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Another handle of the same socket.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub(crate) fn handle(&self) -> io::Result<TcpListener> {
        Ok(TcpListener::from(self.socket.try_clone()?))
    }

    /// Whether what waits to be accepted is lost unless this process accepts it.
    pub(crate) fn is_own(&self) -> bool {
        self.owner != Owner::Manager
    }

    /// Lets connections come, now that there are workers which accept them, and says to the kernel
    /// whether accepting may wait. On epoll it must not: a worker that loses the race for a
    /// connection would stand still. Nor may it in a socket that was passed, on any driver: the mode
    /// is one for all who have the socket, and another process that has it may run on epoll.
    ///
    /// # Errors
    /// Another process was faster.
    pub(crate) fn start(&self, on_epoll: bool) -> io::Result<()> {
        self.socket.set_nonblocking(on_epoll || !self.is_own())?;
        if self.owner == Owner::Neighbours {
            // Not before: from now on a part of the connections comes here.
            self.socket.listen(BACKLOG)?;
        }
        Ok(())
    }

    /// Keeps new connections from beginning; those whose handshake is under way still come, for
    /// [`HANDSHAKE_PATIENCE`]. A socket that stays with the service manager is left alone: connections
    /// wait in it for the next process.
    pub(crate) fn turn_away(&self) {
        if self.is_own()
            && let Err(error) = self.socket.attach_filter(&TURN_AWAY)
        {
            debug!(%error, "connections cannot be turned away before the end");
        }
    }

    /// Ends the listening.
    pub(crate) fn close(&self) {
        if self.is_own() {
            // An error means that it is shut down already.
            let _ = self.socket.shutdown(Shutdown::Read);
        }
    }
}

/// Binds. Unless the operator wants it, without SO_REUSEPORT: with it, a second copy started by
/// mistake would silently take half of the connections.
fn bind(address: SocketAddr, owner: Owner) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if owner == Owner::Neighbours {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    if owner == Owner::Process {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}

/// Whether who connects to `configured` reaches a socket at `address`: a wildcard takes all.
fn is_same_door(address: SocketAddr, (_, port): (IpAddr, u16)) -> bool {
    address.port() == port && address.ip().is_unspecified()
}

/// Allows as many descriptors as the hard limit does; soft limits are often at 1,024.
pub(crate) fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, "cannot raise the limit of file descriptors");
    }
}

/// The same configuration with bounds that fit what the process has. There are no more connections than
/// half of the descriptors allow: the other half is for upstreams, and clients that take all of them
/// would keep what they send from being delivered. Requests, connections and deliveries take no more memory
/// than there is.
pub(crate) fn fitting(config: &Config, workers: usize) -> Config {
    let mut config = config.clone();
    if let Some(available) = memory_limit::available(Path::new("/")) {
        let fitted = memory_limit::fit(&config, workers, available);
        if let Some(warning) = fitted.warning {
            warn!("{warning}");
        }
        let Limits {
            memory_bytes,
            connections,
            in_flight,
            ..
        } = &mut config.limits;
        if fitted.connections < *connections || fitted.in_flight < *in_flight {
            info!(
                "limits.connections is lowered to {} and limits.in_flight to {} per worker, so that they fit the memory; set limits.memory_bytes to decide that yourself",
                fitted.connections, fitted.in_flight
            );
        }
        (*memory_bytes, *connections) = (fitted.worker_bytes, fitted.connections);
        *in_flight = fitted.in_flight;
        info!(
            available_mib = available >> 20,
            worker_mib = fitted.worker_bytes >> 20,
            "requests of each worker take at most limits.memory_bytes"
        );
    }
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    fit_descriptors(&mut config, workers, descriptors);
    config
}

/// The least idle connections that are kept per origin and worker, however many origins share the
/// descriptors: not all are busy at a time.
const IDLE_CONNECTIONS_MIN: usize = 64;

fn fit_descriptors(config: &mut Config, workers: usize, descriptors: u64) {
    let half = usize::try_from(descriptors / 2).unwrap_or(usize::MAX);
    let share = half / workers.max(1);
    if config.limits.connections > share {
        info!(
            descriptors,
            "limits.connections is lowered to {share} per worker, so that half of the file descriptors are left for upstreams; raise their limit to change that, for example with `--ulimit nofile=1048576`"
        );
        config.limits.connections = share.max(1);
    }
    let outbounds = config.routes.iter().flat_map(|route| &route.outbounds);
    let origins: HashSet<_> = outbounds.map(|outbound| outbound.dsn.origin()).collect();
    let share = (share / origins.len().max(1)).max(IDLE_CONNECTIONS_MIN);
    if config.limits.pool.idle_connections > share {
        info!(
            descriptors,
            "pool.idle_connections is lowered to {share} per origin and worker, which is what half of the file descriptors allow; raise their limit to change that, for example with `--ulimit nofile=1048576`"
        );
        config.limits.pool.idle_connections = share;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_as_many_as_the_descriptors_allow() {
        let key = "a".repeat(32);
        let text = format!(
            "keys:\n- inbound: http://{key}@m/1\n  outbound: ['http://{key}@a/1', 'http://{key}@a/2', 'http://{key}@b/2']"
        );
        for (descriptors, workers, connections, idle) in [
            (1 << 20, 2, 20_000, 4096),
            (20_000, 1, 10_000, 4096),
            (20_000, 2, 5000, 2500),
            (1024, 1, 512, 256),
            (1024, 4, 128, 64),
            (64, 4, 8, 64),
            (u64::MAX, 0, 20_000, 4096),
        ] {
            let mut config = Config::parse(&text, "c.yml", std::iter::empty()).unwrap();
            fit_descriptors(&mut config, workers, descriptors);
            let limits = config.limits;
            let fitted = (limits.connections, limits.pool.idle_connections);
            assert_eq!(fitted, (connections, idle), "{descriptors} for {workers}");
        }
    }
}
