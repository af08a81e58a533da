//! One worker's connections to an origin: which are idle, who waits for one, and when to open and close one.
//!
//! As many connections are kept as were in use at the same time recently (see [`demand`]). The most recently
//! used one is reused first, so that the surplus of a peak grows old and is closed, the oldest first.
//!
//! A delivery that finds no idle connection waits for one. A connection is opened for it at once, unless one
//! will most likely be returned within a time that nobody notices. Each dial is a task of its own, and a
//! delivery takes whichever connection comes first, a new or a returned one. So a dial is never given up, and a
//! delivery that times out causes no second one. [`dial_window`] bounds how many dials are in progress.
//!
//! Each connection is checked before it is reused: unsolicited data suspends the reuse, see [`pooling`].
//!
//! [`demand`]: crate::upstream::demand
//! [`dial_window`]: crate::upstream::dial_window
//! [`pooling`]: crate::upstream::pooling

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use monoio::time::{sleep, timeout};

use crate::limits::Limits;
use crate::net::socket::IdleState;
use crate::runtime::memory_budget::MemoryBudget;
use crate::runtime::panics::caught;
use crate::upstream::connector::{Connected, connect};
use crate::upstream::counters::{Dropped, OriginCounters};
use crate::upstream::demand::Demand;
use crate::upstream::dial_window::DialWindow;
use crate::upstream::exchange::Failure;
use crate::upstream::origin::SharedOrigin;
use crate::upstream::pooled::PooledConnection;
use crate::upstream::shortest::ShortestRecent;
use crate::upstream::waiting::{Client, Granted, Place, Waiting, Wanted};

/// Up to this number of connections, a delivery opens one without waiting for one to be returned.
const OPENED_EAGERLY: usize = 16;

/// An upstream whose shortest exchange takes less time than this is near.
const NEAR: Duration = Duration::from_millis(5);

/// How long a delivery to a near upstream waits for a returned connection: longer than a fast server takes,
/// and too short to be noticed. More connections do not make a fast server faster, and each costs it memory.
const RETURN_TIMEOUT: Duration = Duration::from_millis(10);

/// The part of the shortest exchange that a delivery to a distant upstream waits for a returned connection.
const UNNOTICED_PART: u32 = 50;

/// How many unusable idle connections a delivery closes before it opens one. If all are old or were
/// closed by the upstream, it leaves the rest to later deliveries.
const CHECKS_MAX: usize = 8;

/// The sweep closes this many connections at a time and sleeps in between. Closing one takes some
/// microseconds, and after a peak thousands expire at the same time.
const CLOSED_AT_ONCE: usize = 16;
const CLOSING_INTERVAL: Duration = Duration::from_millis(1);

pub(crate) struct Connections {
    shared: Arc<SharedOrigin>,
    limits: RefCell<Rc<Limits>>,
    /// The origin's part of the worker's memory budget.
    budget: Rc<MemoryBudget>,
    idle: RefCell<VecDeque<Box<PooledConnection>>>,
    waiting: Waiting<Box<PooledConnection>>,
    open: Rc<Cell<usize>>,
    /// How many connections were opened so far, to spread their expiry.
    opened: Cell<u32>,
    dialing: Cell<usize>,
    dial_window: DialWindow,
    demand: Demand,
    shortest_exchange: ShortestRecent,
    worker: usize,
}

impl Connections {
    pub(crate) fn new(
        shared: Arc<SharedOrigin>,
        limits: Rc<Limits>,
        budget: Rc<MemoryBudget>,
        worker: usize,
    ) -> Rc<Connections> {
        Rc::new(Connections {
            dial_window: DialWindow::new(shared.tls.is_some()),
            shared,
            limits: RefCell::new(limits),
            budget,
            idle: RefCell::default(),
            waiting: Waiting::default(),
            open: Rc::default(),
            opened: Cell::default(),
            dialing: Cell::default(),
            demand: Demand::default(),
            shortest_exchange: ShortestRecent::default(),
            worker,
        })
    }

    /// Changes the limits. Deliveries in flight keep the old ones.
    pub(crate) fn set_limits(&self, limits: Rc<Limits>) {
        let mut idle = self.idle.borrow_mut();
        idle.iter_mut()
            .for_each(|pooled| pooled.set_expiry(&limits));
        *self.limits.borrow_mut() = limits;
    }

    pub(crate) fn limits(&self) -> Rc<Limits> {
        Rc::clone(&self.limits.borrow())
    }

    pub(crate) fn origin(&self) -> &Arc<SharedOrigin> {
        &self.shared
    }

    pub(crate) fn worker(&self) -> usize {
        self.worker
    }

    pub(crate) fn counters(&self) -> &OriginCounters {
        self.shared.counters.for_worker(self.worker)
    }

    /// Records how long an exchange took, without the wait for its connection.
    pub(crate) fn record_exchange(&self, elapsed: Duration) {
        self.shortest_exchange.record(elapsed);
    }

    /// An idle connection, or `None` if there is none.
    pub(crate) fn take_idle(&self, now: Instant) -> Option<Box<PooledConnection>> {
        if !self.shared.is_pooled(now) {
            return None;
        }
        let mut idle = self.idle.borrow_mut();
        for _ in 0..CHECKS_MAX {
            let newest = idle.pop_back()?;
            if !self.is_fresh(&newest, now) {
                continue;
            }
            if let Some(usable) = self.check_idle(newest) {
                self.demand.record_in_use(self.open.get() - idle.len());
                return Some(usable);
            }
            if !self.shared.is_pooled(now) {
                return None;
            }
        }
        None
    }

    /// Waits for a connection. `client` decides who goes first.
    ///
    /// # Errors
    /// Why no connection could be opened.
    pub(crate) async fn wait(
        self: &Rc<Connections>,
        mut wanted: Wanted,
        client: Rc<dyn Client>,
    ) -> Granted<Box<PooledConnection>> {
        self.counters().waited.inc();
        loop {
            let now = Instant::now();
            if !self.shared.is_pooled(now) {
                wanted = Wanted::New;
            }
            let attempt = Attempt {
                connections: self,
                place: self.waiting.enter(wanted, &client, now),
            };
            let mut granted = attempt.granted(wanted).await?;
            granted.since = Instant::now();
            self.demand.record_in_use(self.in_use());
            // One that was returned may have been closed by its upstream since.
            if !granted.has_answered {
                return Ok(granted);
            }
            if let Some(usable) = self.check_idle(granted) {
                return Ok(usable);
            }
        }
    }

    /// Takes back a connection after an exchange.
    pub(crate) fn put_back(&self, mut returned: Box<PooledConnection>, now: Instant) {
        let limits = self.limits.borrow();
        returned.begin_idle(now, &limits);
        if returned.connection.is_overfull() {
            return self.record_unsolicited(returned.connection.unread(), now);
        }
        if !returned.connection.is_reusable() || !self.is_fresh(&returned, now) {
            return;
        }
        if !self.shared.is_pooled(now) {
            self.counters().dropped.inc(Dropped::Suspended);
            return returned.connection.close_at_once();
        }
        if let Some(returned) = self.waiting.grant_returned(returned) {
            self.keep(returned, &limits);
        }
    }

    /// Records unsolicited bytes on a connection, which is closed then.
    pub(crate) fn record_unsolicited(&self, bytes: &[u8], now: Instant) {
        self.counters().dropped.inc(Dropped::Unsolicited);
        self.shared.record_unsolicited(bytes, now);
    }

    /// Closes expired and surplus idle connections, a few at a time, and publishes the gauges. To be called
    /// once a second.
    pub(crate) async fn sweep(self: &Rc<Connections>, now: Instant) {
        self.waiting.sweep();
        self.shortest_exchange.age();
        self.dial_window.age();
        // After a shortage of this host nothing else begins the dials again.
        self.start_dials();
        let mut closing = self.take_expired(now);
        while !closing.is_empty() {
            closing.truncate(closing.len().saturating_sub(CLOSED_AT_ONCE));
            sleep(CLOSING_INTERVAL).await;
        }
        let counters = self.counters();
        counters.idle.set(self.idle.borrow().len());
        counters.open.set(self.open.get());
        counters.dialing.set(self.dialing.get());
        counters.waiting.set(self.waiting.count());
    }

    /// Takes out and counts the idle connections to be closed.
    fn take_expired(&self, now: Instant) -> VecDeque<Box<PooledConnection>> {
        let wanted = self.demand.sweep(self.in_use());
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
            match self.is_fresh(&pooled, now) {
                true => idle.push_back(pooled),
                false => expired.push_back(pooled),
            }
        }
        let open = self.open.get() - expired.len();
        let surplus = open.saturating_sub(wanted).min(idle.len());
        self.counters()
            .dropped
            .add(Dropped::Surplus, surplus as u64);
        expired.extend(idle.drain(..surplus));
        expired
    }

    #[cfg(test)]
    pub(crate) fn pause_dials(&self, now: Instant) {
        self.dial_window.record_shortage(now, now);
    }

    fn in_use(&self) -> usize {
        self.open.get() - self.idle.borrow().len()
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

    /// Whether a connection has not expired. Counts why not.
    fn is_fresh(&self, pooled: &PooledConnection, now: Instant) -> bool {
        let reason = pooled.expiry(now);
        if let Some(reason) = reason {
            self.counters().dropped.inc(reason);
        }
        reason.is_none()
    }

    /// Passes on a connection that was granted to a delivery that has given up.
    fn pass_on(&self, granted: Box<PooledConnection>) {
        if self.shared.is_pooled(Instant::now())
            && let Some(unwanted) = self.waiting.grant_returned(granted)
        {
            self.keep(unwanted, &self.limits());
        }
    }

    fn keep(&self, connection: Box<PooledConnection>, limits: &Limits) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < limits.pool.idle_connections {
            idle.push_back(connection);
        } else {
            self.counters().dropped.inc(Dropped::OverLimit);
        }
    }

    /// How long to wait for a returned connection before one is opened; `None` if one should be opened at once.
    fn return_timeout(&self) -> Option<Duration> {
        let open = self.open.get();
        let shortest = self.shortest_exchange.get()?;
        if open < OPENED_EAGERLY {
            return None;
        }
        let unnoticed = match shortest < NEAR {
            true => RETURN_TIMEOUT,
            false => shortest / UNNOTICED_PART,
        };
        let waiting = u32::try_from(self.waiting.count()).unwrap_or(u32::MAX);
        let open = u32::try_from(open).unwrap_or(u32::MAX);
        (shortest.saturating_mul(waiting) / open <= unnoticed).then_some(unnoticed)
    }

    /// Starts as many dials as are wanted and allowed.
    fn start_dials(self: &Rc<Connections>) {
        let bound = self.dial_window.bound(Instant::now());
        while self.dialing.get() < self.waiting.dials_wanted().min(bound) {
            self.dialing.set(self.dialing.get() + 1);
            monoio::spawn(Rc::clone(self).dial());
        }
    }

    async fn dial(self: Rc<Connections>) {
        let begun = Instant::now();
        let limits = self.limits();
        let timeout = limits.timeouts.connect;
        let connecting = pin!(connect(&self.shared, self.worker, &[], timeout));
        let connected = caught(connecting).await;
        let now = Instant::now();
        let in_progress = self.dialing.get();
        self.dialing.set(in_progress - 1);
        match connected {
            Ok(Ok(connected)) => {
                self.dial_window.record_success(begun, now, in_progress);
                self.add_unused(self.adopt(connected, now), now);
            }
            Ok(Err(failure)) => self.fail_dial(&failure, begun, now),
            Err(_panicked) => {
                let error = io::Error::other("a bug in this program: connecting panicked");
                self.fail_dial(&Failure::Connect(error.into()), begun, now);
            }
        }
        self.start_dials();
    }

    /// Makes a connection of this pool of one that might have become one for HTTP/2.
    pub(crate) fn adopt(&self, connected: Connected, now: Instant) -> Box<PooledConnection> {
        self.counters().opened.inc();
        let number = self.opened.get().wrapping_add(1);
        self.opened.set(number);
        let memory = self.budget.reservation();
        PooledConnection::new(connected, memory, &self.open, number, now, &self.limits())
    }

    /// Adds a connection that nobody has used.
    pub(crate) fn add_unused(&self, pooled: Box<PooledConnection>, now: Instant) {
        let Some(unwanted) = self.waiting.grant_new(pooled) else {
            return;
        };
        if self.shared.is_pooled(now) {
            self.keep(unwanted, &self.limits());
        }
    }

    /// Fails deliveries because a dial failed: one if there are other connections to be returned, otherwise all
    /// that have waited for as long as the dial took.
    fn fail_dial(&self, failure: &Failure, begun: Instant, now: Instant) {
        let is_shortage = failure.is_own_shortage();
        match is_shortage {
            true => self.dial_window.record_shortage(begun, now),
            false => self.dial_window.record_failure(begun, now),
        }
        let failed_max = match self.in_use() {
            0 => usize::MAX,
            // A returned connection will do; there are enough of them.
            _ if is_shortage => 0,
            _ => 1,
        };
        self.waiting.fail(failure, begun, failed_max);
    }
}

/// A delivery's wait for a connection.
struct Attempt<'c> {
    connections: &'c Rc<Connections>,
    place: Place<'c, Box<PooledConnection>>,
}

impl Attempt<'_> {
    async fn granted(&self, wanted: Wanted) -> Granted<Box<PooledConnection>> {
        if wanted == Wanted::Any
            && let Some(unnoticed) = self.connections.return_timeout()
        {
            let returned = timeout(unnoticed, self.place.granted()).await;
            // A connection may have been granted just when the timeout ended.
            if let Some(granted) = returned.ok().or_else(|| self.place.take_granted()) {
                return granted;
            }
        }
        self.place.want_dial();
        self.connections.start_dials();
        self.place.granted().await
    }
}

impl Drop for Attempt<'_> {
    /// A delivery that gives up passes on what was granted to it just before.
    fn drop(&mut self) {
        if let Some(Ok(granted)) = self.place.take_granted() {
            self.connections.pass_on(granted);
        }
    }
}
