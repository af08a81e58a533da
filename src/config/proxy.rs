//! `proxy`, and the variables `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`.
//!
//! The variables are read as Go does (golang.org/x/net/http/httpproxy). curl differs in few things: it ignores
//! `HTTP_PROXY` in capitals, takes a name in `NO_PROXY` with a dot in front for that host, too, and goes through
//! a proxy to the loopback.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_yaml::Value;

use super::node::Node;
use super::proxy_settings::{Proxy, ProxyChoice};
use super::value::Parsed;
use crate::sentry::dsn::{Dsn, Origin, Scheme};

const FORM: &str = "none, or a URL of the form http://[USER:PASSWORD@]HOST:PORT";

/// `proxy` in `node`; the default if there is none.
pub(super) fn proxy(node: &Node<'_>, default: &ProxyChoice) -> ProxyChoice {
    if node.is("none") {
        return ProxyChoice::None;
    }
    let found = node.optional(|value: &Value| {
        let text = value.as_str().ok_or(FORM)?;
        parse(text, None).map(ProxyChoice::Proxy)
    });
    found.unwrap_or_else(|| default.clone())
}

/// Parses a URL. Without a port it gets `default_port`, and without one of these it is invalid.
fn parse(text: &str, default_port: Option<u16>) -> Parsed<Proxy> {
    let rest = match text.split_once("://") {
        Some(("http", rest)) => rest,
        Some(("https", _)) => {
            return Err(format!("{FORM}: the mirror speaks no TLS with proxies"));
        }
        Some(_) => return Err(FORM.to_owned()),
        None => text,
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (credentials, address) = match rest.rsplit_once('@') {
        Some((credentials, address)) => (Some(credentials), address),
        None => (None, rest),
    };
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()),
        _ => (address, default_port),
    };
    let port = port.filter(|port| *port > 0).ok_or(FORM)?;
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let is_address = bare.is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if !is_address && (host.is_empty() || !host.bytes().all(is_part)) {
        return Err(FORM.to_owned());
    }
    let credentials = credentials.map(|credentials| {
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        Some((decoded(user)?, decoded(password)?))
    });
    let credentials = match credentials {
        None => None,
        Some(Some(credentials)) => Some(credentials),
        Some(None) => return Err(format!("{FORM}, with %XX only for bytes of UTF-8")),
    };
    Ok(Proxy {
        host: bare.unwrap_or(host).to_ascii_lowercase(),
        port,
        credentials,
    })
}

/// Decodes `%XX`. `None` for what is not text, or has control characters.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        (rest, _) = match (byte, after) {
            (b'%', [high, low, after @ ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).ok()?;
                (after, bytes.push(u8::from_str_radix(digits, 16).ok()?))
            }
            (b'%', _) => return None,
            (byte, after) => (after, bytes.push(*byte)),
        };
    }
    let text = String::from_utf8(bytes).ok()?;
    (!text.chars().any(char::is_control)).then_some(text)
}

/// The proxy of outbounds without one of their own.
pub(super) struct ProxyDefault<'e> {
    pub(super) choice: ProxyChoice,
    pub(super) environment: &'e EnvironmentProxies,
}

impl ProxyDefault<'_> {
    /// The proxy for an outbound with this DSN and this value of `proxy`.
    pub(super) fn of_outbound(&self, dsn: &Dsn, node: &Node<'_>) -> Option<Proxy> {
        match proxy(node, &self.choice) {
            ProxyChoice::None => None,
            ProxyChoice::Proxy(proxy) => Some(proxy),
            ProxyChoice::Environment => match self.environment.proxy_for(dsn.origin()) {
                Ok(proxy) => proxy,
                Err(InvalidVariable(name)) => {
                    node.error(format!(
                        "the variable {name} holds no valid proxy, expected http://[USER:PASSWORD@]HOST:PORT, \
                         or proxy: none to ignore it"
                    ));
                    None
                }
            },
        }
    }
}

/// The variable with this name is not the URL of a proxy.
#[derive(Clone, Debug)]
pub(super) struct InvalidVariable(String);

/// What the environment says about proxies.
#[derive(Debug, Default)]
pub(super) struct EnvironmentProxies {
    http: Option<Result<Proxy, InvalidVariable>>,
    https: Option<Result<Proxy, InvalidVariable>>,
    exceptions: Vec<Exception>,
}

/// An entry of `NO_PROXY`.
#[derive(Debug, PartialEq)]
enum Exception {
    Everything,
    Network(IpNet),
    Address(IpAddr, Option<u16>),
    /// A host and everything below it, or only the latter.
    Name {
        name: String,
        is_only_below: bool,
        port: Option<u16>,
    },
}

impl EnvironmentProxies {
    /// Reads the variables, of which the names in small letters come first.
    pub(super) fn read(env: &BTreeMap<String, String>) -> EnvironmentProxies {
        let value = |name: &str| {
            let names = [name.to_ascii_lowercase(), name.to_owned()];
            let found = names.into_iter().find_map(|name| {
                let value = env.get(&name).filter(|value| !value.is_empty())?;
                Some((name, value.as_str()))
            });
            found.filter(|(_, value)| !value.trim().is_empty())
        };
        let proxy = |name: &str| {
            let (name, text) = value(name)?;
            Some(parse(text.trim(), Some(80)).map_err(|_| InvalidVariable(name)))
        };
        let exceptions = value("NO_PROXY").map_or("", |(_, text)| text);
        let exceptions = exceptions.split([',', ' ', '\t']);
        EnvironmentProxies {
            http: proxy("HTTP_PROXY"),
            https: proxy("HTTPS_PROXY"),
            exceptions: exceptions.filter_map(exception).collect(),
        }
    }

    /// The proxy for an origin.
    fn proxy_for(&self, origin: &Origin) -> Result<Option<Proxy>, InvalidVariable> {
        let proxy = match origin.scheme {
            Scheme::Http => self.http.as_ref(),
            Scheme::Https => self.https.as_ref(),
        };
        let proxy = proxy.filter(|_| !self.is_excepted(origin));
        proxy.cloned().transpose()
    }

    fn is_excepted(&self, origin: &Origin) -> bool {
        let address: Option<IpAddr> = origin.host.parse().ok();
        let is_loopback =
            origin.host == "localhost" || address.is_some_and(|address| address.is_loopback());
        is_loopback
            || self.exceptions.iter().any(|exception| match exception {
                Exception::Everything => true,
                Exception::Network(network) => {
                    address.is_some_and(|address| network.contains(&address))
                }
                Exception::Address(excepted, port) => {
                    address == Some(*excepted) && port.is_none_or(|port| port == origin.port)
                }
                Exception::Name {
                    name,
                    is_only_below,
                    port,
                } => {
                    let before = origin.host.strip_suffix(name.as_str());
                    let is_below = before.is_some_and(|before| before.ends_with('.'));
                    let is_itself = before == Some("") && !is_only_below;
                    (is_below || is_itself) && port.is_none_or(|port| port == origin.port)
                }
            })
    }
}

/// Parses an entry of `NO_PROXY`.
fn exception(text: &str) -> Option<Exception> {
    let text = text.trim().to_ascii_lowercase();
    if text.is_empty() {
        return None;
    }
    if text == "*" {
        return Some(Exception::Everything);
    }
    if let Ok(network) = text.parse() {
        return Some(Exception::Network(network));
    }
    if let Ok(address) = text.parse() {
        return Some(Exception::Address(address, None));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()),
        None => (text.as_str(), None),
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse() {
        return Some(Exception::Address(address, port));
    }
    let name = host.strip_prefix('*').unwrap_or(host);
    let below = name.strip_prefix('.');
    Some(Exception::Name {
        name: below.unwrap_or(name).to_owned(),
        is_only_below: below.is_some(),
        port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn env(variables: &[(&str, &str)]) -> EnvironmentProxies {
        let variables = variables.iter();
        let variables = variables.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        EnvironmentProxies::read(&variables.collect())
    }

    fn origin(url: &str) -> Origin {
        let (scheme, rest) = url.split_once("://").unwrap();
        let dsn: crate::sentry::dsn::Dsn = format!("{scheme}://a@{rest}/1").parse().unwrap();
        dsn.origin().clone()
    }

    #[test]
    fn a_proxy_is_a_url_with_a_port() {
        for (text, expected, authorization) in [
            ("http://proxy:3128", "http://proxy:3128", None),
            ("proxy:3128/", "http://proxy:3128", None),
            ("http://[::1]:8080", "http://[::1]:8080", None),
            // user:pass
            (
                "http://user:pass@Proxy.x:1",
                "http://…@proxy.x:1",
                Some("Basic dXNlcjpwYXNz"),
            ),
            // us@er:p:ss/
            (
                "http://us%40er:p:ss%2f@p:1",
                "http://…@p:1",
                Some("Basic dXNAZXI6cDpzcy8="),
            ),
            ("http://user@p:1", "http://…@p:1", Some("Basic dXNlcjo=")),
        ] {
            let proxy = parse(text, None).unwrap();
            assert_eq!(proxy.to_string(), expected);
            assert_eq!(format!("{proxy:?}"), format!("Proxy({expected})"));
            assert_eq!(proxy.authorization().as_deref(), authorization);
        }
        for text in [
            "",
            "proxy",
            "http://proxy",
            "http://:1",
            "http://p:0",
            "http://p:x",
            "http://p:99999",
            "https://p:1",
            "socks5://p:1",
            "http://p:1/x",
            "http://::1:1",
            "http://a b:1",
            "http://u%zz:p@p:1",
            "http://u%0a:p@p:1",
            "http://u%:p@p:1",
            "http://[x]:1",
        ] {
            assert!(parse(text, None).is_err(), "{text}");
        }
        assert_eq!(parse("p", Some(80)).unwrap().to_string(), "http://p:80");
    }

    #[test]
    fn the_variables_are_read_as_go_does() {
        let both = [("HTTP_PROXY", "http://h:1"), ("HTTPS_PROXY", "http://s:1")];
        let with = |no_proxy| env(&[both[0], both[1], ("NO_PROXY", no_proxy)]);
        for (url, no_proxy, expected) in [
            ("http://o", "", Some("http://h:1")),
            ("https://o", "", Some("http://s:1")),
            ("https://localhost", "", None),
            ("https://127.0.0.9", "", None),
            ("https://[::1]", "", None),
            ("https://o", "*", None),
            ("https://o", "a, o", None),
            ("https://o", "a o", None),
            ("https://o.x.com", "X.com", None),
            ("https://x.com", "x.com", None),
            ("https://ox.com", "x.com", Some("http://s:1")),
            ("https://x.com", ".x.com", Some("http://s:1")),
            ("https://o.x.com", ".x.com", None),
            ("https://o.x.com", "*.x.com", None),
            ("https://x.com:8443", "x.com:8443", None),
            ("https://x.com", "x.com:8443", Some("http://s:1")),
            ("https://10.1.2.3", "10.0.0.0/8", None),
            ("https://11.1.2.3", "10.0.0.0/8", Some("http://s:1")),
            ("https://10.1.2.3", "10.1.2.3", None),
            ("https://10.1.2.3", "10.1.2.3:443", None),
            ("https://10.1.2.3", "10.1.2.3:80", Some("http://s:1")),
            ("https://[fd00::1]", "fd00::/8", None),
            ("https://[fd00::1]", "[fd00::1]:443", None),
        ] {
            let proxy = with(no_proxy).proxy_for(&origin(url)).unwrap();
            let proxy = proxy.map(|proxy| proxy.to_string());
            assert_eq!(proxy.as_deref(), expected, "{url} {no_proxy}");
        }
        let lower = env(&[("https_proxy", "lower"), ("HTTPS_PROXY", "http://upper:1")]);
        let found = lower.proxy_for(&origin("https://o")).unwrap().unwrap();
        assert_eq!(found.to_string(), "http://lower:80");
        let empty = env(&[("https_proxy", ""), ("HTTPS_PROXY", "http://upper:1")]);
        let found = empty.proxy_for(&origin("https://o")).unwrap().unwrap();
        assert_eq!(found.to_string(), "http://upper:1");
    }

    #[test]
    fn an_outbound_has_its_own_proxy_or_that_of_the_top_or_of_the_environment() {
        const KEY: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
        let parse = |top: &str, own: &str, variable: &str| {
            let text = format!(
                "proxy: {top}\nkeys:\n- inbound: http://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@m/1\n  outbound:\n  \
                 - https://{KEY}@o/2\n  - {{dsn: https://{KEY}@o/3, proxy: {own}}}\n"
            );
            let env = [("HTTPS_PROXY".to_owned(), variable.to_owned())];
            Config::parse(&text, "c.yml", env.into_iter()).map_err(|errors| errors.to_string())
        };
        for (top, own, variable, first, second) in [
            ("null", "null", "", "none", "none"),
            ("null", "null", "e:1", "http://e:1", "http://e:1"),
            ("none", "null", "e:1", "none", "none"),
            ("none", "o:1", "e:1", "none", "http://o:1"),
            ("t:1", "none", "e:1", "http://t:1", "none"),
            (
                "'http://u:secret@t:1'",
                "null",
                "",
                "http://…@t:1",
                "http://…@t:1",
            ),
            ("none", "null", "ftp://bad", "none", "none"),
        ] {
            let config = parse(top, own, variable).unwrap();
            let shown = |outbound: usize| {
                let proxy = &config.routes[0].outbounds[outbound].proxy;
                proxy.as_ref().map_or("none".to_owned(), Proxy::to_string)
            };
            assert_eq!((shown(0), shown(1)), (first.to_owned(), second.to_owned()));
            let all = format!("{} {} {config:?}", config.describe(), config.effective());
            assert!(!all.contains("secret"), "{all}");
            assert_eq!(
                config.describe().contains(" via "),
                first != "none" || second != "none"
            );
        }
        for (own, variable, expected) in [
            (
                "https://p:1",
                "",
                "c.yml:6:64: keys[0].outbound[1].proxy: found \"https://p:1\", expected none, or a URL",
            ),
            (
                "5",
                "",
                "keys[0].outbound[1].proxy: found 5, expected none, or a URL",
            ),
            (
                "'http://u:secret@p'",
                "",
                "found \"http://u…@p\", expected none, or a URL",
            ),
            (
                "null",
                "ftp://u:secret@x",
                "c.yml:5:5: keys[0].outbound[0]: the variable HTTPS_PROXY holds no valid proxy",
            ),
        ] {
            let error = parse("null", own, variable).unwrap_err();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
