//! Caps over simulated time.

use super::*;
use crate::config::Config;

const WORKERS: usize = 4;

fn caps(amount: &str, previous: Option<&Caps>, now: Instant) -> Caps {
    let config = configured(amount);
    Caps::new(&config, WORKERS, previous, now).unwrap()
}

fn configured(amount: &str) -> Vec<config::Cap> {
    let text = format!(
        "keys: [{{inbound: 'http://a@m/1', outbound: [{{dsn: 'http://b@o/2', cap: {{error: {amount}}}}}]}}]"
    );
    let config = Config::parse(&text, "test", std::iter::empty()).unwrap();
    config.routes[0].outbounds[0].caps.clone()
}

/// Numbers that look random (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Items of one to five per trace, at random times within the trace's ten seconds (or a three-hundredth of all time),
/// `times` as many as `rate` per second allows. Returns the time, the trace and the worker of each, in order.
fn items(rate: f64, times: f64, seconds: f64) -> Vec<(u64, u64, usize)> {
    let mut random = Random(7);
    let traces = (rate * times * seconds / 3.0) as u64;
    let lasts = (seconds / 360.0).max(10.0);
    let mut items = Vec::new();
    for trace in 0..traces {
        let begins = random.unit() * seconds;
        for _ in 0..=random.next() % 5 {
            let at = begins + random.unit() * lasts;
            let worker = random.next() as usize % WORKERS;
            items.push(((at * 1e9) as u64, trace, worker));
        }
    }
    items.sort_unstable();
    items
}

/// What was let through: its times, and of how many traces all, none or a part of the items.
#[derive(Default)]
struct Passed {
    times: Vec<u64>,
    whole: usize,
    cut: usize,
    shares: Vec<f64>,
}

fn simulate(
    caps: &Caps,
    start: Instant,
    items: &[(u64, u64, usize)],
    settled_ns: u64,
    end_ns: u64,
) -> Passed {
    let mut passed = Passed::default();
    // Of each trace the first time, the number of items, and of those let through.
    let count = items.iter().map(|(_, trace, _)| *trace as usize + 1).max();
    let mut traces = vec![(u64::MAX, 0, 0); count.unwrap_or(0)];
    for (at_ns, trace, worker) in items {
        let now = start + Duration::from_nanos(*at_ns);
        let key = SamplingKey::from_u128(u128::from(*trace) + 1).unwrap();
        let is_taken = caps.take(0, key, 1, *worker, now);
        let entry = &mut traces[*trace as usize];
        entry.0 = entry.0.min(*at_ns);
        entry.1 += 1;
        entry.2 += u32::from(is_taken);
        if is_taken {
            passed.times.push(*at_ns);
        }
        let share = caps.caps[0].share();
        if passed.shares.last() != Some(&share) {
            passed.shares.push(share);
        }
    }
    for (first_ns, all, taken) in traces {
        if (settled_ns..end_ns).contains(&first_ns) {
            passed.whole += usize::from(all == taken);
            passed.cut += usize::from(taken > 0 && taken < all);
        }
    }
    passed
}

/// The most by which any stretch of time has more than the rate allows.
fn excess(times: &[u64], rate: f64) -> f64 {
    let (mut least, mut most) = (f64::INFINITY, 0.0_f64);
    for (index, at_ns) in times.iter().enumerate() {
        let ahead = index as f64 - rate * seconds(*at_ns);
        least = least.min(ahead);
        most = most.max(ahead + 1.0 - least);
    }
    most
}

#[test]
fn an_hour_at_ten_times_the_cap_is_never_over_by_more_than_one_burst_and_traces_are_whole() {
    for (amount, simulated) in [
        ("100/s", 3600.0),
        ("20/s", 3600.0),
        ("600/min", 3600.0),
        ("18000/h", 3600.0),
        ("5000/day", 5.0 * 86_400.0),
    ] {
        let start = Instant::now();
        let caps = caps(amount, None, start);
        let limit = caps.caps[0].configured.amount;
        let rate = limit.rate();
        let items = items(rate, 10.0, simulated);
        // Until the share is found, traces that have begun are cut. In the end the load falls.
        let settled = 4.0 * caps.caps[0].lock().window_seconds();
        let passed = simulate(
            &caps,
            start,
            &items,
            nanoseconds(settled),
            nanoseconds(simulated - settled),
        );
        let over = excess(&passed.times, rate);
        assert!(over <= limit.burst() as f64 + 1e-3, "{amount}: {over}");
        let used = passed.times.len() as f64 / (rate * simulated);
        assert!((0.7..=1.0).contains(&used), "{amount}: {used} of the cap");
        let cut = passed.cut as f64 / passed.whole as f64;
        assert!(
            cut <= 0.01,
            "{amount}: {} cut, {} whole",
            passed.cut,
            passed.whole
        );
    }
}

#[test]
fn below_the_cap_everything_passes() {
    for amount in ["100/s", "6000/min", "5000/day"] {
        let start = Instant::now();
        let caps = caps(amount, None, start);
        let rate = caps.caps[0].configured.amount.rate();
        let items = items(rate, 0.7, 600.0_f64.max(500.0 / rate));
        let passed = simulate(&caps, start, &items, 0, u64::MAX);
        assert_eq!(passed.times.len(), items.len(), "{amount}");
        assert_eq!(passed.shares, [1.0]);
    }
}

#[test]
fn a_reload_gives_no_second_burst() {
    let start = Instant::now();
    let key = SamplingKey::new(b"a");
    let first = caps("10/s", None, start);
    let taken = |caps: &Caps| (0..50).filter(|_| caps.take(0, key, 1, 0, start)).count();
    assert_eq!(taken(&first), 10);
    assert!(first.has(&configured("10/s")));
    assert!(!first.has(&configured("20/s")));
    let changed = caps("20/s", Some(&first), start);
    assert_eq!(taken(&changed), 10, "ten of twenty are used");
    let smaller = caps("5/s", Some(&changed), start);
    assert_eq!(taken(&smaller), 0);
}

#[test]
fn a_cap_is_near_and_reached_for_a_minute_at_least() {
    let start = Instant::now();
    let caps = caps("10/s", None, start);
    let at = |milliseconds| start + Duration::from_millis(milliseconds);
    let level = |now| caps.levels(now).next().unwrap().1;
    let take = |count, now| {
        for number in 0..count {
            let key = SamplingKey::new(format!("{number}").as_bytes());
            caps.take(0, key, 1, 0, now);
        }
    };
    take(7, at(0));
    assert_eq!(level(at(1)), CapLevel::Below);
    // Windows have ten seconds.
    for second in 1..40 {
        take(8, at(second * 1000));
    }
    assert_eq!(level(at(40_000)), CapLevel::Near);
    take(40, at(40_000));
    assert_eq!(level(at(40_500)), CapLevel::Reached);
    assert_eq!(level(at(100_000)), CapLevel::Reached);
    assert_eq!(level(at(101_000)), CapLevel::Below);
    let (_, used) = caps.used(at(200_000)).next().unwrap();
    assert!(used < 0.1, "{used}");
}

#[test]
fn a_category_without_a_cap_has_none() {
    let caps = caps("10/s", None, Instant::now());
    assert_eq!(caps.index_of(Some(Category::Error)), Some(0));
    assert_eq!(caps.index_of(Some(Category::Span)), None);
    assert_eq!(caps.index_of(None), None);
}
