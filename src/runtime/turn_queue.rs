//! Schedules long work of one kind on one worker: the decoding of bodies, or TLS handshakes.
//!
//! Together all jobs get half of the worker's time, in turns so short that other connections are hardly
//! delayed. Every other turn goes to the cheapest job, by its cost so far and the possible cost of its next
//! step, so that a small body overtakes large and expensive ones. The turns in between go to the job that has
//! waited longest, so that none starves. With an empty queue and little recent work, a turn starts at once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::runtime::recent_work::RecentWork;

/// The jobs that wait for a turn on one worker.
#[derive(Default)]
pub(crate) struct TurnQueue {
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    recent_work: RecentWork,
    /// The entries by cost, with the waker of each.
    entries: BTreeMap<Entry, Option<Waker>>,
    /// The costs of the entries by number, which is their age.
    by_age: BTreeMap<u64, Duration>,
    next_number: u64,
    /// Whether the next turn is for the oldest entry, not the cheapest.
    is_for_oldest: bool,
}

/// An entry of the queue. Entries with the same cost are ordered by age.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    cost: Duration,
    number: u64,
}

impl TurnQueue {
    /// As if so much had been done just now.
    #[cfg(test)]
    pub(super) fn after(work: Duration) -> TurnQueue {
        let queue = TurnQueue::default();
        queue.state.borrow_mut().recent_work = RecentWork::of(work);
        queue
    }

    /// Waits for a turn. `cost` is the cost of the job including its next step.
    pub(crate) async fn wait_for_turn(&self, cost: Duration) {
        let can_start = {
            let mut state = self.state.borrow_mut();
            state.entries.is_empty() && state.recent_work.delay(Instant::now()).is_zero()
        };
        if !can_start {
            // Boxed because it is rare.
            Box::pin(self.wait(cost)).await;
        }
    }

    /// Records work of this duration that ended at `now`.
    pub(crate) fn record_work(&self, duration: Duration, now: Instant) {
        self.state.borrow_mut().recent_work.add(duration, now);
    }

    async fn wait(&self, cost: Duration) {
        let entry = self.state.borrow_mut().push(cost);
        let guard = EntryGuard { queue: self, entry };
        loop {
            poll_fn(|context| {
                let mut state = self.state.borrow_mut();
                if state.next() == Some(entry) {
                    return Poll::Ready(());
                }
                state.entries.insert(entry, Some(context.waker().clone()));
                Poll::Pending
            })
            .await;
            let delay = self.state.borrow_mut().recent_work.delay(Instant::now());
            if delay.is_zero() {
                break;
            }
            // Meanwhile a cheaper entry may become the next one. It then waits for the same delay.
            monoio::time::sleep(delay).await;
        }
        let mut state = self.state.borrow_mut();
        state.is_for_oldest = !state.is_for_oldest;
        drop(state);
        drop(guard);
    }
}

impl State {
    fn push(&mut self, cost: Duration) -> Entry {
        let number = self.next_number;
        self.next_number += 1;
        let entry = Entry { cost, number };
        self.entries.insert(entry, None);
        self.by_age.insert(number, cost);
        entry
    }

    /// Removes an entry. Returns the waker of the one that is next now.
    fn remove(&mut self, entry: Entry) -> Option<Waker> {
        self.entries.remove(&entry);
        self.by_age.remove(&entry.number);
        let next = self.next()?;
        self.entries.get_mut(&next)?.take()
    }

    /// The entry that gets the next turn.
    fn next(&self) -> Option<Entry> {
        match self.is_for_oldest {
            true => self.by_age.first_key_value().map(|(number, cost)| Entry {
                cost: *cost,
                number: *number,
            }),
            false => self.entries.first_key_value().map(|(entry, _)| *entry),
        }
    }
}

/// Removes an entry from the queue on drop.
struct EntryGuard<'q> {
    queue: &'q TurnQueue,
    entry: Entry,
}

impl Drop for EntryGuard<'_> {
    fn drop(&mut self) {
        let next = self.queue.state.borrow_mut().remove(self.entry);
        if let Some(waker) = next {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::rc::Rc;

    use super::*;
    use crate::runtime::test_runtime::block_on;

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// The order in which entries with these costs get their turns if they arrive while the worker is busy.
    fn order(costs: &[u64]) -> Vec<u64> {
        block_on(async {
            // So much work that no turn starts before all entries wait.
            let queue = Rc::new(TurnQueue::after(100 * MILLISECOND));
            let order = Rc::new(RefCell::new(Vec::new()));
            let tasks: Vec<_> = costs
                .iter()
                .map(|cost| {
                    let (queue, order, cost) = (Rc::clone(&queue), Rc::clone(&order), *cost);
                    monoio::spawn(async move {
                        queue.wait_for_turn(Duration::from_micros(cost)).await;
                        order.borrow_mut().push(cost);
                    })
                })
                .collect();
            for task in tasks {
                task.await;
            }
            order.take()
        })
    }

    #[test]
    fn turns_alternate_between_the_cheapest_and_the_oldest() {
        assert_eq!(order(&[900, 800, 10, 20, 700]), [10, 900, 20, 800, 700]);
        assert_eq!(order(&[5, 5, 5]), [5, 5, 5]);
    }

    #[test]
    fn a_dropped_entry_does_not_block_the_others() {
        block_on(async {
            let queue = TurnQueue::default();
            let entry = queue.state.borrow_mut().push(Duration::ZERO);
            let guard = EntryGuard {
                queue: &queue,
                entry,
            };
            let mut other = pin!(queue.wait_for_turn(Duration::from_secs(1)));
            poll_fn(|context| {
                assert!(other.as_mut().poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
            drop(guard);
            other.await;
            assert!(queue.state.borrow().entries.is_empty());
            assert!(queue.state.borrow().by_age.is_empty());
        });
    }
}
