//! A range of bytes in a buffer.
//!
//! Whatever the parsers find in a request is kept as a [`Span`] of the buffer that was parsed, and becomes a slice
//! only where it is used: nothing borrows from the buffer, and nothing is copied out of it. Unlike
//! `std::ops::Range`, `Span` is `Copy`.

/// A half-open range of byte positions, `start..end`, with `start <= end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

impl Span {
    pub const fn new(start: usize, end: usize) -> Span {
        debug_assert!(start <= end);
        Span { start, end }
    }

    pub const fn len(self) -> usize {
        self.end - self.start
    }

    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// The bytes of this span in `buffer`. Empty if `buffer` is too short, which is not the buffer that the span was
    /// made for.
    pub fn slice(self, buffer: &[u8]) -> &[u8] {
        buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// The span of the same bytes in a buffer that begins `by` bytes earlier.
    pub const fn shifted(self, by: usize) -> Span {
        Span {
            start: self.start + by,
            end: self.end + by,
        }
    }
}
