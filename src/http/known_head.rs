//! The head that was parsed before, to find out whether it comes again.
//!
//! One side of a connection mostly sends the same head over and over, except for values of the same length: a date, an
//! id, the length of the body. To compare a head with the one before takes far fewer instructions than to parse it.

use super::header::{Header, HeaderName};
use crate::span::Span;

/// The longest head that is kept for comparison. Usual ones have 400 bytes.
pub(super) const KEPT_BYTES_MAX: usize = 1024;

/// The text of the last head; empty if there is none, or if it is longer than [`KEPT_BYTES_MAX`].
#[derive(Clone, Debug, Default)]
pub(super) struct KnownHead(Vec<u8>);

impl KnownHead {
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    /// Keeps `head`, which is valid.
    pub(super) fn keep(&mut self, head: &[u8]) {
        self.0.clear();
        if head.len() <= KEPT_BYTES_MAX {
            self.0.extend_from_slice(head);
        }
    }

    /// Whether `buffer` begins with the same head again, except for the values of headers that `may_vary`, if those
    /// have the same length and are valid. Then all spans are still right. `headers` are those of the known head.
    pub(super) fn recurs_in(
        &self,
        buffer: &[u8],
        headers: &[Header],
        may_vary: impl Fn(HeaderName) -> bool,
    ) -> bool {
        let Some(head) = buffer.get(..self.0.len()) else {
            return false;
        };
        if self.0.is_empty() || head == self.0 {
            return !self.0.is_empty();
        }
        let mut compared = 0;
        for Header { name, value, .. } in headers {
            if may_vary(*name) {
                let before = Span::new(compared, value.start);
                if before.slice(head) != before.slice(&self.0) || !is_plain_value(value.slice(head))
                {
                    return false;
                }
                compared = value.end;
            }
        }
        let rest = Span::new(compared, head.len());
        rest.slice(head) == rest.slice(&self.0)
    }
}

/// Whether this is a header value that httparse would accept unchanged: visible ASCII and spaces, without a space at
/// either end (RFC 9110 §5.5).
pub(crate) fn is_plain_value(value: &[u8]) -> bool {
    // No early exit, so that the loop is vectorised.
    let are_plain = value
        .iter()
        .fold(true, |are, byte| are & matches!(byte, b' '..=b'~'));
    are_plain && value.first() != Some(&b' ') && value.last() != Some(&b' ')
}
