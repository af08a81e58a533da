//! Ends the waiting of idle connections: at a shutdown, after `timeouts.idle`, or to let a new connection in.
//!
//! A connection that waits for a request stands in the [`IdleList`] of its worker, with the waker of its task.
//! It is told to end, and checks for itself whether a request has arrived at that very moment. All connections
//! have the same timeout, so the oldest is the next to expire, and one timer of the worker serves all.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::inbound::idle_list::{Awaited, IdleList};

/// Why a connection is to stop waiting for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitEnd {
    /// Another connection takes its place.
    Evicted,
    /// It has waited for `timeouts.idle`.
    Expired,
    /// The worker is shutting down.
    ShutDown,
}

/// The connections of one worker.
#[derive(Default)]
pub(super) struct IdleConnections {
    list: RefCell<IdleList<Waiter>>,
    /// How many connections were told that they are evicted, and have not ended or gone on yet.
    evicting: Cell<usize>,
    is_shut_down: Cell<bool>,
    /// The tasks that wait for a connection to end or to become idle: one for each listener, at most.
    acceptors: Cell<Vec<Waker>>,
}

#[derive(Default)]
struct Waiter {
    waker: Option<Waker>,
    end: Option<WaitEnd>,
}

/// The place of one open connection.
pub(super) struct IdleEntry {
    connections: Rc<IdleConnections>,
    key: usize,
}

impl IdleConnections {
    pub(super) fn entry(self: &Rc<IdleConnections>) -> IdleEntry {
        IdleEntry {
            connections: Rc::clone(self),
            key: self.list.borrow_mut().insert(Waiter::default()),
        }
    }

    /// Whether a connection can be closed for a new one at `now`, or else when, if that is known.
    pub(super) fn evictable_at(&self, now: Instant) -> Option<Instant> {
        self.list.borrow().evictable_at(now)
    }

    /// Whether a connection that is to be closed has not been closed yet.
    pub(super) fn is_evicting(&self) -> bool {
        self.evicting.get() > 0
    }

    /// Tells the next connection to close for a new one. Returns `false` if there is none.
    pub(super) fn evict(&self, now: Instant) -> bool {
        let next = self.list.borrow().next_to_evict(now);
        if let Some(key) = next {
            self.evicting.set(self.evicting.get() + 1);
            self.end(key, WaitEnd::Evicted);
        }
        next.is_some()
    }

    /// Ends the waiting of all connections that have been idle for `timeout`. Returns when to look again.
    pub(super) fn expire(&self, timeout: Duration, now: Instant) -> Instant {
        loop {
            let longest = self.list.borrow().longest_idle();
            match longest {
                Some((key, since)) if since + timeout <= now => self.end(key, WaitEnd::Expired),
                Some((_, since)) => return since + timeout,
                None => return now + timeout,
            }
        }
    }

    /// Ends the waiting of all connections, now and from now on.
    pub(super) fn shut_down(&self) {
        self.is_shut_down.set(true);
        loop {
            let longest = self.list.borrow().longest_idle();
            match longest {
                Some((key, _)) => self.end(key, WaitEnd::ShutDown),
                None => return,
            }
        }
    }

    fn end(&self, key: usize, end: WaitEnd) {
        let mut list = self.list.borrow_mut();
        list.leave(key);
        if let Some(waiter) = list.get_mut(key) {
            waiter.end = Some(end);
            if let Some(waker) = &waiter.waker {
                waker.wake_by_ref();
            }
        }
    }

    /// Registers the task that [`IdleConnections::changed`] wakes.
    pub(super) fn watch(&self, context: &Context<'_>) {
        let mut acceptors = self.acceptors.take();
        if !acceptors
            .iter()
            .any(|known| known.will_wake(context.waker()))
        {
            acceptors.push(context.waker().clone());
        }
        self.acceptors.set(acceptors);
    }

    /// Wakes the watching tasks: a connection has become idle or has ended, or the limit has changed.
    pub(super) fn changed(&self) {
        for waker in self.acceptors.take() {
            waker.wake();
        }
    }

    /// Counts an eviction as done, if that is what the connection was told.
    fn settle(&self, end: Option<WaitEnd>) {
        if end == Some(WaitEnd::Evicted) {
            self.evicting.set(self.evicting.get().saturating_sub(1));
            self.changed();
        }
    }
}

impl IdleEntry {
    /// The connection is idle from `now` on.
    pub(super) fn enter(&self, awaited: Awaited, now: Instant) {
        let mut list = self.connections.list.borrow_mut();
        if self.connections.is_shut_down.get() {
            if let Some(waiter) = list.get_mut(self.key) {
                waiter.end = Some(WaitEnd::ShutDown);
            }
            return;
        }
        list.enter(self.key, awaited, now);
        drop(list);
        self.connections.changed();
    }

    /// The connection is no longer idle: it has got a request, or ends.
    pub(super) fn leave(&self) {
        let end = {
            let mut list = self.connections.list.borrow_mut();
            list.leave(self.key);
            let waiter = list.get_mut(self.key);
            waiter.and_then(|waiter| waiter.end.take())
        };
        self.connections.settle(end);
    }

    /// Ready once the waiting is to end.
    pub(super) fn poll_end(&self, context: &Context<'_>) -> Poll<WaitEnd> {
        let mut list = self.connections.list.borrow_mut();
        let Some(waiter) = list.get_mut(self.key) else {
            return Poll::Pending;
        };
        if let Some(end) = waiter.end {
            return Poll::Ready(end);
        }
        match &waiter.waker {
            Some(waker) if waker.will_wake(context.waker()) => {}
            Some(_) | None => waiter.waker = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for IdleEntry {
    fn drop(&mut self) {
        let removed = self.connections.list.borrow_mut().remove(self.key);
        self.connections
            .settle(removed.and_then(|waiter| waiter.end));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(entry: &IdleEntry) -> Poll<WaitEnd> {
        entry.poll_end(&Context::from_waker(Waker::noop()))
    }

    #[test]
    fn an_evicted_connection_counts_until_it_has_ended_or_goes_on() {
        let connections = Rc::<IdleConnections>::default();
        let now = Instant::now();
        let [first, second] = [(); 2].map(|()| connections.entry());
        assert!(!connections.evict(now));
        first.enter(Awaited::NextRequest, now);
        second.enter(Awaited::NextRequest, now);
        assert_eq!(poll(&first), Poll::Pending);
        assert!(connections.evict(now));
        assert_eq!(poll(&first), Poll::Ready(WaitEnd::Evicted));
        assert_eq!(poll(&second), Poll::Pending);
        assert!(connections.is_evicting());
        // It has got a request at the last moment.
        first.leave();
        assert!(!connections.is_evicting());
        first.enter(Awaited::NextRequest, now);
        assert_eq!(poll(&first), Poll::Pending);
        assert!(connections.evict(now));
        drop(second);
        assert!(!connections.is_evicting());
        assert!(connections.evict(now));
        assert!(!connections.evict(now));
        drop(first);
        assert!(!connections.is_evicting());
    }

    #[test]
    fn connections_expire_in_order() {
        let connections = Rc::<IdleConnections>::default();
        let start = Instant::now();
        let (second, timeout) = (Duration::from_secs(1), Duration::from_secs(650));
        assert_eq!(connections.expire(timeout, start), start + timeout);
        let [first, silent, busy] = [(); 3].map(|()| connections.entry());
        first.enter(Awaited::NextRequest, start);
        silent.enter(Awaited::FirstRequest, start + second);
        assert_eq!(connections.expire(timeout, start + second), start + timeout);
        assert_eq!(poll(&first), Poll::Pending);
        let next = connections.expire(timeout, start + timeout);
        assert_eq!(next, start + second + timeout);
        assert_eq!(poll(&first), Poll::Ready(WaitEnd::Expired));
        assert_eq!(poll(&silent), Poll::Pending);
        // A shorter timeout counts at once.
        connections.expire(second, start + timeout);
        assert_eq!(poll(&silent), Poll::Ready(WaitEnd::Expired));
        assert_eq!(poll(&busy), Poll::Pending);
        assert!(!connections.is_evicting());
    }

    #[test]
    fn a_shutdown_ends_the_waiting_of_all_connections() {
        let connections = Rc::<IdleConnections>::default();
        let now = Instant::now();
        let [waiting, busy] = [(); 2].map(|()| connections.entry());
        waiting.enter(Awaited::FirstRequest, now);
        connections.shut_down();
        assert_eq!(poll(&waiting), Poll::Ready(WaitEnd::ShutDown));
        assert_eq!(poll(&busy), Poll::Pending);
        busy.enter(Awaited::NextRequest, now);
        assert_eq!(poll(&busy), Poll::Ready(WaitEnd::ShutDown));
        assert!(!connections.evict(now));
    }
}
