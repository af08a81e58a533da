//! Text from peers, made safe for logs, the status page and terminals.
//!
//! Programs that read a log take a line end for the end of an entry, and terminals execute escape
//! sequences. Such characters in text from an upstream or a client are escaped. Keys and secrets in it are
//! shortened, because more people may read a log than may send events.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The minimum number of consecutive letters and digits that are taken for a credential. Words are shorter;
/// Sentry's keys have 32.
const CREDENTIAL_LENGTH_MIN: usize = 24;

/// The same without a digit. Keys have digits, and class names can be long.
const LETTERS_MIN: usize = 32;

/// The number of characters of a credential that are shown.
const SHOWN_CHARS: usize = 4;

/// `text` from a peer, limited to `bytes_max` bytes, on one line, and with credentials shortened. `known` are
/// credentials that might not look like one.
pub(crate) fn sanitized(text: &[u8], bytes_max: usize, known: &[&str]) -> String {
    let text = String::from_utf8_lossy(text.get(..bytes_max).unwrap_or(text));
    let mut text = escaped(&text).into_owned();
    for credential in known.iter().filter(|known| known.len() > SHOWN_CHARS) {
        text = text.replace(credential, &shortened(credential));
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
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

/// `text` with those characters escaped that end a line, control a terminal, or change how the characters
/// around them are displayed.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match is_unsafe(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out.into()
}

/// The same for a JSON text, with the escapes of JSON.
pub(crate) fn escaped_json(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out.into()
}

/// Control characters, line ends, and those Unicode format characters that change how others are displayed.
pub(crate) fn is_unsafe(c: char) -> bool {
    match c {
        ' '..='~' => false,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}' => true,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => true,
        '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' => true,
        _ => c.is_control(),
    }
}

/// Whether a character can be part of a credential, or of an escape sequence for such a character.
fn is_part(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '%' | '\\' | '&' | '#' | ';' | '=' | '+' | '-' | '_')
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
        sanitized(text.as_bytes(), usize::MAX, &[])
    }

    #[test]
    fn text_of_a_peer_cannot_end_a_line_or_control_a_terminal() {
        for (text, expected) in [
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
            assert_eq!(show(text), expected);
        }
        assert_eq!(sanitized(b"\xff\xfe", 10, &[]), "\u{fffd}\u{fffd}");
        assert_eq!(sanitized(b"abcdef", 3, &[]), "abc");
        assert_eq!(
            escaped_json("{\"a\":\"\u{202e}\u{e0001}\"}"),
            "{\"a\":\"\\u202e\\udb40\\udc01\"}"
        );
    }

    #[test]
    fn credentials_are_shortened_in_any_encoding() {
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
            let expected = format!("bad DSN https://{start}…:{start}…@host:9000/1, \"{start}…\"");
            assert_eq!(show(&text), expected);
        }
        for text in [
            r#"{"detail":"event submission rejected with_reason: ProjectId"}"#,
            "MultipleObjectsReturnedException in internationalization",
            "/api/1/envelope/ 2026-11-30T00:00:00.000Z",
        ] {
            assert_eq!(show(text), text);
        }
        let known = sanitized(b"key=public secret=hush-hush", 99, &["public", "hush-hush"]);
        assert_eq!(known, "key=publ… secret=hush…");
    }
}
