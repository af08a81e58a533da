//! TLS handshakes of SDKs: how many at a time, and how much time they get.
//!
//! A handshake costs the mirror a signature, and its client next to nothing. So all of a worker get half of its time,
//! in turns, and there are at most `limits.tls_handshakes` of them.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use monoio::net::TcpStream;
use tracing::debug;

use crate::inbound::beginning::as_idle;
use crate::inbound::connection::{Accepted, Connection};
use crate::inbound::idle::{IdleConnections, IdleEntry, WaitEnd};
use crate::inbound::idle_list::Awaited;
use crate::inbound::session::refuse;
use crate::inbound::spares::Spares;
use crate::mirror::core::Core;
use crate::mirror::reply::rejection::Rejection;
use crate::mirror::reporting::worker_metrics::Closing;
use crate::net::server_stream::ServerStream;
use crate::net::tls_accept::{Beginning, Handshake, HandshakeResult, failure};
use crate::net::tls_server::TlsServer;
use crate::runtime::in_flight::{InFlight, InFlightGuard};
use crate::runtime::turn_queue::TurnQueue;
use crate::sys;
use crate::telemetry::label::Label;

/// The handshakes of one worker.
#[derive(Default)]
pub(super) struct Handshakes {
    open: Rc<InFlight>,
    /// Those that wait for their client.
    waiting: Rc<IdleConnections>,
    turns: TurnQueue,
}

/// Why a connection cannot be served.
enum Failed {
    /// It has ended without a byte: some connect only to see that the port is open.
    Silent,
    PlainHttp(Accepted),
    Ended(HandshakeResult),
    /// The client has yet to read why.
    Refused(HandshakeResult, Accepted),
}

impl Handshakes {
    /// Does the handshake until `deadline`. Returns `None` if the connection has ended, which is counted.
    pub(super) async fn accept(
        &self,
        core: &Core,
        spares: &Rc<Spares>,
        server: &TlsServer,
        accepted: Accepted<TcpStream>,
        idle: &IdleEntry,
        deadline: Instant,
    ) -> Option<Accepted> {
        let peer = accepted.peer;
        let limit = core.routing().table.limits.tls_handshakes;
        let ended = {
            let work = pin!(self.handshake(limit, server, accepted));
            as_idle(idle, deadline, work).await
        };
        match ended {
            Ok(Ok(accepted)) => {
                let received_bytes = &core.counters.received_bytes;
                received_bytes.add_bytes(accepted.received.len());
                count(core, HandshakeResult::Done, peer);
                return Some(accepted);
            }
            Ok(Err(Failed::Silent)) => {}
            Ok(Err(Failed::PlainHttp(plain))) => {
                count(core, HandshakeResult::PlainHttp, peer);
                refuse(core, plain, spares, &Rejection::PlainHttp).await;
            }
            Ok(Err(Failed::Ended(result))) => count(core, result, peer),
            Ok(Err(Failed::Refused(result, refused))) => {
                count(core, result, peer);
                let connection = Connection::new(refused, &core.counters, spares);
                connection.linger(&core.shutdown).await;
            }
            Err(WaitEnd::Expired) => count(core, HandshakeResult::Timeout, peer),
            Err(WaitEnd::ShutDown) => count(core, HandshakeResult::Gone, peer),
            Err(WaitEnd::Evicted) => {
                core.counters.closings.inc(Closing::Evicted);
                count(core, HandshakeResult::Evicted, peer);
            }
        }
        None
    }

    async fn handshake(
        &self,
        limit: usize,
        server: &TlsServer,
        accepted: Accepted<TcpStream>,
    ) -> Result<Accepted, Failed> {
        // Waits without a buffer and without a place.
        let Some(first) = first_byte(&accepted).await else {
            return Err(Failed::Silent);
        };
        match Beginning::of(first) {
            Beginning::Tls => {}
            Beginning::PlainHttp => return Err(Failed::PlainHttp(accepted.plain())),
            Beginning::Other => {
                return Err(Failed::Refused(HandshakeResult::NotTls, accepted.plain()));
            }
        }
        let _place = self
            .place(limit)
            .ok_or(Failed::Ended(HandshakeResult::Overloaded))?;
        let Accepted {
            stream: tcp,
            peer,
            received,
        } = accepted;
        let config = Arc::clone(&server.current().config);
        let handshake = Handshake::new(tcp, config);
        let mut handshake = handshake.map_err(|_| Failed::Ended(HandshakeResult::Protocol))?;
        let served = |(stream, received): (ServerStream, BytesMut)| Accepted {
            stream,
            peer,
            received,
        };
        match self.work(&mut handshake, received).await {
            Ok(Ok(())) => Ok(served(handshake.finish())),
            Ok(Err(refused)) => {
                let plain = (handshake.into_plain(), BytesMut::new());
                Err(Failed::Refused(refused, served(plain)))
            }
            Err(ended) => Err(Failed::Ended(ended)),
        }
    }

    /// Answers the client until the handshake is done, or refused with an alert, or the connection has ended.
    async fn work(
        &self,
        handshake: &mut Handshake,
        received: BytesMut,
    ) -> Result<Result<(), HandshakeResult>, HandshakeResult> {
        let broken = |error: io::Error| failure(&error);
        let entry = self.waiting.entry();
        let mut incoming = match received.is_empty() {
            true => handshake.read().await.map_err(broken)?,
            false => received,
        };
        loop {
            self.turns.wait_for_turn(Duration::ZERO).await;
            let started = Instant::now();
            let processed = handshake.process(incoming);
            let now = Instant::now();
            self.turns.record_work(now - started, now);
            let answered = handshake.answer().await;
            if processed == Err(HandshakeResult::Gone) {
                return Err(HandshakeResult::Gone);
            }
            if processed.is_err() {
                return Ok(processed);
            }
            answered.map_err(broken)?;
            if handshake.is_done() {
                return Ok(Ok(()));
            }
            entry.enter(Awaited::NextRequest, now);
            await_client(handshake, &entry).await?;
            entry.leave();
            incoming = handshake.read().await.map_err(broken)?;
        }
    }

    /// A place for another handshake: of the one that has waited longest for its client, if all are taken.
    fn place(&self, limit: usize) -> Option<InFlightGuard> {
        let is_full = self.open.count() >= limit;
        if is_full && !self.waiting.evict(Instant::now()) {
            return None;
        }
        Some(self.open.acquire())
    }
}

/// The first byte that the client has sent. `None` if the connection has ended.
async fn first_byte(accepted: &Accepted<TcpStream>) -> Option<u8> {
    if let Some(first) = accepted.received.first() {
        return Some(*first);
    }
    accepted.stream.readable(false).await.ok()?;
    let mut first = [0];
    match sys::peek(&accepted.stream, &mut first) {
        Ok(1) => Some(first[0]),
        _ => None,
    }
}

/// Waits until the client has sent something, or another handshake takes the place.
async fn await_client(handshake: &Handshake, entry: &IdleEntry) -> Result<(), HandshakeResult> {
    let mut readable = pin!(handshake.readable());
    poll_fn(|context| match readable.as_mut().poll(context) {
        Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
        Poll::Ready(Err(_)) => Poll::Ready(Err(HandshakeResult::Gone)),
        Poll::Pending => entry
            .poll_end(context)
            .map(|_| Err(HandshakeResult::Evicted)),
    })
    .await
}

fn count(core: &Core, result: HandshakeResult, peer: SocketAddr) {
    core.counters.handshakes.inc(result);
    if result != HandshakeResult::Done {
        let worker = core.counters.worker;
        debug!(worker, %peer, result = result.word(), "no TLS session");
    }
}
