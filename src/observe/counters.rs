//! Counters of one worker.
//!
//! Only the worker writes its own, so nothing is shared on the hot path; whoever wants totals adds up
//! those of all workers. Labels come from closed sets of our own words, never from request bytes.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// What one worker has counted since its start.
pub struct Counters {
    /// Connections accepted.
    pub connections: Count,
    /// Requests whose head was complete, health checks and preflights included.
    pub requests: Count,
    /// Requests refused, by reason.
    pub rejections: Tally,
    /// Deliveries ended, by outcome.
    pub deliveries: Tally,
    /// Items of envelopes left out of deliveries, by reason.
    pub items: Tally,
    /// Requests or connections that ended in a panic.
    pub panics: Count,
}

impl Counters {
    /// All zero, with the sets of labels that rejections, deliveries and items left out can have.
    pub fn new(
        rejections: impl Iterator<Item = &'static str>,
        deliveries: impl Iterator<Item = &'static str>,
        items: impl Iterator<Item = &'static str>,
    ) -> Counters {
        Counters {
            connections: Count::default(),
            requests: Count::default(),
            rejections: Tally::new(rejections),
            deliveries: Tally::new(deliveries),
            items: Tally::new(items),
            panics: Count::default(),
        }
    }
}

/// A number that only grows.
#[derive(Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds one.
    pub fn count(&self) {
        // One writer per counter: a load and a store are enough, and cheaper than an addition
        // that is atomic.
        self.0
            .store(self.0.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// The number so far.
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One number per label of a closed set.
pub struct Tally {
    counts: Vec<(&'static str, Count)>,
}

impl Tally {
    fn new(labels: impl Iterator<Item = &'static str>) -> Tally {
        Tally {
            counts: labels.map(|label| (label, Count::default())).collect(),
        }
    }

    /// Adds one to `label`.
    pub fn count(&self, label: &'static str) {
        let found = self.counts.iter().find(|(known, _)| *known == label);
        debug_assert!(found.is_some(), "{label} is not in the set");
        if let Some((_, count)) = found {
            count.count();
        }
    }

    /// Every label with its number.
    pub fn read(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.counts
            .iter()
            .map(|(label, count)| (*label, count.read()))
    }
}

/// The totals over all workers, for the log line at the end of the process.
pub struct Totals<'c>(pub &'c [std::sync::Arc<Counters>]);

impl fmt::Display for Totals<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = |count: fn(&Counters) -> &Count| -> u64 {
            self.0.iter().map(|counters| count(counters).read()).sum()
        };
        write!(f, "connections {}", sum(|counters| &counters.connections))?;
        write!(f, ", requests {}", sum(|counters| &counters.requests))?;
        self.write_tally(f, "rejected", |counters| &counters.rejections)?;
        self.write_tally(f, "delivered", |counters| &counters.deliveries)?;
        self.write_tally(f, "items", |counters| &counters.items)?;
        write!(f, ", panics {}", sum(|counters| &counters.panics))
    }
}

impl Totals<'_> {
    fn write_tally(
        &self,
        f: &mut fmt::Formatter<'_>,
        name: &str,
        tally: fn(&Counters) -> &Tally,
    ) -> fmt::Result {
        let Some(first) = self.0.first() else {
            return Ok(());
        };
        for (index, (label, _)) in tally(first).counts.iter().enumerate() {
            let counts = self.0.iter().filter_map(|counters| {
                let (_, count) = tally(counters).counts.get(index)?;
                Some(count.read())
            });
            let total: u64 = counts.sum();
            if total > 0 {
                write!(f, ", {name} {label} {total}")?;
            }
        }
        Ok(())
    }
}
