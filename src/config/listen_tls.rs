//! `tls` of a listener.

use std::path::PathBuf;

use serde_yaml::{Mapping, Value};

use super::node::{Node, Section};
use super::tls::version;
use super::tls_settings::{CertificateFiles, ListenerTls, TlsVersion};
use super::value::{name, text};

/// The settings in the mapping `node`. `None` if there is no certificate, which is reported.
pub(super) fn parse(node: Node<'_>) -> Option<ListenerTls> {
    if !node.is_mapping() {
        node.reject("a mapping with cert_file and key_file");
        return None;
    }
    let mut section = node.section();
    let list = section.take("certificates");
    let certificates = match list.is_absent() {
        true => Vec::from_iter(certificate(&mut section)),
        false => {
            for key in ["cert_file", "key_file"] {
                if section.has(key) {
                    section.error(key, "belongs into certificates, if there is such a list");
                }
                section.take(key);
            }
            let entries = list.required_list("a list such as [{cert_file: …, key_file: …}]");
            entries.into_iter().filter_map(entry).collect()
        }
    };
    let client_ca_file = section.take("client_ca_file").optional(text);
    let min_version = section.value("min_version", version, TlsVersion::Tls12);
    section.finish();
    (!certificates.is_empty()).then(|| ListenerTls {
        certificates,
        client_ca_file: client_ca_file.map(PathBuf::from),
        min_version,
    })
}

fn entry(node: Node<'_>) -> Option<CertificateFiles> {
    if !node.is_mapping() {
        node.reject("a mapping with cert_file and key_file");
        return None;
    }
    let mut section = node.section();
    let files = certificate(&mut section);
    section.finish();
    files
}

fn certificate(section: &mut Section<'_>) -> Option<CertificateFiles> {
    let cert_file = section.take("cert_file").required(text);
    let key_file = section.take("key_file").required(text);
    Some(CertificateFiles {
        cert_file: cert_file?.into(),
        key_file: key_file?.into(),
    })
}

/// The settings as they stand in a file.
pub(super) fn effective(tls: &ListenerTls) -> Mapping {
    let path = |path: &PathBuf| Value::from(path.display().to_string());
    let certificate = |files: &CertificateFiles| {
        let members = [
            ("cert_file", path(&files.cert_file)),
            ("key_file", path(&files.key_file)),
        ];
        Value::Mapping(mapping(members))
    };
    let client_ca_file = tls.client_ca_file.as_ref();
    mapping([
        (
            "certificates",
            Value::Sequence(tls.certificates.iter().map(certificate).collect()),
        ),
        ("client_ca_file", client_ca_file.map_or(Value::Null, path)),
        (
            "min_version",
            name(tls.min_version, TlsVersion::NAMES).into(),
        ),
    ])
}

fn mapping<const N: usize>(members: [(&str, Value); N]) -> Mapping {
    let members = members.into_iter();
    members
        .map(|(key, value)| (Value::from(key), value))
        .collect()
}

/// The settings in a few words.
pub(super) fn describe(tls: &ListenerTls) -> String {
    let version = name(tls.min_version, TlsVersion::NAMES);
    let mut words = format!("with TLS {version} or newer");
    if let Some(path) = &tls.client_ca_file {
        words = format!(
            "{words}, for clients with a certificate of {}",
            path.display()
        );
    }
    words
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn parse(tls: &str) -> Result<Config, String> {
        let (a, b) = ("a".repeat(32), "b".repeat(32));
        let text = format!(
            "keys: [{{inbound: 'http://{a}@m/1', outbound: ['http://{b}@o/2']}}]\nlisten:\n- {{address: '0.0.0.0:3443', tls: {tls}}}\n"
        );
        let config = Config::parse(&text, "c.yml", std::iter::empty());
        config.map_err(|errors| errors.to_string())
    }

    #[test]
    fn a_listener_has_one_certificate_or_several() {
        for (tls, files, words) in [
            (
                "{cert_file: /a.pem, key_file: /a.key}",
                &[("/a.pem", "/a.key")][..],
                "with TLS 1.2 or newer",
            ),
            (
                "{certificates: [{cert_file: /a, key_file: /b}, {cert_file: /c, key_file: /d}], min_version: 1.3, client_ca_file: /ca.pem}",
                &[("/a", "/b"), ("/c", "/d")],
                "with TLS 1.3 or newer, for clients with a certificate of /ca.pem",
            ),
        ] {
            let config = parse(tls).unwrap();
            let own = config.listen[0].tls.clone().unwrap();
            let found = own.certificates.iter().map(|files| {
                (
                    files.cert_file.to_str().unwrap(),
                    files.key_file.to_str().unwrap(),
                )
            });
            assert_eq!(found.collect::<Vec<_>>(), files);
            let plan = config.describe();
            let line = format!("listen on 0.0.0.0:3443 {words}\n");
            assert!(plan.contains(&line), "{plan}");
            let text = config.effective().replace('…', "");
            let again = Config::parse(&text, "e", std::iter::empty()).unwrap();
            assert_eq!(again.listen, config.listen, "{text}");
        }
    }

    #[test]
    fn settings_that_cannot_be_used_are_errors_with_their_place() {
        for (tls, expected) in [
            (
                "true",
                "3:34: listen[0].tls: found true, expected a mapping with cert_file",
            ),
            ("{}", "listen[0].tls.cert_file: found nothing, expected"),
            (
                "{cert_file: /a}",
                "listen[0].tls.key_file: found nothing, expected",
            ),
            (
                "{certificates: []}",
                "listen[0].tls.certificates: found an empty list",
            ),
            (
                "{certificates: [/a]}",
                "listen[0].tls.certificates[0]: found \"/a\", expected a mapping with cert_file",
            ),
            (
                "{cert_file: /a, certificates: [{cert_file: /a, key_file: /b}]}",
                "listen[0].tls.cert_file: belongs into certificates",
            ),
            (
                "{cert_file: /a, key_file: /b, min_version: 1.1}",
                "listen[0].tls.min_version: found 1.1, expected 1.2 or 1.3",
            ),
            (
                "{cert_file: /a, key_file: /b, ca_file: /c}",
                "listen[0].tls.ca_file: unknown key",
            ),
        ] {
            let error = parse(tls).unwrap_err();
            assert!(error.contains(expected), "{tls}: {error}");
        }
        let text = "listen: [{address: 'unix:/a', tls: {cert_file: /a, key_file: /b}}]\nkeys: []\n";
        let error = Config::parse(text, "c.yml", std::iter::empty()).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("listen[0].tls: is for addresses with a port only"),
            "{error}"
        );
    }
}
