//! Counters and gauges that one worker writes and any thread may read.
//!
//! Each worker writes only its own, so the hot path shares no cache line and an addition is a plain load
//! and store; readers add up the values of all workers. Labels come from closed sets in the code, never
//! from request bytes.

use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::label::Label;

/// A value that only increases.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn inc(&self) {
        self.add(1);
    }

    pub fn add(&self, more: u64) {
        // There is one writer, so a load and a store suffice. They are cheaper than `fetch_add`.
        let sum = self.0.load(Ordering::Relaxed).wrapping_add(more);
        self.0.store(sum, Ordering::Relaxed);
    }

    pub fn add_bytes(&self, bytes: usize) {
        self.add(bytes as u64);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets it to zero. Returns what it was. Only for its writer.
    pub fn take(&self) -> u64 {
        let sum = self.get();
        self.0.store(0, Ordering::Relaxed);
        sum
    }
}

/// A value that can go up and down, as its worker last published it.
#[derive(Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    pub fn set(&self, number: usize) {
        self.0.store(number as u64, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The size of the largest set of labels.
const LABELS_MAX: usize = 32;

/// One counter for each label of a closed set. They are stored inline, so that they are on the cache
/// lines of the struct that contains them.
pub struct CounterVec<L> {
    counts: [Counter; LABELS_MAX],
    labels: PhantomData<L>,
}

impl<L: Label> CounterVec<L> {
    const FITS: () = assert!(L::ALL.len() <= LABELS_MAX, "LABELS_MAX is too small");

    pub fn inc(&self, label: L) {
        self.add(label, 1);
    }

    pub fn add(&self, label: L, more: u64) {
        if let Some(count) = self.counts.get(label.index()) {
            count.add(more);
        }
    }

    pub fn get(&self, label: L) -> u64 {
        self.counts.get(label.index()).map_or(0, Counter::get)
    }

    /// The sum over all labels.
    pub fn total(&self) -> u64 {
        self.counts.iter().map(Counter::get).sum()
    }
}

impl<L: Label> Default for CounterVec<L> {
    fn default() -> CounterVec<L> {
        // Fails to compile if the set is too large.
        let () = CounterVec::<L>::FITS;
        CounterVec {
            counts: [const { Counter(AtomicU64::new(0)) }; LABELS_MAX],
            labels: PhantomData,
        }
    }
}

/// The sums of some [`CounterVec`]s at one time.
#[derive(Clone)]
pub(crate) struct CounterVecSnapshot<L> {
    counts: [u64; LABELS_MAX],
    labels: PhantomData<L>,
}

impl<L: Label> CounterVecSnapshot<L> {
    pub(crate) fn from_counters<'t>(
        vectors: impl Iterator<Item = &'t CounterVec<L>>,
    ) -> CounterVecSnapshot<L>
    where
        L: 't,
    {
        let mut total = CounterVecSnapshot::default();
        for vector in vectors {
            for (sum, count) in total.counts.iter_mut().zip(&vector.counts) {
                *sum += count.get();
            }
        }
        total
    }

    pub(crate) fn from_fn(count: impl Fn(L) -> u64) -> CounterVecSnapshot<L> {
        let mut total = CounterVecSnapshot::default();
        for label in L::ALL {
            if let Some(sum) = total.counts.get_mut(label.index()) {
                *sum = count(*label);
            }
        }
        total
    }

    pub(crate) fn get(&self, label: L) -> u64 {
        self.counts.get(label.index()).copied().unwrap_or(0)
    }

    /// The sum over all labels.
    pub(crate) fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The increase since `earlier`.
    pub(crate) fn since(&self, earlier: &CounterVecSnapshot<L>) -> CounterVecSnapshot<L> {
        let mut increase = self.clone();
        for (count, before) in increase.counts.iter_mut().zip(earlier.counts) {
            *count = count.saturating_sub(before);
        }
        increase
    }
}

impl<L> Default for CounterVecSnapshot<L> {
    fn default() -> CounterVecSnapshot<L> {
        CounterVecSnapshot {
            counts: [0; LABELS_MAX],
            labels: PhantomData,
        }
    }
}

/// One `T` for each worker, which alone writes it. Clones share the values, so that a route or outbound
/// that survives a reload continues its counters. Equality is identity: two are equal if they share
/// their values.
pub struct PerWorker<T>(Arc<[CacheLines<T>]>);

/// Avoids false sharing between workers. The alignment is two cache lines, because the CPU fetches them
/// in pairs.
#[repr(align(128))]
#[derive(Default)]
struct CacheLines<T>(T);

impl<T: Default> PerWorker<T> {
    pub fn new(workers: usize) -> PerWorker<T> {
        PerWorker((0..workers.max(1)).map(|_| CacheLines::default()).collect())
    }
}

impl<T> PerWorker<T> {
    /// The values of one worker. `worker` must be less than the number given to [`PerWorker::new`].
    #[expect(
        clippy::indexing_slicing,
        reason = "the number of workers is fixed when the process starts, no input can change it"
    )]
    pub fn for_worker(&self, worker: usize) -> &T {
        &self.0[worker].0
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|line| &line.0)
    }

    /// The sum of what `read` returns for each worker.
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
        enum Side {
            Left => "left",
            Right => "right",
        }
    }

    #[test]
    fn counts_of_all_workers_add_up() {
        let counters: PerWorker<CounterVec<Side>> = PerWorker::new(2);
        let copy = counters.clone();
        counters.for_worker(0).inc(Side::Left);
        counters.for_worker(1).inc(Side::Left);
        copy.for_worker(1).inc(Side::Right);
        assert_eq!(counters.sum(|vector| vector.get(Side::Left)), 2);
        assert_eq!(counters.sum(|vector| vector.get(Side::Right)), 1);
        assert_eq!(counters.for_worker(1).total(), 2);
        let earlier = CounterVecSnapshot::from_counters(counters.iter());
        assert_eq!((earlier.get(Side::Left), earlier.total()), (2, 3));
        counters.for_worker(0).inc(Side::Right);
        let since = CounterVecSnapshot::from_counters(counters.iter()).since(&earlier);
        assert_eq!((since.get(Side::Left), since.get(Side::Right)), (0, 1));
    }

    #[test]
    fn equality_is_identity() {
        let counters: PerWorker<CounterVec<Side>> = PerWorker::new(2);
        assert!(counters == counters.clone());
        assert!(counters != PerWorker::new(2));
    }

    #[test]
    fn workers_do_not_share_cache_lines() {
        let counters: PerWorker<CounterVec<Side>> = PerWorker::new(2);
        let addresses = |worker| {
            let counts = &counters.for_worker(worker).counts;
            let first = std::ptr::from_ref(counts) as usize;
            first..first + size_of_val(counts)
        };
        assert_eq!(addresses(0).start % 128, 0);
        assert_eq!(addresses(1).start % 128, 0);
        assert!(addresses(0).end <= addresses(1).start);
    }
}
