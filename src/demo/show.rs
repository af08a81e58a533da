//! Requests as text, with what the mirror changed in brackets.
//!
//! Requests before and after the mirror are compared word by word, so the marks do not come from the
//! mirror itself. Keys are shortened, because this text ends up in terminals, logs and screenshots.

use similar::{Algorithm, DiffOp, capture_diff_slices};

use super::sink::endpoint;
use crate::blocking::message::{Message, printable};
use crate::sentry::dsn::shorten_key;
use crate::sentry::endpoint::Endpoint;
use crate::sentry::items::items;

/// How much of a body that is not an envelope is shown.
const EXCERPT_CHARS: usize = 200;

/// Which header fields of a request are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fields {
    /// Those that say where the request goes: the host and the key.
    Addressing,
    All,
}

/// The request in labelled rows. Two requests of one kind have the same labels in the same order.
pub(super) fn describe(request: &Message, fields: Fields) -> Vec<(&'static str, String)> {
    let mut rows = vec![(
        "request",
        request.lines.first().cloned().unwrap_or_default(),
    )];
    for line in request.lines.iter().skip(1) {
        let lower = line.to_ascii_lowercase();
        let is_addressing = ["host:", "x-sentry-auth:", "authorization: sentry"]
            .iter()
            .any(|field| lower.starts_with(field));
        // In other schemes, such as Basic, the key has another encoding and cannot be found.
        let is_secret = lower.starts_with("authorization:") || lower.starts_with("cookie:");
        match fields {
            _ if is_addressing => rows.push(("field", line.clone())),
            Fields::All if is_secret => {
                let name = line.split(':').next().unwrap_or_default();
                rows.push(("field", format!("{name}: …")));
            }
            Fields::All => rows.push(("field", line.clone())),
            Fields::Addressing => {}
        }
    }
    let size = request.body.len();
    rows.push(("body", format!("{size} bytes, sent {}", request.form)));
    let header_end = request.body.iter().position(|byte| *byte == b'\n');
    let header_end = header_end.unwrap_or(size);
    if matches!(endpoint(request), Endpoint::Envelope | Endpoint::Tunnel)
        && request.body.starts_with(b"{")
    {
        let header = request.body.get(..header_end).unwrap_or_default();
        rows.push(("header", printable(header)));
        for item in items(&request.body, header_end).map_while(Result::ok) {
            let (kind, length) = (printable(&item.kind), item.payload.len());
            rows.push(("item", format!("{kind}, {length} bytes")));
        }
    } else if size > 0 {
        let text = printable(&request.body);
        rows.push(("content", text.chars().take(EXCERPT_CHARS).collect()));
    }
    for (_, text) in &mut rows {
        *text = words(text).into_iter().map(shortened).collect();
    }
    rows
}

/// A key, a secret or an id has 32 letters and digits.
fn shortened(word: &str) -> String {
    if word.len() == 32 && word.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        shorten_key(word)
    } else {
        word.to_owned()
    }
}

/// The rows as lines. What differs from the row at the same place in `before` is in brackets.
pub(super) fn rows(rows: &[(&str, String)], before: Option<&[(&str, String)]>) -> String {
    let mut lines = String::new();
    for (index, (label, text)) in rows.iter().enumerate() {
        let text = match before.map(|before| before.get(index)) {
            None => text.clone(),
            Some(Some((same, before))) if same == label => compared(before, text),
            Some(_) => compared("", text),
        };
        lines += &format!("    {label:8} {text}\n");
    }
    lines
}

/// `after` with brackets around what is not in `before`. Empty brackets mean that something is left out.
fn compared(before: &str, after: &str) -> String {
    let (old, new) = (words(before), words(after));
    let mut text = String::new();
    for change in capture_diff_slices(Algorithm::Myers, &old, &new) {
        let words = new.get(change.new_range()).unwrap_or_default().concat();
        match change {
            DiffOp::Equal { .. } => text += &words,
            _ => text += &format!("⟦{words}⟧"),
        }
    }
    text
}

/// Splits a text into runs of letters and digits, so that a key changes as a whole, and single characters.
fn words(text: &str) -> Vec<&str> {
    let is_part = |c: char| c.is_alphanumeric() || "…-_".contains(c);
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let run = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(run.max(first.len_utf8()));
        words.push(word);
        rest = after;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    fn described(target: &str, lines: &str, body: &str) -> String {
        rows(
            &describe(&request(target, lines, body), Fields::Addressing),
            None,
        )
    }

    fn request(target: &str, lines: &str, body: &str) -> Message {
        let length = body.len();
        let text = format!(
            "POST {target} HTTP/1.1\r\nHost: h\r\n{lines}Content-Length: {length}\r\n\r\n{body}"
        );
        Message::read(&mut text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn all_fields_are_shown_if_asked_for_but_no_secret() {
        let lines = format!(
            "Authorization: Basic {KEY}:\r\nCookie: session=1\r\nX-Forwarded-For: 192.0.2.7\r\nX-Sentry-Auth: Sentry sentry_key={KEY}\r\n"
        );
        let request = request("/api/1/store/", &lines, "");
        let text = rows(&describe(&request, Fields::All), None);
        for row in [
            "field    Host: h\n",
            "field    Authorization: …\n",
            "field    Cookie: …\n",
            "field    X-Forwarded-For: 192.0.2.7\n",
            "field    X-Sentry-Auth: Sentry sentry_key=0123…\n",
            "field    Content-Length: 0\n",
        ] {
            assert!(text.contains(row), "{row} is not in {text}");
        }
        let text = rows(&describe(&request, Fields::Addressing), None);
        assert!(!text.contains("Forwarded"), "{text}");
    }

    #[test]
    fn keys_and_secrets_are_shortened_wherever_they_are() {
        let secret = KEY.replace('0', "5");
        let text = described(
            &format!("/api/42/envelope/?sentry_key={KEY}"),
            &format!(
                "X-Sentry-Auth: Sentry sentry_key={KEY}, sentry_secret={secret}\r\nAuthorization: Basic {KEY}{KEY}\r\n"
            ),
            &format!(
                "{{\"dsn\":\"https://{KEY}:{secret}@h/42\",\"trace\":{{\"public_key\":\"{KEY}\"}}}}\n{{\"type\":\"event\"}}\n{{}}\n"
            ),
        );
        assert!(!text.contains(KEY) && !text.contains(&secret), "{text}");
        for row in [
            "request  POST /api/42/envelope/?sentry_key=0123… HTTP/1.1",
            "field    X-Sentry-Auth: Sentry sentry_key=0123…, sentry_secret=5123…",
            "header   {\"dsn\":\"https://0123…:5123…@h/42\",\"trace\":{\"public_key\":\"0123…\"}}",
            "item     event, 2 bytes",
        ] {
            assert!(text.contains(row), "{row} is not in {text}");
        }
    }

    #[test]
    fn the_beginning_of_a_body_that_is_no_envelope_is_shown_without_control_characters() {
        let text = described("/api/1/store/", "", "a\x1b[31mb");
        assert!(text.ends_with("content  a·[31mb\n"), "{text}");
    }

    #[test]
    fn changed_words_are_in_brackets() {
        for (before, after, expected) in [
            ("same text", "same text", "same text"),
            ("", "all of it", "⟦all of it⟧"),
            ("a=1, secret=2, b=3", "a=1, b=3", "a=1, ⟦⟧b=3"),
            (
                "/api/42/envelope/?sentry_key=0123…",
                "/sentry/api/2002/envelope/?sentry_key=bbbb…",
                "/⟦sentry/⟧api/⟦2002⟧/envelope/?sentry_key=⟦bbbb…⟧",
            ),
        ] {
            assert_eq!(compared(before, after), expected);
        }
    }
}
