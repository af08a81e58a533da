//! Copies of a request, each with its own ids.
//!
//! Sentry drops a second event with the same id, so each copy needs other ids. An id in a copy is derived from
//! the original id and the number of the copy. So references stay intact within a copy: between the event in
//! the header and in the item, a replay and its recording, a trace and its parts, even if they arrive in
//! different requests and at different workers. The first copy is the original.
//!
//! A new id has the same length as the original, so nothing else in an envelope has to change.

use bytes::Bytes;
use memchr::memmem;

use crate::mirror::transform::filter::PartialBody;
use crate::sentry::edit::Edit;
use crate::sentry::envelope;
use crate::sentry::items::{Item, items};
use crate::sentry::json_ids::{self, IdSpan};
use crate::sentry::sampling::{id_of_copy, is_id, is_nil};
use crate::span::Span;

/// The number of ids renamed between two pauses, which takes about 0.5 ms.
pub(crate) const RENAMED_MAX: usize = 1024;

/// A partial body with the positions of its ids, from which copies are made.
pub struct Template {
    text: Bytes,
    front_bytes: usize,
    edits: Vec<Edit>,
    ids: Vec<Box<[Span]>>,
}

/// The ids in a part of a text.
pub struct Ids {
    /// The maximum number of bytes that the search walked over.
    pub walked_bytes: usize,
    pub spans: Box<[Span]>,
}

impl Template {
    /// A template of `partial`. `text` is its front and rest in one piece, and `ids` the ids in it.
    pub fn new(partial: &PartialBody, text: Bytes, ids: Vec<Box<[Span]>>) -> Template {
        Template {
            text,
            front_bytes: partial.front.len(),
            edits: partial.edits.clone(),
            ids,
        }
    }

    /// The text of the original, which [`rename`] turns into that of a copy.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The ids, in slices that take little time to [`rename`].
    pub fn ids(&self) -> impl Iterator<Item = &[Span]> {
        self.ids.iter().flat_map(|ids| ids.chunks(RENAMED_MAX))
    }

    /// The copy with this text.
    pub fn partial(&self, text: Vec<u8>) -> PartialBody {
        let text = Bytes::from(text);
        PartialBody {
            front: text.slice(..self.front_bytes),
            edits: self.edits.clone(),
            rest: text.slice(self.front_bytes..),
        }
    }
}

/// The ids in `text`. If `is_envelope`, first those in the header, then those of each item; otherwise those of
/// the single event.
pub fn ids(text: &[u8], is_envelope: bool) -> impl Iterator<Item = Ids> {
    let header = is_envelope.then(|| envelope::scan(text, &mut Vec::new()));
    let (start, header_end) = match header {
        Some(Ok(header)) => {
            let header_text = text.get(..header.end).unwrap_or_default();
            let mut found = Vec::new();
            // Ignores errors: a header that cannot be parsed has no known ids.
            let _ = json_ids::find(header_text, 0, &json_ids::HEADER, &mut found);
            (
                Some(ids_to_rename(text, header.end, &found)),
                Some(header.end),
            )
        }
        // Not an envelope, so its format is unknown.
        Some(Err(_)) => (None, None),
        None => (Some(search(text, Span::new(0, text.len()))), None),
    };
    let items = header_end.map(|end| items(text, end).map_while(Result::ok));
    let item_ids = move |item: Item<'_>| match &*item.kind {
        b"attachment" if item.is_trace_attachment(text) => {
            let (meta, mut found) = (item.meta(), Vec::new());
            json_ids::search_trace_attachment(text, meta, &mut found);
            ids_to_rename(text, meta.len().min(json_ids::SEARCHED_BYTES_MAX), &found)
        }
        // Never change a user's file, even if it looks like JSON with ids.
        b"attachment" => search(text, Span::default()),
        b"replay_video" => search(text, replay_event(text, item.payload)),
        _ => search(text, item.payload),
    };
    start
        .into_iter()
        .chain(items.into_iter().flatten().map(item_ids))
}

fn search(text: &[u8], payload: Span) -> Ids {
    let mut found = Vec::new();
    json_ids::search(text, payload, &mut found);
    ids_to_rename(
        text,
        payload.len().min(json_ids::SEARCHED_BYTES_MAX),
        &found,
    )
}

/// The ids among `found` that must be different in each copy.
fn ids_to_rename(text: &[u8], walked_bytes: usize, found: &[IdSpan]) -> Ids {
    let unique = found.iter().filter(|found| found.kind.is_unique());
    let spans = unique.map(|found| found.span);
    // An id of zeros means that there is no id.
    let is_renamed = |span: &Span| is_id(span.slice(text)) && !is_nil(span.slice(text));
    Ids {
        walked_bytes,
        spans: spans.filter(is_renamed).collect(),
    }
}

/// Replaces the original ids by those of copy number `copy`.
pub fn rename(text: &mut [u8], ids: &[Span], copy: u32) {
    for id in ids {
        if let Some(bytes) = text.get_mut(id.start..id.end) {
            let renamed = id_of_copy(bytes, copy);
            if renamed.len() == bytes.len() {
                bytes.copy_from_slice(&renamed);
            }
        }
    }
}

/// The JSON of the replay event in the payload of a replay video: a MessagePack map of the event, the
/// recording and the video, each as binary. Empty if the payload does not have this form.
fn replay_event(envelope: &[u8], payload: Span) -> Span {
    const NAME: &[u8] = b"replay_event";
    let bytes = payload.slice(envelope);
    let start = bytes.get(..NAME.len() + 8).and_then(|start| {
        let name = memmem::find(start, NAME)?;
        Some(name + NAME.len())
    });
    let json = start.and_then(|at| {
        let (length, header_bytes) = match bytes.get(at..)? {
            [0xc4, a, ..] => (usize::from(*a), 2),
            [0xc5, a, b, ..] => (usize::from(u16::from_be_bytes([*a, *b])), 3),
            [0xc6, a, b, c, d, ..] => (u32::from_be_bytes([*a, *b, *c, *d]) as usize, 5),
            _ => return None,
        };
        let start = payload.start + at + header_bytes;
        let end = start.checked_add(length)?;
        (end <= payload.end).then_some(Span::new(start, end))
    });
    json.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = "9ec79c33ec9942ab8353589fcb2e04dc";
    const TRACE: &str = "771a43a4192642f0b136d5159a501700";

    fn copied(text: &str, copy: u32) -> String {
        let line = text.find('\n').unwrap() + 1;
        let partial = PartialBody {
            front: Bytes::copy_from_slice(&text.as_bytes()[..line]),
            edits: Vec::new(),
            rest: Bytes::copy_from_slice(&text.as_bytes()[line..]),
        };
        let whole = Bytes::copy_from_slice(text.as_bytes());
        let ids = ids(&whole, true).map(|ids| ids.spans).collect();
        let template = Template::new(&partial, whole, ids);
        let mut text = template.text().to_vec();
        template.ids().for_each(|ids| rename(&mut text, ids, copy));
        let copy = template.partial(text);
        assert_eq!(copy.front.len(), line);
        String::from_utf8([copy.front, copy.rest].concat()).unwrap()
    }

    fn renamed(id: &str, copy: u32) -> String {
        String::from_utf8(id_of_copy(id.as_bytes(), copy)).unwrap()
    }

    #[test]
    fn every_id_is_renamed_and_the_rest_is_unchanged() {
        let dashed = "9ec79c33-ec99-42ab-8353-589fcb2e04dc";
        let text = format!(
            "{{\"event_id\":\"{dashed}\",\"trace\":{{\"trace_id\":\"{TRACE}\",\"public_key\":\"{EVENT}\"}}}}\n\
             {{\"type\":\"event\",\"length\":LENGTH}}\n{{\"event_id\":\"{EVENT}\",\"contexts\":{{\"trace\":{{\"trace_id\":\"{TRACE}\"}}}},\"user\":{{\"id\":\"{EVENT}\"}}}}\n\
             {{\"type\":\"check_in\"}}\n{{\"check_in_id\":\"{TRACE}\",\"monitor_slug\":\"{EVENT}\"}}\n\
             {{\"type\":\"log\"}}\n{{\"items\":[{{\"trace_id\":\"{TRACE}\",\"body\":\"{TRACE}\"}}]}}\n\
             {{\"type\":\"attachment\",\"length\":32}}\n{EVENT}"
        );
        let (event, trace) = (renamed(EVENT, 2), renamed(TRACE, 2));
        let expected = text
            .replace(dashed, &renamed(dashed, 2))
            .replace(&format!("_id\":\"{EVENT}"), &format!("_id\":\"{event}"))
            .replace(&format!("_id\":\"{TRACE}"), &format!("_id\":\"{trace}"));
        // The length is that of the event's payload.
        let length = text.lines().nth(2).unwrap().len().to_string();
        let (text, expected) = (
            text.replace("LENGTH", &length),
            expected.replace("LENGTH", &length),
        );
        assert_eq!(copied(&text, 2), expected);
        assert_ne!(copied(&text, 3), expected);
        assert_eq!(renamed(dashed, 2).replace('-', ""), event);
    }

    /// An envelope with one item, as original and as second copy. `[…]` in `payload` stands for an id.
    fn marked(kind: &str, payload: &str) -> [String; 2] {
        let filled = |copy: u32| {
            let mut parts = payload.split(['[', ']']);
            let mut text = parts.next().unwrap().to_owned();
            while let (Some(name), Some(after)) = (parts.next(), parts.next()) {
                // The id is a hash of the name, so that it is the same in both.
                let id = format!(
                    "{:0>32x}",
                    name.bytes().fold(7_u64, |n, b| n * 31 + u64::from(b))
                );
                let id = if copy == 1 { id } else { renamed(&id, copy) };
                text = format!("{text}\"{id}\"{after}");
            }
            let text = text.replace('<', "[").replace('>', "]");
            format!(
                "{{}}\n{{\"type\":\"{kind}\",\"length\":{}}}\n{text}\n",
                text.len()
            )
        };
        [filled(1), filled(2)]
    }

    #[test]
    fn all_references_to_an_id_are_renamed() {
        for (kind, payload) in [
            (
                "profile",
                r#"{"platform":"android","profile_id":[P],"transaction_id":[E],"trace_id":[T],"sampled_profile":"AAAA","transactions":<{"id":[E],"name":"Main","trace_id":[T]}>,"build_id":"00000000000000000000000000000001"}"#,
            ),
            (
                "profile",
                r#"{"event_id":[P],"version":"1","profile":{"samples":<>},"transaction":{"id":[E],"trace_id":[T],"active_thread_id":"1"}}"#,
            ),
            (
                "event",
                r#"{"event_id":[E],"tags":{"replayId":[R],"build":"00000000000000000000000000000001"},"breadcrumbs":<{"event_id":[B],"data":{"event_id":"00000000000000000000000000000001"}}>}"#,
            ),
            (
                "event",
                r#"{"event_id":[E],"tags":<<"a","b">>,"breadcrumbs":{"values":<{"event_id":[B]}>}}"#,
            ),
            (
                "transaction",
                r#"{"contexts":{"trace":{"links":<{"trace_id":[L],"span_id":"s"}>,"trace_id":[T],"data":{"profiler_id":[Q]}}},"tags":{"replayId":[R]},"spans":<{"links":<{"trace_id":[L]}>,"data":{"sentry.replay_id":[R]},"trace_id":[T],"profile_id":[P]}>}"#,
            ),
            (
                "span",
                r#"{"data":{"replay_id":[R],"profile_id":[P],"sentry.profile_id":[P],"transaction":"/"},"trace_id":[T],"profile_id":[P],"links":<{"trace_id":[L]}>}"#,
            ),
            (
                "span",
                r#"{"items":<{"links":<{"trace_id":[L]}>,"trace_id":[T],"attributes":{"sentry.replay_id":{"value":[R],"type":"string"},"sentry.profiler_id":{"value":[Q]},"mine":{"value":"00000000000000000000000000000001"}}}>}"#,
            ),
            (
                "replay_event",
                r#"{"replay_id":[R],"event_id":[R],"trace_ids":<[T],[L]>,"error_ids":<[E]>}"#,
            ),
        ] {
            let [original, expected] = marked(kind, payload);
            assert_ne!(original, expected);
            assert_eq!(copied(&original, 2), expected, "{kind}");
        }
    }

    #[test]
    fn attachments_are_unchanged() {
        for payload in [
            format!("{{\"event_id\":\"{EVENT}\",\"trace_id\":\"{TRACE}\"}}"),
            EVENT.to_owned(),
        ] {
            let length = payload.len();
            let text = format!("{{}}\n{{\"type\":\"attachment\",\"length\":{length}}}\n{payload}");
            assert_eq!(copied(&text, 2), text);
        }
    }

    #[test]
    fn a_trace_attachment_belongs_to_the_trace_of_the_copy() {
        let meta = format!("{{\"trace_id\":\"{TRACE}\",\"attachment_id\":\"{EVENT}\"}}");
        let file = format!("{{\"trace_id\":\"{TRACE}\"}}");
        let (meta_length, length) = (meta.len(), meta.len() + file.len());
        let text = |meta: &str| {
            format!(
                "{{}}\n{{\"type\":\"attachment\",\"content_type\":\"application/vnd.sentry.trace-attachment\",\"meta_length\":{meta_length},\"length\":{length}}}\n{meta}{file}\n"
            )
        };
        let copied_meta = meta
            .replace(TRACE, &renamed(TRACE, 2))
            .replace(EVENT, &renamed(EVENT, 2));
        assert_eq!(copied(&text(&meta), 2), text(&copied_meta));
    }

    #[test]
    fn ids_behind_a_large_profile_are_renamed() {
        let samples = "0,".repeat(3 * 1024 * 1024);
        let payload = format!(
            r#"{{"event_id":[P],"profile":{{"samples":<{samples}0>}},"transactions":<{{"id":[E],"trace_id":[T]}}>}}"#
        );
        let [original, expected] = marked("profile", &payload);
        assert!(copied(&original, 2) == expected);
    }

    #[test]
    fn values_that_are_not_ids_are_unchanged() {
        for text in [
            "{\"event_id\":\"\"}\n{\"type\":\"event\"}\n{\"event_id\":7}",
            "{\"event_id\":null}\n{\"type\":\"event\"}\nnot JSON",
            "{\"trace\":{\"trace_id\":\"\\u0037\\u00371a43a4192642f0b136d5159a501700\"}}\n",
            "{}\n{\"type\":\"session\"}\n{\"sid\":\"s\",\"did\":\"771a43a4192642f0b136d5159a501700\"}",
        ] {
            assert_eq!(copied(text, 2), text);
        }
    }

    #[test]
    fn ids_of_zeros_are_unchanged() {
        let (plain, dashed) = ("0".repeat(32), "00000000-0000-0000-0000-000000000000");
        let text = format!(
            "{{\"event_id\":\"{plain}\",\"trace\":{{\"trace_id\":\"{plain}\",\"replay_id\":\"{dashed}\"}}}}\n\
             {{\"type\":\"check_in\"}}\n{{\"check_in_id\":\"{plain}\",\"monitor_slug\":\"nightly\"}}\n\
             {{\"type\":\"session\"}}\n{{\"sid\":\"{dashed}\"}}\n\
             {{\"type\":\"profile_chunk\"}}\n{{\"profiler_id\":\"{plain}\",\"chunk_id\":\"{plain}\"}}\n\
             {{\"type\":\"log\"}}\n{{\"items\":[{{\"trace_id\":\"{dashed}\"}}]}}"
        );
        assert_eq!(copied(&text, 2), text);
    }

    #[test]
    fn ids_in_a_replay_video_are_renamed() {
        let json = format!("{{\"replay_id\":\"{EVENT}\",\"trace_ids\":[\"{TRACE}\"]}}");
        let mut payload = vec![0x83, 0xac];
        payload.extend_from_slice(b"replay_event\xc5");
        payload.extend_from_slice(&(json.len() as u16).to_be_bytes());
        payload.extend_from_slice(json.as_bytes());
        payload.extend_from_slice(b"\xafreplay_recording\xc4\x01x");
        let head = format!(
            "{{}}\n{{\"type\":\"replay_video\",\"length\":{}}}\n",
            payload.len()
        );
        let mut text = [head.as_bytes(), &payload].concat();
        let found: Vec<Span> = ids(&text, true).flat_map(|ids| ids.spans).collect();
        assert_eq!(found.len(), 2);
        rename(&mut text, &found, 2);
        assert!(memmem::find(&text, renamed(EVENT, 2).as_bytes()).is_some());
        assert!(memmem::find(&text, EVENT.as_bytes()).is_none());
        for cut in 0..payload.len() {
            let cut = replay_event(&payload[..cut], Span::new(0, cut));
            assert!(cut.is_empty() || cut.len() == json.len());
        }
    }
}
