//! The last minutes, in steps of some seconds.
//!
//! Counters only say how much there was since the start. To say how things are going, what they said is
//! kept for a while. The difference between two looks at the same counters is what happened in between,
//! whatever a reload calls them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::mirror::counters::{Meaning, OutboundCounters, RouteCounters};
use crate::observe::counters::PerWorker;
use crate::observe::histogram::Distribution;
use crate::server::plan::Plan;

/// The time between two looks.
pub(super) const PERIOD: Duration = Duration::from_secs(5);

/// How many looks are kept: five minutes, and one more to begin from.
const LOOKS_MAX: usize = 61;

/// The time over which rates and latencies are told.
const RECENT: Duration = Duration::from_secs(60);

/// The looks of the last minutes, oldest first.
#[derive(Default)]
pub(super) struct History {
    looks: Mutex<VecDeque<Look>>,
}

/// What the counters said at one time. It holds on to them, so that no others can be taken for them.
pub(super) struct Look {
    at: Instant,
    /// How long the requests of a route took; their number is the number of replies.
    requests: HashMap<PerWorker<RouteCounters>, Distribution>,
    outbounds: HashMap<PerWorker<OutboundCounters>, OutboundLook>,
}

/// What the counters of an outbound said.
#[derive(Clone, Default)]
pub(super) struct OutboundLook {
    /// Deliveries by what they mean: delivered, withheld, lost.
    pub(super) counts: [u64; 3],
    /// How long they took.
    pub(super) time: Distribution,
}

/// What happened in the last minute.
pub(super) struct Recent {
    /// How long that really is.
    pub(super) seconds: f64,
    /// How much came, and how long it took.
    pub(super) look: OutboundLook,
}

/// Reads the counters.
pub(super) fn look(plan: &Plan, now: Instant) -> Look {
    let mut look = Look::beginning(now);
    for route in plan.routes.all() {
        let times = route.counters.iter().map(|counters| &counters.request_time);
        let times = Distribution::of(times);
        look.requests.insert(route.counters.clone(), times);
        for outbound in &route.outbounds {
            let counters = &outbound.counters;
            let count = |meaning| counters.sum(|counters| counters.meaning(meaning));
            let counted = OutboundLook {
                counts: [Meaning::Delivered, Meaning::Withheld, Meaning::Lost].map(count),
                time: Distribution::of(counters.iter().map(|counters| &counters.time)),
            };
            look.outbounds.insert(counters.clone(), counted);
        }
    }
    look
}

impl Look {
    /// The counters at the start of the process, when nothing had come yet.
    pub(super) fn beginning(at: Instant) -> Look {
        Look {
            at,
            requests: HashMap::new(),
            outbounds: HashMap::new(),
        }
    }

    /// What is not there has begun later, at zero.
    fn outbound(&self, counters: &PerWorker<OutboundCounters>) -> OutboundLook {
        self.outbounds.get(counters).cloned().unwrap_or_default()
    }

    fn requests(&self, counters: &PerWorker<RouteCounters>) -> Distribution {
        self.requests.get(counters).cloned().unwrap_or_default()
    }
}

impl OutboundLook {
    fn since(&self, earlier: &OutboundLook) -> OutboundLook {
        let mut counts = self.counts;
        for (count, known) in counts.iter_mut().zip(earlier.counts) {
            *count = count.saturating_sub(known);
        }
        OutboundLook {
            counts,
            time: self.time.since(&earlier.time),
        }
    }
}

impl History {
    /// Adds the latest look and forgets the oldest.
    pub(super) fn add(&self, look: Look) {
        let mut looks = self.lock();
        looks.push_back(look);
        if looks.len() > LOOKS_MAX {
            looks.pop_front();
        }
    }

    /// What an outbound got from each look to the next, oldest first; the last step ends at `now`.
    pub(super) fn steps(
        &self,
        now: &Look,
        counters: &PerWorker<OutboundCounters>,
    ) -> Vec<[u64; 3]> {
        let looks = self.lock();
        let all = looks.iter().chain([now]);
        let points: Vec<OutboundLook> = all.map(|look| look.outbound(counters)).collect();
        let pairs = points.iter().zip(points.iter().skip(1));
        pairs
            .map(|(earlier, later)| later.since(earlier).counts)
            .collect()
    }

    /// What an outbound got in the last minute.
    pub(super) fn recent_of_outbound(
        &self,
        now: &Look,
        counters: &PerWorker<OutboundCounters>,
    ) -> Recent {
        let looks = self.lock();
        let earlier = minute_before(&looks, now);
        let known = earlier.map(|look| look.outbound(counters));
        Recent {
            seconds: seconds_since(earlier, now),
            look: now.outbound(counters).since(&known.unwrap_or_default()),
        }
    }

    /// How long the requests of a route took in the last minute, and how long that really is.
    pub(super) fn recent_of_route(
        &self,
        now: &Look,
        counters: &PerWorker<RouteCounters>,
    ) -> (f64, Distribution) {
        let looks = self.lock();
        let earlier = minute_before(&looks, now);
        let known = earlier.map(|look| look.requests(counters));
        (
            seconds_since(earlier, now),
            now.requests(counters).since(&known.unwrap_or_default()),
        )
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Look>> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The look to compare with: the latest that is a minute old, or the oldest there is.
fn minute_before<'l>(looks: &'l VecDeque<Look>, now: &Look) -> Option<&'l Look> {
    let is_old = |look: &&Look| now.at.duration_since(look.at) >= RECENT;
    looks.iter().rev().find(is_old).or_else(|| looks.front())
}

fn seconds_since(earlier: Option<&Look>, now: &Look) -> f64 {
    earlier.map_or(0.0, |look| now.at.duration_since(look.at).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A look at one outbound that has been delivered so much.
    fn look_at(at: Instant, counters: &PerWorker<OutboundCounters>, delivered: u64) -> Look {
        let outbound = OutboundLook {
            counts: [delivered, 0, 0],
            ..OutboundLook::default()
        };
        Look {
            outbounds: HashMap::from([(counters.clone(), outbound)]),
            ..Look::beginning(at)
        }
    }

    #[test]
    fn the_last_minute_and_the_steps_of_five() {
        let (counters, others) = (PerWorker::new(1), PerWorker::new(1));
        let history = History::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let recent = |delivered, seconds| {
            let now = look_at(at(seconds), &counters, delivered);
            let recent = history.recent_of_outbound(&now, &counters);
            (recent.look.counts[0], recent.seconds)
        };
        assert_eq!(recent(7, 0), (7, 0.0), "nothing is known of the time");
        for step in 0..100 {
            history.add(look_at(at(step * 5), &counters, step * 10));
        }
        assert_eq!(recent(1000, 500), (120, 60.0));
        let steps = history.steps(&look_at(at(497), &counters, 993), &counters);
        assert_eq!(steps.len(), LOOKS_MAX);
        assert_eq!(steps[0], [10, 0, 0]);
        assert_eq!(steps[60], [3, 0, 0]);
        let now = look_at(at(500), &others, 4);
        let steps = history.steps(&now, &others);
        assert_eq!((steps[3], steps[60]), ([0; 3], [4, 0, 0]), "it is new");
    }
}
