//! Shutdown notification for idle connections.
//!
//! A connection between requests waits both for its client and for this. Each signal has its own slot for a
//! waker, so that waiting again costs no allocation.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

/// Triggered once, for all existing and future signals.
#[derive(Default)]
pub(crate) struct Shutdown {
    is_triggered: Cell<bool>,
    wakers: RefCell<Slab<Option<Waker>>>,
}

/// One task's subscription to a [`Shutdown`].
pub(crate) struct ShutdownSignal {
    shutdown: Rc<Shutdown>,
    key: usize,
}

impl Shutdown {
    /// Wakes every task that waits. Later calls change nothing.
    pub(crate) fn trigger(&self) {
        self.is_triggered.set(true);
        for (_, waker) in self.wakers.borrow().iter() {
            if let Some(waker) = waker {
                waker.wake_by_ref();
            }
        }
    }

    pub(crate) fn is_triggered(&self) -> bool {
        self.is_triggered.get()
    }

    pub(crate) fn subscribe(self: &Rc<Shutdown>) -> ShutdownSignal {
        ShutdownSignal {
            shutdown: Rc::clone(self),
            key: self.wakers.borrow_mut().insert(None),
        }
    }
}

impl ShutdownSignal {
    /// Ready once the shutdown is triggered.
    pub(crate) fn poll_triggered(&self, context: &Context<'_>) -> Poll<()> {
        if self.shutdown.is_triggered() {
            return Poll::Ready(());
        }
        if let Some(waker) = self.shutdown.wakers.borrow_mut().get_mut(self.key) {
            match waker {
                Some(waker) if waker.will_wake(context.waker()) => {}
                Some(_) | None => *waker = Some(context.waker().clone()),
            }
        }
        Poll::Pending
    }
}

impl Drop for ShutdownSignal {
    fn drop(&mut self) {
        self.shutdown.wakers.borrow_mut().try_remove(self.key);
    }
}
