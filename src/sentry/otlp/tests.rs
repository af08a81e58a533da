//! Encodes batches, takes records out, and compares the result with an encoding of the remaining records.

use proptest::prelude::*;

use super::batch::{BODY_BYTES_MAX, Change};
use super::nodes::{NODES_MAX, NodeKind};
use super::protobuf::varint;
use super::*;
use crate::sentry::sampling::{Chance, SamplingKey};
use crate::sentry::selection::Unwanted;

const CHANCE: Chance = Chance::new(7);

/// Resources of scopes of records, each with its trace id; 0 for none.
type Tree = Vec<Vec<Vec<u128>>>;

fn key(trace: u128) -> Option<SamplingKey> {
    SamplingKey::from_u128(trace)
}

/// Takes records of even traces, and those without a trace.
fn take_even(traces: &Tree) -> impl Fn(SamplingKey) -> Result<(), Unwanted> {
    let odd = traces.iter().flatten().flatten().filter(|t| *t % 2 == 1);
    let odd: Vec<SamplingKey> = odd.filter_map(|trace| key(*trace)).collect();
    move |key| match odd.contains(&key) {
        true => Err(Unwanted::Sampled),
        false => Ok(()),
    }
}

/// What remains of a group; `None` if no record does, since the group goes too.
fn retain<C>(group: &[C], keep: impl Fn(&C) -> Option<C>) -> Option<Vec<C>> {
    let kept: Vec<C> = group.iter().filter_map(keep).collect();
    (group.is_empty() || !kept.is_empty()).then_some(kept)
}

fn even(tree: &Tree) -> Option<Tree> {
    let is_empty = |scopes: &Vec<Vec<u128>>| scopes.iter().all(Vec::is_empty);
    let kept = retain(tree, |resource| {
        let kept = retain(resource, |scope| {
            retain(scope, |trace| (trace % 2 == 0).then_some(*trace))
        })?;
        // Empty scopes do not keep a resource that lost all of its records.
        (is_empty(resource) || !is_empty(&kept)).then_some(kept)
    })?;
    (!kept.iter().all(is_empty)).then_some(kept)
}

fn field(number: u64, content: &[u8]) -> Vec<u8> {
    let tag = varint((number << 3 | 2) as usize);
    [&tag[..], &varint(content.len()), content].concat()
}

/// A message with `children`, between other fields of every wire type.
fn message(children: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let others: [&[u8]; 5] = [
        b"\x38\x96\x01",
        b"\x31abcdefgh",
        b"\x35abcd",
        b"\xc2\x3e\x03xyz",
        b"\x1a\x00",
    ];
    let mut text = field(3, &[b's'; 120]);
    for (index, child) in children.enumerate() {
        text.extend(child);
        text.extend_from_slice(others[index % others.len()]);
    }
    text
}

fn protobuf(tree: &Tree, signal: Signal) -> Vec<u8> {
    let record = |trace: &u128| {
        let span_id = field(2, b"12345678");
        let number = if signal == Signal::Traces { 1 } else { 9 };
        let id = match trace {
            0 => Vec::new(),
            trace => field(number, &trace.to_be_bytes()),
        };
        field(2, &[&span_id[..], &id, &field(5, b"name")].concat())
    };
    let scope = |scope: &Vec<u128>| field(2, &message(scope.iter().map(record)));
    let resource = |resource: &Vec<Vec<u128>>| field(1, &message(resource.iter().map(scope)));
    // The request has no other fields, so that the result equals an encoding of the remaining records.
    tree.iter().flat_map(resource).collect()
}

fn json(tree: &Tree, signal: Signal) -> Vec<u8> {
    let (resources, scopes, records) = match signal {
        Signal::Traces => ("resourceSpans", "scopeSpans", "spans"),
        Signal::Logs => ("resourceLogs", "scopeLogs", "logRecords"),
    };
    let list = |name: &str, elements: Vec<String>| {
        format!(
            "{{\"a\":[{{\"{name}\":[1]}}],\"{name}\":[{}],\"z\":1}}",
            elements.join(",")
        )
    };
    let record = |trace: &u128| match trace {
        0 => "{\"name\":\"]}\"}".to_owned(),
        trace => format!(
            "{{\"name\":\"\\\"\",\"traceId\":\"{trace:032X}\",\"links\":[{{\"traceId\":\"1\"}}]}}"
        ),
    };
    let scope = |scope: &Vec<u128>| list(records, scope.iter().map(record).collect());
    let resource = |resource: &Vec<Vec<u128>>| list(scopes, resource.iter().map(scope).collect());
    list(resources, tree.iter().map(resource).collect()).into_bytes()
}

/// The body after the changes.
fn changed(body: &[u8], changes: &[Change]) -> Vec<u8> {
    let (mut text, mut copied) = (Vec::new(), 0);
    for change in changes {
        assert!(change.span.start >= copied && change.span.end <= body.len());
        text.extend_from_slice(&body[copied..change.span.start]);
        text.extend(change.text());
        copied = change.span.end;
    }
    text.extend_from_slice(&body[copied..]);
    text
}

#[test]
fn records_are_kept_by_trace_and_other_bytes_stay_the_same() {
    let tree: Tree = vec![
        vec![vec![1, 2, 3], vec![5, 7]],
        vec![vec![9], vec![]],
        vec![vec![2, 4], vec![0, 11]],
    ];
    let kept: Tree = vec![vec![vec![2]], vec![vec![2, 4], vec![0]]];
    assert_eq!(even(&tree), Some(kept.clone()));
    let body = json(&tree, Signal::Traces);
    let batch = Batch::parse(&body, Format::Json, Signal::Traces, CHANCE).unwrap();
    let changes = batch.retain(take_even(&tree)).unwrap();
    let left = changed(&body, &changes);
    assert_eq!(
        str::from_utf8(&left),
        str::from_utf8(&json(&kept, Signal::Traces))
    );
    let left: serde_json::Value = serde_json::from_slice(&left).unwrap();
    assert_eq!(left["resourceSpans"].as_array().unwrap().len(), 2);
}

#[test]
fn a_batch_of_one_trace_is_kept_unchanged_or_refused() {
    for (trace, expected) in [(2, Ok(Vec::new())), (3, Err(Unwanted::Sampled))] {
        let tree = vec![vec![vec![trace; 50]]];
        for signal in [Signal::Traces, Signal::Logs] {
            for (format, body) in [
                (Format::Protobuf, protobuf(&tree, signal)),
                (Format::Json, json(&tree, signal)),
            ] {
                let batch = Batch::parse(&body, format, signal, CHANCE).unwrap();
                assert_eq!(batch.retain(take_even(&tree)), expected, "{format:?}");
            }
        }
    }
}

#[test]
fn a_record_without_a_trace_is_decided_by_chance() {
    let zeros = field(1, &[0; 16]);
    let short = field(1, b"12345678");
    let spans = [zeros, short, Vec::new()].map(|span| field(2, &span));
    let body = field(1, &field(2, &spans.concat()));
    let keys = |body: &[u8], format, chance| -> Vec<SamplingKey> {
        let batch = Batch::parse(body, format, Signal::Traces, chance).unwrap();
        let nodes = batch.nodes.iter();
        let keys = nodes.filter_map(|node| match node.kind {
            NodeKind::Record(key) => Some(key),
            NodeKind::Group { .. } => None,
        });
        keys.collect()
    };
    let other = Chance::new(8);
    let first = keys(&body, Format::Protobuf, CHANCE);
    assert_eq!(first.len(), 3);
    for key in keys(&body, Format::Protobuf, other) {
        assert!(!first.contains(&key));
    }
    let nil = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"00000000000000000000000000000000"},{"traceId":""},{"traceId":null},{"traceId":"771a43a4192642f0b136d5159a501700"}]}]}]}"#;
    let with = |chance| keys(nil.as_bytes(), Format::Json, chance);
    let (first, second) = (with(CHANCE), with(other));
    for (index, (first, second)) in first.into_iter().zip(second).enumerate() {
        assert_eq!(first == second, index == 3);
    }
}

#[test]
fn the_sampling_key_of_a_trace_does_not_depend_on_the_encoding() {
    let trace = 0x771a_43a4_1926_42f0_b136_d515_9a50_1700;
    assert_eq!(
        key(trace),
        Some(SamplingKey::new(b"771a43a4192642f0b136d5159a501700"))
    );
    let tree = vec![vec![vec![trace]]];
    for (format, body) in [
        (Format::Protobuf, protobuf(&tree, Signal::Logs)),
        (Format::Json, json(&tree, Signal::Logs)),
    ] {
        let batch = Batch::parse(&body, format, Signal::Logs, CHANCE).unwrap();
        let found = batch.retain(|found| match Some(found) == key(trace) {
            true => Ok(()),
            false => Err(Unwanted::Filtered),
        });
        assert_eq!(found, Ok(Vec::new()), "{format:?}");
    }
}

#[test]
fn malformed_bodies_are_not_parsed() {
    let of = |body: &[u8], format| Batch::parse(body, format, Signal::Traces, CHANCE).is_some();
    let tree = vec![vec![vec![2]]];
    let body = protobuf(&tree, Signal::Traces);
    assert!(of(&body, Format::Protobuf));
    for (what, wrong) in [
        ("nothing", Vec::new()),
        ("no record", field(1, &field(2, b""))),
        ("a cut length", body[..body.len() - 1].to_vec()),
        (
            "a field without a number",
            [&body[..], b"\x02\x00"].concat(),
        ),
        ("a group", [&body[..], b"\x0b\x0c"].concat()),
        (
            "a number where there is a message",
            [&body[..], b"\x08\x01"].concat(),
        ),
        (
            "a length of more than 64 bits",
            [&body[..], b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"].concat(),
        ),
        (
            "a length that wraps around",
            [&body[..], b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"].concat(),
        ),
        ("another format", json(&tree, Signal::Traces)),
    ] {
        assert!(!of(&wrong, Format::Protobuf), "{what}");
    }
    let span = r#"{"traceId":"1"}"#;
    for (body, is_batch) in [
        (
            format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{span}]}}]}}]}}"#),
            true,
        ),
        (
            format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{span}],"spans":[]}}]}}]}}"#),
            false,
        ),
        (
            r#"{"resourceSpans":[{"scopeSpans":[{"spans":[1]}]}]}"#.to_owned(),
            false,
        ),
        (
            format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{span}]}}]}}"#),
            false,
        ),
        (
            format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{span}]}}]}}]}}"#),
            false,
        ),
        (format!("[{span}]"), false),
        (String::new(), false),
    ] {
        assert_eq!(of(body.as_bytes(), Format::Json), is_batch, "{body}");
    }
}

#[test]
fn the_size_of_a_batch_is_bounded() {
    let many = |count: usize| field(1, &field(2, &field(2, b"").repeat(count)));
    let of = |body: &[u8]| Batch::parse(body, Format::Protobuf, Signal::Traces, CHANCE);
    let most = of(&many(NODES_MAX - 2)).unwrap();
    assert!(most.held_bytes() < 4 * 1024 * 1024, "{}", most.held_bytes());
    assert!(of(&many(NODES_MAX - 1)).is_none());
    assert!(of(&field(1, b"").repeat(NODES_MAX + 1)).is_none());
    let span = field(2, &vec![b'x'; BODY_BYTES_MAX]);
    assert!(of(&field(1, &field(2, &span))).is_none());
}

fn tree() -> impl Strategy<Value = Tree> {
    let scopes = prop::collection::vec(prop::collection::vec(0..8_u128, 0..4), 0..4);
    prop::collection::vec(scopes, 1..4)
}

proptest! {
    #[test]
    fn retained_records_are_encoded_as_if_they_were_alone(
        tree in tree(),
        signal in prop::sample::select(vec![Signal::Traces, Signal::Logs]),
    ) {
        let is_empty = tree.iter().flatten().all(Vec::is_empty);
        let body = json(&tree, signal);
        let batch = Batch::parse(&body, Format::Json, signal, CHANCE);
        prop_assert_eq!(batch.is_none(), is_empty);
        let Some(batch) = batch else { return Ok(()); };
        match (batch.retain(take_even(&tree)), even(&tree)) {
            (Err(_), None) => {}
            (Ok(changes), Some(kept)) => {
                prop_assert_eq!(changed(&body, &changes), json(&kept, signal));
            }
            (cut, kept) => prop_assert!(false, "{:?} {:?}", cut, kept),
        }
    }

    /// Without other fields beside the records, the result equals an encoding of the remaining ones; with
    /// other fields, these stay, and so do the remaining records.
    #[test]
    fn protobuf_lengths_match_the_retained_records(tree in tree(), padding in 0..200_usize) {
        let plain = |tree: &Tree| -> Vec<u8> {
            let record = |trace: &u128| {
                let id = if *trace == 0 { Vec::new() } else { field(1, &trace.to_be_bytes()) };
                field(2, &[id, field(5, &vec![b'n'; padding])].concat())
            };
            let scope = |scope: &Vec<u128>| field(2, &scope.iter().flat_map(record).collect::<Vec<_>>());
            let resource = |resource: &Vec<Vec<u128>>| field(1, &resource.iter().flat_map(scope).collect::<Vec<_>>());
            tree.iter().flat_map(resource).collect()
        };
        let signal = Signal::Traces;
        for (body, expected) in [
            (plain(&tree), even(&tree).map(|kept| plain(&kept))),
            (protobuf(&tree, signal), None),
        ] {
            let Some(batch) = Batch::parse(&body, Format::Protobuf, signal, CHANCE) else {
                prop_assert!(tree.iter().flatten().all(Vec::is_empty));
                continue;
            };
            let Ok(changes) = batch.retain(take_even(&tree)) else {
                prop_assert_eq!(even(&tree), None);
                continue;
            };
            let left = changed(&body, &changes);
            if let Some(expected) = expected {
                prop_assert_eq!(&left, &expected);
            }
            let kept = Batch::parse(&left, Format::Protobuf, signal, CHANCE);
            let kept = kept.ok_or_else(|| TestCaseError::fail("no batch any more"))?;
            let records = |batch: &Batch| {
                let nodes = batch.nodes.iter();
                nodes.filter(|node| matches!(node.kind, NodeKind::Record(_))).count()
            };
            let expected = tree.iter().flatten().flatten().filter(|trace| *trace % 2 == 0);
            prop_assert_eq!(records(&kept), expected.count());
            prop_assert_eq!(kept.retain(take_even(&tree)), Ok(Vec::new()));
        }
    }

    #[test]
    fn any_bytes_are_parsed_and_the_retained_records_parse_again(
        bytes: Vec<u8>,
        nearly in prop::collection::vec(prop::sample::select(
            vec![0x0a_u8, 0x12, 0x4a, 0x10, 0x02, 0x04, 0x06, 0x08, 0x00, 0x80, 0xff, 0x7f],
        ), 0..60),
        tree in tree(),
        at: prop::sample::Index,
        byte: u8,
    ) {
        let mut spoiled = protobuf(&tree, Signal::Traces);
        let mut spoiled_json = json(&tree, Signal::Traces);
        for text in [&mut spoiled, &mut spoiled_json] {
            if !text.is_empty() {
                let at = at.index(text.len());
                text[at] = byte;
            }
        }
        for body in [bytes, nearly, spoiled, spoiled_json] {
            for format in [Format::Protobuf, Format::Json] {
                for signal in [Signal::Traces, Signal::Logs] {
                    let Some(batch) = Batch::parse(&body, format, signal, CHANCE) else { continue };
                    let take = |key: SamplingKey| match key.is_within(0.5) {
                        true => Ok(()),
                        false => Err(Unwanted::Sampled),
                    };
                    if let Ok(changes) = batch.retain(take) {
                        let left = changed(&body, &changes);
                        prop_assert!(left.len() <= body.len());
                        prop_assert!(Batch::parse(&left, format, signal, CHANCE).is_some());
                    }
                }
            }
        }
    }
}
