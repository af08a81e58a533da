//! Logs when an outbound starts or stops rejecting requests, when its rate limits begin and end, and when its caps are
//! near and reached.

use std::time::Instant;

use memchr::memmem;
use tracing::{info, warn};

use crate::mirror::cap::{Cap, CapLevel, Caps};
use crate::mirror::outbound::incidents::{Incident, IncidentKind};
use crate::mirror::routing::routes::{Outbound, Route};
use crate::telemetry::log_on_change::Change;
use crate::telemetry::words;
use crate::upstream::response::Response;

/// The maximum length of the logged part of a rejecting response.
const REASON_BYTES_MAX: usize = 200;

/// What nginx 1.22 says after the handshake, with 400, to clients without the certificate that it requires.
const CERTIFICATE_REASONS: [&[u8]; 2] = [
    b"No required SSL certificate was sent",
    b"The SSL certificate error",
];

/// Whether an outbound with this response rejects every request, not only this one, and not for a rate limit.
pub(crate) fn rejects_all(response: &Response) -> bool {
    match response.status {
        200..=299 | 405..=499 => false,
        400 => {
            let mut reasons = CERTIFICATE_REASONS.iter();
            let start = response.body.get(..REASON_BYTES_MAX);
            let start = start.unwrap_or(&response.body);
            reasons.any(|reason| memmem::find(start, reason).is_some())
        }
        _ => true,
    }
}

/// Logs when an outbound starts or stops rejecting requests. An outbound that responds may still lose all
/// events: with a wrong key it answers each with 403.
pub(crate) fn log_rejections(
    route: &Route,
    outbound: &Outbound,
    response: &Response,
    now: Instant,
) {
    let status = response.status;
    let state = match status {
        200..=299 => 0,
        _ if rejects_all(response) => u32::from(status),
        _ => return,
    };
    let log = &outbound.state.rejection_log;
    let change = log.observe(state, now);
    if change == Change::default() {
        return;
    }
    let (route, name) = (&route.name, &outbound.name);
    if state == 0 {
        let ended = outbound.state.end(log, IncidentKind::Rejecting, now);
        if !change.is_logged {
            return;
        }
        let (seconds, lost_deliveries) = cost(ended);
        info!(
            route,
            outbound = name,
            seconds,
            lost_deliveries,
            "outbound accepts requests again"
        );
    } else {
        let reason = reason(outbound, response);
        if change.is_logged {
            warn!(route, outbound = name, status, %reason, "outbound is rejecting requests");
        }
        let reason = format!("answered {status}: {reason}");
        outbound
            .state
            .begin(log, IncidentKind::Rejecting, &reason, now);
    }
}

/// Logs when the rate limits of an outbound begin and end. A limit ends by time, so this must be called
/// regularly.
pub(crate) fn log_rate_limits(route: &Route, outbound: &Outbound, now: Instant) {
    let log = &outbound.state.rate_limit_log;
    // The common case costs two atomic loads.
    if !outbound.rate_limits.may_limit() && !log.is_failing() {
        return;
    }
    let limits = outbound.rate_limits.active(now);
    let change = log.observe(u32::from(!limits.is_empty()), now);
    if change == Change::default() {
        return;
    }
    let (route, name) = (&route.name, &outbound.name);
    if limits.is_empty() {
        let ended = outbound.state.end(log, IncidentKind::RateLimited, now);
        if !change.is_logged {
            return;
        }
        let (seconds, withheld_deliveries) = cost(ended);
        info!(
            route,
            outbound = name,
            seconds,
            withheld_deliveries,
            "outbound has no rate limits any more"
        );
        return;
    }
    let descriptions = limits.iter().map(|limit| {
        let what = match limit.categories.is_empty() {
            true => "everything".to_owned(),
            false => limit.categories.join(", "),
        };
        format!("{what} for {} s", limit.seconds)
    });
    let limits = descriptions.collect::<Vec<_>>().join("; ");
    if change.is_logged {
        info!(route, outbound = name, limits, "outbound has rate limits");
    }
    outbound
        .state
        .begin(log, IncidentKind::RateLimited, &limits, now);
}

/// Logs when a cap of an outbound is near, reached, and neither any more. Must be called regularly.
pub(crate) fn log_caps(route: &Route, outbound: &Outbound, now: Instant) {
    let log = &outbound.state.cap_log;
    let caps = outbound.caps.as_deref();
    if caps.is_none() && !log.is_failing() {
        return;
    }
    let mut reached = Vec::new();
    for (cap, level) in caps.into_iter().flat_map(|caps| Caps::levels(caps, now)) {
        if level == CapLevel::Reached {
            reached.push(cap.configured().to_string());
        }
        if cap.log.should_log(level as u32, now) {
            log_cap(route, outbound, cap, level);
        }
    }
    let change = log.observe(u32::from(!reached.is_empty()), now);
    if change == Change::default() {
        return;
    }
    match reached.is_empty() {
        true => drop(outbound.state.end(log, IncidentKind::Capped, now)),
        false => outbound
            .state
            .begin(log, IncidentKind::Capped, &reached.join(", "), now),
    }
}

fn log_cap(route: &Route, outbound: &Outbound, cap: &Cap, level: CapLevel) {
    let (route, name) = (&route.name, &outbound.name);
    let cap = cap.configured().to_string();
    match level {
        CapLevel::Reached => {
            warn!(
                route,
                outbound = name,
                cap,
                "a cap of the outbound is reached"
            );
        }
        CapLevel::Near => info!(
            route,
            outbound = name,
            cap,
            "80 % of a cap of the outbound is used"
        ),
        CapLevel::Below => info!(
            route,
            outbound = name,
            cap,
            "less than 80 % of a cap of the outbound is used again"
        ),
    }
}

/// How long an incident lasted, in seconds, and how many deliveries it cost.
fn cost(ended: Option<Incident>) -> (f64, u64) {
    ended.map_or((0.0, 0), |incident| {
        (incident.lasted.as_secs_f64(), incident.lost)
    })
}

/// The reason that an outbound gives in a response that is not a success, without credentials.
pub(crate) fn reason(outbound: &Outbound, response: &Response) -> String {
    let error = response.rare_headers().sentry_error.as_ref();
    let reason = error.unwrap_or(&response.body);
    words::sanitized(reason, REASON_BYTES_MAX, &outbound.credentials())
}
