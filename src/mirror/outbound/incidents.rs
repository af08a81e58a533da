//! The incidents of an outbound: when it was in trouble, why, and what that cost.
//!
//! An incident begins and ends with the trouble itself, whether or not that is logged. One that begins again soon
//! after its end continues: a rate limit ends after a minute, the next request runs into a new one, and to an
//! operator this is one incident. At most [`INCIDENTS_MAX`] are kept, the last ones.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use crate::telemetry::label::labels;

/// How many incidents of an outbound are kept. With reasons they take up to 16 KiB.
const INCIDENTS_MAX: usize = 50;

/// An incident of the same kind that begins within this time of the end of the last one continues it.
const CONTINUES_WITHIN: Duration = Duration::from_secs(60);

labels! {
    /// What kind of trouble an outbound is in.
    pub enum IncidentKind {
        /// The upstream does not respond: connections fail, or no valid response arrives.
        Unanswered => "unanswered",
        /// The outbound answers 401, 403, 404, 5xx or a redirect.
        Rejecting => "rejecting",
        /// The outbound has rate limits.
        RateLimited => "rate_limited",
        /// A cap of the outbound is reached.
        Capped => "capped",
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    pub kind: IncidentKind,
    pub began_at: SystemTime,
    /// `None` while it lasts.
    pub ended_at: Option<SystemTime>,
    pub lasted: Duration,
    /// What the upstream said, or how the connection failed, when it began.
    pub reason: Box<str>,
    /// Deliveries lost so far: not sent or not accepted because of it.
    pub lost: u64,
}

/// The time of a change, on both clocks.
#[derive(Clone, Copy)]
pub(super) struct At {
    pub(super) instant: Instant,
    pub(super) wall: SystemTime,
}

/// The incidents of one outbound. Losses are given as totals since the start of the process.
#[derive(Default)]
pub(super) struct Incidents {
    /// In the order in which they began.
    kept: VecDeque<Kept>,
}

struct Kept {
    kind: IncidentKind,
    began: At,
    ended: Option<At>,
    reason: Box<str>,
    lost_before: u64,
    /// The total at its end.
    lost_until: u64,
}

impl Kept {
    fn seen(&self, now: Instant, total: u64) -> Incident {
        let (end, until) = match self.ended {
            Some(ended) => (ended.instant, self.lost_until),
            None => (now, total),
        };
        Incident {
            kind: self.kind,
            began_at: self.began.wall,
            ended_at: self.ended.map(|ended| ended.wall),
            lasted: end.saturating_duration_since(self.began.instant),
            reason: self.reason.clone(),
            lost: until.saturating_sub(self.lost_before),
        }
    }
}

impl Incidents {
    /// Begins an incident. If one of this kind lasts or has just ended, that one goes on.
    pub(super) fn begin(&mut self, kind: IncidentKind, reason: &str, total: u64, at: At) {
        let same = self.kept.iter_mut().rev().find(|kept| kept.kind == kind);
        if let Some(same) = same {
            let Some(ended) = same.ended else {
                return;
            };
            if at.instant.saturating_duration_since(ended.instant) < CONTINUES_WITHIN {
                same.ended = None;
                return;
            }
        }
        if self.kept.len() == INCIDENTS_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(Kept {
            kind,
            began: at,
            ended: None,
            reason: reason.into(),
            lost_before: total,
            lost_until: total,
        });
    }

    /// Ends the incident of this kind, if one lasts.
    pub(super) fn end(&mut self, kind: IncidentKind, total: u64, at: At) -> Option<Incident> {
        let mut kept = self.kept.iter_mut().rev();
        let lasting = kept.find(|kept| kept.kind == kind && kept.ended.is_none())?;
        lasting.ended = Some(at);
        lasting.lost_until = total;
        Some(lasting.seen(at.instant, total))
    }

    /// All that are kept, the last one first. `total` returns the losses of a kind.
    pub(super) fn list(&self, now: Instant, total: impl Fn(IncidentKind) -> u64) -> Vec<Incident> {
        let kept = self.kept.iter().rev();
        kept.map(|kept| kept.seen(now, total(kept.kind))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use IncidentKind::{RateLimited, Rejecting, Unanswered};

    struct Clock(Instant, SystemTime);

    impl Clock {
        fn new() -> Clock {
            Clock(Instant::now(), SystemTime::UNIX_EPOCH)
        }

        fn at(&self, seconds: u64) -> At {
            let after = Duration::from_secs(seconds);
            At {
                instant: self.0 + after,
                wall: self.1 + after,
            }
        }
    }

    /// Kind, beginning, end, duration, losses.
    type Seen = (IncidentKind, u64, Option<u64>, u64, u64);

    fn seen(incidents: &Incidents, clock: &Clock, now: u64, total: u64) -> Vec<Seen> {
        let seconds = |at: SystemTime| at.duration_since(clock.1).unwrap().as_secs();
        let list = incidents.list(clock.at(now).instant, |_| total);
        let seen = |one: &Incident| {
            let end = one.ended_at.map(seconds);
            let lasted = one.lasted.as_secs();
            (one.kind, seconds(one.began_at), end, lasted, one.lost)
        };
        list.iter().map(seen).collect()
    }

    #[test]
    fn an_incident_has_a_beginning_an_end_and_what_was_lost_between() {
        let (clock, mut incidents) = (Clock::new(), Incidents::default());
        assert_eq!(incidents.end(Rejecting, 3, clock.at(1)), None);
        incidents.begin(Rejecting, "answered 403", 3, clock.at(5));
        assert_eq!(seen(&incidents, &clock, 7, 5), [(Rejecting, 5, None, 2, 2)]);
        let ended = incidents.end(Rejecting, 9, clock.at(94)).unwrap();
        assert_eq!((ended.lost, ended.lasted.as_secs()), (6, 89));
        assert_eq!(&*ended.reason, "answered 403");
        // Later losses are not its own.
        let expected = [(Rejecting, 5, Some(94), 89, 6)];
        assert_eq!(seen(&incidents, &clock, 500, 70), expected);
        assert_eq!(incidents.end(Rejecting, 70, clock.at(501)), None);
    }

    #[test]
    fn one_of_each_kind_can_last_at_the_same_time() {
        let (clock, mut incidents) = (Clock::new(), Incidents::default());
        incidents.begin(Rejecting, "a", 0, clock.at(1));
        incidents.begin(Unanswered, "b", 0, clock.at(2));
        // It lasts already.
        incidents.begin(Rejecting, "c", 4, clock.at(3));
        incidents.end(Unanswered, 7, clock.at(4));
        let expected = [(Unanswered, 2, Some(4), 2, 7), (Rejecting, 1, None, 8, 7)];
        assert_eq!(seen(&incidents, &clock, 9, 7), expected);
    }

    #[test]
    fn what_begins_again_soon_goes_on() {
        let (clock, mut incidents) = (Clock::new(), Incidents::default());
        incidents.begin(RateLimited, "error for 60 s", 0, clock.at(100));
        incidents.end(RateLimited, 10, clock.at(160));
        incidents.begin(RateLimited, "error for 60 s", 11, clock.at(219));
        let expected = [(RateLimited, 100, None, 130, 15)];
        assert_eq!(seen(&incidents, &clock, 230, 15), expected);
        incidents.end(RateLimited, 20, clock.at(300));
        incidents.begin(RateLimited, "again", 20, clock.at(360));
        let expected = [
            (RateLimited, 360, None, 1, 1),
            (RateLimited, 100, Some(300), 200, 20),
        ];
        assert_eq!(seen(&incidents, &clock, 361, 21), expected);
    }

    #[test]
    fn only_the_last_are_kept() {
        let (clock, mut incidents) = (Clock::new(), Incidents::default());
        for number in 0..200 {
            incidents.begin(Rejecting, "", number, clock.at(number * 1000));
            incidents.end(Rejecting, number + 1, clock.at(number * 1000 + 1));
        }
        let seen = seen(&incidents, &clock, 300_000, 200);
        assert_eq!(seen.len(), INCIDENTS_MAX);
        assert_eq!(seen[0].1, 199_000);
        assert_eq!(seen[49].1, 150_000);
    }
}
