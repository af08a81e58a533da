//! Sends a request to the outbounds of its route, and waits for the reply.

use std::rc::Rc;
use std::time::Instant;

use crate::config::ReplyPolicy;
use crate::http::head::Method;
use crate::mirror::core::{Core, Routing};
use crate::mirror::fan_out::dispatch::Dispatch;
use crate::mirror::fan_out::render::{self, OutboundBody};
use crate::mirror::fan_out::{FanOut, Resources};
use crate::mirror::reply::crash_dialog;
use crate::mirror::reply::rejection::Rejection;
use crate::mirror::reply::{Expected, Reply};
use crate::mirror::request::Request;
use crate::mirror::request::item_count;
use crate::mirror::request::request_trace::RequestTrace;
use crate::runtime::memory_budget::MemoryReservation;
use crate::sentry::endpoint::Endpoint;
use crate::sentry::quantity::Quantities;
use crate::upstream::read_buffer::SMALL_BYTES;

pub(crate) async fn send(
    request: &Rc<Request>,
    core: &Rc<Core>,
    routing: &Rc<Routing>,
    trace: Option<Rc<RequestTrace>>,
    mut memory: MemoryReservation,
) -> Result<Reply, Rejection> {
    let Some(route) = &request.route else {
        return Err(Rejection::NoKey);
    };
    let table = &routing.table;
    let method = request.parsed.method;
    let endpoint = request.target.endpoint;
    let form_url = match endpoint == Endpoint::ErrorPage && method == Method::Get {
        true => Some(crash_dialog::form_url(request, table)?),
        false => None,
    };
    let is_script = form_url.is_some();
    // Only the primary is asked for the script. The reports of its form are mirrored to all outbounds.
    let count = if is_script { 1 } else { route.outbounds.len() };
    let outbounds = route.outbounds.iter().take(count);
    let rendered_bytes: usize = outbounds
        .filter(|outbound| outbound.transform.is_none() || is_script)
        .map(|outbound| render::held_bytes(request, outbound, &OutboundBody::Whole))
        .sum();
    // Small responses are reserved now, because they are kept until the slowest delivery has ended. The rendered
    // requests only have to fit: each is reserved and released with its own delivery.
    let kept_bytes = memory.bytes() + count * SMALL_BYTES;
    if !memory.can_resize(kept_bytes + rendered_bytes) || !memory.resize(kept_bytes) {
        return Err(Rejection::Overloaded);
    }
    let may_be_limited = route
        .outbounds
        .iter()
        .any(|one| one.rate_limits.may_limit());
    let entry = trace.as_ref().and_then(|trace| trace.entry.as_ref());
    let categories = match may_be_limited || entry.is_some() {
        true => Box::pin(request.categories()).await,
        false => Vec::new(),
    };
    if let Some(entry) = entry {
        entry.record_categories(&categories);
    }
    let resources = Resources {
        memory,
        _in_flight: core.in_flight.acquire(),
        trace,
    };
    let items = match table.item_metrics {
        false => Quantities::default(),
        true => match item_count::at_once(request) {
            Some(items) => items,
            None => Box::pin(item_count::walk(request)).await,
        },
    };
    let fan_out = FanOut::new(
        route,
        endpoint,
        count,
        &core.counters,
        items,
        resources,
        Instant::now(),
    );
    let dispatch = Dispatch {
        core: Rc::clone(core),
        routing: Rc::clone(routing),
        request: Rc::clone(request),
        fan_out: Rc::clone(&fan_out),
    };
    dispatch.start(&categories, is_script);
    let (policy, timeout, expected) = if is_script {
        // Long enough for the primary to respond or fail, because no other outbound can respond.
        let timeout = table.limits.timeouts.exchange * 2;
        (ReplyPolicy::Primary, timeout, Expected::Script)
    } else {
        let expected = match endpoint.is_answered_200() && method == Method::Post {
            true => Expected::Object,
            false => Expected::Anything,
        };
        (table.reply_policy, table.reply_timeout, expected)
    };
    let reply = fan_out.reply(policy, timeout, expected, request).await;
    Ok(match endpoint {
        Endpoint::ErrorPage => crash_dialog::rewrite_reply(reply, route, form_url.as_deref()),
        _ => reply,
    })
}
