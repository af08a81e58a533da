//! What is known of how an outbound fares, from the responses of all workers. It survives a reload with the
//! counters of the outbound.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::mirror::outbound::incidents::{At, Incident, IncidentKind, Incidents};
use crate::mirror::reporting::counters::{DeliveryResult, OutboundCounters, OutcomeKind};
use crate::telemetry::counters::PerWorker;
use crate::telemetry::log_on_change::LogOnChange;
use crate::telemetry::throttle::Throttle;
use crate::upstream::origin::Dependent;

/// The minimum time between two refused requests that are described.
const REFUSAL_INTERVAL: Duration = Duration::from_secs(1);

pub struct OutboundState {
    counters: PerWorker<OutboundCounters>,
    /// Logs when the outbound begins and stops rejecting requests. The state is 0 or the status of its responses.
    pub rejection_log: LogOnChange,
    /// Logs when its rate limits begin and end. The state is 1 while any is active, else 0.
    pub rate_limit_log: LogOnChange,
    /// Notices when a cap is reached, and when none is any more. The state is 1 while one is, else 0.
    pub cap_log: LogOnChange,
    /// Limits how many of the requests that it refuses are described.
    pub refusal_log: Throttle,
    incidents: Mutex<Incidents>,
}

impl OutboundState {
    pub(crate) fn new(counters: PerWorker<OutboundCounters>) -> OutboundState {
        OutboundState {
            counters,
            rejection_log: LogOnChange::new(),
            rate_limit_log: LogOnChange::new(),
            cap_log: LogOnChange::new(),
            refusal_log: Throttle::new(REFUSAL_INTERVAL),
            incidents: Mutex::default(),
        }
    }

    /// Begins an incident of this kind, unless one lasts or `log` has seen the end since.
    pub(super) fn begin(&self, log: &LogOnChange, kind: IncidentKind, reason: &str, now: Instant) {
        let total = self.lost(kind);
        let mut incidents = self.incidents();
        // Workers may come here in another order than that of the changes, so the state is read under the lock.
        if log.is_failing() {
            incidents.begin(kind, reason, total, at(now));
        }
    }

    /// Ends the incident of this kind, if one lasts and `log` has not seen another beginning since.
    pub(super) fn end(
        &self,
        log: &LogOnChange,
        kind: IncidentKind,
        now: Instant,
    ) -> Option<Incident> {
        let total = self.lost(kind);
        let mut incidents = self.incidents();
        match log.is_failing() {
            true => None,
            false => incidents.end(kind, total, at(now)),
        }
    }

    /// The last incidents, the newest first.
    pub fn list(&self, now: Instant) -> Vec<Incident> {
        self.incidents().list(now, |kind| self.lost(kind))
    }

    /// The deliveries that such incidents have cost since the start of the process.
    pub(super) fn lost(&self, kind: IncidentKind) -> u64 {
        self.counters.sum(|worker| match kind {
            IncidentKind::Unanswered => worker.unanswered(),
            IncidentKind::Rejecting => worker.rejected.get(),
            IncidentKind::RateLimited => worker.with_result(DeliveryResult::RateLimited),
            IncidentKind::Capped => worker.outcomes.get(OutcomeKind::Capped),
        })
    }

    fn incidents(&self) -> MutexGuard<'_, Incidents> {
        let incidents = self.incidents.lock();
        incidents.unwrap_or_else(PoisonError::into_inner)
    }
}

/// An outbound, as its origin knows it.
pub(crate) struct OutboundOfRoute {
    pub(crate) route: Arc<str>,
    pub(crate) state: Arc<OutboundState>,
}

impl Dependent for OutboundOfRoute {
    fn route(&self) -> &str {
        &self.route
    }

    fn lost(&self) -> u64 {
        self.state.lost(IncidentKind::Unanswered)
    }

    fn outage_began(&self, failure: &str, now: Instant) {
        let total = self.lost();
        let mut incidents = self.state.incidents();
        incidents.begin(IncidentKind::Unanswered, failure, total, at(now));
    }

    fn outage_ended(&self, now: Instant) {
        let total = self.lost();
        let mut incidents = self.state.incidents();
        incidents.end(IncidentKind::Unanswered, total, at(now));
    }
}

fn at(now: Instant) -> At {
    At {
        instant: now,
        wall: SystemTime::now(),
    }
}
