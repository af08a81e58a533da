//! The id that decides on sampling, in the spellings of SDKs, and without one.

use std::collections::BTreeMap;

use super::{Pair, Received};
use crate::support::{IN_KEY, Process, Upstream, config, envelope_request};

const NIL: &str = "00000000000000000000000000000000";
const DASHED: &str = "00000000-0000-0000-0000-000000000000";

/// A distinct id for each number.
fn id(number: usize) -> String {
    format!("{:032x}", (number as u128 + 1) * 0x9e37_79b9_7f4a_7c15)
}

/// An envelope with one item.
fn item(header: &str, kind: &str, payload: &str) -> String {
    format!("{header}\n{{\"type\":\"{kind}\"}}\n{payload}\n")
}

/// Checks that some of the requests with the bodies from `make` are delivered and some are not. With an
/// independent draw for each, a hundred requests miss this range once in 10⁸ times.
fn assert_shared(name: &str, path: &str, make: impl Fn(usize) -> String) {
    const COUNT: usize = 100;
    let pair = Pair::start("sample_rate: 0.5");
    let mut client = pair.mirror.client();
    for number in 0..COUNT {
        let body = make(number);
        let text = format!(
            "POST {path}?sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let response = client.ask(text.as_bytes());
        assert!(response.status < 300, "{name}: {}", response.status);
    }
    pair.all.wait_for(COUNT);
    let (got, _) = pair.finish();
    assert!((20..=80).contains(&got.len()), "{name}: {}", got.len());
}

#[test]
fn ids_of_zeros_are_ignored_for_sampling() {
    let entry = |number: usize, nil: &str| {
        format!("{{\"items\":[{{\"trace_id\":\"{nil}\",\"body\":\"{number}\"}}]}}")
    };
    let event = |number: usize| format!("{{\"event_id\":\"{}\"}}", id(number));
    let envelope = "/api/42/envelope/";
    for kind in ["log", "trace_metric", "span"] {
        assert_shared(kind, envelope, |n| item("{}", kind, &entry(n, DASHED)));
    }
    assert_shared("a trace in the event", envelope, |n| {
        let payload = format!("{{\"contexts\":{{\"trace\":{{\"trace_id\":\"{NIL}\"}}}}}}");
        item(&event(n), "event", &payload)
    });
    assert_shared("a trace in the header", envelope, |n| {
        let header = format!(
            "{{\"event_id\":\"{}\",\"trace\":{{\"trace_id\":\"{NIL}\",\"replay_id\":\"{DASHED}\"}}}}",
            id(n)
        );
        item(&header, "event", "{}")
    });
    assert_shared("a replay", envelope, |n| {
        let payload = format!("{{\"contexts\":{{\"replay\":{{\"replay_id\":\"{NIL}\"}}}}}}");
        item(&event(n), "event", &payload)
    });
    assert_shared("a user", envelope, |n| {
        let payload = format!("{{\"sid\":\"{}\",\"did\":\"{DASHED}\"}}", id(n));
        item("{}", "session", &payload)
    });
    assert_shared("a session", envelope, |n| {
        item(
            "{}",
            "session",
            &format!("{{\"sid\":\"{DASHED}\",\"seq\":{n}}}"),
        )
    });
    assert_shared("a profiler", envelope, |n| {
        let payload = format!("{{\"profiler_id\":\"{NIL}\",\"chunk_id\":\"{}\"}}", id(n));
        item("{}", "profile_chunk", &payload)
    });
    assert_shared("an event", "/api/42/store/", |n| {
        format!("{{\"event_id\":\"{NIL}\",\"message\":\"{n}\"}}")
    });
}

#[test]
fn identical_reports_are_sampled_by_chance() {
    let report = "{\"csp-report\":{\"document-uri\":\"https://shop.example.com/\"}}";
    assert_shared("security", "/api/42/security/", |_| report.to_owned());
    assert_shared("raw_security", "/api/42/envelope/", |_| {
        item("{}", "raw_security", report)
    });
    assert_shared("an event without an id", "/api/42/store/", |_| {
        "{\"message\":\"out of stock\"}".to_owned()
    });
    assert_shared("logs", "/api/42/envelope/", |_| {
        item("{}", "log", "{\"items\":[{\"body\":\"out of stock\"}]}")
    });
}

/// The trace draws 0.2580455816534687 in getsentry/sentry-mirror.
#[test]
fn a_trace_is_sampled_as_by_getsentry_sentry_mirror() {
    let header = "{\"trace\":{\"trace_id\":\"771a43a4192642f0b136d5159a501700\"}}";
    for (rate, count) in [("0.2580455816534686", 0), ("0.2580455816534688", 1)] {
        let pair = Pair::start(&format!("sample_rate: {rate}"));
        pair.send(&[item(header, "event", "{}")]);
        let (got, _) = pair.finish();
        assert_eq!(got.len(), count, "{rate}");
    }
}

#[test]
fn a_monitor_is_sampled_whole_in_any_spelling_of_its_slug() {
    const MONITORS: usize = 40;
    let some = Upstream::ok();
    let outbounds = [super::mapping(&some, super::KEY_B, "sample_rate: 0.5")];
    let mirror = Process::start(&config(&outbounds, ""));
    let mut client = mirror.client();
    for number in 0..MONITORS {
        for slug in [
            format!("job-{number}"),
            format!("Job {number}"),
            format!("job_{number}!"),
        ] {
            let payload = format!("{{\"monitor_slug\":\"{slug}\",\"number\":{number}}}");
            let body = item("{}", "check_in", &payload);
            assert_eq!(client.ask(&envelope_request(body.as_bytes())).status, 200);
        }
        for slug in [
            format!("job-{number}"),
            format!("Job%20{number}"),
            format!("%6aob%2D{number}"),
        ] {
            let get = format!(
                "GET /api/42/cron/{slug}/{IN_KEY}/?status=ok&number={number} HTTP/1.1\r\nHost: m\r\n\r\n"
            );
            assert!(client.ask(get.as_bytes()).status < 300, "{slug}");
        }
    }
    mirror.signal("TERM");
    mirror.wait();
    let number_of = |received: &Received| {
        let text = match received.line.split_once("number=") {
            Some((_, rest)) => rest,
            None => received.text().rsplit_once("number\":").unwrap().1,
        };
        let digits = text.split(|c: char| !c.is_ascii_digit()).next().unwrap();
        digits.parse::<usize>().unwrap()
    };
    let mut kept: BTreeMap<usize, usize> = BTreeMap::new();
    for received in &some.received() {
        *kept.entry(number_of(received)).or_default() += 1;
    }
    assert!(kept.values().all(|count| *count == 6), "{kept:?}");
    assert!((5..MONITORS - 5).contains(&kept.len()), "{kept:?}");
}
