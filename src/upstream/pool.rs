//! One worker's connection pool for an origin, with its limit on deliveries in flight and the retry of
//! a stale connection.
//!
//! The most recently used connection is reused first, so that the surplus of a peak grows old and is
//! closed. Beyond a handful of connections, a delivery waits a moment for one to be returned before it
//! opens another: more connections do not make a fast server faster, and each costs it memory and a
//! handshake. A connection is returned only after an exchange that ended cleanly. If the exchange fails or
//! is dropped at a deadline, its connection is dropped with it, so that no response can reach another
//! request. Each connection is checked before it is reused: unsolicited data suspends the pool, see
//! [`pooling`].
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

use crate::limits::Limits;
use crate::net::socket::IdleState;
use crate::net::transfer::Transfer;
use crate::runtime::memory_budget::MemoryBudget;
use crate::upstream::addresses::Address;
use crate::upstream::breaker::RouteId;
use crate::upstream::connector::connect;
use crate::upstream::counters::{Dropped, OriginCounters};
use crate::upstream::exchange::{Connection, Failure, OutboundRequest};
use crate::upstream::origin::SharedOrigin;
use crate::upstream::probe::ensure_prober;
use crate::upstream::response::Response;
use crate::upstream::silence::unless_silent;

pub(crate) use crate::runtime::memory_budget::Admission;

/// Up to this number of deliveries in flight, a delivery opens a connection without waiting for one to be returned.
const EAGER_CONNECTIONS: usize = 16;

/// How long a delivery waits for a returned connection: longer than a fast server takes, and too short to be
/// noticed.
const RETURN_TIMEOUT: Duration = Duration::from_millis(10);

/// How many unusable idle connections a delivery closes before it opens one. If all are old or were
/// closed by the upstream, it leaves the rest to later deliveries.
const CHECKS_MAX: usize = 8;

/// The sweep closes this many connections at a time and sleeps in between. Closing one takes some
/// microseconds, and after a burst thousands expire at the same time.
const CLOSED_AT_ONCE: usize = 16;
const CLOSING_INTERVAL: Duration = Duration::from_millis(1);

/// One worker's connections to one origin.
pub struct Pool {
    shared: Arc<SharedOrigin>,
    limits: RefCell<Rc<Limits>>,
    /// The origin's part of the worker's memory budget.
    budget: Rc<MemoryBudget>,
    idle: RefCell<VecDeque<Box<PooledConnection>>>,
    /// Deliveries that wait for a returned connection, in order. They are weak, so that a delivery that gives up needs
    /// no clean-up.
    waiting: RefCell<VecDeque<Weak<Waiter>>>,
    in_flight: Cell<usize>,
    open: Rc<Cell<usize>>,
    /// How many connections were opened so far, to spread their expiry.
    opened: Cell<u32>,
    worker: usize,
}

/// A delivery that waits for a connection.
#[derive(Default)]
struct Waiter {
    returned: RefCell<Option<Box<PooledConnection>>>,
    waker: RefCell<Option<Waker>>,
}

/// A connection and its age. It stays boxed because it is moved with every delivery and has some hundred
/// bytes.
struct PooledConnection {
    connection: Connection,
    address: Arc<Address>,
    opened: OpenGuard,
    idle_since: Instant,
}

/// Counts a connection as open until it is dropped.
struct OpenGuard {
    /// When the connection was opened, for `pool.max_age`. Somewhat earlier than the real time.
    at: Instant,
    open: Rc<Cell<usize>>,
}

impl Pool {
    /// An empty pool of the worker with this index. Its part of `budget` is unlimited until
    /// [`Pool::set_memory_share`].
    pub fn new(
        shared: Arc<SharedOrigin>,
        limits: Rc<Limits>,
        budget: &Rc<MemoryBudget>,
        worker: usize,
    ) -> Pool {
        shared.set_limits(&limits);
        Pool {
            shared,
            limits: RefCell::new(limits),
            budget: budget.part(usize::MAX),
            idle: RefCell::default(),
            waiting: RefCell::default(),
            in_flight: Cell::new(0),
            open: Rc::default(),
            opened: Cell::new(0),
            worker,
        }
    }

    /// Changes the limits. Deliveries in flight keep the old ones.
    pub fn set_limits(&self, limits: Rc<Limits>) {
        self.shared.set_limits(&limits);
        *self.limits.borrow_mut() = limits;
    }

    /// Changes its share of the worker's memory budget.
    pub fn set_memory_share(&self, bytes: usize) {
        self.budget.set_limit(bytes);
    }

    /// Reserves memory for a delivery that takes `own` bytes and keeps alive `kept` bytes, which its request
    /// has reserved. `None` if no memory is left, or the deliveries to this origin take its share.
    pub fn admit(&self, own: usize, kept: usize) -> Option<Admission> {
        self.budget.admit(own, kept)
    }

    fn limits(&self) -> Rc<Limits> {
        Rc::clone(&self.limits.borrow())
    }

    /// Delivers `request`, as long as it is not silent for `timeouts.exchange` from `begun` on. Returns the result and the time at
    /// which the delivery ended. The breaker may hold up the request because of earlier failures of `route`.
    ///
    /// # Errors
    /// Why there is no response. The request may have arrived all the same.
    pub async fn deliver(
        &self,
        request: &mut OutboundRequest,
        begun: Instant,
        route: RouteId,
    ) -> (Result<Response, Failure>, Instant) {
        let limits = self.limits();
        let Some(_slot) = InFlightSlot::acquire(&self.in_flight, limits.in_flight) else {
            return (Err(Failure::Overloaded), begun);
        };
        let Some(permit) = self.shared.admit(route, begun) else {
            ensure_prober(&self.shared, self.worker);
            return (Err(Failure::Paused), begun);
        };
        // Pinned in place because the future is about 2 KiB.
        let (transfer, bytes) = (Transfer::default(), request.bytes());
        let attempt = pin!(self.attempt(request, begun, &limits, &transfer));
        let period = limits.timeouts.exchange;
        let attempted = unless_silent(attempt, &transfer, bytes, begun, period).await;
        let ended = Instant::now();
        let result = match attempted {
            Ok((response, pooled)) => {
                self.put_back(pooled, ended, &limits);
                Ok(response)
            }
            Err(failure) => Err(failure),
        };
        let unanswered = result.as_ref().err().and_then(Failure::unanswered);
        match (&result, unanswered) {
            (Err(failure), Some(how)) => {
                self.shared.record_failure(&permit, how, failure, ended);
                ensure_prober(&self.shared, self.worker);
            }
            // A shortage of this host, for example of descriptors.
            (Err(Failure::Connect(_)), None) => drop(permit),
            (Ok(_) | Err(_), _) => self.shared.record_response(permit, self.worker, ended),
        }
        (result, ended)
    }

    /// Closes expired idle connections, a few at a time, and publishes the gauges.
    pub async fn sweep(&self, now: Instant) {
        // Deliveries that gave up waiting stay in the queue if no connection is returned.
        let is_waiting = |waiter: &Weak<Waiter>| waiter.strong_count() > 0;
        self.waiting.borrow_mut().retain(is_waiting);
        let mut closing = self.take_expired(now);
        while !closing.is_empty() {
            closing.truncate(closing.len().saturating_sub(CLOSED_AT_ONCE));
            sleep(CLOSING_INTERVAL).await;
        }
        let counters = self.counters();
        counters.idle.set(self.idle.borrow().len());
        counters.open.set(self.open.get());
        counters.in_flight.set(self.in_flight.get());
        ensure_prober(&self.shared, self.worker);
    }

    /// Takes out and counts the idle connections to be closed.
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
            let Some(pooled) = idle.pop_front() else {
                break;
            };
            match self.is_fresh(&pooled, now, &limits) {
                true => idle.push_back(pooled),
                false => expired.push_back(pooled),
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

    pub fn origin(&self) -> &Arc<SharedOrigin> {
        &self.shared
    }

    /// Sends over a pooled connection, and again over a new one if the pooled one was stale: then the
    /// upstream most likely never saw the request.
    async fn attempt(
        &self,
        request: &mut OutboundRequest,
        begun: Instant,
        limits: &Limits,
        transfer: &Transfer,
    ) -> Result<(Response, Box<PooledConnection>), Failure> {
        if let Some(mut pooled) = self.reuse(begun, limits).await {
            self.counters().reused.inc();
            let result = pooled.connection.exchange(request, limits, transfer).await;
            if !pooled.connection.was_stale(&result) {
                return result.map(|response| (response, pooled));
            }
            if let Err(Failure::Malformed(_)) = result {
                self.record_unsolicited(pooled.connection.unread(), Instant::now());
            }
            self.counters().retries.inc();
            debug!(origin = %self.shared.origin, "a pooled connection was stale; retrying on a new one");
        }
        // Boxed because it is rare and large: every delivery would carry the space for it.
        let timeout = limits.timeouts.connect;
        let connecting = Box::pin(connect(&self.shared, self.worker, &[], timeout));
        let connected = connecting.await?;
        self.counters().opened.inc();
        let opened = OpenGuard::new(&self.open, self.age_offset(limits));
        let mut pooled = Box::new(PooledConnection {
            connection: Connection::new(connected.stream, self.budget.reservation()),
            address: connected.address,
            idle_since: Instant::now(),
            opened,
        });
        let exchanging = pooled.connection.exchange(request, limits, transfer);
        let result = exchanging.await;
        let unanswered = result.as_ref().err().and_then(Failure::unanswered);
        if unanswered.is_some() {
            let (address, begun) = (&pooled.address, connected.begun);
            let now = Instant::now();
            self.shared.record_address_failed(address, begun, now);
        } else {
            pooled.address.record_answered();
        }
        result.map(|response| (response, pooled))
    }

    /// The offset that is added to the age of the next connection: up to a quarter of `pool.max_age`.
    /// Otherwise connections that were opened together would expire together.
    fn age_offset(&self, limits: &Limits) -> Duration {
        let number = self.opened.get().wrapping_add(1);
        self.opened.set(number);
        // A multiple of the golden ratio spreads any few consecutive numbers evenly.
        let part = number.wrapping_mul(0x9e37_79b9) >> 24;
        limits.pool.max_age / 1024 * part
    }

    /// A pooled connection, if one is idle or is returned soon.
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
        let returned = poll_fn(|context| waiter.poll_returned(context));
        timeout(RETURN_TIMEOUT, returned)
            .await
            .ok()
            // A connection may have been returned just when the timeout ended.
            .or_else(|| waiter.returned.borrow_mut().take())
            .filter(|_| self.shared.is_pooled(now))
            .and_then(|returned| self.check_idle(returned))
    }

    fn take_idle(&self, now: Instant, limits: &Limits) -> Option<Box<PooledConnection>> {
        let mut idle = self.idle.borrow_mut();
        for _ in 0..CHECKS_MAX {
            let waiting = idle.pop_back()?;
            if !self.is_fresh(&waiting, now, limits) {
                continue;
            }
            if let Some(usable) = self.check_idle(waiting) {
                return Some(usable);
            }
            if !self.shared.is_pooled(now) {
                return None;
            }
        }
        None
    }

    /// Returns the connection if nothing has arrived on it since its last response. Otherwise counts why not, and
    /// closes it.
    fn check_idle(&self, mut pooled: Box<PooledConnection>) -> Option<Box<PooledConnection>> {
        match pooled.connection.idle_state() {
            IdleState::Quiet => return Some(pooled),
            IdleState::Closed => self.counters().stale.inc(),
            IdleState::Unsolicited(bytes) => self.record_unsolicited(&bytes, Instant::now()),
        }
        None
    }

    /// Records unsolicited bytes on a connection, which is closed then.
    fn record_unsolicited(&self, bytes: &[u8], now: Instant) {
        self.counters().dropped.inc(Dropped::Unsolicited);
        self.shared.record_unsolicited(bytes, now);
    }

    fn put_back(&self, mut returned: Box<PooledConnection>, now: Instant, limits: &Limits) {
        returned.idle_since = now;
        if returned.connection.is_overfull() {
            return self.record_unsolicited(returned.connection.unread(), now);
        }
        if !returned.connection.is_reusable() || !self.is_fresh(&returned, now, limits) {
            return;
        }
        if !self.shared.is_pooled(now) {
            self.counters().dropped.inc(Dropped::Suspended);
            return returned.connection.close_at_once();
        }
        if let Some(waiter) = self.next_waiter() {
            return waiter.hand_over(returned);
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() < limits.pool.idle_connections {
            idle.push_back(returned);
        } else {
            self.counters().dropped.inc(Dropped::Surplus);
        }
    }

    /// Whether a connection has not expired. Counts why not.
    fn is_fresh(&self, pooled: &PooledConnection, now: Instant, limits: &Limits) -> bool {
        let reason = pooled.expiry(now, limits);
        if let Some(reason) = reason {
            self.counters().dropped.inc(reason);
        }
        reason.is_none()
    }

    /// The delivery that has waited longest.
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
    fn hand_over(&self, connection: Box<PooledConnection>) {
        *self.returned.borrow_mut() = Some(connection);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    fn poll_returned(&self, context: &Context<'_>) -> Poll<Box<PooledConnection>> {
        match self.returned.borrow_mut().take() {
            Some(connection) => Poll::Ready(connection),
            None => {
                *self.waker.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl PooledConnection {
    fn expiry(&self, now: Instant, limits: &Limits) -> Option<Dropped> {
        if now.duration_since(self.opened.at) >= limits.pool.max_age {
            Some(Dropped::Old)
        } else if now.duration_since(self.idle_since) >= limits.pool.idle_timeout {
            Some(Dropped::Idle)
        } else if self.address.is_retired(now) {
            Some(Dropped::Moved)
        } else {
            None
        }
    }
}

impl OpenGuard {
    fn new(open: &Rc<Cell<usize>>, age_offset: Duration) -> OpenGuard {
        open.set(open.get() + 1);
        let now = Instant::now();
        OpenGuard {
            at: now.checked_sub(age_offset).unwrap_or(now),
            open: Rc::clone(open),
        }
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.open.set(self.open.get() - 1);
    }
}

/// Counts a delivery as in flight until it is dropped.
struct InFlightSlot<'u> {
    in_flight: &'u Cell<usize>,
}

impl<'u> InFlightSlot<'u> {
    fn acquire(in_flight: &'u Cell<usize>, limit: usize) -> Option<InFlightSlot<'u>> {
        if in_flight.get() >= limit {
            return None;
        }
        in_flight.set(in_flight.get() + 1);
        Some(InFlightSlot { in_flight })
    }
}

impl Drop for InFlightSlot<'_> {
    fn drop(&mut self) {
        self.in_flight.set(self.in_flight.get() - 1);
    }
}
