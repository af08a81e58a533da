//! Accepting connections.
//!
//! All workers accept from one socket, each as long as it has [`Room`]. No error ends the accept loop, only the
//! shutdown does. After that, the rest of the queue is accepted.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use monoio::io::Canceller;
use monoio::net::{TcpListener, TcpStream};
use monoio::time::sleep;
use tracing::{debug, info, warn};

use crate::inbound::accept_balance::AcceptBalance;
use crate::inbound::peers::Peers;
use crate::inbound::room::{Room, is_out_of_descriptors};
use crate::inbound::session::serve;
use crate::inbound::spares::Spares;
use crate::mirror::core::Core;
use crate::mirror::counters::RequestResult;
use crate::mirror::worker_metrics::{Closing, Pause};
use crate::runtime::in_flight::InFlight;
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

    /// Accepts connections until [`Acceptor::close`] is called.
    pub(crate) async fn accept(self: &Rc<Acceptor>, listener: &TcpListener) {
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
            // Never dropped: dropping a completed accept loses its connection. So a cancelled accept is
            // awaited, too; it may have completed before.
            let handle = self.accepting.borrow().handle();
            match listener.cancelable_accept(handle).await {
                Ok((stream, peer)) => {
                    backoff = ACCEPT_BACKOFF;
                    if failure.should_log(0, Instant::now()) {
                        info!(
                            worker = self.core.counters.worker,
                            "accepting connections again"
                        );
                    }
                    self.spawn_session(stream, peer);
                }
                Err(_) if self.closing.is_triggered() => {}
                // The client disconnected while it was queued.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                // The socket is non-blocking, so a ring reports this error instead of waiting. Sockets passed
                // to the process are, and any socket is once a worker empties its queue (`accept_queue`): all
                // workers share its mode.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait_for_connection(listener).await;
                }
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
    pub(crate) fn accept_queue(self: &Rc<Acceptor>, listener: &StdListener) {
        if listener.set_nonblocking(true).is_err() {
            return;
        }
        loop {
            let (stream, peer) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                // The queue is empty. Any other error would repeat for ever.
                Err(_) => return,
            };
            let stream = stream
                .set_nonblocking(monoio::utils::is_legacy())
                .and_then(|()| TcpStream::from_std(stream));
            if let Ok(stream) = stream {
                self.spawn_session(stream, peer);
            }
        }
    }

    /// Serves a connection in its own task.
    fn spawn_session(self: &Rc<Acceptor>, stream: TcpStream, peer: SocketAddr) {
        let peer = canonical(peer);
        self.core.counters.connections.inc();
        let table = Arc::clone(&self.core.routing().table);
        let limit = table.limits.connections_per_peer;
        // A proxy has connections for many clients.
        let limit = limit.filter(|_| !table.client_addresses.is_proxy(peer.ip()));
        let slot = limit.map(|limit| self.peers.acquire(peer.ip(), limit));
        if matches!(slot, Some(None)) {
            self.core.counters.closings.inc(Closing::Peer);
            debug!(worker = self.core.counters.worker, %peer, "connection closed: limits.connections_per_peer");
            return;
        }
        debug!(worker = self.core.counters.worker, %peer, "connection accepted");
        self.room.make_for(&stream);
        let open = self.connections.acquire();
        self.balance.publish(self.connections.count());
        // Acquired here and not in the task: a worker that shuts down might end before the task first runs.
        let first_request = self.core.in_flight.acquire();
        let idle = self.room.idle.entry();
        let acceptor = Rc::clone(self);
        monoio::spawn(async move {
            let core = Rc::clone(&acceptor.core);
            let spares = Rc::clone(&acceptor.spares);
            let serving = pin!(serve(core, stream, peer, idle, spares, first_request));
            if caught(serving).await.is_err() {
                let counters = &acceptor.core.counters;
                counters.count_request(RequestResult::Panicked, None);
            }
            drop((open, slot));
            acceptor.room.idle.changed();
            acceptor.balance.publish(acceptor.connections.count());
        });
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

/// The address in its usual form. On a dual-stack socket the kernel maps IPv4 addresses into IPv6, as
/// `::ffff:192.0.2.1` (RFC 4291 section 2.5.5.2).
fn canonical(peer: SocketAddr) -> SocketAddr {
    match peer.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::from((ip, peer.port())),
        IpAddr::V6(_) => peer,
    }
}
