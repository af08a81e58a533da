//! `tls`, at the top and in outbounds. Each key that an outbound does not set has the value of the top.

use std::path::PathBuf;

use rustls::pki_types::ServerName;
use serde_yaml::{Mapping, Value};

use super::node::Node;
use super::tls_settings::{CertificateFiles, Tls, TlsVersion};
use super::value::{Parsed, boolean, name, parse_scalar, text};

/// The settings in the mapping `node`.
pub(super) fn tls(node: Node<'_>, defaults: &Tls) -> Tls {
    let mut section = node.section();
    let ca_file = section.take("ca_file").optional(text).map(PathBuf::from);
    let system_roots = section.value("system_roots", boolean, defaults.system_roots);
    let cert_file = section.take("cert_file").optional(text).map(PathBuf::from);
    let key_file = section.take("key_file").optional(text).map(PathBuf::from);
    let client_certificate = match (cert_file, key_file) {
        (Some(cert_file), Some(key_file)) => Some(CertificateFiles {
            cert_file,
            key_file,
        }),
        (None, None) => defaults.client_certificate.clone(),
        (Some(_), None) => {
            section.error("cert_file", "needs key_file, the file with its private key");
            None
        }
        (None, Some(_)) => {
            section.error("key_file", "needs cert_file, the file with its certificate");
            None
        }
    };
    let server_name = section.take("server_name").optional(server_name);
    let min_version = section.value("min_version", version, defaults.min_version);
    section.finish();
    Tls {
        ca_file: ca_file.or_else(|| defaults.ca_file.clone()),
        system_roots,
        client_certificate,
        server_name: server_name.or_else(|| defaults.server_name.clone()),
        min_version,
    }
}

fn server_name(value: &Value) -> Parsed<String> {
    let found = text(value).ok();
    let valid = found.filter(|name| ServerName::try_from(name.as_str()).is_ok());
    valid.ok_or_else(|| "a host name or an IP address, without a port".to_owned())
}

/// Without quotes, YAML takes it for a number.
pub(super) fn version(value: &Value) -> Parsed<TlsVersion> {
    let found = parse_scalar::<String>(value).unwrap_or_default();
    let mut names = TlsVersion::NAMES.iter();
    let named = names.find(|(name, _)| *name == found);
    named
        .map(|(_, version)| *version)
        .ok_or_else(|| "1.2 or 1.3".to_owned())
}

/// The settings as they stand in a file.
pub(super) fn effective(tls: &Tls) -> Mapping {
    let path = |path: &PathBuf| Value::from(path.display().to_string());
    let certificate = tls.client_certificate.as_ref();
    let optional = |value: Option<Value>| value.unwrap_or(Value::Null);
    let members = [
        ("ca_file", optional(tls.ca_file.as_ref().map(path))),
        ("system_roots", tls.system_roots.into()),
        (
            "cert_file",
            optional(certificate.map(|files| path(&files.cert_file))),
        ),
        (
            "key_file",
            optional(certificate.map(|files| path(&files.key_file))),
        ),
        (
            "server_name",
            optional(tls.server_name.clone().map(Value::from)),
        ),
        (
            "min_version",
            name(tls.min_version, TlsVersion::NAMES).into(),
        ),
    ];
    members
        .into_iter()
        .map(|(key, value)| (Value::from(key), value))
        .collect()
}

/// The settings in one line, without those that are equal in `defaults`.
pub(super) fn describe(tls: &Tls, defaults: &Tls) -> String {
    let (own, defaults) = (effective(tls), effective(defaults));
    let differs = own
        .iter()
        .filter(|(key, value)| defaults.get(*key) != Some(value));
    let text = |value: &Value| parse_scalar::<String>(value).unwrap_or_default();
    let words = differs.map(|(key, value)| format!("tls.{} {}", text(key), text(value)));
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn parse(top: &str, own: &str) -> Result<Config, String> {
        let text = format!(
            "tls: {top}\nkeys:\n- inbound: http://aaaa@m/1\n  outbound:\n  - https://bbbb@o/2\n  \
             - {{dsn: https://cccc@o/2, tls: {own}}}\n"
        );
        Config::parse(&text, "c.yml", std::iter::empty()).map_err(|errors| errors.to_string())
    }

    #[test]
    fn an_outbound_has_the_settings_of_the_top_that_it_does_not_replace() {
        let top = "{ca_file: /ca, cert_file: /c, key_file: /k, min_version: 1.3}";
        let config = parse(
            top,
            "{ca_file: /own, server_name: 127.0.0.1, system_roots: false}",
        )
        .unwrap();
        let [first, second] = &config.routes[0].outbounds[..] else {
            panic!("expected two");
        };
        assert_eq!(first.tls, config.tls);
        let expected = Tls {
            ca_file: Some("/own".into()),
            system_roots: false,
            server_name: Some("127.0.0.1".to_owned()),
            ..config.tls.clone()
        };
        assert_eq!(second.tls, expected);
        assert_eq!(second.tls.min_version, TlsVersion::Tls13);
        assert_ne!(first.upstream(), second.upstream());
        let own = "{cert_file: /d, key_file: /l, min_version: '1.2'}";
        let config = parse(top, own).unwrap();
        let tls = &config.routes[0].outbounds[1].tls;
        assert_eq!(tls.min_version, TlsVersion::Tls12);
        assert_eq!(
            tls.client_certificate.as_ref().unwrap().key_file,
            PathBuf::from("/l")
        );
        let described = config.describe();
        let expected = "tls.cert_file /d tls.key_file /l tls.min_version 1.2\n";
        assert!(described.ends_with(expected), "{described}");
        let text = config.effective().replace('…', "");
        let reparsed = Config::parse(&text, "e", std::iter::empty()).unwrap();
        assert_eq!(&reparsed.routes[0].outbounds[1].tls, tls);
    }

    #[test]
    fn a_setting_that_cannot_be_used_is_an_error_with_its_place() {
        for (own, expected) in [
            (
                "{cert_file: /c}",
                "tls.cert_file: needs key_file, the file with its private key",
            ),
            ("{key_file: /c}", "tls.key_file: needs cert_file"),
            (
                "{server_name: 'a:443'}",
                "tls.server_name: found \"a:443\", expected a host name or an IP address",
            ),
            (
                "{min_version: 1.1}",
                "tls.min_version: found 1.1, expected 1.2 or 1.3",
            ),
            (
                "{ca_fil: /a}",
                "tls.ca_fil: unknown key, did you mean ca_file?",
            ),
            ("/a", "tls: found \"/a\", expected a mapping"),
        ] {
            let error = parse("{}", own).unwrap_err();
            let place = "c.yml:6:";
            let path = "keys[0].outbound[1].";
            assert!(
                error.starts_with(place) && error.contains(&format!("{path}{expected}")),
                "{error}"
            );
        }
    }

    #[test]
    fn settings_without_effect_are_a_warning() {
        let text = "keys:\n- inbound: http://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@m/1\n  outbound:\n  \
                    - {dsn: 'http://bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb@o/2', tls: {server_name: a}}\n";
        let config = Config::parse(text, "c.yml", std::iter::empty()).unwrap();
        assert_eq!(
            config.warnings,
            ["c.yml:4:63: keys[0].outbound[0].tls: has no effect: the DSN begins with http://"]
        );
        assert_eq!(config.routes[0].outbounds[0].upstream().tls, None);
    }
}
