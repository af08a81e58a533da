//! Verification of server certificates.
//!
//! A server usually presents a chain of certificates that ends at a trusted root. A self-signed
//! certificate has no chain: `openssl req -x509` marks it as a certificate authority, which an end-entity
//! certificate in a chain must not be. So, as in curl and the SDKs, a certificate in `tls.ca_file` is also
//! trusted when the server itself presents it. Its names, validity and purpose are still checked, and
//! the server has to prove that it has the key.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, ExtendedKeyPurpose, RootCertStore,
    SignatureScheme,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

#[derive(Debug)]
pub(super) struct TrustAnchors {
    pub(super) roots: Arc<RootCertStore>,
    /// Certificates that servers may present themselves.
    pub(super) pinned: Vec<PinnedCertificate>,
}

/// A certificate that is trusted without a chain.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PinnedCertificate {
    bytes: CertificateDer<'static>,
    /// Unix time in seconds.
    not_before: i64,
    /// Unix time in seconds.
    not_after: i64,
    is_for_servers: bool,
}

impl PinnedCertificate {
    /// `None` if the certificate cannot be parsed. It may still serve as a root.
    pub(super) fn parse(bytes: &CertificateDer<'_>) -> Option<PinnedCertificate> {
        let (_, read) = X509Certificate::from_der(bytes).ok()?;
        let purposes = read.extended_key_usage().ok()?;
        let validity = read.validity();
        Some(PinnedCertificate {
            bytes: bytes.clone().into_owned(),
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
            // Without the extension, all purposes are allowed (RFC 5280 section 4.2.1.12).
            is_for_servers: purposes.is_none_or(|found| found.value.server_auth || found.value.any),
        })
    }

    fn verify(&self, name: &ServerName<'_>, now: UnixTime) -> Result<(), CertificateError> {
        let at = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if at < self.not_before {
            return Err(CertificateError::NotValidYetContext {
                time: now,
                not_before: unix_time(self.not_before),
            });
        }
        if at > self.not_after {
            return Err(CertificateError::ExpiredContext {
                time: now,
                not_after: unix_time(self.not_after),
            });
        }
        if !self.is_for_servers {
            return Err(CertificateError::InvalidPurposeContext {
                required: ExtendedKeyPurpose::ServerAuth,
                presented: Vec::new(),
            });
        }
        let parsed = ParsedCertificate::try_from(&self.bytes);
        match parsed.and_then(|parsed| verify_server_name(&parsed, name)) {
            Ok(()) => Ok(()),
            Err(Error::InvalidCertificate(error)) => Err(error),
            Err(_) => Err(CertificateError::BadEncoding),
        }
    }
}

/// When a certificate expires; `None` if it cannot be parsed.
pub(super) fn not_after(bytes: &CertificateDer<'_>) -> Option<UnixTime> {
    let (_, read) = X509Certificate::from_der(bytes).ok()?;
    Some(unix_time(read.validity().not_after.timestamp()))
}

fn unix_time(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

#[derive(Debug)]
pub(super) struct Verifier {
    trusted: Arc<TrustAnchors>,
    chains: Arc<WebPkiServerVerifier>,
}

impl Verifier {
    /// # Errors
    /// There are no roots.
    pub(super) fn new(
        trusted: Arc<TrustAnchors>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Verifier, String> {
        let roots = Arc::clone(&trusted.roots);
        let chains = WebPkiServerVerifier::builder_with_provider(roots, provider);
        let chains = chains.build().map_err(|error| error.to_string())?;
        Ok(Verifier { trusted, chains })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let mut pinned = self.trusted.pinned.iter();
        if let Some(pinned) = pinned.find(|pinned| pinned.bytes == *end_entity) {
            pinned.verify(server_name, now)?;
            return Ok(ServerCertVerified::assertion());
        }
        self.chains
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}
