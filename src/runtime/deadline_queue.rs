//! The deadlines of one core.
//!
//! Nearly every deadline is removed before it is over: the read completes, the response arrives. So adding and
//! removing one costs little, and finding those that are over may cost more. They have no order. One timer of the
//! runtime is set to the earliest deadline; when it fires, all of them are looked at. Afterwards the earliest one is
//! mostly a whole timeout away. A timer of the runtime for each would cost several times as much, and be moved
//! through every future that waits.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use monoio::time::timeout_at;
use slab::Slab;

/// The least time between two looks at all deadlines. So a deadline may be noticed that much late.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

thread_local! {
    static QUEUE: RefCell<Option<DeadlineQueue>> = const { RefCell::new(None) };
}

/// Begins to watch deadlines on this thread, in the runtime that runs now.
pub(super) fn start() {
    QUEUE.set(Some(DeadlineQueue::new(Instant::now())));
    monoio::spawn(watch());
}

/// A deadline, which is in the queue once something waits for it.
pub(super) struct Deadline {
    at: Instant,
    place: Option<usize>,
}

impl Deadline {
    pub(super) fn new(at: Instant) -> Deadline {
        Deadline { at, place: None }
    }

    /// Ready once it is over.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        QUEUE.with_borrow_mut(|queue| {
            debug_assert!(queue.is_some(), "nothing watches deadlines here");
            let Some(queue) = queue else {
                return Poll::Pending;
            };
            match self.place {
                Some(place) => queue.poll(place, context.waker()),
                None => {
                    self.place = Some(queue.add(self.at, context.waker().clone()));
                    Poll::Pending
                }
            }
        })
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let Some(place) = self.place else {
            return;
        };
        // The waker is dropped when the queue is free again: it may hold the last reference to a task. There is no
        // queue when the thread ends.
        let _removed = QUEUE.try_with(|queue| {
            let mut queue = queue.borrow_mut();
            queue.as_mut().and_then(|queue| queue.remove(place))
        });
    }
}

/// Ends what is overdue, for as long as the runtime runs.
async fn watch() {
    loop {
        let next = with_queue(|queue| queue.next);
        let earlier = pin!(poll_fn(|context| {
            with_queue(|queue| queue.poll_other_than(next, context.waker()))
        }));
        match next {
            None => earlier.await,
            Some(at) => {
                let _ = timeout_at(at.into(), earlier).await;
            }
        }
        let now = Instant::now();
        with_queue(|queue| queue.look(now));
    }
}

fn with_queue<T>(run: impl FnOnce(&mut DeadlineQueue) -> T) -> T {
    QUEUE.with_borrow_mut(|queue| {
        run(queue.get_or_insert_with(|| DeadlineQueue::new(Instant::now())))
    })
}

struct DeadlineQueue {
    waiting: Slab<Waiting>,
    /// When to look at all of them. No deadline is earlier, unless that look would be too soon.
    next: Option<Instant>,
    not_before: Instant,
    /// Wakes the task that looks, for a deadline before `next`.
    watcher: Option<Waker>,
}

struct Waiting {
    deadline: Instant,
    /// `None` once the deadline is over.
    waker: Option<Waker>,
}

impl DeadlineQueue {
    fn new(now: Instant) -> DeadlineQueue {
        DeadlineQueue {
            waiting: Slab::new(),
            next: None,
            not_before: now,
            watcher: None,
        }
    }

    /// Adds a deadline, and returns its place.
    fn add(&mut self, deadline: Instant, waker: Waker) -> usize {
        if self.next.is_none_or(|next| deadline < next) {
            self.bring_forward(deadline);
        }
        self.waiting.insert(Waiting {
            deadline,
            waker: Some(waker),
        })
    }

    #[cold]
    fn bring_forward(&mut self, deadline: Instant) {
        let next = deadline.max(self.not_before);
        if self.next.is_none_or(|at| next < at) {
            self.next = Some(next);
            if let Some(watcher) = self.watcher.take() {
                watcher.wake();
            }
        }
    }

    fn remove(&mut self, place: usize) -> Option<Waiting> {
        self.waiting.try_remove(place)
    }

    /// Ready if the deadline at `place` is over. Otherwise `waker` is woken then.
    fn poll(&mut self, place: usize, waker: &Waker) -> Poll<()> {
        match self.waiting.get_mut(place) {
            Some(Waiting {
                waker: Some(known), ..
            }) => {
                known.clone_from(waker);
                Poll::Pending
            }
            Some(Waiting { waker: None, .. }) | None => Poll::Ready(()),
        }
    }

    /// Ready if the next look is at another time than `known`.
    fn poll_other_than(&mut self, known: Option<Instant>, waker: &Waker) -> Poll<()> {
        if self.next != known {
            return Poll::Ready(());
        }
        self.watcher = Some(waker.clone());
        Poll::Pending
    }

    /// If a look is due at `now`, wakes whatever waits for a deadline that is over.
    fn look(&mut self, now: Instant) {
        if self.next.is_none_or(|next| now < next) {
            return;
        }
        self.not_before = now + LOOK_INTERVAL;
        let mut earliest: Option<Instant> = None;
        for (_, waiting) in &mut self.waiting {
            if waiting.deadline > now {
                let other = earliest.unwrap_or(waiting.deadline);
                earliest = Some(other.min(waiting.deadline));
            } else if let Some(waker) = waiting.waker.take() {
                waker.wake();
            }
        }
        self.next = earliest.map(|earliest| earliest.max(self.not_before));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Counts how often it was woken.
    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counted() -> (Arc<Count>, Waker) {
        let count = Arc::new(Count::default());
        (Arc::clone(&count), Waker::from(count))
    }

    fn woken(count: &Count) -> usize {
        count.0.load(Ordering::Relaxed)
    }

    #[test]
    fn what_is_over_is_woken_once_and_the_next_look_is_at_the_earliest_of_the_rest() {
        let start = Instant::now();
        let mut queue = DeadlineQueue::new(start);
        let (count, waker) = counted();
        let places = [30, 10, 20].map(|ms| queue.add(start + ms * MS, waker.clone()));
        assert_eq!(queue.next, Some(start + 10 * MS));
        queue.look(start + 9 * MS);
        assert_eq!(woken(&count), 0);
        queue.look(start + 12 * MS);
        assert_eq!((woken(&count), queue.next), (1, Some(start + 20 * MS)));
        let is_over = places.map(|place| queue.poll(place, &waker).is_ready());
        assert_eq!(is_over, [false, true, false]);
        queue.look(start + 40 * MS);
        assert_eq!((woken(&count), queue.next), (3, None));
        queue.look(start + 50 * MS);
        assert_eq!(woken(&count), 3);
    }

    #[test]
    fn what_was_removed_is_not_woken_and_its_place_is_used_again() {
        let start = Instant::now();
        let mut queue = DeadlineQueue::new(start);
        let (count, waker) = counted();
        let place = queue.add(start + 10 * MS, waker.clone());
        assert!(queue.remove(place).is_some() && queue.remove(place).is_none());
        assert_eq!(queue.add(start + 30 * MS, waker), place);
        queue.look(start + 20 * MS);
        assert_eq!((woken(&count), queue.next), (0, Some(start + 30 * MS)));
    }

    #[test]
    fn only_a_deadline_before_the_next_look_wakes_the_watcher() {
        let start = Instant::now();
        let mut queue = DeadlineQueue::new(start);
        let (count, watcher) = counted();
        let (_, waker) = counted();
        assert!(queue.poll_other_than(None, &watcher).is_pending());
        queue.add(start + 20 * MS, waker.clone());
        assert_eq!(woken(&count), 1);
        let next = queue.next;
        assert!(queue.poll_other_than(None, &watcher).is_ready());
        assert!(queue.poll_other_than(next, &watcher).is_pending());
        queue.add(start + 20 * MS, waker.clone());
        queue.add(start + 30 * MS, waker.clone());
        assert_eq!(woken(&count), 1);
        queue.add(start + 10 * MS, waker);
        assert_eq!((woken(&count), queue.next), (2, Some(start + 10 * MS)));
    }

    #[test]
    fn deadlines_that_are_over_at_once_are_not_looked_at_one_by_one() {
        let start = Instant::now();
        let mut queue = DeadlineQueue::new(start);
        let (count, waker) = counted();
        queue.add(start, waker.clone());
        queue.look(start);
        assert_eq!(woken(&count), 1);
        let now = start + MS;
        for _ in 0..100 {
            queue.add(now, waker.clone());
            queue.look(now);
        }
        assert_eq!(
            (woken(&count), queue.next),
            (1, Some(start + LOOK_INTERVAL))
        );
        queue.look(start + LOOK_INTERVAL);
        assert_eq!((woken(&count), queue.next), (101, None));
    }

    #[test]
    fn another_task_that_takes_over_is_woken_instead() {
        let start = Instant::now();
        let mut queue = DeadlineQueue::new(start);
        let ((first, first_waker), (second, second_waker)) = (counted(), counted());
        let place = queue.add(start + MS, first_waker);
        assert!(queue.poll(place, &second_waker).is_pending());
        queue.look(start + MS);
        assert_eq!((woken(&first), woken(&second)), (0, 1));
    }
}
