//! Counts what is in flight, and waits until the count is below a limit.
//!
//! Everything that must not be lost holds an [`InFlightGuard`]. A worker that shuts down waits until all
//! guards are dropped. Each count belongs to one thread, so it needs no lock.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// A count of guards.
#[derive(Default)]
pub(crate) struct InFlight {
    count: Cell<usize>,
    waiting: RefCell<Option<Waker>>,
}

/// Counts as one in flight until it is dropped.
pub(crate) struct InFlightGuard {
    in_flight: Rc<InFlight>,
}

impl InFlight {
    pub(crate) fn acquire(self: &Rc<InFlight>) -> InFlightGuard {
        self.count.set(self.count.get() + 1);
        InFlightGuard {
            in_flight: Rc::clone(self),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.count.get()
    }

    /// Waits until the count is below `limit`, which may change. One task may wait at a time.
    pub(crate) async fn wait_below(&self, limit: impl Fn() -> usize) {
        poll_fn(|context| {
            if self.count.get() < limit() {
                return Poll::Ready(());
            }
            *self.waiting.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Wakes the waiting task, because its limit or the count has changed.
    pub(crate) fn limit_changed(&self) {
        if let Some(waker) = self.waiting.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.in_flight.count.set(self.in_flight.count.get() - 1);
        self.in_flight.limit_changed();
    }
}
