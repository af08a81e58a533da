//! The listen address of a configuration that may have errors elsewhere, for `sentry-mirror health`.

use std::net::SocketAddr;

use serde_yaml::{Mapping, Value};

use super::diagnostics::Diagnostics;
use super::environment;
use super::model::Config;
use super::node::Node;
use super::references;
use super::schema;
use super::source::{Source, document};

impl Config {
    /// The listen address in `source` and the variables `env`. `None` if it is invalid, or if the kernel
    /// chooses the port.
    pub fn listen_address(source: &Source, env: &[(String, String)]) -> Option<SocketAddr> {
        let text = source.text.as_ref().ok();
        let document = text.and_then(|text| document(text, &source.name).ok());
        listen_address(document.as_ref(), env)
    }
}

fn listen_address(document: Option<&Mapping>, env: &[(String, String)]) -> Option<SocketAddr> {
    let mut with_env = document.cloned().unwrap_or_default();
    let env = env.iter().cloned().collect();
    environment::overlay(&mut with_env, &env, &Diagnostics::default());
    references::resolve(&mut with_env, &env, &Diagnostics::default());
    // If the file cannot be read, the default port is only a guess.
    let is_guess = document.is_none() && !with_env.contains_key("port");
    let addresses = [Some(&with_env), document].into_iter().flatten();
    let address = addresses.filter(|_| !is_guess).find_map(address);
    address.filter(|address| address.port() != 0)
}

/// The address in `document`, if it is valid.
fn address(document: &Mapping) -> Option<SocketAddr> {
    let document = Value::Mapping(document.clone());
    let diagnostics = Diagnostics::default();
    let mut root = Node::root(&document, &diagnostics).section();
    let address = schema::listen_address(&mut root);
    diagnostics.is_empty().then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(text: &str, env: &[(&str, &str)]) -> Option<String> {
        let env: Vec<_> = env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let document = document(text, "c.yml").ok();
        listen_address(document.as_ref(), &env).map(|address| address.to_string())
    }

    #[test]
    fn the_address_is_known_in_spite_of_other_errors() {
        let port = ("SENTRY_MIRROR_PORT", "7");
        for (text, env, expected) in [
            ("port: 5\nprot: 3\nkeys: none\n", &[][..], Some("0.0.0.0:5")),
            ("ip: '::1'\nworkers: many\n", &[], Some("[::1]:3000")),
            ("port: 5\n", &[port], Some("0.0.0.0:7")),
            (
                "port: 5\n",
                &[("SENTRY_MIRROR_PORT", "x")],
                Some("0.0.0.0:5"),
            ),
            (
                "port: 5\n",
                &[("SENTRY_MIRROR_WORKERS", "x")],
                Some("0.0.0.0:5"),
            ),
            ("port: x\n", &[port], Some("0.0.0.0:7")),
            ("port: [\n", &[port], Some("0.0.0.0:7")),
            ("port: ${P:-9}\nx: ${X}\n", &[], Some("0.0.0.0:9")),
            ("port: ${P}\n", &[("P", "8")], Some("0.0.0.0:8")),
            ("port: ${P}\n", &[], None),
            ("port: x\n", &[], None),
            ("port: 0\n", &[], None),
            ("port: [\n", &[], None),
            ("", &[], None),
        ] {
            assert_eq!(listen(text, env).as_deref(), expected, "{text} {env:?}");
        }
    }
}
