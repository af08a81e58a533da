//! How the mirror and the server of an outbound prove to each other who they are.

use std::path::PathBuf;

/// `tls`, at the top or of an outbound.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tls {
    /// A file with PEM certificates that upstreams are verified with, in addition to the built-in roots.
    pub ca_file: Option<PathBuf>,
    /// Whether to trust the certificates of the operating system.
    pub system_roots: bool,
    pub client_certificate: Option<CertificateFiles>,
    /// The name for SNI and for the verification of the certificate, instead of the host of the DSN.
    pub server_name: Option<String>,
    pub min_version: TlsVersion,
}

/// `tls` of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// At least one. A client gets the first that has the name it asks for, or else the first.
    pub certificates: Vec<CertificateFiles>,
    /// A file with PEM certificates of the authorities whose certificates clients must have.
    pub client_ca_file: Option<PathBuf>,
    pub min_version: TlsVersion,
}

/// Where a certificate of the mirror and its key are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertificateFiles {
    /// PEM, the certificate itself first, then the authorities between it and the root.
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

impl TlsVersion {
    pub(super) const NAMES: [(&'static str, TlsVersion); 2] =
        [("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];
}

impl Default for Tls {
    fn default() -> Tls {
        Tls {
            ca_file: None,
            system_roots: true,
            client_certificate: None,
            server_name: None,
            min_version: TlsVersion::Tls12,
        }
    }
}

impl Tls {
    /// The settings that do not concern a single server.
    pub(crate) fn without_name(&self) -> Tls {
        Tls {
            server_name: None,
            ..self.clone()
        }
    }

    /// Whether there are files to be read.
    pub(crate) fn has_files(&self) -> bool {
        self.ca_file.is_some() || self.client_certificate.is_some()
    }
}
