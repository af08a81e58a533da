//! An outbound as commands ask it: where it is, and what goes there.

use std::time::Instant;

use crate::blocking::client::{Answer, Failure, Server};
use crate::mirror::routes::{Outbound, Route};
use crate::mirror::routing_table::RoutingTable;
use crate::trial::envelope;

#[derive(Clone)]
pub(super) struct Target {
    /// The DSN with its key shortened, behind the name if it has one.
    pub(super) label: String,
    pub(super) project: String,
    /// The key and the secret, which no output may show.
    pub(super) credentials: [String; 2],
    server: Server,
    path: String,
    host: String,
    auth: String,
    /// The configured header lines.
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
        let headers = outbound.headers.as_ref();
        let fields = headers.map_or(&[][..], |headers| headers.lines());
        let fields = String::from_utf8_lossy(fields);
        Some(Target {
            label,
            project: outbound.project.clone(),
            credentials: [outbound.key.clone(), secret],
            server: Server {
                host: shared.origin.host.clone(),
                port: shared.origin.port,
                tls: shared.tls.clone(),
            },
            path: outbound.envelope_path.clone(),
            host: outbound.host.clone(),
            auth,
            fields: fields.into_owned(),
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
        self.server.ask(&request, deadline)
    }
}
