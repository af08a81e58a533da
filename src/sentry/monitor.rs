//! Which monitor a check-in is of.
//!
//! A monitor has one slug that SDKs, `curl` and people write in several ways: with spaces, in other
//! case, percent-encoded in a path. Sentry makes a slug of what it gets, and so all of these are one
//! monitor. They are compared as the `slugify` of Relay's first monitors made them (relay-monitors/src/lib.rs),
//! which takes for one all that Sentry's own `slugify` of today does.

use super::parameters::percent_decode;
use super::sampling::SamplingKey;

/// How many characters of a slug count.
const SLUG_LENGTH: usize = 50;

/// The sampling key of the monitor that a payload calls `name`.
pub(crate) fn sampling_key(name: &[u8]) -> SamplingKey {
    let slug = slugify(&String::from_utf8_lossy(name));
    match slug.as_str() {
        // Sentry takes no such check-in.
        "" => SamplingKey::new(name),
        slug => SamplingKey::new(slug.as_bytes()),
    }
}

/// The sampling key of the monitor that a `segment` of a path names.
pub(crate) fn sampling_key_of_segment(segment: &[u8]) -> SamplingKey {
    sampling_key(&percent_decode(segment))
}

/// Lower-case ASCII letters and digits, with a single hyphen for whatever separators are between them.
fn slugify(name: &str) -> String {
    let mut slug = String::new();
    let mut is_separated = false;
    for character in name.chars() {
        if character.is_ascii_alphanumeric() {
            if is_separated && !slug.is_empty() {
                slug.push('-');
            }
            is_separated = false;
            slug.push(character.to_ascii_lowercase());
        } else if matches!(character, '-' | '_') || character.is_whitespace() {
            is_separated = true;
        }
        if slug.len() >= SLUG_LENGTH {
            break;
        }
    }
    slug.truncate(SLUG_LENGTH);
    if slug.ends_with('-') {
        slug.pop();
    }
    slug
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slug_is_what_relay_makes_of_a_name() {
        let long = "a".repeat(SLUG_LENGTH - 1);
        for (name, slug) in [
            ("nightly-job", "nightly-job"),
            ("Nightly Job", "nightly-job"),
            ("  nightly__job.-", "nightly-job"),
            ("nightly\t\u{200a}job!", "nightly-job"),
            (
                "\u{1f680} myComplicated_slug\u{200a}name is here...",
                "mycomplicated-slug-name-is-here",
            ),
            (&format!("{}hello", "-".repeat(60)), "hello"),
            (&format!("{long}-stripped"), &long),
            (&format!("{long}bc"), &format!("{long}b")),
            ("\u{1f680}", ""),
            ("", ""),
        ] {
            assert_eq!(slugify(name), slug, "{name}");
        }
    }

    #[test]
    fn a_monitor_has_one_sampling_key_however_it_is_written() {
        let nightly = SamplingKey::new(b"nightly-job");
        for name in ["nightly-job", "Nightly Job", "nightly_job"] {
            assert_eq!(sampling_key(name.as_bytes()), nightly, "{name}");
        }
        for segment in [
            "nightly-job",
            "Nightly%20Job",
            "nightly%2Djob",
            "NIGHTLY%5fJOB",
        ] {
            assert_eq!(
                sampling_key_of_segment(segment.as_bytes()),
                nightly,
                "{segment}"
            );
        }
        // A plus is no space in a path, and no part of a slug.
        assert_eq!(
            sampling_key_of_segment(b"nightly+job"),
            SamplingKey::new(b"nightlyjob")
        );
        assert_ne!(sampling_key(b"nightly%20job"), nightly);
        // What Sentry takes for no slug is told apart all the same.
        assert_ne!(
            sampling_key("\u{1f680}".as_bytes()),
            sampling_key("\u{1f681}".as_bytes())
        );
    }
}
