//! The request before, as it was rendered for HTTP/1.1 and as a header block, to make a block for one that is alike.
//!
//! Requests to an upstream mostly differ in the length of their body, and where outbounds share its connections in path
//! and key. To compare a head with the one before, and to exchange a value in its block, takes far fewer instructions
//! than to parse and encode it.

use memchr::memchr;

use super::common_prefix::common_prefix;
use super::hpack::encoder;
use crate::http::known_head::is_plain_value;
use crate::span::Span;

/// The longest head that is kept for comparison. Usual ones have 300 to 1,000 bytes.
const KEPT_BYTES_MAX: usize = 2048;

/// A header block, and what it was made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Encoded {
    pub(super) block: Vec<u8>,
    /// The length of the head that was encoded; the body follows it.
    pub(super) head_bytes: usize,
    /// The length of the header list, by the count of RFC 9113 §6.5.2.
    pub(super) list_bytes: usize,
    /// Whether the method is HEAD, so that the response has no body.
    pub(super) is_head: bool,
}

#[derive(Debug, Default)]
pub(super) struct KnownRequest {
    pub(super) encoded: Encoded,
    /// The head that `encoded` was made of; empty if there is none to compare with.
    rendered: Vec<u8>,
    /// In order.
    values: Vec<KnownValue>,
    /// Reused for its memory.
    coded: Vec<u8>,
}

/// A value that may be another one.
#[derive(Clone, Copy, Debug)]
struct KnownValue {
    is_target: bool,
    rendered: Span,
    /// Its length and text in the block.
    coded: Span,
}

impl KnownRequest {
    pub(super) fn forget(&mut self) {
        self.rendered.clear();
        self.values.clear();
        self.encoded.block.clear();
    }

    /// Adds the target, whose coded text is the end of the block.
    pub(super) fn add_target(&mut self, target: Span) {
        self.add(target, true);
    }

    /// Adds the value of a field of `head`, if its line has the usual form. Its coded text is the end of the block.
    pub(super) fn add_value(&mut self, value: Span, head: &[u8]) {
        let name_end = value.start.checked_sub(2);
        let before = name_end.and_then(|start| head.get(start..value.start));
        if before == Some(b": ") && head.get(value.end..value.end + 2) == Some(b"\r\n") {
            self.add(value, false);
        }
    }

    fn add(&mut self, rendered: Span, is_target: bool) {
        let end = self.encoded.block.len();
        self.values.push(KnownValue {
            is_target,
            rendered,
            coded: Span::new(end - encoder::text_bytes(rendered.len()), end),
        });
    }

    /// Keeps `head`, of which the block was made.
    pub(super) fn keep(&mut self, head: &[u8]) {
        if head.len() <= KEPT_BYTES_MAX {
            self.rendered.extend_from_slice(head);
        }
    }

    /// Whether `rendered` begins with the same head again, except for values. Then the block has those of `rendered`.
    pub(super) fn recurs_in(&mut self, rendered: &[u8]) -> bool {
        // Values that become longer could make it longer than what is kept.
        if self.rendered.is_empty() || self.rendered.len() > KEPT_BYTES_MAX {
            return false;
        }
        loop {
            let same = common_prefix(&self.rendered, rendered);
            if same == self.rendered.len() {
                return true;
            }
            if self.replace_value(same, rendered).is_none() {
                return false;
            }
        }
    }

    /// Takes the value in which `rendered` differs, at `same`, from the head before. `None` if it differs in anything
    /// else, or has a value that needs a closer look.
    fn replace_value(&mut self, same: usize, rendered: &[u8]) -> Option<()> {
        let index = self
            .values
            .partition_point(|value| value.rendered.end < same);
        let value = *self.values.get(index)?;
        let rest = rendered.get(value.rendered.start..)?;
        let behind = if value.is_target { b' ' } else { b'\r' };
        let now = rest.get(..memchr(behind, rest)?)?;
        let is_usual = match value.is_target {
            true => is_usual_target(now),
            false => is_plain_value(now),
        };
        if same < value.rendered.start || !is_usual {
            return None;
        }
        let encoded = &mut self.encoded;
        self.coded.clear();
        encoder::append_text(&mut self.coded, now);
        let now_rendered = replace(&mut self.rendered, value.rendered, now);
        let now_coded = replace(&mut encoded.block, value.coded, &self.coded);
        encoded.head_bytes = encoded.head_bytes + now.len() - value.rendered.len();
        encoded.list_bytes = encoded.list_bytes + now.len() - value.rendered.len();
        let mut behind = self.values.get_mut(index..)?.iter_mut();
        if let Some(replaced) = behind.next() {
            (replaced.rendered, replaced.coded) = (now_rendered, now_coded);
        }
        for later in behind {
            later.rendered = moved(later.rendered, value.rendered.end, now_rendered.end);
            later.coded = moved(later.coded, value.coded.end, now_coded.end);
        }
        Some(())
    }
}

/// Puts `bytes` in the place of `span`. Returns where they are.
fn replace(text: &mut Vec<u8>, span: Span, bytes: &[u8]) -> Span {
    text.splice(span.start..span.end, bytes.iter().copied());
    Span::new(span.start, span.start + bytes.len())
}

/// A span behind what ended at `before` and now ends at `now`.
fn moved(span: Span, before: usize, now: usize) -> Span {
    Span::new(span.start + now - before, span.end + now - before)
}

/// Whether this is a target of the characters that paths of Sentry have: httparse accepts it, and it has no fragment.
fn is_usual_target(target: &[u8]) -> bool {
    let are_usual = target
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || b"/?&=_-.%+:~".contains(byte));
    are_usual && target.first() == Some(&b'/')
}
