//! How many items had which outcome, by hour, for the last eight days.
//!
//! `sentry-mirror parity` compares these with what Sentry has counted. The form as JSON is that of `/hours` and of the
//! `state_file`: a table of series, and for each hour the counts by the index of the series. An hour has an entry
//! for each series that counted something in it. Entries are bounded: with too many, the oldest hours go, and
//! `complete_since` says from when on nothing is missing.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde::{Deserialize, Serialize};

/// An hour in seconds.
const HOUR: u64 = 3600;

/// Eight days, so that a week can be compared a day later.
const HOURS_MAX: u64 = 8 * 24;

/// The most entries. With about 24 bytes each, and the texts of the series, they take at most 5 MiB.
const ENTRIES_MAX: usize = 200_000;

/// The version of the form as JSON.
const VERSION: u32 = 1;

/// What is counted: the names of route and outbound, the category, the outcome.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Series(pub(super) [String; 4]);

#[derive(Debug, Default)]
pub(super) struct Hours {
    /// Unix time in seconds.
    complete_since: u64,
    series: Vec<Series>,
    indices: HashMap<Series, u32>,
    /// In the order of their times.
    hours: VecDeque<Hour>,
    entries: usize,
}

#[derive(Debug)]
struct Hour {
    /// Unix time in seconds.
    start: u64,
    counts: BTreeMap<u32, u64>,
}

/// The form as JSON.
#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    complete_since: u64,
    series: Vec<Series>,
    hours: Vec<HourDocument>,
}

#[derive(Serialize, Deserialize)]
struct HourDocument {
    start: u64,
    /// Pairs of the index of a series and its count.
    counts: Vec<(u32, u64)>,
}

impl Hours {
    /// Counts from `now` on, a Unix time in seconds.
    pub(super) fn new(now: u64) -> Hours {
        Hours {
            complete_since: now,
            ..Hours::default()
        }
    }

    /// Notes that something before `now` may not have been counted.
    pub(super) fn note_gap(&mut self, now: u64) {
        self.complete_since = self.complete_since.max(now);
    }

    /// Adds `count` items to the hour of `now`. Times that go back, as after a correction of the clock, count
    /// for the last hour.
    pub(super) fn add(&mut self, now: u64, series: Series, count: u64) {
        if count == 0 {
            return;
        }
        let start = now - now % HOUR;
        if self.hours.back().is_none_or(|last| last.start < start) {
            self.hours.push_back(Hour {
                start,
                counts: BTreeMap::new(),
            });
            self.forget_before(now.saturating_sub(HOURS_MAX * HOUR));
        }
        let index = self.index_of(series);
        if let Some(hour) = self.hours.back_mut() {
            let before = hour.counts.len();
            *hour.counts.entry(index).or_default() += count;
            self.entries += hour.counts.len() - before;
        }
        while self.entries > ENTRIES_MAX && self.hours.len() > 1 {
            self.forget_first();
        }
    }

    fn index_of(&mut self, series: Series) -> u32 {
        if let Some(index) = self.indices.get(&series) {
            return *index;
        }
        let index = u32::try_from(self.series.len()).unwrap_or(u32::MAX);
        self.series.push(series.clone());
        self.indices.insert(series, index);
        index
    }

    /// Forgets hours that ended before `time`, and series that no hour has any more.
    fn forget_before(&mut self, time: u64) {
        let count = self.hours.len();
        while self
            .hours
            .front()
            .is_some_and(|first| first.start + HOUR <= time)
        {
            self.forget_first();
        }
        if self.hours.len() < count {
            self.forget_unused_series();
        }
    }

    fn forget_first(&mut self) {
        if let Some(first) = self.hours.pop_front() {
            self.entries -= first.counts.len();
            self.complete_since = self.complete_since.max(first.start + HOUR);
        }
    }

    /// Names change with the configuration, and those of old ones must not pile up.
    fn forget_unused_series(&mut self) {
        let old = std::mem::take(&mut self.series);
        self.indices.clear();
        let mut hours = std::mem::take(&mut self.hours);
        for hour in &mut hours {
            let counts = std::mem::take(&mut hour.counts).into_iter();
            let renumbered = counts.filter_map(|(index, count)| {
                let series = old.get(usize::try_from(index).ok()?)?;
                Some((self.index_of(series.clone()), count))
            });
            hour.counts = renumbered.collect();
        }
        self.hours = hours;
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        let hours = self.hours.iter();
        let document = Document {
            version: VERSION,
            complete_since: self.complete_since,
            series: self.series.clone(),
            hours: hours
                .map(|hour| HourDocument {
                    start: hour.start,
                    counts: hour
                        .counts
                        .iter()
                        .map(|(index, count)| (*index, *count))
                        .collect(),
                })
                .collect(),
        };
        // Plain values can always be serialized.
        serde_json::to_vec(&document).unwrap_or_default()
    }

    /// Reads what [`Hours::to_json`] made, at `now`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn from_json(text: &[u8], now: u64) -> Result<Hours, String> {
        let document: Document = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if document.version != VERSION {
            return Err(format!(
                "it has version {}, expected {VERSION}",
                document.version
            ));
        }
        let mut read = Hours::new(document.complete_since);
        let mut last = 0;
        for hour in document.hours {
            // Hours out of order, or of the future, are not from this program.
            if hour.start < last || hour.start > now || hour.start % HOUR != 0 {
                return Err(format!("an hour begins at {}", hour.start));
            }
            last = hour.start;
            for (index, count) in hour.counts {
                let series = usize::try_from(index).ok();
                let series = series.and_then(|index| document.series.get(index));
                let series = series.ok_or_else(|| format!("there is no series {index}"))?;
                read.add(hour.start, series.clone(), count);
            }
        }
        read.forget_before(now.saturating_sub(HOURS_MAX * HOUR));
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(outbound: &str) -> Series {
        Series(["shop", outbound, "error", "delivered"].map(str::to_owned))
    }

    /// The counts of an outbound by hour.
    fn counts(hours: &Hours, outbound: &str) -> Vec<(u64, u64)> {
        let index = hours.indices.get(&series(outbound));
        let counted = |hour: &Hour| Some((hour.start / HOUR, *hour.counts.get(index?)?));
        hours.hours.iter().filter_map(counted).collect()
    }

    #[test]
    fn items_are_added_to_their_hour() {
        let mut hours = Hours::new(100 * HOUR + 7);
        for (at, outbound, count) in [
            (100 * HOUR + 10, "eu", 1),
            (100 * HOUR + 3599, "eu", 2),
            (101 * HOUR, "eu", 4),
            (101 * HOUR, "us", 8),
            (101 * HOUR, "us", 0),
            // The clock went back.
            (100 * HOUR, "eu", 16),
        ] {
            hours.add(at, series(outbound), count);
        }
        assert_eq!(counts(&hours, "eu"), [(100, 3), (101, 20)]);
        assert_eq!(counts(&hours, "us"), [(101, 8)]);
        assert_eq!((hours.complete_since, hours.entries), (100 * HOUR + 7, 3));
    }

    #[test]
    fn after_eight_days_hours_and_their_series_are_forgotten() {
        let mut hours = Hours::new(0);
        hours.add(1000 * HOUR, series("old"), 1);
        hours.add(1001 * HOUR, series("eu"), 1);
        hours.add(1193 * HOUR, series("eu"), 1);
        assert_eq!(counts(&hours, "old"), []);
        assert_eq!(counts(&hours, "eu"), [(1001, 1), (1193, 1)]);
        assert_eq!(hours.series, [series("eu")]);
        assert_eq!((hours.complete_since, hours.entries), (1001 * HOUR, 2));
    }

    #[test]
    fn too_many_entries_make_the_oldest_hours_go() {
        let mut hours = Hours::new(0);
        for hour in 1..=3 {
            for number in 0..ENTRIES_MAX / 2 {
                hours.add(hour * HOUR, series(&number.to_string()), 1);
            }
        }
        assert_eq!(hours.entries, ENTRIES_MAX);
        assert_eq!(hours.complete_since, 2 * HOUR);
        assert_eq!(counts(&hours, "7"), [(2, 1), (3, 1)]);
    }

    #[test]
    fn what_was_written_is_read_again() {
        let mut hours = Hours::new(99 * HOUR);
        hours.add(100 * HOUR, series("eu"), 3);
        hours.add(101 * HOUR, series("us"), 5);
        let text = hours.to_json();
        let mut read = Hours::from_json(&text, 102 * HOUR).unwrap();
        assert_eq!(read.to_json(), text);
        read.add(102 * HOUR, series("eu"), 1);
        assert_eq!(counts(&read, "eu"), [(100, 3), (102, 1)]);
        assert_eq!(read.complete_since, 99 * HOUR);
        // A long stop.
        let old = Hours::from_json(&text, 1000 * HOUR).unwrap();
        assert!(old.hours.is_empty() && old.series.is_empty());
    }

    #[test]
    fn what_nobody_wrote_is_an_error() {
        let document = |version: u32, start: u64, index: u32| {
            format!(
                "{{\"version\":{version},\"complete_since\":0,\"series\":[[\"a\",\"b\",\"c\",\"d\"]],\"hours\":[{{\"start\":{start},\"counts\":[[{index},1]]}}]}}"
            )
        };
        let read = |text: &str| Hours::from_json(text.as_bytes(), 9 * HOUR).map(|_| ());
        assert_eq!(read(&document(1, 8 * HOUR, 0)), Ok(()));
        for text in [
            document(2, 8 * HOUR, 0),
            document(1, 10 * HOUR, 0),
            document(1, 8 * HOUR + 1, 0),
            document(1, 8 * HOUR, 1),
            "{".to_owned(),
            String::new(),
        ] {
            assert!(read(&text).is_err(), "{text}");
        }
    }
}
