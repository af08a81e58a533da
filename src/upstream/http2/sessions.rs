//! One worker's HTTP/2 connections to an origin: which one a delivery goes over, and when another is opened.
//!
//! A delivery goes over the session with the fewest deliveries. The first ones wait until a session is open. While it
//! is busy, a second one is opened, so that a lost packet does not hold up all deliveries; further ones follow when
//! the streams that the server allows run short.
//!
//! A server that does not offer HTTP/2 has opened a connection for HTTP/1.1 by saying so. That goes into the other
//! pool, and the origin is not asked again for a while.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use monoio::time::sleep;
use tracing::info;

use crate::http2::connection::OpenError;
use crate::http2::mode::Http2Mode;
use crate::limits::Limits;
use crate::net::transfer::Transfer;
use crate::runtime::deadline::in_time;
use crate::runtime::memory_budget::MemoryBudget;
use crate::runtime::panics::caught;
use crate::upstream::addresses::Address;
use crate::upstream::connections::Connections;
use crate::upstream::connector::{Offer, connect_offering};
use crate::upstream::counters::{OriginCounters, SessionEnd};
use crate::upstream::exchange::{Failure, OutboundRequest};
use crate::upstream::http2::session::{Reservation, Session};
use crate::upstream::http2::slots::Repeat;
use crate::upstream::http2::tasks;
use crate::upstream::jitter::Pause;
use crate::upstream::origin::SharedOrigin;
use crate::upstream::pooled::PooledConnection;
use crate::upstream::response::Response;
use crate::upstream::waiting::{Client, Granted, Place, Waiting, Wanted};

/// Under `auto`, larger requests go over HTTP/1.1: an upload that waits for the windows of HTTP/2 is as slow as the
/// server's windows are small.
const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// From this number of deliveries on a session is busy, so that a second one is worth it.
const BUSY: usize = 8;

/// How many sessions are opened at a time.
const DIALS_MAX: usize = 2;

/// The most sessions. With the streams that most servers allow, they carry 6,400 deliveries.
const SESSIONS_MAX: usize = 64;

/// How often a request is sent that the upstream has not processed. When a server closes each connection after some
/// number of requests, as nginx does, several connections may reach it one after another.
const SENDS_MAX: u32 = 8;

/// How long a delivery rests after the first refusal (`REFUSED_STREAM`): the server has no room at the moment, and what
/// is sent again at once only adds to that. Each further one doubles it, so all of them take 1.3 s at most.
const REFUSAL_PAUSE: Duration = Duration::from_millis(10);

pub(crate) struct Sessions {
    shared: Arc<SharedOrigin>,
    /// Those of HTTP/1.1. They get the connections over which the server chose that.
    connections: Rc<Connections>,
    budget: Rc<MemoryBudget>,
    sessions: RefCell<Vec<Rc<Session>>>,
    waiting: Waiting<Channel>,
    dialing: Cell<usize>,
}

/// What a delivery that waited is sent over.
enum Channel {
    Stream(Reservation),
    /// Over this connection, if it is the one that has shown this.
    Http1(Option<Box<PooledConnection>>),
}

/// What was opened.
enum Opened {
    Session(Rc<Session>),
    /// The server chose HTTP/1.1.
    Http1(Box<PooledConnection>),
}

/// What a delivery can be sent over at once.
enum Choice {
    Stream(Reservation),
    /// All windows are smaller than its body.
    Http1,
    Wait,
}

/// How a delivery ended.
pub(crate) enum Carried {
    Ended(Result<Response, Failure>),
    /// It has to go over HTTP/1.1, and over this connection, if there is one.
    OverHttp1(Option<Box<PooledConnection>>),
}

/// What a delivery takes along.
#[derive(Clone, Copy)]
pub(crate) struct Context<'d> {
    pub(crate) limits: &'d Limits,
    pub(crate) client: &'d Rc<dyn Client>,
    pub(crate) transfer: &'d Transfer,
    /// Cleared while it waits for a connection.
    pub(crate) has_connection: &'d Cell<bool>,
    /// Cleared if its failure is part of another one.
    pub(crate) is_counted: &'d Cell<bool>,
    /// Over HTTP/1.1: the address that was silent when its exchange was given up.
    pub(crate) given_up: &'d Cell<Option<Arc<Address>>>,
}

impl Sessions {
    pub(crate) fn new(connections: &Rc<Connections>, budget: Rc<MemoryBudget>) -> Rc<Sessions> {
        Rc::new(Sessions {
            shared: Arc::clone(connections.origin()),
            connections: Rc::clone(connections),
            budget,
            sessions: RefCell::default(),
            waiting: Waiting::default(),
            dialing: Cell::default(),
        })
    }

    /// Whether a request of this size goes over HTTP/2.
    pub(crate) fn take(&self, request_bytes: usize, now: Instant) -> bool {
        match self.shared.protocol.mode() {
            Http2Mode::Off => false,
            Http2Mode::Required | Http2Mode::H2c => true,
            Http2Mode::Auto => {
                self.shared.tls.is_some()
                    && request_bytes <= REQUEST_BYTES_MAX
                    && !self.shared.protocol.is_http1(now)
            }
        }
    }

    /// Delivers `request`.
    pub(crate) async fn deliver(
        self: &Rc<Sessions>,
        request: &OutboundRequest,
        begun: Instant,
        context: Context<'_>,
    ) -> Carried {
        let mut sends = 0;
        let mut was_stale = false;
        let mut now = begun;
        loop {
            let reservation = match self.choose(request.bytes(), now) {
                Choice::Stream(reservation) => reservation,
                Choice::Http1 => return Carried::OverHttp1(None),
                Choice::Wait => {
                    context.has_connection.set(false);
                    // Boxed because it is rare: every delivery would carry the space for it.
                    match Box::pin(self.wait(context.client, now)).await {
                        Ok(Channel::Stream(reservation)) => reservation,
                        Ok(Channel::Http1(opened)) => return Carried::OverHttp1(opened),
                        Err(failure) => return Carried::Ended(Err(failure)),
                    }
                }
            };
            context.has_connection.set(true);
            let lost = {
                let _freed = Freed(self);
                let stream = match reservation.open(request, context.limits.response_bytes, now) {
                    Ok(stream) => stream,
                    // It has ended meanwhile.
                    Err(OpenError::NoStream) => continue,
                    Err(OpenError::Head) if self.shared.protocol.mode().allows_http1() => {
                        return Carried::OverHttp1(None);
                    }
                    Err(OpenError::Head) => {
                        let error = "the server takes no head of this form or length over HTTP/2";
                        let error = io::Error::new(io::ErrorKind::InvalidInput, error);
                        context.is_counted.set(false);
                        return Carried::Ended(Err(Failure::Send(error.into())));
                    }
                };
                self.counters().streams.inc();
                match stream.exchange(request, context.transfer, now).await {
                    Ok(response) => return Carried::Ended(Ok(response)),
                    Err(lost) => lost,
                }
            };
            sends += 1;
            now = Instant::now();
            if lost.wants_http1 && self.shared.protocol.mode().allows_http1() {
                self.shared.protocol.record_http1(now);
                return Carried::OverHttp1(None);
            }
            let again_at = match lost.repeat {
                Repeat::Refused => Pause::begin(now).end(refusal_pause(sends)),
                Repeat::No | Repeat::Once | Repeat::Unprocessed => now,
            };
            let is_late = again_at >= begun + context.limits.timeouts.exchange;
            let may_repeat = match lost.repeat {
                Repeat::No => false,
                Repeat::Once => !std::mem::replace(&mut was_stale, true),
                Repeat::Unprocessed | Repeat::Refused => !is_late,
            };
            if !may_repeat || sends >= SENDS_MAX {
                context.is_counted.set(lost.is_counted);
                return Carried::Ended(Err(lost.failure));
            }
            self.counters().retries.inc();
            if again_at > now {
                // Boxed because it is rare, as above.
                Box::pin(sleep(again_at.saturating_duration_since(now))).await;
                now = Instant::now();
            }
        }
    }

    /// Closes what is old, idle, or not wanted any more, and publishes the gauges. To be called once a second.
    pub(crate) fn sweep(self: &Rc<Sessions>, now: Instant, limits: &Limits) {
        self.waiting.sweep();
        let mode = self.shared.protocol.mode();
        let mut sessions = self.sessions.borrow_mut();
        sessions.retain(|session| {
            if mode == Http2Mode::Off {
                session.retire(SessionEnd::Off);
            } else if now.saturating_duration_since(session.opened_at) >= limits.pool.max_age {
                session.retire(SessionEnd::Old);
            } else if session.address.is_retired(now) {
                session.retire(SessionEnd::Moved);
            } else if session.idle_for(now) >= Some(limits.pool.idle_timeout) {
                session.retire(SessionEnd::Idle);
            }
            !session.has_ended()
        });
        let counters = self.counters();
        counters.http2_open.set(sessions.len());
        let streams = sessions.iter().map(|session| session.deliveries());
        counters.open_streams.set(streams.sum());
        drop(sessions);
        self.grant();
        self.start_dials();
    }

    fn counters(&self) -> &OriginCounters {
        self.connections.counters()
    }

    /// Chooses what a request of this size goes over.
    fn choose(self: &Rc<Sessions>, request_bytes: usize, now: Instant) -> Choice {
        let sessions = self.sessions.borrow();
        let usable = sessions.iter().filter(|session| session.is_usable(now));
        let Some(best) = usable.min_by_key(|session| session.deliveries()) else {
            return Choice::Wait;
        };
        if self.shared.protocol.mode().allows_http1() && best.free_window() < request_bytes {
            return Choice::Http1;
        }
        let is_alone = sessions.len() == 1 && best.deliveries() >= BUSY;
        let wants_more = is_alone || best.is_crowded();
        let reservation = best.reserve();
        if wants_more && self.dialing.get() == 0 && sessions.len() < SESSIONS_MAX {
            drop(sessions);
            self.start_dial();
        }
        Choice::Stream(reservation)
    }

    async fn wait(self: &Rc<Sessions>, client: &Rc<dyn Client>, now: Instant) -> Granted<Channel> {
        self.counters().waited.inc();
        let attempt = Attempt {
            sessions: self,
            place: self.waiting.enter(Wanted::Any, client, now),
        };
        attempt.place.want_dial();
        self.start_dials();
        attempt.place.granted().await
    }

    /// Gives free streams to the deliveries that wait.
    fn grant(&self) {
        if self.waiting.count() == 0 {
            return;
        }
        let now = Instant::now();
        for session in self.sessions.borrow().iter() {
            while session.is_usable(now) {
                let granted = self
                    .waiting
                    .grant_returned(Channel::Stream(session.reserve()));
                if granted.is_some() {
                    return;
                }
            }
        }
    }

    /// Sends all deliveries that wait over HTTP/1.1, the first one over `opened`.
    fn grant_http1(&self, opened: Box<PooledConnection>) {
        let mut unwanted = self.waiting.grant_returned(Channel::Http1(Some(opened)));
        if let Some(Channel::Http1(Some(opened))) = unwanted {
            return self.connections.add_unused(opened, Instant::now());
        }
        while unwanted.is_none() {
            unwanted = self.waiting.grant_returned(Channel::Http1(None));
        }
    }

    /// Opens as many sessions as the deliveries that wait need.
    fn start_dials(self: &Rc<Sessions>) {
        let wanted = self.waiting.dials_wanted().min(DIALS_MAX);
        let is_first = self.sessions.borrow().is_empty();
        // The first one may show that the server does not speak HTTP/2.
        let wanted = if is_first { wanted.min(1) } else { wanted };
        while self.dialing.get() < wanted && self.sessions.borrow().len() < SESSIONS_MAX {
            self.start_dial();
        }
    }

    fn start_dial(self: &Rc<Sessions>) {
        self.dialing.set(self.dialing.get() + 1);
        monoio::spawn(Rc::clone(self).dial());
    }

    async fn dial(self: Rc<Sessions>) {
        let begun = Instant::now();
        let opening = pin!(self.open(begun));
        let opened = caught(opening).await;
        self.dialing.set(self.dialing.get() - 1);
        match opened {
            Ok(Ok(Opened::Session(session))) => {
                self.counters().opened.inc();
                self.counters().http2_opened.inc();
                self.sessions.borrow_mut().push(session);
                self.grant();
            }
            Ok(Ok(Opened::Http1(pooled))) => self.grant_http1(pooled),
            Ok(Err(failure)) => self.fail_dial(&failure, begun),
            Err(_panicked) => {
                let error = io::Error::other("a bug in this program: connecting panicked");
                self.fail_dial(&Failure::Connect(error.into()), begun);
            }
        }
    }

    fn fail_dial(&self, failure: &Failure, begun: Instant) {
        let is_served = self
            .sessions
            .borrow()
            .iter()
            .any(|session| !session.is_ending());
        // Otherwise streams will become free.
        let failed_max = if is_served { 1 } else { usize::MAX };
        self.waiting.fail(failure, begun, failed_max);
    }

    async fn open(&self, begun: Instant) -> Result<Opened, Failure> {
        let mode = self.shared.protocol.mode();
        let offer = match mode {
            Http2Mode::Required => Offer::Http2,
            Http2Mode::Off | Http2Mode::Auto | Http2Mode::H2c => Offer::Both,
        };
        let limit = self.connections.limits().timeouts.connect;
        let worker = self.connections.worker();
        let connecting = connect_offering(offer, &self.shared, worker, &[], limit);
        let connected = connecting.await?;
        if mode != Http2Mode::H2c && !connected.is_http2() {
            if !mode.allows_http1() {
                let error = io::Error::other("the server does not offer HTTP/2");
                return Err(Failure::Tls(error.into()));
            }
            let now = Instant::now();
            if self.shared.protocol.record_http1(now) {
                info!(origin = %self.shared.origin, "the upstream does not offer HTTP/2; it gets HTTP/1.1");
            }
            return Ok(Opened::Http1(self.connections.adopt(connected, now)));
        }
        let address = Arc::clone(&connected.address);
        let session = Session::new(
            Arc::clone(&self.shared),
            worker,
            connected.address,
            Rc::clone(&self.budget),
            Instant::now(),
        );
        tasks::start(&session, connected.stream).map_err(|error| Failure::Connect(error.into()))?;
        let opened = {
            let opened = pin!(session.opened());
            in_time(Instant::now() + limit, opened).await
        };
        if let Err(failure) = opened.unwrap_or(Err(Failure::ConnectTimeout)) {
            self.shared
                .record_address_failed(&address, begun, Instant::now());
            session.end(failure.clone(), SessionEnd::Silent);
            return Err(failure);
        }
        Ok(Opened::Session(session))
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        for session in self.sessions.get_mut() {
            session.retire(SessionEnd::Off);
        }
    }
}

/// The longest pause after so many refusals.
fn refusal_pause(refusals: u32) -> Duration {
    REFUSAL_PAUSE * 2_u32.saturating_pow(refusals.saturating_sub(1))
}

/// Passes on the stream that a delivery has freed.
struct Freed<'s>(&'s Rc<Sessions>);

impl Drop for Freed<'_> {
    fn drop(&mut self) {
        self.0.grant();
    }
}

/// A delivery's wait for a stream.
struct Attempt<'s> {
    sessions: &'s Rc<Sessions>,
    place: Place<'s, Channel>,
}

impl Drop for Attempt<'_> {
    /// A delivery that gives up passes on what was granted to it just before.
    fn drop(&mut self) {
        match self.place.take_granted() {
            Some(Ok(Channel::Http1(Some(opened)))) => {
                let connections = &self.sessions.connections;
                connections.add_unused(opened, Instant::now());
            }
            Some(_) => self.sessions.grant(),
            None => {}
        }
    }
}
