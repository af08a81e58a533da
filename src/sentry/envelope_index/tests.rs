//! Short envelopes, with the categories and sampling keys of their items.

use super::super::envelope;
use super::*;

const TRACE: &str = "771a43a4192642f0b136d5159a501700";
const EVENT: &str = "9ec79c33ec9942ab8353589fcb2e04dc";

const CHANCE: Chance = Chance::new(7);

#[test]
fn items_without_an_id_are_decided_by_chance_one_by_one() {
    let item = |kind: &str, payload: &str| format!("{{\"type\":\"{kind}\"}}\n{payload}\n");
    let logs = r#"{"items":[{"body":1},{"body":1}]}"#;
    let body = [
        "{}\n".to_owned(),
        item("raw_security", r#"{"csp-report":{}}"#),
        item("sessions", r#"{"aggregates":[]}"#),
        item("client_report", "{}"),
        item("event", r#"{"message":"x"}"#),
        item("log", logs),
    ]
    .concat();
    let header = envelope::scan(body.as_bytes(), &mut Vec::new()).unwrap();
    let keys = |number: u64| {
        let chance = Some(Chance::new(number));
        let index = EnvelopeIndex::build(body.as_bytes(), header.end, chance).unwrap();
        let entries = index.items.iter().flat_map(|item| item.entries.clone());
        let entries: Vec<_> = entries.map(|(_, key)| key).collect();
        let items = index.items.iter().take(4).map(|item| item.sampling_key);
        [items.collect(), entries].concat()
    };
    let (first, second) = (keys(1), keys(2));
    assert_eq!(first.len(), 6);
    let mut all: Vec<SamplingKey> = Vec::new();
    for key in first.iter().chain(&second) {
        assert!(!all.contains(key));
        all.push(*key);
    }
    // All outbounds with the same rate get the same items of a request.
    assert_eq!(keys(1), first);
    let store = |number: u64| event_sampling_key(br#"{"message":"x"}"#, Chance::new(number));
    assert_ne!(store(1), store(2));
}

fn index(body: &str) -> EnvelopeIndex {
    let header = envelope::scan(body.as_bytes(), &mut Vec::new()).unwrap();
    EnvelopeIndex::build(body.as_bytes(), header.end, Some(CHANCE)).unwrap()
}

fn keys(body: &str) -> Vec<SamplingKey> {
    index(body)
        .items
        .iter()
        .map(|item| item.sampling_key)
        .collect()
}

#[test]
fn the_sampling_key_is_that_of_what_must_stay_whole() {
    let traced = format!(r#"{{"event_id":"{EVENT}","trace":{{"trace_id":"{TRACE}"}}}}"#);
    let plain = format!(r#"{{"event_id":"{EVENT}"}}"#);
    #[rustfmt::skip]
    let cases = [
        (&*traced, "event", "{}", TRACE),
        (&*traced, "transaction", "{}", TRACE),
        (&*traced, "profile", "{}", TRACE),
        (&*traced, "new_thing", "not JSON", TRACE),
        (&*plain, "event", r#"{"contexts":{"trace":{"trace_id":"771A43A4-1926-42f0-b136-d5159a501700"}}}"#, TRACE),
        (&*plain, "event", "{}", EVENT),
        // The replay before the event, so that both follow the replay.
        (&*plain, "event", r#"{"contexts":{"replay":{"replay_id":"R"}}}"#, "R"),
        (&*plain, "event", r#"{"tags":{"replayId":"R"}}"#, "R"),
        (&*plain, "event", r#"{"tags":{"replayId":"R"},"contexts":{"trace":{"trace_id":"T"}}}"#, "T"),
        (&*traced, "event", r#"{"tags":{"replayId":"R"}}"#, TRACE),
        (r#"{"event_id":"E","trace":{"replay_id":"R"}}"#, "event", "{}", "R"),
        (&*plain, "feedback", r#"{"contexts":{"feedback":{"replay_id":"R"}}}"#, "R"),
        ("{}", "event", r#"{"event_id":"9ec79c33ec9942ab8353589fcb2e04dc"}"#, EVENT),
        ("{}", "span", r#"{"trace_id":"771a43a4192642f0b136d5159a501700"}"#, TRACE),
        // In an envelope of any trace.
        (&*traced, "session", r#"{"sid":"S","did":"D"}"#, "D"),
        (&*traced, "session", r#"{"sid":"S","did":null}"#, "S"),
        (&*traced, "check_in", r#"{"check_in_id":"C","monitor_slug":"nightly"}"#, "nightly"),
        (&*traced, "check_in", r#"{"monitor_slug":"Nightly\u0020Job"}"#, "nightly-job"),
        (&*traced, "replay_recording", "{\"segment_id\":0}", EVENT),
        (&*traced, "replay_event", r#"{"replay_id":"R"}"#, EVENT),
        ("{}", "replay_event", r#"{"replay_id":"R"}"#, "R"),
        (&*plain, "profile_chunk", r#"{"chunk_id":"C","profiler_id":"P"}"#, "P"),
    ];
    for (header, kind, payload, decides) in cases {
        let body = format!("{header}\n{{\"type\":\"{kind}\"}}\n{payload}\n");
        assert_eq!(
            keys(&body),
            [SamplingKey::new(decides.as_bytes())],
            "{body}"
        );
    }
}

#[test]
fn an_id_of_zeros_is_skipped() {
    let nil = "00000000000000000000000000000000";
    let dashed = "00000000-0000-0000-0000-000000000000";
    let plain = format!(r#"{{"event_id":"{EVENT}"}}"#);
    let traced = format!(r#"{{"event_id":"{EVENT}","trace":{{"trace_id":"{TRACE}"}}}}"#);
    let without =
        format!(r#"{{"event_id":"{nil}","trace":{{"trace_id":"{nil}","replay_id":"{dashed}"}}}}"#);
    let trace = |id: &str| format!(r#"{{"contexts":{{"trace":{{"trace_id":"{id}"}}}}}}"#);
    let replay = format!(r#"{{"replay_id":"{nil}","contexts":{{"replay":{{"replay_id":"R"}}}}}}"#);
    for (header, kind, payload, decides) in [
        (&plain, "event", &*trace(nil), EVENT),
        (&without, "event", &trace(TRACE), TRACE),
        (&without, "event", &replay, "R"),
        (&without, "replay_event", r#"{"replay_id":"R"}"#, "R"),
        (
            &without,
            "feedback",
            &format!(r#"{{"event_id":"{EVENT}"}}"#),
            EVENT,
        ),
        (
            &traced,
            "session",
            &format!(r#"{{"did":"{dashed}","sid":"S"}}"#),
            "S",
        ),
        (
            &traced,
            "profile_chunk",
            &format!(r#"{{"profiler_id":"{nil}"}}"#),
            TRACE,
        ),
    ] {
        let body = format!("{header}\n{{\"type\":\"{kind}\"}}\n{payload}\n");
        assert_eq!(
            keys(&body),
            [SamplingKey::new(decides.as_bytes())],
            "{body}"
        );
    }
    let log = format!(r#"{{"items":[{{"trace_id":"{dashed}"}}]}}"#);
    let body = format!("{traced}\n{{\"type\":\"log\"}}\n{log}\n");
    let entries = &index(&body).items[0].entries;
    assert_eq!(entries[0].1, SamplingKey::new(TRACE.as_bytes()));
}

/// The categories of items of these types. Asserts that all have the sampling key of the event.
fn kinds_to_categories(kinds: &[&str]) -> Vec<Option<Category>> {
    let items: String = kinds
        .iter()
        .map(|kind| format!("{{\"type\":\"{kind}\",\"length\":2}}\nab\n"))
        .collect();
    let body = format!("{{\"event_id\":\"{EVENT}\"}}\n{items}");
    let items = index(&body).items;
    let all_alike = items.iter().all(|item| {
        item.category == Some(Category::Session)
            || item.sampling_key == SamplingKey::new(EVENT.as_bytes())
    });
    assert!(all_alike, "{body}");
    items.iter().map(|item| item.category).collect()
}

/// An attachment of this type, for [`kinds_to_categories`].
fn attachment(kind: &str) -> String {
    format!("attachment\",\"attachment_type\":\"{kind}")
}

#[test]
fn an_attachment_has_the_category_of_its_event() {
    use Category::{Attachment, Error, Feedback, Security, Session, Transaction};
    let cases: [(&[&str], &[Category]); 9] = [
        (&["event", "attachment"], &[Error, Error]),
        (
            &["attachment", "session", "event"],
            &[Error, Session, Error],
        ),
        (&["transaction", "form_data"], &[Transaction, Transaction]),
        (&["feedback", "attachment"], &[Feedback, Feedback]),
        (&["raw_security", "attachment"], &[Security, Security]),
        (
            &["attachment", "unreal_report", "form_data"],
            &[Error, Error, Error],
        ),
        // A report is not an event.
        (
            &["user_report", "event", "attachment"],
            &[Feedback, Error, Error],
        ),
        (&["user_report", "attachment"], &[Feedback, Attachment]),
        (&["attachment", "session"], &[Attachment, Session]),
    ];
    for (kinds, expected) in cases {
        let expected: Vec<_> = expected.iter().copied().map(Some).collect();
        assert_eq!(kinds_to_categories(kinds), expected, "{kinds:?}");
    }
    assert_eq!(kinds_to_categories(&["form_data"]), [None]);
}

#[test]
fn other_attachments_belong_to_a_crash_report() {
    let error = Some(Category::Error);
    let log = attachment("event.attachment");
    for kind in [
        "event.minidump",
        "event.applecrashreport",
        "event.payload",
        "event.breadcrumbs",
        "event.nv_gpudmp",
        "nswitch.dying_message",
        "playstation.prosperodump",
        "event\\u002eminidump",
    ] {
        let crash = attachment(kind);
        assert_eq!(kinds_to_categories(&[&crash]), [error], "{kind}");
        let with_others = kinds_to_categories(&[&log, &crash, "form_data", "attachment"]);
        assert_eq!(with_others, [error; 4], "{kind}");
        // With an event, the crash report belongs to that.
        assert_eq!(
            kinds_to_categories(&[&crash, "transaction"]),
            [Some(Category::Transaction); 2]
        );
    }
    for kind in [
        "event.attachment",
        "event.view_hierarchy",
        "unreal.logs",
        "x",
    ] {
        let other = attachment(kind);
        assert_eq!(kinds_to_categories(&[&other]), [Some(Category::Attachment)]);
    }
    let session = "session\",\"attachment_type\":\"event.minidump";
    assert_eq!(kinds_to_categories(&[session]), [Some(Category::Session)]);
}

/// The Switch sends crash reports without an `attachment_type`.
#[test]
fn a_crash_report_of_a_switch_is_recognised_by_name_and_first_bytes() {
    let error = Some(Category::Error);
    let attachment = Some(Category::Attachment);
    for (name, payload, category) in [
        ("dying_message.dat", "sntr\0\0\0\0", error),
        ("dying\\u005fmessage.dat", "sntr", error),
        ("dying_message.dat", "snt", attachment),
        ("dying_message.dat", "", attachment),
        ("other.dat", "sntr\0\0\0\0", attachment),
    ] {
        let length = payload.len();
        let body = format!(
            "{{}}\n{{\"type\":\"attachment\",\"filename\":\"{name}\",\"length\":{length}}}\n{payload}\n{{\"type\":\"form_data\"}}\n\n"
        );
        let found = index(&body).items;
        let expected = [category, category.filter(|known| *known == Category::Error)];
        let found: Vec<_> = found.iter().map(|item| item.category).collect();
        assert_eq!(found, expected, "{name} {payload:?}");
    }
}

/// A trace attachment, with these members in its header and this trace in front of the file.
fn trace_attachment(members: &str, trace: &str) -> String {
    let meta = format!("{{\"attachment_id\":\"{EVENT}\",\"trace_id\":\"{trace}\"}}");
    let payload = format!("{meta}{{\"trace_id\":\"file\"}}");
    let (length, meta_length) = (payload.len(), meta.len());
    format!(
        "{{\"type\":\"attachment\",\"content_type\":\"application/vnd.sentry.trace-attachment\",{members}\"meta_length\":{meta_length},\"length\":{length}}}\n{payload}\n"
    )
}

#[test]
fn a_trace_attachment_belongs_to_its_trace_in_any_envelope() {
    use Category::{Attachment, Error, Span};
    let header = format!("{{\"event_id\":\"{EVENT}\",\"trace\":{{\"trace_id\":\"{TRACE}\"}}}}\n");
    let other = "00112233445566778899aabbccddeeff";
    for (members, category) in [
        ("", Attachment),
        ("\"span_id\":\"b0e6f15b45c36b12\",", Span),
        ("\"span_id\":null,", Span),
        ("\"attachment_type\":\"event.minidump\",", Attachment),
    ] {
        let items = trace_attachment(members, other);
        let event = "{\"type\":\"event\"}\n{}\n";
        for (items, expected) in [
            (items.clone(), &[(category, other)][..]),
            (
                format!("{event}{items}"),
                &[(Error, TRACE), (category, other)],
            ),
        ] {
            let indexed = index(&format!("{header}{items}")).items;
            let found: Vec<_> = indexed
                .iter()
                .map(|p| (p.category, p.sampling_key))
                .collect();
            let expected: Vec<_> = expected
                .iter()
                .map(|(category, id)| (Some(*category), SamplingKey::new(id.as_bytes())))
                .collect();
            assert_eq!(found, expected, "{items}");
        }
    }
    // Without a trace of its own it belongs to the trace of the envelope.
    let bare = "{\"type\":\"attachment\",\"content_type\":\"Application/vnd.sentry.trace-attachment\"}\n{\"trace_id\":\"x\"}\n";
    assert_eq!(
        keys(&format!("{header}{bare}")),
        [SamplingKey::new(TRACE.as_bytes())]
    );
}

#[test]
fn the_contents_of_an_attachment_do_not_affect_its_sampling_key() {
    let body = format!(
        "{{\"event_id\":\"{EVENT}\"}}\n{{\"type\":\"attachment\"}}\n{{\"trace_id\":\"{TRACE}\"}}\n"
    );
    assert_eq!(keys(&body), [SamplingKey::new(EVENT.as_bytes())]);
}

#[test]
fn chunks_of_a_profiler_run_have_one_sampling_key_in_both_categories() {
    for (platform, category) in [
        (r#","platform":"python""#, Some(Category::ProfileChunk)),
        (
            r#","platform":"co\u0063oa""#,
            Some(Category::ProfileChunkUi),
        ),
        (r#","platform":null"#, None),
        ("", None),
    ] {
        let body = format!(
            "{{\"event_id\":\"{EVENT}\"}}\n{{\"type\":\"profile_chunk\"{platform}}}\n{{\"profiler_id\":\"P\"}}\n"
        );
        let items = index(&body).items;
        assert_eq!(items[0].category, category, "{platform}");
        assert_eq!(items[0].sampling_key, SamplingKey::new(b"P"), "{platform}");
    }
}

#[test]
fn an_unread_rest_counts_as_one_more_item() {
    let count = |body: &str| categories(body.as_bytes(), 2).len();
    assert_eq!(count("{}\n"), 0);
    assert_eq!(count("{}\n{\"type\":\"event\"}\n{}\n"), 1);
    for rest in [
        "\n",
        "{\"length\":1}\nx",
        "{\"type\":\"a\",\"length\":9}\nx",
    ] {
        let body = format!("{{}}\n{{\"type\":\"event\"}}\n{{}}\n{rest}");
        let found = categories(body.as_bytes(), 2);
        assert_eq!(found, [Some(Category::Error), None], "{body:?}");
    }
    let many = format!("{{}}\n{}", "{\"type\":\"event\"}\n\n".repeat(501));
    let found = categories(many.as_bytes(), 2);
    assert_eq!((found.len(), found.last()), (501, Some(&None)));
}

#[test]
fn every_entry_has_the_sampling_key_of_its_trace() {
    let linked = format!("{{\"links\":[{{\"trace_id\":\"{EVENT}\"}}],\"trace_id\":\"{TRACE}\"}}");
    let replayed = r#"{"attributes":{"sentry.replay_id":{"value":"R"}}}"#;
    let body = format!(
        "{{\"sdk\":{{}}}}\n{{\"type\":\"log\",\"item_count\":5}}\n{{\"items\":[{{\"trace_id\":\"{TRACE}\"}},{{\"trace_id\":\"{EVENT}\"}},{linked},{replayed},{{\"body\":1}}]}}"
    );
    let items = index(&body).items;
    let keys: Vec<_> = items[0].entries.iter().map(|(_, key)| *key).collect();
    let expected = [TRACE, EVENT, TRACE, "R"].map(|id| SamplingKey::new(id.as_bytes()));
    assert_eq!(keys[..4], expected);
    assert_eq!(keys[4], CHANCE.sampling_key(items[0].entries[4].0.start));
}

#[test]
fn long_and_short_profile_chunks_have_the_sampling_key_of_their_profiler() {
    let plain = format!("{{\"event_id\":\"{EVENT}\"}}");
    for length in [10, json_ids::SEARCHED_BYTES_MAX] {
        let samples = "0,".repeat(length);
        let payload = format!(
            "{{\"chunk_id\":\"C\",\"profile\":[{samples}0],\"profiler_id\":\"P\",\"version\":\"2\"}}"
        );
        let body = format!("{plain}\n{{\"type\":\"profile_chunk\"}}\n{payload}\n");
        assert_eq!(keys(&body), [SamplingKey::new(b"P")], "{length}");
    }
}

/// An item of logs, each of a trace of its own.
fn logs(count: usize) -> String {
    let entries: Vec<String> = (0..count)
        .map(|number| format!("{{\"trace_id\":\"{number:032x}\"}}"))
        .collect();
    format!(
        "{{\"type\":\"log\"}}\n{{\"items\":[{}]}}\n",
        entries.join(",")
    )
}

#[test]
fn the_number_of_entries_with_sampling_keys_is_bounded() {
    let traced = format!("{{\"trace\":{{\"trace_id\":\"{TRACE}\"}}}}\n");
    for (counts, expected) in [
        (&[ENTRIES_MAX][..], &[ENTRIES_MAX][..]),
        (&[ENTRIES_MAX + 1], &[0]),
        // An item that exceeds the bound does not count against it.
        (&[ENTRIES_MAX - 1, 2, 1, 1], &[ENTRIES_MAX - 1, 0, 1, 0]),
    ] {
        let items: String = counts.iter().map(|count| logs(*count)).collect();
        let indexed = index(&format!("{traced}{items}")).items;
        let counted: Vec<usize> = indexed.iter().map(|item| item.entries.len()).collect();
        assert_eq!(counted, expected);
        for item in indexed.iter().filter(|item| item.entries.is_empty()) {
            assert_eq!(item.sampling_key, SamplingKey::new(TRACE.as_bytes()));
        }
    }
}

#[test]
fn the_size_of_an_index_is_bounded() {
    let numbers = format!("{{\"items\":[{}1]}}", "1,".repeat(1_000_000));
    let length = numbers.len();
    let many = format!("{{\"type\":\"log\",\"length\":{length}}}\n{numbers}\n");
    let few = format!(
        "{{\"type\":\"log\"}}\n{{\"items\":[{}1]}}\n",
        "1,".repeat(500)
    );
    let body = format!("{{}}\n{}{}", many.repeat(3), few.repeat(400));
    let mut indexer = Indexer::new(body.as_bytes(), 2, Some(CHANCE));
    let mut walked_bytes = 0;
    while let Some(bytes) = indexer.step().unwrap() {
        assert!(bytes <= json_ids::SEARCHED_BYTES_MAX);
        walked_bytes += bytes;
    }
    assert!(walked_bytes > 6_000_000, "{walked_bytes}");
    assert!(
        indexer.held_bytes() < 512 * 1024,
        "{}",
        indexer.held_bytes()
    );
    let items = indexer.finish().items;
    let entries = items.iter().map(|item| item.entries.len());
    assert_eq!(entries.sum::<usize>(), 501 * (ENTRIES_MAX / 501));
}
