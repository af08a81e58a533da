//! What an upstream asks SDKs not to send for a while.
//!
//! The header `X-Sentry-Rate-Limits` lists quotas, `seconds:categories:scope[:reason[:namespaces]]`
//! with semicolons inside the lists and commas between the quotas; without categories everything is
//! meant. An SDK behind several outbounds must be told only what *none* of them takes, so the
//! limits of all of them are intersected. Times are plain seconds from now: whoever keeps limits
//! knows the time and passes on what is left of them.
//!
//! Unknown categories are kept, because SDKs and servers know more of them with every release. Of the
//! known ones some mean the same items, and so they meet: [`limited_category`].

use std::time::SystemTime;

use super::category::limited_category;

/// Quotas that are kept of one header, and names in each of their lists. Relay knows some 30
/// categories and sends one quota for each limit in force. What is over it is passed over: an SDK
/// that hears of a limit too few sends something in vain, nothing else.
const QUOTAS_MAX: usize = 32;
const NAMES_MAX: usize = 64;

/// The longest time that is believed. An upstream that is asked again after a day can say it again;
/// one that once sent nonsense would otherwise be silenced for years.
const SECONDS_MAX: u32 = 24 * 60 * 60;

/// One quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// How long it lasts, rounded up.
    pub seconds: u32,
    /// The data categories it is about; all if there are none.
    pub categories: Vec<String>,
    /// What it is counted for: `organization`, `project` or `key`.
    pub scope: String,
    /// A word for people; may be empty.
    pub reason: String,
    /// The metric namespaces it is about; all if there are none.
    pub namespaces: Vec<String>,
}

impl RateLimit {
    /// A limit on every category: what a 429 without further words means.
    pub fn on_everything(seconds: u32) -> RateLimit {
        RateLimit {
            seconds,
            categories: Vec::new(),
            scope: "organization".to_owned(),
            reason: String::new(),
            namespaces: Vec::new(),
        }
    }

    /// What is limited by both, for the shorter time; `None` if that is nothing.
    fn meet(&self, other: &RateLimit) -> Option<RateLimit> {
        Some(RateLimit {
            seconds: self.seconds.min(other.seconds),
            categories: meet_names(&self.categories, &other.categories, limited_category)?,
            scope: self.scope.clone(),
            reason: self.reason.clone(),
            namespaces: meet_names(&self.namespaces, &other.namespaces, |name| name)?,
        })
    }

    /// Whether it limits all that `other` limits, at least as long.
    fn covers(&self, other: &RateLimit) -> bool {
        self.seconds >= other.seconds
            && covers_names(&self.categories, &other.categories, limited_category)
            && covers_names(&self.namespaces, &other.namespaces, |name| name)
    }
}

/// Reads the value of `X-Sentry-Rate-Limits`.
///
/// What cannot be understood is passed over, and so are quotas of zero seconds. Only printable ASCII
/// is kept, so that everything in a [`RateLimit`] can be written into a header again.
pub fn parse(value: &[u8]) -> Vec<RateLimit> {
    let printable = value.iter().filter(|byte| matches!(byte, b' '..=b'~'));
    let text: String = printable.copied().map(char::from).collect();
    text.split(',')
        .filter_map(parse_quota)
        .take(QUOTAS_MAX)
        .collect()
}

/// What is limited in every one of `sets`, for the shortest of its times.
///
/// Scope and reason are those of the first set. Where several limits of one set meet, the longest
/// counts, and what another limit of the result covers is left out.
pub fn intersection(sets: &[Vec<RateLimit>]) -> Vec<RateLimit> {
    let Some((first, others)) = sets.split_first() else {
        return Vec::new();
    };
    others.iter().fold(first.clone(), |common, set| {
        let mut met: Vec<RateLimit> = Vec::new();
        for limit in common
            .iter()
            .flat_map(|limit| set.iter().filter_map(|other| limit.meet(other)))
        {
            if !met.iter().any(|known| known.covers(&limit)) {
                met.retain(|known| !limit.covers(known));
                met.push(limit);
            }
        }
        met.truncate(QUOTAS_MAX);
        met
    })
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

/// The names in both lists, of which an empty one means all names. Names of the same `subject` are the
/// same, and if they differ it is the subject that is in both.
fn meet_names(one: &[String], other: &[String], subject: fn(&str) -> &str) -> Option<Vec<String>> {
    if one.is_empty() {
        return Some(other.to_vec());
    }
    if other.is_empty() {
        return Some(one.to_vec());
    }
    let mut both: Vec<String> = Vec::new();
    for name in one {
        let met = match other.contains(name) {
            true => name,
            false if is_among(other, name, subject) => subject(name),
            false => continue,
        };
        if !both.iter().any(|known| known == met) {
            both.push(met.to_owned());
        }
    }
    (!both.is_empty()).then_some(both)
}

fn covers_names(wide: &[String], narrow: &[String], subject: fn(&str) -> &str) -> bool {
    let is_covered = |name: &String| is_among(wide, name, subject);
    wide.is_empty() || (!narrow.is_empty() && narrow.iter().all(is_covered))
}

fn is_among(names: &[String], name: &str, subject: fn(&str) -> &str) -> bool {
    names.iter().any(|known| subject(known) == subject(name))
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
    Some(RateLimit {
        seconds,
        categories: parse_names(field()),
        scope: field().to_owned(),
        reason: field().to_owned(),
        namespaces: parse_names(field()),
    })
}

fn parse_names(list: &str) -> Vec<String> {
    list.split(';')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .take(NAMES_MAX)
        .map(str::to_owned)
        .collect()
}

fn write_quota(limit: &RateLimit) -> String {
    let RateLimit {
        seconds,
        categories,
        scope,
        reason,
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

    fn common(sets: &[&str]) -> String {
        let sets: Vec<_> = sets.iter().map(|set| parse(set.as_bytes())).collect();
        header_value(&intersection(&sets))
    }

    #[test]
    fn every_field_is_read() {
        assert_eq!(
            parse(b"60:error;transaction:organization:quota_exceeded, 2700:metric_bucket:project::custom;spans"),
            [
                RateLimit {
                    seconds: 60,
                    categories: vec!["error".into(), "transaction".into()],
                    scope: "organization".into(),
                    reason: "quota_exceeded".into(),
                    namespaces: vec![],
                },
                RateLimit {
                    seconds: 2700,
                    categories: vec!["metric_bucket".into()],
                    scope: "project".into(),
                    reason: String::new(),
                    namespaces: vec!["custom".into(), "spans".into()],
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
            ("60:default;unheard_of:key", "60:default;unheard_of:key"),
            ("1:a:key,2:b:key", "1:a:key, 2:b:key"),
            (" 60 : a ; ; b : key : why ", "60:a;b:key:why"),
            ("60", "60::"),
            ("60:a", "60:a:"),
            ("0.2:a:key,1.0:b:key", "1:a:key, 1:b:key"),
            ("99999999999:a:key", "86400:a:key"),
            (
                "0:a:key,-5:a:key,nan:a:key,x:a:key,:a:key,7:b:key",
                "7:b:key",
            ),
            ("60:a:key:why:x;y:more:still", "60:a:key:why:x;y"),
            ("60:a:key:wh\u{e9}\r\ny", "60:a:key:why"),
        ] {
            assert_eq!(header_value(&parse(received.as_bytes())), understood);
        }
    }

    #[test]
    fn reading_is_bounded() {
        let quotas = "1:a:key,".repeat(1000);
        assert_eq!(parse(quotas.as_bytes()).len(), QUOTAS_MAX);
        let categories = format!("1:{}:key:why", "a;".repeat(1000));
        let [limit] = &parse(categories.as_bytes())[..] else {
            panic!("one quota");
        };
        assert_eq!(limit.categories.len(), NAMES_MAX);
        assert_eq!(limit.reason, "why");
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
            (&["60:a:org,60:b:key", "60::org"], "60:a:org, 60:b:key"),
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
        let names = || proptest::collection::vec("[a-c]", 0..3);
        let limit = (1u32..5, names(), "[o-p]", "[r-s]?", names()).prop_map(
            |(seconds, categories, scope, reason, namespaces)| RateLimit {
                seconds,
                categories,
                scope,
                reason,
                namespaces,
            },
        );
        proptest::collection::vec(limit, 0..4)
    }

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
                let names = |names: &[String], name: &str| {
                    names.is_empty() || names.iter().any(|known| known == name)
                };
                set.iter()
                    .filter(|limit| names(&limit.categories, category))
                    .filter(|limit| names(&limit.namespaces, namespace))
                    .map(|limit| limit.seconds)
                    .max()
                    .unwrap_or(0)
            };
            let common = intersection(&sets);
            // `x` stands for every name that is not mentioned.
            for category in ["a", "b", "c", "x"] {
                for namespace in ["a", "b", "c", "x"] {
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
