//! Shares the memory budget of the process out to its workers.
//!
//! A worker leases memory in steps, and reserves from what it holds without looking at the others. So the load may
//! be as uneven as it likes: a single busy worker can lease nearly everything. A small floor of each worker stays
//! its own, so that the busy ones never take all from one that was idle.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The part of the whole that the floors of all workers have together.
const FLOORS_DIVISOR: usize = 16;

/// The part of the whole that one step of each worker would have together, and the largest step.
const STEPS_DIVISOR: usize = 32;
const STEP_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The memory budget of the process.
pub struct SharedMemory {
    workers: usize,
    limit: AtomicUsize,
    leased: Leased,
}

/// Cache lines of its own: whenever it changes, readers of what stands beside it would wait.
#[derive(Default)]
#[repr(align(128))]
struct Leased(AtomicUsize);

impl SharedMemory {
    /// A budget of `limit` bytes for this many workers.
    pub fn new(limit: usize, workers: usize) -> Arc<SharedMemory> {
        Arc::new(SharedMemory {
            workers: workers.max(1),
            limit: AtomicUsize::new(limit),
            leased: Leased::default(),
        })
    }

    fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Leases `bytes` if the limit allows that.
    fn try_lease(&self, bytes: usize) -> bool {
        let (ok, other) = (Ordering::Relaxed, Ordering::Relaxed);
        let more = |leased: usize| {
            let leased = leased.checked_add(bytes)?;
            (leased <= self.limit()).then_some(leased)
        };
        self.leased.0.fetch_update(ok, other, more).is_ok()
    }
}

/// What one worker holds of the [`SharedMemory`], until it is dropped.
pub(super) struct MemoryLease {
    shared: Arc<SharedMemory>,
    held: Cell<usize>,
    /// What is held in any case, and the size of a step. Both follow from the limit.
    floor: Cell<usize>,
    step: Cell<usize>,
}

impl MemoryLease {
    pub(super) fn new(shared: Arc<SharedMemory>) -> MemoryLease {
        let lease = MemoryLease {
            held: Cell::new(0),
            floor: Cell::new(0),
            step: Cell::new(1),
            shared,
        };
        lease.adapt();
        lease
    }

    pub(super) fn workers(&self) -> usize {
        self.shared.workers
    }

    /// Changes the limit of the process. All workers set the same one.
    pub(super) fn set_limit(&self, limit: usize) {
        self.shared.limit.store(limit, Ordering::Relaxed);
        self.adapt();
    }

    /// Makes sure that `bytes` are held. Returns `false` if the others have too much for that.
    #[inline]
    pub(super) fn hold(&self, bytes: usize) -> bool {
        bytes <= self.held.get() || self.lease(bytes)
    }

    #[cold]
    fn lease(&self, bytes: usize) -> bool {
        let held = self.held.get();
        let missing = bytes - held;
        let whole_steps = missing.checked_next_multiple_of(self.step.get());
        let sizes = [whole_steps.unwrap_or(missing), missing];
        let leased = sizes.into_iter().find(|size| self.shared.try_lease(*size));
        if let Some(leased) = leased {
            self.held.set(held + leased);
        }
        leased.is_some()
    }

    /// Gives back what is held beyond `used`, a step and the floor, once that is more than a step: so what is
    /// reserved and released in turn leases nothing.
    #[inline]
    pub(super) fn keep(&self, used: usize) {
        let step = self.step.get();
        if self.held.get() > used.max(self.floor.get()).saturating_add(2 * step) {
            self.shrink(used.saturating_add(step));
        }
    }

    /// Gives back what is held beyond `used` and the floor.
    pub(super) fn shrink(&self, used: usize) {
        let held = self.held.get();
        let kept = used.max(self.floor.get());
        if kept < held {
            self.shared
                .leased
                .0
                .fetch_sub(held - kept, Ordering::Relaxed);
            self.held.set(kept);
        }
    }

    /// Whether half of the budget of the process would be free if this worker used `used` bytes. What the others
    /// hold counts as used.
    pub(super) fn is_half_free(&self, used: usize) -> bool {
        let leased = self.shared.leased.0.load(Ordering::Relaxed);
        let others = leased.saturating_sub(self.held.get());
        others.saturating_add(used) <= self.shared.limit() / 2
    }

    /// Adapts to the limit. Leases the floor without asking: the others may hold everything when the limit grows.
    fn adapt(&self) {
        let (limit, workers) = (self.shared.limit(), self.shared.workers);
        let step = limit / STEPS_DIVISOR / workers;
        self.step.set(step.clamp(1, STEP_BYTES_MAX));
        // A single worker has nobody to share with.
        let floor = match workers {
            1 => 0,
            _ => limit / FLOORS_DIVISOR / workers,
        };
        self.floor.set(floor);
        let missing = floor.saturating_sub(self.held.get());
        self.shared.leased.0.fetch_add(missing, Ordering::Relaxed);
        self.held.set(self.held.get() + missing);
    }
}

impl Drop for MemoryLease {
    fn drop(&mut self) {
        let held = self.held.get();
        self.shared.leased.0.fetch_sub(held, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    const MIB: usize = 1024 * 1024;

    fn workers(limit: usize, count: usize) -> Vec<MemoryLease> {
        let shared = SharedMemory::new(limit, count);
        let lease = || MemoryLease::new(Arc::clone(&shared));
        (0..count).map(|_| lease()).collect()
    }

    fn leased(workers: &[MemoryLease]) -> usize {
        workers[0].shared.leased.0.load(Ordering::Relaxed)
    }

    #[test]
    fn a_single_busy_worker_can_hold_nearly_everything() {
        for count in [1, 2, 16, 64] {
            let limit = 1024 * MIB;
            let workers = workers(limit, count);
            let mut held = 0;
            while workers[0].hold(held + 8192) {
                held += 8192;
            }
            assert!(held > limit / 16 * 15 - 8192, "{count}: {held}");
            assert!(held <= limit, "{count}: {held}");
            // Each of the others still has its floor, and can get what comes back.
            for other in &workers[1..] {
                assert!(other.hold(limit / 16 / count));
                assert!(!other.hold(limit / 8));
            }
            workers[0].keep(held / 2);
            for other in &workers[1..] {
                assert!(other.hold(limit / 4));
                other.shrink(0);
            }
        }
    }

    #[test]
    fn workers_that_were_busy_keep_little() {
        let workers = workers(1024 * MIB, 64);
        for worker in &workers {
            assert!(worker.hold(200 * MIB));
            worker.keep(0);
        }
        let kept = leased(&workers);
        assert!(kept <= 1024 * MIB / 8, "{kept}");
        workers.iter().for_each(|worker| worker.shrink(0));
        assert_eq!(leased(&workers), 64 * MIB);
        let first = &workers[0];
        assert!(first.hold(900 * MIB));
    }

    #[test]
    fn a_load_that_goes_up_and_down_within_a_step_leases_nothing() {
        let workers = workers(1024 * MIB, 4);
        let worker = &workers[0];
        assert!(worker.hold(100 * MIB));
        let before = leased(&workers);
        for used in [93, 99, 95, 100, 96] {
            worker.keep(used * MIB);
            assert!(worker.hold(used * MIB));
            assert_eq!(leased(&workers), before);
        }
    }

    #[test]
    fn a_smaller_limit_refuses_more_and_a_larger_one_allows_it() {
        let workers = workers(64 * MIB, 2);
        assert!(workers[0].hold(50 * MIB));
        workers.iter().for_each(|worker| worker.set_limit(32 * MIB));
        assert!(workers[0].hold(50 * MIB));
        assert!(!workers[0].hold(60 * MIB) && !workers[1].hold(8 * MIB));
        workers[0].shrink(0);
        assert!(workers[1].hold(8 * MIB));
        workers.iter().for_each(|w| w.set_limit(1024 * MIB));
        assert!(workers[0].hold(900 * MIB));
    }

    #[test]
    fn threads_never_hold_more_than_the_limit_together() {
        let leases = workers(MIB, 4);
        let shared = Arc::clone(&leases[0].shared);
        let run = |seed: usize, lease: MemoryLease| {
            let mut used = 0;
            for round in 0..20_000 {
                let wanted = (round * 7919 * (seed + 1)) % (MIB / 2);
                if lease.hold(wanted) {
                    used = wanted;
                }
                lease.keep(used);
                assert!(lease.held.get() >= used);
                assert!(lease.shared.leased.0.load(Ordering::Relaxed) <= MIB);
            }
        };
        thread::scope(|scope| {
            for (seed, lease) in leases.into_iter().enumerate() {
                scope.spawn(move || run(seed, lease));
            }
        });
        assert_eq!(shared.leased.0.load(Ordering::Relaxed), 0);
    }

    proptest! {
        #[test]
        fn what_workers_hold_is_what_is_leased_and_within_the_limit(
            steps in proptest::collection::vec((0..3_usize, 0..2_000_000_usize), 1..200),
        ) {
            let workers = workers(MIB, 3);
            let mut used = [0; 3];
            for (index, bytes) in steps {
                let worker = &workers[index];
                if worker.hold(bytes) {
                    used[index] = bytes;
                }
                worker.keep(used[index]);
                let held: usize = workers.iter().map(|worker| worker.held.get()).sum();
                prop_assert_eq!(held, leased(&workers));
                prop_assert!(held <= MIB);
                prop_assert!(worker.held.get() >= used[index]);
            }
        }
    }
}
