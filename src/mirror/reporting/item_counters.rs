//! The items of each outbound, by data category and by what became of them.

use std::fmt;
use std::sync::OnceLock;

use crate::sentry::category::Category;
use crate::sentry::quantity::{Quantities, Quantity};
use crate::telemetry::counters::Counter;
use crate::telemetry::label::{Label, labels};

/// The data category of an item; `None` is the word `other`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ItemCategory(pub(crate) Option<Category>);

/// The number of categories.
const CATEGORIES: usize = Category::ALL.len() + 1;

/// The number of outcomes.
const OUTCOMES: usize = ItemOutcome::ALL.len();

impl Label for ItemCategory {
    #[expect(
        clippy::indexing_slicing,
        reason = "evaluated by the compiler, which rejects an index out of range"
    )]
    const ALL: &'static [ItemCategory] = &{
        let mut all = [ItemCategory(None); CATEGORIES];
        let mut index = 0;
        while index < Category::ALL.len() {
            all[index] = ItemCategory(Some(Category::ALL[index]));
            index += 1;
        }
        all
    };

    fn index(self) -> usize {
        self.0
            .map_or(Category::ALL.len(), |category| category as usize)
    }

    fn word(self) -> &'static str {
        self.0.map_or("other", Category::name)
    }

    fn meaning(self) -> &'static str {
        match self.0 {
            None => {
                "Items without a category, of an unknown type, or in a body that is not decoded."
            }
            Some(Category::Attachment) => "Attachments, whatever they are attached to.",
            Some(Category::ClientReport) => "Reports of SDKs about what they did not send.",
            Some(Category::Error) => {
                "Errors and other events, and crash reports that Sentry makes errors of."
            }
            Some(Category::Feedback) => "User feedback, also from the crash-report dialog.",
            Some(Category::LogItem) => "Logs, each of an item by itself; network error reports.",
            Some(Category::MetricBucket) => "Items of metrics in the old formats.",
            Some(Category::Monitor) => "Check-ins of monitors.",
            Some(Category::Profile) => "Profiles of transactions.",
            Some(Category::ProfileChunk) => "Chunks of continuous profiles of servers.",
            Some(Category::ProfileChunkUi) => {
                "Chunks of continuous profiles of browsers and mobile devices."
            }
            Some(Category::Replay) => {
                "Items of replays; a segment has an event and a recording, each of which counts."
            }
            Some(Category::Security) => "Security reports of browsers.",
            Some(Category::Session) => "Items of sessions; one may stand for many sessions.",
            Some(Category::Span) => {
                "Spans, each of an item by itself, but not those in transactions."
            }
            Some(Category::TraceMetric) => "Metrics, each of an item by itself.",
            Some(Category::Transaction) => "Transactions.",
        }
    }
}

labels! {
    /// What became of an item.
    pub(crate) enum ItemOutcome {
        /// The outbound accepted the request that it was in.
        Delivered => "delivered",
        /// Not sent: the outbound has an active rate limit.
        Withheld => "withheld",
        /// Sent, and answered 429: the outbound counts it as rate limited.
        TooManyRequests => "too_many_requests",
        /// Not sent: the outbound does not take its category.
        Filtered => "filtered",
        /// Not sent: it is not in the sample of the outbound.
        Sampled => "sampled",
        /// Not sent: a cap of the outbound on its category is reached.
        Capped => "capped",
        /// Sent, and answered another 4xx.
        Refused => "refused",
        /// Not sent or not accepted for any other reason, such as an outage or an answer of 5xx.
        Lost => "lost",
    }
}

/// The items of one outbound as one worker counted them. The table has 1.1 KiB, and exists once there is an item.
#[derive(Default)]
pub struct ItemCounters(OnceLock<Box<Table>>);

/// Aligned, so that it shares no cache line with the table of another worker.
#[derive(Default)]
#[repr(align(128))]
struct Table([[Counter; OUTCOMES]; CATEGORIES]);

impl ItemCounters {
    pub(crate) fn add(&self, items: &Quantities, outcome: ItemOutcome) {
        let table = self.0.get_or_init(Box::default);
        for Quantity { category, count } in items.iter() {
            let row = table.0.get(ItemCategory(category).index());
            if let Some(counter) = row.and_then(|row| row.get(outcome.index())) {
                counter.add(count.into());
            }
        }
    }
}

/// The items of an outbound at one time, by category and outcome, since its counters began.
///
/// What has been counted in an hour is the difference of two of these: keep one for each outbound, with its counters,
/// and each hour take `now.since(&before)`. [`PerWorker`](crate::telemetry::counters::PerWorker) says by `==` whether
/// two are the counters of the same outbound, also after a reload. Counters of an outbound that a reload has removed
/// or renamed to a name in use begin anew: `since` is then the new value itself. A difference takes 1.1 KiB, or
/// nothing if it is empty; [`ItemTotals::iter`] has only what is not zero.
#[derive(Clone, Default)]
pub(crate) struct ItemTotals(Option<Box<[[u64; OUTCOMES]; CATEGORIES]>>);

impl ItemTotals {
    /// The sums over all workers.
    pub(crate) fn read<'c>(counters: impl Iterator<Item = &'c ItemCounters>) -> ItemTotals {
        let mut totals = ItemTotals::default();
        for table in counters.filter_map(|counters| counters.0.get()) {
            let sums = totals.0.get_or_insert_default();
            for (sums, row) in sums.iter_mut().zip(&table.0) {
                for (sum, counter) in sums.iter_mut().zip(row) {
                    *sum += counter.get();
                }
            }
        }
        totals
    }

    pub(crate) fn get(&self, category: ItemCategory, outcome: ItemOutcome) -> u64 {
        let sums = self.0.as_ref();
        let row = sums.and_then(|sums| sums.get(category.index()));
        row.and_then(|row| row.get(outcome.index()))
            .copied()
            .unwrap_or(0)
    }

    /// The increase since `earlier`.
    pub(crate) fn since(&self, earlier: &ItemTotals) -> ItemTotals {
        let mut increase = self.clone();
        if let (Some(sums), Some(before)) = (&mut increase.0, &earlier.0) {
            for (sums, before) in sums.iter_mut().zip(before.iter()) {
                for (sum, before) in sums.iter_mut().zip(before) {
                    *sum = sum.saturating_sub(*before);
                }
            }
        }
        increase
    }

    /// The categories of which there was an item.
    pub(crate) fn categories(&self) -> impl Iterator<Item = ItemCategory> {
        let categories = ItemCategory::ALL.iter().copied();
        categories.filter(|category| {
            let mut outcomes = ItemOutcome::ALL.iter();
            outcomes.any(|outcome| self.get(*category, *outcome) > 0)
        })
    }

    /// All counts that are not zero.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ItemCategory, ItemOutcome, u64)> {
        let categories = ItemCategory::ALL.iter().copied();
        let counts = categories.flat_map(move |category| {
            let outcomes = ItemOutcome::ALL.iter().copied();
            outcomes.map(move |outcome| (category, outcome, self.get(category, outcome)))
        });
        counts.filter(|(_, _, count)| *count > 0)
    }
}

impl fmt::Debug for ItemTotals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.iter();
        let counts = counts.map(|(category, outcome, count)| {
            format!("{} {} {count}", category.word(), outcome.word())
        });
        f.debug_list().entries(counts).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantities(all: &[(Option<Category>, u32)]) -> Quantities {
        let mut quantities = Quantities::default();
        for (category, count) in all {
            quantities.add(Quantity {
                category: *category,
                count: *count,
            });
        }
        quantities
    }

    #[test]
    fn categories_are_in_the_order_of_their_indices() {
        for (index, category) in ItemCategory::ALL.iter().enumerate() {
            assert_eq!(category.index(), index, "{}", category.word());
        }
        assert_eq!(ItemCategory::ALL.len(), 17);
    }

    #[test]
    fn counts_of_all_workers_add_up_and_have_a_difference() {
        let workers = [ItemCounters::default(), ItemCounters::default()];
        assert_eq!(format!("{:?}", ItemTotals::read(workers.iter())), "[]");
        let one = quantities(&[(Some(Category::Error), 1), (None, 2)]);
        let logs = quantities(&[(Some(Category::LogItem), 100)]);
        workers[0].add(&one, ItemOutcome::Delivered);
        workers[1].add(&one, ItemOutcome::Delivered);
        workers[1].add(&logs, ItemOutcome::Sampled);
        let before = ItemTotals::read(workers.iter());
        let expected = r#"["error delivered 2", "log_item sampled 100", "other delivered 4"]"#;
        assert_eq!(format!("{before:?}"), expected);
        let words: Vec<_> = before.categories().map(Label::word).collect();
        assert_eq!(words, ["error", "log_item", "other"]);
        workers[0].add(&logs, ItemOutcome::Lost);
        let since = ItemTotals::read(workers.iter()).since(&before);
        assert_eq!(format!("{since:?}"), r#"["log_item lost 100"]"#);
        let all = before.since(&ItemTotals::default());
        assert_eq!(format!("{all:?}"), expected);
    }

    #[test]
    fn a_table_is_on_cache_lines_of_its_own() {
        assert_eq!(align_of::<Table>(), 128);
        assert_eq!(size_of::<Table>() % 128, 0);
        assert!(size_of::<Table>() <= 1152);
    }
}
