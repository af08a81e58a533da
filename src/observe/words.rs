//! Words that came from a peer, on their way to a person.
//!
//! A log line, a status page and a terminal are read by people and by programs that take a line end for
//! the end of an entry, and an escape sequence for an order. So what an upstream or a client wrote is
//! shown with such characters spelled out. Keys and secrets that it repeats are cut short: a log is read
//! by more people than may send events.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The fewest letters and digits in a row that may be a credential. Words are shorter, and Sentry's keys
/// have 32.
const CREDENTIAL_LENGTH_MIN: usize = 24;

/// The same where there is no digit among them, which keys have; some names of classes are long.
const LETTERS_MIN: usize = 32;

/// How many characters of a credential are shown.
const SHOWN_CHARS: usize = 4;

/// What a peer wrote, as a person may see it: not more than `bytes_max` of it, on one line, and with what
/// may be a credential cut short. `known` are credentials that are none by their looks.
pub(crate) fn shown(text: &[u8], bytes_max: usize, known: &[&str]) -> String {
    let text = String::from_utf8_lossy(text.get(..bytes_max).unwrap_or(text));
    let mut text = escaped(&text).into_owned();
    for credential in known.iter().filter(|known| known.len() > SHOWN_CHARS) {
        text = text.replace(credential, &shortened(credential));
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let end = rest.find(|one| !is_part(one)).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        match is_credential(word) {
            true => out += &shortened(word),
            false => out += word,
        }
        let other = behind.find(is_part).unwrap_or(behind.len());
        let (between, behind) = behind.split_at(other);
        out += between;
        rest = behind;
    }
    out
}

/// `text` with each character spelled out that would end a line, control a terminal, or change the order
/// or the look of those around it.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len());
    for one in text.chars() {
        match is_unsafe(one) {
            true => out.extend(one.escape_default()),
            false => out.push(one),
        }
    }
    out.into()
}

/// The same inside JSON, whose own escapes stand for what is left out here.
pub(crate) fn escaped_json(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len());
    for one in text.chars() {
        if is_unsafe(one) {
            for unit in one.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(one);
        }
    }
    out.into()
}

/// Controls, line ends, and what Unicode calls format characters as far as it changes how others look.
pub(crate) fn is_unsafe(one: char) -> bool {
    match one {
        ' '..='~' => false,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}' => true,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => true,
        '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' => true,
        _ => one.is_control(),
    }
}

/// Whether a character may belong to a credential, or to what its characters are written as.
fn is_part(one: char) -> bool {
    one.is_ascii_alphanumeric()
        || matches!(one, '%' | '\\' | '&' | '#' | ';' | '=' | '+' | '-' | '_')
}

fn is_credential(word: &str) -> bool {
    let letters = || word.bytes().filter(u8::is_ascii_alphabetic);
    let digit_count = word.bytes().filter(u8::is_ascii_digit).count();
    let count = letters().count() + digit_count;
    let is_one_case = || {
        let lower_count = letters().filter(u8::is_ascii_lowercase).count();
        lower_count == 0 || lower_count == letters().count()
    };
    count >= CREDENTIAL_LENGTH_MIN && digit_count > 0 || count >= LETTERS_MIN && is_one_case()
}

fn shortened(word: &str) -> String {
    word.chars().take(SHOWN_CHARS).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "1f2e3d4c5b6a79880123456789abcdef";

    fn show(text: &str) -> String {
        shown(text.as_bytes(), usize::MAX, &[])
    }

    #[test]
    fn nothing_of_a_peer_ends_a_line_or_controls_a_terminal() {
        for (text, told) in [
            ("no\r\n2026 ERROR x", "no\\r\\n2026 ERROR x"),
            ("\u{1b}[31mred", "\\u{1b}[31mred"),
            ("\u{9b}31m \u{7f}\t\0", "\\u{9b}31m \\u{7f}\\t\\u{0}"),
            (
                "a\u{202e}b\u{2066}\u{200f}",
                "a\\u{202e}b\\u{2066}\\u{200f}",
            ),
            ("a\u{2028}b\u{85}c", "a\\u{2028}b\\u{85}c"),
            ("h\u{e9}llo … <b> \"x\"", "h\u{e9}llo … <b> \"x\""),
        ] {
            assert_eq!(show(text), told);
        }
        assert_eq!(shown(b"\xff\xfe", 10, &[]), "\u{fffd}\u{fffd}");
        assert_eq!(shown(b"abcdef", 3, &[]), "abc");
        assert_eq!(
            escaped_json("{\"a\":\"\u{202e}\u{e0001}\"}"),
            "{\"a\":\"\\u202e\\udb40\\udc01\"}"
        );
    }

    #[test]
    fn what_may_be_a_credential_is_cut_short_in_any_spelling() {
        let percent: String = KEY.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let script: String = KEY.bytes().map(|byte| format!("\\u00{byte:02x}")).collect();
        let html: String = KEY.bytes().map(|byte| format!("&#{byte};")).collect();
        let base64 = "MWYyZTNkNGM1YjZhNzk4ODAxMjM0NTY3ODlhYmNkZWY6";
        for (word, start) in [
            (KEY, "1f2e"),
            (&KEY.to_uppercase(), "1F2E"),
            (&percent, "%31%"),
            (&script, "\\u00"),
            (&html, "&#49"),
            (base64, "MWYy"),
            (&"a".repeat(32), "aaaa"),
        ] {
            let text = format!("bad DSN https://{word}:{word}@host:9000/1, \"{word}\"");
            let told = format!("bad DSN https://{start}…:{start}…@host:9000/1, \"{start}…\"");
            assert_eq!(show(&text), told);
        }
        for text in [
            r#"{"detail":"event submission rejected with_reason: ProjectId"}"#,
            "MultipleObjectsReturnedException in internationalization",
            "/api/1/envelope/ 2026-11-30T00:00:00.000Z",
        ] {
            assert_eq!(show(text), text);
        }
        let known = shown(b"key=public secret=hush-hush", 99, &["public", "hush-hush"]);
        assert_eq!(known, "key=publ… secret=hush…");
    }
}
