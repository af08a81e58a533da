use super::*;
use crate::config::Config;

fn share(amount: &str) -> Share {
    let text = format!(
        "keys: [{{inbound: 'http://a@m/1', outbound: [{{dsn: 'http://b@o/2', cap: {{error: {amount}}}}}]}}]"
    );
    let config = Config::parse(&text, "test", std::iter::empty()).unwrap();
    Share::new(config.routes[0].outbounds[0].caps[0].amount)
}

#[test]
fn the_share_follows_what_is_asked_for_and_stays_while_that_fits() {
    let mut share = share("100/s");
    for (count, expected) in [
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
    ] {
        let end = share.window_end();
        share.end_window(count, end);
        assert!(
            (share.get() - expected).abs() < 1e-9,
            "{count}: {}",
            share.get()
        );
    }
}

#[test]
fn what_the_cap_allows_is_all_let_through_however_small_the_burst() {
    let mut share = share("10/s");
    // Windows have ten seconds.
    for (count, expected) in [
        (70, 1.0),
        (85, 1.0),
        // Half of the cap, so that a burst of ten is seldom too small.
        (1000, 0.05),
        (1040, 0.05),
        // All of it would hardly fit.
        (100, 0.5),
        (20, 1.0),
        (97, 1.0),
    ] {
        let end = share.window_end();
        share.end_window(count, end);
        assert!(
            (share.get() - expected).abs() < 1e-9,
            "{count}: {}",
            share.get()
        );
    }
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
