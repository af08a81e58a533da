//! Counts what is in flight, and waits until there is nothing left.
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

    /// Waits until there is no guard. One task may wait at a time.
    pub(crate) async fn wait_for_none(&self) {
        poll_fn(|context| {
            if self.count.get() == 0 {
                return Poll::Ready(());
            }
            *self.waiting.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        let in_flight = &self.in_flight;
        in_flight.count.set(in_flight.count.get() - 1);
        if let Some(waker) = in_flight.waiting.borrow_mut().take() {
            waker.wake();
        }
    }
}
