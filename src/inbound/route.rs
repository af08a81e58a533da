//! Assigns a route to a request: by the key in its head, or, for a tunnel, by the key in its envelope header.

use std::sync::Arc;
use std::time::Instant;

use tracing::error;

use crate::http::head::HeaderName;
use crate::inbound::authenticate::{
    envelope_key, find_key, find_route, reject_without_key, route_in_head,
};
use crate::mirror::core::Routing;
use crate::mirror::reply::rejection::Rejection;
use crate::mirror::request::Request;
use crate::mirror::routing::local_route::LocalRoutes;
use crate::mirror::routing::routes::Route;
use crate::runtime::memory_budget::MemoryReservation;
use crate::sentry::auth::FoundKey;
use crate::sentry::endpoint::{self, Endpoint};
use crate::sentry::envelope::{EnvelopeError, EnvelopeHeader};

/// Routes a request by the key in its head, and returns that key. If the key must be in the envelope header,
/// the request has no route yet.
pub(super) fn route_by_head(
    request: &mut Request,
    routing: &Routing,
    memory: &mut MemoryReservation,
) -> Result<Option<FoundKey>, Rejection> {
    let key = find_key(request)?;
    if let Some(route) = route_in_head(request, key.as_ref(), &routing.table)? {
        set_route(request, route, &routing.routes, memory)?;
    }
    Ok(key)
}

/// Routes the request of a tunnel by the key in its envelope header.
pub(super) fn route_by_envelope(
    request: &mut Request,
    key: Option<&FoundKey>,
    envelope: Result<Option<EnvelopeHeader>, EnvelopeError>,
    routing: &Routing,
    memory: &mut MemoryReservation,
) -> Result<(), Rejection> {
    // A malformed envelope header is not an error here: without a key, the body may not be an envelope.
    request.envelope = envelope.ok().flatten();
    let envelope_key = envelope_key(request.envelope.as_ref(), &request.body.decoded)
        .ok_or_else(|| reject_without_key(request, key))?;
    let route = find_route(&routing.table, &envelope_key)?;
    // The path belongs to the tunnel and is not an API path.
    if request.target.endpoint == Endpoint::Generic {
        let target = request.parsed.target;
        let edits = &mut request.head_edits;
        edits.retain(|edit| edit.span.start >= target.end);
        endpoint::edit_tunnel(target, edits);
        request.target.endpoint = Endpoint::Tunnel;
    }
    set_route(request, route, &routing.routes, memory)
}

/// Sets the route of a request. Rejects the request if it has passed this route before: then an outbound of
/// the route leads back to the mirror.
fn set_route(
    request: &mut Request,
    route: &Arc<Route>,
    routes: &LocalRoutes,
    memory: &mut MemoryReservation,
) -> Result<(), Rejection> {
    request.route = Some(routes.reference(route));
    let mut values = request.parsed.values(HeaderName::Via, &request.head);
    if request.parsed.has(HeaderName::Via) && route.via.is_among(&mut values) {
        if route.loop_log.is_due(Instant::now()) {
            error!(
                route = route.name,
                "rejected a request that has passed this mirror before (508): an outbound of this route leads back here, or two mirrors in a chain have the same inbound key, and each needs one of its own"
            );
        }
        return Err(Rejection::Loop);
    }
    memory.join_whole();
    Ok(())
}
