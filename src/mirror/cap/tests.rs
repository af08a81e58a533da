//! Caps over simulated time.

use super::*;
use crate::config::Config;

const WORKERS: usize = 4;

fn caps(amount: &str, previous: Option<&Caps>, now: Instant) -> Caps {
    let config = configured(amount);
    Caps::new(&config, WORKERS, previous, now).unwrap()
}

fn configured(amount: &str) -> Vec<config::Cap> {
    parsed(&format!("{{error: {amount}}}"))
}

fn parsed(caps: &str) -> Vec<config::Cap> {
    let text = format!(
        "keys: [{{inbound: 'http://a@m/1', outbound: [{{dsn: 'http://b@o/2', cap: {caps}}}]}}]"
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

fn key_of(trace: u64) -> SamplingKey {
    SamplingKey::from_u128(u128::from(trace) + 1).unwrap()
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
        let key = key_of(*trace);
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

/// What another mirror, or `sample_rate`, has sampled are traces that draw little.
#[test]
fn traces_of_a_sample_are_whole() {
    for rate in [0.5, 0.1] {
        let start = Instant::now();
        let caps = caps("100/s", None, start);
        let all = items(100.0, 10.0 / rate, 120.0);
        let sampled = |item: &&(u64, u64, usize)| key_of(item.1).is_within(rate);
        let items: Vec<_> = all.iter().filter(sampled).copied().collect();
        let passed = simulate(&caps, start, &items, 10_000_000_000, 100_000_000_000);
        let (cut, whole) = (passed.cut, passed.whole);
        assert!(
            whole > 1000 && cut * 50 < whole,
            "{rate}: {cut} cut, {whole} whole"
        );
    }
}

#[test]
fn a_small_cap_gives_what_it_allows() {
    const HOUR_NS: u64 = 3_600_000_000_000;
    // Every so many hours, over so many days.
    for (amount, hours, days, expected) in [
        ("1/day", 24, 7, 7),
        ("1/day", 36, 60, 40),
        ("1/day", 1, 7, 7),
        ("2/day", 1, 7, 14),
        ("10/day", 3, 30, 240),
        // All ten of a burst are there at the start, and those of the last hour are still to come.
        ("100/day", 1, 7, 168),
    ] {
        let start = Instant::now();
        let caps = caps(amount, None, start);
        let items: Vec<_> = (0..days * 24 / hours)
            .map(|number| (number * hours * HOUR_NS, number, number as usize % WORKERS))
            .collect();
        let passed = simulate(&caps, start, &items, 0, u64::MAX);
        assert_eq!(passed.times.len(), expected, "{amount} each {hours} hours");
    }
    // Two at once, of which one is over: nothing of that is left after two days.
    let start = Instant::now();
    let caps = caps("1/day", None, start);
    let hours = [0, 0, 48, 72, 96];
    let items = (0..5).map(|number| (hours[number] * HOUR_NS, number as u64, number % WORKERS));
    let passed = simulate(&caps, start, &items.collect::<Vec<_>>(), 0, u64::MAX);
    let hours: Vec<u64> = passed.times.iter().map(|at_ns| at_ns / HOUR_NS).collect();
    assert_eq!(hours, [0, 48, 72, 96]);
}

#[test]
fn what_never_goes_out_lowers_nothing_for_the_rest() {
    let start = Instant::now();
    let caps = caps("100/s", None, start);
    for number in 0..2000 {
        let now = start + Duration::from_millis(number * 20);
        assert!(!caps.take(0, key_of(number), 101, 0, now));
        assert!(caps.take(0, key_of(number), 1, 1, now), "{number}");
    }
    let now = start + Duration::from_secs(40);
    let (cap, used) = caps.used(now).next().unwrap();
    assert_eq!((cap.share(), used), (1.0, 1.0));
    assert_eq!(caps.levels(now).next().unwrap().1, CapLevel::Reached);
}

#[test]
fn a_moment_over_the_cap_is_still_known_a_minute_later() {
    let start = Instant::now();
    let caps = caps("100/s", None, start);
    let at = |milliseconds| start + Duration::from_millis(milliseconds);
    let taken = (0..110).filter(|number| caps.take(0, key_of(*number), 1, 0, at(0)));
    // The other workers may each keep a token.
    assert_eq!(taken.count(), 96);
    for second in 1..50 {
        assert!(caps.take(0, key_of(second), 1, 0, at(second * 1000)));
    }
    let level = |now| caps.levels(now).next().unwrap().1;
    assert_eq!(level(at(50_000)), CapLevel::Reached);
    assert_eq!(level(at(61_000)), CapLevel::Below);
}

#[test]
fn threads_together_take_no_more_than_a_burst() {
    let now = Instant::now();
    for amount in ["100/s", "5000/day", "7/s", "1/day"] {
        let caps = caps(amount, None, now);
        let taken: usize = std::thread::scope(|scope| {
            let caps = &caps;
            let worker = |worker: usize| {
                let of_worker = move |number: u64| number * WORKERS as u64 + worker as u64;
                let numbers = (0..5000).map(of_worker);
                numbers
                    .filter(|number| caps.take(0, key_of(*number), 1, worker, now))
                    .count()
            };
            let threads: Vec<_> = (0..WORKERS)
                .map(|number| scope.spawn(move || worker(number)))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        let burst = caps.caps[0].configured.amount.burst() as usize;
        assert!(
            taken <= burst && taken * 10 >= burst * 9,
            "{amount}: {taken}"
        );
    }
}

proptest::proptest! {
    /// Whatever the amount, the sizes and the time: nothing overflows, and no more than the rate and a burst passes.
    #[test]
    fn no_number_is_too_large(
        (items, period) in (1_u64..=86_400_000_000, 0_usize..4),
        asked in proptest::collection::vec((0_u32..62, 0_u32..33, 0_usize..WORKERS), 1..60),
    ) {
        let period = ["s", "min", "h", "day"][period];
        let largest = match period { "s" => 1, "min" => 60, "h" => 3600, _ => 86_400 } * 1_000_000;
        let start = Instant::now();
        let caps = caps(&format!("{}/{period}", items % largest + 1), None, start);
        let amount = caps.caps[0].configured.amount;
        let (mut now_ns, mut passed) = (0_u64, 0.0);
        for (number, (wait, count, worker)) in asked.into_iter().enumerate() {
            // A century at most.
            now_ns = (now_ns + (1 << wait)).min(3_200_000_000_000_000_000);
            let now = start + Duration::from_nanos(now_ns);
            let count = (1 << count) - u64::from(count > 0);
            if caps.take(0, key_of(number as u64), count, worker, now) {
                passed += count as f64;
            }
            let allowed = amount.rate() * seconds(now_ns) + amount.burst() as f64;
            proptest::prop_assert!(passed <= allowed + 1e-3, "{passed} of {allowed}");
            let (cap, used) = caps.used(now).next().unwrap();
            proptest::prop_assert!(used.is_finite() && used >= 0.0, "{used}");
            proptest::prop_assert!((0.0..=1.0).contains(&cap.share()), "{}", cap.share());
            let _ = caps.levels(now).count();
        }
    }
}

#[test]
fn a_long_rest_fills_one_burst() {
    let start = Instant::now();
    for amount in ["100/s", "5000/day", "1/day"] {
        let caps = caps(amount, None, start);
        let burst = caps.caps[0].configured.amount.burst();
        for years in 0..3 {
            let now = start + Duration::from_secs(years * 31_536_000);
            let taken = (0..2 * burst).filter(|number| caps.take(0, key_of(*number), 1, 0, now));
            let taken = taken.count() as u64;
            assert!(
                taken <= burst && taken * 10 >= burst * 9,
                "{amount}: {taken}"
            );
        }
    }
}

/// As when two workers have read the clock in another order than they come here.
#[test]
fn time_may_seem_to_go_back() {
    let start = Instant::now() + Duration::from_secs(60);
    let caps = caps("10/s", None, start);
    let later = start + Duration::from_secs(30);
    let mut taken = 0;
    for number in 0..400 {
        let now = [later, start, start - Duration::from_secs(50)][number as usize % 3];
        taken += u64::from(caps.take(0, key_of(number), 1, 0, now));
        assert!(caps.used(now).all(|(_, used)| used.is_finite()));
    }
    assert!(taken <= 10, "{taken}");
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
    // A week later all of it is there again, on the same clock.
    let week = start + Duration::from_secs(7 * 86_400);
    let later = Caps::new(&configured("8/s"), WORKERS, Some(&smaller), week).unwrap();
    let taken = (0..50).filter(|_| later.take(0, key, 1, 0, week)).count();
    assert_eq!(taken, 8);
}

#[test]
fn a_reload_knows_a_cap_by_its_categories() {
    let start = Instant::now();
    let key = SamplingKey::new(b"a");
    let first = Caps::new(
        &parsed("{error: 10/s, profile: 4/s, replay: 3/s}"),
        WORKERS,
        None,
        start,
    );
    let first = first.unwrap();
    let taken = |caps: &Caps, index| {
        (0..50)
            .filter(|_| caps.take(index, key, 1, 0, start))
            .count()
    };
    assert_eq!([0, 1, 2].map(|index| taken(&first, index)), [10, 4, 3]);
    // Other names, one of them for more categories, and a cap that stays as it is.
    let second = parsed("{replay: 3/s, events: 12/s, profiling: 9/s}");
    let second = Caps::new(&second, WORKERS, Some(&first), start).unwrap();
    assert!(Arc::ptr_eq(&first.caps[2], &second.caps[0]));
    assert_eq!([0, 1, 2].map(|index| taken(&second, index)), [0, 2, 5]);
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
