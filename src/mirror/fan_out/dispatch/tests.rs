//! A panic in a delivery, while it is rendered, or in a transform.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::config::{Config, ReplyPolicy};
use crate::http::head::{HeadLimits, Parsed};
use crate::limits::Limits;
use crate::mirror::fan_out::Resources;
use crate::mirror::reply::Expected;
use crate::mirror::reporting::counters::OutcomeKind;
use crate::mirror::reporting::worker_metrics::WorkerMetrics;
use crate::mirror::routing::local_route::{LocalRoute, LocalRoutes};
use crate::mirror::routing::routing_table::RoutingTable;
use crate::mirror::transform::filter::PartialBody;
use crate::runtime::memory_lease::SharedMemory;
use crate::runtime::test_runtime::block_on;
use crate::sentry::edit::{Edit, Replacement};
use crate::sentry::endpoint::Endpoint;
use crate::sentry::quantity::Quantities;
use crate::span::Span;
use crate::telemetry::label::Label;
use crate::upstream::pool::Pool;

const TIMEOUT: Duration = Duration::from_secs(20);

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

fn table(count: usize, address: SocketAddr) -> Arc<RoutingTable> {
    let mut text = "keys:\n- inbound: http://aaaa@m/1\n  outbound:\n".to_owned();
    for index in 0..count {
        text.push_str(&format!(
            "  - {{dsn: 'http://bbbb@{address}/{index}', compression: gzip}}\n"
        ));
    }
    let config = Config::parse(&text, "test", std::iter::empty()).unwrap();
    let table = RoutingTable::new(&config, 1, None).unwrap();
    table.origins[0].set_addresses(&[address]);
    Arc::new(table)
}

fn request() -> Request {
    let head = Bytes::from_static(b"POST /api/1/envelope/ HTTP/1.1\r\nHost: m\r\n\r\n");
    let mut request = Request::default();
    let parsed = request.parsed.parse(&head, HeadLimits::default());
    assert_eq!(parsed, Ok(Parsed::Complete));
    request.head = head;
    request
}

/// Calls `act` to start deliveries to `count` outbounds, then waits for the reply. Returns its status, and the
/// number of deliveries to each outbound by outcome. `pool_worker` is the worker whose counters the pool uses;
/// only worker 0 exists.
fn dispatch(
    count: usize,
    pool_worker: usize,
    act: impl FnOnce(&Dispatch),
) -> (u16, Vec<Vec<(OutcomeKind, u64)>>) {
    let table = table(count, sink());
    let route = table.routes.find(b"aaaa").unwrap();
    let status = block_on(async {
        let counters = Arc::new(WorkerMetrics::new(0));
        let core = Rc::new(Core::new(
            Arc::clone(&table),
            counters,
            None,
            SharedMemory::new(table.limits.memory_bytes, 1),
        ));
        let limits = Rc::new(Limits::clone(&table.limits));
        let origin = Arc::clone(&table.origins[0]);
        let pool = Rc::new(Pool::new(origin, limits, &core.budget, pool_worker));
        let resources = Resources {
            memory: core.budget.reservation(),
            _in_flight: core.in_flight.acquire(),
            trace: None,
        };
        let endpoint = Endpoint::Envelope;
        let fan_out = FanOut::new(
            &LocalRoute::new(route),
            endpoint,
            count,
            &core.counters,
            Quantities::default(),
            resources,
            Instant::now(),
        );
        let dispatch = Dispatch {
            routing: Rc::new(Routing {
                table: Arc::clone(&table),
                routes: LocalRoutes::new(&table.routes),
                pools: vec![pool],
            }),
            core,
            request: Rc::new(request()),
            fan_out,
        };
        act(&dispatch);
        let (policy, expected) = (ReplyPolicy::FirstSuccess, Expected::Anything);
        let fan_out = &dispatch.fan_out;
        let reply = fan_out.reply(policy, TIMEOUT, expected, &dispatch.request);
        reply.await.status()
    });
    let outcomes = route.outbounds.iter().map(|outbound| {
        let counters = &outbound.counters.for_worker(0).outcomes;
        let kinds = OutcomeKind::ALL.iter();
        let counts = kinds.map(|kind| (*kind, counters.get(*kind)));
        counts.filter(|(_, count)| *count > 0).collect()
    });
    (status, outcomes.collect())
}

fn deliver(dispatch: &Dispatch, index: usize, body: &OutboundBody) {
    dispatch.deliver(index, body, 0, false, Instant::now());
}

#[test]
fn a_panic_in_a_delivery_is_counted_once() {
    // It panics when it counts the opened connection, because worker 1 has no counters.
    let (status, outcomes) = dispatch(1, 1, |dispatch| deliver(dispatch, 0, &OutboundBody::Whole));
    assert_eq!(status, 503);
    assert_eq!(outcomes, [[(OutcomeKind::Panicked, 1)]]);
}

#[test]
fn a_delivery_that_began_before_a_panic_in_the_transforms_completes() {
    let (status, outcomes) = dispatch(2, 0, |dispatch| {
        let body = OutboundBody::AsReceived(Bytes::new(), "gzip");
        deliver(dispatch, 0, &body);
        dispatch.fan_out.fail_transformed();
    });
    assert_eq!(status, 200);
    assert_eq!(
        outcomes,
        [[(OutcomeKind::Success, 1)], [(OutcomeKind::Panicked, 1)]]
    );
}

#[test]
#[cfg(debug_assertions)]
fn a_panic_while_a_request_is_rendered_ends_only_its_delivery() {
    let (status, outcomes) = dispatch(2, 0, |dispatch| {
        let text = Bytes::from_static(b"{}");
        // An assertion of `render` refuses edits that overlap.
        let edit = Edit {
            span: Span::new(0, 2),
            replacement: Replacement::Nothing,
        };
        let partial = PartialBody {
            front: text.clone(),
            edits: vec![edit, edit],
            rest: text,
        };
        deliver(dispatch, 0, &OutboundBody::Plain(partial));
        deliver(dispatch, 1, &OutboundBody::AsReceived(Bytes::new(), "gzip"));
    });
    assert_eq!(status, 200);
    assert_eq!(
        outcomes,
        [[(OutcomeKind::Panicked, 1)], [(OutcomeKind::Success, 1)]]
    );
}
