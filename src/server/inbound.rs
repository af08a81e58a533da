//! One SDK connection: its requests one after the other, until it ends.
//!
//! [`serve`] loops over the requests of a connection and decides, after each, whether another may
//! follow: only if it is known where that would begin. What a request gets for an answer is told in
//! [`request`](crate::server::request).

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use monoio::net::TcpStream;
use tracing::debug;

use crate::http::framing::Framing;
use crate::http::head::{Method, RequestHead, Version};
use crate::mirror::access::{Entry, Told};
use crate::mirror::counters::RequestResult;
use crate::mirror::rejection::Rejection;
use crate::mirror::reply::{Manner, Reply};
use crate::mirror::routes::Route;
use crate::sentry::edit::Edit;
use crate::sentry::endpoint::Endpoint;
use crate::server::connection::{Connection, Ended, is_discardable};
use crate::server::core::{Core, Routing};
use crate::server::gate::Pass;

/// Serves the requests of a connection, in order, until it ends. With `newcomer` a worker that is
/// stopping waits for the first one: what was accepted is not given up before it could say what it
/// wants.
///
/// What is rare has its state on the heap: every open connection carries the room for all the rest.
pub(crate) async fn serve(core: Rc<Core>, stream: TcpStream, peer: SocketAddr, newcomer: Pass) {
    let stop = core.stop.listener();
    let mut exchange = Exchange {
        connection: Connection::new(stream, peer, &core.counters),
        head: RequestHead::default(),
        head_edits: Vec::new(),
        body_edits: Vec::new(),
    };
    let mut newcomer = Some(newcomer);
    loop {
        let patience = core.routing().plan.limits.timeouts.idle;
        exchange.shrink();
        if !exchange.connection.await_request(patience, &stop).await {
            return;
        }
        let _pass = newcomer.take().unwrap_or_else(|| core.gate.enter());
        match exchange.handle(&core).await {
            Next::Request => {}
            Next::Close => return,
            Next::Linger => return Box::pin(exchange.connection.linger(&core.stop)).await,
        }
    }
}

/// How many edits a connection keeps room for; SDKs need about ten.
const KEPT_EDITS_MAX: usize = 64;

/// What follows on a reply.
enum Next {
    /// Another request, or more waiting for it.
    Request,
    /// The end: nobody is there to read anything.
    Close,
    /// The end, for a client that has a reply to read and may still be sending.
    Linger,
}

/// How much of a request's body was read when its reply was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyState {
    Unread(Framing),
    /// Some of it; the place where the next request begins is lost.
    Broken,
    Read,
}

/// How far a request has come, for those who tell of it.
pub(super) struct Course<'r> {
    pub(super) body: BodyState,
    /// How many bytes of it were read.
    pub(super) body_bytes: usize,
    /// What it asks for, once that is known.
    pub(super) endpoint: Option<Endpoint>,
    /// Where it goes, once that is known.
    pub(super) route: Option<&'r Arc<Route>>,
    /// Whether it concerns the mirror only.
    pub(super) is_local: bool,
    /// Its entry in the access log, if there is one.
    pub(super) access: Option<Rc<Entry>>,
}

impl Course<'_> {
    fn answered(&self, answer: &Result<Reply, Ended>) -> RequestResult {
        match answer {
            Ok(_) if self.is_local => RequestResult::Local,
            Ok(reply) => reply.answered(),
            Err(Ended::Gone) => RequestResult::Abandoned,
            Err(Ended::Rejected(_)) => RequestResult::Rejected,
        }
    }
}

/// A connection with the memory that its requests use one after the other.
pub(super) struct Exchange {
    pub(super) connection: Connection,
    pub(super) head: RequestHead,
    /// What changes in the head.
    pub(super) head_edits: Vec<Edit>,
    /// What changes in the body.
    pub(super) body_edits: Vec<Edit>,
}

impl Exchange {
    /// Gives back what an unusual request has made grow, so that an idle connection stays small.
    fn shrink(&mut self) {
        self.head_edits.clear();
        self.body_edits.clear();
        self.head_edits.shrink_to(KEPT_EDITS_MAX);
        self.body_edits.shrink_to(KEPT_EDITS_MAX);
    }

    async fn handle(&mut self, core: &Rc<Core>) -> Next {
        let routing = core.routing();
        let limits = &routing.plan.limits;
        // Whose it is, its head has yet to say.
        let mut share = core.keyless.reservation();
        let reading = self
            .connection
            .read_head(&mut self.head, &mut share, limits);
        match reading.await {
            Ok(true) => {}
            Ok(false) => return Next::Request,
            Err(Ended::Gone) => return Next::Close,
            Err(Ended::Rejected(rejection)) => {
                return Box::pin(self.refuse_head(core, &routing, &rejection)).await;
            }
        }
        let started = Instant::now();
        let head = self.connection.take(self.head.len);
        let mut course = Course {
            body: BodyState::Broken,
            body_bytes: 0,
            endpoint: None,
            route: None,
            is_local: false,
            access: core.access_entry(self.connection.peer, started),
        };
        // In a scope of its own: what was borrowed in it would be held while the reply is written.
        let (reply, ends) = {
            let answering = self.answer(core, &routing, &head, &mut course, share);
            let answer = answering.await;
            self.tell(core, &head, &course, &answer);
            match answer {
                Ok(reply) => (reply, false),
                Err(Ended::Gone) => return Next::Close,
                Err(Ended::Rejected(rejection)) => {
                    log_rejection(core, &self.connection, &rejection);
                    (Reply::rejection(&rejection), rejection.ends_connection())
                }
            }
        };
        let (body, route) = (course.body, course.route);
        drop(course.access);
        let (is_at_next_request, rest) = match body {
            BodyState::Read | BodyState::Unread(Framing::Empty) => (true, None),
            BodyState::Broken => (false, None),
            // Whether a body that was announced will come after a refusal, nobody knows.
            BodyState::Unread(_) if self.head.expects_continue(&head) => (false, None),
            BodyState::Unread(framing) if !is_discardable(framing) => (false, None),
            BodyState::Unread(framing) => (true, Some(framing)),
        };
        let manner = Manner {
            is_head: self.head.method == Method::Head,
            keep_alive: !ends
                && is_at_next_request
                && self.head.keep_alive(&head)
                && !core.stop.is_ordered(),
            is_http10: self.head.version == Version::Http10,
        };
        let written = self
            .connection
            .write(limits, |outgoing| {
                reply.write(manner, &core.date.get(), outgoing)
            })
            .await;
        if let Some(route) = route {
            let counters = route.counters.for_worker(core.counters.worker);
            counters.request_time.record_since(started);
        }
        match (written, rest) {
            (Err(_), _) => Next::Close,
            (Ok(()), None) if manner.keep_alive => Next::Request,
            (Ok(()), Some(framing)) if manner.keep_alive => {
                let mut share = core.keyless.reservation();
                let discarding = self.connection.discard_body(framing, &mut share, limits);
                if Box::pin(discarding).await {
                    Next::Request
                } else {
                    Next::Linger
                }
            }
            (Ok(()), _) => Next::Linger,
        }
    }

    /// Counts a request whose answer is known, and adds what is known to the access log.
    fn tell(&self, core: &Core, head: &[u8], course: &Course<'_>, answer: &Result<Reply, Ended>) {
        let answered = course.answered(answer);
        let route = course.route.map(Arc::as_ref);
        core.counters.answered(answered, route);
        if let Some(access) = &course.access {
            let method = self.head.method_span.slice(head);
            let endpoint = course.endpoint.map_or("unknown", Endpoint::label);
            let bytes = head.len() + course.body_bytes;
            access.request(method, endpoint, course.route, bytes);
            access.told(match answer {
                Ok(reply) => Told {
                    answered,
                    reason: None,
                    status: Some(reply.status()),
                    body_bytes: reply.body_bytes(),
                },
                Err(Ended::Gone) => Told {
                    answered,
                    reason: None,
                    status: None,
                    body_bytes: 0,
                },
                Err(Ended::Rejected(rejection)) => told_rejection(rejection),
            });
        }
    }

    async fn refuse_head(&mut self, core: &Core, routing: &Routing, rejection: &Rejection) -> Next {
        log_rejection(core, &self.connection, rejection);
        core.counters.answered(RequestResult::Rejected, None);
        if let Some(access) = core.access_entry(self.connection.peer, Instant::now()) {
            access.told(told_rejection(rejection));
        }
        let manner = Manner {
            is_head: false,
            keep_alive: false,
            is_http10: false,
        };
        let reply = Reply::rejection(rejection);
        let written = self.connection.write(&routing.plan.limits, |outgoing| {
            reply.write(manner, &core.date.get(), outgoing)
        });
        match written.await {
            Ok(()) => Next::Linger,
            Err(_) => Next::Close,
        }
    }
}

fn log_rejection(core: &Core, connection: &Connection, rejection: &Rejection) {
    core.counters.rejections.inc(rejection.reason());
    debug!(peer = %connection.peer, status = rejection.status(), reason = %rejection, "request refused");
}

fn told_rejection(rejection: &Rejection) -> Told {
    Told {
        answered: RequestResult::Rejected,
        reason: Some(rejection.reason()),
        status: Some(rejection.status()),
        body_bytes: Reply::rejection(rejection).body_bytes(),
    }
}
