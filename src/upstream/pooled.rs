//! A connection of a pool: its age, and when it has to be closed.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

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
    opened_at: Instant,
    /// Its part of `pool.max_age` in 1024ths.
    age_part: u32,
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
    ) -> Box<PooledConnection> {
        open.set(open.get() + 1);
        Box::new(PooledConnection {
            connection: Connection::new(connected.stream, memory),
            address: connected.address,
            connecting_begun: connected.begun,
            since: now,
            has_answered: false,
            opened_at: now,
            age_part: age_part(number),
            _open: OpenGuard(Rc::clone(open)),
        })
    }

    /// Why it has to be closed; `None` if it may be used.
    pub(crate) fn expiry(&self, now: Instant, limits: &Limits) -> Option<Dropped> {
        if now.duration_since(self.opened_at) >= limits.pool.max_age / 1024 * self.age_part {
            Some(Dropped::Old)
        } else if now.duration_since(self.since) >= limits.pool.idle_timeout {
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

/// Between 90 and 110 % of 1024. Otherwise, connections that were opened together would expire together.
fn age_part(number: u32) -> u32 {
    // A multiple of the golden ratio spreads any few consecutive numbers evenly.
    let spread = number.wrapping_mul(0x9e37_79b9) >> 24;
    922 + spread * 205 / 256
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ages_of_consecutive_connections_are_spread_over_a_fifth() {
        let parts = |numbers: std::ops::Range<u32>| {
            let mut parts: Vec<u32> = numbers.map(age_part).collect();
            parts.sort_unstable();
            parts
        };
        for start in [0, 1, 1000, u32::MAX - 100] {
            let parts = parts(start..start + 100);
            assert!(parts[0] >= 922 && parts[99] <= 1127, "{parts:?}");
            let gap = parts.windows(2).map(|pair| pair[1] - pair[0]).max();
            assert!(gap <= Some(8), "{parts:?}");
        }
    }
}
