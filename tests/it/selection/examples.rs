//! The examples in the documentation of getsentry/sentry-mirror do what it says.
//!
//! They have other keys and ports, and options in place of the second outbound.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{ID, KEY_A, KEY_B, Process, TRACE, Upstream};
use crate::support::upstream::Received;
use crate::support::{Action, IN_KEY, envelope_request};

/// The response of the primary, which the examples call red.
const RED_ANSWER: &str = r#"{"id":"red"}"#;

/// The number of traces with which sample rates are tested.
const TRACE_COUNT: usize = 400;

struct Example {
    red: Upstream,
    blues: Vec<Upstream>,
    mirror: Process,
}

impl Example {
    /// A mirror with the outbounds of an example: the primary, then one for each of `blues`, in which `DSN`
    /// stands for its DSN.
    fn start(blues: &[&str]) -> Example {
        let red = Upstream::start(|_, _| Action::Answer(200, RED_ANSWER));
        let upstreams: Vec<Upstream> = blues.iter().map(|_| Upstream::ok()).collect();
        let mut text = format!(
            "ip: 127.0.0.1\nport: 0\nkeys:\n  - inbound: http://{IN_KEY}@sentry-mirror.acme.org/1847101\n    outbound:\n      - {}\n",
            red.dsn(KEY_A, 123_456)
        );
        for (blue, upstream) in blues.iter().zip(&upstreams) {
            text.push_str(&blue.replace("DSN", &upstream.dsn(KEY_B, 654_321)));
        }
        Example {
            red,
            blues: upstreams,
            mirror: Process::start(&text),
        }
    }

    /// Sends envelopes, each of which gets the response of the primary.
    fn send(&self, bodies: &[String]) {
        let mut client = self.mirror.client();
        for body in bodies {
            let response = client.ask(&envelope_request(body.as_bytes()));
            assert_eq!((response.status, response.text()), (200, RED_ANSWER));
        }
    }

    /// Stops the mirror, and gives what the primary and the others received.
    fn finish(self) -> (Vec<Received>, Vec<Vec<Received>>) {
        self.mirror.signal("TERM");
        assert!(self.mirror.wait().0.success());
        let blues = self.blues.iter().map(Upstream::received).collect();
        (self.red.received(), blues)
    }
}

/// An envelope with one item of each of these types, all of one trace.
fn envelope_of(id: &str, trace: &str, kinds: &[&str]) -> String {
    let items = kinds.iter().map(|kind| {
        let payload = format!(r#"{{"event_id":"{id}","of":"{kind}"}}"#);
        format!("{{\"type\":\"{kind}\"}}\n{payload}\n")
    });
    let items: String = items.collect();
    format!(
        "{{\"event_id\":\"{id}\",\"dsn\":\"http://{IN_KEY}@sentry-mirror.acme.org/1847101\",\"trace\":{{\"trace_id\":\"{trace}\",\"public_key\":\"{IN_KEY}\",\"sample_rate\":\"0.5\"}}}}\n{items}"
    )
}

fn lines(received: &Received) -> Vec<Value> {
    let lines = received.text().lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The types of the items of an envelope.
fn kinds(received: &Received) -> Vec<String> {
    let lines = lines(received);
    let kinds = lines
        .iter()
        .skip(1)
        .filter_map(|line| line["type"].as_str());
    kinds.map(str::to_owned).collect()
}

/// “Forward events to one or more outbound DSNs”, with the modifications that are listed there.
#[test]
fn everything_goes_to_all_outbounds() {
    let example = Example::start(&["      - DSN\n"]);
    let body = envelope_of(ID, TRACE, &["event", "session", "new_thing"]);
    example.send(std::slice::from_ref(&body));
    example.blues[0].wait_for(1);
    let dsns = [
        (example.red.dsn(KEY_A, 123_456), KEY_A, 123_456),
        (example.blues[0].dsn(KEY_B, 654_321), KEY_B, 654_321),
    ];
    let (red, blues) = example.finish();
    for (got, (dsn, key, project)) in [&red, &blues[0]].into_iter().zip(dsns) {
        let [received] = got.as_slice() else {
            panic!("{} requests", got.len());
        };
        assert_eq!(
            received.line,
            format!("POST /api/{project}/envelope/ HTTP/1.1")
        );
        let auth = format!("Sentry sentry_key={key}, sentry_version=7");
        assert_eq!(received.field("X-Sentry-Auth"), Some(&*auth));
        let inbound = format!("http://{IN_KEY}@sentry-mirror.acme.org/1847101");
        let expected = body.replace(&inbound, &dsn).replace(IN_KEY, key);
        assert_eq!(received.text(), expected);
    }
}

/// “Only items with those categories will be forwarded”, and “copy matching envelope items n times. Each
/// copy will have a unique event_id assigned to it.”
#[test]
fn some_categories_are_forwarded_and_multiplied() {
    for (multiplier, count) in [("", 1), ("        multiplier: 5\n", 5)] {
        let blue = format!(
            "      - dsn: DSN\n        categories: [error, transaction, profile]\n{multiplier}"
        );
        let example = Example::start(&[&blue]);
        example.send(&[
            envelope_of(ID, TRACE, &["event", "session", "client_report"]),
            envelope_of(TRACE, TRACE, &["profile", "transaction"]),
            envelope_of(ID, TRACE, &["session"]),
        ]);
        example.red.wait_for(3);
        example.blues[0].wait_for(2 * count);
        let (red, blues) = example.finish();
        assert_eq!(red.len(), 3);
        assert_eq!(kinds(&red[0]), ["event", "session", "client_report"]);
        let mut ids: BTreeMap<Vec<String>, BTreeSet<String>> = BTreeMap::new();
        for received in &blues[0] {
            let lines = lines(received);
            let id = lines[0]["event_id"].as_str().unwrap();
            assert!(
                lines
                    .iter()
                    .skip(2)
                    .step_by(2)
                    .all(|item| item["event_id"] == id)
            );
            ids.entry(kinds(received))
                .or_default()
                .insert(id.to_owned());
        }
        let kinds: Vec<&[String]> = ids.keys().map(Vec::as_slice).collect();
        assert_eq!(kinds, [&["event"][..], &["profile", "transaction"]]);
        assert!(ids.values().all(|ids| ids.len() == count), "{ids:?}");
        assert_eq!(blues[0].len(), 2 * count);
    }
}

/// “Sample all categories at 0.5”, and “sample spans at 0.05 and all other categories at 1.0”;
/// “trace.sample_rate is recalculated if sample_rate is defined”.
#[test]
fn sample_rates_apply_to_everything_or_to_one_category() {
    let example = Example::start(&[
        "      - dsn: DSN\n        sample_rate: 0.5\n",
        "      - dsn: DSN\n        sample_rate:\n            span: 0.05\n",
    ]);
    let bodies: Vec<String> = (0..TRACE_COUNT)
        .flat_map(|number| {
            let trace = format!("{number:032x}");
            ["event", "span"].map(|kind| envelope_of(&trace, &trace, &[kind]))
        })
        .collect();
    example.send(&bodies);
    let (red, blues) = example.finish();
    assert_eq!(red.len(), bodies.len());
    let count = |got: &[Received], kind: &str, rate: &str| {
        let of_kind = got.iter().filter(|received| kinds(received) == [kind]);
        let rates = of_kind.map(|received| lines(received)[0]["trace"]["sample_rate"].clone());
        let rates: Vec<Value> = rates.collect();
        assert!(rates.iter().all(|found| found == rate), "{kind} {rates:?}");
        rates.len()
    };
    let half = TRACE_COUNT / 2 - 50..TRACE_COUNT / 2 + 50;
    for kind in ["event", "span"] {
        let kept = count(&blues[0], kind, "0.25");
        assert!(half.contains(&kept), "{kept} of {TRACE_COUNT} at 0.5");
        assert_eq!(count(&red, kind, "0.5"), TRACE_COUNT);
    }
    assert_eq!(count(&blues[1], "event", "0.5"), TRACE_COUNT);
    let kept = count(&blues[1], "span", "0.025");
    assert!((5..45).contains(&kept), "{kept} of {TRACE_COUNT} at 0.05");
}

/// “Out of bounds values emit warnings during startup and the values are clamped to the closest
/// boundary”, and “combining multiplier and sample_rate is a configuration error, that should cause the
/// mirror to log an error and ignore the multiplier value”.
#[test]
fn options_without_effect_are_warned_about_at_the_start() {
    let example = Example::start(&[
        "      - dsn: DSN\n        sample_rate: 1\n",
        "      - dsn: DSN\n        sample_rate: {error: 0}\n",
        "      - dsn: DSN\n        sample_rate: {session: 0.5}\n        multiplier: 5\n",
    ]);
    example
        .mirror
        .wait_for_line("outbound[3].multiplier: is ignored because sample_rate is set");
    example.send(&[envelope_of(ID, TRACE, &["event"])]);
    let (red, blues) = example.finish();
    let counts: Vec<usize> = blues.iter().map(Vec::len).collect();
    assert_eq!((red.len(), counts), (1, vec![1, 0, 1]));
}
