//! What has to change in a request, without saying yet into what.
//!
//! A request is mirrored by copying its bytes with some places replaced. Each such place is an
//! [`Edit`]: a span and a [`Replacement`], the meaning of what goes there. The same list of edits serves
//! every outbound of a route; `mirror::rewrite` turns it into bytes for one of them.

use crate::span::Span;

/// How many places of a head may be edited for its path and its keys; a request that needs more is
/// refused. SDKs need four. An edit takes 40 bytes and a doubled slash asks for one, so without a bound
/// the edits of a head would take many times what the head is counted as.
pub const EDITS_MAX: usize = 128;

/// One place of a request that is not copied as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The bytes to replace; empty where something is inserted.
    pub span: Span,
    /// What goes in their place.
    pub replacement: Replacement,
}

/// What replaces the bytes of an [`Edit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replacement {
    /// Nothing: the bytes are left out.
    Nothing,
    /// The outbound's public key.
    Key,
    /// `sentry_key=` and the outbound's public key, for a parameter whose name is percent-encoded.
    KeyParameter,
    /// A whole `sentry_secret` parameter with one of its separators. Where the outbound has a secret
    /// only `value` is replaced by it; where it has none the whole parameter is left out, so that
    /// the inbound's secret never leaks.
    SecretParameter {
        /// The inbound's secret, inside the edit's span.
        value: Span,
    },
    /// The base64 text of `key:` or, where the inbound sent a password and the outbound has a
    /// secret, `key:secret`.
    BasicCredentials {
        /// Whether the inbound credentials carried a non-empty password.
        with_secret: bool,
    },
    /// The outbound's project id.
    Project,
    /// The outbound's path prefix, which may be empty.
    PathPrefix,
    /// The outbound's path of the envelope endpoint, prefix included.
    EnvelopePath,
    /// The outbound's host, with its port where that is not the scheme's default.
    Host,
    /// The outbound's DSN.
    Dsn,
    /// The same without its secret, for a place that others get to see.
    PublicDsn,
    /// The key that stands, at this outbound, for the service whose key is written here.
    TraceKey,
    /// `HTTP/1.1`, for a request that came with another version.
    Version,
    /// A line end, for a header line that came with a bare line feed.
    LineEnd,
}
