//! What the log is told of an outbound: that it begins or ceases to refuse, or to limit, what it is sent.

use std::sync::atomic::Ordering;
use std::time::Instant;

use tracing::{info, warn};

use crate::mirror::counters::OutboundCounters;
use crate::mirror::routes::{Outbound, Route};
use crate::telemetry::words;
use crate::upstream::response::Response;

/// How much of the answer of an outbound that refuses is logged.
const REASON_BYTES_MAX: usize = 200;

/// Tells the log when an outbound begins or ceases to refuse what it is sent. That it answers is not
/// enough: with a wrong key it answers every event with 403 and keeps none.
pub(super) fn tell_refusal(route: &Route, outbound: &Outbound, response: &Response, now: Instant) {
    let status = response.status;
    let state = match status {
        200..=299 => 0,
        // About this one request, or about a time that will be over.
        400 | 405..=499 => return,
        _ => u32::from(status),
    };
    let was_failing = outbound.rejection_log.is_failing();
    if !outbound.rejection_log.should_log(state, now) {
        return;
    }
    let (label, refused) = (&outbound.label, &outbound.rejected_before);
    let refused_now = outbound.counters.sum(OutboundCounters::refused);
    if state == 0 {
        let count = refused_now.saturating_sub(refused.load(Ordering::Relaxed));
        let seconds = outbound.rejection_log.lasted(now).as_secs_f64();
        info!(
            route = route.name,
            outbound = label,
            seconds,
            lost_deliveries = count,
            "outbound accepts again"
        );
    } else {
        if !was_failing {
            refused.store(refused_now, Ordering::Relaxed);
        }
        let reason = reason(outbound, response);
        warn!(route = route.name, outbound = label, status, %reason, "outbound refuses what it is sent");
    }
}

/// Tells the log when an outbound begins or ceases to limit what it is sent. A limit ends when its time
/// is over, so this has to be asked again and again.
pub(crate) fn tell_limits(outbound: &Outbound, now: Instant) {
    // In the common case there is nothing to tell, which costs two loads.
    if !outbound.rate_limits.may_limit() && !outbound.rate_limit_log.is_failing() {
        return;
    }
    let limits = outbound.rate_limits.in_force(now);
    if !outbound
        .rate_limit_log
        .should_log(u32::from(!limits.is_empty()), now)
    {
        return;
    }
    let outbound_label = &outbound.label;
    if limits.is_empty() {
        let seconds = outbound.rate_limit_log.lasted(now).as_secs_f64();
        info!(
            outbound = outbound_label,
            seconds, "outbound limits nothing any more"
        );
        return;
    }
    let words = limits.iter().map(|limit| {
        let what = match limit.categories.is_empty() {
            true => "everything".to_owned(),
            false => limit.categories.join(", "),
        };
        format!("{what} for {} s", limit.seconds)
    });
    let limits = words.collect::<Vec<_>>().join("; ");
    info!(
        outbound = outbound_label,
        limits, "outbound limits what it is sent"
    );
}

/// What an outbound said about what it did not take.
pub(super) fn reason(outbound: &Outbound, response: &Response) -> String {
    let error = response.rare_headers().sentry_error.as_ref();
    let reason = error.unwrap_or(&response.body);
    let secret = outbound.secret.as_deref().unwrap_or_default();
    words::sanitized(reason, REASON_BYTES_MAX, &[secret, &outbound.key])
}
