//! Rate limits: what an upstream asks SDKs not to send for a while.
//!
//! The header `X-Sentry-Rate-Limits` lists quotas, `seconds:categories:scope[:reason[:namespaces]]`, with semicolons
//! inside the lists and commas between the quotas. Without categories, a quota limits everything. An SDK with several
//! outbounds may only be limited in what *none* of them accepts, so the limits of all outbounds are intersected. Times
//! are seconds from now; the caller that stores limits converts them.
//!
//! Categories and namespaces are those of a closed list ([`limit_names`]). Some categories limit the same items
//! ([`limited_category`]). A [`LimitSet`] has one slot for each name, however many quotas it was made of, so look-up
//! and intersection have a constant cost.
//!
//! [`limit_names`]: super::rate_limit_names
//! [`limited_category`]: super::category::limited_category

use std::sync::Arc;
use std::time::SystemTime;

use super::category::Category;
use super::rate_limit_names::{
    CATEGORY_COUNT, Categories, NAMESPACE_COUNT, Namespaces, category_index, limited_index,
};

/// The number of quotas that are read from one header. Relay sends one for each active limit. If others are ignored, an
/// SDK sends some data in vain, with no other harm.
const QUOTAS_MAX: usize = 32;

/// The maximum length of a scope and of a reason; the rest is cut off.
const WORDS_BYTES_MAX: usize = 128;

/// The longest accepted time. After a day, an upstream can repeat its limit. Without a maximum, one wrong response
/// could silence an upstream for years.
const SECONDS_MAX: u32 = 24 * 60 * 60;

/// One quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// The remaining time, rounded up.
    pub seconds: u32,
    /// The limited data categories; empty for all.
    pub categories: Categories,
    pub words: Words,
    /// The limited metric namespaces; empty for all.
    pub namespaces: Namespaces,
}

/// The parts of a quota that do not affect what it limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// `organization`, `project` or `key`.
    pub scope: Arc<str>,
    /// For people; may be empty.
    pub reason: Arc<str>,
}

impl RateLimit {
    /// A limit on every category, which a 429 without the header implies.
    pub fn on_everything(seconds: u32) -> RateLimit {
        RateLimit {
            seconds,
            categories: Categories::default(),
            words: Words {
                scope: "organization".into(),
                reason: "".into(),
            },
            namespaces: Namespaces::default(),
        }
    }
}

/// The slots of a [`LimitSet`]: one for everything, one for each category, one for each namespace of metrics.
const EVERYTHING: usize = 0;
const FIRST_CATEGORY: usize = 1;
const FIRST_NAMESPACE: usize = FIRST_CATEGORY + CATEGORY_COUNT;
const SLOT_COUNT: usize = FIRST_NAMESPACE + NAMESPACE_COUNT;

/// Several limits combined. `T` is the type of the time when they end.
#[derive(Clone, Debug)]
pub struct LimitSet<T> {
    /// For each name, the longest limit on it, with the index of its words.
    slots: [Option<(T, u8)>; SLOT_COUNT],
    /// For each category, the longest limit on its items, by any name.
    items: [Option<(T, u8)>; CATEGORY_COUNT],
    /// All categories that the limits name.
    named: Categories,
    words: Vec<Words>,
}

impl<T: Copy + Ord> LimitSet<T> {
    pub fn from_limits<'l>(limits: impl Iterator<Item = (&'l RateLimit, T)>) -> LimitSet<T> {
        let mut closed = LimitSet {
            slots: [None; SLOT_COUNT],
            items: [None; CATEGORY_COUNT],
            named: Categories::default(),
            words: Vec::new(),
        };
        for (limit, until) in limits.take(QUOTAS_MAX) {
            let words = closed.words.len() as u8;
            closed.words.push(limit.words.clone());
            closed.add(limit, (until, words));
        }
        closed
    }

    fn add(&mut self, limit: &RateLimit, until: (T, u8)) {
        let mut extend = |index: usize| {
            if let Some(slot) = self.slots.get_mut(index) {
                *slot = longer(*slot, Some(until));
            }
        };
        if !limit.namespaces.is_empty() {
            // Only metrics have namespaces, so the limit affects no other category.
            let of_metrics = category_index(Category::MetricBucket);
            if limit.categories.is_empty()
                || limit.categories.indices().any(|one| one == of_metrics)
            {
                let namespaces = limit.namespaces.indices();
                namespaces.for_each(|index| extend(FIRST_NAMESPACE + index));
            }
        } else if limit.categories.is_empty() {
            extend(EVERYTHING);
        } else {
            for index in limit.categories.indices() {
                extend(FIRST_CATEGORY + index);
                self.named.add(index);
                if let Some(items) = self.items.get_mut(limited_index(index)) {
                    *items = longer(*items, Some(until));
                }
            }
        }
    }

    /// When the limit ends for all items of a category; `None` stands for items of an unknown one.
    pub fn until(&self, category: Option<Category>) -> Option<T> {
        let items = category.and_then(|category| self.items(category_index(category)));
        longer(self.slot(EVERYTHING), items).map(|(until, _)| until)
    }

    /// The end of the longest limit.
    pub fn last(&self) -> Option<T> {
        self.slots.iter().flatten().map(|(until, _)| *until).max()
    }

    fn slot(&self, index: usize) -> Option<(T, u8)> {
        self.slots.get(index).copied().flatten()
    }

    fn items(&self, category: usize) -> Option<(T, u8)> {
        self.items.get(category).copied().flatten()
    }

    fn everything(&self) -> Option<(T, u8)> {
        self.slot(EVERYTHING)
    }

    /// The limit on a category by this name.
    fn name(&self, category: usize) -> Option<(T, u8)> {
        longer(self.everything(), self.slot(FIRST_CATEGORY + category))
    }

    /// The limit on the items of a category, by any name.
    fn items_of(&self, category: usize) -> Option<(T, u8)> {
        longer(self.everything(), self.items(category))
    }

    fn namespace(&self, namespace: usize) -> Option<(T, u8)> {
        let of_metrics = self.items_of(category_index(Category::MetricBucket));
        longer(of_metrics, self.slot(FIRST_NAMESPACE + namespace))
    }
}

/// The longer of two limits; the first of equal ones.
fn longer<T: Ord>(one: Option<(T, u8)>, other: Option<(T, u8)>) -> Option<(T, u8)> {
    match (one, other) {
        (Some(one), Some(other)) if other.0 > one.0 => Some(other),
        (Some(one), _) => Some(one),
        (None, other) => other,
    }
}

/// The limits that are in each of `sets`, for the shortest of their times. `seconds` converts the end of a limit into
/// the remaining time, zero if it has ended.
///
/// Scope and reason are those of the first set. Of several limits of one set on the same items, the longest counts. The
/// result contains no limit that is covered by another one.
pub(crate) fn intersect<T: Copy + Ord>(
    sets: &[impl AsRef<LimitSet<T>>],
    seconds: impl Fn(T) -> u32,
) -> Vec<RateLimit> {
    let mut common = Intersection {
        sets: sets.iter().map(AsRef::as_ref).collect(),
        limits: Vec::new(),
    };
    let everything = common.shortest(LimitSet::everything);
    common.add(everything, None, None);
    let mut items = [None; CATEGORY_COUNT];
    for (index, closed) in items.iter_mut().enumerate() {
        *closed = common.shortest(|set| set.items_of(index));
    }
    let mut unnamed = items;
    let mut names = Categories::default();
    for index in common.sets.iter().flat_map(|set| set.named.indices()) {
        names.add(index);
    }
    for index in names.indices() {
        let closed = items.get(limited_index(index)).copied().flatten();
        let named = common.shortest(|set| set.name(index));
        if is_longer(closed, everything) && is_as_long(named, closed) {
            common.add(closed, Some(index), None);
            if let Some(closed) = unnamed.get_mut(limited_index(index)) {
                *closed = None;
            }
        }
    }
    // Each set names these items differently.
    for (index, closed) in unnamed.into_iter().enumerate() {
        if is_longer(closed, everything) {
            common.add(closed, Some(index), None);
        }
    }
    let metrics = category_index(Category::MetricBucket);
    let of_metrics = common.shortest(|set| set.items_of(metrics));
    for index in 0..NAMESPACE_COUNT {
        let closed = common.shortest(|set| set.namespace(index));
        if is_longer(closed, of_metrics) {
            common.add(closed, Some(metrics), Some(index));
        }
    }
    let mut limits = common.limits;
    let limit = |(until, mut limit): (T, RateLimit)| {
        limit.seconds = seconds(until);
        (limit.seconds > 0).then_some(limit)
    };
    limits.truncate(QUOTAS_MAX);
    limits.into_iter().filter_map(limit).collect()
}

/// The intersection of several sets, in progress.
struct Intersection<'s, T> {
    sets: Vec<&'s LimitSet<T>>,
    limits: Vec<(T, RateLimit)>,
}

/// The end of a limit that is in all sets, with the words of the first one.
type Shortest<'s, T> = Option<(T, &'s Words)>;

fn is_longer<T: Copy + Ord>(one: Shortest<'_, T>, other: Shortest<'_, T>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.0 > other.0,
        (one, _) => one.is_some(),
    }
}

fn is_as_long<T: Copy + Ord>(one: Shortest<'_, T>, other: Shortest<'_, T>) -> bool {
    !is_longer(one, other) && !is_longer(other, one)
}

impl<'s, T: Copy + Ord> Intersection<'s, T> {
    fn shortest(&self, closed: impl Fn(&'s LimitSet<T>) -> Option<(T, u8)>) -> Shortest<'s, T> {
        let first = *self.sets.first()?;
        let (_, words) = closed(first)?;
        let words = first.words.get(usize::from(words))?;
        let mut shortest = None;
        for set in &self.sets {
            let (until, _) = closed(set)?;
            shortest = Some(shortest.map_or(until, |known: T| known.min(until)));
        }
        shortest.map(|until| (until, words))
    }

    /// Adds a name to the limit with the same end and the same words, or else a new limit.
    fn add(&mut self, closed: Shortest<'s, T>, category: Option<usize>, namespace: Option<usize>) {
        let Some((until, words)) = closed else {
            return;
        };
        let known = self.limits.iter_mut().find(|(known_until, limit)| {
            *known_until == until
                && limit.words == *words
                && limit.categories.is_empty() == category.is_none()
                && limit.namespaces.is_empty() == namespace.is_none()
        });
        let limit = match known {
            Some((_, limit)) => limit,
            None => {
                let limit = RateLimit {
                    seconds: 0,
                    categories: Categories::default(),
                    words: words.clone(),
                    namespaces: Namespaces::default(),
                };
                self.limits.push((until, limit));
                match self.limits.last_mut() {
                    Some((_, limit)) => limit,
                    None => return,
                }
            }
        };
        category
            .into_iter()
            .for_each(|index| limit.categories.add(index));
        namespace
            .into_iter()
            .for_each(|index| limit.namespaces.add(index));
    }
}

/// Parses the value of `X-Sentry-Rate-Limits`.
///
/// Malformed quotas are ignored, as are those of zero seconds, and those with only unknown names. Only printable
/// ASCII is kept, so that a [`RateLimit`] can be written into a header again.
pub fn parse(value: &[u8]) -> Vec<RateLimit> {
    let printable = value.iter().filter(|byte| matches!(byte, b' '..=b'~'));
    let text: String = printable.copied().map(char::from).collect();
    text.split(',')
        .filter_map(parse_quota)
        .take(QUOTAS_MAX)
        .collect()
}

/// Like `intersect`, for rate limits as parsed from headers.
pub fn intersection(sets: &[Vec<RateLimit>]) -> Vec<RateLimit> {
    let closed = |set: &Vec<RateLimit>| {
        Arc::new(LimitSet::from_limits(
            set.iter().map(|limit| (limit, limit.seconds)),
        ))
    };
    let closed: Vec<_> = sets.iter().map(closed).collect();
    intersect(&closed, |seconds| seconds)
}

/// The value of `X-Sentry-Rate-Limits` with these limits.
pub fn header_value(limits: &[RateLimit]) -> String {
    let quotas: Vec<_> = limits.iter().map(write_quota).collect();
    quotas.join(", ")
}

/// Parses the value of `Retry-After`, received at `now`, to seconds, at most a day. The value is a number of seconds
/// or a date (RFC 9110 §10.2.3). Fractions are rounded up; a negative number or a past date means zero.
pub fn parse_retry_after(value: &[u8], now: SystemTime) -> Option<u32> {
    let text = str::from_utf8(value).ok()?.trim();
    let is_number = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    let seconds = if is_number {
        text.parse::<f64>().ok()?
    } else {
        let date = httpdate::parse_http_date(text).ok()?;
        date.duration_since(now)
            .map_or(0.0, |left| left.as_secs_f64())
    };
    // The conversion saturates at both ends.
    let whole = (seconds.ceil() as u32).min(SECONDS_MAX);
    (!seconds.is_nan()).then_some(whole)
}

fn parse_quota(quota: &str) -> Option<RateLimit> {
    let mut fields = quota.split(':').map(str::trim);
    let seconds = fields.next()?.parse::<f64>().ok()?.ceil();
    // Infinite and zero times are invalid.
    if !seconds.is_finite() || seconds < 1.0 {
        return None;
    }
    let seconds = (seconds as u32).min(SECONDS_MAX);
    let mut field = || fields.next().unwrap_or_default();
    // The text is ASCII, so every index is a character boundary.
    let words = |text: &str| Arc::from(text.get(..WORDS_BYTES_MAX).unwrap_or(text).trim_end());
    Some(RateLimit {
        seconds,
        categories: Categories::parse(field())?,
        words: Words {
            scope: words(field()),
            reason: words(field()),
        },
        namespaces: Namespaces::parse(field())?,
    })
}

fn write_quota(limit: &RateLimit) -> String {
    let RateLimit {
        seconds,
        categories,
        words: Words { scope, reason },
        namespaces,
    } = limit;
    let mut quota = format!("{seconds}:{}:{scope}", categories.join(";"));
    if !reason.is_empty() || !namespaces.is_empty() {
        quota.push(':');
        quota.push_str(reason);
    }
    if !namespaces.is_empty() {
        quota.push(':');
        quota.push_str(&namespaces.join(";"));
    }
    quota
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::sentry::category::limited_category;

    fn common(sets: &[&str]) -> String {
        let sets: Vec<_> = sets.iter().map(|set| parse(set.as_bytes())).collect();
        header_value(&intersection(&sets))
    }

    fn words(scope: &str, reason: &str) -> Words {
        Words {
            scope: scope.into(),
            reason: reason.into(),
        }
    }

    #[test]
    fn every_field_of_a_quota_is_parsed() {
        assert_eq!(
            parse(b"60:error;transaction:organization:quota_exceeded, 2700:metric_bucket:project::custom;spans"),
            [
                RateLimit {
                    seconds: 60,
                    categories: Categories::parse("error;transaction").unwrap(),
                    words: words("organization", "quota_exceeded"),
                    namespaces: Namespaces::default(),
                },
                RateLimit {
                    seconds: 2700,
                    categories: Categories::parse("metric_bucket").unwrap(),
                    words: words("project", ""),
                    namespaces: Namespaces::parse("custom;spans").unwrap(),
                },
            ]
        );
    }

    /// A received header, and the limits read from it.
    #[test]
    fn headers_are_parsed_leniently() {
        for (received, understood) in [
            ("", ""),
            (",, ,", ""),
            ("60::key", "60::key"),
            // SDKs ignore unknown names; a quota with no other names limits nothing.
            ("60:default;unheard_of:key", "60:default:key"),
            ("60:unheard_of:key", ""),
            ("60:metric_bucket:key:why:unheard_of", ""),
            ("1:error:key,2:span:key", "1:error:key, 2:span:key"),
            (" 60 : error ; ; span : key : why ", "60:error;span:key:why"),
            ("60", "60::"),
            ("60:error", "60:error:"),
            ("0.2:error:key,1.0:span:key", "1:error:key, 1:span:key"),
            ("99999999999:error:key", "86400:error:key"),
            (
                "0:span:key,-5:span:key,nan:span:key,x:span:key,:span:key,7:error:key",
                "7:error:key",
            ),
            (
                "60:error:key:why:spans;custom:more:still",
                "60:error:key:why:spans;custom",
            ),
            ("60:error:key:wh\u{e9}\r\ny", "60:error:key:why"),
        ] {
            assert_eq!(header_value(&parse(received.as_bytes())), understood);
        }
    }

    #[test]
    fn the_number_of_quotas_is_bounded() {
        let quotas = "1:error:key,".repeat(1000);
        assert_eq!(parse(quotas.as_bytes()).len(), QUOTAS_MAX);
        let categories = format!("1:{}:key:why", "error;".repeat(1000));
        let [limit] = &parse(categories.as_bytes())[..] else {
            panic!("one quota");
        };
        assert_eq!(limit.categories.join(";"), "error");
        assert_eq!(*limit.words.reason, *"why");
        let long = format!("1::{}:{}", "s".repeat(1000), "r".repeat(1000));
        let [limit] = &parse(long.as_bytes())[..] else {
            panic!("one quota");
        };
        assert_eq!(limit.words.scope.len(), WORDS_BYTES_MAX);
        assert_eq!(limit.words.reason.len(), WORDS_BYTES_MAX);
    }

    /// A set of many quotas is as small as a set of one.
    #[test]
    fn the_size_of_a_limit_set_does_not_depend_on_the_number_of_quotas() {
        let names: Vec<_> = (0..CATEGORY_COUNT).map(Categories::name).collect();
        let quota =
            |number: usize| format!("{}:{}:s{number}:r{number}", 60 + number, names.join(";"));
        let header = (0..QUOTAS_MAX).map(quota).collect::<Vec<_>>().join(",");
        let set = parse(header.as_bytes());
        assert_eq!(set.len(), QUOTAS_MAX);
        let closed = LimitSet::from_limits(set.iter().map(|limit| (limit, limit.seconds)));
        assert_eq!(closed.slots.len(), 1 + CATEGORY_COUNT + NAMESPACE_COUNT);
        assert_eq!(closed.slots.iter().flatten().count(), CATEGORY_COUNT);
        assert_eq!(closed.until(Some(Category::Error)), Some(91));
        assert_eq!(closed.until(None), None);
        let expected = quota(QUOTAS_MAX - 1);
        let common = header_value(&intersection(&[set.clone(), set]));
        let [seconds, _, rest] = expected.splitn(3, ':').collect::<Vec<_>>()[..] else {
            panic!("three parts");
        };
        assert!(common.starts_with(&format!("{seconds}:")), "{common}");
        assert!(common.ends_with(rest), "{common}");
        assert_eq!(common.matches(',').count(), 0, "{common}");
    }

    #[test]
    fn the_intersection_limits_only_what_every_set_limits() {
        for (sets, expected) in [
            (&[][..], ""),
            (&["60:error:key:why"], "60:error:key:why"),
            (&["60:error:key", ""], ""),
            (&["60:error:key", "30:transaction:key"], ""),
            (
                &["60:error:org:why", "30:error:key:other"],
                "30:error:org:why",
            ),
            (
                &["60:error;session:org", "30:session;span:key"],
                "30:session:org",
            ),
            (&["60:error;session:org", "30::key"], "30:error;session:org"),
            (
                &["60::org", "30:error:key", "90:error;session:key"],
                "30:error:org",
            ),
            (&["60::org", "30::key"], "30::org"),
            // The longest limit of one outbound counts.
            (
                &["60:error:org,10:error:key", "30:error:key"],
                "30:error:org",
            ),
            // Everything for 30 s, and errors for longer.
            (
                &["30::org,90:error:key", "60::org"],
                "30::org, 60:error:key",
            ),
            // The errors are limited already, so they are not listed again.
            (&["60::org,60:error:key", "60::org"], "60::org"),
            (
                &["60:error:org,60:span:key", "60::org"],
                "60:error:org, 60:span:key",
            ),
            // Namespaces restrict a quota.
            (
                &["60:metric_bucket:org::custom", "30:metric_bucket:key"],
                "30:metric_bucket:org::custom",
            ),
            (
                &[
                    "60:metric_bucket:org::custom",
                    "30:metric_bucket:key::spans",
                ],
                "",
            ),
            (
                &["60:metric_bucket:org::custom;spans", "30::key"],
                "30:metric_bucket:org::custom;spans",
            ),
        ] {
            assert_eq!(common(sets), expected, "{sets:?}");
        }
    }

    #[test]
    fn retry_after_is_a_number_or_a_date() {
        for (value, seconds) in [
            ("60", Some(60)),
            (" 0 ", Some(0)),
            ("", None),
            ("+60", Some(60)),
            ("0.2", Some(1)),
            ("1.5", Some(2)),
            ("60.0", Some(60)),
            ("-1", Some(0)),
            ("-0.5", Some(0)),
            ("86400", Some(86_400)),
            ("86401", Some(86_400)),
            ("4294967296", Some(86_400)),
            ("99999999999999999999999999", Some(86_400)),
            ("Tue, 15 Nov 1994 08:14:37 GMT", Some(30)),
            ("Tuesday, 15-Nov-94 08:14:37 GMT", Some(30)),
            ("Tue Nov 15 08:14:37 1994", Some(30)),
            ("Tue, 15 Nov 1994 08:14:07 GMT", Some(0)),
            ("Tue, 15 Nov 1994 08:13:07 GMT", Some(0)),
            ("Fri, 31 Dec 1999 23:59:59 GMT", Some(86_400)),
            ("tomorrow", None),
            ("inf", None),
            ("NaN", None),
            ("12 parsecs", None),
            ("\u{e9}", None),
        ] {
            // Tue, 15 Nov 1994 08:14:07 GMT.
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_887_247);
            let found = parse_retry_after(value.as_bytes(), now);
            assert_eq!(found, seconds, "{value}");
        }
    }

    #[test]
    fn limits_on_the_bytes_and_on_the_number_of_logs_limit_the_same_items() {
        for (sets, expected) in [
            (
                &["60:log_byte:org", "30:log_item:key"][..],
                "30:log_item:org",
            ),
            (&["60:log_byte:org", "30:log_byte:key"], "30:log_byte:org"),
            (
                &["60:log_byte;log_item:org", "30:log_item:key"],
                "30:log_item:org",
            ),
            (&["60:profile_duration_ui:org", "30:profile_chunk:key"], ""),
            // One limit of the first outbound lasts longer than the other.
            (
                &["10:log_byte:org,60:log_item:org", "30:log_byte:key"],
                "30:log_item:org",
            ),
        ] {
            assert_eq!(common(sets), expected, "{sets:?}");
        }
    }

    #[test]
    fn malformed_quotas_do_not_count_against_the_maximum() {
        let limits = format!("{}60:error:key", ",".repeat(QUOTAS_MAX));
        assert_eq!(header_value(&parse(limits.as_bytes())), "60:error:key");
    }

    fn limits() -> impl Strategy<Value = Vec<RateLimit>> {
        let categories = proptest::sample::subsequence(CATEGORIES.to_vec(), 0..4);
        let namespaces = proptest::sample::subsequence(vec!["custom", "spans"], 0..2);
        let limit = (1u32..5, categories, "[o-p]", "[r-s]?", namespaces).prop_map(
            |(seconds, categories, scope, reason, namespaces)| RateLimit {
                seconds,
                categories: Categories::parse(&categories.join(";")).unwrap(),
                words: words(&scope, &reason),
                namespaces: Namespaces::parse(&namespaces.join(";")).unwrap(),
            },
        );
        proptest::collection::vec(limit, 0..4)
    }

    const CATEGORIES: [&str; 5] = ["error", "log_byte", "log_item", "metric_bucket", "span"];

    proptest! {
        #[test]
        fn a_written_header_is_parsed_to_the_same_limits(limits in limits()) {
            prop_assert_eq!(parse(header_value(&limits).as_bytes()), limits);
        }

        /// The reference looks up each category in each set.
        #[test]
        fn the_intersection_equals_that_of_the_reference(
            sets in proptest::collection::vec(limits(), 1..4)
        ) {
            let closed = |set: &[RateLimit], category: &str, namespace: &str| {
                let is_meant = |limit: &&RateLimit| {
                    let categories: Vec<_> = limit.categories.iter().map(limited_category).collect();
                    categories.is_empty() || categories.contains(&category)
                };
                // Only metrics have namespaces.
                let is_in_namespace = |limit: &&RateLimit| {
                    let namespaces: Vec<_> = limit.namespaces.iter().collect();
                    namespaces.is_empty()
                        || (category == "metric_bucket" && namespaces.contains(&namespace))
                };
                set.iter()
                    .filter(is_meant)
                    .filter(is_in_namespace)
                    .map(|limit| limit.seconds)
                    .max()
                    .unwrap_or(0)
            };
            let common = intersection(&sets);
            // `profile` and `stats` stand for all names without a limit.
            for category in ["error", "log_item", "metric_bucket", "span", "profile"] {
                for namespace in ["custom", "spans", "stats"] {
                    let expected = sets.iter().map(|set| closed(set, category, namespace)).min();
                    prop_assert_eq!(Some(closed(&common, category, namespace)), expected);
                }
            }
        }

        #[test]
        fn any_bytes_are_parsed(value: Vec<u8>, nearly in "[0-9a:;, .]{0,40}") {
            parse_retry_after(&value, SystemTime::UNIX_EPOCH);
            for value in [&value[..], nearly.as_bytes()] {
                let limits = parse(value);
                prop_assert_eq!(parse(header_value(&limits).as_bytes()), limits);
            }
        }
    }
}
