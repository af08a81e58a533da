//! The monitor of a check-in.
//!
//! A monitor has one slug, of which clients send several spellings: with spaces, in another case, percent-encoded in a
//! path. Sentry slugifies them to the same monitor. The rules here are those of Relay's first version of monitors
//! (relay-monitors/src/lib.rs); spellings that are equal by Sentry's current `slugify` are equal by these too.

use super::parameters::percent_decode;
use super::sampling::SamplingKey;

/// The significant length of a slug.
const SLUG_LENGTH: usize = 50;

/// The sampling key of a monitor by its `name` in a payload.
pub(crate) fn sampling_key(name: &[u8]) -> SamplingKey {
    let slug = slugify(&String::from_utf8_lossy(name));
    match slug.as_str() {
        // Sentry rejects such a check-in.
        "" => SamplingKey::new(name),
        slug => SamplingKey::new(slug.as_bytes()),
    }
}

/// The sampling key of a monitor by a `segment` of a path.
pub(crate) fn sampling_key_of_segment(segment: &[u8]) -> SamplingKey {
    sampling_key(&percent_decode(segment))
}

/// Lower-case ASCII letters and digits, with a single hyphen for any separators between them.
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
    fn names_are_slugified_as_in_relay() {
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
    fn all_spellings_of_a_monitor_have_one_sampling_key() {
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
        // In a path, a plus is not a space. It is not part of a slug.
        assert_eq!(
            sampling_key_of_segment(b"nightly+job"),
            SamplingKey::new(b"nightlyjob")
        );
        assert_ne!(sampling_key(b"nightly%20job"), nightly);
        // Names without a slug are still different.
        assert_ne!(
            sampling_key("\u{1f680}".as_bytes()),
            sampling_key("\u{1f681}".as_bytes())
        );
    }
}
