//! The part of a configuration that workers need: routes, origins with their TLS configuration, limits.
//!
//! A table is immutable, and all workers share it. A reload builds a new one, which fails as a whole if the
//! TLS settings are invalid.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Config, ReplyPolicy, Tls};
use crate::http2::mode::Http2Mode;
use crate::limits::Limits;
use crate::mirror::request::client_address::ClientAddresses;
use crate::mirror::routing::routes::Routes;
use crate::mirror::routing::upstreams::{self, Known};
use crate::net::tls_clients::TlsClients;
use crate::sentry::dsn::Origin;
use crate::upstream::origin::SharedOrigin;

/// The part of a configuration that workers need.
pub struct RoutingTable {
    pub routes: Routes,
    /// What is shared about [`Routes::upstreams`], in the same order.
    pub origins: Vec<Arc<SharedOrigin>>,
    tls: TlsClients,
    pub limits: Arc<Limits>,
    pub reply_policy: ReplyPolicy,
    /// The maximum time that an SDK waits for the outcomes.
    pub reply_timeout: Duration,
    /// Whether to rewrite the headers of envelopes.
    pub modify_envelope: bool,
    pub client_addresses: ClientAddresses,
    /// Whether to count items by category.
    pub item_metrics: bool,
    /// How many tables since the start, with this one, did not count them.
    pub tables_without_items: u32,
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
        let https = routes.upstreams().iter();
        let mut settings: Vec<Tls> = https.filter_map(|upstream| upstream.tls.clone()).collect();
        // A configured file is always read, so that mistakes in it are reported at once.
        if config.tls.has_files() {
            settings.push(config.tls.clone());
        }
        let known_clients = previous.map(|previous| &previous.tls);
        let tls = TlsClients::load(settings.into_iter(), known_clients)?;
        let known = previous.map(|previous| Known {
            upstreams: previous.routes.upstreams(),
            shared: &previous.origins,
        });
        let known = known.unwrap_or(Known {
            upstreams: &[],
            shared: &[],
        });
        let origins = upstreams::share(routes.upstreams(), &tls, workers, known)?;
        for (origin, dependents) in origins.iter().zip(routes.dependents()) {
            origin.set_dependents(dependents);
        }
        set_protocols(config, &origins);
        let mut outbounds = routes.all().iter().flat_map(|route| &route.outbounds);
        let client_addresses = ClientAddresses::new(
            &config.client_address,
            outbounds.any(|outbound| outbound.gets_client_address),
            previous.map(|previous| &previous.client_addresses),
        );
        Ok(RoutingTable {
            origins,
            routes,
            tls,
            limits: Arc::new(config.limits.clone()),
            reply_policy: config.reply_policy,
            reply_timeout: config.reply_timeout,
            modify_envelope: config.modify_envelope,
            client_addresses,
            item_metrics: config.item_metrics,
            tables_without_items: previous.map_or(0, |previous| previous.tables_without_items)
                + u32::from(!config.item_metrics),
            external_url: config.external_url.clone(),
        })
    }

    /// Whether both tables have the same certificates, where both have the same TLS settings.
    pub(crate) fn trusts_as(&self, other: &RoutingTable) -> bool {
        self.tls.has_files_of(&other.tls)
    }
}

/// Sets which origins get HTTP/2. Their outbounds agree about it.
fn set_protocols(config: &Config, origins: &[Arc<SharedOrigin>]) {
    let outbounds = config.routes.iter().flat_map(|route| &route.outbounds);
    let modes: HashMap<&Origin, Http2Mode> = outbounds
        .map(|outbound| {
            (
                outbound.dsn.origin(),
                outbound.http2.unwrap_or(config.http2),
            )
        })
        .collect();
    for shared in origins {
        let mode = modes.get(&shared.origin).copied().unwrap_or_default();
        shared.protocol.set_mode(mode);
    }
}
