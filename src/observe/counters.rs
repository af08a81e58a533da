//! Numbers that one worker writes and anybody may read.
//!
//! Only the worker writes its own, so nothing is shared on the hot path and a plain load and store do
//! for an addition; whoever wants totals adds up those of all workers. Labels come from closed sets of
//! our own words, never from request bytes. A build with `--cfg uncounted` counts nothing, so that what
//! counting costs can be measured; it is of no other use.

use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::label::Label;

/// A number that only grows.
#[derive(Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds one.
    pub fn count(&self) {
        self.add(1);
    }

    /// Adds `more`.
    pub fn add(&self, more: u64) {
        if cfg!(uncounted) {
            return;
        }
        // One writer per counter: a load and a store are enough, and cheaper than an addition
        // that is atomic.
        let sum = self.0.load(Ordering::Relaxed).wrapping_add(more);
        self.0.store(sum, Ordering::Relaxed);
    }

    /// Adds a number of bytes.
    pub fn add_bytes(&self, bytes: usize) {
        self.add(bytes as u64);
    }

    /// The number so far.
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A state as its owner has published it last.
#[derive(Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Publishes a number.
    pub fn set(&self, number: usize) {
        self.0.store(number as u64, Ordering::Relaxed);
    }

    /// The number published last.
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The labels of the largest set.
const LABELS_MAX: usize = 32;

/// One number per label of a closed set. They lie in it and not behind a pointer, so that they are on
/// the cache lines of whoever holds it.
pub struct Tally<L> {
    counts: [Count; LABELS_MAX],
    labels: PhantomData<L>,
}

impl<L: Label> Tally<L> {
    const FITS: () = assert!(L::ALL.len() <= LABELS_MAX, "LABELS_MAX is too small");

    /// Adds one to `label`.
    pub fn count(&self, label: L) {
        self.add(label, 1);
    }

    /// Adds `more` to `label`.
    pub fn add(&self, label: L, more: u64) {
        if let Some(count) = self.counts.get(label.index()) {
            count.add(more);
        }
    }

    /// The number of `label` so far.
    pub fn of(&self, label: L) -> u64 {
        self.counts.get(label.index()).map_or(0, Count::read)
    }

    /// The sum over all labels.
    pub fn sum(&self) -> u64 {
        self.counts.iter().map(Count::read).sum()
    }
}

impl<L: Label> Default for Tally<L> {
    fn default() -> Tally<L> {
        // A set that is too large does not compile.
        let () = Tally::<L>::FITS;
        Tally {
            counts: [const { Count(AtomicU64::new(0)) }; LABELS_MAX],
            labels: PhantomData,
        }
    }
}

/// What some tallies said together at one time.
#[derive(Clone)]
pub(crate) struct Tallied<L> {
    counts: [u64; LABELS_MAX],
    labels: PhantomData<L>,
}

impl<L: Label> Tallied<L> {
    /// The sum of `tallies`.
    pub(crate) fn of_all<'t>(tallies: impl Iterator<Item = &'t Tally<L>>) -> Tallied<L>
    where
        L: 't,
    {
        let mut total = Tallied::default();
        for tally in tallies {
            for (sum, count) in total.counts.iter_mut().zip(&tally.counts) {
                *sum += count.read();
            }
        }
        total
    }

    /// The number of `label`.
    pub(crate) fn of(&self, label: L) -> u64 {
        self.counts.get(label.index()).copied().unwrap_or(0)
    }

    /// The sum over all labels.
    pub(crate) fn sum(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// What came since `earlier`.
    pub(crate) fn since(&self, earlier: &Tallied<L>) -> Tallied<L> {
        let mut rest = self.clone();
        for (count, known) in rest.counts.iter_mut().zip(earlier.counts) {
            *count = count.saturating_sub(known);
        }
        rest
    }
}

impl<L> Default for Tallied<L> {
    fn default() -> Tallied<L> {
        Tallied {
            counts: [0; LABELS_MAX],
            labels: PhantomData,
        }
    }
}

/// One `T` for each worker, who alone writes it. Copies are the same numbers, so that what stays in
/// a reload keeps counting where it was; two are equal if they are the same numbers, whatever those
/// say.
pub struct PerWorker<T>(Arc<[Line<T>]>);

/// Cache lines of its own, two of them since they are fetched in pairs: workers must not slow each
/// other down by counting.
#[repr(align(128))]
#[derive(Default)]
struct Line<T>(T);

impl<T: Default> PerWorker<T> {
    /// All zero, for `workers` of them.
    pub fn new(workers: usize) -> PerWorker<T> {
        PerWorker((0..workers.max(1)).map(|_| Line::default()).collect())
    }
}

impl<T> PerWorker<T> {
    /// The part of a worker, whose number is below that given to [`PerWorker::new`].
    #[expect(
        clippy::indexing_slicing,
        reason = "the number of workers is fixed when the process starts, no input can change it"
    )]
    pub fn of(&self, worker: usize) -> &T {
        &self.0[worker].0
    }

    /// The parts of all workers.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|line| &line.0)
    }

    /// The sum of what `read` finds in the part of each worker.
    pub fn sum(&self, read: impl Fn(&T) -> u64) -> u64 {
        self.iter().map(read).sum()
    }
}

impl<T> Clone for PerWorker<T> {
    fn clone(&self) -> PerWorker<T> {
        PerWorker(Arc::clone(&self.0))
    }
}

impl<T> PartialEq for PerWorker<T> {
    fn eq(&self, other: &PerWorker<T>) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Eq for PerWorker<T> {}

impl<T> Hash for PerWorker<T> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        Arc::as_ptr(&self.0).cast::<()>().hash(hasher);
    }
}

#[cfg(test)]
mod tests {
    use super::super::label::labels;
    use super::*;

    labels! {
        /// For the test.
        enum Side {
            /// One.
            Left => "left",
            /// The other.
            Right => "right",
        }
    }

    #[test]
    fn what_each_worker_counts_adds_up() {
        let tallies: PerWorker<Tally<Side>> = PerWorker::new(2);
        let copy = tallies.clone();
        tallies.of(0).count(Side::Left);
        tallies.of(1).count(Side::Left);
        copy.of(1).count(Side::Right);
        assert_eq!(tallies.sum(|tally| tally.of(Side::Left)), 2);
        assert_eq!(tallies.sum(|tally| tally.of(Side::Right)), 1);
        assert_eq!(tallies.of(1).sum(), 2);
        let earlier = Tallied::of_all(tallies.iter());
        assert_eq!((earlier.of(Side::Left), earlier.sum()), (2, 3));
        tallies.of(0).count(Side::Right);
        let since = Tallied::of_all(tallies.iter()).since(&earlier);
        assert_eq!((since.of(Side::Left), since.of(Side::Right)), (0, 1));
    }

    #[test]
    fn equal_are_the_same_numbers_only() {
        let tallies: PerWorker<Tally<Side>> = PerWorker::new(2);
        assert!(tallies == tallies.clone());
        assert!(tallies != PerWorker::new(2));
    }

    #[test]
    fn workers_have_cache_lines_of_their_own() {
        let tallies: PerWorker<Tally<Side>> = PerWorker::new(2);
        let place = |worker| {
            let counts = &tallies.of(worker).counts;
            let first = std::ptr::from_ref(counts) as usize;
            first..first + size_of_val(counts)
        };
        assert_eq!(place(0).start % 128, 0);
        assert_eq!(place(1).start % 128, 0);
        assert!(place(0).end <= place(1).start);
    }
}
