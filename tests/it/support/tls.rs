//! Certificates for tests.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose,
    IsCa, KeyPair,
};
use rustls::client::WantsClientCert;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::process::file;

/// A certificate authority.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        Authority::with_key(KeyPair::generate().unwrap())
    }

    pub(crate) fn with_key(key: KeyPair) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority {
            issuer: CertifiedIssuer::self_signed(params, key).unwrap(),
        }
    }

    pub(crate) fn server_config(&self, name: &str) -> ServerConfig {
        self.server_config_with(name, aws_lc_rs::default_provider())
    }

    /// The same with another cryptography provider.
    pub(crate) fn server_config_with(&self, name: &str, provider: CryptoProvider) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()])
            .unwrap()
            .signed_by(&key, &self.issuer)
            .unwrap();
        server_config(&certificate, &key, provider)
    }

    /// The settings of a server that requires a certificate of `clients`, and speaks only `versions`.
    pub(crate) fn server_config_for(
        &self,
        name: &str,
        clients: &Authority,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ServerConfig {
        let own = self.signed(&CertificateParams::new(vec![name.to_owned()]).unwrap());
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(clients.issuer.der().clone()).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider));
        ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(vec![own.certificate.der().clone()], own.private())
            .unwrap()
    }

    /// A certificate for clients, signed by this authority, and its key, in files.
    pub(crate) fn client_files(&self) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let client = self.signed(&params);
        let cert_file = file("client.pem", &client.pem());
        (cert_file, file("client.key", &client.key.serialize_pem()))
    }

    /// A certificate for servers with these names, signed by this authority, and its key, in files.
    pub(crate) fn server_files(&self, names: &[&str]) -> (PathBuf, PathBuf) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let server = self.signed(&CertificateParams::new(names).unwrap());
        server.files()
    }

    /// The settings of a client that trusts this authority.
    pub(crate) fn client_config(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ConfigBuilder<ClientConfig, WantsClientCert> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
    }

    /// A certificate with these parameters, signed by this authority, and its key.
    pub(crate) fn signed(&self, params: &CertificateParams) -> Certified {
        self.signed_for(params, KeyPair::generate().unwrap())
    }

    /// The same for a key that is there already.
    pub(crate) fn signed_for(&self, params: &CertificateParams, key: KeyPair) -> Certified {
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Certified { certificate, key }
    }

    /// Its certificate.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// The lines of a configuration that trust it.
    pub(crate) fn ca_file(&self) -> String {
        ca_file(&self.pem())
    }
}

/// A certificate with its key.
pub(crate) struct Certified {
    certificate: Certificate,
    key: KeyPair,
}

impl Certified {
    /// A self-signed certificate with these parameters.
    pub(crate) fn by_itself(params: &CertificateParams) -> Certified {
        Certified::with_key(params, KeyPair::generate().unwrap())
    }

    /// Another certificate with these parameters for the same key.
    pub(crate) fn renewed(self, params: &CertificateParams) -> Certified {
        Certified::with_key(params, self.key)
    }

    fn with_key(params: &CertificateParams, key: KeyPair) -> Certified {
        let certificate = params.self_signed(&key).unwrap();
        Certified { certificate, key }
    }

    fn private(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()))
    }

    /// The certificate and the key in files.
    pub(crate) fn files(&self) -> (PathBuf, PathBuf) {
        let cert_file = file("certificate.pem", &self.pem());
        (
            cert_file,
            file("certificate.key", &self.key.serialize_pem()),
        )
    }

    pub(crate) fn server_config(&self) -> ServerConfig {
        server_config(&self.certificate, &self.key, aws_lc_rs::default_provider())
    }

    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }
}

/// The lines of a configuration that trust the certificates in `pem`.
pub(crate) fn ca_file(pem: &str) -> String {
    format!("tls: {{ca_file: {}}}", file("ca.pem", pem).display())
}

fn server_config(
    certificate: &Certificate,
    key: &KeyPair,
    provider: CryptoProvider,
) -> ServerConfig {
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .unwrap()
}
