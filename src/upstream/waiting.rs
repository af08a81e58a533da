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

/// The client that sent the request of a delivery.
pub trait Client {
    /// Whether the client has its reply already.
    fn is_answered(&self) -> bool;
}

/// For tests: no client waits for a response.
#[cfg(test)]
pub(crate) struct NoClient;

#[cfg(test)]
impl Client for NoClient {
    fn is_answered(&self) -> bool {
        true
    }
}

/// What a delivery has waited for: a connection, or the reason why it gets none.
pub(crate) type Granted<C> = Result<C, Failure>;

/// Which connections a delivery can use.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Also one that has been used before.
    Any,
    New,
}

/// The queue. Its entries are weak, so that a delivery that gives up needs no search.
type Queue<C> = RefCell<VecDeque<Weak<Waiter<C>>>>;

/// Deliveries that wait for a connection `C`.
pub(crate) struct Waiting<C> {
    for_new: Queue<C>,
    unanswered: Queue<C>,
    answered: Queue<C>,
    count: Cell<usize>,
    /// How many of them want a connection to be opened.
    dials_wanted: Cell<usize>,
}

struct Waiter<C> {
    client: Rc<dyn Client>,
    since: Instant,
    wants_dial: Cell<bool>,
    is_served: Cell<bool>,
    granted: RefCell<Option<Granted<C>>>,
    waker: RefCell<Option<Waker>>,
}

/// A delivery's place in the queue. Dropping it gives the place up.
pub(crate) struct Place<'w, C> {
    waiting: &'w Waiting<C>,
    waiter: Rc<Waiter<C>>,
}

impl<C> Default for Waiting<C> {
    fn default() -> Waiting<C> {
        Waiting {
            for_new: RefCell::default(),
            unanswered: RefCell::default(),
            answered: RefCell::default(),
            count: Cell::default(),
            dials_wanted: Cell::default(),
        }
    }
}

impl<C> Waiting<C> {
    pub(crate) fn count(&self) -> usize {
        self.count.get()
    }

    pub(crate) fn dials_wanted(&self) -> usize {
        self.dials_wanted.get()
    }

    pub(crate) fn enter(
        &self,
        wanted: Wanted,
        client: &Rc<dyn Client>,
        now: Instant,
    ) -> Place<'_, C> {
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
    pub(crate) fn grant_returned(&self, connection: C) -> Option<C> {
        match self.next_for_any() {
            Some(waiter) => self.serve(&waiter, Ok(connection)),
            None => return Some(connection),
        }
        None
    }

    /// Grants a connection that was just opened. Returns it if nobody waits for it.
    pub(crate) fn grant_new(&self, connection: C) -> Option<C> {
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
                    self.serve(&waiter, Err(failure.clone()));
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

    fn next_for_any(&self) -> Option<Rc<Waiter<C>>> {
        while let Some(waiter) = pop(&self.unanswered) {
            if !waiter.client.is_answered() {
                return Some(waiter);
            }
            let mut answered = self.answered.borrow_mut();
            answered.push_back(Rc::downgrade(&waiter));
        }
        pop(&self.answered)
    }

    fn serve(&self, waiter: &Waiter<C>, granted: Granted<C>) {
        self.leave(waiter);
        *waiter.granted.borrow_mut() = Some(granted);
        if let Some(waker) = waiter.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    fn leave(&self, waiter: &Waiter<C>) {
        if !waiter.is_served.replace(true) {
            self.count.set(self.count.get() - 1);
            if waiter.wants_dial.get() {
                self.dials_wanted.set(self.dials_wanted.get() - 1);
            }
        }
    }
}

/// Takes out the first waiter that has not given up.
fn pop<C>(queue: &Queue<C>) -> Option<Rc<Waiter<C>>> {
    let mut queue = queue.borrow_mut();
    while let Some(waiter) = queue.pop_front() {
        if let Some(waiter) = waiter.upgrade() {
            return Some(waiter);
        }
    }
    None
}

impl<C> Place<'_, C> {
    /// Asks for a connection to be opened.
    pub(crate) fn want_dial(&self) {
        let waiter = &self.waiter;
        if !waiter.is_served.get() && !waiter.wants_dial.replace(true) {
            let dials_wanted = &self.waiting.dials_wanted;
            dials_wanted.set(dials_wanted.get() + 1);
        }
    }

    pub(crate) async fn granted(&self) -> Granted<C> {
        poll_fn(|context| self.poll_granted(context)).await
    }

    fn poll_granted(&self, context: &Context<'_>) -> Poll<Granted<C>> {
        match self.waiter.granted.borrow_mut().take() {
            Some(granted) => Poll::Ready(granted),
            None => {
                *self.waiter.waker.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// What was granted and not taken.
    pub(crate) fn take_granted(&self) -> Option<Granted<C>> {
        self.waiter.granted.borrow_mut().take()
    }
}

impl<C> Drop for Place<'_, C> {
    fn drop(&mut self) {
        self.waiting.leave(&self.waiter);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[derive(Default)]
    struct TestClient(Cell<bool>);

    impl Client for TestClient {
        fn is_answered(&self) -> bool {
            self.0.get()
        }
    }

    fn client() -> Rc<dyn Client> {
        Rc::new(TestClient::default())
    }

    fn granted(place: &Place<'_, u32>) -> Option<u32> {
        place.take_granted().map(Result::unwrap)
    }

    #[test]
    fn who_came_first_is_served_first_and_who_gave_up_is_not() {
        let waiting = Waiting::default();
        let now = Instant::now();
        let enter = || waiting.enter(Wanted::Any, &client(), now);
        let (first, second, third) = (enter(), enter(), enter());
        assert_eq!(waiting.count(), 3);
        drop(second);
        assert_eq!(waiting.count(), 2);
        assert_eq!(waiting.grant_returned(1), None);
        assert_eq!(waiting.grant_new(2), None);
        assert_eq!(waiting.grant_returned(3), Some(3));
        assert_eq!((granted(&first), granted(&third)), (Some(1), Some(2)));
        assert_eq!(waiting.count(), 0);
    }

    #[test]
    fn a_delivery_whose_client_waits_goes_before_one_whose_client_was_answered() {
        let waiting = Waiting::default();
        let now = Instant::now();
        let early = Rc::new(TestClient::default());
        let as_client: Rc<dyn Client> = Rc::clone(&early) as _;
        let [answered_first, answered_second] =
            [(); 2].map(|()| waiting.enter(Wanted::Any, &as_client, now));
        let unanswered = waiting.enter(Wanted::Any, &client(), now);
        early.0.set(true);
        (1..=3).for_each(|number| assert_eq!(waiting.grant_returned(number), None));
        let order = [&unanswered, &answered_first, &answered_second].map(granted);
        assert_eq!(order, [Some(1), Some(2), Some(3)]);
    }

    #[test]
    fn a_delivery_that_needs_a_new_connection_gets_no_other() {
        let waiting = Waiting::default();
        let now = Instant::now();
        let any = waiting.enter(Wanted::Any, &client(), now);
        let new = waiting.enter(Wanted::New, &client(), now);
        assert_eq!(waiting.grant_new(1), None);
        assert_eq!(waiting.grant_returned(2), None);
        assert_eq!((granted(&any), granted(&new)), (Some(2), Some(1)));
    }

    #[test]
    fn a_failed_dial_fails_those_who_wanted_it_before_it_began() {
        let waiting: Waiting<u32> = Waiting::default();
        let begun = Instant::now();
        let [without_dial, first, second] =
            [(); 3].map(|()| waiting.enter(Wanted::Any, &client(), begun));
        let later = waiting.enter(Wanted::Any, &client(), begun + Duration::from_millis(1));
        [&first, &second, &later]
            .iter()
            .for_each(|place| place.want_dial());
        assert_eq!(waiting.dials_wanted(), 3);
        let is_failed = |place: &Place<'_, u32>| {
            let granted = place.take_granted();
            granted.is_some_and(|granted| matches!(granted, Err(Failure::Dns)))
        };
        waiting.fail(&Failure::Dns, begun, 1);
        assert_eq!((waiting.count(), waiting.dials_wanted()), (3, 2));
        assert!(is_failed(&first) && !is_failed(&second));
        waiting.fail(&Failure::Dns, begun, usize::MAX);
        assert!(is_failed(&second) && !is_failed(&later) && !is_failed(&without_dial));
        assert_eq!((waiting.count(), waiting.dials_wanted()), (2, 1));
    }

    #[test]
    fn who_is_served_or_gives_up_wants_no_dial() {
        let waiting = Waiting::default();
        let [served, gives_up] =
            [(); 2].map(|()| waiting.enter(Wanted::Any, &client(), Instant::now()));
        [&served, &gives_up]
            .iter()
            .for_each(|place| place.want_dial());
        assert_eq!(waiting.grant_returned(1), None);
        assert_eq!(waiting.dials_wanted(), 1);
        drop(gives_up);
        drop(served);
        assert_eq!((waiting.count(), waiting.dials_wanted()), (0, 0));
        waiting.sweep();
        assert!(waiting.unanswered.borrow().is_empty());
    }
}
