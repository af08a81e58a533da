//! `listen`: where the mirror listens besides `ip` and `port`.
//!
//! `ip` and `port` are always the first listener, and a plain one: `sentry-mirror health` and `test` use it.

use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};

use serde_yaml::Value;

use super::client_address::network;
use super::listen_tls;
use super::model::{ListenAddress, Listener};
use super::node::Node;
use super::value::{Parsed, text};

const UNIX_PREFIX: &str = "unix:";

/// Linux allows 107 bytes, and the socket first has a longer name.
const PATH_BYTES_MAX: usize = 100;

/// The mode of a socket file: for its owner and its group.
const MODE_DEFAULT: u32 = 0o660;

/// The entries of `listen`. Invalid ones are reported and left out. `first` is the address of `ip` and `port`.
pub(super) fn listeners(node: &Node<'_>, first: SocketAddr) -> Vec<Listener> {
    let entries = node.optional_list("a list of listeners such as [{address: 0.0.0.0:3443}]");
    let mut listeners: Vec<Listener> = Vec::new();
    for entry in entries {
        if !entry.is_mapping() {
            entry.reject("a mapping with address");
            continue;
        }
        let mut section = entry.section();
        let address = section.take("address");
        let mode = section.take("mode");
        let has_mode = !mode.is_absent();
        let mode = mode.optional(file_mode).unwrap_or(MODE_DEFAULT);
        let listened = address.required(|value| listen_address(value, mode));
        if has_mode && matches!(listened, Some(ListenAddress::Inet(_))) {
            section.error("mode", "is for sockets in the file system only");
        }
        let proxy_protocol = section.take("proxy_protocol");
        let proxy_protocol = match proxy_protocol.is_absent() {
            true => Vec::new(),
            false => {
                let expected = "a list of the networks of the proxies such as [10.0.0.0/8]";
                let networks = proxy_protocol.required_list(expected);
                let networks = networks.iter().filter_map(|node| node.required(network));
                networks.collect()
            }
        };
        let tls = section.take("tls");
        let tls = (!tls.is_absent()).then(|| listen_tls::parse(tls));
        if tls.is_some() && matches!(listened, Some(ListenAddress::Unix { .. })) {
            section.error("tls", "is for addresses with a port only");
        }
        section.finish();
        let Some(listened) = listened else { continue };
        let is_first =
            matches!(&listened, ListenAddress::Inet(own) if own.port() != 0 && *own == first);
        if is_first {
            address.error("is the address of ip and port; expected another one");
        } else if listeners
            .iter()
            .any(|known| known.address.is_same(&listened))
        {
            address.error("is there twice");
        } else {
            listeners.push(Listener {
                address: listened,
                proxy_protocol,
                tls: tls.flatten(),
            });
        }
    }
    listeners
}

/// `IP:PORT`, with an IPv6 address in brackets, or `unix:` and an absolute path.
fn listen_address(value: &Value, mode: u32) -> Parsed<ListenAddress> {
    const FORM: &str = "an address such as 0.0.0.0:3443, [::]:3443 or unix:/run/sentry-mirror.sock";
    let address = text(value).map_err(|_| FORM)?;
    let Some(path) = address.strip_prefix(UNIX_PREFIX) else {
        return address
            .parse()
            .map(ListenAddress::Inet)
            .map_err(|_| FORM.to_owned());
    };
    let is_valid = path.len() <= PATH_BYTES_MAX && !path.contains('\0') && !path.ends_with('/');
    match Path::new(path).is_absolute() && is_valid {
        true => Ok(ListenAddress::Unix {
            path: path.into(),
            mode,
        }),
        false => Err(format!(
            "{FORM}, with a path of at most {PATH_BYTES_MAX} bytes"
        )),
    }
}

/// Octal digits. Text, because YAML may read `0660` as another number.
fn file_mode(value: &Value) -> Parsed<u32> {
    const FORM: &str = "a file mode in quotes, such as \"0660\"";
    let digits = value.as_str().ok_or(FORM)?;
    let is_octal = digits.len() == 4 && digits.starts_with('0');
    let mode = u32::from_str_radix(digits, 8).map_err(|_| FORM)?;
    is_octal.then_some(mode).ok_or_else(|| FORM.to_owned())
}

impl ListenAddress {
    fn is_same(&self, other: &ListenAddress) -> bool {
        match (self, other) {
            (ListenAddress::Inet(own), ListenAddress::Inet(other)) => {
                own == other && own.port() != 0
            }
            (ListenAddress::Unix { path: own, .. }, ListenAddress::Unix { path, .. }) => {
                without_parents(own) == without_parents(path)
            }
            _ => false,
        }
    }
}

/// The path without `..` and the folder before it.
fn without_parents(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            // Of the root, it is the root.
            Component::ParentDir => drop(normal.pop()),
            other => normal.push(other),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn parse(listen: &str) -> Result<Config, String> {
        let (a, b) = ("a".repeat(32), "b".repeat(32));
        let text = format!(
            "keys: [{{inbound: 'http://{a}@m/1', outbound: ['http://{b}@o/2']}}]\nlisten: {listen}\n"
        );
        let config = Config::parse(&text, "c.yml", std::iter::empty());
        config.map_err(|errors| errors.to_string())
    }

    #[test]
    fn listeners_have_an_address_or_a_path() {
        let config = parse(
            "[{address: '127.0.0.1:0'}, {address: '127.0.0.1:0', proxy_protocol: [10.0.0.0/8, '::1']}, {address: '[::1]:3443'}, {address: 'unix:/run/a b.sock', mode: \"0600\"}, {address: unix:/run/b.sock}]",
        )
        .unwrap();
        let plan = config.describe();
        let expected = "listen on 0.0.0.0:3000\nlisten on 127.0.0.1:0\nlisten on 127.0.0.1:0 with the PROXY protocol from 10.0.0.0/8, ::1/128\nlisten on [::1]:3443\nlisten on unix:/run/a b.sock (mode 0600)\nlisten on unix:/run/b.sock (mode 0660)\n";
        assert!(plan.starts_with(expected), "{plan}");
        let effective = config.effective();
        assert!(
            effective.contains("  proxy_protocol:\n  - 10.0.0.0/8\n  - ::1/128\n"),
            "{effective}"
        );
        assert!(
            effective.contains("address: unix:/run/a b.sock\n  mode: '0600'\n"),
            "{effective}"
        );
        assert_eq!(parse("[]").unwrap().listen, []);
    }

    /// Values of `listen`, and what is said of them.
    const INVALID: &[(&str, &str)] = &[
        (
            "3443",
            "2:9: listen: found 3443, expected a list of listeners",
        ),
        (
            "[3443]",
            "2:10: listen[0]: found 3443, expected a mapping with address",
        ),
        (
            "[{}]",
            "listen[0].address: found nothing, expected an address such as 0.0.0.0:3443",
        ),
        (
            "[{address: 3443}]",
            "listen[0].address: found 3443, expected an address",
        ),
        (
            "[{address: 'localhost:1'}]",
            "listen[0].address: found \"localhost:1\", expected an address",
        ),
        (
            "[{address: 'unix:a.sock'}]",
            "with a path of at most 100 bytes",
        ),
        ("[{address: 'unix:@a'}]", "with a path of at most 100 bytes"),
        (
            "[{address: 'unix:/a', mode: 660}]",
            "listen[0].mode: found 660, expected a file mode in quotes",
        ),
        (
            "[{address: 'unix:/a', mode: \"0980\"}]",
            "expected a file mode in quotes",
        ),
        (
            "[{address: 'unix:/a', mode: \"+660\"}]",
            "expected a file mode in quotes",
        ),
        (
            "[{address: '[::]:1', mode: \"0660\"}]",
            "listen[0].mode: is for sockets in the file system only",
        ),
        (
            "[{address: '0.0.0.0:3000'}]",
            "listen[0].address: is the address of ip and port",
        ),
        (
            "[{address: '[::]:1'}, {address: '[::]:1'}]",
            "listen[1].address: is there twice",
        ),
        (
            "[{address: 'unix:/a'}, {address: 'unix:/a'}]",
            "listen[1].address: is there twice",
        ),
        (
            "[{address: 'unix:/a/b'}, {address: 'unix:/./a//c/../b'}]",
            "listen[1].address: is there twice",
        ),
        (
            "[{address: '[::]:1', proxy_protocol: []}]",
            "listen[0].proxy_protocol: found an empty list",
        ),
        (
            "[{address: '[::]:1', proxy_protocol: true}]",
            "listen[0].proxy_protocol: found true, expected a list of the networks",
        ),
        (
            "[{address: '[::]:1', proxy_protocol: [10.1.1.1/8]}]",
            "listen[0].proxy_protocol[0]: found \"10.1.1.1/8\", expected a network",
        ),
        (
            "[{adress: '[::]:1'}]",
            "listen[0].adress: unknown key, did you mean address?",
        ),
        (
            "[{address: '127.0.0.1:3001'}]",
            "admin.port: is the same as that of a listener, where SDKs connect",
        ),
    ];

    #[test]
    fn what_is_no_listener_is_an_error() {
        let long = format!("[{{address: 'unix:/{}'}}]", "x".repeat(100));
        let long = (&*long, "with a path of at most 100 bytes");
        for (listen, expected) in INVALID.iter().copied().chain([long]) {
            let listen = match listen.contains("3001") {
                true => format!("{listen}\nadmin: {{port: 3001}}"),
                false => listen.to_owned(),
            };
            let errors = parse(&listen).unwrap_err();
            assert!(errors.contains(expected), "{errors}");
        }
    }

    #[test]
    fn an_outbound_at_any_listener_leads_back() {
        let a = "a".repeat(32);
        let text = format!(
            "keys: [{{inbound: 'http://{a}@m/1', outbound: ['http://{a}@localhost:3443/2']}}]\nlisten: [{{address: '0.0.0.0:3443'}}]\n"
        );
        let errors = Config::parse(&text, "c.yml", std::iter::empty()).unwrap_err();
        assert!(
            errors
                .to_string()
                .contains("the address of this mirror (0.0.0.0:3443)")
        );
    }
}
