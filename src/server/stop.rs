//! Telling every idle connection of a worker that it is time to stop.
//!
//! A connection between requests waits for its client and for the order at once. It listens in a
//! slot of its own, so that waiting again costs no allocation.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// The order to stop, given once, for everyone who listens, now or later.
#[derive(Default)]
pub struct Stop {
    is_ordered: Cell<bool>,
    slots: RefCell<Vec<Slot>>,
}

/// Where one listener's waker is kept.
#[derive(Default)]
enum Slot {
    #[default]
    Free,
    Taken(Option<Waker>),
}

/// One who listens to a [`Stop`].
pub struct Listener {
    stop: Rc<Stop>,
    slot: usize,
}

impl Stop {
    /// Gives the order; later calls change nothing.
    pub fn order(&self) {
        self.is_ordered.set(true);
        for slot in self.slots.borrow_mut().iter_mut() {
            if let Slot::Taken(Some(waker)) = slot {
                waker.wake_by_ref();
            }
        }
    }

    /// Whether it was given.
    pub fn is_ordered(&self) -> bool {
        self.is_ordered.get()
    }

    /// A new listener.
    pub fn listener(self: &Rc<Stop>) -> Listener {
        let mut slots = self.slots.borrow_mut();
        let free = slots.iter().position(|slot| matches!(slot, Slot::Free));
        let slot = free.unwrap_or(slots.len());
        if free.is_none() {
            slots.push(Slot::Free);
        }
        if let Some(place) = slots.get_mut(slot) {
            *place = Slot::Taken(None);
        }
        Listener {
            stop: Rc::clone(self),
            slot,
        }
    }
}

impl Listener {
    /// Ready once the order was given.
    pub fn poll_ordered(&self, context: &Context<'_>) -> Poll<()> {
        if self.stop.is_ordered() {
            return Poll::Ready(());
        }
        let mut slots = self.stop.slots.borrow_mut();
        if let Some(Slot::Taken(waker)) = slots.get_mut(self.slot) {
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
        if let Some(slot) = self.stop.slots.borrow_mut().get_mut(self.slot) {
            *slot = Slot::Free;
        }
    }
}
