//! A connection of a pool: its age, and when it has to be closed.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::limits::Limits;
use crate::runtime::memory_budget::MemoryReservation;
use crate::upstream::addresses::Address;
use crate::upstream::connector::Connected;
use crate::upstream::counters::Dropped;
use crate::upstream::exchange::Connection;

/// It stays boxed because it is moved with every delivery and has some hundred bytes.
pub(crate) struct PooledConnection {
    pub(crate) connection: Connection,
    pub(crate) address: Arc<Address>,
    pub(crate) connecting_begun: Instant,
    /// When its current exchange began, or when it became idle.
    pub(crate) since: Instant,
    /// Whether an exchange over it has ended with a response.
    pub(crate) has_answered: bool,
    /// When it was opened, for `pool.max_age`. Up to a tenth of that earlier or later than the real time.
    opened_at: Instant,
    /// When it is too old, and when it has been idle for too long. Kept because they are compared with the time several
    /// times per delivery.
    old_at: Instant,
    idle_until: Instant,
    _open: OpenGuard,
}

/// Counts a connection as open until it is dropped.
struct OpenGuard(Rc<Cell<usize>>);

impl PooledConnection {
    /// A new connection with this `number`, which counts in `open` while it exists.
    pub(crate) fn new(
        connected: Connected,
        memory: MemoryReservation,
        open: &Rc<Cell<usize>>,
        number: u32,
        now: Instant,
        limits: &Limits,
    ) -> Box<PooledConnection> {
        open.set(open.get() + 1);
        let opened_at = spread(now, limits.pool.max_age, number);
        Box::new(PooledConnection {
            connection: Connection::new(connected.stream, memory),
            address: connected.address,
            connecting_begun: connected.begun,
            since: now,
            has_answered: false,
            opened_at,
            old_at: opened_at + limits.pool.max_age,
            idle_until: now + limits.pool.idle_timeout,
            _open: OpenGuard(Rc::clone(open)),
        })
    }

    /// Records that it brought a response, as its address does.
    pub(crate) fn record_answered(&mut self) {
        self.address.record_answered();
        self.has_answered = true;
    }

    /// Begins a time in which it is idle.
    pub(crate) fn begin_idle(&mut self, now: Instant, limits: &Limits) {
        self.since = now;
        self.set_expiry(limits);
    }

    /// Applies limits that have changed while it was idle.
    pub(crate) fn set_expiry(&mut self, limits: &Limits) {
        self.old_at = self.opened_at + limits.pool.max_age;
        self.idle_until = self.since + limits.pool.idle_timeout;
    }

    /// Why it has to be closed; `None` if it may be used.
    pub(crate) fn expiry(&self, now: Instant) -> Option<Dropped> {
        if now >= self.old_at {
            Some(Dropped::Old)
        } else if now >= self.idle_until {
            Some(Dropped::Idle)
        } else if self.address.is_retired(now) {
            Some(Dropped::Moved)
        } else {
            None
        }
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A time within a tenth of `max_age` around `now`. Otherwise, connections that were opened together would expire
/// together.
fn spread(now: Instant, max_age: Duration, number: u32) -> Instant {
    // A multiple of the golden ratio spreads any few consecutive numbers evenly.
    let part = number.wrapping_mul(0x9e37_79b9) >> 24;
    let latest = now + max_age / 10;
    latest.checked_sub(max_age / 5 / 256 * part).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_that_are_opened_together_expire_over_a_fifth_of_their_age() {
        const MAX_AGE: Duration = Duration::from_secs(300);
        let now = Instant::now() + MAX_AGE;
        for start in [0, 1, 1000, u32::MAX - 100] {
            let numbers = (0..100).map(|offset| start + offset);
            let mut times: Vec<_> = numbers.map(|number| spread(now, MAX_AGE, number)).collect();
            times.sort_unstable();
            assert!(times[0] >= now - MAX_AGE / 10 && times[99] <= now + MAX_AGE / 10);
            let gap = times.windows(2).map(|pair| pair[1] - pair[0]).max();
            assert!(gap < Some(Duration::from_secs(3)), "{gap:?}");
        }
    }
}
