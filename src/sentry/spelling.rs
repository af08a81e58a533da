//! Finds a key or secret in every spelling that a server could decode.
//!
//! A server percent-decodes a request, and a proxy before it may do so too. So the search also finds a credential of
//! which all or some characters are percent-encoded, once or twice.
//!
//! The search is optimised for heads without a match: it is a plain one if nothing is encoded, and otherwise looks at
//! one byte of 32.

use memchr::memmem::Finder;
use memchr::{memchr, memchr2_iter};

use super::parameters::hex_digit;
use crate::span::Span;

/// The shortest credential to search for. Sentry's have 32 characters; a short, made-up one may be part of any word.
const LENGTH_MIN: usize = 16;

/// How many times a request may be percent-decoded on its way.
const DECODINGS: usize = 2;

/// A credential to search for.
pub struct Credential {
    text: Finder<'static>,
    /// Whether a byte can be part of a spelling.
    is_part: [bool; 256],
}

impl Credential {
    /// `None` if `text` is too short to be distinguished from other words.
    pub fn new(text: &str) -> Option<Credential> {
        if text.len() < LENGTH_MIN {
            return None;
        }
        let mut is_part = [false; 256];
        for byte in text.bytes().chain(*b"%0123456789abcdefABCDEF") {
            if let Some(is_part) = is_part.get_mut(usize::from(byte)) {
                *is_part = true;
            }
        }
        Some(Credential {
            text: Finder::new(text).into_owned(),
            is_part,
        })
    }

    /// Calls `found` for each match in `text` from `from` on, in order and without overlap, until it fails. The time is
    /// linear in the length of any text.
    pub fn find<E>(
        &self,
        text: &[u8],
        from: usize,
        mut found: impl FnMut(Span) -> Result<(), E>,
    ) -> Result<(), E> {
        let length = self.text.needle().len();
        let rest = text.get(from..).unwrap_or_default();
        // Without an escape, there is only the plain spelling.
        if memchr(b'%', rest).is_none() {
            let plain = |at| Span::new(from + at, from + at + length);
            return self
                .text
                .find_iter(rest)
                .try_for_each(|at| found(plain(at)));
        }
        let mut run_start = from;
        let mut probe = from + length - 1;
        while let Some(byte) = text.get(probe) {
            if !self.is_part(*byte) {
                run_start = probe + 1;
                probe += length;
                continue;
            }
            // A match that covers the probe lies in the run of possible bytes around it.
            let before = text.get(run_start..probe).unwrap_or_default().iter();
            let start = before.rev().take_while(|byte| self.is_part(**byte));
            let start = probe - start.count();
            let behind = text.get(probe..).unwrap_or_default().iter();
            let end = probe + behind.take_while(|byte| self.is_part(**byte)).count();
            if end - start >= length {
                self.find_in_run(text, Span::new(start, end), &mut found)?;
            }
            run_start = end;
            probe = end + length;
        }
        Ok(())
    }

    fn find_in_run<E>(
        &self,
        text: &[u8],
        run: Span,
        found: &mut impl FnMut(Span) -> Result<(), E>,
    ) -> Result<(), E> {
        let length = self.text.needle().len();
        let plain = |at| Span::new(run.start + at, run.start + at + length);
        let written = run.slice(text);
        if memchr(b'%', written).is_none() {
            return self
                .text
                .find_iter(written)
                .try_for_each(|at| found(plain(at)));
        }
        let mut spans: Vec<Span> = self.text.find_iter(written).map(plain).collect();
        let mut decoded = Decoded::new(written, run.start);
        for _ in 0..DECODINGS {
            decoded = decoded.decode();
            let starts = self.text.find_iter(&decoded.text);
            spans.extend(starts.filter_map(|at| {
                let (start, end) = (decoded.places.get(at)?, decoded.places.get(at + length)?);
                Some(Span::new(*start, *end))
            }));
        }
        spans.sort_by_key(|span| (span.start, span.end));
        let mut covered = run.start;
        for span in spans {
            if span.start >= covered {
                covered = span.end;
                found(span)?;
            }
        }
        Ok(())
    }

    /// The match at `span`, extended by a password that may follow it as in the user info of a URL.
    pub fn with_password(&self, text: &[u8], span: Span) -> Span {
        let mut rest = text.get(span.end..).unwrap_or_default();
        let mut length = 0;
        while let Some((byte, after)) = decoded_twice(rest) {
            match byte {
                b':' if length == 0 => {}
                _ if length == 0 => break,
                b'@' | b'/' | b'&' | b'?' | b'#' | b',' | b';' | b'"' | 0..=b' ' => break,
                _ => {}
            }
            length += rest.len() - after.len();
            rest = after;
        }
        Span::new(span.start, span.end + length)
    }

    /// Whether `text` contains it in any spelling.
    pub fn is_in(&self, text: &[u8]) -> bool {
        self.find(text, 0, |_| Err(())).is_err()
    }

    fn is_part(&self, byte: u8) -> bool {
        self.is_part
            .get(usize::from(byte))
            .is_some_and(|part| *part)
    }
}

/// A percent-decoded text.
struct Decoded {
    text: Vec<u8>,
    /// The position of each byte, and of the end, in the original text.
    places: Vec<usize>,
}

impl Decoded {
    /// The text at `start`, not decoded yet.
    fn new(text: &[u8], start: usize) -> Decoded {
        Decoded {
            text: text.to_vec(),
            places: (start..=start + text.len()).collect(),
        }
    }

    /// Percent-decodes the text once more. The positions still refer to the original text.
    fn decode(&self) -> Decoded {
        let mut decoded = Decoded {
            text: Vec::with_capacity(self.text.len()),
            places: Vec::with_capacity(self.places.len()),
        };
        let mut rest = self.text.as_slice();
        let place = |rest: &[u8]| self.places.get(self.text.len() - rest.len()).copied();
        while let Some((byte, after)) = decoded_once(rest) {
            decoded.text.push(byte);
            decoded.places.extend(place(rest));
            rest = after;
        }
        decoded.places.extend(place(rest));
        decoded
    }
}

/// The first byte of `text` after percent-decoding it twice, and the rest.
fn decoded_twice(text: &[u8]) -> Option<(u8, &[u8])> {
    let (byte, after) = decoded_once(text)?;
    if byte != b'%' {
        return Some((byte, after));
    }
    let pair = decoded_once(after).and_then(|(high, behind)| {
        let (low, behind) = decoded_once(behind)?;
        Some((hex_digit(high)? << 4 | hex_digit(low)?, behind))
    });
    Some(pair.unwrap_or((byte, after)))
}

fn decoded_once(text: &[u8]) -> Option<(u8, &[u8])> {
    let (byte, after) = text.split_first()?;
    match (byte, after) {
        (b'%', [high, low, behind @ ..]) => match (hex_digit(*high), hex_digit(*low)) {
            (Some(high), Some(low)) => Some((high << 4 | low, behind)),
            (None, _) | (_, None) => Some((b'%', after)),
        },
        (byte, after) => Some((*byte, after)),
    }
}

/// Whether `text` contains the name of a parameter for a key or a secret, in any case, percent-encoded up to twice.
pub(super) fn names_credential(text: &[u8]) -> bool {
    // Both names have an underscore, and few escapes stand for one of their letters.
    let is_suspect = memchr2_iter(b'_', b'%', text)
        .filter_map(|at| decoded_once(text.get(at..)?))
        .any(|(byte, _)| b"_%sentrykcSENTRYKC".contains(&byte));
    is_suspect && has_name(text)
}

/// Whether `text` contains `sentry_key` or `sentry_secret`, other than at the end of a longer name.
fn has_name(mut text: &[u8]) -> bool {
    let mut is_within_word = false;
    while let Some((byte, after)) = decoded_twice(text) {
        let begins = |name| begins_with(text, name);
        if !is_within_word && (begins(b"sentry_key") || begins(b"sentry_secret")) {
            return true;
        }
        is_within_word = byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        text = after;
    }
    false
}

/// Whether `text` begins with `name` after percent-decoding it twice, ignoring case.
fn begins_with(mut text: &[u8], name: &[u8]) -> bool {
    name.iter().all(|wanted| match decoded_twice(text) {
        Some((byte, after)) => {
            text = after;
            byte.eq_ignore_ascii_case(wanted)
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    fn found(text: &str) -> Option<&str> {
        let span = first(text)?;
        Some(&text[span.start..span.end])
    }

    fn first(text: &str) -> Option<Span> {
        let key = Credential::new(KEY).unwrap();
        key.find(text.as_bytes(), 0, Err).err()
    }

    #[test]
    fn a_key_is_found_in_every_spelling() {
        let all: String = KEY.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let twice: String = KEY.bytes().map(|byte| format!("%25{byte:02x}")).collect();
        let mixed = KEY.replacen('1', "%%331", 1).replacen('f', "%25%36%36", 2);
        for spelling in [
            KEY,
            &KEY.replacen('0', "%30", 1),
            &all,
            &twice,
            &mixed,
            &all.replace('%', "%25"),
        ] {
            for around in [
                "KEY",
                "aKEYb",
                "x-KEY.",
                "a%KEY%",
                "https://KEY:@m/1",
                "%25KEY",
            ] {
                let text = around.replace("KEY", spelling);
                assert_eq!(found(&text), Some(spelling), "{text}");
            }
        }
    }

    #[test]
    fn all_spellings_are_found_in_linear_time() {
        let (key, coded) = (KEY, KEY.replace('0', "%2530"));
        let text = format!("{key}{coded}-{key}%{coded}{key}%2");
        let mut spans = Vec::new();
        let found = |span: Span| -> Result<(), ()> {
            spans.push(&text[span.start..span.end]);
            Ok(())
        };
        let known = Credential::new(KEY).unwrap();
        assert_eq!(known.find(text.as_bytes(), 0, found), Ok(()));
        assert_eq!(spans, [key, &coded, key, &coded, key]);
        // Each position matches the key for a long time.
        let known = Credential::new(&"a1".repeat(16)).unwrap();
        for piece in ["a1", "%61", "%2561", "a1a1a1a1a1a1a1a1%"] {
            let text = [&piece.repeat((1 << 18) / piece.len()), "b"].concat();
            let started = std::time::Instant::now();
            let _ = known.find(text.as_bytes(), 0, |_| Ok::<_, ()>(()));
            assert!(started.elapsed().as_secs() < 5, "{piece}");
        }
    }

    #[test]
    fn other_texts_are_not_found() {
        for text in [
            "",
            &KEY[1..],
            &KEY[..31],
            &KEY.to_uppercase(),
            &KEY.replace('0', "%3"),
            &KEY.replace('0', "%252530"),
            &KEY.replacen('8', "8-", 1),
            &"0123456789abcdef-".repeat(9),
            &"f".repeat(500),
        ] {
            assert_eq!(found(text), None, "{text}");
        }
        assert!(Credential::new("public").is_none());
    }

    #[test]
    fn a_match_is_extended_by_its_password() {
        let key = Credential::new(KEY).unwrap();
        for (text, whole) in [
            ("https://KEY:secret@m/1", "KEY:secret"),
            ("https://KEY:@m/1", "KEY:"),
            ("https://KEY@m/1", "KEY"),
            ("https%3A%2F%2FKEY%3Asec%72et%40m", "KEY%3Asec%72et"),
            ("KEY%253Asecret%2540m", "KEY%253Asecret"),
            ("KEY:secret&a=b", "KEY:secret"),
            ("KEY:secret", "KEY:secret"),
            ("KEY&a=b:c", "KEY"),
        ] {
            let (text, whole) = (text.replace("KEY", KEY), whole.replace("KEY", KEY));
            let span = first(&text).unwrap();
            let span = key.with_password(text.as_bytes(), span);
            assert_eq!(&text[span.start..span.end], whole, "{text}");
        }
    }

    #[test]
    fn names_are_found_in_any_case_and_encoding() {
        for text in [
            "sentry_key",
            "Sentry_Secret",
            "x;sentr%79_secret=a",
            "sentr%2579_key",
            "%53entry%5FKEY",
            "a%3Bsentry_key",
            "a%253bsentry_key",
        ] {
            assert!(names_credential(text.as_bytes()), "{text}");
        }
        for text in [
            "",
            "sentry_client",
            "sentry.python/2%2F3",
            "sentry_kit",
            "x_sentry_key",
        ] {
            assert!(!names_credential(text.as_bytes()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_key_is_found_if_decoding_twice_reveals_it(
            pieces in proptest::collection::vec(
                prop_oneof![
                    Just("0123456789abcdef".to_owned()),
                    Just("%3".to_owned()),
                    Just("0".to_owned()),
                    Just("%30123456789abcdef".to_owned()),
                    Just("012345678%2539abcdef".to_owned()),
                    Just("0123456789%61bcde%2566".to_owned()),
                    Just("%25".to_owned()),
                    "[ -~]{1,40}",
                ],
                0..6,
            ),
        ) {
            let text = pieces.concat();
            let decode = |text: &[u8]| super::super::parameters::percent_decode(text).into_owned();
            let decoded = decode(&decode(text.as_bytes()));
            let is_there = decoded.windows(KEY.len()).any(|window| window == KEY.as_bytes());
            // A search may find more, since it may begin within an escape.
            let key = Credential::new(KEY).unwrap();
            prop_assert!(key.is_in(text.as_bytes()) || !is_there, "{}", text);
        }
    }
}
