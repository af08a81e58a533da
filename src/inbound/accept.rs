//! How a worker comes by its connections.
//!
//! All workers accept from one socket, each as many as it has room for. What goes wrong with one
//! connection, or with all of them for a while, never ends the accepting: only the order to stop does,
//! after which the rest of the queue is taken over.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use monoio::io::Canceller;
use monoio::net::{TcpListener, TcpStream};
use monoio::time::sleep;
use tracing::{debug, info, warn};

use crate::inbound::accept_balance::AcceptBalance;
use crate::mirror::core::Core;
use crate::mirror::counters::RequestResult;
use crate::mirror::worker_metrics::{Closing, Pause};
use crate::runtime::in_flight::InFlight;
use crate::runtime::panics::caught;
use crate::runtime::shutdown::Shutdown;
use crate::telemetry::log_on_change::LogOnChange;

use crate::inbound::peers::Peers;
use crate::inbound::session::serve;

/// The pause after a failed accept, which doubles up to the longest one. Without it, running out of
/// file descriptors makes accept fail 400,000 times a second.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_millis(200);

/// What accepts the connections of one core.
pub(crate) struct Acceptor {
    core: Rc<Core>,
    /// The order to accept no more, a moment after the one to stop.
    closing: Rc<Shutdown>,
    /// Ends the accept that is waited for.
    accepting: RefCell<Canceller>,
    balance: AcceptBalance,
    /// Connections that are open.
    connections: Rc<InFlight>,
    /// Where they come from, if that is bounded.
    peers: Rc<Peers>,
}

impl Acceptor {
    pub(crate) fn new(core: Rc<Core>, balance: AcceptBalance) -> Acceptor {
        Acceptor {
            core,
            closing: Rc::default(),
            accepting: RefCell::new(Canceller::new()),
            balance,
            connections: Rc::default(),
            peers: Rc::default(),
        }
    }

    /// How many connections are open.
    pub(crate) fn open_connections(&self) -> usize {
        self.connections.count()
    }

    /// Accepts no more.
    pub(crate) fn close(&self) {
        self.closing.trigger();
        self.accepting.replace(Canceller::new()).cancel();
    }

    /// Looks again whether there is room for another connection.
    pub(crate) fn limits_changed(&self) {
        self.connections.limit_changed();
    }

    /// Accepts until told to accept no more.
    pub(crate) async fn accept(self: &Rc<Acceptor>, listener: &TcpListener) {
        let mut pause = ACCEPT_PAUSE;
        // At the limit every connection that ends lets one in before the next fails.
        let shortage = LogOnChange::new();
        while !self.closing.is_triggered() {
            if !self.await_room().await {
                return;
            }
            self.balance.let_others_catch_up().await;
            if self.closing.is_triggered() {
                return;
            }
            // Never dropped: an accept that is dropped after it was done loses a connection. The
            // order to close cancels it, and it is waited for all the same: it may have been faster.
            let handle = self.accepting.borrow().handle();
            match listener.cancelable_accept(handle).await {
                Ok((stream, peer)) => {
                    pause = ACCEPT_PAUSE;
                    if shortage.should_log(0, Instant::now()) {
                        info!(
                            worker = self.core.counters.worker,
                            "accepting without pauses again"
                        );
                    }
                    self.welcome(stream, peer);
                }
                Err(_) if self.closing.is_triggered() => {}
                // The client gave up while it waited; the next one may be fine.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                // A ring cannot wait in a socket that was passed, nor in any once another worker takes
                // over the rest of its queue.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.await_queue(listener).await;
                }
                Err(error) => {
                    self.core.counters.pauses.inc(Pause::Error);
                    sleep(pause).await;
                    if !self.core.shutdown.is_triggered() && shortage.should_log(1, Instant::now())
                    {
                        warn!(worker = self.core.counters.worker, %error, "cannot accept; trying on with pauses");
                    }
                    pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
                }
            }
        }
    }

    /// Accepts what is waiting in a listener that is about to be closed. Their number is that of its
    /// queue at most, so `limits.connections` does not matter any more: what they have sent would be
    /// lost.
    pub(crate) fn accept_the_rest(self: &Rc<Acceptor>, listener: &StdListener) {
        if listener.set_nonblocking(true).is_err() {
            return;
        }
        loop {
            let (stream, peer) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                // Nobody is waiting any more, or it would not end.
                Err(_) => return,
            };
            let adopted = stream
                .set_nonblocking(monoio::utils::is_legacy())
                .and_then(|()| TcpStream::from_std(stream));
            if let Ok(stream) = adopted {
                self.welcome(stream, peer);
            }
        }
    }

    /// Serves a connection in a task of its own.
    fn welcome(self: &Rc<Acceptor>, stream: TcpStream, peer: SocketAddr) {
        let peer = canonical(peer);
        self.core.counters.connections.inc();
        let limit = self.core.routing().table.limits.connections_per_peer;
        let place = limit.map(|limit| self.peers.enter(peer.ip(), limit));
        if matches!(place, Some(None)) {
            self.core.counters.closings.inc(Closing::Peer);
            debug!(worker = self.core.counters.worker, %peer, "connection closed: limits.connections_per_peer");
            return;
        }
        debug!(worker = self.core.counters.worker, %peer, "connection accepted");
        let pass = self.connections.acquire();
        self.balance.publish(self.connections.count());
        // Here and not in the task, which a worker that is stopping might not wait for otherwise.
        let newcomer = self.core.in_flight.acquire();
        let acceptor = Rc::clone(self);
        monoio::spawn(async move {
            let core = Rc::clone(&acceptor.core);
            let serving = pin!(serve(core, stream, peer, newcomer));
            if caught(serving).await.is_err() {
                let counters = &acceptor.core.counters;
                counters.count_request(RequestResult::Panicked, None);
            }
            drop((pass, place));
            acceptor.balance.publish(acceptor.connections.count());
        });
    }

    /// Waits until a connection is in the queue, which another worker or process may take first, or
    /// for the order to accept no more.
    async fn await_queue(&self, listener: &TcpListener) {
        let closing = self.closing.subscribe();
        // A failure shows in the accept that follows.
        let mut readable = pin!(listener.readable(false));
        poll_fn(|context| match readable.as_mut().poll(context) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => closing.poll_triggered(context),
        })
        .await;
    }

    /// Waits until fewer connections are open than `limits.connections`; `false` where the order to
    /// accept no more comes first.
    async fn await_room(&self) -> bool {
        let limit = || self.core.routing().table.limits.connections;
        if self.connections.count() >= limit() {
            self.core.counters.pauses.inc(Pause::Connections);
        }
        let closing = self.closing.subscribe();
        let mut below = pin!(self.connections.wait_below(limit));
        poll_fn(|context| match below.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending => closing.poll_triggered(context).map(|()| false),
        })
        .await
    }
}

/// The address as people write it. On a socket for both families the kernel maps those of IPv4 into
/// IPv6, as `::ffff:192.0.2.1` (RFC 4291 section 2.5.5.2).
fn canonical(peer: SocketAddr) -> SocketAddr {
    match peer.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::from((ip, peer.port())),
        IpAddr::V6(_) => peer,
    }
}
