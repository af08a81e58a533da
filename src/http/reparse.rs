//! When to parse a head again that arrives in pieces.
//!
//! Heads are parsed from their start each time. A sender of single bytes could make that as expensive as the square
//! of their length. So a head is parsed again only when a line has ended, of which it may not have many, or when its
//! length has doubled.

use memchr::memchr;

/// How much of a head was read and parsed so far.
#[derive(Default)]
pub struct ReparseGate {
    seen_bytes: usize,
    parsed_bytes: usize,
}

impl ReparseGate {
    /// Whether to parse the contents of `buffer` now. From `bytes_max` on, always.
    pub fn should_parse(&mut self, buffer: &[u8], bytes_max: usize) -> bool {
        let new = buffer.get(self.seen_bytes..).unwrap_or_default();
        let has_line_end = memchr(b'\n', new).is_some();
        let has_doubled = buffer.len() / 2 >= self.parsed_bytes && !new.is_empty();
        self.seen_bytes = buffer.len();
        let should_parse = has_line_end || has_doubled || buffer.len() >= bytes_max;
        if should_parse {
            self.parsed_bytes = buffer.len();
        }
        should_parse
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_parsed_when_a_line_ends_and_when_its_length_doubles() {
        let mut gate = ReparseGate::default();
        assert!(!gate.should_parse(b"", 100));
        assert!(gate.should_parse(b"G", 100));
        assert!(gate.should_parse(b"GE", 100));
        assert!(!gate.should_parse(b"GET", 100));
        assert!(gate.should_parse(b"GET ", 100));
        assert!(!gate.should_parse(b"GET /", 100));
        assert!(gate.should_parse(b"GET /\n", 100));
        assert!(!gate.should_parse(b"GET /\nA", 100));
        assert!(gate.should_parse(b"GET /\nAB", 8));
    }

    #[test]
    fn a_long_line_sent_byte_by_byte_is_parsed_a_few_times() {
        let mut gate = ReparseGate::default();
        let line = [b'x'; 64 * 1024];
        let parsed = (0..line.len()).filter(|end| gate.should_parse(&line[..*end], line.len()));
        assert_eq!(parsed.count(), 16);
    }
}
