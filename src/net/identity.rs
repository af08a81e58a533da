//! A certificate with which the mirror proves who it is, and its key, from files.

use std::fmt::Display;
use std::path::Path;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::{CertificateFiles, read_regular_file};

/// A chain of certificates has some KiB.
const FILE_BYTES_MAX: u32 = 1024 * 1024;

/// A certificate chain and the key of its first certificate.
#[derive(Debug, PartialEq)]
pub(super) struct Identity {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Reads the files.
    ///
    /// # Errors
    /// What is wrong with one of them, for the operator.
    pub(super) fn read(files: &CertificateFiles) -> Result<Identity, String> {
        let CertificateFiles {
            cert_file,
            key_file,
        } = files;
        let pem = read("tls.cert_file", cert_file)?;
        let chain = certificates(&pem);
        let chain = chain.map_err(|problem| in_file("tls.cert_file", cert_file, &problem))?;
        let pem = read("tls.key_file", key_file)?;
        let is_encrypted = String::from_utf8_lossy(&pem).contains("ENCRYPTED");
        // The error would not say more, and must not show a part of the key.
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
            let problem = match is_encrypted {
                true => "holds a key with a passphrase, which the mirror cannot ask for; remove it with `openssl pkey`",
                false => "holds no private key; expected a PEM block `BEGIN PRIVATE KEY`",
            };
            in_file("tls.key_file", key_file, &problem)
        })?;
        Ok(Identity { chain, key })
    }

    pub(super) fn copy(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        (self.chain.clone(), self.key.clone_key())
    }
}

/// The certificates in the text of a file.
///
/// # Errors
/// There is none, or something that is none, as a predicate of the file.
pub(super) fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match found {
        Ok(found) if found.is_empty() => Err(
            "holds no certificate; expected at least one PEM block `BEGIN CERTIFICATE`".to_owned(),
        ),
        Ok(found) => Ok(found),
        Err(pem::Error::MissingSectionEnd { end_marker }) => Err(format!(
            "ends within a PEM block, before `END {}`; was it written whole?",
            String::from_utf8_lossy(&end_marker)
        )),
        Err(pem::Error::IllegalSectionStart { .. }) => {
            Err("has a line that begins a PEM block, but does not end in five hyphens".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Why rustls refuses the pair of files.
pub(super) fn unusable(files: &CertificateFiles, error: &rustls::Error) -> String {
    let problem: &dyn Display = match error {
        rustls::Error::InconsistentKeys(_) => &"is not the key of the certificate in tls.cert_file",
        other => other,
    };
    in_file("tls.key_file", &files.key_file, problem)
}

fn read(key: &str, path: &Path) -> Result<Vec<u8>, String> {
    read_regular_file(path, FILE_BYTES_MAX).map_err(|error| in_file(key, path, &error))
}

fn in_file(key: &str, path: &Path, problem: &dyn Display) -> String {
    format!("{key} {}: {problem}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_whole_certificates_is_told_of() {
        for (text, expected) in [
            ("", "holds no certificate; expected"),
            (
                "-----BEGIN CERTIFICATE-----\nMIIB\n",
                "ends within a PEM block, before `END CERTIFICATE`; was it written whole?",
            ),
            (
                "-----BEGIN CERTIFICATE\nMIIB\n",
                "has a line that begins a PEM block, but does not end in five hyphens",
            ),
            (
                "-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n",
                "base64 decode error",
            ),
        ] {
            let problem = certificates(text.as_bytes()).unwrap_err();
            assert!(problem.starts_with(expected), "{text}: {problem}");
        }
    }
}
