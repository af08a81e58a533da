//! Outages of many lengths, in simulated time: how much is lost after the upstream is back.

use super::*;

/// What an upstream does during an outage.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Refuses,
    /// Packets get lost: neither an answer nor a refusal.
    Unreachable,
    /// Accepts, and closes at once.
    Closes,
    /// Accepts, and answers nothing, also when it is back: what hangs, hangs.
    Hangs,
}

/// Events at 50 a second, before, during and after an outage.
struct Simulation {
    start: Instant,
    kind: Kind,
    outage: std::ops::Range<Duration>,
    upstream: Upstream,
    /// The ends to come of deliveries and of probes.
    deliveries: Vec<(Duration, Delivery)>,
    probes: Vec<(Duration, bool)>,
    lost_after: u32,
    in_flight_max: usize,
    trials_max: u32,
}

#[derive(Clone, Copy)]
struct Delivery {
    begun: Duration,
    is_trial: bool,
}

const STEP: Duration = Duration::from_millis(20);
/// The time an answer, a refusal or a connect takes.
const ROUND_TRIP: Duration = Duration::from_millis(10);
const BEFORE: Duration = Duration::from_secs(40);

impl Simulation {
    fn run(kind: Kind, length: Duration) -> Simulation {
        let start = Instant::now();
        let mut upstream = Upstream::new(start);
        upstream.breaker.set_limits(&Limits::default());
        let mut simulation = Simulation {
            start,
            kind,
            outage: BEFORE..BEFORE + length,
            upstream,
            deliveries: Vec::new(),
            probes: Vec::new(),
            lost_after: 0,
            in_flight_max: 0,
            trials_max: 0,
        };
        let mut now = Duration::ZERO;
        while now < simulation.outage.end + 65 * SECOND {
            simulation.step(now);
            now += STEP;
        }
        simulation
    }

    fn is_out(&self, at: Duration) -> bool {
        self.outage.contains(&at)
    }

    fn step(&mut self, now: Duration) {
        self.end_deliveries(now);
        self.end_probes(now);
        let at = self.start + now;
        self.upstream.breaker.claim_prober();
        if let NextProbe::Now(timeout) = self.upstream.breaker.next_probe(at) {
            let takes = match (self.is_out(now), self.kind) {
                (true, Kind::Unreachable) => timeout,
                _ => ROUND_TRIP,
            };
            self.probes.push((now + takes, takes > ROUND_TRIP));
        }
        match self.upstream.breaker.admit(HONEST, at) {
            Verdict::Drop => self.lose(now),
            verdict => self.send(now, verdict == Verdict::Trial),
        }
        self.in_flight_max = self.in_flight_max.max(self.deliveries.len());
        self.trials_max = self.trials_max.max(self.upstream.breaker.trials);
    }

    fn lose(&mut self, begun: Duration) {
        self.lost_after += u32::from(begun >= self.outage.end);
    }

    fn send(&mut self, now: Duration, is_trial: bool) {
        let timeouts = Limits::default().timeouts;
        let takes = match (self.is_out(now), self.kind) {
            (true, Kind::Unreachable) => timeouts.connect,
            (true, Kind::Hangs) => timeouts.exchange,
            _ => ROUND_TRIP,
        };
        let delivery = Delivery {
            begun: now,
            is_trial,
        };
        self.deliveries.push((now + takes, delivery));
    }

    fn end_deliveries(&mut self, now: Duration) {
        let is_over = |(end, _): &mut (Duration, Delivery)| *end <= now;
        let over: Vec<_> = self.deliveries.extract_if(.., is_over).collect();
        for (end, Delivery { begun, is_trial }) in over {
            let (begun_at, ended_at) = (self.start + begun, self.start + end);
            if self.is_out(begun) {
                let how = match self.kind {
                    Kind::Refuses => Unreachable,
                    Kind::Unreachable => ConnectTimeout,
                    Kind::Closes => Broken,
                    Kind::Hangs => Silent,
                };
                self.upstream.fail(HONEST, how, begun_at, ended_at);
            } else {
                self.upstream.respond(ended_at);
            }
            if is_trial {
                self.upstream.breaker.end_trial();
            }
        }
    }

    fn end_probes(&mut self, now: Duration) {
        let is_over = |(end, _): &mut (Duration, bool)| *end <= now;
        let over: Vec<_> = self.probes.extract_if(.., is_over).collect();
        for (end, timed_out) in over {
            let is_refused = self.kind == Kind::Refuses && self.is_out(end);
            if !timed_out && !is_refused {
                self.upstream.breaker.record_connected(self.start + end);
            }
            self.upstream.breaker.end_probe(timed_out);
        }
    }
}

#[test]
fn at_most_two_seconds_are_lost_after_an_outage_of_any_length() {
    for kind in [Kind::Refuses, Kind::Unreachable, Kind::Closes, Kind::Hangs] {
        for seconds in [1, 2, 5, 8, 20, 31, 45, 90, 600] {
            for shift in [0, 3] {
                let length = Duration::from_secs(seconds) + shift * SECOND / 4;
                let simulation = Simulation::run(kind, length);
                let lost = simulation.lost_after;
                assert!(lost <= 60, "{kind:?} for {length:?}: {lost} events lost");
            }
        }
    }
}

#[test]
fn a_dead_upstream_holds_few_deliveries() {
    let of = |kind| Simulation::run(kind, Duration::from_secs(600));
    // 50 a second: as many as fit into the timeout, and one second more.
    assert!(of(Kind::Unreachable).in_flight_max <= 4 * 50 + 10);
    let silent = of(Kind::Hangs);
    assert!(silent.in_flight_max <= 32 * 50, "{}", silent.in_flight_max);
    assert!(silent.trials_max <= TRIALS_MAX);
    assert!(of(Kind::Refuses).in_flight_max <= 2);
}

#[test]
fn trials_last_to_the_end_of_a_long_timeout() {
    let start = Instant::now();
    let mut breaker = Breaker::new(start);
    let mut limits = Limits::default();
    limits.timeouts.exchange = Duration::from_secs(300);
    breaker.set_limits(&limits);
    let failed = |index: u32| Failed {
        route: HONEST,
        begun: start + index * SECOND,
        how: Silent,
    };
    for index in 0..10 {
        breaker.record_failure(failed(index), None, start + index * SECOND);
    }
    let mut trials: Vec<Duration> = Vec::new();
    for step in 0..300 * 20 {
        let after = SECOND / 20 * step;
        if breaker.admit(HONEST, start + 10 * SECOND + after) == Verdict::Trial {
            trials.push(after);
        }
    }
    let gaps = trials.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(gaps.max().unwrap() < 20 * SECOND);
    assert!(trials.last().unwrap() > &(280 * SECOND));
}
