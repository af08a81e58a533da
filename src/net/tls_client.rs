//! The TLS settings for connections to upstreams.
//!
//! Certificates are always verified, see `certificate`; there is no switch to turn that off.

use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tracing::warn;

use crate::config::{Tls, TlsVersion, read_regular_file};
use crate::net::certificate::{PinnedCertificate, TrustAnchors, Verifier};
use crate::net::identity::{Identity, certificates, unusable};

/// The size of the session cache, for all origins and workers together. A resumed handshake costs less
/// than half of a full one.
const RESUMED_SESSIONS: usize = 1024;

/// The authorities of a whole system have 230 KB.
const AUTHORITIES_BYTES_MAX: u32 = 16 * 1024 * 1024;

/// What one `https` origin is spoken to with.
#[derive(Clone)]
pub struct TlsIdentity {
    /// Trusted roots, protocol versions and the session cache.
    pub config: Arc<ClientConfig>,
    /// The name for SNI and for the verification of the certificate.
    pub server_name: ServerName<'static>,
}

/// The TLS settings for all `https` origins.
#[derive(Clone)]
pub(crate) struct TlsClient {
    pub config: Arc<ClientConfig>,
    trusted: Arc<TrustAnchors>,
    identity: Option<Arc<Identity>>,
}

impl TlsClient {
    /// Makes a client from the built-in roots, those of the system if `settings` say so, and the files that they
    /// name. Returns `known`, which has the same settings, if it trusts the same certificates and has the same
    /// certificate itself.
    ///
    /// # Errors
    /// What is wrong with a file, for the operator.
    pub(crate) fn load(settings: &Tls, known: Option<&TlsClient>) -> Result<TlsClient, String> {
        let trusted = trusted(settings.ca_file.as_deref(), settings.system_roots)?;
        let files = settings.client_certificate.as_ref();
        let identity = files.map(Identity::read).transpose()?.map(Arc::new);
        if let Some(known) = known
            && is_same_set(&known.trusted.roots.roots, &trusted.roots.roots)
            && is_same_set(&known.trusted.pinned, &trusted.pinned)
            && known.identity == identity
        {
            return Ok(known.clone());
        }
        let trusted = Arc::new(trusted);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = Verifier::new(Arc::clone(&trusted), Arc::clone(&provider))?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions(settings.min_version))
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match (&identity, files) {
            (Some(identity), Some(files)) => {
                let (chain, key) = identity.copy();
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| unusable(files, &error))?
            }
            _ => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::in_memory_sessions(RESUMED_SESSIONS);
        Ok(TlsClient {
            config: Arc::new(config),
            trusted,
            identity,
        })
    }
}

static FROM_TLS12: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
static FROM_TLS13: [&SupportedProtocolVersion; 1] = [&TLS13];

pub(super) fn versions(min: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    match min {
        TlsVersion::Tls12 => &FROM_TLS12,
        TlsVersion::Tls13 => &FROM_TLS13,
    }
}

fn is_same_set<T: PartialEq>(one: &[T], other: &[T]) -> bool {
    one.len() == other.len() && one.iter().all(|root| other.contains(root))
}

fn trusted(ca_file: Option<&Path>, system_roots: bool) -> Result<TrustAnchors, String> {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if system_roots {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            warn!(%error, "a system root certificate cannot be read");
        }
        roots.add_parsable_certificates(found.certs);
    }
    let pinned = match ca_file {
        Some(path) => add_ca_file(&mut roots, path)?,
        None => Vec::new(),
    };
    Ok(TrustAnchors {
        roots: Arc::new(roots),
        pinned,
    })
}

/// Adds the certificates in a file to `roots`. Returns those that servers may also present themselves.
fn add_ca_file(roots: &mut RootCertStore, path: &Path) -> Result<Vec<PinnedCertificate>, String> {
    let mut pinned = Vec::new();
    for certificate in authorities("tls.ca_file", path)? {
        pinned.extend(PinnedCertificate::parse(&certificate));
        let added = roots.add(certificate);
        added.map_err(|error| format!("tls.ca_file {}: {error}", path.display()))?;
    }
    Ok(pinned)
}

/// The certificates in the file at `path`, which `key` names. There is at least one.
pub(super) fn authorities(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let in_file = |error: &dyn std::fmt::Display| format!("{key} {}: {error}", path.display());
    let pem = read_regular_file(path, AUTHORITIES_BYTES_MAX).map_err(|error| in_file(&error))?;
    certificates(&pem).map_err(|problem| in_file(&problem))
}
