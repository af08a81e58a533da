//! Waiting until everything in flight has ended.
//!
//! Whatever must not be lost holds a [`Pass`]; a stopping worker waits at the gate until the last
//! one is dropped. It is one count on one thread, so there is nothing to lock.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Counts the passes that are out.
#[derive(Default)]
pub(crate) struct Gate {
    inside: Cell<usize>,
    waiting: RefCell<Option<Waker>>,
}

/// Held by whatever the gate has to wait for.
pub(crate) struct Pass {
    gate: Rc<Gate>,
}

impl Gate {
    /// Hands out a pass.
    pub(crate) fn enter(self: &Rc<Gate>) -> Pass {
        self.inside.set(self.inside.get() + 1);
        Pass {
            gate: Rc::clone(self),
        }
    }

    /// How many passes are out.
    pub(crate) fn inside(&self) -> usize {
        self.inside.get()
    }

    /// Waits until fewer passes are out than `count` says. One task may wait at a time.
    pub(crate) async fn below(&self, count: impl Fn() -> usize) {
        poll_fn(|context| {
            if self.inside.get() < count() {
                return Poll::Ready(());
            }
            *self.waiting.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Lets whoever waits count anew, because the number that it waits for has changed.
    pub(crate) fn look_again(&self) {
        if let Some(waker) = self.waiting.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.gate.inside.set(self.gate.inside.get() - 1);
        self.gate.look_again();
    }
}
