//! The names of data categories and metric namespaces in rate limits.
//!
//! The list is closed, which bounds memory. SDKs ignore unknown names, and so does the mirror: the only consequence
//! of a name missing here is that limits on it are not passed on.

use std::sync::LazyLock;

use super::category::{Category, limited_category};

/// The data categories of Sentry (Relay 26.9, `DataCategory`), and those of older versions.
const CATEGORIES: [&str; 43] = [
    "attachment",
    "attachment_item",
    "client_report",
    "default",
    "error",
    "feedback",
    "installable_build",
    "internal",
    "log_byte",
    "log_item",
    "metric_bucket",
    "metric_second",
    "monitor",
    "monitor_seat",
    "prevent_review",
    "prevent_user",
    "profile",
    "profile_chunk",
    "profile_chunk_ui",
    "profile_duration",
    "profile_duration_ui",
    "profile_indexed",
    "replay",
    "replay_video",
    "security",
    "seer_autofix",
    "seer_scanner",
    "seer_user",
    "session",
    "size_analysis",
    "span",
    "span_indexed",
    "statsd",
    "trace_metric",
    "trace_metric_byte",
    "transaction",
    "transaction_indexed",
    "transaction_processed",
    "unknown",
    "uptime",
    "user_feedback",
    "user_report",
    "user_report_v2",
];

/// The namespaces of metrics (Relay 26.9, `MetricNamespace`), and those of older versions.
const NAMESPACES: [&str; 7] = [
    "custom",
    "profiles",
    "sessions",
    "spans",
    "stats",
    "transactions",
    "unsupported",
];

pub(crate) const CATEGORY_COUNT: usize = CATEGORIES.len();

pub(crate) const NAMESPACE_COUNT: usize = NAMESPACES.len();

/// A list of categories; an empty one stands for all.
pub(crate) type Categories = Names<true>;

/// A list of namespaces; an empty one stands for all.
pub(crate) type Namespaces = Names<false>;

/// A list of distinct names, in the order in which they were added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names<const ARE_CATEGORIES: bool> {
    set: u64,
    order: Vec<u8>,
}

impl<const ARE_CATEGORIES: bool> Names<ARE_CATEGORIES> {
    const LIST: &'static [&'static str] = match ARE_CATEGORIES {
        true => &CATEGORIES,
        false => &NAMESPACES,
    };

    /// Parses names separated by semicolons. `None` if all of them are unknown: they must not stand for all.
    pub fn parse(list: &str) -> Option<Self> {
        let mut names = Names::default();
        let mut has_some = false;
        let named = list.split(';').map(str::trim);
        for name in named.filter(|name| !name.is_empty()) {
            has_some = true;
            if let Some(index) = Self::index(name) {
                names.add(index);
            }
        }
        (!has_some || !names.is_empty()).then_some(names)
    }

    /// The index of a name.
    pub fn index(name: &str) -> Option<usize> {
        Self::LIST.binary_search(&name).ok()
    }

    /// The name of this `index`.
    pub fn name(index: usize) -> &'static str {
        Self::LIST.get(index).copied().unwrap_or_default()
    }

    /// Adds the name of this `index`.
    pub fn add(&mut self, index: usize) {
        if self.set >> index & 1 == 0 {
            self.set |= 1 << index;
            self.order.push(index as u8);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The indices of the names.
    pub fn indices(&self) -> impl Iterator<Item = usize> {
        self.order.iter().map(|index| usize::from(*index))
    }

    pub fn iter(&self) -> impl Iterator<Item = &'static str> {
        self.indices().map(Self::name)
    }

    pub fn join(&self, separator: &str) -> String {
        self.iter().collect::<Vec<_>>().join(separator)
    }
}

/// The index of the category of the items that a limit on the category of this `index` applies to.
pub(crate) fn limited_index(index: usize) -> usize {
    static SUBJECTS: LazyLock<[usize; CATEGORY_COUNT]> = LazyLock::new(|| {
        std::array::from_fn(|index| {
            let name = limited_category(Categories::name(index));
            Categories::index(name).unwrap_or(index)
        })
    });
    SUBJECTS.get(index).copied().unwrap_or(index)
}

/// The index of a category.
pub(crate) fn category_index(category: Category) -> usize {
    static PLACES: LazyLock<[usize; Category::ALL.len()]> = LazyLock::new(|| {
        Category::ALL.map(|category| Categories::index(category.name()).unwrap_or(CATEGORY_COUNT))
    });
    let place = PLACES.get(category as usize).copied();
    place.unwrap_or(CATEGORY_COUNT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_sorted_and_fit_into_64_bits() {
        assert!(CATEGORIES.is_sorted() && CATEGORIES.len() <= 64);
        assert!(NAMESPACES.is_sorted() && NAMESPACES.len() <= 64);
        for category in Category::ALL {
            assert_eq!(Categories::name(category_index(category)), category.name());
        }
        for index in 0..CATEGORY_COUNT {
            let name = Categories::name(index);
            assert_eq!(
                Categories::name(limited_index(index)),
                limited_category(name)
            );
        }
    }

    #[test]
    fn unknown_names_do_not_stand_for_all() {
        let parsed = |list| Categories::parse(list).map(|names| names.join(";"));
        assert_eq!(parsed(""), Some(String::new()));
        assert_eq!(parsed(" ; "), Some(String::new()));
        assert_eq!(parsed("unheard_of"), None);
        assert_eq!(parsed("span; error ;x;span"), Some("span;error".to_owned()));
    }
}
