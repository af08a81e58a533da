//! The listening sockets, and limits that fit the file descriptors and the memory of the process.
//!
//! All workers share the sockets. By default a port is not shared, so that a second copy of the program
//! fails to start. There are two ways to replace a process without losing a request: with `reuse_port` the
//! next process binds the same port while this one still serves, or a service manager keeps the socket and
//! passes it to each process.
//!
//! Closing a listening socket resets the connections in its queue, and those whose handshake is in progress.
//! So a shutdown has two steps: [`Listener::drop_new_connections`] keeps new handshakes from starting, and
//! [`Listener::close`] follows when the workers have accepted the rest.

use std::collections::HashSet;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, SockFilter, Socket, Type};
use tracing::{debug, info, warn};

use crate::config::{Config, ListenAddress, Outbound};
use crate::inbound::accept::Beginning;
use crate::limits::Limits;
use crate::os_errors;
use crate::process::certificates::Certificates;
use crate::process::memory_limit;
use crate::process::unix_socket::{self, SocketFile};
use crate::sys;
use crate::upstream::exchange::READERS_MAX;

/// The size of the accept queue. The kernel limits it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// How long binding a port in use is retried: the port of a process on io_uring stays bound for some
/// milliseconds after its end.
const BIND_TIMEOUT: Duration = Duration::from_secs(1);
const BIND_RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// How long the shutdown waits for handshakes in progress before it closes the socket. This is enough for a
/// round trip, unless the client is on the other side of the world.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_millis(100);

/// A packet filter that starts at the TCP header and drops segments with SYN and without ACK, with which a
/// client opens a connection. The client's kernel sends the segment again after a second. By then another
/// process has the port, or none.
const SYN_FILTER: [SockFilter; 5] = [
    instruction(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 13),
    instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0x12),
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, 0x02),
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0),
    instruction(libc::BPF_RET | libc::BPF_K, 0, u32::MAX),
];

/// One instruction. A comparison that fails skips the next `skip` instructions.
const fn instruction(code: u32, skip: u8, value: u32) -> SockFilter {
    // A code is less than 256.
    SockFilter::new(code as u16, 0, skip, value)
}

/// A listening socket.
pub(crate) struct Listener {
    socket: Socket,
    owner: Owner,
    /// The file of a socket in the file system, unless the service manager has made it.
    file: Option<SocketFile>,
    /// If the configured port is 0, this has the real one.
    pub(crate) address: ListenAddress,
    pub(crate) beginning: Beginning,
}

/// Who owns the socket and its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// This process owns both.
    Process,
    /// This process owns the socket, but other processes may have bound their own sockets to the port.
    SharedPort,
    /// A service manager owns the socket and keeps it open when this process ends.
    ServiceManager,
}

impl Listener {
    /// A socket for `ip` and `port`, and one for each entry of `listen`: those that a service manager has passed, or
    /// else new ones.
    ///
    /// # Errors
    /// The error of the last attempt to bind, or a passed socket does not fit. It is a text for the operator.
    pub(crate) fn open_all(
        config: &Config,
        certificates: &Certificates,
    ) -> Result<Vec<Listener>, String> {
        let first = ListenAddress::Inet(SocketAddr::new(config.ip, config.port));
        let mut addresses = vec![(&first, "ip", Beginning::default())];
        addresses.extend(config.listen.iter().enumerate().map(|(index, own)| {
            let proxies = Some(&own.proxy_protocol).filter(|proxies| !proxies.is_empty());
            let beginning = Beginning {
                proxies: proxies.map(|proxies| Arc::from(proxies.as_slice())),
                tls: certificates.server(index),
            };
            (&own.address, "address", beginning)
        }));
        let inherited = sys::inherited_descriptors(addresses.len());
        let inherited = inherited.map_err(|error| format!("cannot listen on {first}: {error}"))?;
        let mut inherited = inherited.into_iter();
        let owner = match config.reuse_port {
            true => Owner::SharedPort,
            false => Owner::Process,
        };
        let open = |(address, key, beginning)| {
            let listener = match inherited.next() {
                Some(descriptor) => Listener::inherited(Socket::from(descriptor), address),
                None => Listener::bind(address, owner),
            };
            let listener = listener.map_err(|error| bind_error(address, key, &error))?;
            Ok(Listener {
                beginning,
                ..listener
            })
        };
        addresses.into_iter().map(open).collect()
    }

    fn bind(address: &ListenAddress, owner: Owner) -> io::Result<Listener> {
        let deadline = Instant::now() + BIND_TIMEOUT;
        let socket = loop {
            let bound = match address {
                ListenAddress::Inet(address) => bind(*address, owner).map(|socket| (socket, None)),
                ListenAddress::Unix { path, mode } => {
                    let bound = unix_socket::bind(path, *mode, owner == Owner::SharedPort);
                    bound.map(|(socket, file)| (socket, Some(file)))
                }
            };
            match bound {
                Err(error)
                    if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline =>
                {
                    thread::sleep(BIND_RETRY_INTERVAL);
                }
                bound => break bound?,
            }
        };
        let (socket, file) = socket;
        let address = match address {
            ListenAddress::Inet(_) => ListenAddress::Inet(local_address(&socket)?),
            ListenAddress::Unix { .. } => address.clone(),
        };
        Ok(Listener {
            socket,
            owner,
            file,
            address,
            beginning: Beginning::default(),
        })
    }

    fn inherited(socket: Socket, configured: &ListenAddress) -> io::Result<Listener> {
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
        if !socket.is_listener()? {
            let what = "the socket that the service manager passed does not listen";
            return Err(invalid(what.to_owned()));
        }
        let path = || socket.local_addr().ok()?.as_pathname().map(Path::to_owned);
        let address = match configured {
            ListenAddress::Inet(_) => ListenAddress::Inet(local_address(&socket)?),
            ListenAddress::Unix { path: own, .. } if path().as_ref() == Some(own) => {
                configured.clone()
            }
            ListenAddress::Unix { .. } => {
                return Err(invalid(format!(
                    "the service manager passed another socket in the place of {configured}"
                )));
            }
        };
        info!(%address, "using the socket that the service manager passed");
        if let (ListenAddress::Inet(address), ListenAddress::Inet(configured)) =
            (&address, configured)
            && address != configured
            && !accepts_for(*address, *configured)
        {
            warn!(
                "the service manager passed a socket at {address}, but the configuration has {configured}, which `sentry-mirror health` checks",
            );
        }
        Ok(Listener {
            socket,
            owner: Owner::ServiceManager,
            file: None,
            address,
            beginning: Beginning::default(),
        })
    }

    /// Whether it is a socket in the file system.
    pub(crate) fn is_unix(&self) -> bool {
        matches!(self.address, ListenAddress::Unix { .. })
    }

    /// Another handle of the same socket.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub(crate) fn handle(&self) -> io::Result<TcpListener> {
        Ok(TcpListener::from(self.socket.try_clone()?))
    }

    /// Whether queued connections are lost unless this process accepts them.
    pub(crate) fn is_own(&self) -> bool {
        self.owner != Owner::ServiceManager
    }

    /// Starts to listen, now that the workers can accept, and sets whether `accept` blocks. On epoll it must
    /// not: a worker that loses the race for a connection would hang. It must not block on a passed socket
    /// either, with any driver: all processes that have the socket share the mode, and another one may run on
    /// epoll.
    ///
    /// # Errors
    /// Another process listens on the port already.
    pub(crate) fn start(&self, on_epoll: bool) -> io::Result<()> {
        // Workers wait until a socket in the file system is readable, and then accept.
        self.socket
            .set_nonblocking(on_epoll || !self.is_own() || self.is_unix())?;
        if self.owner == Owner::SharedPort || self.file.is_some() {
            // Not earlier: from now on this process gets a part of the connections.
            self.socket.listen(BACKLOG)?;
        }
        if let Some(file) = &self.file {
            file.show()?;
        }
        Ok(())
    }

    /// Drops new handshakes. Those in progress may still complete within [`HANDSHAKE_TIMEOUT`]. A socket of the
    /// service manager is not changed: its connections wait for the next process.
    pub(crate) fn drop_new_connections(&self) {
        if let Some(file) = &self.file {
            file.remove();
        } else if self.is_own()
            && let Err(error) = self.socket.attach_filter(&SYN_FILTER)
        {
            debug!(%error, "cannot drop new connection attempts during the shutdown; clients that connect late may get a reset");
        }
    }

    /// Stops listening.
    pub(crate) fn close(&self) {
        if self.is_own() {
            // An error means that it is shut down already.
            let _ = self.socket.shutdown(Shutdown::Read);
        }
    }
}

/// Binds a socket. Uses SO_REUSEPORT only if configured: a second copy started by mistake would silently
/// take half of the connections.
fn bind(address: SocketAddr, owner: Owner) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if owner == Owner::SharedPort {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    if owner == Owner::Process {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}

fn local_address(socket: &Socket) -> io::Result<SocketAddr> {
    let address = socket.local_addr()?.as_socket();
    address.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The message that listening on `address`, which `key` has, failed.
pub(crate) fn bind_error(address: &ListenAddress, key: &str, error: &io::Error) -> String {
    let advice = match (address, error.kind()) {
        (ListenAddress::Inet(address), _) => return os_errors::listen_error(*address, key, error),
        (_, io::ErrorKind::AddrInUse) => "; does another process listen there?",
        (_, io::ErrorKind::NotFound) => "; is there a folder for it?",
        (_, io::ErrorKind::PermissionDenied) => "; may this user write to its folder?",
        _ => "",
    };
    format!("cannot listen on {address}: {error}{advice}")
}

/// Whether a socket at the wildcard `address` accepts connections to `configured`.
fn accepts_for(address: SocketAddr, configured: SocketAddr) -> bool {
    address.port() == configured.port() && address.ip().is_unspecified()
}

/// Raises the soft limit of file descriptors, which is often 1,024, to the hard limit.
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

/// Lowers the limits of `config` to what the process has. SDK connections get at most half of the file
/// descriptors: if clients could use all of them, no connection to an upstream could be opened for their
/// requests. Unless `limits.memory_bytes` is configured, requests, connections and deliveries are limited to the
/// available memory too, but never below fixed minimums.
pub(crate) fn fit_limits(config: &Config, workers: usize) -> Config {
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
                "to fit the available memory, limits.connections is {} and limits.in_flight is {} per worker; setting limits.memory_bytes turns this adjustment off",
                fitted.connections, fitted.in_flight
            );
        }
        (*memory_bytes, *connections) = (fitted.memory_bytes, fitted.connections);
        *in_flight = fitted.in_flight;
        info!(
            available_mib = available >> 20,
            memory_mib = fitted.memory_bytes >> 20,
            "requests may use up to limits.memory_bytes, which the workers share"
        );
    } else if !config.is_memory_configured {
        let memory_bytes = &mut config.limits.memory_bytes;
        *memory_bytes = memory_bytes.saturating_mul(workers.max(1));
    }
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    fit_descriptors(&mut config, workers, descriptors);
    config
}

/// The minimum of `pool.idle_connections`, even if many origins share the descriptors: not all of them are
/// busy at a time.
const IDLE_CONNECTIONS_MIN: usize = 64;

/// `limits.in_flight` is never lowered below this.
const IN_FLIGHT_MIN: usize = 16;

/// How to avoid that a limit is lowered to fit the descriptors.
const MORE_DESCRIPTORS: &str = "to avoid that, raise the hard limit of file descriptors, for example with `ulimit -Hn`, `LimitNOFILE=` in systemd, or `--ulimit nofile=1048576` in Docker";

fn fit_descriptors(config: &mut Config, workers: usize, descriptors: u64) {
    let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
    let per_worker = descriptors / workers.max(1);
    let half = (per_worker / 2).max(1);
    let outbounds = config.routes.iter().flat_map(|route| &route.outbounds);
    let origins: HashSet<_> = outbounds.map(Outbound::upstream).collect();
    let origins = origins.len().max(1);
    let limits = &mut config.limits;
    if limits.connections > half {
        info!(
            descriptors,
            "limits.connections is lowered to {half} per worker, so that half of the file descriptors are left for upstreams; {MORE_DESCRIPTORS}"
        );
        limits.connections = half;
    }
    let rest = per_worker.saturating_sub(limits.connections);
    let for_upstreams = rest - READERS_MAX.min(rest / 2);
    let in_flight_max = for_upstreams.max(IN_FLIGHT_MIN);
    if limits.in_flight > in_flight_max {
        info!(
            descriptors,
            "limits.in_flight is lowered to {in_flight_max} per origin and worker, because each delivery needs a file descriptor; {MORE_DESCRIPTORS}"
        );
        limits.in_flight = in_flight_max;
    }
    // There are never more connections than deliveries in flight.
    let idle = limits.pool.idle_connections.min(limits.in_flight);
    let per_origin = (for_upstreams / origins).max(IDLE_CONNECTIONS_MIN);
    if idle > per_origin {
        info!(
            descriptors,
            "pool.idle_connections is lowered to {per_origin} per origin and worker, so that all fit the file descriptors; {MORE_DESCRIPTORS}"
        );
    }
    limits.pool.idle_connections = idle.min(per_origin);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_limited_to_what_the_descriptors_allow() {
        let key = "a".repeat(32);
        let text = format!(
            "keys:\n- inbound: http://{key}@m/1\n  outbound: ['http://{key}@a/1', 'http://{key}@a/2', 'http://{key}@b/2']"
        );
        for (descriptors, workers, connections, in_flight, idle) in [
            (1 << 20, 2, 20_000, 8192, 8192),
            (40_000, 1, 20_000, 8192, 8192),
            (20_000, 1, 10_000, 8192, 4872),
            (20_000, 2, 5000, 4744, 2372),
            (4096, 1, 2048, 1792, 896),
            (1024, 1, 512, 256, 128),
            (1024, 4, 128, 64, 64),
            (64, 4, 8, 16, 16),
            (u64::MAX, 0, 20_000, 8192, 8192),
        ] {
            let mut config = Config::parse(&text, "c.yml", std::iter::empty()).unwrap();
            fit_descriptors(&mut config, workers, descriptors);
            let limits = config.limits;
            let idle_fitted = limits.pool.idle_connections;
            let fitted = (limits.connections, limits.in_flight, idle_fitted);
            let expected = (connections, in_flight, idle);
            assert_eq!(fitted, expected, "{descriptors} for {workers}");
        }
        // What SDK connections leave is for upstreams.
        let few = format!("{text}\nlimits: {{connections: 100, in_flight: 700}}");
        let mut config = Config::parse(&few, "c.yml", std::iter::empty()).unwrap();
        fit_descriptors(&mut config, 1, 1024);
        let limits = config.limits;
        let fitted = (limits.in_flight, limits.pool.idle_connections);
        assert_eq!(fitted, (668, 334));
    }
}
