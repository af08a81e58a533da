//! Deliveries are requests times outbounds, whatever their results.
//!
//! Everything that keeps a delivery from being sent, or a request from being answered, happens to two
//! routes at once. The sums are those of the last push to statsd, which includes the requests and
//! deliveries that were abandoned at shutdown.

use std::collections::BTreeMap;
use std::net::UdpSocket;

use super::{DELIVERIES, good, nobody, post};
use serde_yaml::Value;

use crate::support::{Action, Client, Config, IN_KEY, KEY_A, Process, Upstream, outbound};

const OTHER_KEY: &str = "ffffffffffffffffffffffffffffffff";

/// The counters of one name by their tags, summed over all pushes.
fn pushed(lines: &[String], name: &str) -> Counts {
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
fn with(counts: &Counts, tag: &str) -> u64 {
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

/// A mirror with two routes, at whose nine outbounds everything happens that can end a delivery.
fn start(statsd: &UdpSocket) -> Process {
    let (ok, other) = (Upstream::ok(), Upstream::ok());
    let limited = Upstream::start(|_, _| Action::Answer(429, "{}"));
    let silent = Upstream::start(|_, _| Action::Hang);
    let mute = Upstream::start(|_, _| Action::Hang);
    let zipped = Upstream::ok();
    Config::new::<Value>([
        ok.dsn(KEY_A, 1).into(),
        limited.dsn(KEY_A, 2).into(),
        nobody().into(),
        silent.dsn(KEY_A, 4).into(),
        outbound(&zipped.dsn(KEY_A, 5), "compression: gzip"),
        outbound(&ok.dsn(KEY_A, 6), "categories: [session]"),
        outbound(&ok.dsn(KEY_A, 7), "sample_rate: 0"),
    ])
    .route(OTHER_KEY, 43, [mute.dsn(KEY_A, 8), other.dsn(KEY_A, 9)])
    .with_metrics()
    .set("statsd_addr", statsd.local_addr().unwrap().to_string())
    .with("{reply_timeout: 20s, timeouts: {exchange: 20s, drain: 300ms}, limits: {in_flight: 1}}")
    .with("breaker: {failures: 1, pause: 1h, pause_max: 1h}")
    .start()
}

/// Sends requests that end in every way, and gives the connection of one that waits for its reply.
fn send_all(mirror: &Process) -> Client {
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
    // One client leaves before its reply, one leaves before the end of its request, one is rejected.
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
    // One has no reply when the mirror stops.
    let mut waiting = mirror.client();
    waiting.send(&post(&keyed(OTHER_KEY), "", "{}\n"));
    ended(6.0 + 7.0 * 6.0 + 1.0);
    waiting
}

/// Counts by their tags.
type Counts = BTreeMap<String, u64>;

/// Asserts that each outbound of a route had as many deliveries as the route had requests to mirror.
fn assert_adds_up(requests: &Counts, deliveries: &Counts, outbounds: usize) {
    let without = with(requests, "result:abandoned") + with(requests, "result:rejected");
    let mirrored = requests.values().sum::<u64>() - without;
    let mut of_outbounds: BTreeMap<&str, u64> = BTreeMap::new();
    for (tags, count) in deliveries {
        let outbound = tags.split(',').find(|tag| tag.starts_with("outbound:"));
        *of_outbounds
            .entry(outbound.expect("an outbound"))
            .or_default() += count;
    }
    assert_eq!(of_outbounds.len(), outbounds, "{of_outbounds:#?}");
    for (outbound, count) in of_outbounds {
        assert_eq!(count, mirrored, "{outbound} in {deliveries:#?}");
    }
}

#[test]
fn deliveries_are_requests_times_outbounds_whatever_their_results() {
    let statsd = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mirror = start(&statsd);
    let mut waiting = send_all(&mirror);
    mirror.signal("TERM");
    let (status, log) = mirror.wait();
    assert_eq!(status.code(), Some(0));
    assert!(waiting.is_closed(), "it gets no reply");

    let lines = received(&statsd);
    let (requests, deliveries) = (pushed(&lines, "requests"), pushed(&lines, "deliveries"));
    for (key, project, outbounds, results) in [
        (
            IN_KEY,
            42,
            7,
            &[("accepted", 7), ("abandoned", 1), ("rejected", 1)][..],
        ),
        (OTHER_KEY, 43, 2, &[("given_up", 1)]),
    ] {
        let route = format!("route:http://{}@mirror.example.com/{project}", &key[..4]);
        let of_route = |counts: &Counts| {
            let mut counts = counts.clone();
            counts.retain(|tags, _| tags.split(',').any(|tag| tag == route));
            counts
        };
        let (requests, deliveries) = (of_route(&requests), of_route(&deliveries));
        for (result, count) in results {
            let counted = with(&requests, &format!("result:{result}"));
            assert_eq!(counted, *count, "{result} in {requests:#?}");
        }
        assert_adds_up(&requests, &deliveries, outbounds);
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
