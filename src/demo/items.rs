//! The items of an envelope, for people to look at.
//!
//! Where items begin and end is found by the mirror's own walk, which looks at their types and lengths
//! only; a person who watches wants to know what was in there. So the headers and payloads of some
//! types are read here for a hint. Nothing here fails: what cannot be read ends the list and is
//! counted as rest.

use serde_json::Value;

use super::describe::printable;
use crate::sentry::items::items as walk;

/// The longest hint, in characters: one line of a terminal together with what stands before it.
const HINT_CHARS_MAX: usize = 54;

/// One item.
pub(super) struct Item<'b> {
    /// Its type, such as `event`.
    pub(super) kind: String,
    header: &'b [u8],
    /// The payload.
    pub(super) payload: &'b [u8],
}

/// The items of `body`, whose envelope header ends at `header_end`, and how many bytes at the end
/// are none.
pub(super) fn items(body: &[u8], header_end: usize) -> (Vec<Item<'_>>, usize) {
    let mut items = Vec::new();
    let mut end = header_end;
    for item in walk(body, header_end).map_while(Result::ok) {
        items.push(Item {
            kind: printable(&item.kind),
            header: body.get(end..item.payload.start).unwrap_or_default(),
            payload: item.payload.of(body),
        });
        end = item.payload.end;
    }
    let rest = body.get(end..).unwrap_or_default();
    (items, rest.trim_ascii().len())
}

impl Item<'_> {
    /// What distinguishes this item from others of its type, where that is known.
    pub(super) fn hint(&self) -> Option<String> {
        let hint = match self.kind.as_str() {
            "replay_recording" => self.recording_hint(),
            "attachment" => string(&json(self.header)?, "/filename"),
            "log" | "span" | "trace_metric" => {
                let header = json(self.header)?;
                let count = header.get("item_count")?;
                Some(format!("{count} of them"))
            }
            kind => payload_hint(kind, &json(self.payload)?),
        }?;
        let hint = printable(hint.as_bytes());
        let end = hint.char_indices().nth(HINT_CHARS_MAX);
        Some(match end.and_then(|(end, _)| hint.get(..end)) {
            Some(start) => format!("{start}…"),
            None => hint,
        })
    }

    fn recording_hint(&self) -> Option<String> {
        let line_end = self.payload.iter().position(|byte| *byte == b'\n')?;
        let (header, recording) = self.payload.split_at_checked(line_end)?;
        let recording = recording.get(1..)?;
        let header = json(header)?;
        let segment = header.get("segment_id")?;
        let form = match recording.first() {
            Some(b'[' | b'{') => "JSON",
            _ => "binary",
        };
        Some(format!(
            "segment {segment}, {} bytes of {form}",
            recording.len()
        ))
    }
}

fn payload_hint(kind: &str, payload: &Value) -> Option<String> {
    match kind {
        "event" => event_hint(payload),
        "transaction" => {
            let name = string(payload, "/transaction")?;
            let spans = payload.get("spans").and_then(Value::as_array);
            Some(format!("{name}, {} spans", spans.map_or(0, Vec::len)))
        }
        "replay_event" => {
            let segment = payload.get("segment_id")?;
            let url = string(payload, "/urls/0").unwrap_or_default();
            Some(format!("segment {segment}, {url}"))
        }
        "session" => string(payload, "/status"),
        "check_in" => {
            let (slug, status) = (
                string(payload, "/monitor_slug")?,
                string(payload, "/status")?,
            );
            Some(format!("{slug}, {status}"))
        }
        "feedback" => string(payload, "/contexts/feedback/message"),
        _ => None,
    }
}

fn event_hint(event: &Value) -> Option<String> {
    // The last exception is the one that was not caught.
    let exceptions = event
        .pointer("/exception/values")
        .or(event.get("exception"));
    let exception = exceptions
        .and_then(Value::as_array)
        .and_then(|list| list.last());
    if let Some(exception) = exception {
        let (kind, value) = (string(exception, "/type")?, string(exception, "/value"));
        return Some(format!("{kind}: {}", value.unwrap_or_default()));
    }
    [
        "/message",
        "/message/formatted",
        "/logentry/formatted",
        "/logentry/message",
    ]
    .iter()
    .find_map(|place| string(event, place))
}

fn json(text: &[u8]) -> Option<Value> {
    serde_json::from_slice(text).ok()
}

fn string(value: &Value, pointer: &str) -> Option<String> {
    value.pointer(pointer)?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Types, sizes and hints, and the rest.
    fn listed(rest: &[u8]) -> (Vec<(String, usize, Option<String>)>, usize) {
        let (items, rest) = items(rest, 0);
        let item = |item: &Item<'_>| (item.kind.clone(), item.payload.len(), item.hint());
        (items.iter().map(item).collect(), rest)
    }

    #[test]
    fn items_end_with_their_length_or_with_their_line() {
        let (items, rest) = listed(
            b"\n{\"type\":\"event\"}\n{\"message\":\"hi\"}\n\
            {\"type\":\"attachment\",\"length\":5,\"filename\":\"a.bin\"}\na\nb\nc\n\
            {\"type\":\"session\",\"length\":15}\n{\"status\":\"ok\"}",
        );
        let item = |kind: &str, size, hint: &str| (kind.to_owned(), size, Some(hint.to_owned()));
        assert_eq!(
            items,
            [
                item("event", 16, "hi"),
                item("attachment", 5, "a.bin"),
                item("session", 15, "ok")
            ]
        );
        assert_eq!(rest, 0);
    }

    #[test]
    fn what_is_no_item_is_counted_as_rest() {
        for (rest, count, left) in [
            ("", 0, 0),
            ("\n\n", 0, 0),
            ("\nnot json\n", 0, 8),
            ("\n{\"no\":\"type\"}\n{}", 0, 16),
            ("\n{\"type\":\"event\",\"length\":99}\n{}", 0, 31),
            ("\n{\"type\":\"event\"}\n{}\n}", 1, 1),
            ("\n{\"type\":\"event\",\"length\":1}\n{}\n", 1, 1),
        ] {
            let (items, rest_bytes) = listed(rest.as_bytes());
            assert_eq!((items.len(), rest_bytes), (count, left), "{rest:?}");
        }
    }

    #[test]
    fn hints_say_what_an_item_is_about() {
        for (kind, payload, hint) in [
            (
                "event",
                r#"{"exception":{"values":[{"type":"A","value":"a"},{"type":"B","value":"b"}]}}"#,
                Some("B: b"),
            ),
            ("event", r#"{"logentry":{"message":"lost"}}"#, Some("lost")),
            ("event", "{}", None),
            ("event", "not json", None),
            (
                "transaction",
                r#"{"transaction":"GET /","spans":[{},{}]}"#,
                Some("GET /, 2 spans"),
            ),
            ("replay_recording", "{\"segment_id\":3}\\n", None),
            (
                "check_in",
                r#"{"monitor_slug":"nightly","status":"ok"}"#,
                Some("nightly, ok"),
            ),
            ("unheard_of", "{}", None),
        ] {
            let text = format!("\n{{\"type\":\"{kind}\"}}\n{payload}\n");
            let (items, _) = listed(text.as_bytes());
            assert_eq!(items[0].2.as_deref(), hint, "{kind} {payload}");
        }
        let text =
            b"\n{\"type\":\"replay_recording\",\"length\":19}\n{\"segment_id\":3}\n\x78\x9c\n";
        assert_eq!(
            listed(text).0[0].2.as_deref(),
            Some("segment 3, 2 bytes of binary")
        );
    }
}
