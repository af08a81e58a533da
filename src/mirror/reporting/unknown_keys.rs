//! The keys that no inbound DSN has, with who sends them: an application with a wrong DSN loses everything,
//! and only here can an operator see which one.
//!
//! A worker collects what it rejects ([`SeenKeys`]), and once a second adds it to what the process knows
//! ([`UnknownKeys`]). So rejecting a request takes no lock, and a key that arrives at several workers is
//! logged once. Whatever is sent, memory is bounded: a key that has no place is only counted.

use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::mirror::reply::rejected_key::RejectedKey;
use crate::mirror::request::sender::Sender;

/// The number of keys that a worker collects in a second.
const SEEN_MAX: usize = 64;

/// The number of keys that the process knows. With its sender, each takes up to 400 bytes.
const KNOWN_MAX: usize = 256;

/// A key that was not seen for so long makes room before all others.
const IDLE: Duration = Duration::from_secs(600);

/// The time between two log lines about the same key.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The number of keys that are logged in each [`LOG_INTERVAL`].
const LOGGED_MAX: usize = 20;

/// The keys that one worker has rejected since it last reported them.
#[derive(Default)]
pub(crate) struct SeenKeys {
    keys: Vec<SeenKey>,
    /// The requests with keys that have no place.
    others: u64,
}

struct SeenKey {
    key: RejectedKey,
    sender: Sender,
    requests: u64,
}

impl SeenKeys {
    /// Counts a rejected request. `sender` is asked only for the first one with its key.
    pub(crate) fn record(&mut self, key: &RejectedKey, sender: impl FnOnce() -> Sender) {
        if let Some(seen) = self.keys.iter_mut().find(|seen| seen.key == *key) {
            seen.requests += 1;
        } else if self.keys.len() < SEEN_MAX {
            self.keys.push(SeenKey {
                key: key.clone(),
                sender: sender(),
                requests: 1,
            });
        } else {
            self.others += 1;
        }
    }

    fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.others == 0
    }
}

/// The keys that all workers have rejected since the start.
#[derive(Default)]
pub struct UnknownKeys(Mutex<Table>);

#[derive(Default)]
struct Table {
    keys: Vec<UnknownKey>,
    /// The requests with keys that are not, or no longer, in `keys`.
    others: u64,
    /// Those of them that no log line has counted.
    unlogged_others: u64,
    /// When the current [`LOG_INTERVAL`] began, and how many keys were logged since.
    logging: Option<(Instant, usize)>,
}

/// A key that no inbound DSN has.
#[derive(Clone)]
pub struct UnknownKey {
    key: RejectedKey,
    /// Who sent one of the last requests with it.
    pub sender: Sender,
    pub requests: u64,
    pub first_at: Instant,
    pub last_at: Instant,
    /// The requests that no log line has counted.
    unlogged: u64,
    logged_at: Option<Instant>,
}

impl UnknownKey {
    /// The beginning of the key.
    pub fn shown(&self) -> String {
        self.key.to_string()
    }
}

/// What to log about unknown keys.
#[derive(Debug, PartialEq, Eq)]
enum Notice {
    Key {
        key: String,
        sender: Sender,
        requests: u64,
    },
    Others(u64),
}

impl UnknownKeys {
    /// Adds what a worker has `seen`, which is empty afterwards.
    pub(crate) fn merge(&self, seen: &mut SeenKeys, now: Instant) {
        if !seen.is_empty() {
            self.lock().merge(mem::take(seen), now);
        }
    }

    /// Logs what is due. Must be called regularly.
    pub(crate) fn log(&self, now: Instant) {
        let notices = self.lock().due(now);
        for notice in notices {
            match notice {
                Notice::Key {
                    key,
                    sender,
                    requests,
                } => warn!(
                    key,
                    project = sender.project,
                    sdk = sender.sdk,
                    client = %sender.client,
                    requests,
                    "rejected requests: no inbound DSN has their key"
                ),
                Notice::Others(requests) => warn!(
                    requests,
                    "rejected requests with too many other keys to list: no inbound DSN has them"
                ),
            }
        }
    }

    /// The `count` keys that were seen last, the latest first.
    pub fn last(&self, count: usize) -> Vec<UnknownKey> {
        let mut keys = self.lock().keys.clone();
        keys.sort_by_key(|key| std::cmp::Reverse(key.last_at));
        keys.truncate(count);
        keys
    }

    /// The number of requests with keys that had no place in the list.
    pub fn others(&self) -> u64 {
        self.lock().others
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn merge(&mut self, seen: SeenKeys, now: Instant) {
        self.add_to_others(seen.others, seen.others);
        for SeenKey {
            key,
            sender,
            requests,
        } in seen.keys
        {
            if let Some(known) = self.keys.iter_mut().find(|known| known.key == key) {
                known.sender = sender;
                known.requests += requests;
                known.unlogged += requests;
                known.last_at = now;
                continue;
            }
            if self.keys.len() >= KNOWN_MAX {
                self.make_room(now);
            }
            self.keys.push(UnknownKey {
                key,
                sender,
                requests,
                first_at: now,
                last_at: now,
                unlogged: requests,
                logged_at: None,
            });
        }
    }

    /// Removes a key that is idle, or else the one with the fewest requests, so that a flood of keys that
    /// occur once hides no application.
    fn make_room(&mut self, now: Instant) {
        let rank = |key: &UnknownKey| {
            let is_in_use = now.saturating_duration_since(key.last_at) < IDLE;
            (is_in_use, key.requests, key.last_at)
        };
        let keys = self.keys.iter().enumerate();
        let least = keys.min_by_key(|(_, key)| rank(key));
        if let Some((index, _)) = least {
            let removed = self.keys.swap_remove(index);
            self.add_to_others(removed.requests, removed.unlogged);
        }
    }

    fn add_to_others(&mut self, requests: u64, unlogged: u64) {
        self.others += requests;
        self.unlogged_others += unlogged;
    }

    fn due(&mut self, now: Instant) -> Vec<Notice> {
        let is_over = |since: Instant| now.saturating_duration_since(since) >= LOG_INTERVAL;
        let (since, logged) = match self.logging {
            Some((since, logged)) if !is_over(since) => (since, logged),
            Some(_) | None => (now, 0),
        };
        let mut due: Vec<&mut UnknownKey> = self
            .keys
            .iter_mut()
            .filter(|key| key.unlogged > 0 && key.logged_at.is_none_or(is_over))
            .collect();
        if due.is_empty() && self.unlogged_others == 0 {
            return Vec::new();
        }
        due.sort_by_key(|key| std::cmp::Reverse(key.unlogged));
        let places = LOGGED_MAX.saturating_sub(logged);
        let mut notices: Vec<_> = due
            .into_iter()
            .take(places)
            .map(|key| key.log(now))
            .collect();
        let logged = logged + notices.len();
        // The end of an interval sums up those that had no place in it.
        let is_new = self.logging.is_none_or(|(since, _)| is_over(since));
        if is_new && self.unlogged_others > 0 {
            notices.push(Notice::Others(mem::take(&mut self.unlogged_others)));
        }
        self.logging = Some((since, logged));
        notices
    }
}

impl UnknownKey {
    fn log(&mut self, now: Instant) -> Notice {
        self.logged_at = Some(now);
        Notice::Key {
            key: self.shown(),
            sender: self.sender.clone(),
            requests: mem::take(&mut self.unlogged),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn sender(sdk: &str) -> Sender {
        Sender {
            sdk: Some(sdk.to_owned()),
            project: Some("9".to_owned()),
            client: IpAddr::from([10, 1, 2, 3]),
        }
    }

    fn key(number: usize) -> RejectedKey {
        RejectedKey::new(format!("{number:032}").as_bytes())
    }

    fn seen(keys: impl IntoIterator<Item = usize>) -> SeenKeys {
        let mut seen = SeenKeys::default();
        for number in keys {
            seen.record(&key(number), || sender("sdk/1"));
        }
        seen
    }

    /// The logged counts of requests, by the order of the lines; `true` for the line about other keys.
    fn logged(table: &mut Table, now: Instant) -> Vec<(bool, u64)> {
        let notices = table.due(now).into_iter();
        let count = |notice| match notice {
            Notice::Key { requests, .. } => (false, requests),
            Notice::Others(requests) => (true, requests),
        };
        notices.map(count).collect()
    }

    fn counted(table: &Table) -> u64 {
        table.keys.iter().map(|key| key.requests).sum::<u64>() + table.others
    }

    #[test]
    fn a_key_of_several_workers_is_logged_once_a_minute_with_all_its_requests() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut table = Table::default();
        assert_eq!(logged(&mut table, at(0)), []);
        table.merge(seen([1, 1]), at(0));
        table.merge(seen([1]), at(0));
        assert_eq!(logged(&mut table, at(0)), [(false, 3)]);
        table.merge(seen([1, 2]), at(1));
        assert_eq!(
            logged(&mut table, at(1)),
            [(false, 1)],
            "only of the new key"
        );
        table.merge(seen([1, 1]), at(59));
        assert_eq!(logged(&mut table, at(59)), []);
        assert_eq!(logged(&mut table, at(60)), [(false, 3)]);
        assert_eq!(logged(&mut table, at(600)), [], "nothing was rejected");
        assert_eq!(counted(&table), 7);
        let [first, ..] = table.keys.as_slice() else {
            panic!("no key");
        };
        assert_eq!(
            (first.requests, first.first_at, first.last_at),
            (6, at(0), at(59))
        );
        assert_eq!(first.sender, sender("sdk/1"));
    }

    #[test]
    fn the_sender_is_asked_for_once_for_each_key_and_report() {
        let mut asked = 0;
        let mut seen = SeenKeys::default();
        for _ in 0..5 {
            seen.record(&key(1), || {
                asked += 1;
                sender("sdk/1")
            });
        }
        assert_eq!(asked, 1);
    }

    #[test]
    fn a_flood_of_keys_is_bounded_counted_and_hides_no_application() {
        const SECONDS: usize = 300;
        let start = Instant::now();
        let mut table = Table::default();
        let mut lines = Vec::new();
        let (mut sent, mut logged_requests) = (0, 0);
        for second in 0..SECONDS {
            let now = start + Duration::from_secs(second as u64);
            let flood = (0..1000).map(|number| 1 + second * 1000 + number);
            // The application sends among the first requests of a second.
            let seen = seen([0, 0].into_iter().chain(flood));
            assert_eq!(seen.keys.len(), SEEN_MAX);
            sent += 1002;
            table.merge(seen, now);
            assert!(table.keys.len() <= KNOWN_MAX);
            let logged = logged(&mut table, now);
            logged_requests += logged.iter().map(|(_, count)| count).sum::<u64>();
            lines.push(logged.len());
        }
        assert_eq!(counted(&table), sent);
        let application = table.keys.iter().find(|known| known.key == key(0)).unwrap();
        assert_eq!(application.requests, 2 * SECONDS as u64);
        let minutes = SECONDS / 60;
        let total: usize = lines.iter().sum();
        assert!(
            (minutes..=minutes * (LOGGED_MAX + 1)).contains(&total),
            "{total}"
        );
        let waiting = table.keys.iter().map(|key| key.unlogged).sum::<u64>();
        assert_eq!(logged_requests + waiting + table.unlogged_others, sent);
    }

    #[test]
    fn an_idle_key_makes_room_before_a_rare_one() {
        let start = Instant::now();
        let mut table = Table::default();
        table.merge(seen([0; 100]), start);
        let later = start + IDLE;
        for number in 1..=KNOWN_MAX {
            table.merge(seen([number]), later);
        }
        let has = |number| table.keys.iter().any(|known| known.key == key(number));
        assert!(!has(0) && has(1) && has(KNOWN_MAX));
        assert_eq!(table.others, 100);
    }

    #[test]
    fn the_last_keys_come_first() {
        let keys = UnknownKeys::default();
        let start = Instant::now();
        for number in 0..30 {
            let now = start + Duration::from_secs(number as u64);
            keys.merge(&mut seen([number]), now);
        }
        let last = keys.last(20);
        assert_eq!(last.len(), 20);
        assert!(last[0].key == key(29) && last[19].key == key(10));
    }
}
