//! Telling every idle connection of a worker that it is time to stop.
//!
//! A connection between requests waits for its client and for the order at once. It listens in a
//! slot of its own, so that waiting again costs no allocation.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

/// The order to stop, given once, for everyone who listens, now or later.
#[derive(Default)]
pub(crate) struct Stop {
    is_ordered: Cell<bool>,
    /// The waker of each listener that waits.
    wakers: RefCell<Slab<Option<Waker>>>,
}

/// One who listens to a [`Stop`].
pub(crate) struct Listener {
    stop: Rc<Stop>,
    key: usize,
}

impl Stop {
    /// Gives the order; later calls change nothing.
    pub(crate) fn order(&self) {
        self.is_ordered.set(true);
        for (_, waker) in self.wakers.borrow().iter() {
            if let Some(waker) = waker {
                waker.wake_by_ref();
            }
        }
    }

    /// Whether it was given.
    pub(crate) fn is_ordered(&self) -> bool {
        self.is_ordered.get()
    }

    /// A new listener.
    pub(crate) fn listener(self: &Rc<Stop>) -> Listener {
        Listener {
            stop: Rc::clone(self),
            key: self.wakers.borrow_mut().insert(None),
        }
    }
}

impl Listener {
    /// Ready once the order was given.
    pub(crate) fn poll_ordered(&self, context: &Context<'_>) -> Poll<()> {
        if self.stop.is_ordered() {
            return Poll::Ready(());
        }
        if let Some(waker) = self.stop.wakers.borrow_mut().get_mut(self.key) {
            match waker {
                Some(waker) if waker.will_wake(context.waker()) => {}
                Some(_) | None => *waker = Some(context.waker().clone()),
            }
        }
        Poll::Pending
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.wakers.borrow_mut().try_remove(self.key);
    }
}
