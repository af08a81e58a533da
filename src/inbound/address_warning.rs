//! Warns once if users' devices send to the mirror and no outbound gets their addresses.
//!
//! Sentry then takes the mirror's address for that of every user, at all outbounds. Only the first request of a
//! connection is looked at, so that others cost nothing.

use tracing::warn;

use crate::http::head::HeaderName;
use crate::mirror::request::Request;
use crate::mirror::routing::routing_table::RoutingTable;
use crate::sentry::user_agent::is_on_device;

pub(super) fn warn_if_addresses_are_lost(table: &RoutingTable, request: &Request) {
    let Some(route) = request.route.as_deref() else {
        return;
    };
    if table.client_addresses.is_sent || !is_from_device(request) {
        return;
    }
    if table.client_addresses.should_warn() {
        warn!(
            route = route.name,
            "browsers or apps send to the mirror, and no outbound gets their addresses: Sentry shows the mirror's \
             address for all users. Set client_address and forward_client_ip, or forward_client_ip: false if this \
             is meant"
        );
    }
}

fn is_from_device(request: &Request) -> bool {
    let mut lines = request.parsed.headers.iter();
    let user_agent = lines.find(|line| {
        let name = line.name_span.slice(&request.head);
        line.name == HeaderName::Other && name.eq_ignore_ascii_case(b"user-agent")
    });
    user_agent.is_some_and(|line| is_on_device(line.value.slice(&request.head)))
}
