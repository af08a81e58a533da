//! Which key a request is routed by, and what it means where there is none.
//!
//! Mostly it stands in the head. An envelope may name it in its own header alone, which is what the SDK
//! option `tunnel` sends; what turns out to be no such envelope is refused as Relay would refuse it.

use std::sync::Arc;

use crate::http::head::{HeaderName, Method};
use crate::mirror::rejection::Rejection;
use crate::mirror::request::Request;
use crate::mirror::routes::Route;
use crate::mirror::routing_table::RoutingTable;
use crate::sentry::auth::{self, AuthHeader, FoundKey, Source};
use crate::sentry::dsn;
use crate::sentry::endpoint::{Endpoint, Target};
use crate::sentry::envelope::{self, EnvelopeHeader};

/// Finds the key in the head, and edits all places of it.
pub(super) fn find_key(request: &mut Request) -> Result<Option<FoundKey>, Rejection> {
    let Request {
        head,
        parsed,
        target,
        head_edits: edits,
        ..
    } = request;
    let headers = parsed.headers.iter().filter_map(|header| {
        let source = match header.name {
            HeaderName::XSentryAuth => AuthHeader::XSentryAuth,
            HeaderName::Authorization => AuthHeader::Authorization,
            _ => return None,
        };
        Some((source, header.value))
    });
    if target.endpoint == Endpoint::ErrorPage {
        let query = target.query.ok_or(Rejection::NoKey)?;
        let found = auth::find_in_dsn_parameter(head, query, edits);
        auth::edit_unread_headers(head, headers, edits).map_err(Rejection::Auth)?;
        return Ok(found);
    }
    let (query, path_key) = (target.query, target.path_key);
    let found = auth::find(head, headers, query, path_key, edits);
    let found = found.map_err(Rejection::Auth)?;
    if target.lacks_project && is_meant_for_sentry(target, found.as_ref()) {
        return Err(Rejection::BadProject);
    }
    Ok(found)
}

/// The route that the head asks for; `None` if the envelope header has to name the key. It has to if the
/// head has none, and if all that it has is the user of HTTP Basic, who is the site's unless that is a
/// configured key.
pub(super) fn route_in_head<'p>(
    request: &Request,
    key: Option<&FoundKey>,
    table: &'p RoutingTable,
) -> Result<Option<&'p Arc<Route>>, Rejection> {
    let endpoint = request.target.endpoint;
    // Outside the API a key in the head routes nothing: Relay has no such path, and what comes there may
    // be no envelope.
    if endpoint == Endpoint::Tunnel {
        return Ok(None);
    }
    let is_optional = may_name_key_in_body(endpoint, request.parsed.method);
    match key {
        None if is_optional => Ok(None),
        None => Err(Rejection::NoKey),
        Some(key) => match find_route(table, key.bytes(&request.head)) {
            Err(_) if is_optional && key.source == Source::Basic => Ok(None),
            found => found.map(Some),
        },
    }
}

/// Whether the key may stand in the body alone: the SDK option `tunnel` sends it nowhere else, and to
/// whatever path the user wants.
fn may_name_key_in_body(endpoint: Endpoint, method: Method) -> bool {
    match endpoint {
        Endpoint::Envelope | Endpoint::Tunnel => true,
        Endpoint::Generic => method == Method::Post,
        _ => false,
    }
}

/// Whether what looks like a tunnel is none, since its head names a key of Sentry's. Basic auth may be
/// that of the site a tunnel is on.
fn is_meant_for_sentry(target: &Target, key: Option<&FoundKey>) -> bool {
    target.names_key || key.is_some_and(|key| key.source != Source::Basic)
}

/// The refusal of a request whose key was looked for in its body, in vain.
pub(super) fn refuse_without_key(request: &Request, key: Option<&FoundKey>) -> Rejection {
    let (head, target) = (&request.head, &request.target);
    match (target.endpoint, key) {
        // Relay has nothing at such a path.
        (Endpoint::Tunnel, _) if is_meant_for_sentry(target, key) => Rejection::NotFound,
        (Endpoint::Tunnel, _) => Rejection::NoEnvelopeKey,
        // The user of HTTP Basic was meant for a key after all.
        (_, Some(key)) => refuse_key(key.bytes(head)),
        (Endpoint::Generic, None) => Rejection::NoKey,
        (_, None) => Rejection::NoEnvelopeKey,
    }
}

/// The key in the `dsn` of an envelope header.
pub(super) fn envelope_key(envelope: Option<&EnvelopeHeader>, body: &[u8]) -> Option<Vec<u8>> {
    let dsn = envelope.and_then(|envelope| envelope.dsn);
    let text = dsn.map(|dsn| envelope::unescape(dsn.slice(body)));
    text.as_deref()
        .and_then(dsn::key_in_text)
        .map(<[u8]>::to_vec)
}

pub(super) fn find_route<'p>(
    table: &'p RoutingTable,
    key: &[u8],
) -> Result<&'p Arc<Route>, Rejection> {
    let route = table.routes.find(key);
    route.ok_or_else(|| refuse_key(key))
}

/// The refusal of a key that is not configured.
fn refuse_key(key: &[u8]) -> Rejection {
    if auth::is_well_formed(key) {
        Rejection::UnknownKey
    } else {
        Rejection::BadKey
    }
}
