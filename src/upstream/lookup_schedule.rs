//! When each host is to be looked up again.
//!
//! After an answer the host waits for the refresh interval, after a failure for a second, doubled with each
//! further failure up to that interval. Each wait is shortened by a random part, so that many hosts do not stay
//! in step. A host that cannot be reached is looked up at once, but at most once a second.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// The wait after a first failure, and the least between two lookups of a host.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct HostId(u64);

#[derive(Default)]
pub(crate) struct Schedule {
    refresh: Duration,
    last_id: u64,
    hosts: HashMap<HostId, Host>,
    /// The hosts that are not being looked up.
    waiting: BTreeSet<(Instant, HostId)>,
}

struct Host {
    /// When it is looked up next. `None` while that happens.
    due: Option<Instant>,
    /// The end of the last lookup.
    ended: Option<Instant>,
    /// The wait after the next failure.
    retry: Duration,
}

impl Schedule {
    /// Changes the refresh interval, also for the waits that have begun.
    pub(crate) fn set_refresh(&mut self, refresh: Duration, now: Instant, random: u64) {
        self.refresh = refresh;
        let late = self.waiting.split_off(&(now + refresh, HostId(0)));
        for (_, id) in late {
            // Spread, because they are many.
            let wait = shortened(refresh, random.rotate_left(id.0 as u32 % 64));
            self.wait_until(id, now + wait);
        }
    }

    /// Adds a host, which is due at once.
    pub(crate) fn add(&mut self, now: Instant) -> HostId {
        self.last_id += 1;
        let id = HostId(self.last_id);
        let host = Host {
            due: None,
            ended: None,
            retry: RETRY,
        };
        self.hosts.insert(id, host);
        self.wait_until(id, now);
        id
    }

    pub(crate) fn remove(&mut self, id: HostId) {
        if let Some(due) = self.hosts.remove(&id).and_then(|host| host.due) {
            self.waiting.remove(&(due, id));
        }
    }

    /// The time at which the next lookup is due. It may be over.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.waiting.first().map(|(due, _)| *due)
    }

    /// The host that has been due for longest. It is not due again before [`Schedule::end`].
    pub(crate) fn begin(&mut self, now: Instant) -> Option<HostId> {
        self.next_due().filter(|due| *due <= now)?;
        let (_, id) = self.waiting.pop_first()?;
        if let Some(host) = self.hosts.get_mut(&id) {
            host.due = None;
        }
        Some(id)
    }

    /// Records the end of a lookup.
    pub(crate) fn end(&mut self, id: HostId, is_answered: bool, now: Instant, random: u64) {
        let refresh = self.refresh;
        let Some(host) = self.hosts.get_mut(&id) else {
            return;
        };
        host.ended = Some(now);
        let wait = if is_answered {
            refresh
        } else {
            host.retry.min(refresh)
        };
        host.retry = if is_answered {
            RETRY
        } else {
            refresh.min(host.retry * 2)
        };
        self.wait_until(id, now + shortened(wait, random));
    }

    /// Makes a host due as soon as its last lookup is a second ago. Returns whether that is earlier than before.
    pub(crate) fn hurry(&mut self, id: HostId, now: Instant) -> bool {
        let Some(host) = self.hosts.get(&id) else {
            return false;
        };
        let soon = host.ended.map_or(now, |ended| now.max(ended + RETRY));
        let is_earlier = host.due.is_some_and(|due| soon < due);
        if is_earlier {
            self.wait_until(id, soon);
        }
        is_earlier
    }

    fn wait_until(&mut self, id: HostId, due: Instant) {
        if let Some(host) = self.hosts.get_mut(&id) {
            if let Some(before) = host.due.replace(due) {
                self.waiting.remove(&(before, id));
            }
            self.waiting.insert((due, id));
        }
    }
}

/// `wait` without up to a fifth of it.
fn shortened(wait: Duration, random: u64) -> Duration {
    wait.mul_f64(1.0 - (random % 1024) as f64 / 5120.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const REFRESH: Duration = Duration::from_secs(30);

    fn schedule(now: Instant) -> Schedule {
        let mut schedule = Schedule::default();
        schedule.set_refresh(REFRESH, now, 0);
        schedule
    }

    /// How long after `now` the only host is due.
    fn wait(schedule: &Schedule, now: Instant) -> Duration {
        schedule.next_due().unwrap().duration_since(now)
    }

    #[test]
    fn a_failed_lookup_is_repeated_after_a_second_then_after_twice_the_time() {
        let mut now = Instant::now();
        let mut schedule = schedule(now);
        let id = schedule.add(now);
        let lookups = [
            (false, 1),
            (false, 2),
            (false, 4),
            (false, 8),
            (false, 16),
            (false, 30),
            (false, 30),
            (true, 30),
            (true, 30),
            (false, 1),
            (false, 2),
            (true, 30),
        ];
        for (turn, (is_answered, seconds)) in lookups.into_iter().enumerate() {
            assert_eq!(schedule.begin(now), Some(id), "{turn}");
            assert_eq!((schedule.begin(now), schedule.next_due()), (None, None));
            schedule.end(id, is_answered, now, 0);
            assert_eq!(wait(&schedule, now), seconds * SECOND, "{turn}");
            now += seconds * SECOND;
            assert_eq!(schedule.begin(now - SECOND / 10), None);
        }
    }

    #[test]
    fn no_wait_is_longer_than_the_refresh_interval() {
        let mut now = Instant::now();
        let mut schedule = schedule(now);
        schedule.set_refresh(SECOND / 4, now, 0);
        let id = schedule.add(now);
        for random in (0..2048).step_by(7) {
            assert_eq!(schedule.begin(now), Some(id));
            schedule.end(id, random % 2 == 0, now, random);
            let wait = wait(&schedule, now);
            assert!(SECOND / 5 <= wait && wait <= SECOND / 4, "{wait:?}");
            now += wait;
        }
    }

    #[test]
    fn hosts_are_looked_up_in_the_order_in_which_they_are_due() {
        let now = Instant::now();
        let mut schedule = schedule(now);
        let [first, second, third] = [0, 1, 2].map(|later| schedule.add(now + later * SECOND));
        let begun: Vec<_> = (0..3)
            .filter_map(|_| schedule.begin(now + 5 * SECOND))
            .collect();
        assert_eq!(begun, [first, second, third]);
        schedule.end(third, false, now, 0);
        schedule.end(first, true, now, 512);
        schedule.end(second, true, now, 1);
        schedule.remove(second);
        assert_eq!(schedule.begin(now + 60 * SECOND), Some(third));
        assert_eq!(schedule.begin(now + 60 * SECOND), Some(first));
        assert_eq!(schedule.begin(now + 60 * SECOND), None);
        schedule.remove(first);
        schedule.end(first, true, now, 0);
        assert_eq!(schedule.next_due(), None);
    }

    #[test]
    fn a_host_that_cannot_be_reached_is_looked_up_at_most_once_a_second() {
        let now = Instant::now();
        let mut schedule = schedule(now);
        let id = schedule.add(now);
        assert!(!schedule.hurry(id, now), "it is due");
        schedule.begin(now);
        assert!(!schedule.hurry(id, now), "it is being looked up");
        schedule.end(id, true, now, 0);
        let later = now + SECOND / 4;
        assert!(schedule.hurry(id, later));
        assert!(!schedule.hurry(id, later), "it is so already");
        assert_eq!(wait(&schedule, now), SECOND);
        schedule.begin(now + SECOND);
        schedule.end(id, true, now + SECOND, 0);
        assert!(schedule.hurry(id, now + 10 * SECOND));
        assert_eq!(wait(&schedule, now), 10 * SECOND);
        schedule.remove(id);
        assert!(!schedule.hurry(id, now));
    }

    #[test]
    fn a_shorter_refresh_interval_holds_at_once() {
        let now = Instant::now();
        let mut schedule = schedule(now);
        for _ in 0..50 {
            schedule.add(now);
        }
        while let Some(id) = schedule.begin(now) {
            schedule.end(id, true, now, 0);
        }
        schedule.set_refresh(5 * SECOND, now, 0x1234_5678_9abc_def0);
        let last = schedule.waiting.last().unwrap().0;
        assert!(last <= now + 5 * SECOND && schedule.next_due().unwrap() >= now + 4 * SECOND);
        assert_eq!(schedule.waiting.len(), 50);
        assert!(schedule.next_due().unwrap() < last, "they are spread");
    }
}
