//! Searches payloads, also those that are too long to be walked over, at both ends.
//!
//! Such a payload is a profile: an object in which one member, the samples, takes nearly all of the space, and
//! the ids come before or after it. Python's SDK (2.75) writes `profiler_id` last, and a minute at 101 Hz, with 77
//! bytes for each sample, is over 2 MiB from five threads on; its envelope header names no id. From the front,
//! the usual walk gets as far as the samples. From the back, members are found by walking over the text in
//! reverse. In JSON that is as well defined: a quote ends a string that begins at the nearest quote without a
//! backslash in front of it.

use memchr::memrchr;

use super::paths::{IdSpan, JsonPath, PAYLOAD, SEARCHED_BYTES_MAX};
use super::walk::find;
use crate::sentry::envelope::{EnvelopeError, unescape};
use crate::span::Span;

/// How much of each end is searched. The members beside the samples have at most a few hundred kilobytes, if
/// a profile names many libraries.
const END_BYTES: usize = 512 * 1024;

/// Appends to `found` the ids in a payload of JSON. In a payload over [`SEARCHED_BYTES_MAX`] the largest member is
/// not searched.
pub(crate) fn search(text: &[u8], payload: Span, found: &mut Vec<IdSpan>) {
    if payload.len() > SEARCHED_BYTES_MAX {
        search_ends(text, payload, &PAYLOAD, found);
    } else {
        let text = text.get(..payload.end).unwrap_or_default();
        // After an error, the ids in front of it are in `found`. Sentry reads no others.
        let _ = find(text, payload.start, &PAYLOAD, found);
    }
}

/// Appends to `found` the values at `path` in both ends of a payload, in their order.
fn search_ends(text: &[u8], payload: Span, place: &JsonPath, found: &mut Vec<IdSpan>) {
    let front_end = payload.end.min(payload.start + END_BYTES);
    let front = text.get(..front_end).unwrap_or_default();
    let mut bytes = front.iter().skip(payload.start);
    let is_object = bytes.find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    // Only an object that goes on has members at the other end.
    let goes_on = find(front, payload.start, place, found) == Err(EnvelopeError::UnexpectedEnd);
    if !(is_object && goes_on) {
        return;
    }
    let back_start = front_end.max(payload.end.saturating_sub(END_BYTES));
    let back = Span::new(back_start, payload.end);
    for (name, value) in last_members(back.slice(text)).into_iter().rev() {
        let name = unescape(name.slice(back.slice(text)));
        let start = back.start + value.start;
        let text = text.get(..back.start + value.end).unwrap_or_default();
        let token = text.get(start).copied().unwrap_or_default();
        if let Some(place) = place.member(&name, token) {
            // The text ends where the value does.
            let _ = find(text, start, place, found);
        }
    }
}

/// The last members of the object at the end of `text`, name and value, the last one first.
fn last_members(text: &[u8]) -> Vec<(Span, Span)> {
    let mut reverse = Reverse {
        text,
        end: text.len(),
    };
    let mut members = Vec::new();
    if reverse.token(b'}').is_some() {
        while let Some(member) = reverse.member() {
            members.push(member);
            if reverse.token(b',').is_none() {
                break;
            }
        }
    }
    members
}

/// A walk over a text in reverse, which has come to `end`. A step returns `None` if the text is malformed or
/// begins in the middle of what the step reads; then the walk is over.
struct Reverse<'t> {
    text: &'t [u8],
    end: usize,
}

impl Reverse<'_> {
    /// Reads a member, and returns its name and its value.
    fn member(&mut self) -> Option<(Span, Span)> {
        let value = self.value()?;
        self.token(b':')?;
        self.skip_space();
        let name = self.string()?;
        Some((name, value))
    }

    fn value(&mut self) -> Option<Span> {
        self.skip_space();
        let end = self.end;
        match self.last()? {
            b'"' => {
                self.string()?;
            }
            b'}' | b']' => self.brackets()?,
            _ => self.skip_while(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)),
        }
        (self.end < end).then_some(Span::new(self.end, end))
    }

    /// Reads an array or an object.
    fn brackets(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match self.last()? {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'}' | b']' => depth += 1,
                b'{' | b'[' => depth -= 1,
                _ => {}
            }
            self.end -= 1;
            if depth == 0 {
                return Some(());
            }
        }
    }

    /// Reads a string, and returns its content.
    fn string(&mut self) -> Option<Span> {
        let end = self
            .end
            .checked_sub(1)
            .filter(|_| self.last() == Some(b'"'))?;
        self.end = end;
        loop {
            let quote = memrchr(b'"', self.text.get(..self.end)?)?;
            self.end = quote;
            let before = self.text.get(..quote)?;
            let backslashes = before.iter().rev().take_while(|byte| **byte == b'\\');
            let count = backslashes.count();
            // There may be more of them in front of the text.
            if count == before.len() {
                return None;
            }
            if count.is_multiple_of(2) {
                return Some(Span::new(quote + 1, end));
            }
        }
    }

    fn token(&mut self, token: u8) -> Option<()> {
        self.skip_space();
        if self.last()? != token {
            return None;
        }
        self.end -= 1;
        Some(())
    }

    fn skip_space(&mut self) {
        self.skip_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
    }

    fn skip_while(&mut self, skipped: impl Fn(u8) -> bool) {
        while self.last().is_some_and(&skipped) {
            self.end -= 1;
        }
    }

    fn last(&self) -> Option<u8> {
        self.text.get(self.end.checked_sub(1)?).copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::paths::IdKind::{self, OtherId, ProfilerId, TraceId};
    use super::*;

    /// The ids found in a payload of `before`, samples of that many bytes, and `after`.
    fn found(before: &str, after: &str, bytes: usize) -> Vec<(IdKind, String)> {
        let sample = r#"{"stack_id":1,"name":"a\\","text":"}],\"trace_id\":\"no"},"#;
        let samples = sample.repeat(bytes / sample.len() + 1);
        let head = "{}\n{}\n";
        let text = format!("{head}{before}\"profile\":{{\"samples\":[{samples}0]}}{after}");
        let mut found = Vec::new();
        search(
            text.as_bytes(),
            Span::new(head.len(), text.len()),
            &mut found,
        );
        let text = |span: Span| {
            str::from_utf8(span.slice(text.as_bytes()))
                .unwrap()
                .to_owned()
        };
        found.iter().map(|f| (f.kind, text(f.span))).collect()
    }

    #[test]
    fn ids_before_and_after_the_samples_are_found() {
        let before = r#"{"chunk_id":"C","version":"2","#;
        let after = " ,\n\"transactions\":[{\"id\":\"E\",\"name\":\"]}\\\\\\\"\",\"trace_id\" : \"T\"}],                     \"timestamp\":-1.5e3,\"measurements\":{\"trace_id\":\"no\"},\"is\":true,\"profiler\\u005fid\":\"P\" }\n";
        let all = [
            (OtherId, "C"),
            (OtherId, "E"),
            (TraceId, "T"),
            (ProfilerId, "P"),
        ];
        let all = all.map(|(kind, id)| (kind, id.to_owned()));
        for bytes in [10, SEARCHED_BYTES_MAX, 2 * SEARCHED_BYTES_MAX] {
            assert_eq!(found(before, after, bytes), all, "{bytes}");
        }
    }

    #[test]
    fn malformed_json_ends_the_search() {
        let large = SEARCHED_BYTES_MAX;
        for (after, expected) in [
            (r#","trace_id":"T"}"#, &["T"][..]),
            (r#","x":tr"ue,"trace_id":"T"}"#, &["T"]),
            (r#","trace_id":"T"} x"#, &[]),
            (r#","trace_id":"T""#, &[]),
            (r#","trace_id":"T",}"#, &[]),
            (r#","trace_id" "T"}"#, &[]),
            (r#"]"trace_id":"T"}"#, &["T"]),
            ("}", &[]),
            ("", &[]),
        ] {
            let found = found("{", after, large);
            let found: Vec<&str> = found.iter().map(|(_, id)| &**id).collect();
            assert_eq!(found, expected, "{after}");
        }
        // Only an object is searched from the back.
        let text = format!(r#"[{},"trace_id":"T"}}"#, " ".repeat(large));
        let mut found = Vec::new();
        search(text.as_bytes(), Span::new(0, text.len()), &mut found);
        assert_eq!(found, []);
    }

    #[test]
    fn the_walk_in_reverse_ends_at_the_start_of_the_text() {
        let text = r#"{"a":{"b":"\\\""},"trace_id":"T"}"#;
        for start in 0..=text.len() {
            let members = last_members(&text.as_bytes()[start..]);
            let names = members
                .iter()
                .map(|(name, _)| name.len())
                .collect::<Vec<_>>();
            let whole = [8, 1];
            assert!(whole.starts_with(&names), "{start}: {names:?}");
        }
        assert_eq!(last_members(text.as_bytes()).len(), 2);
        assert_eq!(last_members(b"{}"), []);
    }

    fn value() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "1",
            "-2.5e+7",
            "null",
            r#""""#,
            r#""a\\""#,
            r#""\"]}{[,:""#,
            r#""\\\"""#,
            "{}",
            r#"[ {"a":[]}, "]\\", {"b":"\"}"} ]"#,
        ])
    }

    proptest! {
        #[test]
        fn the_walk_in_reverse_finds_all_members(
            members in prop::collection::vec(("[a-z\\\\]{0,3}", value(), "[ \n]{0,2}"), 0..6),
        ) {
            let written: Vec<(String, &str, &String)> = members
                .iter()
                .map(|(name, value, space)| (name.replace('\\', "\\\\"), *value, space))
                .collect();
            let texts: Vec<String> = written
                .iter()
                .map(|(name, value, space)| format!("{space}\"{name}\"{space}:{space}{value}{space}"))
                .collect();
            let text = format!("{{{}}} ", texts.join(","));
            prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
            let found = last_members(text.as_bytes());
            let shown = found.iter().map(|(name, value)| {
                (&text[name.start..name.end], &text[value.start..value.end])
            });
            let expected = written.iter().rev().map(|(name, value, _)| (&**name, *value));
            prop_assert_eq!(shown.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        }

        #[test]
        fn the_walk_in_reverse_never_panics(text: Vec<u8>, nearly in "[\\[\\]{}\",:\\\\a1 ]{0,40}") {
            last_members(&text);
            last_members(format!("{nearly}}}").as_bytes());
        }
    }
}
