//! Accepting connections.
//!
//! All workers accept from the same sockets, each as long as it has [`Room`]. No error ends the accept loop, only the
//! shutdown does. After that, the rest of the queue is accepted.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use monoio::io::Canceller;
use monoio::net::{TcpListener, TcpStream};
use monoio::time::sleep;
use tracing::{debug, info, warn};

use crate::inbound::accept_balance::AcceptBalance;
use crate::inbound::connection::{Accepted, canonical};
use crate::inbound::handshake::Handshakes;
use crate::inbound::idle::IdleEntry;
use crate::inbound::peers::{PeerSlot, Peers};
use crate::inbound::proxied;
use crate::inbound::room::{Room, is_out_of_descriptors};
use crate::inbound::session::serve;
use crate::inbound::spares::Spares;
use crate::mirror::core::Core;
use crate::mirror::reporting::counters::RequestResult;
use crate::mirror::reporting::worker_metrics::{Closing, Pause};
use crate::net::tls_server::TlsServer;
use crate::runtime::in_flight::{InFlight, InFlightGuard};
use crate::runtime::panics::caught;
use crate::runtime::shutdown::Shutdown;
use crate::telemetry::log_on_change::LogOnChange;

/// The delay after a failed accept. It doubles up to the maximum. Without it, a process without free file
/// descriptors would fail 400,000 times a second.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(10);
const ACCEPT_BACKOFF_MAX: Duration = Duration::from_millis(200);

/// The delay after a failed accept for which idle connections are being closed. On a ring the kernel closes them
/// in the next iteration of the event loop.
const EVICTION_DELAY: Duration = Duration::from_millis(1);

/// How often idle connections are closed at the least and at the most: soon after their time, and soon after a
/// reload has changed it.
const EXPIRY_INTERVAL_MIN: Duration = Duration::from_millis(10);
const EXPIRY_INTERVAL_MAX: Duration = Duration::from_secs(1);

/// Where the clients of a socket in the file system connect from: this host, without a port.
const UNIX_PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A duplicate of a listening socket that all workers share.
pub(crate) struct SharedListener {
    pub(crate) socket: StdListener,
    /// Another duplicate, to accept the rest of the queue at the shutdown. `None` if another process will accept
    /// it.
    pub(crate) queue: Option<StdListener>,
    /// Whether it is a socket in the file system.
    pub(crate) is_unix: bool,
    pub(crate) beginning: Beginning,
}

/// What the connections of a listener begin with, besides a request.
#[derive(Clone, Default)]
pub(crate) struct Beginning {
    /// The networks that connections may come from, each with a header of the PROXY protocol.
    pub(crate) proxies: Option<Arc<[IpNet]>>,
    pub(crate) tls: Option<Arc<TlsServer>>,
}

/// What a worker accepts from.
enum Source {
    Inet(TcpListener),
    /// The runtime can wait for it as for any other socket, but not accept from it together with those.
    Unix(TcpListener, UnixListener),
}

/// What a worker accepts from at its shutdown.
enum Queue {
    Inet(StdListener),
    Unix(UnixListener),
}

impl Source {
    fn new(listener: SharedListener) -> io::Result<(Source, Option<Queue>)> {
        let SharedListener {
            socket,
            queue,
            is_unix,
            beginning: _,
        } = listener;
        let queue = queue.map(|queue| match is_unix {
            true => Queue::Unix(UnixListener::from(OwnedFd::from(queue))),
            false => Queue::Inet(queue),
        });
        let source = match is_unix {
            true => {
                let unix = UnixListener::from(OwnedFd::from(socket.try_clone()?));
                Source::Unix(TcpListener::from_std(socket)?, unix)
            }
            false => Source::Inet(TcpListener::from_std(socket)?),
        };
        Ok((source, queue))
    }
}

impl Queue {
    fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Queue::Inet(listener) => listener.set_nonblocking(true),
            Queue::Unix(listener) => listener.set_nonblocking(true),
        }
    }
}

/// Accepts a connection from a non-blocking socket. Reading and writing is the same for sockets of all kinds.
fn accept_unix(listener: &UnixListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, _) = listener.accept()?;
    Ok((to_monoio(OwnedFd::from(stream).into())?, UNIX_PEER))
}

fn to_monoio(stream: StdStream) -> io::Result<TcpStream> {
    stream.set_nonblocking(monoio::utils::is_legacy())?;
    TcpStream::from_std(stream)
}

/// Accepts the connections of one worker.
pub(crate) struct Acceptor {
    core: Rc<Core>,
    /// Ends the accept loop, a moment after `core.shutdown`.
    closing: Rc<Shutdown>,
    /// Cancels the pending accept.
    accepting: RefCell<Canceller>,
    balance: AcceptBalance,
    connections: Rc<InFlight>,
    room: Room,
    spares: Rc<Spares>,
    /// The open connections by client, if their number is limited.
    peers: Rc<Peers>,
    handshakes: Handshakes,
}

impl Acceptor {
    pub(crate) fn new(core: Rc<Core>, balance: AcceptBalance) -> Acceptor {
        let connections = Rc::default();
        Acceptor {
            room: Room::new(Rc::clone(&core), Rc::clone(&connections)),
            core,
            closing: Rc::default(),
            accepting: RefCell::new(Canceller::new()),
            balance,
            connections,
            spares: Rc::default(),
            peers: Rc::default(),
            handshakes: Handshakes::default(),
        }
    }

    pub(crate) fn open_connections(&self) -> usize {
        self.connections.count()
    }

    pub(crate) fn close(&self) {
        self.closing.trigger();
        self.accepting.replace(Canceller::new()).cancel();
    }

    /// Applies a changed `limits.connections`.
    pub(crate) fn limits_changed(&self) {
        self.room.idle.changed();
    }

    /// Closes the connections that are idle, and those that become idle.
    pub(crate) fn close_idle(&self) {
        self.room.idle.shut_down();
    }

    /// Closes connections that have been idle for `timeouts.idle`, as long as the worker runs.
    pub(crate) async fn expire_idle(self: Rc<Acceptor>) {
        loop {
            let mut next = EXPIRY_INTERVAL_MAX;
            // After a panic the next round continues.
            let round = pin!(async {
                let timeout = self.core.routing().table.limits.timeouts.idle;
                let now = Instant::now();
                next = self
                    .room
                    .idle
                    .expire(timeout, now)
                    .saturating_duration_since(now);
            });
            let _ = caught(round).await;
            sleep(next.clamp(EXPIRY_INTERVAL_MIN, EXPIRY_INTERVAL_MAX)).await;
        }
    }

    /// Accepts connections until [`Acceptor::close`] is called, and then those that are queued.
    ///
    /// # Errors
    /// A socket cannot be used.
    pub(crate) async fn accept_all(
        self: &Rc<Acceptor>,
        listeners: Vec<SharedListener>,
    ) -> io::Result<()> {
        let mut loops = Vec::new();
        for listener in listeners {
            let beginning = Rc::new(listener.beginning.clone());
            let (source, queue) = Source::new(listener)?;
            let acceptor = Rc::clone(self);
            // A panic ends the worker, and with it the process: it would accept no more here.
            loops.push(monoio::spawn(async move {
                acceptor.accept(&source, &beginning).await;
                if let Some(queue) = queue {
                    acceptor.accept_queue(&queue, &beginning);
                }
            }));
        }
        for accepting in loops {
            accepting.await;
        }
        Ok(())
    }

    async fn accept(self: &Rc<Acceptor>, source: &Source, beginning: &Rc<Beginning>) {
        let mut backoff = ACCEPT_BACKOFF;
        // At the limit of file descriptors, success and failure alternate: whenever a connection is closed, one
        // accept succeeds, and the next one fails again.
        let failure = LogOnChange::new();
        while !self.closing.is_triggered() {
            if !self.room.wait(&self.closing, &self.balance).await {
                return;
            }
            self.balance.yield_if_ahead().await;
            if self.closing.is_triggered() {
                return;
            }
            let accepted = match source {
                Source::Inet(listener) => {
                    // Never dropped: dropping a completed accept loses its connection. So a cancelled accept is
                    // awaited, too; it may have completed before.
                    let handle = self.accepting.borrow().handle();
                    listener.cancelable_accept(handle).await
                }
                Source::Unix(listener, socket) => {
                    self.wait_for_connection(listener).await;
                    accept_unix(socket)
                }
            };
            match accepted {
                Ok((stream, peer)) => {
                    backoff = ACCEPT_BACKOFF;
                    if failure.should_log(0, Instant::now()) {
                        info!(
                            worker = self.core.counters.worker,
                            "accepting connections again"
                        );
                    }
                    self.spawn_session(stream, peer, beginning);
                }
                Err(_) if self.closing.is_triggered() => {}
                // The client disconnected while it was queued.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                // The socket is non-blocking, so a ring reports this error instead of waiting. Sockets passed
                // to the process are, and any socket is once a worker empties its queue (`accept_queue`): all
                // workers share its mode.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => match source {
                    Source::Inet(listener) => self.wait_for_connection(listener).await,
                    // Another worker was faster.
                    Source::Unix(..) => {}
                },
                Err(error) if is_out_of_descriptors(&error) && self.room.free_descriptors() => {
                    sleep(EVICTION_DELAY).await;
                }
                Err(error) => {
                    self.core.counters.pauses.inc(Pause::Error);
                    sleep(backoff).await;
                    if !self.core.shutdown.is_triggered() && failure.should_log(1, Instant::now()) {
                        warn!(worker = self.core.counters.worker, %error, "accept failed; retrying with backoff");
                    }
                    backoff = (backoff * 2).min(ACCEPT_BACKOFF_MAX);
                }
            }
        }
    }

    /// Accepts the connections in the queue of a listener that is about to be closed, because their requests
    /// would be lost. This ignores `limits.connections`: the queue is bounded.
    fn accept_queue(self: &Rc<Acceptor>, queue: &Queue, beginning: &Rc<Beginning>) {
        if queue.set_nonblocking().is_err() {
            return;
        }
        loop {
            let accepted = match queue {
                Queue::Inet(listener) => listener
                    .accept()
                    .and_then(|(stream, peer)| Ok((to_monoio(stream)?, peer))),
                Queue::Unix(listener) => accept_unix(listener),
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                // The queue is empty. Any other error would repeat for ever.
                Err(_) => return,
            };
            self.spawn_session(stream, peer, beginning);
        }
    }

    /// Serves a connection in its own task. If there are proxies, it must come from one of them.
    fn spawn_session(
        self: &Rc<Acceptor>,
        stream: TcpStream,
        peer: SocketAddr,
        beginning: &Rc<Beginning>,
    ) {
        let proxies = beginning.proxies.as_deref();
        let (peer, worker) = (canonical(peer), self.core.counters.worker);
        self.core.counters.connections.inc();
        if proxies.is_some_and(|proxies| !proxies.iter().any(|own| own.contains(&peer.ip()))) {
            self.core.counters.closings.inc(Closing::Untrusted);
            debug!(worker, %peer, "connection closed: not in proxy_protocol of the listener");
            return;
        }
        let is_proxied = proxies.is_some();
        // Whom a proxy connects for is not known yet.
        let slot = match is_proxied {
            true => Some(None),
            false => self.peer_slot(peer),
        };
        let Some(slot) = slot else { return };
        debug!(worker, %peer, "connection accepted");
        self.room.make_for(&stream);
        let open = self.connections.acquire();
        self.balance.publish(self.connections.count());
        // Acquired here and not in the task: a worker that shuts down might end before the task first runs.
        let first_request = self.core.in_flight.acquire();
        let idle = self.room.idle.entry();
        let is_plain = !is_proxied && beginning.tls.is_none();
        let beginning = (!is_plain).then(|| Rc::clone(beginning));
        let acceptor = Rc::clone(self);
        monoio::spawn(async move {
            let serving = pin!(acceptor.session(stream, peer, beginning, idle, first_request));
            if caught(serving).await.is_err() {
                let counters = &acceptor.core.counters;
                counters.count_request(RequestResult::Panicked, None);
            }
            drop((open, slot));
            acceptor.room.idle.changed();
            acceptor.balance.publish(acceptor.connections.count());
        });
    }

    /// Serves a connection until it ends.
    async fn session(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        beginning: Option<Rc<Beginning>>,
        idle: IdleEntry,
        first_request: InFlightGuard,
    ) {
        let accepted = Accepted::new(stream, peer);
        let (accepted, _slot) = match beginning {
            None => (accepted.plain(), None),
            // Boxed: connections that begin with a request do not carry the space for it.
            Some(beginning) => match Box::pin(self.begin(accepted, &beginning, &idle)).await {
                Some(begun) => begun,
                None => return,
            },
        };
        let (core, spares) = (Rc::clone(&self.core), Rc::clone(&self.spares));
        serve(core, accepted, idle, spares, first_request).await;
    }

    /// Receives what comes before the first request, within `timeouts.head`. Returns `None` if the connection has
    /// ended.
    async fn begin(
        &self,
        accepted: Accepted<TcpStream>,
        beginning: &Beginning,
        idle: &IdleEntry,
    ) -> Option<(Accepted, Option<PeerSlot>)> {
        let (core, spares) = (&self.core, &self.spares);
        let deadline = Instant::now() + core.routing().table.limits.timeouts.head;
        let (mut accepted, mut slot) = (accepted, None);
        if beginning.proxies.is_some() {
            accepted = proxied::accept(core, spares, accepted, idle, deadline).await?;
            slot = self.peer_slot(accepted.peer)?;
        }
        let accepted = match &beginning.tls {
            None => accepted.plain(),
            Some(server) => {
                let handshakes = &self.handshakes;
                let handshake = handshakes.accept(core, spares, server, accepted, idle, deadline);
                handshake.await?
            }
        };
        Some((accepted, slot))
    }

    /// Counts a connection of a client, if their number is limited. Returns `None` if it is one too many, which is
    /// counted, too.
    fn peer_slot(&self, peer: SocketAddr) -> Option<Option<PeerSlot>> {
        let table = Arc::clone(&self.core.routing().table);
        // A proxy has connections for many clients.
        let limit = table.limits.connections_per_peer;
        let limit = limit.filter(|_| !table.client_addresses.is_proxy(peer.ip()));
        let slot = limit.map(|limit| self.peers.acquire(peer.ip(), limit));
        if matches!(slot, Some(None)) {
            self.core.counters.closings.inc(Closing::Peer);
            debug!(worker = self.core.counters.worker, %peer, "connection closed: limits.connections_per_peer");
            return None;
        }
        Some(slot.flatten())
    }

    /// Waits until a connection is in the queue or [`Acceptor::close`] is called. Another worker or process
    /// may accept the connection first.
    async fn wait_for_connection(&self, listener: &TcpListener) {
        let closing = self.closing.subscribe();
        // The next accept reports an error.
        let mut readable = pin!(listener.readable(false));
        poll_fn(|context| match readable.as_mut().poll(context) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => closing.poll_triggered(context),
        })
        .await;
    }
}
