//! What workers need of a configuration: routes, origins with their TLS, bounds.
//!
//! A plan is made as a whole or not at all, shared by all workers, and never changes. A reload makes
//! another one.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;

use crate::config::{Config, ReplyPolicy};
use crate::limits::Limits;
use crate::mirror::routes::Routes;
use crate::sentry::dsn::{Origin, Scheme};
use crate::upstream::origin::{SharedOrigin, TlsIdentity};
use crate::upstream::tls;

/// The part of a configuration that workers need.
pub struct Plan {
    /// The route table.
    pub routes: Routes,
    /// The origins of [`Routes::origins`], in the same order.
    pub origins: Vec<Arc<SharedOrigin>>,
    /// All bounds.
    pub limits: Arc<Limits>,
    /// Who decides the reply.
    pub reply_policy: ReplyPolicy,
    /// How long the SDK waits at most.
    pub reply_timeout: Duration,
    /// Whether the header of an envelope is rewritten.
    pub modify_envelope: bool,
    /// Whether outbounds learn the SDK's address.
    pub forward_client_ip: bool,
    /// Where browsers reach the mirror, if it was told.
    pub external_url: Option<String>,
}

impl Plan {
    /// The plan for `config` and so many workers. What the `previous` plan knows of an origin's addresses and of an
    /// outbound's rate limits is kept, and so is what was counted.
    ///
    /// # Errors
    /// What is wrong with the TLS settings, in words for an operator.
    pub fn new(config: &Config, workers: usize, previous: Option<&Plan>) -> Result<Plan, String> {
        let known_routes = previous.map(|previous| &previous.routes);
        let routes = Routes::for_workers(workers, config, known_routes);
        let is_https = |origin: &Origin| origin.scheme == Scheme::Https;
        let client = match routes.origins().iter().any(is_https) {
            true => Some(tls::client_config(
                config.tls.ca_file.as_deref(),
                config.tls.system_roots,
            )?),
            false => None,
        };
        let known_as = |origin: &Origin| {
            let known = previous.map(|previous| &previous.origins);
            known?.iter().find(|known| known.origin == *origin)
        };
        let share = |origin: &Origin| match &client {
            Some(client) if is_https(origin) => {
                // TLS settings are read anew, so its connections are not kept.
                let identity = TlsIdentity {
                    config: Arc::clone(client),
                    server_name: server_name(origin)?,
                };
                Ok(Arc::new(match known_as(origin) {
                    Some(known) => known.with_tls(identity),
                    None => SharedOrigin::new(workers, origin.clone(), Some(identity)),
                }))
            }
            Some(_) | None => {
                let new = || Arc::new(SharedOrigin::new(workers, origin.clone(), None));
                Ok(known_as(origin).map_or_else(new, Arc::clone))
            }
        };
        let origins: Result<_, String> = routes.origins().iter().map(share).collect();
        Ok(Plan {
            origins: origins?,
            routes,
            limits: Arc::new(config.limits.clone()),
            reply_policy: config.reply_policy,
            reply_timeout: config.reply_timeout,
            modify_envelope: config.modify_envelope,
            forward_client_ip: config.forward_client_ip,
            external_url: config.external_url.clone(),
        })
    }
}

fn server_name(origin: &Origin) -> Result<ServerName<'static>, String> {
    ServerName::try_from(origin.host.clone())
        .map_err(|error| format!("the host of {origin} cannot be used with TLS: {error}"))
}
