//! What is prepared for some outbounds goes on in the background.
//!
//! To cut, copy and compress a large body takes longer than an SDK should wait, and the reply may
//! depend on others alone. So the preparation is a task of its own with all that it needs of the
//! request, whatever becomes of the connection. It holds the fan-out, so that a worker that stops waits
//! for it, and so that the memory of the request is counted as long as it is used.

use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use crate::budget::Reservation;
use crate::http::head::RequestHead;
use crate::mirror::deliver::FanOut;
use crate::mirror::rewrite::Original;
use crate::mirror::routes::Route;
use crate::panics::caught;
use crate::sentry::edit::Edit;
use crate::sentry::endpoint::Target;
use crate::sentry::envelope::EnvelopeHeader;
use crate::server::body::Body;
use crate::server::gate::Pass;
use crate::server::prepare;
use crate::server::request::Sent;
use crate::server::worker::{Routing, Worker};
use crate::span::Span;

/// A request, as its connection has to let go of it.
pub(super) struct Background {
    worker: Rc<Worker>,
    routing: Rc<Routing>,
    fan_out: Rc<FanOut<(Reservation, Pass)>>,
    route: Arc<Route>,
    trace_route: Option<Arc<Route>>,
    head: Bytes,
    parsed: RequestHead,
    head_edits: Vec<Edit>,
    body_edits: Vec<Edit>,
    client: Option<IpAddr>,
    request_target: Span,
    target: Target,
    body: Body,
    envelope: Option<EnvelopeHeader>,
}

impl Background {
    /// Keeps what is needed of a request that `fan_out` was started for.
    pub(super) fn new(
        worker: &Rc<Worker>,
        routing: &Rc<Routing>,
        fan_out: &Rc<FanOut<(Reservation, Pass)>>,
        (route, trace_route): (&Arc<Route>, Option<&Arc<Route>>),
        original: &Original<'_>,
        sent: &Sent<'_>,
    ) -> Background {
        Background {
            worker: Rc::clone(worker),
            routing: Rc::clone(routing),
            fan_out: Rc::clone(fan_out),
            route: Arc::clone(route),
            trace_route: trace_route.cloned(),
            head: sent.head.clone(),
            parsed: original.parsed.clone(),
            head_edits: original.head_edits.to_vec(),
            body_edits: original.body_edits.to_vec(),
            client: original.client,
            request_target: sent.request_target,
            target: sent.target,
            body: sent.body.clone(),
            envelope: sent.envelope,
        }
    }

    /// Delivers it to the outbounds that have a handling.
    pub(super) fn start(self) {
        monoio::spawn(async move {
            let (fan_out, route) = (Rc::clone(&self.fan_out), Arc::clone(&self.route));
            if caught(pin!(self.run())).await.is_err() {
                fan_out.give_up(|outbound| route.is_handled(outbound));
            }
        });
    }

    async fn run(self) {
        let sent = Sent {
            head: &self.head,
            request_target: self.request_target,
            target: self.target,
            body: &self.body,
            envelope: self.envelope,
        };
        let original = Original {
            head: &self.head,
            parsed: &self.parsed,
            head_edits: &self.head_edits,
            body: &self.body.text,
            body_edits: &self.body_edits,
            trace_route: self.trace_route.as_deref(),
            client: self.client,
        };
        let (worker, routing, fan_out) = (&self.worker, &self.routing, &self.fan_out);
        prepare::deliver_handled(worker, routing, fan_out, &self.route, &original, &sent).await;
    }
}
