//! Envelopes in a few words, and what of them belongs together.

use super::super::envelope;
use super::*;

const TRACE: &str = "771a43a4192642f0b136d5159a501700";
const EVENT: &str = "9ec79c33ec9942ab8353589fcb2e04dc";

const CHANCE: Chance = Chance::new(7);

#[test]
fn what_has_no_id_is_decided_for_each_request_and_each_part_of_it() {
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
        let entries = index.items.iter().flat_map(|part| part.entries.clone());
        let entries: Vec<_> = entries.map(|(_, key)| key).collect();
        let items = index.items.iter().take(4).map(|part| part.sampling_key);
        [items.collect(), entries].concat()
    };
    let (first, second) = (keys(1), keys(2));
    assert_eq!(first.len(), 6);
    let mut all: Vec<SamplingKey> = Vec::new();
    for key in first.iter().chain(&second) {
        assert!(!all.contains(key));
        all.push(*key);
    }
    // All outbounds with the same rate get the same of a request.
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
        .map(|part| part.sampling_key)
        .collect()
}

#[test]
fn what_decides_is_what_has_to_stay_whole() {
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
        // A replay before the event, as the replay itself goes.
        (&*plain, "event", r#"{"contexts":{"replay":{"replay_id":"R"}}}"#, "R"),
        (&*plain, "event", r#"{"tags":{"replayId":"R"}}"#, "R"),
        (&*plain, "event", r#"{"tags":{"replayId":"R"},"contexts":{"trace":{"trace_id":"T"}}}"#, "T"),
        (&*traced, "event", r#"{"tags":{"replayId":"R"}}"#, TRACE),
        (r#"{"event_id":"E","trace":{"replay_id":"R"}}"#, "event", "{}", "R"),
        (&*plain, "feedback", r#"{"contexts":{"feedback":{"replay_id":"R"}}}"#, "R"),
        ("{}", "event", r#"{"event_id":"9ec79c33ec9942ab8353589fcb2e04dc"}"#, EVENT),
        ("{}", "span", r#"{"trace_id":"771a43a4192642f0b136d5159a501700"}"#, TRACE),
        // Whatever trace the envelope is of.
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
fn zeros_pass_the_decision_on_to_the_next_source() {
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

/// The categories of items of these types, all of which must have the sampling key of the event.
fn kinds_to_categories(kinds: &[&str]) -> Vec<Option<Category>> {
    let items: String = kinds
        .iter()
        .map(|kind| format!("{{\"type\":\"{kind}\",\"length\":2}}\nab\n"))
        .collect();
    let body = format!("{{\"event_id\":\"{EVENT}\"}}\n{items}");
    let items = index(&body).items;
    let all_alike = items.iter().all(|part| {
        part.category == Some(Category::Session)
            || part.sampling_key == SamplingKey::new(EVENT.as_bytes())
    });
    assert!(all_alike, "{body}");
    items.iter().map(|part| part.category).collect()
}

/// An attachment of this type, for [`kinds_to_categories`].
fn attachment(kind: &str) -> String {
    format!("attachment\",\"attachment_type\":\"{kind}")
}

#[test]
fn an_attachment_is_of_the_event_that_it_comes_with() {
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
        // A report is no event, whether one comes with it or not.
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
fn a_crash_report_is_an_event_that_others_belong_to() {
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
        // Where there is an event, it goes along with that.
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

/// The Switch sends its crash report without an `attachment_type`.
#[test]
fn a_crash_report_of_a_switch_is_known_by_its_name_and_its_first_bytes() {
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
        let found: Vec<_> = found.iter().map(|part| part.category).collect();
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
fn a_trace_attachment_belongs_to_its_trace_whatever_it_comes_with() {
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
    // Without a trace of its own it is of that of the envelope.
    let bare = "{\"type\":\"attachment\",\"content_type\":\"Application/vnd.sentry.trace-attachment\"}\n{\"trace_id\":\"x\"}\n";
    assert_eq!(
        keys(&format!("{header}{bare}")),
        [SamplingKey::new(TRACE.as_bytes())]
    );
}

#[test]
fn an_attachment_without_its_event_is_not_decided_by_what_is_in_the_file() {
    let body = format!(
        "{{\"event_id\":\"{EVENT}\"}}\n{{\"type\":\"attachment\"}}\n{{\"trace_id\":\"{TRACE}\"}}\n"
    );
    assert_eq!(keys(&body), [SamplingKey::new(EVENT.as_bytes())]);
}

#[test]
fn chunks_of_a_profile_are_of_one_run_whatever_their_category() {
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
fn what_cannot_be_read_counts_as_one_item_more() {
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
fn every_entry_of_a_container_is_of_its_own_trace() {
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

/// The chunks of a profiler's run stay together, however long they are.
#[test]
fn a_long_profile_goes_by_the_same_id_as_a_short_one() {
    let plain = format!("{{\"event_id\":\"{EVENT}\"}}");
    for length in [10, places::SEARCHED_BYTES_MAX] {
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
fn no_more_entries_than_allowed_have_sampling_keys_of_their_own() {
    let traced = format!("{{\"trace\":{{\"trace_id\":\"{TRACE}\"}}}}\n");
    for (counts, expected) in [
        (&[ENTRIES_MAX][..], &[ENTRIES_MAX][..]),
        (&[ENTRIES_MAX + 1], &[0]),
        // What has no room takes none from the others.
        (&[ENTRIES_MAX - 1, 2, 1, 1], &[ENTRIES_MAX - 1, 0, 1, 0]),
    ] {
        let items: String = counts.iter().map(|count| logs(*count)).collect();
        let indexed = index(&format!("{traced}{items}")).items;
        let counted: Vec<usize> = indexed.iter().map(|part| part.entries.len()).collect();
        assert_eq!(counted, expected);
        for part in indexed.iter().filter(|part| part.entries.is_empty()) {
            assert_eq!(part.sampling_key, SamplingKey::new(TRACE.as_bytes()));
        }
    }
}

#[test]
fn what_an_inventory_holds_is_bounded() {
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
        assert!(bytes <= places::SEARCHED_BYTES_MAX);
        walked_bytes += bytes;
    }
    assert!(walked_bytes > 6_000_000, "{walked_bytes}");
    assert!(
        indexer.held_bytes() < 512 * 1024,
        "{}",
        indexer.held_bytes()
    );
    let items = indexer.finish().items;
    let entries = items.iter().map(|part| part.entries.len());
    assert_eq!(entries.sum::<usize>(), 501 * (ENTRIES_MAX / 501));
}
