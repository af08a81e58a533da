//! A certificate with which the mirror proves who it is, and its key, from files.

use std::fmt::Display;
use std::path::Path;

use rustls::pki_types::pem::PemObject;
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
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let chain = chain.map_err(|error| in_file("tls.cert_file", cert_file, &error))?;
        if chain.is_empty() {
            let expected =
                "holds no certificate; expected at least one PEM block `BEGIN CERTIFICATE`";
            return Err(in_file("tls.cert_file", cert_file, &expected));
        }
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
