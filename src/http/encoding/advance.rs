//! What a decoder of one coding returns.

use std::fmt;

/// The progress of a decoder in the slices of input and output that it was given.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Advance {
    pub(super) read_bytes: usize,
    pub(super) written_bytes: usize,
    /// Whether the body is complete. The rest of the input is ignored.
    pub(super) done: bool,
}

/// Why a body cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Not valid in its `Content-Encoding`, or a wrong checksum.
    Corrupt,
    Truncated,
    /// Over the limit after decoding.
    TooLarge,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DecodeError::Corrupt => "the body is not valid in its Content-Encoding",
            DecodeError::Truncated => "the compressed body ends too early",
            DecodeError::TooLarge => "the decompressed body is too large",
        })
    }
}

impl std::error::Error for DecodeError {}
