//! One SDK connection, and the way of one request from its first byte to its reply.
//!
//! [`serve`] loops over the requests of a connection. [`Exchange::handle`] is the story of one:
//! head, key, route, body, fan-out, reply. Each step is the next call; what the steps mean stands in
//! the rooms below.

use std::rc::Rc;

use bytes::Bytes;
use monoio::net::TcpStream;
use tracing::debug;

use crate::http::encoding::{Decoder, Encoding, Step};
use crate::http::framing::{self, Framing};
use crate::http::head::{FieldName, Method, RequestHead, Version};
use crate::mirror::deliver::FanOut;
use crate::mirror::rejection::Rejection;
use crate::mirror::reply::{Manner, Reply};
use crate::mirror::rewrite::{self, Original};
use crate::mirror::routes::Route;
use crate::sentry::auth::{self, AuthField, FoundKey};
use crate::sentry::dsn;
use crate::sentry::edit::Edit;
use crate::sentry::endpoint::{self, Endpoint, Target};
use crate::sentry::envelope::{self, EnvelopeHeader};
use crate::server::budget::Reservation;
use crate::server::connection::{Connection, Ended};
use crate::server::worker::{Routing, Worker};
use crate::span::Span;

/// How much a decoder puts out before other connections get their turn.
const DECODE_SLICE_BYTES: usize = 512 * 1024;

/// How long they get it. Yielding without sleeping would starve them on this runtime.
const DECODE_PAUSE: std::time::Duration = std::time::Duration::from_millis(1);

/// Serves the requests of a connection, in order, until it ends.
pub async fn serve(worker: Rc<Worker>, stream: TcpStream, peer: std::net::SocketAddr) {
    let stop = worker.stop.listener();
    let mut exchange = Exchange {
        connection: Connection::new(stream, peer),
        head: RequestHead::default(),
        head_edits: Vec::new(),
        body_edits: Vec::new(),
    };
    loop {
        let patience = worker.routing().plan.limits.idle_timeout;
        if !exchange.connection.await_request(patience, &stop).await {
            return;
        }
        let _pass = worker.gate.enter();
        match exchange.handle(&worker).await {
            Next::Request => {}
            Next::Close => return,
            Next::Linger => return exchange.connection.linger().await,
        }
    }
}

/// What follows on a reply.
enum Next {
    Request,
    Close,
    /// Close, although the client may still be sending.
    Linger,
}

/// How much of a request's body was read when its reply was decided.
enum BodyState {
    Unread(Framing),
    /// Some of it; the place where the next request begins is lost.
    Broken,
    Read,
}

/// A connection with the memory that its requests use one after the other.
struct Exchange {
    connection: Connection,
    head: RequestHead,
    /// What changes in the head.
    head_edits: Vec<Edit>,
    /// What changes in the body.
    body_edits: Vec<Edit>,
}

impl Exchange {
    async fn handle(&mut self, worker: &Rc<Worker>) -> Next {
        let routing = worker.routing();
        let limits = &routing.plan.limits;
        match self.connection.read_head(&mut self.head, limits).await {
            Ok(()) => {}
            Err(Ended::Gone) => return Next::Close,
            Err(Ended::Rejected(rejection)) => {
                return self.refuse_head(worker, &routing, &rejection).await;
            }
        }
        worker.counters.requests.count();
        let head = self.connection.take(self.head.len);
        let mut body = BodyState::Broken;
        let answered = self.answer(worker, &routing, &head, &mut body).await;
        let (reply, ends) = match answered {
            Ok(reply) => (reply, false),
            Err(Ended::Gone) => return Next::Close,
            Err(Ended::Rejected(rejection)) => {
                log_rejection(worker, &self.connection, &rejection);
                (Reply::rejection(&rejection), rejection.ends_connection())
            }
        };
        let expects_continue = self.head.expects_continue(&head);
        let is_lost = match body {
            BodyState::Read => false,
            // Whether the body will come after all, nobody knows.
            BodyState::Unread(Framing::Empty) => false,
            BodyState::Unread(_) => expects_continue,
            BodyState::Broken => true,
        };
        let manner = Manner {
            is_head: self.head.method == Method::Head,
            keep_alive: !ends
                && !is_lost
                && self.head.keep_alive(&head)
                && !worker.stop.is_ordered(),
            is_http10: self.head.version == Version::Http10,
        };
        let written = self
            .connection
            .write(limits, |outgoing| reply.write(manner, outgoing))
            .await;
        match (written, body) {
            (Err(_), _) => Next::Close,
            (Ok(()), BodyState::Read) if manner.keep_alive => Next::Request,
            (Ok(()), BodyState::Unread(framing)) if manner.keep_alive => {
                let mut share = worker.budget.reservation();
                let discarded = self.connection.discard_body(framing, &mut share, limits);
                if discarded.await {
                    Next::Request
                } else {
                    Next::Linger
                }
            }
            (Ok(()), BodyState::Read) => Next::Close,
            (Ok(()), BodyState::Unread(_) | BodyState::Broken) => Next::Linger,
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

    /// The reply to the request whose head is `head`; sets `body` as it goes.
    async fn answer(
        &mut self,
        worker: &Rc<Worker>,
        routing: &Rc<Routing>,
        head: &Bytes,
        body: &mut BodyState,
    ) -> Result<Reply, Ended> {
        let framing = framing::of_request(&self.head, head).map_err(Rejection::Framing)?;
        *body = BodyState::Unread(framing);
        self.head_edits.clear();
        self.body_edits.clear();
        let target = endpoint::parse_target(head, self.head.target, &mut self.head_edits);
        if let Some(reply) = self.answer_locally(head, target.endpoint) {
            return reply.map_err(Ended::Rejected);
        }
        let key = self.find_key(head, &target)?;
        let route = match &key {
            Some(key) => Some(find_route(routing, key.bytes(head))?),
            // Without a key up here, an envelope may still name one in its header.
            None if reads_key_from_body(target.endpoint) => None,
            None => return Err(Rejection::NoKey.into()),
        };
        let encoding = Encoding::of(self.head.values(FieldName::ContentEncoding, head))
            .map_err(|_| Rejection::Encoding)?;

        let mut share = worker.budget.reservation();
        let whole = self.read_body(routing, head, body, &mut share).await?;
        let whole = decode(worker, routing, encoding, whole, &mut share).await?;
        let envelope = self
            .scan_envelope(head, target.endpoint, &whole)
            // Without a key it may just not be an envelope at all.
            .map_err(|error| route.map_or(Rejection::NoEnvelopeKey, |_| error))?;
        let route = match route {
            Some(route) => route,
            None => find_route(routing, &envelope_key(envelope.as_ref(), &whole)?)?,
        };
        let forward = routing.plan.forward_client_ip;
        rewrite::edit_head(&self.head, head, forward, &mut self.head_edits);
        let original = Original {
            head,
            parsed: &self.head,
            head_edits: &self.head_edits,
            body: &whole,
            body_edits: &self.body_edits,
            trace_route: envelope
                .as_ref()
                .and_then(|envelope| envelope.trace_key)
                .and_then(|key| {
                    routing
                        .plan
                        .routes
                        .find(&envelope::unescape(key.of(&whole)))
                }),
            client: forward.then(|| self.connection.peer.ip()),
        };
        let kept = (share, worker.gate.enter());
        let fan_out = FanOut::start(route, &original, &routing.upstreams, &worker.counters, kept);
        let success = || {
            let event_id = envelope.and_then(|envelope| envelope.event_id);
            let event_id = event_id.map(|span| span.of(&whole));
            let content_type = self.head.values(FieldName::ContentType, head).next();
            let method = self.head.method_span.of(head);
            target.endpoint.success(method, event_id, content_type)
        };
        let (policy, patience) = (routing.plan.reply_policy, routing.plan.reply_timeout);
        Ok(fan_out.reply(policy, patience, success).await)
    }

    /// The reply to what concerns only the mirror itself: health checks, preflights, and requests
    /// that no outbound could take.
    fn answer_locally(&self, head: &[u8], endpoint: Endpoint) -> Option<Result<Reply, Rejection>> {
        if endpoint == Endpoint::Tunnel {
            let path = self.head.target.of(head);
            let is_health = path == b"/health" || path == b"/health/";
            return match self.head.method {
                Method::Get | Method::Head if is_health => Some(Ok(Reply::health())),
                Method::Options => Some(Ok(Reply::preflight(endpoint))),
                Method::Post => None,
                Method::Get
                | Method::Head
                | Method::Put
                | Method::Patch
                | Method::Delete
                | Method::Other => Some(Err(Rejection::NotFound)),
            };
        }
        if self.head.method == Method::Options {
            return Some(Ok(Reply::preflight(endpoint)));
        }
        // A resumable upload gets a location that is signed by one upstream, so it cannot be
        // mirrored. 404 makes sentry-native drop the attachment and keep the event.
        if matches!(endpoint, Endpoint::Upload | Endpoint::ErrorPage) {
            return Some(Err(Rejection::NotFound));
        }
        if !endpoint.allows(self.head.method_span.of(head)) {
            return Some(Err(Rejection::Method(endpoint)));
        }
        None
    }

    fn find_key(&mut self, head: &[u8], target: &Target) -> Result<Option<FoundKey>, Rejection> {
        let fields = self.head.fields.iter().filter_map(|field| {
            let source = match field.name {
                FieldName::XSentryAuth => AuthField::XSentryAuth,
                FieldName::Authorization => AuthField::Authorization,
                _ => return None,
            };
            Some((source, field.value))
        });
        let (query, path_key) = (target.query, target.path_key);
        auth::find(head, fields, query, path_key, &mut self.head_edits).map_err(Rejection::Auth)
    }

    async fn read_body(
        &mut self,
        routing: &Routing,
        head: &[u8],
        body: &mut BodyState,
        share: &mut Reservation,
    ) -> Result<Bytes, Ended> {
        let limits = &routing.plan.limits;
        let BodyState::Unread(framing) = *body else {
            return Ok(Bytes::new());
        };
        let is_too_large = matches!(framing, Framing::Length(length) if length > limits.body_bytes);
        if is_too_large {
            return Err(Rejection::BodyTooLarge.into());
        }
        if self.head.expects_continue(head) && !self.connection.has_body_bytes() {
            self.connection.write_continue(limits).await?;
        }
        *body = BodyState::Broken;
        let reading = self
            .connection
            .read_body(framing, limits.body_bytes, share, limits);
        let whole = reading.await?;
        *body = BodyState::Read;
        Ok(whole)
    }

    /// Finds what changes in the body, where it is an envelope.
    fn scan_envelope(
        &mut self,
        head: &[u8],
        endpoint: Endpoint,
        body: &[u8],
    ) -> Result<Option<EnvelopeHeader>, Rejection> {
        let is_envelope = match endpoint {
            Endpoint::Envelope | Endpoint::Tunnel => true,
            Endpoint::Store => self
                .head
                .values(FieldName::ContentType, head)
                .any(|value| value.starts_with(b"application/x-sentry-envelope")),
            _ => false,
        };
        if !is_envelope {
            return Ok(None);
        }
        envelope::scan(body, &mut self.body_edits)
            .map(Some)
            .map_err(Rejection::Envelope)
    }
}

/// Whether the key may stand in the body alone: the SDK option `tunnel` sends it nowhere else.
fn reads_key_from_body(endpoint: Endpoint) -> bool {
    matches!(endpoint, Endpoint::Envelope | Endpoint::Tunnel)
}

/// The key in the `dsn` of an envelope header.
fn envelope_key(envelope: Option<&EnvelopeHeader>, body: &[u8]) -> Result<Vec<u8>, Rejection> {
    let dsn: Option<Span> = envelope.and_then(|envelope| envelope.dsn);
    let text = dsn.map(|dsn| envelope::unescape(dsn.of(body)));
    text.as_deref()
        .and_then(dsn::key_in_text)
        .map(<[u8]>::to_vec)
        .ok_or(Rejection::NoEnvelopeKey)
}

fn find_route<'r>(routing: &'r Routing, key: &[u8]) -> Result<&'r Route, Rejection> {
    routing.plan.routes.find(key).ok_or_else(|| {
        if auth::is_well_formed(key) {
            Rejection::UnknownKey
        } else {
            Rejection::BadKey
        }
    })
}

/// Undoes the content coding of `body`, pausing between slices of a large one.
async fn decode(
    worker: &Worker,
    routing: &Routing,
    encoding: Encoding,
    body: Bytes,
    share: &mut Reservation,
) -> Result<Bytes, Rejection> {
    if encoding == Encoding::Identity || body.is_empty() {
        return Ok(body);
    }
    let wire_bytes = share.bytes();
    let limit = routing.plan.limits.decoded_bytes;
    let mut decoder = Decoder::new(
        encoding,
        body,
        limit,
        &mut worker.decompressors.borrow_mut(),
    );
    loop {
        let step = decoder
            .step(DECODE_SLICE_BYTES)
            .map_err(Rejection::Decode)?;
        if !share.resize(wire_bytes + decoder.held_bytes()) {
            return Err(Rejection::Overloaded);
        }
        match step {
            Step::More => monoio::time::sleep(DECODE_PAUSE).await,
            Step::Done => break,
        }
    }
    let decoded = decoder.finish(&mut worker.decompressors.borrow_mut());
    // The coded form is gone now; a smaller share is always granted.
    let _ = share.resize(share.bytes() - wire_bytes);
    Ok(decoded)
}

fn log_rejection(worker: &Worker, connection: &Connection, rejection: &Rejection) {
    worker.counters.rejections.count(rejection.label());
    debug!(peer = %connection.peer, status = rejection.status(), reason = %rejection, "request refused");
}
