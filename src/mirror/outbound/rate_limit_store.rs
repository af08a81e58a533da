//! The rate limits of an outbound, until they expire.
//!
//! All workers share the store of an outbound, so a limit that one worker receives applies to all. Usually
//! there are no limits; checking that takes one atomic load. Otherwise the store is locked. The limits are
//! combined into a set when one is added, so that a request only looks up its own categories.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::sentry::category::Category;
use crate::sentry::rate_limits::{self, LimitSet, RateLimit};
use crate::upstream::response::Response;

/// The duration of a 429 that does not announce one. SDKs assume the same.
pub(crate) const DEFAULT_RETRY_SECONDS: u32 = 60;

/// The maximum number of limits in a store. An upstream has one per quota and category at most.
const LIMITS_MAX: usize = 32;

/// The rate limits of one outbound.
#[derive(Default)]
pub struct RateLimitStore {
    /// Whether `state` may contain active limits.
    may_limit: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Each limit with its end.
    limits: Vec<(RateLimit, Instant)>,
    /// The combination of all limits.
    combined: Option<Arc<LimitSet<Instant>>>,
}

impl RateLimitStore {
    /// Adds the limits that a response announces. Returns whether it announces any.
    pub fn remember(&self, response: &Response, now: Instant) -> bool {
        let announced = announced(response);
        if announced.is_empty() {
            return false;
        }
        let mut state = self.lock();
        let limits = &mut state.limits;
        limits.retain(|(_, until)| *until > now);
        for limit in announced {
            let until = now + Duration::from_secs(limit.seconds.into());
            let is_same = |known: &RateLimit| {
                known.categories == limit.categories
                    && known.namespaces == limit.namespaces
                    && known.words.scope == limit.words.scope
            };
            // The limit that ends later wins, as in SDKs and in Relay.
            if let Some(known) = limits.iter_mut().find(|(known, _)| is_same(known)) {
                if known.1 < until {
                    *known = (limit, until);
                }
            } else if limits.len() < LIMITS_MAX {
                limits.push((limit, until));
            }
        }
        let combined = LimitSet::from_limits(limits.iter().map(|(limit, until)| (limit, *until)));
        state.combined = Some(Arc::new(combined));
        self.may_limit.store(true, Ordering::Relaxed);
        true
    }

    /// Whether there may be active limits.
    pub fn may_limit(&self) -> bool {
        self.may_limit.load(Ordering::Relaxed)
    }

    /// The combination of all limits; `None` if none is active at `now`.
    pub fn combined(&self, now: Instant) -> Option<Arc<LimitSet<Instant>>> {
        if !self.may_limit() {
            return None;
        }
        let mut state = self.lock();
        let combined = state.combined.clone();
        let combined = combined.filter(|combined| combined.last().is_some_and(|until| until > now));
        if combined.is_none() {
            *state = State::default();
            self.may_limit.store(false, Ordering::Relaxed);
        }
        combined
    }

    /// The limits that are active at `now`, each with its remaining time.
    pub fn active(&self, now: Instant) -> Vec<RateLimit> {
        if self.combined(now).is_none() {
            return Vec::new();
        }
        let state = self.lock();
        let active = state.limits.iter().filter(|(_, until)| *until > now);
        let remaining = |(limit, until): &(RateLimit, Instant)| RateLimit {
            seconds: seconds_left(*until, now),
            ..limit.clone()
        };
        active.map(remaining).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The seconds for which `limits` block a whole request: all its `categories` are limited. Only a limit on
/// everything applies to an unknown category.
pub(crate) fn limited_seconds(
    limits: &RateLimitStore,
    categories: &[Option<Category>],
    now: Instant,
) -> Option<u32> {
    let combined = limits.combined(now)?;
    blocked_seconds(&combined, categories, now)
}

fn blocked_seconds(
    combined: &LimitSet<Instant>,
    categories: &[Option<Category>],
    now: Instant,
) -> Option<u32> {
    let is_limited =
        |category: &Option<Category>| combined.until(*category).is_some_and(|until| until > now);
    let is_blocked = !categories.is_empty() && categories.iter().all(is_limited);
    let last = combined.last().filter(|_| is_blocked)?;
    Some(seconds_left(last, now))
}

/// The limits that all of several outbounds have in common; none if one of them has no limit.
pub(crate) fn common<'s>(
    stores: impl Iterator<Item = &'s RateLimitStore>,
    now: Instant,
) -> Vec<RateLimit> {
    let sets: Option<Vec<_>> = stores.map(|store| store.combined(now)).collect();
    match sets {
        Some(sets) if !sets.is_empty() => {
            rate_limits::intersect(&sets, |until| seconds_left(until, now))
        }
        Some(_) | None => Vec::new(),
    }
}

/// The limits that a response announces. A 429 without limits applies to everything.
fn announced(response: &Response) -> Vec<RateLimit> {
    let named = response.rare_headers().rate_limits.as_deref();
    let named = named.map(rate_limits::parse).unwrap_or_default();
    if named.is_empty() && response.status == 429 {
        vec![RateLimit::on_everything(retry_seconds(response))]
    } else {
        named
    }
}

/// The seconds after which a client may retry after a 429.
pub(crate) fn retry_seconds(response: &Response) -> u32 {
    let rare_headers = response.rare_headers();
    let longest = || {
        let limits = rare_headers.rate_limits.as_deref().map(rate_limits::parse);
        limits?.iter().map(|limit| limit.seconds).max()
    };
    rare_headers
        .retry_after_seconds
        .or_else(longest)
        .unwrap_or(DEFAULT_RETRY_SECONDS)
}

/// The seconds from `now` to `until`, rounded up.
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

    fn block(limits: &[RateLimit], items: &[Option<Category>]) -> bool {
        let now = Instant::now();
        let limits = limits.iter().map(|limit| {
            let until = now + Duration::from_secs(limit.seconds.into());
            (limit, until)
        });
        blocked_seconds(&LimitSet::from_limits(limits), items, now).is_some()
    }

    fn header(store: &RateLimitStore, now: Instant) -> String {
        rate_limits::header_value(&store.active(now))
    }

    #[test]
    fn limits_expire_and_the_later_end_wins() {
        let store = RateLimitStore::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        store.remember(&response(200, None, Some(99)), start);
        assert_eq!(header(&store, start), "");
        store.remember(
            &response(200, Some("60:error:key, 5:session:key"), None),
            start,
        );
        assert_eq!(header(&store, at(1)), "59:error:key, 4:session:key");
        store.remember(&response(429, Some("10:error:key"), None), at(2));
        assert_eq!(header(&store, at(2)), "58:error:key, 3:session:key");
        let twice = "30:session:key, 1:session:key";
        store.remember(&response(200, Some(twice), None), at(2));
        assert_eq!(header(&store, at(4)), "56:error:key, 28:session:key");
        store.remember(&response(200, Some("70:error:key"), None), at(10));
        assert_eq!(header(&store, at(32)), "48:error:key");
        assert_eq!(header(&store, at(80)), "");
        assert!(!store.may_limit.load(Ordering::Relaxed));
    }

    #[test]
    fn a_429_without_limits_applies_to_everything() {
        for (retry, limited) in [
            (Some(7), "7::organization"),
            (None, "60::organization"),
            (Some(0), ""),
        ] {
            let store = RateLimitStore::default();
            let now = Instant::now();
            store.remember(&response(429, None, retry), now);
            assert_eq!(header(&store, now), limited);
        }
    }

    #[test]
    fn a_limit_on_bytes_or_durations_blocks_the_items_that_they_measure() {
        use Category::{
            Attachment, Feedback, LogItem, Profile, ProfileChunk, ProfileChunkUi, TraceMetric,
        };
        for (name, blocked) in [
            ("log_byte", LogItem),
            ("trace_metric_byte", TraceMetric),
            ("attachment_item", Attachment),
            ("profile_duration", ProfileChunk),
            ("profile_duration_ui", ProfileChunkUi),
            ("user_report_v2", Feedback),
        ] {
            let limits = rate_limits::parse(format!("60:{name}:key").as_bytes());
            for category in Category::ALL {
                let is_blocked = block(&limits, &[Some(category)]);
                assert_eq!(is_blocked, category == blocked, "{name} {category:?}");
            }
        }
        let indexed = rate_limits::parse(b"60:profile_indexed;transaction_indexed:key");
        assert!(!block(&indexed, &[Some(Profile)]));
    }

    #[test]
    fn a_request_is_blocked_only_as_a_whole() {
        use Category::{Attachment, Error, MetricBucket, Session};
        let error = rate_limits::parse(b"60:error;attachment:key");
        let all = rate_limits::parse(b"60::key");
        let buckets = rate_limits::parse(b"60:metric_bucket:key::custom");
        assert!(block(&error, &[Some(Error)]));
        assert!(block(&error, &[Some(Error), Some(Attachment)]));
        assert!(!block(&error, &[Some(Error), Some(Session)]));
        assert!(!block(&error, &[Some(Session), Some(Attachment)]));
        assert!(block(&error, &[Some(Attachment)]));
        assert!(!block(&error, &[None]));
        assert!(block(&all, &[None, Some(Session)]));
        assert!(!block(&buckets, &[Some(MetricBucket)]));
        assert!(!block(&all, &[]));
        assert!(!block(&[], &[Some(Error)]));
    }
}
