//! The shortest of recent durations.
//!
//! The shortest duration is close to what the network and the server need. The mean would not do: it grows
//! with the load of this worker, and would make a near upstream look far away.

use std::cell::Cell;
use std::time::Duration;

/// How many calls of [`ShortestRecent::age`] a duration counts for, at least. At most twice as many.
const PERIOD: u32 = 8;

#[derive(Default)]
pub(crate) struct ShortestRecent {
    /// Of the current period.
    current: Cell<Option<Duration>>,
    /// Of the last period that had any.
    previous: Cell<Option<Duration>>,
    age: Cell<u32>,
}

impl ShortestRecent {
    pub(crate) fn record(&self, duration: Duration) {
        if self
            .current
            .get()
            .is_none_or(|shortest| duration < shortest)
        {
            self.current.set(Some(duration));
        }
    }

    /// `None` if nothing was recorded yet.
    pub(crate) fn get(&self) -> Option<Duration> {
        match (self.current.get(), self.previous.get()) {
            (Some(current), Some(previous)) => Some(current.min(previous)),
            (current, previous) => current.or(previous),
        }
    }

    /// Forgets old durations. To be called at regular intervals.
    pub(crate) fn age(&self) {
        let age = self.age.get() + 1;
        self.age.set(age % PERIOD);
        if age == PERIOD && self.current.get().is_some() {
            self.previous.set(self.current.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_millis(100);

    fn age(shortest: &ShortestRecent, times: u32) {
        (0..times).for_each(|_| shortest.age());
    }

    #[test]
    fn the_shortest_counts_for_one_or_two_periods() {
        let shortest = ShortestRecent::default();
        assert_eq!(shortest.get(), None);
        for duration in [LONG, SHORT, LONG] {
            shortest.record(duration);
        }
        age(&shortest, PERIOD);
        shortest.record(LONG);
        assert_eq!(shortest.get(), Some(SHORT));
        age(&shortest, PERIOD);
        assert_eq!(shortest.get(), Some(LONG));
    }

    #[test]
    fn the_last_known_duration_stays_while_there_is_no_other() {
        let shortest = ShortestRecent::default();
        shortest.record(LONG);
        age(&shortest, 10 * PERIOD);
        assert_eq!(shortest.get(), Some(LONG));
    }
}
