//! The certificate of the upstreams, made for one run.
//!
//! It is its own authority; contenders that verify get it as a file.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::PrivateKeyDer;

use crate::engine::said;
use crate::far::FAR;

pub struct Tls {
    pub ca_file: PathBuf,
    pub server: Arc<ServerConfig>,
}

impl Tls {
    pub fn new(folder: &Path) -> Result<Tls, String> {
        let names = ["127.0.0.1".to_owned(), FAR.to_string()];
        let made = rcgen::generate_simple_self_signed(names).map_err(said("a certificate"))?;
        let ca_file = folder.join("ca.pem");
        fs::write(&ca_file, made.cert.pem()).map_err(said("a certificate"))?;
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let mut server = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                let builder = builder.with_no_client_auth();
                builder.with_single_cert(vec![made.cert.der().clone()], key)
            })
            .map_err(said("TLS"))?;
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Tls {
            ca_file,
            server: Arc::new(server),
        })
    }
}
