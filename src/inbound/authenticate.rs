//! Finds the key of a request, and with it the route.
//!
//! Most requests have the key in the head. An envelope may have it only in its own header, as with the SDK
//! option `tunnel`. A request without a key is rejected as Relay would reject it.

use std::sync::Arc;

use crate::http::head::{HeaderName, Method};
use crate::mirror::reply::rejected_key::RejectedKey;
use crate::mirror::reply::rejection::Rejection;
use crate::mirror::request::Request;
use crate::mirror::routing::routes::Route;
use crate::mirror::routing::routing_table::RoutingTable;
use crate::sentry::auth::{self, AuthHeader, FoundKey, Source};
use crate::sentry::dsn;
use crate::sentry::endpoint::{Endpoint, Target};
use crate::sentry::envelope::{self, EnvelopeHeader};

/// Finds the key in the head, and adds an edit for each of its key sites.
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

/// The route of the key in the head; `None` if the key has to be in the envelope header.
///
/// That is so in a tunnel request, and where [`may_name_key_in_body`] holds and the head has no key. The user
/// of HTTP Basic is no key there unless it is a configured one: the site that hosts a tunnel may have users of
/// its own.
pub(super) fn route_in_head<'t>(
    request: &Request,
    key: Option<&FoundKey>,
    table: &'t RoutingTable,
) -> Result<Option<&'t Arc<Route>>, Rejection> {
    let endpoint = request.target.endpoint;
    // Outside the API a key in the head is ignored: Relay has no such path, and the body may not be an
    // envelope.
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

/// Whether the key may be only in the body. The SDK option `tunnel` sends it nowhere else, to any path that
/// the user configures.
fn may_name_key_in_body(endpoint: Endpoint, method: Method) -> bool {
    match endpoint {
        Endpoint::Envelope | Endpoint::Tunnel => true,
        Endpoint::Generic => method == Method::Post,
        _ => false,
    }
}

/// Whether a request to the path of a tunnel was meant for an endpoint of Sentry: its head has a key, which a
/// tunnel does not need. A user of HTTP Basic does not count, because the site that hosts a tunnel may have
/// users of its own.
fn is_meant_for_sentry(target: &Target, key: Option<&FoundKey>) -> bool {
    target.names_key || key.is_some_and(|key| key.source != Source::Basic)
}

/// The rejection of a request without a key in its body.
pub(super) fn reject_without_key(request: &Request, key: Option<&FoundKey>) -> Rejection {
    let (head, target) = (&request.head, &request.target);
    match (target.endpoint, key) {
        // Relay has no such path.
        (Endpoint::Tunnel, _) if is_meant_for_sentry(target, key) => Rejection::NotFound,
        (Endpoint::Tunnel, _) => Rejection::NoEnvelopeKey,
        // The user of HTTP Basic must be the key.
        (_, Some(key)) => reject_key(key.bytes(head)),
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

pub(super) fn find_route<'t>(
    table: &'t RoutingTable,
    key: &[u8],
) -> Result<&'t Arc<Route>, Rejection> {
    let route = table.routes.find(key);
    route.ok_or_else(|| reject_key(key))
}

/// The rejection of a key that is not configured.
fn reject_key(key: &[u8]) -> Rejection {
    let rejected = RejectedKey::new(key);
    match auth::is_well_formed(key) {
        true => Rejection::UnknownKey(rejected),
        false => Rejection::BadKey(rejected),
    }
}
