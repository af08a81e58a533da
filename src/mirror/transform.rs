//! What is done for some outbounds before their bytes are made: some of it, several times, compressed.
//!
//! Most outbounds get a request whole, once and decoded, and none of this concerns them. Of the others
//! each has a [`Transform`]; those with the same one share it, and so what is made of a request by it.

use crate::config::{self, Compression};
use crate::http::compress::Codec;
use crate::http::encoding::Encoding;
use crate::sentry::selection::Selection;

/// What is done for an outbound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transform {
    /// What of a request it gets; `None` for everything.
    pub selection: Option<Selection>,
    /// How many times it gets that.
    pub copies: u32,
    /// In which form.
    pub compression: Compression,
}

/// In which form a body goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Decoded.
    Plain,
    /// As it came, if nothing in it changes, or else like this.
    AsReceived(Option<Codec>),
    /// Compressed by us.
    Compressed(Codec),
}

impl Transform {
    /// What `outbound` asks for, if it asks for anything.
    pub fn of(outbound: &config::Outbound) -> Option<Transform> {
        let transform = Transform {
            selection: outbound.selection,
            copies: outbound.copies,
            compression: outbound.compression,
        };
        let is_any = transform.selection.is_some()
            || transform.copies > 1
            || transform.compression != Compression::None;
        is_any.then_some(transform)
    }

    /// Whether a body may pass as it came, unless something in it changes.
    pub fn preserves(&self) -> bool {
        self.compression == Compression::Preserve
    }

    /// Whether a share only is wanted of anything.
    pub fn samples(&self) -> bool {
        self.selection.is_some_and(|selection| selection.samples())
    }

    /// Whether a body of which no place changes can pass as it came.
    pub fn is_untouched(&self) -> bool {
        self.selection.is_none() && self.copies == 1 && self.preserves()
    }

    /// The form for a body that came in `encoding`. What came in a coding that is not made here goes
    /// out in gzip, which every server reads.
    pub fn form(&self, encoding: Encoding) -> Form {
        match (self.compression, encoding) {
            (Compression::None, _) => Form::Plain,
            (Compression::Gzip, _) => Form::Compressed(Codec::Gzip),
            (Compression::Zstd, _) => Form::Compressed(Codec::Zstd),
            (Compression::Preserve, Encoding::Identity) => Form::AsReceived(None),
            (Compression::Preserve, Encoding::Zstd) => Form::AsReceived(Some(Codec::Zstd)),
            (Compression::Preserve, Encoding::Gzip | Encoding::Deflate | Encoding::Brotli) => {
                Form::AsReceived(Some(Codec::Gzip))
            }
        }
    }
}
