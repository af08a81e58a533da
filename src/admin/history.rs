//! The last minutes, in steps of some seconds.
//!
//! Counters only say how much there was since the start. To say how things are going, what they said is
//! kept for a while. The difference between two looks at the same counters is what happened in between,
//! whatever a reload calls them. A configuration may have thousands of outbounds: numbers of deliveries,
//! which the picture of the last minutes needs, are kept of every look, and how long things took, which
//! takes most of the room, of every third look of the last minute.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::mirror::counters::{DeliveryResult, OutboundCounters, RouteCounters};
use crate::observe::counters::PerWorker;
use crate::observe::histogram::Distribution;
use crate::server::plan::Plan;

/// The time between two looks.
pub(super) const PERIOD: Duration = Duration::from_secs(5);

/// How many looks are kept: five minutes, and one more to begin from.
const LOOKS_MAX: usize = 61;

/// The time over which rates and latencies are told.
const RECENT: Duration = Duration::from_secs(60);

/// At every how many looks times are looked at, too.
const TIMES_EVERY: u64 = 3;

/// How many looks at times are kept: a minute, and one that is older.
const TIMES_MAX: usize = 6;

/// The looks of the last minutes.
#[derive(Default)]
pub(super) struct History(Mutex<Looks>);

#[derive(Default)]
struct Looks {
    /// How many there were.
    count: u64,
    /// When the latest were, oldest first.
    at: VecDeque<Instant>,
    /// The same for those at times.
    times_at: VecDeque<Instant>,
    // Holding on to counters, so that no others can be taken for them.
    routes: HashMap<PerWorker<RouteCounters>, Times>,
    outbounds: HashMap<PerWorker<OutboundCounters>, OutboundLooks>,
}

/// What the counters of an outbound said at each look, oldest first; fewer where it has begun later.
struct OutboundLooks {
    /// Deliveries by what they mean: delivered, withheld, lost.
    counts: Ring<[u64; 3], LOOKS_MAX>,
    times: Times,
}

/// How long things had taken at each look at times.
type Times = Ring<Distribution, TIMES_MAX>;

/// The last values of a row, in memory that does not grow.
struct Ring<T, const N: usize> {
    values: Box<[T; N]>,
    length: usize,
    /// Where the next value goes.
    next: usize,
}

/// What happened to an outbound in the last minute.
pub(super) struct Recent {
    /// How long that really is.
    pub(super) seconds: f64,
    /// Deliveries by what they mean: delivered, withheld, lost.
    pub(super) counts: [u64; 3],
    /// How long they took.
    pub(super) time: Distribution,
}

impl<T: Default + Clone, const N: usize> Ring<T, N> {
    fn new() -> Ring<T, N> {
        Ring {
            values: Box::new(std::array::from_fn(|_| T::default())),
            length: 0,
            next: 0,
        }
    }

    fn push(&mut self, value: T) {
        if let Some(place) = self.values.get_mut(self.next) {
            *place = value;
        }
        self.next = (self.next + 1) % N;
        self.length = (self.length + 1).min(N);
    }

    /// The value that was pushed before `after` others; the default where there was none.
    fn before(&self, after: usize) -> T {
        if after >= self.length {
            // What is not there has begun later, at zero.
            return T::default();
        }
        let place = (self.next + N - 1 - after) % N;
        self.values.get(place).cloned().unwrap_or_default()
    }
}

impl OutboundLooks {
    fn new() -> OutboundLooks {
        OutboundLooks {
            counts: Ring::new(),
            times: Ring::new(),
        }
    }
}

impl Looks {
    /// Adds the time of a look and tells whether it is one at times as well.
    fn add(&mut self, now: Instant) -> bool {
        let is_timed = self.count.is_multiple_of(TIMES_EVERY);
        self.count += 1;
        push(&mut self.at, LOOKS_MAX, now);
        if is_timed {
            push(&mut self.times_at, TIMES_MAX, now);
        }
        is_timed
    }
}

fn push(row: &mut VecDeque<Instant>, max: usize, at: Instant) {
    if row.len() == max {
        row.pop_front();
    }
    row.push_back(at);
}

impl History {
    /// Records that all counters were zero at `now`.
    pub(super) fn start(&self, now: Instant) {
        self.lock().add(now);
    }

    /// Looks at the counters of `plan`, and forgets what is no longer in it.
    #[expect(
        clippy::mutable_key_type,
        reason = "counters are compared by where they are, which does not change"
    )]
    pub(super) fn look(&self, plan: &Plan, now: Instant) {
        let mut looks = self.lock();
        let is_timed = looks.add(now);
        let mut routes = mem::take(&mut looks.routes);
        let mut outbounds = mem::take(&mut looks.outbounds);
        for route in plan.routes.all() {
            let mut times = known(&mut routes, &route.counters, Ring::new);
            if is_timed {
                times.push(times_of_route(&route.counters));
            }
            looks.routes.insert(route.counters.clone(), times);
            for outbound in &route.outbounds {
                let counters = &outbound.counters;
                let mut known = known(&mut outbounds, counters, OutboundLooks::new);
                known.counts.push(counts(counters));
                if is_timed {
                    known.times.push(times_of_outbound(counters));
                }
                looks.outbounds.insert(counters.clone(), known);
            }
        }
    }

    /// What an outbound got from each look to the next, oldest first; the last step ends now.
    pub(super) fn steps(&self, counters: &PerWorker<OutboundCounters>) -> Vec<[u64; 3]> {
        let looks = self.lock();
        let known = looks.outbounds.get(counters);
        let mut earlier: Option<[u64; 3]> = None;
        let mut steps = Vec::new();
        for after in (0..looks.at.len()).rev() {
            let point = known.map_or([0; 3], |known| known.counts.before(after));
            steps.extend(earlier.map(|earlier| since(point, earlier)));
            earlier = Some(point);
        }
        steps.extend(earlier.map(|earlier| since(counts(counters), earlier)));
        steps
    }

    /// What an outbound got in the minute before `now`.
    pub(super) fn recent_of_outbound(
        &self,
        now: Instant,
        counters: &PerWorker<OutboundCounters>,
    ) -> Recent {
        let looks = self.lock();
        let known = looks.outbounds.get(counters);
        let (after, seconds) = minute_before(&looks.at, now);
        let (times_after, _) = minute_before(&looks.times_at, now);
        let earlier = known.map(|known| known.counts.before(after));
        let earlier_times = known.map(|known| known.times.before(times_after));
        Recent {
            seconds,
            counts: since(counts(counters), earlier.unwrap_or_default()),
            time: times_of_outbound(counters).since(&earlier_times.unwrap_or_default()),
        }
    }

    /// How long the requests of a route took in the minute before `now`, and how long that really is.
    pub(super) fn recent_of_route(
        &self,
        now: Instant,
        counters: &PerWorker<RouteCounters>,
    ) -> (f64, Distribution) {
        let looks = self.lock();
        let known = looks.routes.get(counters);
        let (after, seconds) = minute_before(&looks.times_at, now);
        let earlier = known.map(|known| known.before(after)).unwrap_or_default();
        (seconds, times_of_route(counters).since(&earlier))
    }

    fn lock(&self) -> MutexGuard<'_, Looks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn known<K: Eq + Hash, V>(looks: &mut HashMap<K, V>, key: &K, new: impl FnOnce() -> V) -> V {
    looks.remove(key).unwrap_or_else(new)
}

fn counts(counters: &PerWorker<OutboundCounters>) -> [u64; 3] {
    let count = |meaning| counters.sum(|counters| counters.meaning(meaning));
    [
        DeliveryResult::Delivered,
        DeliveryResult::RateLimited,
        DeliveryResult::Lost,
    ]
    .map(count)
}

fn times_of_outbound(counters: &PerWorker<OutboundCounters>) -> Distribution {
    Distribution::from_histograms(counters.iter().map(|counters| &counters.time))
}

fn times_of_route(counters: &PerWorker<RouteCounters>) -> Distribution {
    Distribution::from_histograms(counters.iter().map(|counters| &counters.request_time))
}

fn since(mut counts: [u64; 3], earlier: [u64; 3]) -> [u64; 3] {
    for (count, known) in counts.iter_mut().zip(earlier) {
        *count = count.saturating_sub(known);
    }
    counts
}

/// The look to compare with, the latest that is a minute old or the oldest there is: how many came after
/// it, and how many seconds it is old.
fn minute_before(at: &VecDeque<Instant>, now: Instant) -> (usize, f64) {
    let age = |at: &Instant| now.saturating_duration_since(*at);
    let from_latest = || at.iter().rev().enumerate();
    let found = from_latest().find(|(_, at)| age(at) >= RECENT);
    let found = found.or_else(|| from_latest().next_back());
    found.map_or((0, 0.0), |(after, at)| (after, age(at).as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::mirror::counters::OutcomeKind;

    fn plan(outbound: &str, previous: Option<&Plan>) -> Plan {
        let text = format!("keys: [{{inbound: 'http://a@m/1', outbound: ['http://{outbound}']}}]");
        let config = Config::parse(&text, "test", std::iter::empty()).unwrap();
        Plan::new(&config, 1, previous).unwrap()
    }

    fn counters(plan: &Plan) -> &PerWorker<OutboundCounters> {
        &plan.routes.all()[0].outbounds[0].counters
    }

    fn deliver(plan: &Plan, count: u64) {
        let counters = counters(plan).for_worker(0);
        counters.outcomes.add(OutcomeKind::Success, count);
        for _ in 0..count {
            counters.time.record(Duration::from_millis(3));
        }
    }

    #[test]
    fn the_last_minute_and_the_steps_of_five() {
        let plan_of = plan("b@127.0.0.1/1", None);
        let history = History::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        deliver(&plan_of, 7);
        let recent = |seconds| {
            let recent = history.recent_of_outbound(at(seconds), counters(&plan_of));
            (recent.counts[0], recent.seconds)
        };
        assert_eq!(recent(0), (7, 0.0), "nothing is known of the time");
        for step in 0..100 {
            history.look(&plan_of, at(step * 5));
            deliver(&plan_of, 10);
        }
        assert_eq!(recent(500), (120, 60.0));
        // Times are looked at less often.
        let recent = history.recent_of_outbound(at(500), counters(&plan_of));
        assert!((120..=150).contains(&recent.time.count()));
        let steps = history.steps(counters(&plan_of));
        assert_eq!(steps.len(), LOOKS_MAX);
        assert_eq!((steps[0], steps[60]), ([10, 0, 0], [10, 0, 0]));
        deliver(&plan_of, 3);
        assert_eq!(history.steps(counters(&plan_of))[60], [13, 0, 0]);
        let other = plan("c@127.0.0.1/1", Some(&plan_of));
        deliver(&other, 4);
        let steps = history.steps(counters(&other));
        assert_eq!((steps[3], steps[60]), ([0; 3], [4, 0, 0]), "it is new");
        // What a reload has taken out is forgotten.
        history.look(&other, at(505));
        assert_eq!(history.lock().outbounds.len(), 1);
    }

    #[test]
    fn what_is_kept_of_an_outbound_does_not_grow_and_is_in_the_stated_sum() {
        let counts = size_of::<[[u64; 3]; LOOKS_MAX]>();
        let times = size_of::<[Distribution; TIMES_MAX]>();
        let entry = size_of::<(PerWorker<OutboundCounters>, OutboundLooks)>();
        // A table of hashes may be half empty.
        assert!(counts + times + 2 * entry <= 3 * 1024);
    }
}
