//! What an upstream asks SDKs not to send for a while.
//!
//! The header `X-Sentry-Rate-Limits` lists quotas, `seconds:categories:scope[:reason[:namespaces]]`
//! with semicolons inside the lists and commas between the quotas; without categories everything is
//! meant. An SDK behind several outbounds must be told only what *none* of them takes, so the
//! limits of all of them are intersected. Times are plain seconds from now: whoever keeps limits
//! knows the time and passes on what is left of them.
//!
//! Categories and namespaces are those of a closed list ([`limit_names`]). Some categories mean the same
//! items, and so they meet: [`limited_category`]. What is closed is kept in one place for each name
//! ([`Closed`]), however many quotas there were, so that it costs the same to ask and to intersect.
//!
//! [`limit_names`]: super::limit_names
//! [`limited_category`]: super::category::limited_category

use std::sync::Arc;
use std::time::SystemTime;

use super::category::Category;
use super::limit_names::{CATEGORY_COUNT, Categories, NAMESPACE_COUNT, Namespaces, place, subject};

/// Quotas that are kept of one header. Relay sends one quota for each limit in force. What is over it is
/// passed over: an SDK that hears of a limit too few sends something in vain, nothing else.
const QUOTAS_MAX: usize = 32;

/// How much is kept of a scope and of a reason.
const WORDS_BYTES_MAX: usize = 128;

/// The longest time that is believed. An upstream that is asked again after a day can say it again;
/// one that once sent nonsense would otherwise be silenced for years.
const SECONDS_MAX: u32 = 24 * 60 * 60;

/// One quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// How long it lasts, rounded up.
    pub seconds: u32,
    /// The data categories it is about; all if there are none.
    pub categories: Categories,
    /// What it is counted for, and why.
    pub words: Words,
    /// The metric namespaces it is about; all if there are none.
    pub namespaces: Namespaces,
}

/// What a quota says besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// What it is counted for: `organization`, `project` or `key`.
    pub scope: Arc<str>,
    /// A word for people; may be empty.
    pub reason: Arc<str>,
}

impl RateLimit {
    /// A limit on every category: what a 429 without further words means.
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

/// The places of the categories in [`Closed`]; in front is that of everything, and behind them are those of
/// the namespaces of metrics.
const EVERYTHING: usize = 0;
const FIRST_CATEGORY: usize = 1;
const FIRST_NAMESPACE: usize = FIRST_CATEGORY + CATEGORY_COUNT;
const PLACES: usize = FIRST_NAMESPACE + NAMESPACE_COUNT;

/// What is limited by several limits together, and until when, in whatever measure of time.
#[derive(Clone, Debug)]
pub struct Closed<T> {
    /// For each name the longest limit that names it, with the index of its words.
    places: [Option<(T, u8)>; PLACES],
    /// For each category the longest limit that is about its items, by whatever name.
    subjects: [Option<(T, u8)>; CATEGORY_COUNT],
    /// All categories that are named.
    named: Categories,
    words: Vec<Words>,
}

impl<T: Copy + Ord> Closed<T> {
    /// What the `limits` close together.
    pub fn by<'l>(limits: impl Iterator<Item = (&'l RateLimit, T)>) -> Closed<T> {
        let mut closed = Closed {
            places: [None; PLACES],
            subjects: [None; CATEGORY_COUNT],
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
        let mut close = |place: usize| {
            if let Some(place) = self.places.get_mut(place) {
                *place = longer(*place, Some(until));
            }
        };
        if !limit.namespaces.is_empty() {
            // Only metrics have namespaces; of nothing else it limits anything.
            let of_metrics = place(Category::MetricBucket);
            if limit.categories.is_empty()
                || limit.categories.indices().any(|one| one == of_metrics)
            {
                let namespaces = limit.namespaces.indices();
                namespaces.for_each(|index| close(FIRST_NAMESPACE + index));
            }
        } else if limit.categories.is_empty() {
            close(EVERYTHING);
        } else {
            for index in limit.categories.indices() {
                close(FIRST_CATEGORY + index);
                self.named.add(index);
                if let Some(place) = self.subjects.get_mut(subject(index)) {
                    *place = longer(*place, Some(until));
                }
            }
        }
    }

    /// Until when all items of a category are limited, or, with none, items of a category that is not known.
    pub fn until(&self, category: Option<Category>) -> Option<T> {
        let subject = category.and_then(|category| self.subject(place(category)));
        longer(self.place(EVERYTHING), subject).map(|(until, _)| until)
    }

    /// The end of the longest limit.
    pub fn last(&self) -> Option<T> {
        self.places.iter().flatten().map(|(until, _)| *until).max()
    }

    fn place(&self, place: usize) -> Option<(T, u8)> {
        self.places.get(place).copied().flatten()
    }

    fn subject(&self, category: usize) -> Option<(T, u8)> {
        self.subjects.get(category).copied().flatten()
    }

    /// Until when everything is closed, what a category names, and the items that it is about.
    fn of_everything(&self) -> Option<(T, u8)> {
        self.place(EVERYTHING)
    }

    fn of_name(&self, category: usize) -> Option<(T, u8)> {
        longer(self.of_everything(), self.place(FIRST_CATEGORY + category))
    }

    fn of_subject(&self, category: usize) -> Option<(T, u8)> {
        longer(self.of_everything(), self.subject(category))
    }

    fn of_namespace(&self, namespace: usize) -> Option<(T, u8)> {
        let of_metrics = self.of_subject(place(Category::MetricBucket));
        longer(of_metrics, self.place(FIRST_NAMESPACE + namespace))
    }
}

/// The longer of two limits; of equals the first.
fn longer<T: Ord>(one: Option<(T, u8)>, other: Option<(T, u8)>) -> Option<(T, u8)> {
    match (one, other) {
        (Some(one), Some(other)) if other.0 > one.0 => Some(other),
        (Some(one), _) => Some(one),
        (None, other) => other,
    }
}

/// What is limited in every one of `sets`, for the shortest of its times, which `seconds` tells from where
/// it ends: zero where it has ended.
///
/// Scope and reason are those of the first set. Where several limits of one set meet, the longest
/// counts, and what another limit of the result covers is left out.
pub(crate) fn common<T: Copy + Ord>(
    sets: &[impl AsRef<Closed<T>>],
    seconds: impl Fn(T) -> u32,
) -> Vec<RateLimit> {
    let mut common = Common {
        sets: sets.iter().map(AsRef::as_ref).collect(),
        limits: Vec::new(),
    };
    let everything = common.shortest(Closed::of_everything);
    common.add(everything, None, None);
    let mut subjects = [None; CATEGORY_COUNT];
    for (index, closed) in subjects.iter_mut().enumerate() {
        *closed = common.shortest(|set| set.of_subject(index));
    }
    let mut unnamed = subjects;
    let mut names = Categories::default();
    for index in common.sets.iter().flat_map(|set| set.named.indices()) {
        names.add(index);
    }
    for index in names.indices() {
        let closed = subjects.get(subject(index)).copied().flatten();
        let named = common.shortest(|set| set.of_name(index));
        if is_longer(closed, everything) && is_as_long(named, closed) {
            common.add(closed, Some(index), None);
            if let Some(closed) = unnamed.get_mut(subject(index)) {
                *closed = None;
            }
        }
    }
    // Each set has another name for these.
    for (index, closed) in unnamed.into_iter().enumerate() {
        if is_longer(closed, everything) {
            common.add(closed, Some(index), None);
        }
    }
    let metrics = place(Category::MetricBucket);
    let of_metrics = common.shortest(|set| set.of_subject(metrics));
    for index in 0..NAMESPACE_COUNT {
        let closed = common.shortest(|set| set.of_namespace(index));
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

/// The limits that several sets have in common.
struct Common<'s, T> {
    sets: Vec<&'s Closed<T>>,
    limits: Vec<(T, RateLimit)>,
}

/// How long something is closed in all sets, with the words of the first one.
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

impl<'s, T: Copy + Ord> Common<'s, T> {
    fn shortest(&self, closed: impl Fn(&'s Closed<T>) -> Option<(T, u8)>) -> Shortest<'s, T> {
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

    /// Adds a name to the limit that is as long and has the same words, or a limit where there is none.
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

/// Reads the value of `X-Sentry-Rate-Limits`.
///
/// What cannot be understood is passed over, and so are quotas of zero seconds, and those that name
/// only what nobody knows. Only printable ASCII
/// is kept, so that everything in a [`RateLimit`] can be written into a header again.
pub fn parse(value: &[u8]) -> Vec<RateLimit> {
    let printable = value.iter().filter(|byte| matches!(byte, b' '..=b'~'));
    let text: String = printable.copied().map(char::from).collect();
    text.split(',')
        .filter_map(parse_quota)
        .take(QUOTAS_MAX)
        .collect()
}

/// The same of `sets` as they were read; see [`common`].
pub fn intersection(sets: &[Vec<RateLimit>]) -> Vec<RateLimit> {
    let closed =
        |set: &Vec<RateLimit>| Arc::new(Closed::by(set.iter().map(|limit| (limit, limit.seconds))));
    let closed: Vec<_> = sets.iter().map(closed).collect();
    common(&closed, |seconds| seconds)
}

/// The value of `X-Sentry-Rate-Limits` that says this.
pub fn header_value(limits: &[RateLimit]) -> String {
    let quotas: Vec<_> = limits.iter().map(write_quota).collect();
    quotas.join(", ")
}

/// Reads the value of `Retry-After`, received at `now`: how many seconds to wait, a day at most. It is a
/// number of seconds or a date (RFC 9110, section 10.2.3). A fraction is rounded up; what is negative or
/// past means no time.
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
    // Infinite is no time, and neither is none.
    if !seconds.is_finite() || seconds < 1.0 {
        return None;
    }
    let seconds = (seconds as u32).min(SECONDS_MAX);
    let mut field = || fields.next().unwrap_or_default();
    // All that is kept is ASCII.
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
    fn every_field_is_read() {
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

    /// What is received, and what is understood of it.
    #[test]
    fn headers_are_read_leniently() {
        for (received, understood) in [
            ("", ""),
            (",, ,", ""),
            ("60::key", "60::key"),
            // SDKs pass over what they do not know; what names nothing else limits nothing.
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
    fn reading_is_bounded() {
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

    /// What many quotas of many names close is as small as what one closes: a place for each name.
    #[test]
    fn what_is_closed_has_one_place_for_each_name_however_many_quotas_there_are() {
        let names: Vec<_> = (0..CATEGORY_COUNT).map(Categories::name).collect();
        let quota =
            |number: usize| format!("{}:{}:s{number}:r{number}", 60 + number, names.join(";"));
        let header = (0..QUOTAS_MAX).map(quota).collect::<Vec<_>>().join(",");
        let set = parse(header.as_bytes());
        assert_eq!(set.len(), QUOTAS_MAX);
        let closed = Closed::by(set.iter().map(|limit| (limit, limit.seconds)));
        assert_eq!(closed.places.len(), 1 + CATEGORY_COUNT + NAMESPACE_COUNT);
        assert_eq!(closed.places.iter().flatten().count(), CATEGORY_COUNT);
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
    fn only_what_is_limited_everywhere_is_limited() {
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
            // The longest limit of one outbound is what keeps it closed.
            (
                &["60:error:org,10:error:key", "30:error:key"],
                "30:error:org",
            ),
            // Everything for 30 s, and errors for longer.
            (
                &["30::org,90:error:key", "60::org"],
                "30::org, 60:error:key",
            ),
            // Listing the errors again would say nothing new.
            (&["60::org,60:error:key", "60::org"], "60::org"),
            (
                &["60:error:org,60:span:key", "60::org"],
                "60:error:org, 60:span:key",
            ),
            // Namespaces limit a quota further.
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
    fn retry_after() {
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
    fn limits_on_the_bytes_and_on_the_number_of_logs_are_about_the_same_logs() {
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
            // One limit of the first outbound keeps it closed for longer than the other.
            (
                &["10:log_byte:org,60:log_item:org", "30:log_byte:key"],
                "30:log_item:org",
            ),
        ] {
            assert_eq!(common(sets), expected, "{sets:?}");
        }
    }

    #[test]
    fn what_cannot_be_understood_does_not_count_against_the_number_of_quotas() {
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
        fn what_is_written_is_read(limits in limits()) {
            prop_assert_eq!(parse(header_value(&limits).as_bytes()), limits);
        }

        /// The twin asks for every subject how long each set keeps it closed.
        #[test]
        fn intersections_close_what_all_sets_close(
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
            // `profile` and `stats` stand for every name that is not mentioned.
            for category in ["error", "log_item", "metric_bucket", "span", "profile"] {
                for namespace in ["custom", "spans", "stats"] {
                    let expected = sets.iter().map(|set| closed(set, category, namespace)).min();
                    prop_assert_eq!(Some(closed(&common, category, namespace)), expected);
                }
            }
        }

        #[test]
        fn any_bytes_are_read(value: Vec<u8>, nearly in "[0-9a:;, .]{0,40}") {
            parse_retry_after(&value, SystemTime::UNIX_EPOCH);
            for value in [&value[..], nearly.as_bytes()] {
                let limits = parse(value);
                prop_assert_eq!(parse(header_value(&limits).as_bytes()), limits);
            }
        }
    }
}
