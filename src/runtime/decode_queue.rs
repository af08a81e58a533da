//! Whose turn it is, where several want to work for long.
//!
//! All of them together get half of a worker's time, in turns so short that the other connections hardly
//! notice. Every other turn goes to the cheapest one, by what it has cost so far and what its next step may
//! cost, so that a small body passes the large and the laborious; the turns between go to those who
//! have waited longest, so that nobody waits for ever. Where nobody waits, a turn is free.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// How much work may be done at once after a pause of as much again.
const BURST: Duration = Duration::from_micros(500);

/// How much time there is for each unit of work.
const TIME_PER_WORK: u32 = 2;

/// How much work counts at most. What takes longer than turns do is no work but somebody else's, who
/// has the core.
const WORK_MAX: Duration = Duration::from_millis(4);

/// Those who wait for a turn on one worker.
#[derive(Default)]
pub(super) struct Queue {
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    load: Load,
    /// Who waits, and by whom it is woken once it is first.
    waiting: BTreeMap<Place, Option<Waker>>,
    /// The same by age alone.
    ages: BTreeMap<u64, Duration>,
    next_number: u64,
    /// Whether the next turn is for the one that has waited longest.
    is_for_oldest: bool,
}

/// A place in the queue: the cheapest first, of equals the oldest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    cost: Duration,
    number: u64,
}

impl Queue {
    /// Waits for a turn of work that, with its next step, `cost`s so much in all.
    pub(super) async fn turn(&self, cost: Duration) {
        let is_free = {
            let mut state = self.state.borrow_mut();
            state.waiting.is_empty() && state.load.pause(Instant::now()).is_zero()
        };
        if !is_free {
            // On the heap because it is rare.
            Box::pin(self.wait(cost)).await;
        }
    }

    /// Takes note of work that was done until `now`.
    pub(super) fn worked(&self, time: Duration, now: Instant) {
        self.state.borrow_mut().load.add(time, now);
    }

    async fn wait(&self, cost: Duration) {
        let place = self.state.borrow_mut().enter(cost);
        let waiting = Waiting { queue: self, place };
        loop {
            poll_fn(|context| {
                let mut state = self.state.borrow_mut();
                if state.first() == Some(place) {
                    return Poll::Ready(());
                }
                state.waiting.insert(place, Some(context.waker().clone()));
                Poll::Pending
            })
            .await;
            let pause = self.state.borrow_mut().load.pause(Instant::now());
            if pause.is_zero() {
                break;
            }
            // Somebody may come in front meanwhile, who then waits for the same.
            monoio::time::sleep(pause).await;
        }
        let mut state = self.state.borrow_mut();
        state.is_for_oldest = !state.is_for_oldest;
        drop(state);
        drop(waiting);
    }
}

impl State {
    fn enter(&mut self, cost: Duration) -> Place {
        let number = self.next_number;
        self.next_number += 1;
        let place = Place { cost, number };
        self.waiting.insert(place, None);
        self.ages.insert(number, cost);
        place
    }

    /// Removes a place, and gives who has to know that it is first now.
    fn leave(&mut self, place: Place) -> Option<Waker> {
        self.waiting.remove(&place);
        self.ages.remove(&place.number);
        let first = self.first()?;
        self.waiting.get_mut(&first)?.take()
    }

    /// Who has the next turn.
    fn first(&self) -> Option<Place> {
        match self.is_for_oldest {
            true => self.ages.first_key_value().map(|(number, cost)| Place {
                cost: *cost,
                number: *number,
            }),
            false => self.waiting.first_key_value().map(|(place, _)| *place),
        }
    }
}

/// A place that is given up when dropped.
struct Waiting<'q> {
    queue: &'q Queue,
    place: Place,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let next = self.queue.state.borrow_mut().leave(self.place);
        if let Some(waker) = next {
            waker.wake();
        }
    }
}

/// How much was worked lately: a bucket that leaks with time.
#[derive(Default)]
struct Load {
    work: Duration,
    at: Option<Instant>,
}

impl Load {
    fn add(&mut self, time: Duration, now: Instant) {
        self.settle(now);
        self.work = (self.work + time).min(WORK_MAX);
    }

    /// How long nothing more is to be done.
    fn pause(&mut self, now: Instant) -> Duration {
        self.settle(now);
        match self.work < BURST {
            true => Duration::ZERO,
            false => (self.work - BURST) * TIME_PER_WORK + BURST,
        }
    }

    fn settle(&mut self, now: Instant) {
        let passed = self.at.map(|at| now.saturating_duration_since(at));
        self.at = Some(now);
        let leaked = passed.unwrap_or_default() / TIME_PER_WORK;
        self.work = self.work.saturating_sub(leaked);
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

    /// The order in which those get their turns who come while the worker is busy.
    fn order(costs: &[u64]) -> Vec<u64> {
        block_on(async {
            let queue = Rc::new(Queue::default());
            // So much work that nobody has a turn before all wait.
            queue.state.borrow_mut().load.work = 100 * MILLISECOND;
            let order = Rc::new(RefCell::new(Vec::new()));
            let tasks: Vec<_> = costs
                .iter()
                .map(|cost| {
                    let (queue, order, cost) = (Rc::clone(&queue), Rc::clone(&order), *cost);
                    monoio::spawn(async move {
                        queue.turn(Duration::from_micros(cost)).await;
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
    fn every_other_turn_is_for_the_cheapest_and_the_rest_for_the_oldest() {
        assert_eq!(order(&[900, 800, 10, 20, 700]), [10, 900, 20, 800, 700]);
        assert_eq!(order(&[5, 5, 5]), [5, 5, 5]);
    }

    #[test]
    fn a_place_that_is_given_up_does_not_hold_up_the_others() {
        block_on(async {
            let queue = Queue::default();
            let place = queue.state.borrow_mut().enter(Duration::ZERO);
            let given_up = Waiting {
                queue: &queue,
                place,
            };
            let mut other = pin!(queue.turn(Duration::from_secs(1)));
            poll_fn(|context| {
                assert!(other.as_mut().poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
            drop(given_up);
            other.await;
            assert!(queue.state.borrow().waiting.is_empty());
            assert!(queue.state.borrow().ages.is_empty());
        });
    }

    #[test]
    fn work_takes_half_of_the_time() {
        let start = Instant::now();
        let mut load = Load::default();
        assert_eq!(load.pause(start), Duration::ZERO);
        load.add(MILLISECOND, start);
        let mut now = start;
        let mut worked = MILLISECOND;
        while now < start + 1000 * MILLISECOND {
            now += load.pause(now);
            load.add(MILLISECOND / 4, now + MILLISECOND / 4);
            worked += MILLISECOND / 4;
            now += MILLISECOND / 4;
        }
        assert!(worked > 300 * MILLISECOND, "{worked:?}");
        assert!(worked < 502 * MILLISECOND, "{worked:?}");
    }
}
