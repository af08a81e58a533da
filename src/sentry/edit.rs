//! Edits of a request.
//!
//! A request is mirrored by copying its bytes, with some spans replaced. Each is an [`Edit`]: a span and a
//! [`Replacement`], which says what to insert but not the text. One list of edits serves all outbounds of a route;
//! `mirror::fan_out::render` renders it for each of them.

use crate::span::Span;

/// The maximum number of edits for the path and the keys of a head; a request that needs more is rejected. SDKs need
/// four. An edit takes 40 bytes and is caused by as little as a repeated slash, so unbounded edits could take many
/// times the memory that is accounted for the head.
pub const EDITS_MAX: usize = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The bytes to replace; empty to insert something.
    pub span: Span,
    pub replacement: Replacement,
}

/// What replaces the bytes of an [`Edit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replacement {
    /// Remove the bytes.
    Nothing,
    /// The outbound's public key.
    Key,
    /// `sentry_key=` and the outbound's public key, for a parameter with a percent-encoded name.
    KeyParameter,
    /// For a whole `sentry_secret` parameter with one of its separators. If the outbound has a secret, it replaces only
    /// `value`; otherwise the whole parameter is removed, so that the inbound's secret never leaks.
    SecretParameter {
        /// The inbound's secret, inside the edit's span.
        value: Span,
    },
    /// Base64 of `key:`, or of `key:secret` if the inbound credentials have a password and the outbound has a secret.
    BasicCredentials {
        /// Whether the inbound credentials have a non-empty password.
        with_secret: bool,
    },
    /// The outbound's project id.
    Project,
    /// The outbound's path prefix, which may be empty.
    PathPrefix,
    /// The path of the envelope endpoint at the outbound, with its prefix.
    EnvelopePath,
    /// The outbound's host, with its port unless that is the scheme's default.
    Host,
    /// The outbound's DSN.
    Dsn,
    /// The outbound's DSN without its secret, for text that others may see.
    PublicDsn,
    /// For the key in a `trace`, which belongs to the service where the trace began. If that service has another
    /// route with an outbound at the same origin, the key of that outbound; otherwise this outbound's key.
    TraceKey,
    /// `HTTP/1.1`, for a request in another version.
    Version,
    /// CRLF, for a header line that ends in a bare line feed.
    LineEnd,
}
