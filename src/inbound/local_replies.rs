//! Replies that need no outbound: health checks, preflights, and rejections of wrong paths and methods.

use crate::http::head::Method;
use crate::mirror::reply::Reply;
use crate::mirror::reply::rejection::Rejection;
use crate::mirror::request::Request;
use crate::sentry::endpoint::{self, Endpoint};

/// The reply to a request whose target is parsed; `None` if the request must be routed.
pub(super) fn reply(request: &Request) -> Option<Result<Reply, Rejection>> {
    let method = request.parsed.method;
    let is_read = matches!(method, Method::Get | Method::Head);
    let endpoint = request.target.endpoint;
    let path = endpoint::path(&request.head, request.parsed.target).slice(&request.head);
    match (endpoint, method) {
        (_, Method::Options) => Some(Ok(Reply::preflight(endpoint))),
        (Endpoint::Tunnel, Method::Post) => None,
        (Endpoint::Tunnel, _) if request.target.lacks_project => Some(Err(Rejection::BadProject)),
        (Endpoint::Tunnel, _) => match path {
            b"/health" | b"/health/" if is_read => Some(Ok(Reply::health())),
            _ => Some(Err(Rejection::NotFound)),
        },
        // A Relay that lost its connection to the mirror retries this until it gets a 2xx.
        (Endpoint::Generic, _) if is_read && is_liveness(path) => Some(Ok(Reply::alive())),
        // The location of a resumable upload is signed by one upstream, so it cannot be mirrored. 404
        // makes sentry-native drop the attachment and keep the event.
        (Endpoint::Upload, _) => Some(Err(Rejection::NotFound)),
        _ if !endpoint.allows(request.method()) => Some(Err(Rejection::Method(endpoint))),
        _ => None,
    }
}

/// Whether this is the path at which a Relay checks that its upstream is alive.
fn is_liveness(path: &[u8]) -> bool {
    path.strip_suffix(b"/").unwrap_or(path) == b"/api/0/relays/live"
}
