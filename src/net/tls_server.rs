//! The TLS settings of a listener: its certificates, whose files are read again while it is used.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::aws_lc_rs::{self, Ticketer};
use rustls::pki_types::CertificateDer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoClientAuth, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, SignatureScheme};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::config::ListenerTls;
use crate::net::identity::{Identity, unusable};
use crate::net::tls_client::{authorities, versions};
use crate::telemetry::words;

/// How many session tickets a client gets. SDKs keep one connection open and resume one at a time.
const TICKETS: usize = 1;

/// How many bytes of a subject or name are shown.
const NAME_BYTES_MAX: usize = 200;

/// What the connections of one listener are accepted with.
pub(crate) struct TlsServer {
    settings: ListenerTls,
    current: RwLock<Arc<Loaded>>,
}

/// What was read from the files.
pub(crate) struct Loaded {
    pub(crate) config: Arc<ServerConfig>,
    /// In the order of the configuration.
    pub(crate) certificates: Vec<Certificate>,
    identities: Vec<Identity>,
    authorities: Vec<CertificateDer<'static>>,
}

/// A certificate as people read of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certificate {
    pub(crate) file: PathBuf,
    pub(crate) subject: String,
    /// Those that it is valid for: host names, which may begin with `*.`, and addresses.
    pub(crate) names: Vec<String>,
    /// Unix time in seconds.
    pub(crate) not_after: i64,
}

impl TlsServer {
    /// # Errors
    /// What is wrong with a file, for the operator.
    pub(crate) fn load(settings: &ListenerTls) -> Result<TlsServer, String> {
        Ok(TlsServer {
            settings: settings.clone(),
            current: RwLock::new(Arc::new(Loaded::read(settings)?)),
        })
    }

    /// What new connections are accepted with.
    pub(crate) fn current(&self) -> Arc<Loaded> {
        let current = self.current.read();
        Arc::clone(&current.unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the files again. Returns whether they hold something else.
    ///
    /// # Errors
    /// What is wrong with a file, for the operator. Nothing has changed then.
    pub(crate) fn reload(&self) -> Result<bool, String> {
        let loaded = Loaded::read(&self.settings)?;
        let known = self.current();
        if known.identities == loaded.identities && known.authorities == loaded.authorities {
            return Ok(false);
        }
        // With other ticket keys, too: no session survives its certificate, or the authority of its client.
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
        Ok(true)
    }

    /// Tells one state of the files from another. Symbolic links are followed.
    pub(crate) fn stamp(&self) -> Vec<Option<FileStamp>> {
        let files = self.settings.certificates.iter();
        let files = files.flat_map(|files| [&files.cert_file, &files.key_file]);
        let files = files.chain(&self.settings.client_ca_file);
        files.map(|path| FileStamp::of(path)).collect()
    }
}

/// What changes with a file: device, inode, length, and when data and inode were changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileStamp([i64; 7]);

impl FileStamp {
    fn of(path: &Path) -> Option<FileStamp> {
        let found: Metadata = path.metadata().ok()?;
        Some(FileStamp([
            found.dev().cast_signed(),
            found.ino().cast_signed(),
            found.size().cast_signed(),
            found.mtime(),
            found.mtime_nsec(),
            found.ctime(),
            found.ctime_nsec(),
        ]))
    }
}

impl Loaded {
    fn read(settings: &ListenerTls) -> Result<Loaded, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let (mut identities, mut certificates) = (Vec::new(), Vec::new());
        let mut choice = ByName::default();
        for files in &settings.certificates {
            let identity = Identity::read(files)?;
            let (chain, key) = identity.copy();
            let certificate = Certificate::read(&files.cert_file, &chain)?;
            let certified = CertifiedKey::from_der(chain, key, &provider);
            let certified = certified.map_err(|error| unusable(files, &error))?;
            choice.add(&certificate.names, Arc::new(certified));
            certificates.push(certificate);
            identities.push(identity);
        }
        let (mut roots, mut authorities_read) = (RootCertStore::empty(), Vec::new());
        let verifier: Arc<dyn ClientCertVerifier> = match &settings.client_ca_file {
            None => Arc::new(NoClientAuth),
            Some(path) => {
                authorities_read = authorities("tls.client_ca_file", path)?;
                for certificate in &authorities_read {
                    let added = roots.add(certificate.clone());
                    let file = path.display();
                    added.map_err(|error| format!("tls.client_ca_file {file}: {error}"))?;
                }
                let (roots, provider) = (Arc::new(roots), Arc::clone(&provider));
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                verifier.build().map_err(|error| error.to_string())?
            }
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions(settings.min_version))
            .map_err(|error| error.to_string())?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(choice));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A request in early data could be sent again by anyone who saw it (RFC 8446 section 8).
        config.max_early_data_size = 0;
        // Sessions are kept by the clients, so that their number costs no memory here.
        config.ticketer = Ticketer::new().map_err(|error| error.to_string())?;
        config.send_tls13_tickets = TICKETS;
        Ok(Loaded {
            config: Arc::new(config),
            certificates,
            identities,
            authorities: authorities_read,
        })
    }
}

impl Certificate {
    fn read(file: &Path, chain: &[CertificateDer<'static>]) -> Result<Certificate, String> {
        let first = chain
            .first()
            .map(|first| first.as_ref())
            .unwrap_or_default();
        let (_, read) = X509Certificate::from_der(first)
            .map_err(|error| format!("tls.cert_file {}: {error}", file.display()))?;
        let alternatives = read.subject_alternative_name().ok().flatten();
        let alternatives = alternatives
            .iter()
            .flat_map(|found| &found.value.general_names);
        let names = alternatives.filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(shown(name).to_ascii_lowercase()),
            GeneralName::IPAddress(bytes) => address(bytes),
            _ => None,
        });
        Ok(Certificate {
            file: file.to_owned(),
            subject: shown(&read.subject().to_string()),
            names: names.collect(),
            not_after: read.validity().not_after.timestamp(),
        })
    }
}

fn shown(name: &str) -> String {
    words::sanitized(name.as_bytes(), NAME_BYTES_MAX, &[])
}

fn address(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(std::net::IpAddr::from);
    let v6 = <[u8; 16]>::try_from(bytes).map(std::net::IpAddr::from);
    v4.or(v6).ok().map(|address| address.to_string())
}

/// Chooses a certificate by the name that the client asks for.
#[derive(Debug, Default)]
struct ByName {
    /// By name. Several certificates may have the same, with keys of different kinds.
    named: HashMap<String, Vec<Arc<CertifiedKey>>>,
    all: Vec<Arc<CertifiedKey>>,
}

impl ByName {
    fn add(&mut self, names: &[String], certified: Arc<CertifiedKey>) {
        for name in names {
            let named = self.named.entry(name.clone()).or_default();
            named.push(Arc::clone(&certified));
        }
        self.all.push(certified);
    }

    /// The certificates for `name`, or else all, as the first is the default.
    fn candidates(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        // rustls has lowered the case. A wildcard stands for one label (RFC 9525 section 6.3).
        let wildcard = || Some(format!("*.{}", name?.split_once('.')?.1));
        let named = name.and_then(|name| self.named.get(name));
        let named = named.or_else(|| self.named.get(&wildcard()?));
        named.map_or(&*self.all, |named| named)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let candidates = self.candidates(hello.server_name());
        let schemes: &[SignatureScheme] = hello.signature_schemes();
        let fits = |own: &&Arc<CertifiedKey>| own.key.choose_scheme(schemes).is_some();
        let chosen = candidates.iter().find(fits).or(candidates.first());
        chosen.cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::config::{CertificateFiles, TlsVersion};

    /// A self-signed certificate for `names`, and its key, in a folder for this test.
    fn files(folder: &Path, names: &[&str]) -> CertificateFiles {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key);
        let own = CertificateFiles {
            cert_file: folder.join("a.pem"),
            key_file: folder.join("a.key"),
        };
        fs::write(&own.cert_file, certificate.unwrap().pem()).unwrap();
        fs::write(&own.key_file, key.serialize_pem()).unwrap();
        own
    }

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("tls-server-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn only_other_certificates_are_put_in_force() {
        let folder = folder("reload");
        let settings = ListenerTls {
            certificates: vec![files(&folder, &["A.example", "*.b.example", "192.0.2.1"])],
            client_ca_file: None,
            min_version: TlsVersion::Tls12,
        };
        let server = TlsServer::load(&settings).unwrap();
        let first = server.current();
        assert_eq!(
            first.certificates[0].names,
            ["a.example", "*.b.example", "192.0.2.1"]
        );
        assert_eq!(server.reload(), Ok(false));
        assert!(Arc::ptr_eq(&first, &server.current()));
        let stamp = server.stamp();
        assert_eq!(stamp, server.stamp());
        files(&folder, &["c.example"]);
        assert_ne!(stamp, server.stamp());
        assert_eq!(server.reload(), Ok(true));
        assert_eq!(server.current().certificates[0].names, ["c.example"]);
        fs::remove_file(folder.join("a.key")).unwrap();
        assert!(server.reload().unwrap_err().starts_with("tls.key_file "));
        assert_eq!(server.current().certificates[0].names, ["c.example"]);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_name_has_its_certificates_or_the_default() {
        let folder = folder("names");
        let mut choice = ByName::default();
        let sets = [
            &["a.example"][..],
            &["*.a.example"],
            &["a.example", "b.example"],
        ];
        for names in sets {
            let identity = Identity::read(&files(&folder, names)).unwrap();
            let (chain, key) = identity.copy();
            let certified = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider());
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            choice.add(&names, Arc::new(certified.unwrap()));
        }
        for (name, expected) in [
            (Some("a.example"), &[0, 2][..]),
            (Some("x.a.example"), &[1]),
            (Some("x.y.a.example"), &[0, 1, 2]),
            (Some("b.example"), &[2]),
            (Some("example"), &[0, 1, 2]),
            (None, &[0, 1, 2]),
        ] {
            let found = choice.candidates(name).iter().map(|own| {
                let same = |known: &Arc<CertifiedKey>| Arc::ptr_eq(known, own);
                choice.all.iter().position(same).unwrap()
            });
            assert_eq!(found.collect::<Vec<_>>(), expected, "{name:?}");
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
