//! What a mirror has counted by hour, as its admin port says it at `/hours`.

use std::collections::BTreeMap;

use serde::Deserialize;

/// An hour in seconds.
pub(crate) const HOUR: u64 = 3600;

/// The version of what `/hours` answers.
const VERSION: u64 = 1;

/// What a mirror has counted.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Counts {
    /// From when on nothing is missing, as Unix time in seconds.
    complete_since: u64,
    /// The names of route and outbound, the category, and the outcome.
    series: Vec<[String; 4]>,
    hours: Vec<Hour>,
}

#[derive(Clone, Debug, Deserialize)]
struct Hour {
    /// Unix time in seconds.
    start: u64,
    /// Pairs of the index of a series and its count.
    counts: Vec<(usize, u64)>,
}

impl Counts {
    /// Reads what `/hours` answers.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn from_json(text: &[u8]) -> Result<Counts, String> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u64,
        }
        // Another version may have other fields, so it is read first.
        let Versioned { version } =
            serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if version != VERSION {
            return Err(format!(
                "it has version {version}, expected {VERSION}: use the sentry-mirror of the same version"
            ));
        }
        serde_json::from_slice(text).map_err(|error| error.to_string())
    }
}

/// A period of whole hours, because Sentry counts by hour. Unix times in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Period {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl Period {
    /// The whole hours of the last `seconds` before `now` that every mirror has counted. `None` if there are none.
    pub(crate) fn new(now: u64, seconds: u64, mirrors: &[Counts]) -> Option<Period> {
        let complete = mirrors.iter().map(|counts| counts.complete_since).max();
        let end = now - now % HOUR;
        let from = end.saturating_sub(seconds).max(complete.unwrap_or(0));
        let start = from.next_multiple_of(HOUR);
        (start < end).then_some(Period { start, end })
    }

    pub(crate) fn hours(self) -> u64 {
        (self.end - self.start) / HOUR
    }
}

/// The items of an outbound by category and outcome.
pub(crate) type Outcomes = BTreeMap<String, BTreeMap<String, u64>>;

/// What all mirrors together have counted in `period`, by the names of route and outbound.
pub(crate) fn sums(mirrors: &[Counts], period: Period) -> BTreeMap<(String, String), Outcomes> {
    let mut sums: BTreeMap<(String, String), Outcomes> = BTreeMap::new();
    for counts in mirrors {
        let hours = counts.hours.iter();
        let hours = hours.filter(|hour| (period.start..period.end).contains(&hour.start));
        for (index, count) in hours.flat_map(|hour| &hour.counts) {
            let Some([route, outbound, category, outcome]) = counts.series.get(*index) else {
                continue;
            };
            let name = (route.clone(), outbound.clone());
            let outcomes = sums.entry(name).or_default();
            let outcomes = outcomes.entry(category.clone()).or_default();
            *outcomes.entry(outcome.clone()).or_default() += count;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(complete_since: u64, hours: &[(u64, u64)]) -> Counts {
        let hour = |(start, count): &(u64, u64)| {
            format!("{{\"start\":{},\"counts\":[[1,{count}]]}}", start * HOUR)
        };
        let hours: Vec<String> = hours.iter().map(hour).collect();
        let text = format!(
            "{{\"version\":1,\"complete_since\":{complete_since},\"series\":[[\"a\",\"b\",\"c\",\"d\"],[\"shop\",\"eu\",\"error\",\"delivered\"]],\"hours\":[{}]}}",
            hours.join(",")
        );
        Counts::from_json(text.as_bytes()).unwrap()
    }

    #[test]
    fn counts_of_another_version_are_refused() {
        let error = |text: &str| Counts::from_json(text.as_bytes()).unwrap_err();
        let other = "it has version 2, expected 1: use the sentry-mirror of the same version";
        assert_eq!(error("{\"version\":2,\"rows\":[]}"), other);
        assert!(error("{\"complete_since\":0,\"series\":[],\"hours\":[]}").contains("version"));
        assert!(error("{\"version\":1}").contains("complete_since"));
        assert!(error("<html>").contains("expected value"));
    }

    #[test]
    fn a_period_has_whole_hours_that_every_mirror_has_counted() {
        let period = |now, seconds, since: &[u64]| {
            let mirrors: Vec<Counts> = since.iter().map(|since| counts(*since, &[])).collect();
            let period = Period::new(now, seconds, &mirrors)?;
            Some((period.start / HOUR, period.end / HOUR, period.hours()))
        };
        let now = 100 * HOUR + 1800;
        assert_eq!(period(now, 24 * HOUR, &[0]), Some((76, 100, 24)));
        assert_eq!(
            period(now, 24 * HOUR, &[0, 90 * HOUR + 1]),
            Some((91, 100, 9))
        );
        assert_eq!(period(now, 24 * HOUR, &[99 * HOUR + 1]), None);
        assert_eq!(period(now, 24 * HOUR, &[now]), None);
        assert_eq!(period(now, HOUR, &[0]), Some((99, 100, 1)));
        assert_eq!(period(100 * HOUR, 1800, &[0]), None);
    }

    #[test]
    fn mirrors_are_added_up_over_the_period() {
        let mirrors = [
            counts(0, &[(9, 1), (10, 10), (11, 100)]),
            counts(0, &[(10, 1000), (12, 5)]),
        ];
        let period = Period {
            start: 10 * HOUR,
            end: 12 * HOUR,
        };
        let sums = sums(&mirrors, period);
        let outcomes = &sums[&("shop".to_owned(), "eu".to_owned())];
        assert_eq!(outcomes["error"]["delivered"], 1110);
    }
}
