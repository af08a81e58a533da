//! What each outbound has asked not to be sent, for as long as it asked.
//!
//! One memory per outbound for the whole process: a limit that one worker is told holds for all. In the
//! common case nothing is limited, and finding that out costs one load; the lock is for the rest.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::sentry::category::{Category, limited_category};
use crate::sentry::rate_limits::{self, RateLimit};
use crate::upstream::response::Response;

/// The pause that a 429 without further words asks for; the one that SDKs assume by themselves.
pub const DEFAULT_PAUSE_SECONDS: u32 = 60;

/// How many limits are remembered; an upstream has one per quota and category at most.
const REMEMBERED_MAX: usize = 32;

/// The rate limits in force at one outbound.
#[derive(Default)]
pub struct LimitMemory {
    /// Whether `remembered` may hold anything.
    is_limited: AtomicBool,
    remembered: Mutex<Vec<Remembered>>,
}

struct Remembered {
    limit: RateLimit,
    ends_at: Instant,
}

impl LimitMemory {
    /// Takes note of the limits that a response announces; `false` where it announces none.
    pub fn remember(&self, response: &Response, now: Instant) -> bool {
        let announced = announced(response);
        if announced.is_empty() {
            return false;
        }
        let mut remembered = self.lock();
        remembered.retain(|known| known.ends_at > now);
        for limit in announced {
            let ends_at = now + Duration::from_secs(limit.seconds.into());
            let is_same = |known: &Remembered| {
                known.limit.categories == limit.categories
                    && known.limit.namespaces == limit.namespaces
                    && known.limit.scope == limit.scope
            };
            // Of two words on the same thing the longer one holds, as in SDKs and in Relay.
            if let Some(known) = remembered.iter_mut().find(|known| is_same(known)) {
                if known.ends_at < ends_at {
                    *known = Remembered { limit, ends_at };
                }
            } else if remembered.len() < REMEMBERED_MAX {
                remembered.push(Remembered { limit, ends_at });
            }
        }
        self.is_limited.store(true, Ordering::Relaxed);
        true
    }

    /// Whether anything may be limited.
    pub(super) fn may_limit(&self) -> bool {
        self.is_limited.load(Ordering::Relaxed)
    }

    /// The limits in force at `now`, each with the time that is left of it.
    pub fn in_force(&self, now: Instant) -> Vec<RateLimit> {
        if !self.is_limited.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let mut remembered = self.lock();
        remembered.retain(|known| known.ends_at > now);
        if remembered.is_empty() {
            self.is_limited.store(false, Ordering::Relaxed);
        }
        let left = |known: &Remembered| RateLimit {
            seconds: seconds_up(known.ends_at - now),
            ..known.limit.clone()
        };
        remembered.iter().map(left).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Remembered>> {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The longest that `limits` last.
pub fn longest_seconds(limits: &[RateLimit]) -> u32 {
    let longest = limits.iter().map(|limit| limit.seconds).max();
    longest.unwrap_or(DEFAULT_PAUSE_SECONDS)
}

/// Whether `limits` forbid every item of a request, so that it need not be sent at all. An item whose
/// category is not known is forbidden only by a limit on everything.
pub fn forbid_all(limits: &[RateLimit], items: &[Option<Category>]) -> bool {
    let forbids = |limit: &RateLimit, item: &Option<Category>| {
        let is_meant = match item {
            Some(category) => limit
                .categories
                .iter()
                .any(|name| limited_category(name) == category.name()),
            None => false,
        };
        limit.namespaces.is_empty() && (limit.categories.is_empty() || is_meant)
    };
    !items.is_empty()
        && items
            .iter()
            .all(|item| limits.iter().any(|limit| forbids(limit, item)))
}

/// What a response announces. A 429 that names nothing means everything.
fn announced(response: &Response) -> Vec<RateLimit> {
    let named = response.notices().rate_limits.as_deref();
    let named = named.map(rate_limits::parse).unwrap_or_default();
    if named.is_empty() && response.status == 429 {
        vec![RateLimit::on_everything(pause_seconds(response))]
    } else {
        named
    }
}

/// How long a 429 asks to wait.
pub fn pause_seconds(response: &Response) -> u32 {
    let notices = response.notices();
    let longest = || {
        let limits = notices.rate_limits.as_deref().map(rate_limits::parse);
        limits?.iter().map(|limit| limit.seconds).max()
    };
    notices
        .retry_after_seconds
        .or_else(longest)
        .unwrap_or(DEFAULT_PAUSE_SECONDS)
}

fn seconds_up(left: Duration) -> u32 {
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
        response.notices_mut().rate_limits = limits.map(bytes);
        response.notices_mut().retry_after_seconds = retry;
        response
    }

    fn header(memory: &LimitMemory, now: Instant) -> String {
        rate_limits::header_value(&memory.in_force(now))
    }

    #[test]
    fn limits_are_kept_until_they_expire_and_the_longer_of_two_holds() {
        let memory = LimitMemory::default();
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
            let memory = LimitMemory::default();
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
