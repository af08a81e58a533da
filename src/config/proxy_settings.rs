//! A proxy through which upstreams are reached.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

/// An HTTP proxy. Its credentials are secret: `Display` and `Debug` leave them out.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Proxy {
    /// A host name or an IP address, without brackets.
    pub host: String,
    pub port: u16,
    /// User and password.
    pub(super) credentials: Option<(String, String)>,
}

impl Proxy {
    /// The value of `Proxy-Authorization` (RFC 7617).
    pub(crate) fn authorization(&self) -> Option<String> {
        let (user, password) = self.credentials.as_ref()?;
        Some(format!(
            "Basic {}",
            BASE64.encode(format!("{user}:{password}"))
        ))
    }

    /// Host and port, with an IPv6 address in brackets.
    pub(crate) fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let credentials = if self.credentials.is_some() {
            "…@"
        } else {
            ""
        };
        write!(f, "http://{credentials}{}", self.authority())
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

/// `proxy`, at the top or of an outbound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ProxyChoice {
    /// What the variables `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` say.
    #[default]
    Environment,
    None,
    Proxy(Proxy),
}

impl ProxyChoice {
    pub(super) fn as_proxy(&self) -> Option<&Proxy> {
        match self {
            ProxyChoice::Proxy(proxy) => Some(proxy),
            ProxyChoice::Environment | ProxyChoice::None => None,
        }
    }
}
