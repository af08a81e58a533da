//! How a worker comes by its connections.
//!
//! All workers accept from one socket, each as many as it has room for. What goes wrong with one
//! connection, or with all of them for a while, never ends the accepting: only the order to stop does,
//! after which the rest of the queue is taken over.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use monoio::net::{TcpListener, TcpStream};
use monoio::time::sleep;
use tracing::{debug, info, warn};

use crate::mirror::counters::RequestResult;
use crate::mirror::totals::{Closing, Pause};
use crate::observe::change::LogOnChange;
use crate::panics::caught;
use crate::server::inbound;
use crate::server::worker::Worker;

/// The pause after a failed accept, which doubles up to the longest one. Without it, running out of
/// file descriptors makes accept fail 400,000 times a second.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_millis(200);

impl Worker {
    /// Accepts until told to accept no more.
    pub(super) async fn accept(self: &Rc<Worker>, listener: &TcpListener) {
        let mut pause = ACCEPT_PAUSE;
        // At the limit every connection that ends lets one in before the next fails.
        let shortage = LogOnChange::new();
        while !self.closing.is_ordered() {
            if !self.await_room().await {
                return;
            }
            self.balance.let_others_catch_up().await;
            if self.closing.is_ordered() {
                return;
            }
            // Never dropped: an accept that is dropped after it was done loses a connection. The
            // order to close cancels it, and it is waited for all the same: it may have been faster.
            let handle = self.accepting.borrow().handle();
            match listener.cancelable_accept(handle).await {
                Ok((stream, peer)) => {
                    pause = ACCEPT_PAUSE;
                    if shortage.should_log(0, Instant::now()) {
                        info!(worker = self.index, "accepting without pauses again");
                    }
                    self.welcome(stream, peer);
                }
                Err(_) if self.closing.is_ordered() => {}
                // The client gave up while it waited; the next one may be fine.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                // A ring cannot wait in a socket that was passed, nor in any once another worker takes
                // over the rest of its queue.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.await_queue(listener).await;
                }
                Err(error) => {
                    self.counters.pauses.inc(Pause::Error);
                    sleep(pause).await;
                    if !self.stop.is_ordered() && shortage.should_log(1, Instant::now()) {
                        warn!(worker = self.index, %error, "cannot accept; trying on with pauses");
                    }
                    pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
                }
            }
        }
    }

    /// Accepts what is waiting in a listener that is about to be closed. Their number is that of its
    /// queue at most, so `limits.connections` does not matter any more: what they have sent would be
    /// lost.
    pub(super) fn accept_the_rest(self: &Rc<Worker>, listener: &StdListener) {
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
    fn welcome(self: &Rc<Worker>, stream: TcpStream, peer: SocketAddr) {
        let peer = canonical(peer);
        self.counters.connections.inc();
        let limit = self.routing().plan.limits.connections_per_peer;
        let place = limit.map(|limit| self.peers.enter(peer.ip(), limit));
        if matches!(place, Some(None)) {
            self.counters.closings.inc(Closing::Peer);
            debug!(worker = self.index, %peer, "connection closed: limits.connections_per_peer");
            return;
        }
        debug!(worker = self.index, %peer, "connection accepted");
        let pass = self.connections.enter();
        self.balance.publish(self.connections.inside());
        // Here and not in the task, which a worker that is stopping might not wait for otherwise.
        let newcomer = self.gate.enter();
        let worker = Rc::clone(self);
        monoio::spawn(async move {
            let serving = pin!(inbound::serve(Rc::clone(&worker), stream, peer, newcomer));
            if caught(serving).await.is_err() {
                worker.counters.answered(RequestResult::Panicked, None);
            }
            drop((pass, place));
            worker.balance.publish(worker.connections.inside());
        });
    }

    /// Waits until a connection is in the queue, which another worker or process may take first, or
    /// for the order to accept no more.
    async fn await_queue(&self, listener: &TcpListener) {
        let closing = self.closing.listener();
        // A failure shows in the accept that follows.
        let mut readable = pin!(listener.readable(false));
        poll_fn(|context| match readable.as_mut().poll(context) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => closing.poll_ordered(context),
        })
        .await;
    }

    /// Waits until fewer connections are open than `limits.connections`; `false` where the order to
    /// accept no more comes first.
    async fn await_room(&self) -> bool {
        let limit = || self.routing().plan.limits.connections;
        if self.connections.inside() >= limit() {
            self.counters.pauses.inc(Pause::Connections);
        }
        let closing = self.closing.listener();
        let mut below = pin!(self.connections.below(limit));
        poll_fn(|context| match below.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending => closing.poll_ordered(context).map(|()| false),
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
