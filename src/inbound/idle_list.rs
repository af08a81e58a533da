//! The idle connections of a worker, in the order in which they became idle.
//!
//! It is a list through the slots of a slab: a connection has one slot as long as it is open, so becoming idle
//! and busy allocates nothing, and costs the same with ten connections as with ten thousand.

use std::time::{Duration, Instant};

use slab::Slab;

/// How long a connection that has not sent a request yet stays open in any case. Its first request may be on
/// its way, and takes a round trip or two; a client whose first connection is closed loses an event.
pub(super) const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(1);

/// What an idle connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaited {
    FirstRequest,
    NextRequest,
}

/// The slots of the open connections of a worker, each with a `T`.
pub(super) struct IdleList<T> {
    slots: Slab<Slot<T>>,
    /// One list each, because the first requests are awaited for a shorter time.
    first_request: Ends,
    next_request: Ends,
}

struct Slot<T> {
    value: T,
    /// `None` while the connection is not idle.
    since: Option<Instant>,
    awaited: Awaited,
    older: Link,
    newer: Link,
}

/// The key of a neighbour; of half the size of an `Option<usize>`, since each connection has two.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Link(u32);

impl Link {
    const NONE: Link = Link(u32::MAX);

    fn to(key: usize) -> Link {
        u32::try_from(key).map_or(Link::NONE, Link)
    }

    fn key(self) -> Option<usize> {
        (self != Link::NONE).then_some(self.0 as usize)
    }
}

/// The ends of one list.
struct Ends {
    oldest: Link,
    newest: Link,
}

impl Ends {
    const EMPTY: Ends = Ends {
        oldest: Link::NONE,
        newest: Link::NONE,
    };
}

impl<T> Default for IdleList<T> {
    fn default() -> IdleList<T> {
        IdleList {
            slots: Slab::new(),
            first_request: Ends::EMPTY,
            next_request: Ends::EMPTY,
        }
    }
}

impl<T> IdleList<T> {
    /// Adds a connection, which is not idle yet, and returns its key.
    pub(super) fn insert(&mut self, value: T) -> usize {
        self.slots.insert(Slot {
            value,
            since: None,
            awaited: Awaited::FirstRequest,
            older: Link::NONE,
            newer: Link::NONE,
        })
    }

    pub(super) fn remove(&mut self, key: usize) -> Option<T> {
        self.leave(key);
        self.slots.try_remove(key).map(|slot| slot.value)
    }

    pub(super) fn get_mut(&mut self, key: usize) -> Option<&mut T> {
        self.slots.get_mut(key).map(|slot| &mut slot.value)
    }

    /// Appends a connection that is idle from `now` on. `now` must not go back.
    pub(super) fn enter(&mut self, key: usize, awaited: Awaited, now: Instant) {
        self.leave(key);
        let older = self.ends(awaited).newest;
        let Some(slot) = self.slots.get_mut(key) else {
            return;
        };
        slot.since = Some(now);
        slot.awaited = awaited;
        self.link(awaited, older, Link::to(key));
        self.link(awaited, Link::to(key), Link::NONE);
    }

    /// Takes a connection out of its list. Does nothing if it is not idle.
    pub(super) fn leave(&mut self, key: usize) {
        if let Some(slot) = self.slots.get_mut(key)
            && slot.since.take().is_some()
        {
            let (awaited, older, newer) = (slot.awaited, slot.older, slot.newer);
            self.link(awaited, older, newer);
        }
    }

    /// The connection to close for a new one. Connections that have sent no request go first, after
    /// [`FIRST_REQUEST_GRACE`]: they are of the least use, and only those of clients that do harm are many.
    /// After them, the one that has been idle longest.
    pub(super) fn next_to_evict(&self, now: Instant) -> Option<usize> {
        let silent = self.oldest(Awaited::FirstRequest);
        let silent = silent.filter(|(_, since)| *since + FIRST_REQUEST_GRACE <= now);
        let (key, _) = silent.or_else(|| self.oldest(Awaited::NextRequest))?;
        Some(key)
    }

    /// When there is a connection to close, if none becomes idle before; `None` if there is no such time.
    pub(super) fn evictable_at(&self, now: Instant) -> Option<Instant> {
        if self.next_to_evict(now).is_some() {
            return Some(now);
        }
        let (_, since) = self.oldest(Awaited::FirstRequest)?;
        Some(since + FIRST_REQUEST_GRACE)
    }

    /// The connection that has been idle longest, and since when.
    pub(super) fn longest_idle(&self) -> Option<(usize, Instant)> {
        let oldest = [Awaited::FirstRequest, Awaited::NextRequest].map(|list| self.oldest(list));
        oldest.into_iter().flatten().min_by_key(|(_, since)| *since)
    }

    fn oldest(&self, awaited: Awaited) -> Option<(usize, Instant)> {
        let oldest = match awaited {
            Awaited::FirstRequest => self.first_request.oldest,
            Awaited::NextRequest => self.next_request.oldest,
        };
        let key = oldest.key()?;
        Some((key, self.slots.get(key)?.since?))
    }

    /// Makes two connections neighbours. [`Link::NONE`] stands for the end of the list.
    fn link(&mut self, awaited: Awaited, older: Link, newer: Link) {
        match older.key().and_then(|key| self.slots.get_mut(key)) {
            Some(slot) => slot.newer = newer,
            None => self.ends(awaited).oldest = newer,
        }
        match newer.key().and_then(|key| self.slots.get_mut(key)) {
            Some(slot) => slot.older = older,
            None => self.ends(awaited).newest = older,
        }
    }

    fn ends(&mut self, awaited: Awaited) -> &mut Ends {
        match awaited {
            Awaited::FirstRequest => &mut self.first_request,
            Awaited::NextRequest => &mut self.next_request,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use Awaited::{FirstRequest, NextRequest};

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn the_connection_that_has_been_idle_longest_goes_first() {
        let start = Instant::now();
        let mut list = IdleList::default();
        let [a, b, c] = ["a", "b", "c"].map(|name| list.insert(name));
        assert_eq!(list.next_to_evict(start), None);
        assert_eq!(list.longest_idle(), None);
        for (at, key) in [(0, b), (1, a), (2, c)] {
            list.enter(key, NextRequest, start + millis(at));
        }
        assert_eq!(list.next_to_evict(start), Some(b));
        assert_eq!(list.longest_idle(), Some((b, start)));
        // A request makes it the youngest.
        list.leave(b);
        assert_eq!(list.next_to_evict(start), Some(a));
        list.enter(b, NextRequest, start + millis(3));
        // One in the middle closes.
        assert_eq!(list.remove(c), Some("c"));
        list.leave(a);
        assert_eq!(list.next_to_evict(start), Some(b));
        list.leave(b);
        list.leave(b);
        assert_eq!(list.next_to_evict(start), None);
        assert_eq!(list.remove(c), None);
    }

    #[test]
    fn a_connection_without_a_request_goes_first_but_not_at_once() {
        let start = Instant::now();
        let mut list = IdleList::default();
        let [served, silent, later] = [(); 3].map(|()| list.insert(()));
        list.enter(silent, FirstRequest, start);
        let grace = start + FIRST_REQUEST_GRACE;
        assert_eq!(list.next_to_evict(start + millis(1)), None);
        assert_eq!(list.evictable_at(start + millis(1)), Some(grace));
        list.enter(served, NextRequest, start + millis(2));
        list.enter(later, FirstRequest, start + millis(500));
        assert_eq!(list.longest_idle(), Some((silent, start)));
        let soon = start + millis(999);
        assert_eq!(list.next_to_evict(soon), Some(served));
        assert_eq!(list.evictable_at(soon), Some(soon));
        assert_eq!(list.next_to_evict(grace), Some(silent));
        list.remove(silent);
        assert_eq!(list.next_to_evict(grace), Some(served));
        assert_eq!(list.longest_idle(), Some((served, start + millis(2))));
        assert_eq!(list.next_to_evict(grace + millis(500)), Some(later));
        list.remove(served);
        list.remove(later);
        assert_eq!(list.evictable_at(grace), None);
    }

    #[test]
    fn any_order_of_changes_leaves_the_order_of_a_plain_list() {
        const CONNECTIONS: usize = 7;
        let start = Instant::now();
        let later = start + FIRST_REQUEST_GRACE * 10_000;
        let mut list = IdleList::default();
        let mut keys: Vec<usize> = (0..CONNECTIONS).map(|name| list.insert(name)).collect();
        // What waits for the first and for the next request, oldest first.
        let mut plain: [Vec<usize>; 2] = [Vec::new(), Vec::new()];
        let mut random = 1_u64;
        for step in 0..20_000_u64 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let at = (random >> 33) as usize % CONNECTIONS;
            let key = keys[at];
            plain
                .iter_mut()
                .for_each(|list| list.retain(|other| *other != key));
            let now = start + millis(step);
            match (random >> 60) % 4 {
                0 => list.leave(key),
                1 => {
                    list.remove(key);
                    keys[at] = list.insert(at);
                }
                2 => {
                    list.enter(key, FirstRequest, now);
                    plain[0].push(key);
                }
                _ => {
                    list.enter(key, NextRequest, now);
                    plain[1].push(key);
                }
            }
            let first = plain[0].first().or(plain[1].first()).copied();
            assert_eq!(list.next_to_evict(later), first, "step {step}");
            let next = plain[1].first().copied();
            assert_eq!(list.next_to_evict(start), next, "step {step}");
        }
    }
}
