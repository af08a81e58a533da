//! The key of a request that was rejected because no inbound DSN has it.

use std::fmt;

use crate::telemetry::words;

/// The number of bytes of a key that are compared. Sentry's keys have 32.
const KEY_BYTES_MAX: usize = 64;

/// The number of characters of a key that are shown.
const SHOWN_CHARS: usize = 4;

/// The key of a rejected request.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RejectedKey(Box<[u8]>);

impl RejectedKey {
    pub(crate) fn new(key: &[u8]) -> RejectedKey {
        RejectedKey(key.get(..KEY_BYTES_MAX).unwrap_or(key).into())
    }
}

/// The beginning of the key.
impl fmt::Display for RejectedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(&self.0);
        let start: String = text.chars().take(SHOWN_CHARS).collect();
        write!(f, "{}…", words::escaped(&start))
    }
}

impl fmt::Debug for RejectedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_shows_only_its_beginning() {
        for (key, shown) in [
            (&b"deadbeefdeadbeefdeadbeefdeadbeef"[..], "dead…"),
            (b"abc", "abc…"),
            (b"a\x1b[31mbc", "a\\u{1b}[3…"),
            (b"\xff\xfe", "\u{fffd}\u{fffd}…"),
            (b"", "…"),
        ] {
            let key = RejectedKey::new(key);
            assert_eq!(key.to_string(), shown);
            assert_eq!(format!("{key:?}"), shown);
        }
        let long = |end: &str| RejectedKey::new((("a").repeat(KEY_BYTES_MAX) + end).as_bytes());
        assert_eq!(long("b"), long("c"));
    }
}
