//! The deliveries that wait for a connection.
//!
//! A delivery whose client still waits for its reply goes before one whose client was answered already.
//! Otherwise they go in the order in which they came.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use crate::upstream::exchange::Failure;
use crate::upstream::pooled::PooledConnection;

/// The client for whose request a delivery is.
pub trait Client {
    /// Whether the client has its reply already.
    fn is_answered(&self) -> bool;
}

/// What a delivery gets for waiting.
pub(crate) type Granted = Result<Box<PooledConnection>, Failure>;

/// Which connections a delivery can use.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Also one that has been used before.
    Any,
    New,
}

/// The queues are weak, so that a delivery that gives up needs no search.
#[derive(Default)]
pub(crate) struct Waiting {
    for_new: RefCell<VecDeque<Weak<Waiter>>>,
    unanswered: RefCell<VecDeque<Weak<Waiter>>>,
    answered: RefCell<VecDeque<Weak<Waiter>>>,
    count: Cell<usize>,
    /// How many of them want a connection to be opened.
    dials_wanted: Cell<usize>,
}

struct Waiter {
    client: Rc<dyn Client>,
    since: Instant,
    wants_dial: Cell<bool>,
    is_served: Cell<bool>,
    granted: RefCell<Option<Granted>>,
    waker: RefCell<Option<Waker>>,
}

/// A delivery's place in the queue. Dropping it gives the place up.
pub(crate) struct Place<'w> {
    waiting: &'w Waiting,
    waiter: Rc<Waiter>,
}

impl Waiting {
    pub(crate) fn count(&self) -> usize {
        self.count.get()
    }

    pub(crate) fn dials_wanted(&self) -> usize {
        self.dials_wanted.get()
    }

    pub(crate) fn enter(&self, wanted: Wanted, client: &Rc<dyn Client>, now: Instant) -> Place<'_> {
        let waiter = Rc::new(Waiter {
            client: Rc::clone(client),
            since: now,
            wants_dial: Cell::new(false),
            is_served: Cell::new(false),
            granted: RefCell::new(None),
            waker: RefCell::new(None),
        });
        let queue = match wanted {
            Wanted::New => &self.for_new,
            Wanted::Any => &self.unanswered,
        };
        queue.borrow_mut().push_back(Rc::downgrade(&waiter));
        self.count.set(self.count.get() + 1);
        Place {
            waiting: self,
            waiter,
        }
    }

    /// Grants a connection that has come back. Returns it if nobody waits for it.
    pub(crate) fn grant_returned(
        &self,
        connection: Box<PooledConnection>,
    ) -> Option<Box<PooledConnection>> {
        match self.next_for_any() {
            Some(waiter) => self.serve(&waiter, Ok(connection)),
            None => return Some(connection),
        }
        None
    }

    /// Grants a connection that was just opened. Returns it if nobody waits for it.
    pub(crate) fn grant_new(
        &self,
        connection: Box<PooledConnection>,
    ) -> Option<Box<PooledConnection>> {
        match pop(&self.for_new).or_else(|| self.next_for_any()) {
            Some(waiter) => self.serve(&waiter, Ok(connection)),
            None => return Some(connection),
        }
        None
    }

    /// Fails at most `max` of those that wanted a connection to be opened and have waited since `begun`, the
    /// beginning of a dial that failed.
    pub(crate) fn fail(&self, failure: &Failure, begun: Instant, max: usize) {
        let mut left = max;
        for queue in [&self.for_new, &self.unanswered, &self.answered] {
            queue.borrow_mut().retain(|waiter| {
                let Some(waiter) = waiter.upgrade() else {
                    return false;
                };
                let is_failed = left > 0 && waiter.wants_dial.get() && waiter.since <= begun;
                if is_failed {
                    left -= 1;
                    self.serve(&waiter, Err(failure.copy()));
                }
                !is_failed
            });
        }
    }

    /// Removes what those that gave up have left in the queues.
    pub(crate) fn sweep(&self) {
        for queue in [&self.for_new, &self.unanswered, &self.answered] {
            queue
                .borrow_mut()
                .retain(|waiter| waiter.strong_count() > 0);
        }
    }

    fn next_for_any(&self) -> Option<Rc<Waiter>> {
        while let Some(waiter) = pop(&self.unanswered) {
            if !waiter.client.is_answered() {
                return Some(waiter);
            }
            let mut answered = self.answered.borrow_mut();
            answered.push_back(Rc::downgrade(&waiter));
        }
        pop(&self.answered)
    }

    fn serve(&self, waiter: &Waiter, granted: Granted) {
        self.leave(waiter);
        *waiter.granted.borrow_mut() = Some(granted);
        if let Some(waker) = waiter.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    fn leave(&self, waiter: &Waiter) {
        if !waiter.is_served.replace(true) {
            self.count.set(self.count.get() - 1);
            if waiter.wants_dial.get() {
                self.dials_wanted.set(self.dials_wanted.get() - 1);
            }
        }
    }
}

/// Takes out the first waiter that has not given up.
fn pop(queue: &RefCell<VecDeque<Weak<Waiter>>>) -> Option<Rc<Waiter>> {
    let mut queue = queue.borrow_mut();
    while let Some(waiter) = queue.pop_front() {
        if let Some(waiter) = waiter.upgrade() {
            return Some(waiter);
        }
    }
    None
}

impl Place<'_> {
    /// Asks for a connection to be opened.
    pub(crate) fn want_dial(&self) {
        let waiter = &self.waiter;
        if !waiter.is_served.get() && !waiter.wants_dial.replace(true) {
            let dials_wanted = &self.waiting.dials_wanted;
            dials_wanted.set(dials_wanted.get() + 1);
        }
    }

    pub(crate) async fn granted(&self) -> Granted {
        poll_fn(|context| self.poll_granted(context)).await
    }

    fn poll_granted(&self, context: &Context<'_>) -> Poll<Granted> {
        match self.waiter.granted.borrow_mut().take() {
            Some(granted) => Poll::Ready(granted),
            None => {
                *self.waiter.waker.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// What was granted and not taken.
    pub(crate) fn take_granted(&self) -> Option<Granted> {
        self.waiter.granted.borrow_mut().take()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiting.leave(&self.waiter);
    }
}
