use super::*;
use crate::config::Config;

fn share(amount: &str) -> Share {
    let text = format!(
        "keys: [{{inbound: 'http://a@m/1', outbound: [{{dsn: 'http://b@o/2', cap: {{error: {amount}}}}}]}}]"
    );
    let config = Config::parse(&text, "test", std::iter::empty()).unwrap();
    Share::new(config.routes[0].outbounds[0].caps[0].amount, 0.0)
}

/// Ends a window after so many items, with a bucket that was empty, and compares the share with the expected one.
fn check_windows(amount: &str, windows: &[(u64, f64)]) {
    let mut share = share(amount);
    for (count, expected) in windows {
        let end = share.window_end();
        share.note_refusal();
        share.end_window(*count, end);
        assert!(
            (share.get() - expected).abs() < 1e-9,
            "{count}: {}",
            share.get()
        );
    }
}

#[test]
fn the_share_follows_what_is_asked_for_and_stays_while_that_fits() {
    let windows = [
        (90, 1.0),
        (100, 1.0),
        // More than the cap: nine tenths of it.
        (1000, 0.09),
        (1020, 0.09),
        (980, 0.09),
        // Half of it fits, and the other half is not used.
        (500, 0.18),
        (520, 0.18),
        (2000, 0.045),
        (80, 1.0),
        (0, 1.0),
    ];
    check_windows("100/s", &windows);
}

#[test]
fn what_the_cap_allows_is_all_let_through_however_small_the_burst() {
    // Windows have ten seconds.
    let windows = [
        (70, 1.0),
        (85, 1.0),
        // Half of the cap, so that a burst of ten is seldom too small.
        (1000, 0.05),
        (1040, 0.05),
        // All of it would hardly fit.
        (100, 0.5),
        (20, 1.0),
        (97, 1.0),
    ];
    check_windows("10/s", &windows);
}

#[test]
fn all_is_let_through_while_the_bucket_is_never_empty() {
    let mut share = share("5000/day");
    let window = share.window_seconds;
    let allowed = share.allowed * window;
    // Half more than allowed, out of a bucket that was full.
    for _ in 0..3 {
        let end = share.window_end();
        share.end_window((1.5 * allowed) as u64, end);
        assert_eq!(share.get(), 1.0);
    }
    share.note_refusal();
    share.end_window((1.5 * allowed) as u64, share.window_end());
    assert!((share.get() - 0.6).abs() < 0.01, "{}", share.get());
}

#[test]
fn a_bucket_that_holds_no_trace_gets_everything() {
    for (amount, expected) in [
        ("1/day", 1.0),
        ("59/day", 1.0),
        ("5/s", 1.0),
        ("60/day", 0.05),
        ("6/s", 0.05),
    ] {
        let mut share = share(amount);
        let end = share.window_end();
        let count = 10.0 * share.allowed * end;
        share.note_empty(count as u64, end);
        share.end_window(count as u64, end);
        let found = share.get();
        assert!((found - expected).abs() < 1e-9, "{amount}: {found}");
    }
}

#[test]
fn a_long_window_weighs_as_much_as_the_short_ones_that_it_is_as_long_as() {
    let asked = |ends: &[f64]| {
        let mut share = share("100/s");
        share.end_window(100, 1.0);
        let mut before = 1.0;
        for end in ends {
            share.end_window((95.0 * (end - before)) as u64, *end);
            before = *end;
        }
        share.asked.unwrap()
    };
    let (short, long) = (asked(&[2.0, 3.0, 4.0, 5.0]), asked(&[5.0]));
    assert!((short - long).abs() < 1e-9, "{short} {long}");
    assert!(short > 95.0 && short < 98.0, "{short}");
}

#[test]
fn an_empty_bucket_lowers_the_share_before_the_window_ends() {
    let mut share = share("100/s");
    share.note_empty(60, 0.1);
    assert_eq!(share.get(), 1.0, "it may be a burst");
    share.note_empty(500, 0.5);
    assert!((share.get() - 0.09).abs() < 1e-9, "{}", share.get());
}

#[test]
fn what_is_used_is_what_is_asked_for_of_what_is_allowed() {
    let mut share = share("100/s");
    assert_eq!(share.used(50, 0.5), 0.5);
    share.end_window(80, 1.0);
    assert_eq!(share.used(10, 1.5), 0.8);
    // Nobody asks, so nobody ends the window.
    assert_eq!(share.used(10, 3.0), 0.05);
    share.note_empty(10, 3.0);
    share.end_window(10, 3.0);
    assert_eq!(share.used(0, 3.5), 1.0);
    share.end_window(0, 4.0);
    assert!(share.used(0, 4.5) < 0.1);
}

#[test]
fn windows_are_long_enough_for_a_number_and_no_longer_than_an_hour() {
    for (amount, seconds) in [
        ("100/s", 1.0),
        ("10000/s", 1.0),
        ("5/s", 20.0),
        ("300000/h", 45.0),
        ("5000/day", 1728.0),
        ("10/day", 3600.0),
    ] {
        assert_eq!(share(amount).window_seconds, seconds, "{amount}");
    }
}
