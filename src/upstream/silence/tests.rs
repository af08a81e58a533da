use super::*;
use crate::net::transfer::{Phase, TcpProgress};

const PERIOD: Duration = Duration::from_secs(32);
const MIB: u64 = 1 << 20;

/// What is seen of the first connection.
fn seen(phase: Phase, taken_bytes: u64) -> Seen {
    let tcp = TcpProgress {
        taken_bytes,
        ..TcpProgress::default()
    };
    Seen {
        connection: 1,
        phase,
        tcp,
    }
}

/// A response of which so many bytes have arrived, the last one a while ago.
fn receiving(received_bytes: u64, since_received: Duration) -> Seen {
    let mut seen = seen(Phase::Receiving, 500);
    seen.tcp.received_bytes = received_bytes;
    seen.tcp.since_received = since_received;
    seen
}

/// Looks at a delivery as often as it asks for that. Returns how it ends, and after how many seconds.
fn end(is_large: bool, see: impl Fn(f64) -> Option<Seen>) -> (Failure, f64) {
    let begun = Instant::now();
    let mut watch = SilenceWatch::new(PERIOD, begun, is_large);
    loop {
        let now = watch.next_look;
        let seconds = (now - begun).as_secs_f64();
        if let Err(failure) = watch.look(see(seconds), now) {
            return (failure, seconds);
        }
        assert!(seconds < 1e6, "it does not end");
    }
}

#[track_caller]
fn assert_ends(ended: (Failure, f64), failure: &Failure, seconds: std::ops::RangeInclusive<f64>) {
    assert_eq!(ended.0.to_string(), failure.to_string());
    assert!(seconds.contains(&ended.1), "after {} s", ended.1);
}

#[test]
fn a_small_request_has_one_deadline() {
    let never = end(false, |_| Some(seen(Phase::Waiting, 500)));
    assert_ends(never, &Failure::Timeout, 32.0..=32.0);
    let unconnected = end(false, |_| None);
    assert_ends(unconnected, &Failure::Timeout, 32.0..=32.0);
    // Interim responses are no progress.
    let busy = end(false, |seconds| {
        let mut seen = receiving((seconds * 3000.0) as u64, Duration::ZERO);
        seen.phase = Phase::Waiting;
        Some(seen)
    });
    assert_ends(busy, &Failure::Timeout, 32.0..=32.0);
}

#[test]
fn a_large_request_that_nobody_takes_ends_like_a_small_one() {
    // The socket buffers took megabytes before the first look.
    let silent = end(true, |_| Some(seen(Phase::Sending, 3 * MIB)));
    assert_ends(silent, &Failure::Timeout, 32.0..=32.0);
    assert_ends(end(true, |_| None), &Failure::Timeout, 32.0..=32.0);
}

#[test]
fn a_request_that_is_taken_goes_on_until_it_stops() {
    let stops_at = |stop: f64| {
        end(true, |seconds| {
            let taken = seconds.min(stop) * 1.5 * MIB as f64;
            Some(seen(Phase::Sending, taken as u64))
        })
    };
    assert_ends(stops_at(40.0), &Failure::Timeout, 72.0..=74.0);
    assert_ends(stops_at(200.0), &Failure::Timeout, 232.0..=234.0);
}

#[test]
fn the_answer_to_a_taken_request_has_the_whole_period() {
    // The last byte is taken at 41 s, soon after the rate was checked.
    let ended = end(true, |seconds| {
        let taken = (seconds.min(41.0) * 1e5) as u64;
        let phase = match seconds < 20.0 {
            true => Phase::Sending,
            false => Phase::Waiting,
        };
        let mut seen = seen(phase, taken);
        seen.tcp.has_untaken_bytes = seconds < 41.0;
        Some(seen)
    });
    assert_ends(ended, &Failure::Timeout, 73.0..=75.0);
}

#[test]
fn a_trickle_is_too_slow() {
    let sent = end(true, |seconds| {
        Some(seen(Phase::Sending, (seconds * 1000.0) as u64))
    });
    assert_ends(sent, &Failure::TooSlow, 32.0..=36.0);
    let received = end(false, |seconds| {
        Some(receiving((seconds * 900.0) as u64, Duration::ZERO))
    });
    assert_ends(received, &Failure::TooSlow, 62.0..=66.0);
    let buffered = end(true, |seconds| {
        let mut seen = seen(Phase::Waiting, MIB + seconds as u64);
        seen.tcp.has_untaken_bytes = true;
        Some(seen)
    });
    assert_ends(buffered, &Failure::TooSlow, 32.0..=36.0);
    // A byte now and then.
    let now_and_then = end(true, |seconds| {
        Some(seen(Phase::Sending, (seconds / 15.0) as u64))
    });
    assert_ends(now_and_then, &Failure::TooSlow, 32.0..=50.0);
}

#[test]
fn an_upstream_that_stops_in_the_middle_is_silent_and_not_slow() {
    for stop in 3..40 {
        let ended = end(true, |seconds| {
            Some(seen(
                Phase::Sending,
                (seconds.min(stop.into()) * 1200.0) as u64,
            ))
        });
        let stop = f64::from(stop);
        assert_ends(ended, &Failure::Timeout, stop + 32.0..=stop + 34.0);
    }
}

#[test]
fn a_large_body_ends_within_hours_even_at_the_minimum_rate() {
    // Growing by a little more than 1/2048 a second.
    let growing = |seconds: f64| (2.1 * MIB as f64 * (seconds / 2040.0).exp()) as u64;
    let ended = end(true, |seconds| {
        let taken = growing(seconds).min(200 * MIB);
        Some(seen(Phase::Sending, taken))
    });
    assert!(ended.1 < 3.0 * 3600.0, "after {} s", ended.1);
    assert!(ended.1 > 2.0 * 3600.0, "after {} s", ended.1);
}

#[test]
fn a_response_that_is_arriving_when_its_time_is_over_goes_on() {
    let stops_at = |stop: f64| {
        end(false, |seconds| {
            let silence = Duration::from_secs_f64((seconds - stop).max(0.0));
            Some(receiving((seconds.min(stop) * 1e5) as u64, silence))
        })
    };
    assert_ends(stops_at(10.0), &Failure::Timeout, 42.0..=44.0);
    assert_ends(stops_at(50.0), &Failure::Timeout, 82.0..=84.0);
}

#[test]
fn bytes_of_different_connections_are_not_compared() {
    // A second connection begins before the period ends, and nothing is taken on it.
    let ended = end(true, |seconds| {
        let mut seen = seen(Phase::Sending, if seconds < 20.0 { 0 } else { MIB });
        seen.connection = if seconds < 20.0 { 1 } else { 2 };
        Some(seen)
    });
    assert_ends(ended, &Failure::Timeout, 32.0..=32.0);
}

#[test]
fn a_pause_of_the_process_counts_for_neither_side() {
    let begun = Instant::now();
    let at = |seconds| begun + Duration::from_secs(seconds);
    let mut watch = SilenceWatch::new(PERIOD, begun, true);
    let taken = |bytes| Some(seen(Phase::Sending, bytes));
    assert!(watch.look(taken(0), at(2)).is_ok());
    assert!(watch.look(taken(MIB), at(4)).is_ok());
    // It was stopped for 94 s.
    assert!(watch.look(taken(MIB), at(100)).is_ok());
    assert!(watch.look(taken(2 * MIB), at(102)).is_ok());
    // A small request has no second look, so its time is over.
    let mut watch = SilenceWatch::new(PERIOD, begun, false);
    assert!(watch.look(taken(0), at(100)).is_err());
}
