//! Loop detection with the `Via` header (RFC 9110 section 7.6.3).
//!
//! Each delivery names its route in `Via`, as `sentry-mirror-<tag>`. The tag is a hash of the inbound key, so
//! all replicas of the mirror use the same tag, and it does not reveal the key. If a request names the route
//! to which its key belongs, it has passed that route before: delivering it would be a loop.

use crate::http::head::Version;
use crate::sentry::sampling::hash;

/// The name of one route in `Via`.
#[derive(Debug)]
pub struct Via {
    lines: [String; 2],
    pseudonym: String,
}

impl Via {
    /// The name of the route with this inbound key.
    pub fn from_key(key: &str) -> Via {
        let pseudonym = format!("sentry-mirror-{:08x}", hash(key.as_bytes()) >> 32);
        let line = |version: &str| format!("Via: {version} {pseudonym}\r\n");
        Via {
            lines: [line("1.0"), line("1.1")],
            pseudonym,
        }
    }

    /// The header line for a request that was received with this version of HTTP.
    pub fn line(&self, version: Version) -> &[u8] {
        let [http10, http11] = &self.lines;
        match version {
            Version::Http10 => http10.as_bytes(),
            Version::Http11 => http11.as_bytes(),
        }
    }

    /// Whether a request with these values of `Via` has passed the route.
    pub fn is_among<'v>(&self, mut values: impl Iterator<Item = &'v [u8]>) -> bool {
        let is_own = |entry: &[u8]| {
            let mut words = entry.split(u8::is_ascii_whitespace);
            let mut words = words.by_ref().filter(|word| !word.is_empty());
            let received_by = words.nth(1).unwrap_or_default();
            received_by.eq_ignore_ascii_case(self.pseudonym.as_bytes())
        };
        values.any(|value| value.split(|byte| *byte == b',').any(is_own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    /// The tag must never change, so that replicas of different versions recognize each other's requests.
    #[test]
    fn the_tag_follows_from_the_key() {
        let via = Via::from_key(KEY);
        let line = |version| String::from_utf8_lossy(via.line(version)).into_owned();
        assert_eq!(line(Version::Http11), "Via: 1.1 sentry-mirror-26d52149\r\n");
        assert_eq!(line(Version::Http10), "Via: 1.0 sentry-mirror-26d52149\r\n");
        let other = Via::from_key("0123456789abcdef0123456789abcdee");
        assert_ne!(other.pseudonym, via.pseudonym);
    }

    #[test]
    fn the_name_is_found_at_any_position_and_nothing_else_matches() {
        let via = Via::from_key(KEY);
        let is_among = |values: &[&str]| via.is_among(values.iter().map(|value| value.as_bytes()));
        for values in [
            &["1.1 sentry-mirror-26d52149"][..],
            &["1.0 Sentry-Mirror-26D52149"],
            &["HTTP/1.1\tsentry-mirror-26d52149"],
            &["1.1 google", "2.0 a,1.1  sentry-mirror-26d52149 ,1.1 b"],
            &["2.0 edge (one, two), 1.1 sentry-mirror-26d52149 (x)"],
        ] {
            assert!(is_among(values), "{values:?}");
        }
        for values in [
            &[][..],
            &["", ",", "1.1", "1.1 ,"],
            &["sentry-mirror-26d52149"],
            &["1.1 sentry-mirror-26d5214"],
            &["1.1 sentry-mirror-26d521491"],
            &["1.1 sentry-mirror-00000000"],
            &["1.1 x (sentry-mirror-26d52149)"],
            &["1.1 x sentry-mirror-26d52149"],
        ] {
            assert!(!is_among(values), "{values:?}");
        }
    }
}
