//! Where the counts of an outbound's organization are.

use std::fmt;

use crate::sentry::dsn::Origin;

/// The web API of an organization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentryApi {
    pub origin: Origin,
    /// The path before `/api/0/`: empty, or `/a/b` without a slash at the end.
    pub prefix: String,
    /// The slug or the id of the organization.
    pub organization: String,
    pub token: Token,
}

/// An auth token, which is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    pub(super) fn new(token: String) -> Token {
        Token(token)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl SentryApi {
    /// The URL without `/api/0/`.
    pub(super) fn url(&self) -> String {
        format!("{}{}", self.origin, self.prefix)
    }
}
