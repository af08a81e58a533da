//! A place in a buffer.
//!
//! Everything that is found in a request is kept as a [`Span`] into the buffer it was read into and
//! becomes a slice only at the last moment: nothing borrows from the buffer, nothing is copied out
//! of it. `Span` is `Copy`, unlike `std::ops::Range`.

/// A half-open range of byte positions: `start..end`, with `start <= end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The position of the first byte.
    pub start: usize,
    /// The position after the last byte.
    pub end: usize,
}

impl Span {
    /// The span `start..end`.
    pub const fn new(start: usize, end: usize) -> Span {
        debug_assert!(start <= end);
        Span { start, end }
    }

    /// How many bytes it covers.
    pub const fn len(self) -> usize {
        self.end - self.start
    }

    /// Whether it covers no byte.
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// The bytes it covers in `buffer`; none where `buffer` is not the buffer it was made for and is
    /// too short.
    pub fn slice(self, buffer: &[u8]) -> &[u8] {
        buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// The same bytes, seen from a buffer that begins `by` bytes earlier.
    pub const fn shifted(self, by: usize) -> Span {
        Span {
            start: self.start + by,
            end: self.end + by,
        }
    }
}
