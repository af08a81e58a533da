//! The caps of an outbound: how many items of a category it gets in a time.

use std::fmt;

use crate::sentry::category::CategorySet;

/// The largest number of items per second. A worker looks at the clock in nanoseconds: of more items, each would
/// have less than a microsecond.
const RATE_MAX: u64 = 1_000_000;

/// One member of `cap`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cap {
    /// The category as in the file, in lower case.
    pub(crate) name: String,
    /// Which share one bucket. A name such as `profiling` stands for several.
    pub(crate) categories: CategorySet,
    pub(crate) amount: Amount,
}

/// So many items in so much time, such as `5000/day`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Amount {
    pub(crate) items: u64,
    pub(crate) period: Period,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Period {
    Second,
    Minute,
    Hour,
    Day,
}

impl Period {
    pub(super) const NAMES: [(&str, Period); 4] = [
        ("s", Period::Second),
        ("min", Period::Minute),
        ("h", Period::Hour),
        ("day", Period::Day),
    ];

    pub(crate) const fn seconds(self) -> u64 {
        match self {
            Period::Second => 1,
            Period::Minute => 60,
            Period::Hour => 3600,
            Period::Day => 86_400,
        }
    }
}

impl Amount {
    /// `None` for none, or more than the largest.
    pub(super) fn new(items: u64, period: Period) -> Option<Amount> {
        let is_valid = items > 0 && items <= RATE_MAX * period.seconds();
        is_valid.then_some(Amount { items, period })
    }

    /// Items per second.
    pub(crate) fn rate(self) -> f64 {
        self.items as f64 / self.period.seconds() as f64
    }

    /// The largest number of items at once: those of a second, or a tenth of those of a longer period.
    pub(crate) fn burst(self) -> u64 {
        match self.period {
            Period::Second => self.items,
            Period::Minute | Period::Hour | Period::Day => (self.items / 10).max(1),
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = Period::NAMES.iter();
        let name = names.find(|(_, period)| *period == self.period);
        write!(f, "{}/{}", self.items, name.map_or("", |(name, _)| name))
    }
}

impl fmt::Display for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.amount)
    }
}
