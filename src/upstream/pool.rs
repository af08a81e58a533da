//! A worker's own side of an origin: its idle connections, its cap on deliveries in flight, and the
//! one retry that a stale connection deserves.
//!
//! Connections are taken youngest first, so that the surplus of a peak grows old and is swept. Beyond
//! a handful, a delivery waits a moment for one to come back before it opens another: a server that
//! answers fast is not helped by more of them, and each costs it memory and a handshake.
//! A connection comes back only after an exchange that ended cleanly; one whose exchange failed or
//! was dropped by a deadline is dropped with it, and so can never hand one request's answer to
//! another. Each is looked at before it is used again: what has come over it meanwhile was meant for
//! nobody. That suspends the pool, see [`pooling`].
//!
//! [`pooling`]: crate::upstream::pooling

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use monoio::time::{sleep, timeout};
use tracing::debug;

use crate::budget::Budget;
use crate::deadline::in_time;
use crate::limits::Limits;
use crate::upstream::breaker::{Breaker, Sender};
use crate::upstream::connect::connect;
use crate::upstream::counters::{Dropped, OriginCounters};
use crate::upstream::exchange::{Connection, Failure, Request};
use crate::upstream::origin::SharedOrigin;
use crate::upstream::response::Response;
use crate::upstream::socket::IdleState;

pub(crate) use crate::budget::Admission;

/// How many deliveries may be in flight before another one waits for a connection to come back.
const EAGER_CONNECTIONS: usize = 16;

/// How long it waits: longer than a fast server takes, shorter than anybody would notice.
const COMEBACK_PATIENCE: Duration = Duration::from_millis(10);

/// How many idle connections a delivery looks at that turn out not to be usable, before it opens one. Where
/// all have grown old, or were closed by the upstream, it leaves the others to those that come after it.
const LOOKS_MAX: usize = 8;

/// How many connections are closed in one go, and how long others get their turn then. Closing one takes
/// some microseconds, and after a burst thousands grow old at the same time.
const CLOSED_AT_ONCE: usize = 16;
const CLOSING_PAUSE: Duration = Duration::from_millis(1);

/// One worker's connections to one origin.
pub struct Pool {
    shared: Arc<SharedOrigin>,
    limits: RefCell<Rc<Limits>>,
    /// The origin's part of the worker's budget.
    budget: Rc<Budget>,
    idle: RefCell<VecDeque<Box<PooledConnection>>>,
    /// Deliveries that wait for a connection, in order. One that is gone has left nothing behind.
    waiting: RefCell<VecDeque<Weak<Waiter>>>,
    in_flight: Cell<usize>,
    open: Rc<Cell<usize>>,
    /// How many connections were opened so far.
    opened: Cell<u32>,
    breaker: Breaker,
    worker: usize,
}

/// A delivery that waits for a connection.
#[derive(Default)]
struct Waiter {
    given: RefCell<Option<Box<PooledConnection>>>,
    waker: RefCell<Option<Waker>>,
}

/// A connection and what says how long it is kept. It is on the heap from its opening to its end: it goes
/// from hand to hand with every delivery, and has some hundred bytes.
struct PooledConnection {
    connection: Connection,
    opened: OpenGuard,
    idle_since: Instant,
}

/// A connection counted as open, and when it is taken to be opened; counts itself out when dropped.
struct OpenGuard {
    at: Instant,
    open: Rc<Cell<usize>>,
}

impl Pool {
    /// An upstream without any connection yet, of the worker with this number. What it takes is a part of
    /// `budget`, without a bound of its own until [`Pool::set_share`].
    pub fn new(
        shared: Arc<SharedOrigin>,
        limits: Rc<Limits>,
        budget: &Rc<Budget>,
        worker: usize,
    ) -> Pool {
        Pool {
            shared,
            limits: RefCell::new(limits),
            budget: budget.part(usize::MAX),
            idle: RefCell::default(),
            waiting: RefCell::default(),
            in_flight: Cell::new(0),
            open: Rc::default(),
            opened: Cell::new(0),
            breaker: Breaker::default(),
            worker,
        }
    }

    /// Goes on with other limits; deliveries under way end as they began.
    pub fn set_limits(&self, limits: Rc<Limits>) {
        *self.limits.borrow_mut() = limits;
        self.breaker.forget_senders();
    }

    /// Changes its share of the worker's budget.
    pub fn set_share(&self, bytes: usize) {
        self.budget.set_limit(bytes);
    }

    /// Admission for a delivery that takes `own` bytes, and keeps alive `kept` bytes that its request has
    /// reserved. `None` where there is none, or deliveries to this origin take its share.
    pub fn admit(&self, own: usize, kept: usize) -> Option<Admission> {
        self.budget.admit(own, kept)
    }

    fn limits(&self) -> Rc<Limits> {
        Rc::clone(&self.limits.borrow())
    }

    /// Delivers `request`, which was begun at `begun`, a moment ago: within `timeouts.exchange` from
    /// then on. Says what came of it, and when. `sender` is the same for all requests that the upstream may
    /// treat alike, and that may suffer for each other: those of a route.
    ///
    /// # Errors
    /// Why there is no answer. The request may have arrived all the same.
    pub async fn deliver(
        &self,
        request: &mut Request,
        begun: Instant,
        sender: Sender,
    ) -> (Result<Response, Failure>, Instant) {
        let limits = self.limits();
        let Some(_slot) = InFlightGuard::take(&self.in_flight, limits.in_flight) else {
            return (Err(Failure::Overloaded), begun);
        };
        let Some(permit) = self.breaker.admits(sender, begun, &limits) else {
            return (Err(Failure::Paused), begun);
        };
        // It has two kilobytes, and stays where it is.
        let attempt = pin!(self.attempt(request, begun, &limits));
        let deadline = begun + limits.timeouts.exchange;
        let attempted = in_time(deadline, attempt).await;
        let ended = Instant::now();
        let result = match attempted.unwrap_or(Err(Failure::Timeout)) {
            Ok((response, kept)) => {
                self.put_back(kept, ended, &limits);
                Ok(response)
            }
            Err(failure) => Err(failure),
        };
        let unanswered = result.as_ref().err().and_then(Failure::unanswered);
        match (&result, unanswered) {
            (Err(failure), Some(how)) => {
                self.breaker.failed(permit, how, ended, &limits);
                self.shared.failed(failure, ended);
            }
            // Our own shortage, of descriptors for example.
            (Err(Failure::Connect(_)), None) => self.breaker.passed(permit, ended),
            (Ok(_) | Err(_), _) => {
                self.breaker.answered(ended);
                self.shared.answered(ended);
            }
        }
        (result, ended)
    }

    /// Closes the idle connections that have waited or lived too long, a few at a time, forgets who
    /// waits no more, and publishes how things stand.
    pub async fn sweep(&self, now: Instant) {
        // Those who lost patience with an upstream that gives nothing back.
        let is_waiting = |waiter: &Weak<Waiter>| waiter.strong_count() > 0;
        self.waiting.borrow_mut().retain(is_waiting);
        let mut closing = self.take_expired(now);
        while !closing.is_empty() {
            closing.truncate(closing.len().saturating_sub(CLOSED_AT_ONCE));
            sleep(CLOSING_PAUSE).await;
        }
        let counters = self.counters();
        counters.idle.set(self.idle.borrow().len());
        counters.open.set(self.open.get());
        counters.in_flight.set(self.in_flight.get());
        counters.breaker.set(self.breaker.state(now) as usize);
    }

    /// Takes out the idle connections that may not be kept, and counts them.
    fn take_expired(&self, now: Instant) -> VecDeque<Box<PooledConnection>> {
        let limits = self.limits();
        let mut idle = self.idle.borrow_mut();
        let mut expired = VecDeque::new();
        if !self.shared.is_pooled(now) {
            self.counters()
                .dropped
                .add(Dropped::Suspended, idle.len() as u64);
            return std::mem::take(&mut idle);
        }
        for _ in 0..idle.len() {
            let Some(kept) = idle.pop_front() else { break };
            match self.is_fresh(&kept, now, &limits) {
                true => idle.push_back(kept),
                false => expired.push_back(kept),
            }
        }
        while idle.len() > limits.pool.idle_connections {
            self.counters().dropped.inc(Dropped::Surplus);
            expired.extend(idle.pop_front());
        }
        expired
    }

    fn counters(&self) -> &OriginCounters {
        self.shared.counters.for_worker(self.worker)
    }

    /// The origin that these are connections to.
    pub fn origin(&self) -> &Arc<SharedOrigin> {
        &self.shared
    }

    /// Sends over a pooled connection, and once more over a fresh one where the pooled one was stale:
    /// most likely the upstream never saw the request.
    async fn attempt(
        &self,
        request: &mut Request,
        begun: Instant,
        limits: &Limits,
    ) -> Result<(Response, Box<PooledConnection>), Failure> {
        if let Some(mut kept) = self.reuse(begun, limits).await {
            self.counters().reused.inc();
            let result = kept.connection.exchange(request, limits).await;
            if !kept.connection.was_stale(&result) {
                return result.map(|response| (response, kept));
            }
            if let Err(Failure::Malformed(_)) = result {
                self.found_unsolicited(kept.connection.unread(), Instant::now());
            }
            self.counters().retries.inc();
            debug!(origin = %self.shared.origin, "a reused connection was given up; trying a fresh one");
        }
        // Apart from the rest, because it is rare and large: every delivery would carry the room for it.
        let connecting = Box::pin(connect(&self.shared, limits.timeouts.connect));
        let stream = connecting.await?;
        self.counters().opened.inc();
        let opened = OpenGuard::new(&self.open, self.head_start(limits));
        let mut kept = Box::new(PooledConnection {
            connection: Connection::new(stream, self.budget.reservation()),
            idle_since: Instant::now(),
            opened,
        });
        let response = kept.connection.exchange(request, limits).await?;
        Ok((response, kept))
    }

    /// How much older the next connection is taken for than it is: up to a quarter of `pool.max_age`. What
    /// is opened together would otherwise be closed together, and be missing.
    fn head_start(&self, limits: &Limits) -> Duration {
        let number = self.opened.get().wrapping_add(1);
        self.opened.set(number);
        // By the golden ratio, any few in a row are far apart.
        let part = number.wrapping_mul(0x9e37_79b9) >> 24;
        limits.pool.max_age / 1024 * part
    }

    /// A connection that is open already, if there is one or one comes back soon.
    async fn reuse(&self, now: Instant, limits: &Limits) -> Option<Box<PooledConnection>> {
        if !self.shared.is_pooled(now) {
            return None;
        }
        if let Some(idle) = self.take_idle(now, limits) {
            return Some(idle);
        }
        if self.in_flight.get() <= EAGER_CONNECTIONS || !self.shared.is_pooled(now) {
            return None;
        }
        let waiter = Rc::new(Waiter::default());
        self.waiting.borrow_mut().push_back(Rc::downgrade(&waiter));
        let given = poll_fn(|context| waiter.poll_given(context));
        timeout(COMEBACK_PATIENCE, given)
            .await
            .ok()
            // It may have come in the very moment in which patience ended.
            .or_else(|| waiter.given.borrow_mut().take())
            .filter(|_| self.shared.is_pooled(now))
            .and_then(|given| self.quiet(given))
    }

    fn take_idle(&self, now: Instant, limits: &Limits) -> Option<Box<PooledConnection>> {
        let mut idle = self.idle.borrow_mut();
        for _ in 0..LOOKS_MAX {
            let waiting = idle.pop_back()?;
            if !self.is_fresh(&waiting, now, limits) {
                continue;
            }
            if let Some(quiet) = self.quiet(waiting) {
                return Some(quiet);
            }
            if !self.shared.is_pooled(now) {
                return None;
            }
        }
        None
    }

    /// The connection, where nothing has come over it since its last answer. It is closed, and counted,
    /// where something has.
    fn quiet(&self, mut kept: Box<PooledConnection>) -> Option<Box<PooledConnection>> {
        match kept.connection.idle_state() {
            IdleState::Quiet => return Some(kept),
            IdleState::Closed => self.counters().stale.inc(),
            IdleState::Unsolicited(bytes) => self.found_unsolicited(&bytes, Instant::now()),
        }
        None
    }

    /// Takes note of what came over a connection, which is closed now, and belongs to no request.
    fn found_unsolicited(&self, bytes: &[u8], now: Instant) {
        self.counters().dropped.inc(Dropped::Unsolicited);
        self.shared.sent_unsolicited(bytes, now);
    }

    fn put_back(&self, mut returned: Box<PooledConnection>, now: Instant, limits: &Limits) {
        returned.idle_since = now;
        if returned.connection.is_overfull() {
            return self.found_unsolicited(returned.connection.unread(), now);
        }
        if !returned.connection.is_reusable() || !self.is_fresh(&returned, now, limits) {
            return;
        }
        if !self.shared.is_pooled(now) {
            self.counters().dropped.inc(Dropped::Suspended);
            return returned.connection.close_at_once();
        }
        if let Some(waiter) = self.next_waiter() {
            return waiter.give(returned);
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() < limits.pool.idle_connections {
            idle.push_back(returned);
        } else {
            self.counters().dropped.inc(Dropped::Surplus);
        }
    }

    /// Whether a connection may be kept; counts it where it may not.
    fn is_fresh(&self, kept: &PooledConnection, now: Instant, limits: &Limits) -> bool {
        let reason = kept.reason_to_drop(now, limits);
        if let Some(reason) = reason {
            self.counters().dropped.inc(reason);
        }
        reason.is_none()
    }

    /// The one who has waited longest.
    fn next_waiter(&self) -> Option<Rc<Waiter>> {
        let mut waiting = self.waiting.borrow_mut();
        while let Some(waiter) = waiting.pop_front() {
            if let Some(waiter) = waiter.upgrade() {
                return Some(waiter);
            }
        }
        None
    }
}

impl Waiter {
    fn give(&self, connection: Box<PooledConnection>) {
        *self.given.borrow_mut() = Some(connection);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    fn poll_given(&self, context: &Context<'_>) -> Poll<Box<PooledConnection>> {
        match self.given.borrow_mut().take() {
            Some(connection) => Poll::Ready(connection),
            None => {
                *self.waker.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl PooledConnection {
    fn reason_to_drop(&self, now: Instant, limits: &Limits) -> Option<Dropped> {
        if now.duration_since(self.opened.at) >= limits.pool.max_age {
            Some(Dropped::Old)
        } else if now.duration_since(self.idle_since) >= limits.pool.idle_timeout {
            Some(Dropped::Idle)
        } else {
            None
        }
    }
}

impl OpenGuard {
    fn new(open: &Rc<Cell<usize>>, head_start: Duration) -> OpenGuard {
        open.set(open.get() + 1);
        let now = Instant::now();
        OpenGuard {
            at: now.checked_sub(head_start).unwrap_or(now),
            open: Rc::clone(open),
        }
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.open.set(self.open.get() - 1);
    }
}

/// One delivery in flight; counts itself out when dropped.
struct InFlightGuard<'u> {
    in_flight: &'u Cell<usize>,
}

impl<'u> InFlightGuard<'u> {
    fn take(in_flight: &'u Cell<usize>, limit: usize) -> Option<InFlightGuard<'u>> {
        if in_flight.get() >= limit {
            return None;
        }
        in_flight.set(in_flight.get() + 1);
        Some(InFlightGuard { in_flight })
    }
}

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        self.in_flight.set(self.in_flight.get() - 1);
    }
}
