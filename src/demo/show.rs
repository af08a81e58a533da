//! A request as text that a person reads at a glance, with what the mirror changed in brackets.
//!
//! The text before and the text after are compared word by word, so that what is shown as changed does
//! not come from the mirror itself. Keys are cut short and secrets left out, for what is printed here ends
//! up in terminals, logs and screenshots.

use std::io::{self, IsTerminal};

use similar::{Algorithm, DiffOp, capture_diff_slices};

use super::message::{Message, printable};
use super::sink::endpoint;
use crate::sentry::dsn::shorten_key;
use crate::sentry::endpoint::Endpoint;
use crate::sentry::items::items;

/// The columns of a line.
pub(super) const WIDTH: usize = 78;

/// The column where the text of a row begins.
const TEXT_COLUMN: usize = 14;

/// How much is shown of a body that is not an envelope, in characters.
const EXCERPT_CHARS: usize = 200;

/// The header fields that may name the key.
const AUTH_FIELDS: [&str; 2] = ["x-sentry-auth", "authorization"];

/// What stands in front of a key or a secret.
const KEY_MARKS: [&str; 5] = ["key=", "secret=", "key\":\"", "//", "/"];

/// A label, and what there is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row(pub(super) &'static str, pub(super) String);

/// The request in rows, in the same order for two requests of one kind.
pub(super) fn describe(request: &Message) -> Vec<Row> {
    let mut rows = vec![Row(
        "request",
        request.lines.first().cloned().unwrap_or_default(),
    )];
    rows.extend(
        request
            .field("host")
            .map(|host| Row("host", host.to_owned())),
    );
    for line in request.lines.iter().skip(1) {
        let name = line.split(':').next().unwrap_or_default();
        if AUTH_FIELDS
            .iter()
            .any(|field| name.eq_ignore_ascii_case(field))
        {
            rows.push(Row("auth", without_basic(line)));
        }
    }
    let form = format!("{} bytes, sent {}", request.body.len(), request.form);
    rows.push(Row("body", form));
    rows.extend(content(request));
    for Row(_, text) in &mut rows {
        *text = without_keys(text);
    }
    rows
}

/// The header and the items of an envelope, or the start of what is not one.
fn content(request: &Message) -> Vec<Row> {
    let body = &*request.body;
    let header_end = body.iter().position(|byte| *byte == b'\n');
    let header_end = header_end.unwrap_or(body.len());
    let is_envelope = matches!(endpoint(request), Endpoint::Envelope | Endpoint::Tunnel);
    let mut rows = Vec::new();
    if is_envelope && body.first() == Some(&b'{') {
        let header = body.get(..header_end).unwrap_or_default();
        rows.push(Row("header", printable(header)));
        for item in items(body, header_end).map_while(Result::ok) {
            let (kind, length) = (printable(&item.kind), item.payload.len());
            rows.push(Row("item", format!("{kind}, {length} bytes")));
        }
    } else if !body.is_empty() {
        let start = printable(body).chars().take(EXCERPT_CHARS).collect();
        rows.push(Row("content", start));
    }
    rows
}

/// A header line without the credentials of HTTP Basic, in which the key is encoded.
fn without_basic(line: &str) -> String {
    match line.to_ascii_lowercase().find(": basic ") {
        Some(at) => {
            line.get(..at + ": basic ".len())
                .unwrap_or_default()
                .to_owned()
                + "…"
        }
        None => line.to_owned(),
    }
}

/// `text` with each key cut short: 32 letters or digits where a key or a secret stands.
fn without_keys(text: &str) -> String {
    let mut shown = String::new();
    for word in words(text) {
        let is_key = word.len() == 32 && word.bytes().all(|byte| byte.is_ascii_alphanumeric());
        // A secret stands between the key of a DSN and the host.
        let is_secret = shown.ends_with("…:");
        if is_key && is_secret {
            shown.push('…');
        } else if is_key && KEY_MARKS.iter().any(|mark| shown.ends_with(mark)) {
            shown += &shorten_key(word);
        } else {
            shown += word;
        }
    }
    shown
}

/// `after` with what is not in `before` in brackets, and empty brackets where something is left out.
pub(super) fn compared(before: &str, after: &str) -> String {
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

/// Runs of letters and digits, so that a key or a project changes as a whole, and single characters.
fn words(text: &str) -> Vec<&str> {
    let is_part = |character: char| character.is_alphanumeric() || "…-_".contains(character);
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = match is_part(first) {
            true => rest
                .find(|character| !is_part(character))
                .unwrap_or(rest.len()),
            false => first.len_utf8(),
        };
        let (word, after) = rest.split_at(end);
        words.push(word);
        rest = after;
    }
    words
}

/// A line across the page with a title in it.
pub(super) fn heading(title: &str) -> String {
    let line = "━".repeat(WIDTH.saturating_sub(title.chars().count() + 4));
    format!("\n{}\n", paint("1", &format!("━━ {title} {line}")))
}

/// The name of a block of rows.
pub(super) fn title(name: &str) -> String {
    format!("\n  {}\n", paint("1", name))
}

/// The rows of a request; with `before`, what is not as there is in brackets.
pub(super) fn rows(rows: &[Row], before: Option<&[Row]>) -> String {
    let mut page = String::new();
    for (index, Row(label, text)) in rows.iter().enumerate() {
        let text = match before.map(|before| before.get(index)) {
            None => text.clone(),
            Some(Some(Row(same, before))) if same == label => compared(before, text),
            Some(_) => compared("", text),
        };
        let lines = wrapped(&text)
            .replace('⟦', &start("33", "⟦"))
            .replace('⟧', &end("⟧"));
        page += &format!("    {label:10}{lines}\n");
    }
    page
}

/// Something that is as it must be.
pub(super) fn proof(text: &str) -> String {
    format!("    {} {text}\n", paint("32", "✓"))
}

/// Something that is not as it must be.
pub(super) fn flaw(text: &str) -> String {
    format!("    {}\n", paint("1;31", &format!("✗ {text}")))
}

/// Breaks a text behind spaces, commas and ampersands, and below where a row begins.
fn wrapped(text: &str) -> String {
    let mut lines = String::new();
    let mut column = TEXT_COLUMN;
    for piece in text.split_inclusive([' ', ',', '&']) {
        let columns = piece.chars().count();
        if column + columns > WIDTH && column > TEXT_COLUMN {
            lines.truncate(lines.trim_end().len());
            lines += &format!("\n{:TEXT_COLUMN$}", "");
            column = TEXT_COLUMN;
        }
        column += columns;
        lines += piece;
    }
    lines
}

fn paint(code: &str, text: &str) -> String {
    end(&start(code, text))
}

/// `text` behind the code of a colour (ECMA-48 section 8.3.117), where there are colours: on a terminal,
/// unless `NO_COLOR` is set (no-color.org).
fn start(code: &str, text: &str) -> String {
    match has_colours() {
        true => format!("\x1b[{code}m{text}"),
        false => text.to_owned(),
    }
}

fn end(text: &str) -> String {
    match has_colours() {
        true => format!("{text}\x1b[0m"),
        false => text.to_owned(),
    }
}

fn has_colours() -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal() && !no_color
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef";
    const SECRET: &str = "5ec2e75ec2e75ec2e75ec2e75ec2e75e";
    const ID: &str = "9ec79c33ec9942ab8353589fcb2e04dc";

    fn described(target: &str, fields: &str, body: &str) -> String {
        let length = body.len();
        let text = format!(
            "POST {target} HTTP/1.1\r\nHost: h\r\n{fields}Content-Length: {length}\r\n\r\n{body}"
        );
        let request = Message::read(&mut text.as_bytes()).unwrap().unwrap();
        let rows = describe(&request).into_iter();
        let text: String = rows
            .map(|Row(label, text)| format!("{label} {text}\n"))
            .collect();
        assert!(!text.contains(KEY) && !text.contains(SECRET), "{text}");
        text
    }

    #[test]
    fn keys_are_cut_short_and_secrets_left_out_wherever_they_stand() {
        let auth = format!("X-Sentry-Auth: Sentry sentry_key={KEY}, sentry_secret={SECRET}\r\n");
        let body = format!(
            "{{\"event_id\":\"{ID}\",\"dsn\":\"https://{KEY}:{SECRET}@h/42\",\"trace\":{{\"public_key\":\"{KEY}\"}}}}\n{{\"type\":\"event\"}}\n{{\"message\":\"hi\"}}\n"
        );
        assert_eq!(
            described(&format!("/api/42/envelope/?sentry_key={KEY}"), &auth, &body),
            format!(
                "request POST /api/42/envelope/?sentry_key=0123… HTTP/1.1\n\
                 host h\n\
                 auth X-Sentry-Auth: Sentry sentry_key=0123…, sentry_secret=5ec2…\n\
                 body {} bytes, sent plain, with Content-Length\n\
                 header {{\"event_id\":\"{ID}\",\"dsn\":\"https://0123…:…@h/42\",\"trace\":{{\"public_key\":\"0123…\"}}}}\n\
                 item event, 16 bytes\n",
                body.len()
            )
        );
        let basic = "Authorization: Basic MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY6\r\n";
        let text = described(&format!("/api/42/cron/job/{KEY}/"), basic, "");
        assert!(text.contains("/cron/job/0123…/ "), "{text}");
        assert!(text.contains("auth Authorization: Basic …\n"), "{text}");
    }

    #[test]
    fn what_is_not_an_envelope_is_shown_by_its_start() {
        let long = "x".repeat(EXCERPT_CHARS + 1);
        for (target, body, content) in [
            ("/api/1/store/", "a\x1b[31mb", "a·[31mb"),
            ("/api/1/envelope/", "no envelope", "no envelope"),
            ("/api/1/store/", &long, &long[1..]),
        ] {
            let text = described(target, "", body);
            assert!(text.ends_with(&format!("content {content}\n")), "{text}");
        }
    }

    #[test]
    fn keys_projects_ports_and_prefixes_are_marked_as_a_whole() {
        for (before, after, expected) in [
            ("", "", ""),
            ("same text", "same text", "same text"),
            ("all of it", "", "⟦⟧"),
            ("", "all of it", "⟦all of it⟧"),
            ("a=1, secret=2, b=3", "a=1, b=3", "a=1, ⟦⟧b=3"),
            (
                "POST /api/42/envelope/?sentry_key=0123… HTTP/1.1",
                "POST /sentry/api/2002/envelope/?sentry_key=bbbb… HTTP/1.1",
                "POST /⟦sentry/⟧api/⟦2002⟧/envelope/?sentry_key=⟦bbbb…⟧ HTTP/1.1",
            ),
            ("größe: 1", "größer: 2", "⟦größer⟧: ⟦2⟧"),
        ] {
            assert_eq!(compared(before, after), expected);
        }
    }

    #[test]
    fn long_rows_wrap_and_lose_nothing() {
        for text in ["word, ".repeat(60), "ä&".repeat(200)] {
            let shown = rows(&[Row("header", text.clone())], None);
            let widest = shown.lines().map(|line| line.chars().count()).max();
            assert!((WIDTH - 10..=WIDTH).contains(&widest.unwrap()), "{shown}");
            let squeezed = |text: &str| text.replace([' ', '\n'], "");
            assert_eq!(squeezed(&shown), format!("header{}", squeezed(&text)));
        }
    }
}
