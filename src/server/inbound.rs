//! One SDK connection: its requests one after the other, until it ends.
//!
//! [`serve`] loops over the requests of a connection and decides, after each, whether another may
//! follow: only if it is known where that would begin. What a request gets for an answer is told in
//! [`request`](crate::server::request).

use std::net::SocketAddr;
use std::rc::Rc;

use monoio::net::TcpStream;
use tracing::debug;

use crate::http::framing::Framing;
use crate::http::head::{Method, RequestHead, Version};
use crate::mirror::rejection::Rejection;
use crate::mirror::reply::{Manner, Reply};
use crate::sentry::edit::Edit;
use crate::server::connection::{Connection, Ended, is_discardable};
use crate::server::gate::Pass;
use crate::server::worker::{Routing, Worker};

/// Serves the requests of a connection, in order, until it ends. With `newcomer` a worker that is
/// stopping waits for the first one: what was accepted is not given up before it could say what it
/// wants.
pub async fn serve(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr, newcomer: Pass) {
    let stop = worker.stop.listener();
    let mut exchange = Exchange {
        connection: Connection::new(stream, peer),
        head: RequestHead::default(),
        head_edits: Vec::new(),
        body_edits: Vec::new(),
    };
    let mut newcomer = Some(newcomer);
    loop {
        let patience = worker.routing().plan.limits.idle_timeout;
        exchange.shrink();
        if !exchange.connection.await_request(patience, &stop).await {
            return;
        }
        let _pass = newcomer.take().unwrap_or_else(|| worker.gate.enter());
        match exchange.handle(&worker).await {
            Next::Request => {}
            Next::Close => return,
            Next::Linger => return exchange.connection.linger().await,
        }
    }
}

/// How many edits a connection keeps room for; SDKs need about ten.
const KEPT_EDITS_MAX: usize = 64;

/// What follows on a reply.
enum Next {
    Request,
    Close,
    /// Close, although the client may still be sending.
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

    async fn handle(&mut self, worker: &Rc<Worker>) -> Next {
        let routing = worker.routing();
        let limits = &routing.plan.limits;
        let mut share = worker.budget.reservation();
        let reading = self
            .connection
            .read_head(&mut self.head, &mut share, limits);
        match reading.await {
            Ok(()) => {}
            Err(Ended::Gone) => return Next::Close,
            Err(Ended::Rejected(rejection)) => {
                return self.refuse_head(worker, &routing, &rejection).await;
            }
        }
        worker.counters.requests.count();
        let head = self.connection.take(self.head.len);
        let mut body = BodyState::Broken;
        let answered = self.answer(worker, &routing, &head, &mut body, share).await;
        let (reply, ends) = match answered {
            Ok(reply) => (reply, false),
            Err(Ended::Gone) => return Next::Close,
            Err(Ended::Rejected(rejection)) => {
                log_rejection(worker, &self.connection, &rejection);
                (Reply::rejection(&rejection), rejection.ends_connection())
            }
        };
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
                && !worker.stop.is_ordered(),
            is_http10: self.head.version == Version::Http10,
        };
        let written = self
            .connection
            .write(limits, |outgoing| reply.write(manner, outgoing));
        match (written.await, rest) {
            (Err(_), _) => Next::Close,
            (Ok(()), None) if manner.keep_alive => Next::Request,
            (Ok(()), None) if is_at_next_request => Next::Close,
            (Ok(()), Some(framing)) if manner.keep_alive => {
                let mut share = worker.budget.reservation();
                let discarded = self.connection.discard_body(framing, &mut share, limits);
                if discarded.await {
                    Next::Request
                } else {
                    Next::Linger
                }
            }
            (Ok(()), _) => Next::Linger,
        }
    }

    async fn refuse_head(
        &mut self,
        worker: &Worker,
        routing: &Routing,
        rejection: &Rejection,
    ) -> Next {
        log_rejection(worker, &self.connection, rejection);
        let manner = Manner {
            is_head: false,
            keep_alive: false,
            is_http10: false,
        };
        let reply = Reply::rejection(rejection);
        let written = self.connection.write(&routing.plan.limits, |outgoing| {
            reply.write(manner, outgoing)
        });
        match written.await {
            Ok(()) => Next::Linger,
            Err(_) => Next::Close,
        }
    }
}

fn log_rejection(worker: &Worker, connection: &Connection, rejection: &Rejection) {
    worker.counters.rejections.count(rejection.label());
    debug!(peer = %connection.peer, status = rejection.status(), reason = %rejection, "request refused");
}
