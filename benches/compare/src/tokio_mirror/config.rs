//! The configuration of the tokio build: the part of the mirror's own format that it understands.
//!
//! Other keys are ignored. An outbound may be a string or a map with `dsn`.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::sync::Arc;

use hyper::Uri;
use hyper::header::HeaderValue;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;

use crate::AnyError;

/// The routes, and the address to listen on.
pub struct Config {
    pub ip: String,
    pub port: u16,
    pub workers: Option<usize>,
    /// Whether upstreams are offered HTTP/2.
    pub is_http2: bool,
    /// By the key of the inbound DSN.
    pub routes: HashMap<String, Route>,
    ca_file: Option<String>,
}

pub struct Route {
    pub outbounds: Vec<Outbound>,
}

/// A parsed DSN.
pub struct Outbound {
    pub dsn: String,
    pub key: String,
    pub secret: Option<String>,
    /// Scheme and authority, with the path prefix.
    pub base: String,
    pub host: HeaderValue,
    pub project: String,
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(default = "any_address")]
    ip: String,
    #[serde(default)]
    port: u16,
    workers: Option<usize>,
    http2: Option<String>,
    keys: Vec<RawRoute>,
    #[serde(default)]
    tls: RawTls,
}

#[derive(Deserialize)]
struct RawRoute {
    inbound: String,
    outbound: Vec<RawOutbound>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawOutbound {
    Dsn(String),
    Options { dsn: String },
}

#[derive(Default, Deserialize)]
struct RawTls {
    ca_file: Option<String>,
}

fn any_address() -> String {
    "0.0.0.0".to_owned()
}

impl Config {
    pub fn read(path: &str) -> Result<Config, AnyError> {
        let raw: RawConfig = serde_yaml::from_reader(BufReader::new(File::open(path)?))?;
        let mut routes = HashMap::new();
        for route in raw.keys {
            let inbound = Outbound::parse(&route.inbound)?;
            let outbounds = route.outbound.iter().map(|outbound| match outbound {
                RawOutbound::Dsn(dsn) | RawOutbound::Options { dsn } => Outbound::parse(dsn),
            });
            let outbounds = outbounds.collect::<Result<_, _>>()?;
            routes.insert(inbound.key, Route { outbounds });
        }
        Ok(Config {
            ip: raw.ip,
            port: raw.port,
            workers: raw.workers,
            is_http2: raw.http2.is_some(),
            routes,
            ca_file: raw.tls.ca_file,
        })
    }

    pub fn tls(&self) -> Result<ClientConfig, AnyError> {
        let mut roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        if let Some(path) = &self.ca_file {
            for certificate in CertificateDer::pem_file_iter(path)? {
                roots.add(certificate?)?;
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        Ok(ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth())
    }
}

impl Outbound {
    fn parse(dsn: &str) -> Result<Outbound, AnyError> {
        let uri: Uri = dsn.parse()?;
        let authority = uri.authority().ok_or("a DSN needs a host")?.as_str();
        let (user, host) = authority.split_once('@').ok_or("a DSN needs a key")?;
        let (key, secret) = match user.split_once(':') {
            Some((key, secret)) => (key, Some(secret.to_owned()).filter(|it| !it.is_empty())),
            None => (user, None),
        };
        let (prefix, project) = uri.path().rsplit_once('/').ok_or("a DSN needs a project")?;
        let scheme = uri.scheme_str().unwrap_or("https");
        Ok(Outbound {
            dsn: dsn.to_owned(),
            key: key.to_owned(),
            secret,
            base: format!("{scheme}://{host}{prefix}"),
            host: HeaderValue::from_str(host)?,
            project: project.to_owned(),
        })
    }
}
