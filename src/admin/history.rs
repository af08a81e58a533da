//! The last minutes, in steps of some seconds.
//!
//! Counters only say how much there was since the start. To say how things are going, what they said is
//! kept for a while, by name, so that it survives a reload; the difference between two looks is what
//! happened in between.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::mirror::counters::Meaning;
use crate::observe::histogram::Distribution;
use crate::server::sight::Sight;

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

/// What the counters said at one time.
pub(super) struct Look {
    at: Instant,
    /// By the name of the route.
    routes: HashMap<String, RouteLook>,
}

/// What the counters of a route said.
#[derive(Default)]
pub(super) struct RouteLook {
    /// How long its requests took; their number is the number of replies.
    pub(super) requests: Distribution,
    /// By the name of the outbound.
    pub(super) outbounds: HashMap<String, OutboundLook>,
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
pub(super) fn look(sight: &Sight, now: Instant) -> Look {
    let mut routes = HashMap::new();
    for route in sight.current().plan.routes.all() {
        let outbounds = route.outbounds.iter().map(|outbound| {
            let count = |meaning| outbound.counters.sum(|counters| counters.meaning(meaning));
            let look = OutboundLook {
                counts: [Meaning::Delivered, Meaning::Withheld, Meaning::Lost].map(count),
                time: Distribution::of(outbound.counters.iter().map(|counters| &counters.time)),
            };
            (outbound.name.clone(), look)
        });
        let requests = route.counters.iter().map(|counters| &counters.request_time);
        let look = RouteLook {
            outbounds: outbounds.collect(),
            requests: Distribution::of(requests),
        };
        routes.insert(route.name.clone(), look);
    }
    Look { at: now, routes }
}

impl Look {
    /// The counters at the start of the process, when nothing had come yet.
    pub(super) fn beginning(at: Instant) -> Look {
        Look {
            at,
            routes: HashMap::new(),
        }
    }

    fn outbound(&self, route: &str, outbound: &str) -> OutboundLook {
        let route = self.routes.get(route);
        let found = route.and_then(|route| route.outbounds.get(outbound));
        found.cloned().unwrap_or_default()
    }

    fn requests(&self, route: &str) -> Distribution {
        let route = self.routes.get(route);
        route
            .map(|route| route.requests.clone())
            .unwrap_or_default()
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
    pub(super) fn steps(&self, now: &Look, route: &str, outbound: &str) -> Vec<[u64; 3]> {
        let looks = self.lock();
        let all = looks.iter().chain([now]);
        let points: Vec<OutboundLook> = all.map(|look| look.outbound(route, outbound)).collect();
        let pairs = points.iter().zip(points.iter().skip(1));
        pairs
            .map(|(earlier, later)| later.since(earlier).counts)
            .collect()
    }

    /// What an outbound got in the last minute.
    pub(super) fn recent_of_outbound(&self, now: &Look, route: &str, outbound: &str) -> Recent {
        let looks = self.lock();
        let earlier = minute_before(&looks, now);
        let known = earlier.map(|look| look.outbound(route, outbound));
        Recent {
            seconds: seconds_since(earlier, now),
            look: now
                .outbound(route, outbound)
                .since(&known.unwrap_or_default()),
        }
    }

    /// How long the requests of a route took in the last minute, and how long that really is.
    pub(super) fn recent_of_route(&self, now: &Look, route: &str) -> (f64, Distribution) {
        let looks = self.lock();
        let earlier = minute_before(&looks, now);
        let known = earlier.map(|look| look.requests(route)).unwrap_or_default();
        (
            seconds_since(earlier, now),
            now.requests(route).since(&known),
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
    fn look_at(at: Instant, delivered: u64) -> Look {
        let outbound = OutboundLook {
            counts: [delivered, 0, 0],
            ..OutboundLook::default()
        };
        let route = RouteLook {
            outbounds: HashMap::from([("o".to_owned(), outbound)]),
            ..RouteLook::default()
        };
        Look {
            at,
            routes: HashMap::from([("r".to_owned(), route)]),
        }
    }

    #[test]
    fn the_last_minute_and_the_steps_of_five() {
        let history = History::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let recent = |delivered, seconds| {
            let now = look_at(at(seconds), delivered);
            let recent = history.recent_of_outbound(&now, "r", "o");
            (recent.look.counts[0], recent.seconds)
        };
        assert_eq!(recent(7, 0), (7, 0.0), "nothing is known of the time");
        for step in 0..100 {
            history.add(look_at(at(step * 5), step * 10));
        }
        assert_eq!(recent(1000, 500), (120, 60.0));
        let steps = history.steps(&look_at(at(497), 993), "r", "o");
        assert_eq!(steps.len(), LOOKS_MAX);
        assert_eq!(steps[0], [10, 0, 0]);
        assert_eq!(steps[60], [3, 0, 0]);
        assert_eq!(history.steps(&look_at(at(500), 0), "r", "other")[3], [0; 3]);
    }
}
