//! What each outbound has asked not to be sent, for as long as it asked.
//!
//! One memory per outbound for the whole process: a limit that one worker is told holds for all. In the
//! common case nothing is limited, and finding that out costs one load; the lock is for the rest. What all
//! limits together close is found out when one is added, so that a request has to look up only what it
//! holds.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::sentry::category::Category;
use crate::sentry::rate_limits::{self, LimitSet, RateLimit};
use crate::upstream::response::Response;

/// The pause that a 429 without further words asks for; the one that SDKs assume by themselves.
pub(crate) const DEFAULT_PAUSE_SECONDS: u32 = 60;

/// How many limits are remembered; an upstream has one per quota and category at most.
const REMEMBERED_MAX: usize = 32;

/// The rate limits in force at one outbound.
#[derive(Default)]
pub struct RateLimitStore {
    /// Whether `remembered` may hold anything.
    is_limited: AtomicBool,
    remembered: Mutex<Remembered>,
}

#[derive(Default)]
struct Remembered {
    limits: Vec<(RateLimit, Instant)>,
    /// What they close together.
    closed: Option<Arc<LimitSet<Instant>>>,
}

impl RateLimitStore {
    /// Takes note of the limits that a response announces; `false` where it announces none.
    pub fn remember(&self, response: &Response, now: Instant) -> bool {
        let announced = announced(response);
        if announced.is_empty() {
            return false;
        }
        let mut remembered = self.lock();
        let limits = &mut remembered.limits;
        limits.retain(|(_, until)| *until > now);
        for limit in announced {
            let until = now + Duration::from_secs(limit.seconds.into());
            let is_same = |known: &RateLimit| {
                known.categories == limit.categories
                    && known.namespaces == limit.namespaces
                    && known.words.scope == limit.words.scope
            };
            // Of two words on the same thing the longer one holds, as in SDKs and in Relay.
            if let Some(known) = limits.iter_mut().find(|(known, _)| is_same(known)) {
                if known.1 < until {
                    *known = (limit, until);
                }
            } else if limits.len() < REMEMBERED_MAX {
                limits.push((limit, until));
            }
        }
        let closed = LimitSet::from_limits(limits.iter().map(|(limit, until)| (limit, *until)));
        remembered.closed = Some(Arc::new(closed));
        self.is_limited.store(true, Ordering::Relaxed);
        true
    }

    /// Whether anything may be limited.
    pub fn may_limit(&self) -> bool {
        self.is_limited.load(Ordering::Relaxed)
    }

    /// What is limited at `now`; `None` where that is nothing.
    pub fn closed(&self, now: Instant) -> Option<Arc<LimitSet<Instant>>> {
        if !self.may_limit() {
            return None;
        }
        let mut remembered = self.lock();
        let closed = remembered.closed.clone();
        let closed = closed.filter(|closed| closed.last().is_some_and(|until| until > now));
        if closed.is_none() {
            *remembered = Remembered::default();
            self.is_limited.store(false, Ordering::Relaxed);
        }
        closed
    }

    /// The limits in force at `now`, each with the time that is left of it.
    pub fn in_force(&self, now: Instant) -> Vec<RateLimit> {
        if self.closed(now).is_none() {
            return Vec::new();
        }
        let remembered = self.lock();
        let in_force = remembered.limits.iter().filter(|(_, until)| *until > now);
        let left = |(limit, until): &(RateLimit, Instant)| RateLimit {
            seconds: seconds_left(*until, now),
            ..limit.clone()
        };
        in_force.map(left).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// For how many seconds an outbound with these limits takes nothing of a request with these categories,
/// since each is limited. A category that is not known is limited only by a limit on everything.
pub(crate) fn limited_seconds(
    limits: &RateLimitStore,
    categories: &[Option<Category>],
    now: Instant,
) -> Option<u32> {
    let closed = limits.closed(now)?;
    closed_seconds(&closed, categories, now)
}

fn closed_seconds(
    closed: &LimitSet<Instant>,
    categories: &[Option<Category>],
    now: Instant,
) -> Option<u32> {
    let is_closed =
        |category: &Option<Category>| closed.until(*category).is_some_and(|until| until > now);
    let is_limited = !categories.is_empty() && categories.iter().all(is_closed);
    let last = closed.last().filter(|_| is_limited)?;
    Some(seconds_left(last, now))
}

/// The limits that all of several outbounds have; none if one of them has no limit.
pub(crate) fn common<'s>(
    stores: impl Iterator<Item = &'s RateLimitStore>,
    now: Instant,
) -> Vec<RateLimit> {
    let closed: Option<Vec<_>> = stores.map(|store| store.closed(now)).collect();
    match closed {
        Some(closed) if !closed.is_empty() => {
            rate_limits::intersect(&closed, |until| seconds_left(until, now))
        }
        Some(_) | None => Vec::new(),
    }
}

/// What a response announces. A 429 that names nothing means everything.
fn announced(response: &Response) -> Vec<RateLimit> {
    let named = response.rare_headers().rate_limits.as_deref();
    let named = named.map(rate_limits::parse).unwrap_or_default();
    if named.is_empty() && response.status == 429 {
        vec![RateLimit::on_everything(pause_seconds(response))]
    } else {
        named
    }
}

/// How long a 429 asks to wait.
pub(crate) fn pause_seconds(response: &Response) -> u32 {
    let rare_headers = response.rare_headers();
    let longest = || {
        let limits = rare_headers.rate_limits.as_deref().map(rate_limits::parse);
        limits?.iter().map(|limit| limit.seconds).max()
    };
    rare_headers
        .retry_after_seconds
        .or_else(longest)
        .unwrap_or(DEFAULT_PAUSE_SECONDS)
}

/// The seconds until something, rounded up.
fn seconds_left(until: Instant, now: Instant) -> u32 {
    let left = until.saturating_duration_since(now);
    let whole = u32::try_from(left.as_secs()).unwrap_or(u32::MAX);
    whole.saturating_add(u32::from(left.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn response(status: u16, limits: Option<&'static str>, retry: Option<u32>) -> Response {
        let mut response = Response::with_status(status);
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        response.rare_headers_mut().rate_limits = limits.map(bytes);
        response.rare_headers_mut().retry_after_seconds = retry;
        response
    }

    fn forbid_all(limits: &[RateLimit], items: &[Option<Category>]) -> bool {
        let now = Instant::now();
        let limits = limits.iter().map(|limit| {
            let until = now + Duration::from_secs(limit.seconds.into());
            (limit, until)
        });
        closed_seconds(&LimitSet::from_limits(limits), items, now).is_some()
    }

    fn header(memory: &RateLimitStore, now: Instant) -> String {
        rate_limits::header_value(&memory.in_force(now))
    }

    #[test]
    fn limits_are_kept_until_they_expire_and_the_longer_of_two_holds() {
        let memory = RateLimitStore::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        memory.remember(&response(200, None, Some(99)), start);
        assert_eq!(header(&memory, start), "");
        memory.remember(
            &response(200, Some("60:error:key, 5:session:key"), None),
            start,
        );
        assert_eq!(header(&memory, at(1)), "59:error:key, 4:session:key");
        memory.remember(&response(429, Some("10:error:key"), None), at(2));
        assert_eq!(header(&memory, at(2)), "58:error:key, 3:session:key");
        let twice = "30:session:key, 1:session:key";
        memory.remember(&response(200, Some(twice), None), at(2));
        assert_eq!(header(&memory, at(4)), "56:error:key, 28:session:key");
        memory.remember(&response(200, Some("70:error:key"), None), at(10));
        assert_eq!(header(&memory, at(32)), "48:error:key");
        assert_eq!(header(&memory, at(80)), "");
        assert!(!memory.is_limited.load(Ordering::Relaxed));
    }

    #[test]
    fn a_429_without_words_limits_everything() {
        for (retry, limited) in [
            (Some(7), "7::organization"),
            (None, "60::organization"),
            (Some(0), ""),
        ] {
            let memory = RateLimitStore::default();
            let now = Instant::now();
            memory.remember(&response(429, None, retry), now);
            assert_eq!(header(&memory, now), limited);
        }
    }

    #[test]
    fn a_limit_on_bytes_or_durations_forbids_the_items_they_are_counted_of() {
        use Category::{
            Attachment, Feedback, LogItem, Profile, ProfileChunk, ProfileChunkUi, TraceMetric,
        };
        for (name, forbidden) in [
            ("log_byte", LogItem),
            ("trace_metric_byte", TraceMetric),
            ("attachment_item", Attachment),
            ("profile_duration", ProfileChunk),
            ("profile_duration_ui", ProfileChunkUi),
            ("user_report_v2", Feedback),
        ] {
            let limits = rate_limits::parse(format!("60:{name}:key").as_bytes());
            for category in Category::ALL {
                let is_forbidden = forbid_all(&limits, &[Some(category)]);
                assert_eq!(is_forbidden, category == forbidden, "{name} {category:?}");
            }
        }
        let indexed = rate_limits::parse(b"60:profile_indexed;transaction_indexed:key");
        assert!(!forbid_all(&indexed, &[Some(Profile)]));
    }

    #[test]
    fn a_request_is_forbidden_only_as_a_whole() {
        use Category::{Attachment, Error, MetricBucket, Session};
        let error = rate_limits::parse(b"60:error;attachment:key");
        let all = rate_limits::parse(b"60::key");
        let buckets = rate_limits::parse(b"60:metric_bucket:key::custom");
        assert!(forbid_all(&error, &[Some(Error)]));
        assert!(forbid_all(&error, &[Some(Error), Some(Attachment)]));
        assert!(!forbid_all(&error, &[Some(Error), Some(Session)]));
        assert!(!forbid_all(&error, &[Some(Session), Some(Attachment)]));
        assert!(forbid_all(&error, &[Some(Attachment)]));
        assert!(!forbid_all(&error, &[None]));
        assert!(forbid_all(&all, &[None, Some(Session)]));
        assert!(!forbid_all(&buckets, &[Some(MetricBucket)]));
        assert!(!forbid_all(&all, &[]));
        assert!(!forbid_all(&[], &[Some(Error)]));
    }
}
