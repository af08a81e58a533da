//! What tells one upstream from another.

use super::model::Outbound;
use super::proxy_settings::Proxy;
use super::tls_settings::Tls;
use crate::sentry::dsn::{Origin, Scheme};

/// An origin and how it is reached. Outbounds of which all of it is equal share connections, TLS sessions and a
/// circuit breaker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Upstream {
    pub(crate) origin: Origin,
    /// `None` for `http`.
    pub(crate) tls: Option<Tls>,
    pub(crate) proxy: Option<Proxy>,
}

impl Outbound {
    /// The proxy that gets each request itself, with the whole URL as target (RFC 9112 section 3.2.2).
    pub(crate) fn plain_proxy(&self) -> Option<&Proxy> {
        let is_plain = self.dsn.origin().scheme == Scheme::Http;
        self.proxy.as_ref().filter(|_| is_plain)
    }

    pub(crate) fn upstream(&self) -> Upstream {
        let origin = self.dsn.origin().clone();
        let tls = (origin.scheme == Scheme::Https).then(|| self.tls.clone());
        let proxy = self.proxy.clone();
        Upstream { origin, tls, proxy }
    }
}
