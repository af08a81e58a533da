//! An outbound as commands ask it: where it is, and what goes there.

use std::fmt::Display;
use std::time::Instant;

use crate::blocking::client::{Answer, Failure, Server};
use crate::config::Proxy;
use crate::mirror::routing::routes::{Outbound, Route};
use crate::mirror::routing::routing_table::RoutingTable;
use crate::trial::envelope;
use crate::upstream::tunnel;

#[derive(Clone)]
pub(super) struct Target {
    /// The DSN with its key shortened, behind the name if it has one.
    pub(super) label: String,
    pub(super) project: String,
    /// What no output may show.
    pub(super) credentials: Vec<String>,
    server: Server,
    /// The host and port of the proxy.
    proxy: Option<String>,
    path: String,
    host: String,
    auth: String,
    /// The header lines of the outbound.
    fields: String,
}

impl Target {
    /// `None` if `table` is not the one that `outbound` is of.
    pub(super) fn new(table: &RoutingTable, outbound: &Outbound) -> Option<Target> {
        let shared = table.origins.get(outbound.origin)?;
        let secret = outbound.secret.clone().unwrap_or_default();
        let mut auth = outbound.key_parameter.clone();
        if !secret.is_empty() {
            auth += &format!(", sentry_secret={secret}");
        }
        let dsn = &outbound.shortened_dsn;
        let label = match outbound.name.starts_with(dsn.as_str()) {
            true => outbound.name.clone(),
            false => format!("{} ({dsn})", outbound.name),
        };
        let credentials = outbound.credentials().into_iter();
        Some(Target {
            label,
            project: outbound.project.clone(),
            credentials: credentials.map(str::to_owned).collect(),
            server: Server {
                host: shared.dialled().host.clone(),
                port: shared.dialled().port,
                tls: shared.tls.clone(),
                connect: tunnel::connect_request(shared),
            },
            proxy: shared.proxy().map(Proxy::authority),
            path: outbound.envelope_path.clone(),
            host: outbound.host.clone(),
            auth,
            fields: outbound.header_lines(),
        })
    }

    /// The outbounds of a route.
    pub(super) fn of_route(table: &RoutingTable, route: &Route) -> Vec<Target> {
        let outbounds = route.outbounds.iter();
        outbounds
            .filter_map(|outbound| Target::new(table, outbound))
            .collect()
    }

    /// Sends an envelope, and returns what is answered.
    pub(super) fn send(&self, body: &[u8], deadline: Instant) -> Result<Answer, Failure> {
        let request = envelope::request(&self.path, &self.host, &self.auth, &self.fields, body);
        let answer = self.server.ask(&request, deadline);
        let Some(proxy) = &self.proxy else {
            return answer;
        };
        let by_proxy =
            |reason: &dyn Display| Failure::new(format!("through the proxy {proxy}: {reason}"));
        match answer {
            Err(failure) => Err(by_proxy(&failure)),
            Ok(answer) if self.server.tls.is_none() && answer.status() == 407 => {
                Err(by_proxy(&"it answers 407, so it wants other credentials"))
            }
            Ok(answer) => Ok(answer),
        }
    }
}
