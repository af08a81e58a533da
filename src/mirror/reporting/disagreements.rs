//! Requests that one outbound took and another refused.
//!
//! They are counted by the status of the side that refused. The last ones are kept to be looked at: of each outbound at
//! most one a second is described. A worker keeps [`KEPT_MAX`], of at most 20 items each.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::mirror::request::request_summary::RequestSummary;

/// How many disagreements are kept and shown.
const KEPT_MAX: usize = 50;

#[derive(Debug)]
pub(crate) struct Disagreement {
    pub(crate) at: SystemTime,
    pub(crate) route: String,
    pub(crate) endpoint: &'static str,
    pub(crate) summary: RequestSummary,
    /// In the order of the outbounds.
    pub(crate) outcomes: Vec<Side>,
}

/// How a request ended at one outbound.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) outbound: String,
    /// As in `sentry_mirror_deliveries_total`.
    pub(crate) outcome: &'static str,
    pub(crate) status: Option<u16>,
    /// The first words of a refusal.
    pub(crate) reason: Option<String>,
}

impl Disagreement {
    /// Whether the same outbounds of the same route said the same.
    fn is_like(&self, other: &Disagreement) -> bool {
        let sides = |one: &Self| {
            let sides = one.outcomes.iter();
            sides
                .map(|side| (side.outcome, side.status))
                .collect::<Vec<_>>()
        };
        self.route == other.route && sides(self) == sides(other)
    }
}

/// The last disagreements that one worker saw.
#[derive(Default)]
pub struct Disagreements(Mutex<VecDeque<Arc<Disagreement>>>);

impl Disagreements {
    /// Keeps one more. If there is no place, the oldest of those that are most alike goes: an outbound that refuses
    /// everything does not drive out what is rare.
    pub(crate) fn push(&self, disagreement: Disagreement) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT_MAX {
            let alike = |one: &Disagreement| kept.iter().filter(|other| one.is_like(other)).count();
            let counts = kept.iter().map(|one| alike(one));
            // The first of several with the highest count is the oldest.
            let most = counts.enumerate().rev().max_by_key(|(_, count)| *count);
            let (oldest, _) = most.unwrap_or_default();
            kept.remove(oldest);
        }
        kept.push_back(Arc::new(disagreement));
    }

    fn list(&self) -> Vec<Arc<Disagreement>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().cloned().collect()
    }

    /// The last ones of all workers, the newest first.
    pub(crate) fn last<'d>(
        workers: impl Iterator<Item = &'d Disagreements>,
    ) -> Vec<Arc<Disagreement>> {
        let mut all: Vec<_> = workers.flat_map(Disagreements::list).collect();
        all.sort_by_key(|one| std::cmp::Reverse(one.at));
        all.truncate(KEPT_MAX);
        all
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn disagreement(second: u64, route: &str, status: u16) -> Disagreement {
        let side = |outcome: &'static str, status| Side {
            outbound: outcome.to_owned(),
            outcome,
            status: Some(status),
            reason: None,
        };
        Disagreement {
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(second),
            route: route.to_owned(),
            endpoint: "envelope",
            summary: RequestSummary {
                event_id: None,
                items: Vec::new(),
                items_left_out: 0,
            },
            outcomes: vec![side("2xx", 200), side("4xx", status)],
        }
    }

    fn seconds(workers: &[Disagreements]) -> Vec<u64> {
        let last = Disagreements::last(workers.iter());
        let second = |one: &Arc<Disagreement>| one.at.duration_since(SystemTime::UNIX_EPOCH);
        last.iter()
            .map(|one| second(one).unwrap().as_secs())
            .collect()
    }

    #[test]
    fn the_last_of_all_workers_are_shown_newest_first() {
        let workers = [Disagreements::default(), Disagreements::default()];
        assert!(seconds(&workers).is_empty());
        for second in 0..200 {
            workers[second as usize % 2].push(disagreement(second, "a", 403));
        }
        let expected: Vec<u64> = (150..200).rev().collect();
        assert_eq!(seconds(&workers), expected);
    }

    #[test]
    fn what_is_rare_stays() {
        let workers = [Disagreements::default()];
        workers[0].push(disagreement(1, "a", 413));
        workers[0].push(disagreement(2, "b", 403));
        for second in 3..500 {
            workers[0].push(disagreement(second, "a", 403));
        }
        let seen = seconds(&workers);
        assert_eq!(seen.len(), KEPT_MAX);
        assert_eq!(seen[KEPT_MAX - 2..], [2, 1]);
        assert_eq!(seen[..2], [499, 498]);
        assert_eq!(seen[KEPT_MAX - 3], 452);
    }
}
