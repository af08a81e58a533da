//! One SDK connection: its requests one after the other, until it ends.
//!
//! [`serve`] decides after each reply whether another request may follow: only if it is known where that
//! would begin.

use std::net::SocketAddr;
use std::rc::Rc;

use monoio::net::TcpStream;

use crate::http::framing::Framing;
use crate::http::head::{Method, Version};
use crate::inbound::connection::{Abort, BodyState, Connection, is_discardable};
use crate::inbound::handle::handle;
use crate::inbound::request_log::RequestLog;
use crate::mirror::core::{Core, Routing};
use crate::mirror::rejection::Rejection;
use crate::mirror::reply::{Reply, ReplyFraming};
use crate::mirror::request::Request;
use crate::runtime::in_flight::InFlightGuard;

/// Serves the requests of a connection, in order, until it ends. A worker that stops waits for
/// `newcomer`, and so for the first request: what was accepted may say what it wants.
///
/// What is rare has its state on the heap: every open connection carries the room for all the rest.
pub(crate) async fn serve(
    core: Rc<Core>,
    stream: TcpStream,
    peer: SocketAddr,
    newcomer: InFlightGuard,
) {
    let shutdown = core.shutdown.subscribe();
    let mut connection = Connection::new(stream, peer, &core.counters);
    // The memory of the last request, for the next one. An idle connection gives it back.
    let mut spare: Option<Rc<Request>> = None;
    let mut newcomer = Some(newcomer);
    loop {
        let patience = core.routing().table.limits.timeouts.idle;
        let waiting = connection.await_request(patience, &shutdown, || spare = None);
        if !waiting.await {
            return;
        }
        let _guard = newcomer.take().unwrap_or_else(|| core.in_flight.acquire());
        let mut request = spare.take().unwrap_or_default();
        let next = serve_request(&core, &mut connection, &mut request).await;
        // A task may still make something of it.
        if let Some(unshared) = Rc::get_mut(&mut request) {
            unshared.clear();
            spare = Some(request);
        }
        match next {
            Next::Request => {}
            Next::Close => return,
            Next::Linger => return Box::pin(connection.linger(&core.shutdown)).await,
        }
    }
}

/// What follows on a reply.
enum Next {
    /// Another request, or more waiting for it.
    Request,
    /// The end: nobody reads any more.
    Close,
    /// The end, for a client that has a reply to read and may still be sending.
    Linger,
}

/// Reads one request into `shared`, which is empty, and answers it.
async fn serve_request(
    core: &Rc<Core>,
    connection: &mut Connection,
    shared: &mut Rc<Request>,
) -> Next {
    let routing = core.routing();
    let limits = &routing.table.limits;
    // The head has yet to say which key it is for.
    let mut memory = core.keyless.reservation();
    let request = Rc::make_mut(shared);
    let parsed = &mut request.parsed;
    let reading = connection.read_head(parsed, &mut memory, limits);
    match reading.await {
        Ok(true) => {}
        Ok(false) => return Next::Request,
        Err(Abort::Gone) => return Next::Close,
        Err(Abort::Rejected(rejection)) => {
            return Box::pin(refuse_head(core, &routing, connection, &rejection)).await;
        }
    }
    let log = RequestLog::begin(core, connection.peer);
    let length = request.parsed.len;
    request.head = connection.take(length);
    connection.body_state = BodyState::Broken;
    // In a scope of its own: what was borrowed in it would be held while the reply is written.
    let (reply, closes) = {
        let access = log.entry();
        let handling = handle(core, &routing, connection, shared, access, memory);
        let answer = handling.await;
        log.answered(shared, &answer);
        match answer {
            Ok(reply) => (reply, false),
            Err(Abort::Gone) => return Next::Close,
            Err(Abort::Rejected(rejection)) => {
                (Reply::rejection(&rejection), rejection.closes_connection())
            }
        }
    };
    let log = log.without_entry();
    let parsed = &shared.parsed;
    let rest = match connection.body_state {
        BodyState::Read | BodyState::Unread(Framing::Empty) => Rest::Nothing,
        BodyState::Broken => Rest::Unknown,
        // Whether an announced body will come after a refusal is not known.
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
    log.replied(shared.route.as_deref());
    match (written, rest) {
        (Err(_), _) => Next::Close,
        (Ok(()), Rest::Nothing) if reply_framing.keep_alive => Next::Request,
        (Ok(()), Rest::Body(framing)) if reply_framing.keep_alive => {
            let mut memory = core.keyless.reservation();
            let discarding = connection.discard_body(framing, &mut memory, limits);
            if Box::pin(discarding).await {
                Next::Request
            } else {
                Next::Linger
            }
        }
        (Ok(()), _) => Next::Linger,
    }
}

async fn refuse_head(
    core: &Core,
    routing: &Routing,
    connection: &mut Connection,
    rejection: &Rejection,
) -> Next {
    RequestLog::begin(core, connection.peer).rejected(rejection);
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
        Ok(()) => Next::Linger,
        Err(_) => Next::Close,
    }
}

/// What still comes of a request before the next one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    Nothing,
    /// Its body, which nobody wants.
    Body(Framing),
    /// Nobody knows what, so no other request can follow.
    Unknown,
}
