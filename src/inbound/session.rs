//! One SDK connection, and its requests one after another.
//!
//! After each reply [`serve`] decides whether another request may follow: only if the end of this one is known,
//! because the next one begins there.

use std::rc::Rc;

use crate::http::framing::Framing;
use crate::http::head::{Method, Version};
use crate::inbound::address_warning::warn_if_addresses_are_lost;
use crate::inbound::connection::{Abort, Accepted, BodyState, Connection, is_discardable};
use crate::inbound::handle::handle;
use crate::inbound::idle::IdleEntry;
use crate::inbound::request_log::RequestLog;
use crate::inbound::spares::Spares;
use crate::mirror::core::{Core, Routing};
use crate::mirror::reply::rejection::Rejection;
use crate::mirror::reply::{Reply, ReplyFraming};
use crate::mirror::request::Request;
use crate::runtime::in_flight::InFlightGuard;

/// Serves the requests of a connection, in order, until it ends. An accepted connection may still send one
/// request during a shutdown: the guard `first_request` keeps the worker until it has ended, or does not come.
///
/// Rare futures are boxed. A future that is not boxed takes its space in every open connection, even while it
/// is not running.
pub(super) async fn serve(
    core: Rc<Core>,
    accepted: Accepted,
    idle: IdleEntry,
    spares: Rc<Spares>,
    first_request: InFlightGuard,
) {
    let mut connection = Connection::new(accepted, &core.counters, &spares);
    let mut first_request = Some(first_request);
    while connection.await_request(&idle).await {
        let is_first = first_request.is_some();
        let _guard = first_request
            .take()
            .unwrap_or_else(|| core.in_flight.acquire());
        let mut request = spares.request();
        let persistence = serve_request(&core, &mut connection, &mut request).await;
        if is_first {
            warn_if_addresses_are_lost(&core.routing().table, &request);
        }
        spares.return_request(request);
        match persistence {
            Persistence::KeepAlive => {}
            Persistence::Close => return connection.answer_end(),
            Persistence::Linger => return Box::pin(connection.linger(&core.shutdown)).await,
        }
    }
    connection.announce_end();
}

/// What happens to the connection after a request.
enum Persistence {
    /// It waits for another request.
    KeepAlive,
    /// It is closed: the client has disconnected.
    Close,
    /// It is closed once the client, which may still be sending, has read the reply.
    Linger,
}

/// Reads one request into `shared`, which is empty, and replies to it.
async fn serve_request(
    core: &Rc<Core>,
    connection: &mut Connection,
    shared: &mut Rc<Request>,
) -> Persistence {
    let routing = core.routing();
    let limits = &routing.table.limits;
    // Until the head is read, the request counts as one without a known key.
    let mut memory = core.keyless.reservation();
    let request = Rc::make_mut(shared);
    let parsed = &mut request.parsed;
    let reading = connection.read_head(parsed, &mut memory, limits);
    match reading.await {
        Ok(true) => {}
        Ok(false) => return Persistence::KeepAlive,
        Err(Abort::Gone) => return Persistence::Close,
        Err(Abort::Rejected(rejection)) => {
            return Box::pin(reject_head(core, &routing, connection, &rejection)).await;
        }
    }
    let length = request.parsed.len;
    request.head = connection.take(length);
    let addresses = &routing.table.client_addresses;
    let peer = connection.peer;
    let client = addresses.client(peer.ip(), &request.parsed, &request.head);
    request.came_over_tls = connection.is_tls();
    request.client = addresses.is_sent.then_some(client);
    let log = RequestLog::begin(core, peer, client);
    connection.body_state = BodyState::Broken;
    // A block, so that its borrows end before the reply is written.
    let (reply, closes) = {
        let trace = log.trace();
        let handling = handle(core, &routing, connection, shared, trace, memory);
        let result = handling.await;
        log.record_reply(shared, &result);
        match result {
            Ok(reply) => (reply, false),
            Err(Abort::Gone) => return Persistence::Close,
            Err(Abort::Rejected(rejection)) => {
                (Reply::rejection(&rejection), rejection.closes_connection())
            }
        }
    };
    let log = log.without_trace();
    let parsed = &shared.parsed;
    let rest = match connection.body_state {
        BodyState::Read | BodyState::Unread(Framing::Empty) => Rest::Nothing,
        BodyState::Broken => Rest::Unknown,
        // After a rejection, the client may or may not send the announced body.
        BodyState::Unread(_) if parsed.expects_continue(&shared.head) => Rest::Unknown,
        BodyState::Unread(framing) if !is_discardable(framing) => Rest::Unknown,
        BodyState::Unread(framing) => Rest::Body(framing),
    };
    let reply_framing = ReplyFraming {
        is_head: parsed.method == Method::Head,
        keep_alive: !closes
            && rest != Rest::Unknown
            && parsed.keep_alive(&shared.head)
            && !core.shutdown.is_triggered(),
        is_http10: parsed.version == Version::Http10,
    };
    let written = connection
        .write(limits, |outgoing| {
            reply.write(reply_framing, &core.date.get(), outgoing)
        })
        .await;
    log.record_written(shared.route.as_deref());
    match (written, rest) {
        (Err(_), _) => Persistence::Close,
        (Ok(()), Rest::Nothing) if reply_framing.keep_alive => Persistence::KeepAlive,
        (Ok(()), Rest::Body(framing)) if reply_framing.keep_alive => {
            let mut memory = core.keyless.reservation();
            let discarding = connection.discard_body(framing, &mut memory, limits);
            if Box::pin(discarding).await {
                Persistence::KeepAlive
            } else {
                Persistence::Linger
            }
        }
        (Ok(()), _) => Persistence::Linger,
    }
}

/// Replies to a connection that cannot be served, whatever it has sent.
pub(super) async fn refuse(
    core: &Core,
    accepted: Accepted,
    spares: &Rc<Spares>,
    rejection: &Rejection,
) {
    let mut connection = Connection::new(accepted, &core.counters, spares);
    let routing = core.routing();
    let persistence = reject_head(core, &routing, &mut connection, rejection).await;
    if let Persistence::Linger = persistence {
        connection.linger(&core.shutdown).await;
    }
}

async fn reject_head(
    core: &Core,
    routing: &Routing,
    connection: &mut Connection,
    rejection: &Rejection,
) -> Persistence {
    let peer = connection.peer;
    RequestLog::begin(core, peer, peer.ip()).record_rejection(rejection);
    let reply_framing = ReplyFraming {
        is_head: false,
        keep_alive: false,
        is_http10: false,
    };
    let reply = Reply::rejection(rejection);
    let written = connection.write(&routing.table.limits, |outgoing| {
        reply.write(reply_framing, &core.date.get(), outgoing)
    });
    match written.await {
        Ok(()) => Persistence::Linger,
        Err(_) => Persistence::Close,
    }
}

/// The unread rest of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    Nothing,
    /// The body, which is to be discarded.
    Body(Framing),
    /// Unknown, so no other request can follow.
    Unknown,
}
