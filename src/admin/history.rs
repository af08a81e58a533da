//! Samples of the counters of the last minutes, for rates and the graphs of the status page.
//!
//! The difference between two samples of the same counters is what happened in between, whatever a reload
//! calls them. A configuration can have thousands of outbounds, so memory is limited: delivery counts, which
//! the graphs need, are kept for five minutes, and histograms, which take most of the memory, for the last
//! minute. So all rates and latencies cover the same time: from the sample a minute ago until now.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::mirror::reply::rejection::Reason;
use crate::mirror::reporting::counters::{
    DeliveryResult, OutboundCounters, RequestResult, RouteCounters,
};
use crate::mirror::reporting::worker_metrics::WorkerMetrics;
use crate::mirror::routing::routing_table::RoutingTable;
use crate::telemetry::counters::PerWorker;
use crate::telemetry::histogram::Distribution;

/// The time between two samples.
pub(super) const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);

/// The number of samples that are kept: five minutes, and one before them.
const SAMPLES_MAX: usize = 61;

/// The time over which rates and latencies are computed.
const RECENT: Duration = Duration::from_secs(60);

/// The number of histograms that are kept: one minute, and one before it.
const HISTOGRAMS_MAX: usize = 13;

#[derive(Default)]
pub(super) struct History(Mutex<Samples>);

#[derive(Default)]
struct Samples {
    /// The times of the kept samples, oldest first.
    at: VecDeque<Instant>,
    requests: Ring<RequestCounts, SAMPLES_MAX>,
    // The keys keep the counters alive, so that later ones cannot have their addresses.
    routes: HashMap<PerWorker<RouteCounters>, Histograms>,
    outbounds: HashMap<PerWorker<OutboundCounters>, OutboundSamples>,
}

/// The samples of an outbound. There are fewer if it is newer than the oldest sample.
struct OutboundSamples {
    counts: Ring<DeliveryCounts, SAMPLES_MAX>,
    histograms: Histograms,
}

/// Deliveries by result: delivered, rate limited, lost.
type DeliveryCounts = [u64; 3];

/// Requests of SDKs: all, and those with a key that no inbound DSN has.
type RequestCounts = [u64; 2];

type Histograms = Ring<Distribution, HISTOGRAMS_MAX>;

/// A ring buffer of fixed size.
struct Ring<T, const N: usize> {
    values: Box<[T; N]>,
    length: usize,
    /// The index of the next value.
    next: usize,
}

/// The requests of SDKs in the last minute.
pub(super) struct RecentRequests {
    /// The exact length of that minute.
    pub(super) seconds: f64,
    pub(super) requests: u64,
    /// Those with a key that no inbound DSN has.
    pub(super) unknown_key: u64,
}

/// The deliveries to an outbound in the last minute.
pub(super) struct Recent {
    /// The exact length of that minute.
    pub(super) seconds: f64,
    pub(super) counts: DeliveryCounts,
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
        if let Some(slot) = self.values.get_mut(self.next) {
            *slot = value;
        }
        self.next = (self.next + 1) % N;
        self.length = (self.length + 1).min(N);
    }

    /// The value pushed before the last `after` values, or the default if there is none: counters that
    /// did not exist then started at zero.
    fn before(&self, after: usize) -> T {
        if after >= self.length {
            return T::default();
        }
        let index = (self.next + N - 1 - after) % N;
        self.values.get(index).cloned().unwrap_or_default()
    }
}

impl<T: Default + Clone, const N: usize> Default for Ring<T, N> {
    fn default() -> Ring<T, N> {
        Ring::new()
    }
}

impl OutboundSamples {
    fn new() -> OutboundSamples {
        OutboundSamples {
            counts: Ring::new(),
            histograms: Ring::new(),
        }
    }
}

impl Samples {
    /// Adds the time of a sample.
    fn add(&mut self, now: Instant) {
        if self.at.len() == SAMPLES_MAX {
            self.at.pop_front();
        }
        self.at.push_back(now);
    }
}

impl History {
    /// Records that all counters were zero at `now`.
    pub(super) fn start(&self, now: Instant) {
        self.lock().add(now);
    }

    /// Samples the counters of `workers` and `table`, and discards those that are no longer in it.
    #[expect(
        clippy::mutable_key_type,
        reason = "counters are compared by address, which does not change"
    )]
    pub(super) fn sample(
        &self,
        workers: &[Arc<WorkerMetrics>],
        table: &RoutingTable,
        now: Instant,
    ) {
        let mut samples = self.lock();
        samples.add(now);
        samples.requests.push(request_counts(workers));
        let mut routes = mem::take(&mut samples.routes);
        let mut outbounds = mem::take(&mut samples.outbounds);
        for route in table.routes.all() {
            let mut histograms = take_or(&mut routes, &route.counters, Ring::new);
            histograms.push(route_histogram(&route.counters));
            samples.routes.insert(route.counters.clone(), histograms);
            for outbound in &route.outbounds {
                let counters = &outbound.counters;
                let mut own = take_or(&mut outbounds, counters, OutboundSamples::new);
                own.counts.push(counts(counters));
                own.histograms.push(outbound_histogram(counters));
                samples.outbounds.insert(counters.clone(), own);
            }
        }
    }

    /// The deliveries to an outbound between each two samples, oldest first. The last step ends now.
    pub(super) fn steps(&self, counters: &PerWorker<OutboundCounters>) -> Vec<DeliveryCounts> {
        let samples = self.lock();
        let own = samples.outbounds.get(counters);
        let mut earlier: Option<DeliveryCounts> = None;
        let mut steps = Vec::new();
        for after in (0..samples.at.len()).rev() {
            let point = own.map_or([0; 3], |own| own.counts.before(after));
            steps.extend(earlier.map(|earlier| since(point, earlier)));
            earlier = Some(point);
        }
        steps.extend(earlier.map(|earlier| since(counts(counters), earlier)));
        steps
    }

    /// The requests to `workers` in the minute before `now`.
    pub(super) fn recent_requests(
        &self,
        now: Instant,
        workers: &[Arc<WorkerMetrics>],
    ) -> RecentRequests {
        let samples = self.lock();
        let (after, seconds) = minute_before(&samples.at, now);
        let earlier = samples.requests.before(after);
        let [requests, unknown_key] = since(request_counts(workers), earlier);
        RecentRequests {
            seconds,
            requests,
            unknown_key,
        }
    }

    /// The deliveries to an outbound in the minute before `now`.
    pub(super) fn recent_of_outbound(
        &self,
        now: Instant,
        counters: &PerWorker<OutboundCounters>,
    ) -> Recent {
        let samples = self.lock();
        let own = samples.outbounds.get(counters);
        let (after, seconds) = minute_before(&samples.at, now);
        let earlier = own.map(|own| own.counts.before(after));
        let earlier_histogram = own.map(|own| own.histograms.before(after));
        Recent {
            seconds,
            counts: since(counts(counters), earlier.unwrap_or_default()),
            time: outbound_histogram(counters).since(&earlier_histogram.unwrap_or_default()),
        }
    }

    /// The exact length in seconds of the minute before `now`, and the durations of the requests of a route in it.
    pub(super) fn recent_of_route(
        &self,
        now: Instant,
        counters: &PerWorker<RouteCounters>,
    ) -> (f64, Distribution) {
        let samples = self.lock();
        let own = samples.routes.get(counters);
        let (after, seconds) = minute_before(&samples.at, now);
        let earlier = own.map(|own| own.before(after)).unwrap_or_default();
        (seconds, route_histogram(counters).since(&earlier))
    }

    fn lock(&self) -> MutexGuard<'_, Samples> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take_or<K: Eq + Hash, V>(map: &mut HashMap<K, V>, key: &K, new: impl FnOnce() -> V) -> V {
    map.remove(key).unwrap_or_else(new)
}

fn counts(counters: &PerWorker<OutboundCounters>) -> DeliveryCounts {
    let count = |result| counters.sum(|counters| counters.with_result(result));
    [
        DeliveryResult::Delivered,
        DeliveryResult::RateLimited,
        DeliveryResult::Lost,
    ]
    .map(count)
}

fn outbound_histogram(counters: &PerWorker<OutboundCounters>) -> Distribution {
    Distribution::from_histograms(counters.iter().map(|counters| &counters.time))
}

fn route_histogram(counters: &PerWorker<RouteCounters>) -> Distribution {
    Distribution::from_histograms(counters.iter().map(|counters| &counters.request_time))
}

/// Health checks and preflights are not requests of SDKs.
fn request_counts(workers: &[Arc<WorkerMetrics>]) -> RequestCounts {
    let sum = |read: fn(&WorkerMetrics) -> u64| workers.iter().map(|worker| read(worker)).sum();
    [
        sum(|worker| {
            worker
                .answers
                .total()
                .saturating_sub(worker.answers.get(RequestResult::Local))
        }),
        sum(|worker| {
            let rejected = |reason| worker.rejections.get(reason);
            rejected(Reason::UnknownKey) + rejected(Reason::BadKey)
        }),
    ]
}

fn since<const N: usize>(mut counts: [u64; N], earlier: [u64; N]) -> [u64; N] {
    for (count, before) in counts.iter_mut().zip(earlier) {
        *count = count.saturating_sub(before);
    }
    counts
}

/// The sample to compare with: the latest that is at least a minute old, or else the oldest. Returns the
/// number of samples after it and its age in seconds.
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
    use crate::mirror::reporting::counters::OutcomeKind;

    fn table(outbound: &str, previous: Option<&RoutingTable>) -> RoutingTable {
        let text = format!("keys: [{{inbound: 'http://a@m/1', outbound: ['http://{outbound}']}}]");
        let config = Config::parse(&text, "test", std::iter::empty()).unwrap();
        RoutingTable::new(&config, 1, previous).unwrap()
    }

    fn counters(table: &RoutingTable) -> &PerWorker<OutboundCounters> {
        &table.routes.all()[0].outbounds[0].counters
    }

    fn deliver(table: &RoutingTable, count: u64) {
        let counters = counters(table).for_worker(0);
        counters.outcomes.add(OutcomeKind::Success, count);
        for _ in 0..count {
            counters.time.record(Duration::from_millis(3));
        }
    }

    #[test]
    fn rates_cover_a_minute_and_steps_five_minutes() {
        let current = table("b@127.0.0.1/1", None);
        let history = History::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        deliver(&current, 7);
        let recent = |seconds| {
            let recent = history.recent_of_outbound(at(seconds), counters(&current));
            (recent.counts[0], recent.seconds)
        };
        assert_eq!(recent(0), (7, 0.0), "there is no sample yet");
        for step in 0..100 {
            history.sample(&[], &current, at(step * 5));
            deliver(&current, 10);
        }
        assert_eq!(recent(500), (120, 60.0));
        let recent = history.recent_of_outbound(at(500), counters(&current));
        assert_eq!(recent.time.count(), 120, "of the same minute");
        let steps = history.steps(counters(&current));
        assert_eq!(steps.len(), SAMPLES_MAX);
        assert_eq!((steps[0], steps[60]), ([10, 0, 0], [10, 0, 0]));
        deliver(&current, 3);
        assert_eq!(history.steps(counters(&current))[60], [13, 0, 0]);
        let other = table("c@127.0.0.1/1", Some(&current));
        deliver(&other, 4);
        let steps = history.steps(counters(&other));
        assert_eq!(
            (steps[3], steps[60]),
            ([0; 3], [4, 0, 0]),
            "the outbound is new"
        );
        // Outbounds that a reload has removed are discarded.
        history.sample(&[], &other, at(505));
        assert_eq!(history.lock().outbounds.len(), 1);
    }

    #[test]
    fn the_share_of_unknown_keys_is_that_of_the_last_minute_without_health_checks() {
        let current = table("b@127.0.0.1/1", None);
        let history = History::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let workers = [0, 1].map(|worker| Arc::new(WorkerMetrics::new(worker)));
        history.start(start);
        for step in 1..=24 {
            let [first, second] = &workers;
            first.answers.add(RequestResult::Accepted, 7);
            first.answers.add(RequestResult::Local, 100);
            // None of them later than after a minute.
            let unknown = if step <= 12 { 3 } else { 0 };
            second.answers.add(RequestResult::Rejected, unknown);
            second
                .rejections
                .add(Reason::UnknownKey, unknown - unknown / 3);
            second.rejections.add(Reason::BadKey, unknown / 3);
            history.sample(&workers, &current, at(step * 5));
            if step == 12 {
                let recent = history.recent_requests(at(60), &workers);
                assert_eq!((recent.requests, recent.unknown_key), (120, 36));
            }
        }
        let recent = history.recent_requests(at(120), &workers);
        assert_eq!((recent.requests, recent.unknown_key), (84, 0));
        assert!((recent.seconds - 60.0).abs() < 0.1);
    }

    #[test]
    fn an_outbound_takes_at_most_four_kilobytes() {
        let counts = size_of::<[DeliveryCounts; SAMPLES_MAX]>();
        let histograms = size_of::<[Distribution; HISTOGRAMS_MAX]>();
        let entry = size_of::<(PerWorker<OutboundCounters>, OutboundSamples)>();
        // Twice, because a hash table can be half empty.
        assert!(counts + histograms + 2 * entry <= 4 * 1024);
    }
}
