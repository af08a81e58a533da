//! The value of `Content-Encoding`.

use std::fmt;

/// The content coding of a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    #[default]
    Identity,
    /// RFC 1952, with any number of members.
    Gzip,
    /// RFC 1950, or RFC 1951 without its frame, which some clients call deflate too.
    Deflate,
    /// RFC 7932.
    Brotli,
    /// RFC 8878, with any number of frames.
    Zstd,
}

impl Encoding {
    /// Parses the values of all `Content-Encoding` headers, ignoring case (RFC 9110 §8.4.1). Ruby's SDK (6.6)
    /// sends an empty value and old Android SDKs send `UTF-8`; both mean identity.
    pub fn parse<'v>(values: impl Iterator<Item = &'v [u8]>) -> Result<Encoding, Unsupported> {
        let mut encoding = Encoding::Identity;
        for value in values {
            let named = Encoding::from_name(value)?;
            if named == Encoding::Identity {
                continue;
            }
            if encoding != Encoding::Identity {
                return Err(Unsupported);
            }
            encoding = named;
        }
        Ok(encoding)
    }

    /// The name in `Content-Encoding`.
    pub const fn name(self) -> &'static str {
        match self {
            Encoding::Identity => "identity",
            Encoding::Gzip => "gzip",
            Encoding::Deflate => "deflate",
            Encoding::Brotli => "br",
            Encoding::Zstd => "zstd",
        }
    }

    fn from_name(value: &[u8]) -> Result<Encoding, Unsupported> {
        [
            ("gzip", Encoding::Gzip),
            ("", Encoding::Identity),
            ("br", Encoding::Brotli),
            ("zstd", Encoding::Zstd),
            ("deflate", Encoding::Deflate),
            ("identity", Encoding::Identity),
            ("utf-8", Encoding::Identity),
            // The same as gzip (RFC 9110 §8.4.1.3).
            ("x-gzip", Encoding::Gzip),
        ]
        .iter()
        .find(|(name, _)| value.eq_ignore_ascii_case(name.as_bytes()))
        .map(|(_, encoding)| *encoding)
        .ok_or(Unsupported)
    }
}

/// An unknown `Content-Encoding`, or more than one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsupported;

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Content-Encoding must be one of gzip, deflate, br, zstd, identity")
    }
}

impl std::error::Error for Unsupported {}
