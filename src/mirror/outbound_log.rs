//! Logs when an outbound starts or stops rejecting requests, and when its rate limits begin and end.

use std::sync::atomic::Ordering;
use std::time::Instant;

use tracing::{info, warn};

use crate::mirror::counters::OutboundCounters;
use crate::mirror::routes::{Outbound, Route};
use crate::telemetry::words;
use crate::upstream::response::Response;

/// The maximum length of the logged part of a rejecting response.
const REASON_BYTES_MAX: usize = 200;

/// Logs when an outbound starts or stops rejecting requests. An outbound that responds may still lose all
/// events: with a wrong key it answers each with 403.
pub(super) fn log_rejections(
    route: &Route,
    outbound: &Outbound,
    response: &Response,
    now: Instant,
) {
    let status = response.status;
    let state = match status {
        200..=299 => 0,
        // Concerns only this request, or a rate limit.
        400 | 405..=499 => return,
        _ => u32::from(status),
    };
    let was_failing = outbound.rejection_log.is_failing();
    if !outbound.rejection_log.should_log(state, now) {
        return;
    }
    let (label, rejected_before) = (&outbound.name, &outbound.rejected_before);
    let rejected_now = outbound.counters.sum(OutboundCounters::refused);
    if state == 0 {
        let count = rejected_now.saturating_sub(rejected_before.load(Ordering::Relaxed));
        let seconds = outbound.rejection_log.lasted(now).as_secs_f64();
        info!(
            route = route.name,
            outbound = label,
            seconds,
            lost_deliveries = count,
            "outbound accepts requests again"
        );
    } else {
        if !was_failing {
            rejected_before.store(rejected_now, Ordering::Relaxed);
        }
        let reason = reason(outbound, response);
        warn!(route = route.name, outbound = label, status, %reason, "outbound is rejecting requests");
    }
}

/// Logs when the rate limits of an outbound begin and end. A limit ends by time, so this must be called
/// regularly.
pub(crate) fn log_rate_limits(outbound: &Outbound, now: Instant) {
    // The common case costs two atomic loads.
    if !outbound.rate_limits.may_limit() && !outbound.rate_limit_log.is_failing() {
        return;
    }
    let limits = outbound.rate_limits.active(now);
    if !outbound
        .rate_limit_log
        .should_log(u32::from(!limits.is_empty()), now)
    {
        return;
    }
    let outbound_label = &outbound.name;
    if limits.is_empty() {
        let seconds = outbound.rate_limit_log.lasted(now).as_secs_f64();
        info!(
            outbound = outbound_label,
            seconds, "outbound has no rate limits any more"
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
    info!(
        outbound = outbound_label,
        limits, "outbound has rate limits"
    );
}

/// The reason that an outbound gives in a response that is not a success, without credentials.
pub(super) fn reason(outbound: &Outbound, response: &Response) -> String {
    let error = response.rare_headers().sentry_error.as_ref();
    let reason = error.unwrap_or(&response.body);
    let secret = outbound.secret.as_deref().unwrap_or_default();
    words::sanitized(reason, REASON_BYTES_MAX, &[secret, &outbound.key])
}
