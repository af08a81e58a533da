//! Which server certificates are trusted, and how they are checked.
//!
//! A server proves who it is with a chain of certificates that ends at a trusted root. A server with a
//! self-signed certificate has no chain: what `openssl req -x509` makes is marked as an authority, which
//! a server's own certificate in a chain must not be. So a certificate of `tls.ca_file` is also trusted
//! where the server itself presents it, as curl and the SDKs do: for the names, the times and the purpose
//! in it, with a proof that the server has its key.

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

/// What is trusted.
#[derive(Debug)]
pub(super) struct Trusted {
    /// Where chains may end.
    pub(super) roots: Arc<RootCertStore>,
    /// What servers may present themselves.
    pub(super) named: Vec<Named>,
}

/// A certificate that is trusted by itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    bytes: CertificateDer<'static>,
    /// In seconds after 1970.
    not_before: i64,
    not_after: i64,
    is_for_servers: bool,
}

impl Named {
    /// `None` where the certificate cannot be read: it may still be good as a root.
    pub(super) fn new(bytes: &CertificateDer<'_>) -> Option<Named> {
        let (_, read) = X509Certificate::from_der(bytes).ok()?;
        let purposes = read.extended_key_usage().ok()?;
        let validity = read.validity();
        Some(Named {
            bytes: bytes.clone().into_owned(),
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
            // RFC 5280 section 4.2.1.12: without the extension it is for all purposes.
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

fn unix_time(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// Checks what a server presents in a handshake.
#[derive(Debug)]
pub(super) struct Verifier {
    trusted: Arc<Trusted>,
    chains: Arc<WebPkiServerVerifier>,
}

impl Verifier {
    /// # Errors
    /// There are no roots.
    pub(super) fn new(
        trusted: Arc<Trusted>,
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
        let mut named = self.trusted.named.iter();
        if let Some(named) = named.find(|named| named.bytes == *end_entity) {
            named.verify(server_name, now)?;
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
