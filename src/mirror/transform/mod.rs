//! What happens to a request before it is rendered for an outbound: filtering, copying, compression.
//!
//! Most outbounds get every request whole, once and decoded; they have no transform. Outbounds with equal
//! transforms share the [`Transform`] and its results. The [`transformer`] makes the bodies: the `selector` keeps what
//! the outbound takes, by means of [`filter`]; [`copies`] makes further copies with ids of their own; and `compression`
//! compresses the results.

mod compression;
pub(crate) mod copies;
pub(crate) mod filter;
mod selector;
pub(crate) mod transformer;

use crate::config::{self, Compression};
use crate::http::compress::Codec;
use crate::http::encoding::Encoding;
use crate::sentry::selection::Selection;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transform {
    /// The parts of a request that the outbound gets; `None` for everything.
    pub selection: Option<Selection>,
    /// How many times the outbound gets each request.
    pub copies: u32,
    pub compression: Compression,
    /// The index of the outbound, if it has caps: then no other one has the same transform.
    pub capped: Option<usize>,
}

/// How a body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyEncoding {
    /// Decoded.
    Plain,
    /// As received, unless it changes; then with this codec, or decoded without one.
    AsReceived(Option<Codec>),
    /// Compressed by the mirror.
    Compressed(Codec),
}

impl Transform {
    /// The transform of `outbound` at `index`; `None` if it gets requests whole, once and decoded.
    pub fn from_config(outbound: &config::Outbound, index: usize) -> Option<Transform> {
        let transform = Transform {
            selection: outbound.selection,
            copies: outbound.copies,
            compression: outbound.compression,
            capped: (!outbound.caps.is_empty()).then_some(index),
        };
        let is_any = transform.selection.is_some()
            || transform.capped.is_some()
            || transform.copies > 1
            || transform.compression != Compression::None;
        is_any.then_some(transform)
    }

    /// Whether the outbound may get a body as received.
    pub fn preserves(&self) -> bool {
        self.compression == Compression::Preserve
    }

    /// Whether the outbound may get only a share of some category.
    pub fn samples(&self) -> bool {
        self.capped.is_some() || self.selection.is_some_and(|selection| selection.samples())
    }

    /// Whether the outbound gets every body as received, unless it contains edits.
    pub fn is_untouched(&self) -> bool {
        self.selection.is_none() && self.capped.is_none() && self.copies == 1 && self.preserves()
    }

    /// The encoding of a body that was received in `encoding`. The mirror does not encode deflate and Brotli, so it
    /// sends these bodies as gzip, which every server can decode.
    pub fn body_encoding(&self, encoding: Encoding) -> BodyEncoding {
        match (self.compression, encoding) {
            (Compression::None, _) => BodyEncoding::Plain,
            (Compression::Gzip, _) => BodyEncoding::Compressed(Codec::Gzip),
            (Compression::Zstd, _) => BodyEncoding::Compressed(Codec::Zstd),
            (Compression::Preserve, Encoding::Identity) => BodyEncoding::AsReceived(None),
            (Compression::Preserve, Encoding::Zstd) => BodyEncoding::AsReceived(Some(Codec::Zstd)),
            (Compression::Preserve, Encoding::Gzip | Encoding::Deflate | Encoding::Brotli) => {
                BodyEncoding::AsReceived(Some(Codec::Gzip))
            }
        }
    }
}
