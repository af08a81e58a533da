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
use crate::server::core::{Core, Routing};
use crate::server::gate::Pass;
use crate::server::prepare;
use crate::server::request::Sent;
use crate::span::Span;

/// A request, as its connection has to let go of it.
pub(super) struct Background {
    core: Rc<Core>,
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
        core: &Rc<Core>,
        routing: &Rc<Routing>,
        fan_out: &Rc<FanOut<(Reservation, Pass)>>,
        (route, trace_route): (&Arc<Route>, Option<&Arc<Route>>),
        original: &Original<'_>,
        sent: &Sent<'_>,
    ) -> Background {
        Background {
            core: Rc::clone(core),
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
        let (core, routing, fan_out) = (&self.core, &self.routing, &self.fan_out);
        prepare::deliver_handled(core, routing, fan_out, &self.route, &original, &sent).await;
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener};
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::budget::Budget;
    use crate::config::{Config, ReplyPolicy};
    use crate::http::head::{HeadLimits, Parsed};
    use crate::limits::Limits;
    use crate::mirror::counters::OutcomeKind;
    use crate::mirror::deliver::Means;
    use crate::mirror::lanes::Lanes;
    use crate::mirror::reply::Expected;
    use crate::mirror::totals::Counters;
    use crate::observe::label::Label;
    use crate::sentry::endpoint::Endpoint;
    use crate::server::plan::Plan;
    use crate::test_runtime::block_on;
    use crate::upstream::exchange::Request;
    use crate::upstream::pool::Pool;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// An upstream that accepts everything.
    fn sink() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
            }
        });
        address
    }

    /// A fan-out to `count` outbounds that all have a handling, so that nothing is sent, before `act`
    /// acts on it; then the reply is waited for. Gives the status of that, and how often each outbound
    /// has ended in what. The upstream believes that it belongs to `worker`; the only one is 0.
    fn fan_out(
        count: usize,
        worker: usize,
        act: impl FnOnce(&Rc<FanOut<()>>, &dyn Fn(usize)),
    ) -> (u16, Vec<Vec<(OutcomeKind, u64)>>) {
        let address = sink();
        let mut text = "keys:\n- inbound: http://aaaa@m/1\n  outbound:\n".to_owned();
        for index in 0..count {
            text.push_str(&format!(
                "  - {{dsn: 'http://bbbb@{address}/{index}', compression: gzip}}\n"
            ));
        }
        let config = Config::parse(&text, "test", std::iter::empty()).unwrap();
        let plan = Plan::new(&config, 1, None).unwrap();
        let [origin] = plan.origins.as_slice() else {
            panic!("one origin");
        };
        origin.set_addresses(vec![address]);
        let budget = Budget::new(1 << 20);
        let limits = Rc::new(Limits::clone(&plan.limits));
        let upstream = Rc::new(Pool::new(Arc::clone(origin), limits, &budget, worker));
        let head = Bytes::from_static(b"POST /api/1/envelope/ HTTP/1.1\r\nHost: m\r\n\r\n");
        let mut parsed = RequestHead::default();
        let result = parsed.parse(&head, HeadLimits::default());
        assert_eq!(result, Ok(Parsed::Complete));
        let original = Original {
            head: &head,
            parsed: &parsed,
            head_edits: &[],
            body: &Bytes::new(),
            body_edits: &[],
            trace_route: None,
            client: None,
        };
        let route = plan.routes.find(b"aaaa").unwrap();
        let reply = block_on(async {
            let lanes = Lanes::new();
            let means = Means {
                upstreams: &[Rc::clone(&upstream)],
                counters: &Arc::new(Counters::of_worker(0)),
                lanes: &lanes,
                access: None,
                kept: (),
                kept_bytes: 0,
            };
            let fan_out = FanOut::start(
                route,
                Endpoint::Envelope,
                count,
                &original,
                false,
                &[],
                means,
            );
            act(&fan_out, &|index| {
                let request = Request {
                    method: parsed.method,
                    head: head.to_vec(),
                    body: Bytes::new(),
                    tail: Vec::new(),
                };
                let room = upstream.admit(0, 0).unwrap();
                fan_out.send(&lanes, index, &upstream, (request, room), true);
            });
            let success = || panic!("everything has ended");
            let reply = fan_out.reply(
                ReplyPolicy::FirstSuccess,
                PATIENCE,
                Expected::Anything,
                success,
            );
            reply.await
        });
        let ends = route.outbounds.iter().map(|outbound| {
            let kinds = OutcomeKind::ALL.iter();
            let counts =
                kinds.map(|kind| (*kind, outbound.counters.for_worker(0).outcomes.get(*kind)));
            counts.filter(|(_, count)| *count > 0).collect()
        });
        (reply.status(), ends.collect())
    }

    #[test]
    fn a_delivery_that_panics_is_counted_once_and_costs_nothing_else() {
        // It finds no place to count the connection that it has opened.
        let (status, ends) = fan_out(1, 1, |_, send| send(0));
        assert_eq!(status, 503);
        assert_eq!(ends, [[(OutcomeKind::Panicked, 1)]]);
    }

    #[test]
    fn what_a_preparation_has_sent_before_it_panicked_is_counted_by_its_own_end_alone() {
        let (status, ends) = fan_out(2, 0, |fan_out, send| {
            send(0);
            fan_out.give_up(|_| true);
        });
        assert_eq!(status, 200);
        assert_eq!(
            ends,
            [[(OutcomeKind::Success, 1)], [(OutcomeKind::Panicked, 1)]]
        );
    }
}
