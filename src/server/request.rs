//! The way of one request from its head to its reply.
//!
//! `Exchange::answer` is the story: target, key, route, body, envelope, fan-out. Each step is the
//! next call; what the steps mean stands in the rooms below. The route is looked up before the body
//! is read, so that a request that goes nowhere costs no memory; only an envelope whose key stands
//! in its own header has to be read first.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tracing::error;

use crate::budget::Reservation;
use crate::config::ReplyPolicy;
use crate::http::encoding::Encoding;
use crate::http::framing::{self, Framing};
use crate::http::head::{HeaderName, Method};
use crate::mirror::access::Entry;
use crate::mirror::deliver::{FanOut, Means};
use crate::mirror::dialog;
use crate::mirror::rejection::Rejection;
use crate::mirror::reply::{Expected, Reply};
use crate::mirror::rewrite::{self, Original, PassedOn, Stray};
use crate::mirror::routes::{Outbound, Route};
use crate::sentry::auth::AuthError;
use crate::sentry::category::Category;
use crate::sentry::edit::EDITS_MAX;
use crate::sentry::endpoint::{self, Endpoint, Target};
use crate::sentry::envelope::{self, EnvelopeHeader};
use crate::sentry::inventory::Indexer;
use crate::server::background::Background;
use crate::server::body::{Arrived, Body};
use crate::server::connection::{Ended, held_with_head};
use crate::server::core::{Core, Routing};
use crate::server::inbound::{BodyState, Course, Exchange};
use crate::server::key::{envelope_key, find_route, refuse_without_key, route_in_head};
use crate::server::plan::Plan;
use crate::server::turns::Turns;
use crate::span::Span;
use crate::upstream::incoming::SMALL_BYTES;

impl Exchange {
    /// The reply to the request whose head is `head`; says in `course` how far it came.
    pub(super) async fn answer<'r>(
        &mut self,
        core: &Rc<Core>,
        routing: &'r Rc<Routing>,
        head: &Bytes,
        course: &mut Course<'r>,
        mut share: Reservation,
    ) -> Result<Reply, Ended> {
        let framing = framing::for_request(&self.head, head).map_err(Rejection::Framing)?;
        course.body = BodyState::Unread(framing);
        self.head_edits.clear();
        self.body_edits.clear();
        let mut target = endpoint::parse_target(head, self.head.target, &mut self.head_edits);
        course.endpoint = Some(target.endpoint);
        let has_too_many_slashes = self.head_edits.len() >= EDITS_MAX;
        if has_too_many_slashes || endpoint::has_dot_segment(head, self.head.target) {
            return Err(Rejection::NotFound.into());
        }
        if let Some(reply) = self.answer_locally(head, &target) {
            course.is_local = reply.is_ok();
            return reply.map_err(Ended::Rejected);
        }
        let key = self.find_key(head, &target)?;
        let route = route_in_head(routing, head, &target, self.head.method, key.as_ref())?;
        course.route = route;
        if let Some(route) = route {
            self.refuse_loop(route, head)?;
            share.join_whole();
        }
        let encoding = Encoding::parse(self.head.values(HeaderName::ContentEncoding, head))
            .map_err(|_| Rejection::Encoding)?;
        let is_envelope = route.is_none() || self.is_envelope(head, target.endpoint);
        let arrived = Arrived {
            bytes: self.read_body(routing, head, course, &mut share).await?,
            encoding,
            is_envelope,
            route,
        };
        let is_routed = |front: &[u8], header: Option<EnvelopeHeader>| {
            let key = envelope_key(header.as_ref(), front)
                .ok_or_else(|| refuse_without_key(head, &target, key.as_ref()))?;
            find_route(routing, &key).map(drop)
        };
        let decoding = arrived.decode(&routing.plan, &mut share, &core.decoding, is_routed);
        let whole = decoding.await?;
        let scanned = match is_envelope {
            true => self.scan_envelope(&routing.plan, &whole),
            false => Ok(None),
        };
        let (envelope, route) = match (scanned, route) {
            (Ok(envelope), Some(route)) => (envelope, route),
            // Of what does not exist yet nobody knows how it has to look.
            (Err(_), Some(route)) if target.endpoint == Endpoint::Generic => (None, route),
            (Err(error), Some(_)) => return Err(error.into()),
            // Without a key it may just not be an envelope at all.
            (scanned, None) => {
                let envelope = scanned.ok().flatten();
                let key = envelope_key(envelope.as_ref(), &whole.text)
                    .ok_or_else(|| refuse_without_key(head, &target, key.as_ref()))?;
                (envelope, find_route(routing, &key)?)
            }
        };
        let is_tunnelled = course.route.is_none();
        if is_tunnelled && target.endpoint == Endpoint::Generic {
            let target_end = self.head.target.end;
            self.head_edits.retain(|edit| edit.span.start >= target_end);
            endpoint::edit_tunnel(self.head.target, &mut self.head_edits);
            target.endpoint = Endpoint::Tunnel;
            course.endpoint = Some(Endpoint::Tunnel);
        }
        if is_tunnelled {
            course.route = Some(route);
            self.refuse_loop(route, head)?;
            share.join_whole();
        }
        let is_dialog = target.endpoint == Endpoint::ErrorPage;
        let passed_on = PassedOn {
            client_address: routing.plan.forward_client_ip,
            credentials: !is_tunnelled && !is_dialog,
            conditions: !is_dialog,
        };
        rewrite::edit_head(&self.head, head, passed_on, &mut self.head_edits);
        rewrite::edit_strays(&self.head, head, route, &mut self.head_edits)
            .map_err(|Stray| Rejection::Auth(AuthError::Multiple))?;
        let request_target = self.head.target;
        let sent = Sent {
            head,
            request_target,
            target,
            body: &whole,
            envelope,
        };
        let access = course.access.clone();
        self.mirror(core, routing, route, &sent, share, access)
            .await
    }

    /// Sends the request to the outbounds of its route, and gives the reply.
    async fn mirror(
        &mut self,
        core: &Rc<Core>,
        routing: &Rc<Routing>,
        route: &Arc<Route>,
        sent: &Sent<'_>,
        mut share: Reservation,
        access: Option<Rc<Entry>>,
    ) -> Result<Reply, Ended> {
        let plan = &routing.plan;
        let is_dialog =
            self.head.method == Method::Get && sent.target.endpoint == Endpoint::ErrorPage;
        let post_to = match is_dialog {
            true => {
                let url = dialog::literal(&self.external_url(plan, sent.head));
                Some(url.ok_or(Rejection::UrlTooLong)?)
            }
            false => None,
        };
        let trace_key = sent.envelope.and_then(|envelope| envelope.trace_key);
        let named_route = trace_key.and_then(|key| {
            plan.routes
                .find(&envelope::unescape(key.slice(&sent.body.text)))
        });
        // The request's own route has nothing to look up: each outbound puts in its own key.
        let trace_route = named_route.filter(|named| !Arc::ptr_eq(named, route));
        let original = Original {
            head: sent.head,
            parsed: &self.head,
            head_edits: &self.head_edits,
            body: &sent.body.text,
            body_edits: &self.body_edits,
            trace_route: trace_route.map(Arc::as_ref),
            client: plan.forward_client_ip.then(|| self.connection.peer.ip()),
        };
        // A script has one source; reports come back to the mirror and go to all.
        let count = if is_dialog { 1 } else { route.outbounds.len() };
        let outbounds = route.outbounds.iter().take(count);
        let is_as_it_is = |outbound: &&Outbound| outbound.handling.is_none() || is_dialog;
        let rendered_bytes: usize = outbounds
            .filter(is_as_it_is)
            .map(|outbound| original.held_bytes(outbound))
            .sum();
        // A small answer lives until the slowest delivery has ended; what is rendered does not.
        let kept_bytes = share.bytes() + count * SMALL_BYTES;
        if !share.can_resize(kept_bytes + rendered_bytes) || !share.resize(kept_bytes) {
            return Err(Rejection::Overloaded.into());
        }
        let has_limits = route.outbounds.iter().any(|one| one.limits.may_limit());
        let items = match has_limits {
            true => Box::pin(sent.items()).await,
            false => Vec::new(),
        };
        let means = Means {
            upstreams: &routing.upstreams,
            counters: &core.counters,
            lanes: &core.lanes,
            access,
            kept: (share, core.gate.enter()),
            kept_bytes,
        };
        let endpoint = sent.target.endpoint;
        let fan_out = FanOut::start(route, endpoint, count, &original, is_dialog, &items, means);
        if !route.handlings.is_empty() && !is_dialog {
            let routes = (route, trace_route);
            Background::new(core, routing, &fan_out, routes, &original, sent).start();
        }
        let success = || {
            let content_type = self.head.values(HeaderName::ContentType, sent.head).next();
            let method = self.head.method_span.slice(sent.head);
            endpoint.success(method, sent.event_id(), content_type)
        };
        if is_dialog {
            // Only the primary can answer this, so it is waited for until it has failed.
            let patience = plan.limits.timeouts.exchange * 2;
            let reply = fan_out.reply(ReplyPolicy::Primary, patience, Expected::Script, success);
            let reply = reply.await;
            return Ok(dialog::passed_on(reply, route, post_to.as_deref()));
        }
        let expected = match endpoint.is_answered_200() && self.head.method == Method::Post {
            true => Expected::Object,
            false => Expected::Anything,
        };
        let (policy, patience) = (plan.reply_policy, plan.reply_timeout);
        let reply = fan_out.reply(policy, patience, expected, success).await;
        Ok(match endpoint {
            Endpoint::ErrorPage => dialog::passed_on(reply, route, None),
            _ => reply,
        })
    }

    /// The reply to what concerns only the mirror itself: health checks, preflights, and requests
    /// that no outbound could take.
    fn answer_locally(&self, head: &[u8], target: &Target) -> Option<Result<Reply, Rejection>> {
        let is_read = matches!(self.head.method, Method::Get | Method::Head);
        let endpoint = target.endpoint;
        let path = endpoint::path(head, self.head.target).slice(head);
        match (endpoint, self.head.method) {
            (_, Method::Options) => Some(Ok(Reply::preflight(endpoint))),
            (Endpoint::Tunnel, Method::Post) => None,
            (Endpoint::Tunnel, _) if target.lacks_project => Some(Err(Rejection::BadProject)),
            (Endpoint::Tunnel, _) => match path {
                b"/health" | b"/health/" if is_read => Some(Ok(Reply::health())),
                _ => Some(Err(Rejection::NotFound)),
            },
            // A Relay that lost us asks here until it gets a 2xx.
            (Endpoint::Generic, _) if is_read && is_liveness(path) => Some(Ok(Reply::alive())),
            // The location of a resumable upload is signed by one upstream, so it cannot be
            // mirrored. 404 makes sentry-native drop the attachment and keep the event.
            (Endpoint::Upload, _) => Some(Err(Rejection::NotFound)),
            _ if !endpoint.allows(self.head.method_span.slice(head)) => {
                Some(Err(Rejection::Method(endpoint)))
            }
            _ => None,
        }
    }

    /// Refuses what has been through `route` before: some outbound leads back to it.
    fn refuse_loop(&self, route: &Route, head: &[u8]) -> Result<(), Rejection> {
        if !self.head.has(HeaderName::Via)
            || !route.via.is_among(self.head.values(HeaderName::Via, head))
        {
            return Ok(());
        }
        if route.loop_lines.is_due(Instant::now()) {
            error!(
                route = route.label,
                "a request came back to the mirror that had sent it, and is refused (508): an outbound of this route leads to the mirror itself, perhaps over another one; where mirrors follow on each other, each needs an inbound key of its own"
            );
        }
        Err(Rejection::Loop)
    }

    async fn read_body(
        &mut self,
        routing: &Routing,
        head: &[u8],
        course: &mut Course<'_>,
        share: &mut Reservation,
    ) -> Result<Bytes, Ended> {
        let limits = &routing.plan.limits;
        let BodyState::Unread(framing) = course.body else {
            return Ok(Bytes::new());
        };
        if matches!(framing, Framing::Length(length) if length > limits.body_bytes) {
            return Err(Rejection::BodyTooLarge.into());
        }
        let is_awaited = !matches!(framing, Framing::Empty | Framing::Length(0));
        if is_awaited && self.head.expects_continue(head) && !self.connection.has_body_bytes() {
            Box::pin(self.connection.write_continue(limits)).await?;
        }
        course.body = BodyState::Broken;
        let bytes_max = limits.body_bytes;
        let reading = self.connection.read_body(framing, bytes_max, share, limits);
        let whole = reading.await?;
        course.body = BodyState::Read;
        course.body_bytes = whole.len();
        if !share.resize(held_with_head(share)) {
            return Err(Rejection::Overloaded.into());
        }
        Ok(whole)
    }

    fn is_envelope(&self, head: &[u8], endpoint: Endpoint) -> bool {
        match endpoint {
            Endpoint::Envelope | Endpoint::Tunnel => true,
            Endpoint::Store | Endpoint::Generic => self
                .head
                .values(HeaderName::ContentType, head)
                .any(|value| value.starts_with(b"application/x-sentry-envelope")),
            _ => false,
        }
    }

    /// Finds what changes in the body, which should be an envelope.
    fn scan_envelope(
        &mut self,
        plan: &Plan,
        body: &Body,
    ) -> Result<Option<EnvelopeHeader>, Rejection> {
        if !body.is_whole && !plan.modify_envelope {
            return Ok(None);
        }
        let header_bytes_max = plan.limits.envelope_header_bytes;
        let scanned = envelope::scan_within(&body.text, header_bytes_max, &mut self.body_edits);
        if scanned.is_err() || !plan.modify_envelope {
            self.body_edits.clear();
        }
        match scanned {
            Ok(envelope) => Ok(Some(envelope)),
            // Nothing in it is changed, so that nothing in it has to be understood.
            Err(_) if !plan.modify_envelope => Ok(None),
            Err(error) => Err(Rejection::Envelope(error)),
        }
    }

    /// Where the browser that sent the request sees this URL.
    fn external_url(&self, plan: &Plan, head: &[u8]) -> Vec<u8> {
        let path = endpoint::path(head, self.head.target);
        let target = Span::new(path.start, self.head.target.end).slice(head);
        if let Some(base) = &plan.external_url {
            return [base.as_bytes(), target].concat();
        }
        let value = |name| self.head.values(name, head).next();
        dialog::external_url(
            value(HeaderName::Host).unwrap_or_default(),
            value(HeaderName::XForwardedProto),
            target,
        )
    }
}

/// A request as it was sent to us, read and decoded.
pub(super) struct Sent<'s> {
    pub(super) head: &'s Bytes,
    pub(super) request_target: Span,
    pub(super) target: Target,
    pub(super) body: &'s Body,
    pub(super) envelope: Option<EnvelopeHeader>,
}

impl Sent<'_> {
    /// What rate limits can be about: nothing where they do not count. The headers of items are walked
    /// over in turns.
    pub(super) async fn items(&self) -> Vec<Option<Category>> {
        if !self.target.endpoint.has_rate_limits() {
            return Vec::new();
        }
        let Some(envelope) = self.envelope.filter(|_| self.body.is_whole) else {
            return vec![Category::from_endpoint(self.target.endpoint)];
        };
        let mut survey = Indexer::new(&self.body.text, envelope.end, None);
        let mut turns = Turns::of_walks();
        let is_whole = loop {
            match survey.step() {
                Ok(Some(walked_bytes)) => turns.pass(walked_bytes).await,
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        survey.categories(is_whole)
    }

    fn event_id(&self) -> Option<&[u8]> {
        let span = self.envelope?.event_id?;
        Some(span.slice(&self.body.text))
    }
}

/// Whether a path is the one at which Relay asks whether its upstream is alive.
fn is_liveness(path: &[u8]) -> bool {
    path.strip_suffix(b"/").unwrap_or(path) == b"/api/0/relays/live"
}
