//! The way of one request from its head to its reply.
//!
//! [`handle`] tells it step by step: target, key, route, body, envelope, fan-out. The route is looked up
//! before the body is read, so that a request that goes nowhere costs no memory. Only an envelope whose
//! key stands in its own header has to be read first.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tracing::error;

use crate::config::ReplyPolicy;
use crate::http::encoding::Encoding;
use crate::http::framing::{self, Framing};
use crate::http::head::{HeaderName, Method};
use crate::inbound::authenticate::{
    envelope_key, find_key, find_route, refuse_without_key, route_in_head,
};
use crate::inbound::body::Received;
use crate::inbound::connection::{Abort, BodyState, Connection, held_with_head};
use crate::inbound::local_replies;
use crate::mirror::access_log::AccessLogEntry;
use crate::mirror::core::{Core, Routing};
use crate::mirror::crash_dialog;
use crate::mirror::dispatch::Dispatch;
use crate::mirror::fan_out::{FanOut, Kept};
use crate::mirror::head_edits::{self, PassedOn, Stray};
use crate::mirror::rejection::Rejection;
use crate::mirror::render;
use crate::mirror::reply::{Expected, Reply};
use crate::mirror::request::Request;
use crate::mirror::routes::Route;
use crate::mirror::routing_table::RoutingTable;
use crate::runtime::memory_budget::MemoryReservation;
use crate::sentry::auth::AuthError;
use crate::sentry::edit::EDITS_MAX;
use crate::sentry::endpoint::{self, Endpoint};
use crate::sentry::envelope::{self, EnvelopeHeader};
use crate::upstream::read_buffer::SMALL_BYTES;

/// The reply to the request whose head `connection` has read into `shared`, which nobody else holds yet.
/// What came takes `memory`.
pub(super) async fn handle(
    core: &Rc<Core>,
    routing: &Rc<Routing>,
    connection: &mut Connection,
    shared: &mut Rc<Request>,
    access: Option<Rc<AccessLogEntry>>,
    mut memory: MemoryReservation,
) -> Result<Reply, Abort> {
    let table = &routing.table;
    let request = Rc::make_mut(shared);
    let target = parse_target(request);
    let framing = framing::for_request(&request.parsed, &request.head);
    let framing = framing.map_err(Rejection::Framing)?;
    connection.body_state = BodyState::Unread(framing);
    target?;
    if let Some(reply) = local_replies::reply(request) {
        return reply.map_err(Abort::Rejected);
    }
    let key = find_key(request)?;
    if let Some(route) = route_in_head(request, key.as_ref(), table)? {
        take_route(request, route, &mut memory)?;
    }
    let encoding = Encoding::parse(
        request
            .parsed
            .values(HeaderName::ContentEncoding, &request.head),
    )
    .map_err(|_| Rejection::Encoding)?;
    let bytes = read_body(connection, request, framing, table, &mut memory).await?;
    let is_envelope = request.route.is_none() || request.is_envelope();
    let received = Received {
        bytes,
        encoding,
        is_envelope,
        route: request.route.as_deref(),
    };
    let is_routed = |front: &[u8], header: Option<EnvelopeHeader>| {
        let key = envelope_key(header.as_ref(), front)
            .ok_or_else(|| refuse_without_key(request, key.as_ref()))?;
        find_route(table, &key).map(drop)
    };
    let decoding = received.decode(table, &mut memory, &core.decoding, is_routed);
    let body = decoding.await?;
    request.body = body;
    let envelope = match is_envelope {
        true => scan_envelope(request, table),
        false => Ok(None),
    };
    let is_tunnelled = request.route.is_none();
    if !is_tunnelled {
        request.envelope = match envelope {
            // The body of an endpoint that is not known may be anything.
            Err(_) if request.target.endpoint == Endpoint::Generic => None,
            envelope => envelope?,
        };
    } else {
        // Without a key it may not be an envelope at all.
        request.envelope = envelope.ok().flatten();
        let key = envelope_key(request.envelope.as_ref(), &request.body.decoded)
            .ok_or_else(|| refuse_without_key(request, key.as_ref()))?;
        take_tunnel(request, find_route(table, &key)?, &mut memory)?;
    }
    let peer = connection.peer.ip();
    complete(request, table, is_tunnelled)?;
    request.client = table.forward_client_ip.then_some(peer);
    fan_out(shared, core, routing, access, memory).await
}

/// Finds out what the request asks for.
fn parse_target(request: &mut Request) -> Result<(), Rejection> {
    let (head, target) = (&request.head, request.parsed.target);
    request.target = endpoint::parse_target(head, target, &mut request.head_edits);
    let has_too_many_slashes = request.head_edits.len() >= EDITS_MAX;
    match has_too_many_slashes || endpoint::has_dot_segment(head, target) {
        true => Err(Rejection::NotFound),
        false => Ok(()),
    }
}

/// Lets a request go by `route`, unless it has been through that before: some outbound leads back to it.
fn take_route(
    request: &mut Request,
    route: &Arc<Route>,
    memory: &mut MemoryReservation,
) -> Result<(), Rejection> {
    request.route = Some(Arc::clone(route));
    let mut values = request.parsed.values(HeaderName::Via, &request.head);
    if request.parsed.has(HeaderName::Via) && route.via.is_among(&mut values) {
        if route.loop_lines.is_due(Instant::now()) {
            error!(
                route = route.name,
                "a request came back to the mirror that had sent it, and is refused (508): an outbound of this route leads to the mirror itself, perhaps over another one; where mirrors follow on each other, each needs an inbound key of its own"
            );
        }
        return Err(Rejection::Loop);
    }
    memory.join_whole();
    Ok(())
}

/// The same for the request of a tunnel, whose path is the site's.
fn take_tunnel(
    request: &mut Request,
    route: &Arc<Route>,
    memory: &mut MemoryReservation,
) -> Result<(), Rejection> {
    if request.target.endpoint == Endpoint::Generic {
        let target = request.parsed.target;
        let edits = &mut request.head_edits;
        edits.retain(|edit| edit.span.start >= target.end);
        endpoint::edit_tunnel(target, edits);
        request.target.endpoint = Endpoint::Tunnel;
    }
    take_route(request, route, memory)
}

async fn read_body(
    connection: &mut Connection,
    request: &mut Request,
    framing: Framing,
    table: &RoutingTable,
    memory: &mut MemoryReservation,
) -> Result<Bytes, Abort> {
    let limits = &table.limits;
    let bytes_max = limits.body_bytes;
    if matches!(framing, Framing::Length(length) if length > bytes_max) {
        return Err(Rejection::BodyTooLarge.into());
    }
    let is_awaited = !matches!(framing, Framing::Empty | Framing::Length(0));
    let expects_continue = request.parsed.expects_continue(&request.head);
    if is_awaited && expects_continue && !connection.has_body_bytes() {
        Box::pin(connection.write_continue(limits)).await?;
    }
    connection.body_state = BodyState::Broken;
    let reading = connection.read_body(framing, bytes_max, memory, limits);
    let bytes = reading.await?;
    connection.body_state = BodyState::Read;
    request.received_bytes = bytes.len();
    if !memory.resize(held_with_head(memory)) {
        return Err(Rejection::Overloaded.into());
    }
    Ok(bytes)
}

/// Finds what changes in the body, which should be an envelope.
fn scan_envelope(
    request: &mut Request,
    table: &RoutingTable,
) -> Result<Option<EnvelopeHeader>, Rejection> {
    if !request.body.is_whole && !table.modify_envelope {
        return Ok(None);
    }
    let (body, edits) = (&request.body.decoded, &mut request.body_edits);
    let scanned = envelope::scan_within(body, table.limits.envelope_header_bytes, edits);
    if scanned.is_err() || !table.modify_envelope {
        edits.clear();
    }
    match scanned {
        Ok(envelope) => Ok(Some(envelope)),
        // Nothing in it is changed, so nothing in it has to be understood.
        Err(_) if !table.modify_envelope => Ok(None),
        Err(error) => Err(Rejection::Envelope(error)),
    }
}

/// Completes the edits of the head, and looks up the route of `trace.public_key`.
fn complete(
    request: &mut Request,
    table: &RoutingTable,
    is_tunnelled: bool,
) -> Result<(), Rejection> {
    let Some(route) = &request.route else {
        return Err(Rejection::NoKey);
    };
    let (head, parsed, edits) = (&request.head, &request.parsed, &mut request.head_edits);
    let is_dialog = request.target.endpoint == Endpoint::ErrorPage;
    let passed_on = PassedOn {
        client_address: table.forward_client_ip,
        credentials: !is_tunnelled && !is_dialog,
        conditions: !is_dialog,
    };
    head_edits::edit_head(parsed, head, passed_on, edits);
    head_edits::edit_strays(parsed, head, route, edits)
        .map_err(|Stray| Rejection::Auth(AuthError::Multiple))?;
    let trace_key = request.envelope.and_then(|envelope| envelope.trace_key);
    let named = trace_key.and_then(|key| {
        let key = envelope::unescape(key.slice(&request.body.decoded));
        table.routes.find(&key)
    });
    // The request's own route has nothing to look up: each outbound puts in its own key.
    let other = named.filter(|named| !Arc::ptr_eq(named, route));
    request.trace_route = other.map(Arc::clone);
    Ok(())
}

/// Sends the request to the outbounds of its route, and returns the reply.
async fn fan_out(
    request: &Rc<Request>,
    core: &Rc<Core>,
    routing: &Rc<Routing>,
    access: Option<Rc<AccessLogEntry>>,
    mut memory: MemoryReservation,
) -> Result<Reply, Abort> {
    let Some(route) = &request.route else {
        return Err(Rejection::NoKey.into());
    };
    let table = &routing.table;
    let method = request.parsed.method;
    let endpoint = request.target.endpoint;
    let post_to = match endpoint == Endpoint::ErrorPage && method == Method::Get {
        true => Some(script_url(request, table)?),
        false => None,
    };
    let is_script = post_to.is_some();
    // A script has one source. The reports that it sends come back to the mirror, and go to all.
    let count = if is_script { 1 } else { route.outbounds.len() };
    let outbounds = route.outbounds.iter().take(count);
    let rendered_bytes: usize = outbounds
        .filter(|outbound| outbound.transform.is_none() || is_script)
        .map(|outbound| render::held_bytes(request, outbound, &render::OutboundBody::Whole))
        .sum();
    // A small answer lives until the slowest delivery has ended; what is rendered does not.
    let kept_bytes = memory.bytes() + count * SMALL_BYTES;
    if !memory.can_resize(kept_bytes + rendered_bytes) || !memory.resize(kept_bytes) {
        return Err(Rejection::Overloaded.into());
    }
    let may_be_limited = route
        .outbounds
        .iter()
        .any(|one| one.rate_limits.may_limit());
    let categories = match may_be_limited {
        true => Box::pin(request.categories()).await,
        false => Vec::new(),
    };
    let kept = Kept {
        memory,
        _in_flight: core.in_flight.acquire(),
        access,
    };
    let fan_out = FanOut::new(route, endpoint, count, &core.counters, kept, Instant::now());
    let dispatch = Dispatch {
        core: Rc::clone(core),
        routing: Rc::clone(routing),
        request: Rc::clone(request),
        fan_out: Rc::clone(&fan_out),
    };
    dispatch.start(&categories, is_script);
    let (policy, patience, expected) = if is_script {
        // Only the primary can answer this, so it is waited for until it has failed.
        let patience = table.limits.timeouts.exchange * 2;
        (ReplyPolicy::Primary, patience, Expected::Script)
    } else {
        let expected = match endpoint.is_answered_200() && method == Method::Post {
            true => Expected::Object,
            false => Expected::Anything,
        };
        (table.reply_policy, table.reply_timeout, expected)
    };
    let reply = fan_out.reply(policy, patience, expected, request).await;
    Ok(match endpoint {
        Endpoint::ErrorPage => crash_dialog::passed_on(reply, route, post_to.as_deref()),
        _ => reply,
    })
}

/// The URL to which the script of the crash-report dialog is to post: the one at which the browser sees
/// this request, as a literal of the script.
fn script_url(request: &Request, table: &RoutingTable) -> Result<Vec<u8>, Rejection> {
    let path = endpoint::path(&request.head, request.parsed.target);
    let target = request
        .head
        .get(path.start..request.parsed.target.end)
        .unwrap_or_default();
    let url = match &table.external_url {
        Some(base) => [base.as_bytes(), target].concat(),
        None => crash_dialog::external_url(
            request.header(HeaderName::Host).unwrap_or_default(),
            request.header(HeaderName::XForwardedProto),
            target,
        ),
    };
    crash_dialog::literal(&url).ok_or(Rejection::UrlTooLong)
}
