//! The two ends of a payload that is too long to be walked over.
//!
//! What is that long is a profile: an object with one member, the samples, that makes up nearly all of
//! it, and with ids in front of that or behind it, as the SDK likes. From the front the usual walk gets
//! as far as the samples. From the back the members are found by walking over the text in reverse, which
//! in JSON is as well defined: a quote ends a string that begins at the nearest quote without a backslash
//! in front of it.

use memchr::memrchr;

use super::{IdSpan, JsonPath, find};
use crate::sentry::envelope::{EnvelopeError, unescape};
use crate::span::Span;

/// How much of either end is looked at. The members beside the samples have a few hundred kilobytes at
/// most, where a profile names many libraries.
const END_BYTES: usize = 512 * 1024;

/// Appends to `found` what of `place` is at the ends of a payload, in the order of the positions.
pub(super) fn search(text: &[u8], payload: Span, place: &JsonPath, found: &mut Vec<IdSpan>) {
    let front_end = payload.end.min(payload.start + END_BYTES);
    let front = text.get(..front_end).unwrap_or_default();
    let mut bytes = front.iter().skip(payload.start);
    let is_object = bytes.find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    // Only an object that goes on has another end.
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
            // It ends where the walk in reverse has found.
            let _ = find(text, start, place, found);
        }
    }
}

/// The names and values of the last members of an object that `text` ends with, the last one first.
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

/// A text of which the part behind `end` was walked over. Every step is `None` where the text begins
/// before what is looked for does, or is not well-formed; then the walk is over.
struct Reverse<'t> {
    text: &'t [u8],
    end: usize,
}

impl Reverse<'_> {
    /// The name and the value of a member.
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

    /// An array or an object, with all that is in it.
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

    /// The content of a string.
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
            // More of them may stand in front of the text.
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

    use super::super::IdKind::{self, OtherId, ProfilerId, TraceId};
    use super::super::SEARCHED_BYTES_MAX;
    use super::*;

    /// The ids in `before` and `after`, between which there are samples of that many bytes.
    fn found(before: &str, after: &str, bytes: usize) -> Vec<(IdKind, String)> {
        let sample = r#"{"stack_id":1,"name":"a\\","text":"}],\"trace_id\":\"no"},"#;
        let samples = sample.repeat(bytes / sample.len() + 1);
        let head = "{}\n{}\n";
        let text = format!("{head}{before}\"profile\":{{\"samples\":[{samples}0]}}{after}");
        let mut found = Vec::new();
        super::super::search(
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
    fn ids_are_found_before_and_behind_the_samples() {
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
    fn what_is_not_well_formed_ends_the_search() {
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
        // What begins with something else than an object is not looked at from behind.
        let text = format!(r#"[{},"trace_id":"T"}}"#, " ".repeat(large));
        let mut found = Vec::new();
        super::super::search(text.as_bytes(), Span::new(0, text.len()), &mut found);
        assert_eq!(found, []);
    }

    #[test]
    fn the_walk_in_reverse_ends_where_the_text_does() {
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
        fn the_members_are_those_that_were_written(
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
        fn any_bytes_are_walked_over(text: Vec<u8>, nearly in "[\\[\\]{}\",:\\\\a1 ]{0,40}") {
            last_members(&text);
            last_members(format!("{nearly}}}").as_bytes());
        }
    }
}
