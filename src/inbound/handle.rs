//! The way of one request from its head to its reply.
//!
//! The route is looked up before the body is read, so that a request that goes nowhere costs only the memory of
//! its head.
//! Only an envelope whose key stands in its own header has to be read first.

use std::rc::Rc;

use crate::http::framing;
use crate::inbound::body;
use crate::inbound::connection::{Abort, BodyState, Connection};
use crate::inbound::local_replies;
use crate::inbound::route::{route_by_envelope, route_by_head};
use crate::mirror::core::{Core, Routing};
use crate::mirror::fan_out::send::send;
use crate::mirror::reply::Reply;
use crate::mirror::reply::rejection::Rejection;
use crate::mirror::request::Request;
use crate::mirror::request::head_edits;
use crate::mirror::request::request_trace::RequestTrace;
use crate::runtime::memory_budget::MemoryReservation;

/// Handles a request whose head has been read into `shared`, and returns the reply. The body is still to be read
/// from `connection`. Nobody else holds `shared` yet, so it is changed in place. `memory` covers the head.
pub(super) async fn handle(
    core: &Rc<Core>,
    routing: &Rc<Routing>,
    connection: &mut Connection,
    shared: &mut Rc<Request>,
    trace: Option<Rc<RequestTrace>>,
    mut memory: MemoryReservation,
) -> Result<Reply, Abort> {
    let table = &routing.table;
    let request = Rc::make_mut(shared);
    let target = request.parse_target();
    // An error in the target is returned only after this. A framing error comes first, because it closes the
    // connection; and to keep the connection, the session has to know from `body_state` how the body ends.
    let framing = framing::for_request(&request.parsed, &request.head);
    connection.body_state = BodyState::Unread(framing.map_err(Rejection::Framing)?);
    target?;
    if let Some(reply) = local_replies::reply(request) {
        return reply.map_err(Abort::Rejected);
    }
    let key = route_by_head(request, routing, &mut memory)?;
    if core.is_late.get() {
        return Err(Rejection::Late.into());
    }
    let received = body::read(connection, request, &table.limits, &mut memory).await?;
    let decoding = received.decode(request, key.as_ref(), table, &core.decoding, &mut memory);
    decoding.await?;
    let envelope = body::scan_envelope(request, table);
    let is_tunnelled = request.route.is_none();
    if is_tunnelled {
        route_by_envelope(request, key.as_ref(), envelope, routing, &mut memory)?;
    } else {
        request.set_envelope(envelope)?;
    }
    head_edits::complete(request, table, &routing.routes, is_tunnelled)?;
    Ok(send(shared, core, routing, trace, memory).await?)
}
