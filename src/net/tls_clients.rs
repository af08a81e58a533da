//! The TLS clients of a configuration: one for each distinct settings, so that servers with different ones share
//! neither trust nor sessions.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use rustls::pki_types::ServerName;

use crate::config::Tls;
use crate::net::tls_client::{TlsClient, TlsIdentity};

#[derive(Default)]
pub(crate) struct TlsClients {
    clients: HashMap<Tls, TlsClient>,
}

impl TlsClients {
    /// Reads the files of `settings`. A client whose files hold the same as before is that of `known`.
    ///
    /// # Errors
    /// What is wrong with a file, for the operator.
    pub(crate) fn load(
        settings: impl Iterator<Item = Tls>,
        known: Option<&TlsClients>,
    ) -> Result<TlsClients, String> {
        let mut clients = HashMap::new();
        for settings in settings {
            let settings = settings.without_name();
            if let Entry::Vacant(vacant) = clients.entry(settings) {
                let known = known.and_then(|known| known.clients.get(vacant.key()));
                let client = TlsClient::load(vacant.key(), known)?;
                vacant.insert(client);
            }
        }
        Ok(TlsClients { clients })
    }

    /// What a server with these settings, at `host`, is spoken to with.
    ///
    /// # Errors
    /// `host` is no name that TLS can verify.
    pub(crate) fn identity(&self, settings: &Tls, host: &str) -> Result<TlsIdentity, String> {
        let client = self.clients.get(&settings.without_name());
        let client = client.ok_or("TLS settings that were not loaded")?;
        let name = settings.server_name.as_deref().unwrap_or(host);
        let server_name = ServerName::try_from(name.to_owned())
            .map_err(|error| format!("{name} is not a valid TLS server name: {error}"))?;
        Ok(TlsIdentity {
            config: Arc::clone(&client.config),
            server_name,
        })
    }

    /// Whether no file that both have read has changed.
    pub(crate) fn has_files_of(&self, other: &TlsClients) -> bool {
        self.clients.iter().all(|(settings, own)| {
            let other = other.clients.get(settings);
            other.is_none_or(|other| Arc::ptr_eq(&own.config, &other.config))
        })
    }
}
