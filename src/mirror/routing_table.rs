//! The part of a configuration that workers need: routes, origins with their TLS configuration, limits.
//!
//! A table is immutable, and all workers share it. A reload builds a new one, which fails as a whole if the
//! TLS settings are invalid.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;

use crate::config::{Config, ReplyPolicy};
use crate::limits::Limits;
use crate::mirror::client_address::ClientAddresses;
use crate::mirror::routes::Routes;
use crate::net::tls_client::{TlsClient, TlsIdentity};
use crate::sentry::dsn::{Origin, Scheme};
use crate::upstream::origin::SharedOrigin;

/// The part of a configuration that workers need.
pub struct RoutingTable {
    pub routes: Routes,
    /// The origins of [`Routes::origins`], in the same order.
    pub origins: Vec<Arc<SharedOrigin>>,
    /// The TLS client, if an origin or the configuration needs it.
    tls: Option<TlsClient>,
    pub limits: Arc<Limits>,
    pub reply_policy: ReplyPolicy,
    /// The maximum time that an SDK waits for the outcomes.
    pub reply_timeout: Duration,
    /// Whether to rewrite the headers of envelopes.
    pub modify_envelope: bool,
    pub client_addresses: ClientAddresses,
    /// Whether to count items by category.
    pub item_metrics: bool,
    /// The URL at which browsers reach the mirror, if it is configured.
    pub external_url: Option<String>,
}

impl RoutingTable {
    /// Builds the table for `config`. Routes, outbounds and origins that are also in `previous` keep their state.
    ///
    /// # Errors
    /// The problem with the TLS settings, as a message for an operator.
    pub fn new(
        config: &Config,
        workers: usize,
        previous: Option<&RoutingTable>,
    ) -> Result<RoutingTable, String> {
        let known_routes = previous.map(|previous| &previous.routes);
        let routes = Routes::new(workers, config, known_routes);
        let is_https = |origin: &Origin| origin.scheme == Scheme::Https;
        let known_client = previous.and_then(|previous| previous.tls.as_ref());
        // A configured file is always read, so that mistakes in it are reported at once.
        let needs_tls = config.tls.ca_file.is_some() || routes.origins().iter().any(is_https);
        let client = match needs_tls {
            true => Some(TlsClient::load(
                config.tls.ca_file.as_deref(),
                config.tls.system_roots,
                known_client,
            )?),
            false => None,
        };
        let known = previous.into_iter().flat_map(|previous| &previous.origins);
        let known: HashMap<&Origin, &Arc<SharedOrigin>> =
            known.map(|known| (&known.origin, known)).collect();
        let known_as = |origin: &Origin| known.get(origin).copied();
        let share = |origin: &Origin| match &client {
            Some(client) if is_https(origin) => {
                let identity = TlsIdentity {
                    config: Arc::clone(&client.config),
                    server_name: server_name(origin)?,
                };
                Ok(match known_as(origin) {
                    Some(known) if known.trusts_as(&identity) => Arc::clone(known),
                    // Connections opened with other trusted roots are not reused.
                    Some(known) => Arc::new(known.with_tls(identity)),
                    None => Arc::new(SharedOrigin::new(workers, origin.clone(), Some(identity))),
                })
            }
            Some(_) | None => {
                let new = || Arc::new(SharedOrigin::new(workers, origin.clone(), None));
                Ok(known_as(origin).map_or_else(new, Arc::clone))
            }
        };
        let origins: Result<Vec<_>, String> = routes.origins().iter().map(share).collect();
        let origins = origins?;
        for (origin, dependents) in origins.iter().zip(routes.dependents()) {
            origin.set_dependents(dependents);
        }
        let mut outbounds = routes.all().iter().flat_map(|route| &route.outbounds);
        let client_addresses = ClientAddresses::new(
            &config.client_address,
            outbounds.any(|outbound| outbound.gets_client_address),
            previous.map(|previous| &previous.client_addresses),
        );
        Ok(RoutingTable {
            origins,
            routes,
            tls: client,
            limits: Arc::new(config.limits.clone()),
            reply_policy: config.reply_policy,
            reply_timeout: config.reply_timeout,
            modify_envelope: config.modify_envelope,
            client_addresses,
            item_metrics: config.item_metrics,
            external_url: config.external_url.clone(),
        })
    }

    /// Whether both tables trust the same certificates. Also true if one of them does not use TLS.
    pub(crate) fn trusts_as(&self, other: &RoutingTable) -> bool {
        match (&self.tls, &other.tls) {
            (Some(own), Some(other)) => Arc::ptr_eq(&own.config, &other.config),
            _ => true,
        }
    }
}

fn server_name(origin: &Origin) -> Result<ServerName<'static>, String> {
    ServerName::try_from(origin.host.clone())
        .map_err(|error| format!("the host of {origin} is not a valid TLS server name: {error}"))
}
