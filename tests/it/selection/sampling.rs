//! Samples of a hundred thousand traces, taken by independent processes.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Pair, Received};

const TRACES: usize = 100_000;
/// The entries of an item: the most that the mirror parses.
const ENTRIES: usize = 10_000;

/// Random-looking ids, the same in every run: the finalizer of SplitMix64 over a counter, twice.
fn traces() -> Vec<String> {
    let mix = |number: u64| {
        let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    };
    let ids = (1..=TRACES as u64).map(|n| format!("{:016x}{:016x}", mix(n), mix(n + (1 << 32))));
    ids.collect()
}

/// Envelopes with an entry for each trace.
fn containers(kind: &str, traces: &[String]) -> Vec<String> {
    let envelope = |traces: &[String]| {
        let entries: Vec<String> = traces
            .iter()
            .map(|trace| format!("{{\"trace_id\":\"{trace}\"}}"))
            .collect();
        let payload = format!("{{\"items\":[{}]}}", entries.join(","));
        format!(
            "{{}}\n{{\"type\":\"{kind}\",\"item_count\":{},\"length\":{}}}\n{payload}\n",
            traces.len(),
            payload.len()
        )
    };
    traces.chunks(ENTRIES).map(envelope).collect()
}

/// The received traces of one kind; each item must have the right count.
fn kept(received: &[Received], kind: &str) -> BTreeSet<String> {
    let mut kept = BTreeSet::new();
    for received in received {
        let lines: Vec<Value> = received
            .text()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        if lines[1]["type"] != kind {
            continue;
        }
        let entries = lines[2]["items"].as_array().unwrap();
        assert_eq!(lines[1]["item_count"], entries.len());
        let ids = entries.iter().map(|entry| &entry["trace_id"]);
        kept.extend(ids.map(|id| id.as_str().unwrap().to_owned()));
    }
    kept
}

#[test]
fn a_sample_of_a_tenth_is_the_same_in_every_process_and_encoding() {
    let traces = traces();
    assert_eq!(traces.iter().collect::<BTreeSet<_>>().len(), TRACES);
    let mut bodies = containers("log", &traces);
    bodies.extend(containers("span", &traces));
    let forms = [
        "sample_rate: 0.1",
        "sample_rate: {log_item: 0.1, span: 0.1}",
    ];
    let shares: Vec<BTreeSet<String>> = forms
        .iter()
        .flat_map(|form| {
            let pair = Pair::start(form);
            pair.send(&bodies);
            let (got, _) = pair.finish();
            ["log", "span"].map(|kind| kept(&got, kind))
        })
        .collect();
    let share = shares[0].len() as f64 / TRACES as f64;
    assert!((share - 0.1).abs() <= 0.005, "{share}");
    for other in &shares {
        assert!(
            other == &shares[0],
            "{} of {}",
            other.len(),
            shares[0].len()
        );
    }
}
