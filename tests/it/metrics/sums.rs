//! Requests times outbounds are deliveries, whatever becomes of either.
//!
//! Everything that keeps a delivery from being sent, or a request from being answered, happens to two
//! routes at once. The sums are taken of what the mirror has pushed when it has ended, so that what was
//! given up is among it.

use std::collections::BTreeMap;
use std::net::UdpSocket;

use super::{DELIVERIES, good, nobody, post};
use crate::support::{Action, IN_KEY, KEY_A, Process, Upstream};

const OTHER_KEY: &str = "ffffffffffffffffffffffffffffffff";
const NAME: &str = "mirror.example.com";

/// The counters of one name by their tags, over all that was pushed.
fn pushed(lines: &[String], name: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for line in lines {
        let Some(rest) = line.strip_prefix(&format!("sentrymirror.{name}:")) else {
            continue;
        };
        let (count, tags) = rest.split_once("|c|#").expect("a counter with tags");
        *counts.entry(tags.to_owned()).or_default() += count.parse::<u64>().expect("a number");
    }
    counts
}

/// The sum of those that have a tag.
fn with(counts: &BTreeMap<String, u64>, tag: &str) -> u64 {
    let tagged = counts
        .iter()
        .filter(|(tags, _)| tags.split(',').any(|other| other == tag));
    tagged.map(|(_, count)| count).sum()
}

fn received(socket: &UdpSocket) -> Vec<String> {
    socket.set_nonblocking(true).unwrap();
    let mut lines = Vec::new();
    let mut room = [0; 65_536];
    while let Ok(count) = socket.recv(&mut room) {
        let text = std::str::from_utf8(&room[..count]).expect("text");
        lines.extend(text.lines().map(str::to_owned));
    }
    lines
}

#[test]
fn deliveries_are_requests_times_outbounds_whatever_their_results() {
    let statsd = UdpSocket::bind("127.0.0.1:0").unwrap();
    let ok = || Upstream::ok();
    let (first, zipped, other) = (ok(), ok(), ok());
    let limited = Upstream::start(|_, _| Action::Answer(429, "{}"));
    let [silent, mute] = [(); 2].map(|()| Upstream::start(|_, _| Action::Hang));
    let text = format!(
        "ip: 127.0.0.1\nport: 0\nadmin: {{port: 0}}\nworkers: 1\nstatsd_addr: {}\n\
         reply_timeout: 20s\ntimeouts: {{exchange: 20s, drain: 300ms}}\nlimits: {{in_flight: 1}}\n\
         breaker: {{failures: 1, pause: 1h, pause_max: 1h}}\nkeys:\n\
         - inbound: http://{IN_KEY}@{NAME}/42\n  outbound:\n  - {}\n  - {}\n  - {}\n  - {}\n  \
         - {{dsn: {}, compression: gzip}}\n  - {{dsn: {}, categories: [session]}}\n  \
         - {{dsn: {}, sample_rate: 0}}\n\
         - inbound: http://{OTHER_KEY}@{NAME}/43\n  outbound:\n  - {}\n  - {}\n",
        statsd.local_addr().unwrap(),
        first.dsn(KEY_A, 1),
        limited.dsn(KEY_A, 2),
        nobody(),
        silent.dsn(KEY_A, 4),
        zipped.dsn(KEY_A, 5),
        first.dsn(KEY_A, 6),
        first.dsn(KEY_A, 7),
        mute.dsn(KEY_A, 8),
        other.dsn(KEY_A, 9),
    );
    let mirror = Process::start(&text);
    let ended = |count: f64| {
        mirror.wait_for_metrics(|metrics| metrics.sum(DELIVERIES, &[]) == count);
    };
    // One of the seven never ends.
    assert_eq!(mirror.client().ask(&good()).status, 200);
    ended(6.0);
    for count in 1..=5 {
        assert_eq!(mirror.client().ask(&good()).status, 200);
        ended(6.0 + 7.0 * f64::from(count));
    }
    // One that is gone before its answer, one that is gone before its end, and one that is refused.
    let mut gone = mirror.client();
    gone.send(&good());
    gone.finish_writing();
    drop(gone);
    let mut cut = mirror.client();
    cut.send(&good()[..good().len() - 1]);
    cut.finish_writing();
    assert!(cut.is_closed());
    let keyed = |key: &str| format!("/api/42/envelope/?sentry_key={key}");
    let refused = mirror.client().ask(&post(&keyed(IN_KEY), "", "nonsense\n"));
    assert_eq!(refused.status, 400);
    ended(6.0 + 7.0 * 6.0);
    // One that has no answer when the time is over.
    let mut waiting = mirror.client();
    waiting.send(&post(&keyed(OTHER_KEY), "", "{}\n"));
    ended(6.0 + 7.0 * 6.0 + 1.0);
    mirror.signal("TERM");
    let (status, log) = mirror.wait();
    assert_eq!(status.code(), Some(0));
    assert!(waiting.is_closed(), "there is nothing to tell");

    let lines = received(&statsd);
    let (requests, deliveries) = (pushed(&lines, "requests"), pushed(&lines, "deliveries"));
    for (path, outbounds, answers) in [
        (
            "42",
            7,
            vec![("accepted", 7), ("abandoned", 1), ("rejected", 1)],
        ),
        ("43", 2, vec![("given_up", 1)]),
    ] {
        let route = if path == "42" { IN_KEY } else { OTHER_KEY };
        let route = format!("route:http://{}@{NAME}/{path}", &route[..4]);
        let of_route = |counts: &BTreeMap<String, u64>| {
            let mut counts = counts.clone();
            counts.retain(|tags, _| tags.split(',').any(|tag| tag == route));
            counts
        };
        let (requests, deliveries) = (of_route(&requests), of_route(&deliveries));
        for (answer, count) in &answers {
            let count_told = with(&requests, &format!("result:{answer}"));
            assert_eq!(count_told, *count, "{answer} in {requests:#?}");
        }
        let without = with(&requests, "result:abandoned") + with(&requests, "result:rejected");
        let mirrored = requests.values().sum::<u64>() - without;
        let mut of_outbounds: BTreeMap<&str, u64> = BTreeMap::new();
        for (tags, count) in &deliveries {
            let mut tags = tags.split(',');
            let outbound = tags.find(|tag| tag.starts_with("outbound:"));
            *of_outbounds
                .entry(outbound.expect("an outbound"))
                .or_default() += count;
        }
        assert_eq!(of_outbounds.len(), outbounds, "{of_outbounds:#?}");
        for (outbound, count) in of_outbounds {
            assert_eq!(count, mirrored, "{outbound} in {deliveries:#?}");
        }
    }
    for (outcome, count) in [
        ("2xx", 7 + 7 + 1),
        ("429", 1),
        ("rate_limited", 6),
        ("connect", 1),
        ("paused", 6),
        ("overloaded", 6),
        ("filtered", 7),
        ("sampled", 7),
        ("given_up", 2),
    ] {
        let counted = with(&deliveries, &format!("outcome:{outcome}"));
        assert_eq!(counted, count, "{outcome} in {deliveries:#?}");
    }
    let totals = log.iter().find(|line| line.contains("stopped: "));
    let totals = totals.expect("totals");
    assert!(totals.contains("delivered given_up 2"), "{totals}");
}
