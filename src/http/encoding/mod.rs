//! Decodes a `Content-Encoding`: the whole body, within a bound, a slice at a time.
//!
//! A body is decoded because an envelope's header has to be read and rewritten. The input and the output are in
//! memory as a whole; in between, a [`Decoder`] works in slices, so that one large body does not keep a worker's
//! other connections waiting. Both the input and the output of a slice are bounded, since many bytes of input
//! may decode to none. A decompression bomb ends at the limit and costs what an honest body of that size costs.
//!
//! The accepted codings are Relay's, plus raw deflate, and all members of a gzip body instead of the first only.
//! Several codings on top of each other are rejected: no SDK sends them.

mod advance;
mod brotli;
mod decoder;
mod gzip;
mod name;
mod zlib;
mod zstd;

pub use advance::DecodeError;
pub use decoder::{Decoder, Decompressors, Step};
pub use name::Encoding;
