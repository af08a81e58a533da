use super::*;
use Unanswered::{Broken, ConnectTimeout, Silent, Unreachable};

fn limits() -> Limits {
    Limits {
        breaker: BreakerLimits {
            failures: 3,
            pause: Duration::from_secs(1),
            pause_max: Duration::from_secs(3),
        },
        ..Limits::default()
    }
}

const ATTACKER: RouteId = 1;
const HONEST: RouteId = 2;
const SECOND: Duration = Duration::from_secs(1);

/// A breaker with the time of the last response, which the origin keeps.
struct Upstream {
    breaker: Breaker,
    answered_at: Option<Instant>,
}

impl Upstream {
    fn new(now: Instant) -> Upstream {
        let mut breaker = Breaker::new(now);
        breaker.set_limits(&limits());
        Upstream {
            breaker,
            answered_at: None,
        }
    }

    fn respond(&mut self, now: Instant) {
        self.answered_at = Some(now);
        self.breaker.record_response(now);
    }

    /// Fails a delivery of `route` that began at `begun`.
    fn fail(&mut self, route: RouteId, how: Unanswered, begun: Instant, now: Instant) {
        let failed = Failed { route, begun, how };
        self.breaker.record_failure(failed, self.answered_at, now);
    }

    fn fail_often(&mut self, how: Unanswered, now: Instant) {
        for _ in 0..3 {
            self.fail(ATTACKER, how, now, now);
        }
    }

    fn verdict(&mut self, route: RouteId, now: Instant) -> Verdict {
        let verdict = self.breaker.admit(route, now);
        if verdict == Verdict::Trial {
            self.breaker.end_trial();
        }
        verdict
    }
}

#[test]
fn it_opens_only_after_failures_in_a_row() {
    let now = Instant::now();
    let mut upstream = Upstream::new(now);
    for _ in 0..10 {
        for _ in 0..2 {
            upstream.fail(ATTACKER, Unreachable, now, now);
        }
        assert_eq!(upstream.verdict(ATTACKER, now), Verdict::Send);
        upstream.respond(now);
    }
    upstream.fail_often(Unreachable, now);
    assert_eq!(upstream.breaker.state(now), BreakerState::Open);
    assert_eq!(upstream.verdict(ATTACKER, now), Verdict::Drop);
    assert_eq!(upstream.verdict(HONEST, now), Verdict::Drop);
}

#[test]
fn dead_pooled_connections_are_one_failure() {
    let now = Instant::now();
    let mut upstream = Upstream::new(now);
    for _ in 0..32 {
        upstream.fail(ATTACKER, Broken, now, now + SECOND);
    }
    assert_eq!(upstream.breaker.state(now), BreakerState::Closed);
}

#[test]
fn while_no_connection_can_be_opened_probes_decide_and_no_delivery() {
    for how in [Unreachable, ConnectTimeout] {
        let start = Instant::now();
        let mut upstream = Upstream::new(start);
        for index in 0..3 {
            let begun = start + index * SECOND;
            upstream.fail(ATTACKER, how, begun, begun);
        }
        let mut now = start + 3 * SECOND;
        let breaker = &mut upstream.breaker;
        assert!(breaker.claim_prober());
        assert!(!breaker.claim_prober() && !breaker.wants_prober());
        let mut probes = 0;
        for _ in 0..1000 {
            now += SECOND / 20;
            assert_eq!(breaker.admit(HONEST, now), Verdict::Drop);
            if matches!(breaker.next_probe(now), NextProbe::Now(_)) {
                breaker.end_probe(how == ConnectTimeout);
                probes += 1;
            }
        }
        assert!((45..=100).contains(&probes), "{probes}");
        breaker.record_connected(now);
        assert_eq!(breaker.state(now), BreakerState::Closed);
        assert_eq!(breaker.admit(HONEST, now), Verdict::Send);
        assert_eq!(breaker.next_probe(now), NextProbe::Never);
    }
}

#[test]
fn another_task_takes_over_from_a_prober_that_ends() {
    let now = Instant::now();
    let mut upstream = Upstream::new(now);
    assert!(!upstream.breaker.claim_prober());
    upstream.fail_often(Unreachable, now);
    assert!(upstream.breaker.claim_prober());
    upstream.breaker.release_prober();
    assert!(upstream.breaker.wants_prober() && upstream.breaker.claim_prober());
}

#[test]
fn a_prober_that_waits_while_the_breaker_closes_and_opens_again_stays_the_only_one() {
    let now = Instant::now();
    let mut upstream = Upstream::new(now);
    upstream.fail_often(Unreachable, now);
    assert!(upstream.breaker.claim_prober());
    upstream.respond(now);
    upstream.fail_often(Unreachable, now + SECOND);
    assert!(!upstream.breaker.claim_prober());
    let due = now + 2 * SECOND;
    let connect = limits().timeouts.connect;
    assert_eq!(upstream.breaker.next_probe(due), NextProbe::Now(connect));
}

#[test]
fn no_pause_is_longer_than_the_longest() {
    let now = Instant::now();
    let mut upstream = Upstream::new(now);
    let mut limits = limits();
    limits.breaker.pause = 60 * SECOND;
    upstream.breaker.set_limits(&limits);
    upstream.fail_often(Unreachable, now);
    let probe = upstream.breaker.next_probe(now + 3 * SECOND);
    assert!(matches!(probe, NextProbe::Now(_)));
}

#[test]
fn other_addresses_close_it() {
    for how in [Unreachable, Broken] {
        let now = Instant::now();
        let mut upstream = Upstream::new(now);
        upstream.fail_often(how, now);
        assert_eq!(upstream.breaker.state(now), BreakerState::Open);
        upstream.breaker.reset(now);
        assert_eq!(upstream.breaker.state(now), BreakerState::Closed);
        assert!(!upstream.breaker.has_failures());
    }
}

#[test]
fn where_connections_break_a_delivery_a_second_is_a_trial() {
    let start = Instant::now();
    let mut upstream = Upstream::new(start);
    upstream.fail_often(Broken, start);
    let mut trials = 0;
    for step in 1..=12_000 {
        let now = start + SECOND / 20 * step;
        match upstream.breaker.admit(ATTACKER, now) {
            Verdict::Send => panic!("closed without a response"),
            Verdict::Drop => {}
            Verdict::Trial => {
                trials += 1;
                assert_eq!(upstream.breaker.admit(ATTACKER, now), Verdict::Drop);
                upstream.fail(ATTACKER, Broken, now, now);
                upstream.breaker.end_trial();
            }
        }
    }
    assert!((600..=1200).contains(&trials), "{trials}");
    upstream.respond(start + 601 * SECOND);
    let now = start + 602 * SECOND;
    assert_eq!(upstream.verdict(ATTACKER, now), Verdict::Send);
}

#[test]
fn without_traffic_a_trial_becomes_due() {
    for how in [Broken, Silent] {
        let start = Instant::now();
        let mut upstream = Upstream::new(start);
        upstream.fail_often(how, start);
        for index in 0..3 {
            upstream.fail(
                ATTACKER,
                how,
                start + index * SECOND,
                start + index * SECOND,
            );
        }
        let early = start + Duration::from_millis(499);
        assert_eq!(upstream.breaker.state(early), BreakerState::Open);
        let due = start + 3 * SECOND;
        assert_eq!(upstream.breaker.state(due), BreakerState::Due);
        assert_eq!(upstream.verdict(ATTACKER, due), Verdict::Trial);
        assert_eq!(upstream.breaker.state(due), BreakerState::Open);
    }
}

#[test]
fn broken_connections_do_not_open_it_while_other_requests_get_responses() {
    let start = Instant::now();
    let mut upstream = Upstream::new(start);
    for second in 0..20 {
        let now = start + second * SECOND;
        if second % 2 == 0 {
            upstream.respond(now);
        }
        for _ in 0..100 {
            upstream.fail(ATTACKER, Broken, now, now);
        }
    }
    assert_eq!(upstream.breaker.state(start), BreakerState::Closed);
    assert!(!upstream.breaker.has_failures());
}

#[test]
fn silence_counts_only_if_no_other_request_got_a_response_meanwhile() {
    let begun = Instant::now();
    let mut upstream = Upstream::new(begun);
    let ended = begun + 30 * SECOND;
    upstream.respond(begun + SECOND);
    for index in 0..9 {
        upstream.fail(ATTACKER, Silent, begun + index * SECOND / 10, ended);
    }
    assert_eq!(upstream.breaker.state(ended), BreakerState::Closed);
    let later = ended + 30 * SECOND;
    for index in 0..3 {
        upstream.fail(ATTACKER, Silent, ended + index * SECOND / 10, later);
    }
    assert_eq!(upstream.breaker.state(later), BreakerState::Open);
}

#[test]
fn a_broken_or_silent_connection_concerns_only_the_routes_to_which_it_happened() {
    for how in [Broken, Silent] {
        let now = Instant::now();
        let mut upstream = Upstream::new(now);
        upstream.fail_often(how, now);
        assert_eq!(upstream.verdict(ATTACKER, now), Verdict::Drop);
        assert_eq!(upstream.verdict(HONEST, now), Verdict::Send);
        // The upstream fails for that route, too.
        upstream.fail(HONEST, how, now, now);
        assert_eq!(upstream.verdict(HONEST, now), Verdict::Drop);
        assert_eq!(upstream.verdict(HONEST + 1, now), Verdict::Send);
        upstream.respond(now);
        assert_eq!(upstream.verdict(HONEST, now), Verdict::Send);
        assert_eq!(upstream.verdict(ATTACKER, now), Verdict::Send);
    }
}

#[test]
fn after_a_reload_no_route_is_held_up_for_another_of_the_same_id() {
    let now = Instant::now();
    let mut upstream = Upstream::new(now);
    upstream.fail_often(Broken, now);
    upstream.breaker.set_limits(&limits());
    assert_eq!(upstream.verdict(ATTACKER, now), Verdict::Send);
    assert_eq!(upstream.breaker.state(now), BreakerState::Due);
    upstream.fail(ATTACKER, Broken, now, now);
    assert_eq!(upstream.verdict(ATTACKER, now), Verdict::Drop);
}

mod outages;
