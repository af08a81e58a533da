//! What tells one upstream from another.

use super::model::Outbound;
use super::tls_settings::Tls;
use crate::sentry::dsn::{Origin, Scheme};

/// An origin and how it is reached. Outbounds of which all of it is equal share connections, TLS sessions and a
/// circuit breaker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Upstream {
    pub(crate) origin: Origin,
    /// `None` for `http`.
    pub(crate) tls: Option<Tls>,
}

impl Outbound {
    pub(crate) fn upstream(&self) -> Upstream {
        let origin = self.dsn.origin().clone();
        let tls = (origin.scheme == Scheme::Https).then(|| self.tls.clone());
        Upstream { origin, tls }
    }
}
