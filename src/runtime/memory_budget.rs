//! The memory budget of a worker: how many bytes its requests may hold at a time.
//!
//! Workers share the budget of the process: the whole of a worker is what it can lease of that
//! ([`memory_lease`](crate::runtime::memory_lease)).
//!
//! Memory is reserved before bytes are read or made, for as long as anything uses them: the body of a
//! request, its decoded form and the decoder, the bytes rendered for each outbound, and the responses, in the
//! background, too. So the worst case of the process is one number of the configuration, whatever clients
//! send and however slow upstreams are. Beside that, a connection holds a small amount, bounded by the
//! number of connections.
//!
//! No origin takes the memory that others need. Each origin has a part of the budget, and so do the
//! requests without a known key. A reservation in a part counts in the whole budget as well. A part that has used
//! up its share gets more only if half of the whole budget stays free. The bodies that the deliveries of an
//! origin keep alive count in its part, too, but not again in the whole budget, where their requests count them.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use crate::runtime::memory_lease::{MemoryLease, SharedMemory};
use crate::runtime::resident_memory::ReservedMemory;

/// The memory budget of a worker, or a part of it.
pub struct MemoryBudget {
    used: Cell<usize>,
    kind: Kind,
}

enum Kind {
    Whole {
        lease: MemoryLease,
        reserved: ReservedMemory,
    },
    Part {
        whole: Rc<MemoryBudget>,
        /// Beyond it, the part gets memory only if half of the whole budget stays free.
        share: Cell<usize>,
    },
}

impl MemoryBudget {
    /// The budget of the only worker of a process.
    pub fn new(limit: usize) -> Rc<MemoryBudget> {
        MemoryBudget::of_worker(SharedMemory::new(limit, 1))
    }

    /// The budget of one of the workers that `shared` is for.
    pub fn of_worker(shared: Arc<SharedMemory>) -> Rc<MemoryBudget> {
        Rc::new(MemoryBudget {
            used: Cell::new(0),
            kind: Kind::Whole {
                lease: MemoryLease::new(shared),
                reserved: ReservedMemory::new(),
            },
        })
    }

    /// A part with a share of `limit` bytes.
    pub fn part(self: &Rc<MemoryBudget>, limit: usize) -> Rc<MemoryBudget> {
        Rc::new(MemoryBudget {
            used: Cell::new(0),
            kind: Kind::Part {
                whole: Rc::clone(self),
                share: Cell::new(limit),
            },
        })
    }

    /// Changes the share of a part, or the limit of the process. Existing reservations stay.
    pub fn set_limit(&self, limit: usize) {
        match &self.kind {
            Kind::Whole { lease, .. } => lease.set_limit(limit),
            Kind::Part { share, .. } => share.set(limit),
        }
    }

    /// The number of workers that share the budget of the process.
    pub fn workers(&self) -> usize {
        match &self.kind {
            Kind::Whole { lease, .. } => lease.workers(),
            Kind::Part { whole, .. } => whole.workers(),
        }
    }

    /// Returns what is leased without need to the other workers, and freed memory to the system if the process has
    /// much more than is reserved. The worker calls it once a second.
    pub fn return_freed_memory(&self) {
        match &self.kind {
            Kind::Whole { lease, reserved } => {
                lease.shrink(self.used.get());
                reserved.check(self.used.get());
            }
            Kind::Part { whole, .. } => whole.return_freed_memory(),
        }
    }

    pub fn used(&self) -> usize {
        self.used.get()
    }

    pub fn reservation(self: &Rc<MemoryBudget>) -> MemoryReservation {
        MemoryReservation {
            budget: Rc::clone(self),
            bytes: 0,
        }
    }

    /// Admits a delivery that takes `own` bytes and keeps alive `kept` bytes, which the whole budget counts
    /// already. `None` if no memory is left, or the share is used up.
    pub fn admit(self: &Rc<MemoryBudget>, own: usize, kept: usize) -> Option<Admission> {
        if !self.can_reserve(own) {
            return None;
        }
        self.add(own);
        self.used.set(self.used.get().saturating_add(kept));
        Some(Admission {
            budget: Rc::clone(self),
            own,
            kept,
        })
    }

    /// Whether `bytes` more can be reserved. If so, they are leased. A reservation may exceed the share of its
    /// part, because the largest body is larger than the share of a small budget.
    fn can_reserve(&self, bytes: usize) -> bool {
        match &self.kind {
            Kind::Whole { lease, .. } => {
                let total = self.used.get().checked_add(bytes);
                total.is_some_and(|total| lease.hold(total))
            }
            Kind::Part { whole, share } => {
                let has_share_left = self.used.get() < share.get();
                (has_share_left || whole.is_half_free(bytes)) && whole.can_reserve(bytes)
            }
        }
    }

    /// Whether half of the budget of the process would still be free with `bytes` more.
    fn is_half_free(&self, bytes: usize) -> bool {
        match &self.kind {
            Kind::Whole { lease, .. } => lease.is_half_free(self.used.get().saturating_add(bytes)),
            Kind::Part { whole, .. } => whole.is_half_free(bytes),
        }
    }

    fn add(&self, bytes: usize) {
        self.used.set(self.used.get() + bytes);
        match &self.kind {
            Kind::Whole { reserved, .. } => reserved.change(bytes, self.used.get()),
            Kind::Part { whole, .. } => whole.add(bytes),
        }
    }

    fn release(&self, bytes: usize) {
        self.used.set(self.used.get() - bytes);
        match &self.kind {
            Kind::Whole { lease, reserved } => {
                lease.keep(self.used.get());
                reserved.change(bytes, self.used.get());
            }
            Kind::Part { whole, .. } => whole.release(bytes),
        }
    }
}

/// Bytes of a [`MemoryBudget`] that are released on drop.
pub struct MemoryReservation {
    budget: Rc<MemoryBudget>,
    bytes: usize,
}

impl MemoryReservation {
    /// Resizes it to `bytes`. Returns `false`, without a change, if the budget does not allow that.
    #[must_use]
    pub fn resize(&mut self, bytes: usize) -> bool {
        if !self.can_resize(bytes) {
            return false;
        }
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.budget.add(more),
            None => self.budget.release(self.bytes - bytes),
        }
        self.bytes = bytes;
        true
    }

    /// Grows it by `bytes`. Returns `false`, without a change, if the budget does not allow that.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        self.resize(self.bytes.saturating_add(bytes))
    }

    pub fn shrink(&mut self, bytes: usize) {
        // A smaller size is always allowed.
        let _ = self.resize(self.bytes.saturating_sub(bytes));
    }

    pub fn can_resize(&self, bytes: usize) -> bool {
        match bytes.checked_sub(self.bytes) {
            None | Some(0) => true,
            Some(more) => self.budget.can_reserve(more),
        }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// An empty reservation of the same budget.
    pub fn empty_sibling(&self) -> MemoryReservation {
        self.budget.reservation()
    }

    /// Moves it from a part to the whole budget, which counts these bytes already.
    pub fn join_whole(&mut self) {
        if let Kind::Part { whole, .. } = &self.budget.kind {
            let whole = Rc::clone(whole);
            self.budget.used.set(self.budget.used.get() - self.bytes);
            self.budget = whole;
        }
    }
}

impl Drop for MemoryReservation {
    fn drop(&mut self) {
        self.budget.release(self.bytes);
    }
}

/// What a delivery in flight takes of the share of its origin, until it is dropped.
pub struct Admission {
    budget: Rc<MemoryBudget>,
    own: usize,
    kept: usize,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.budget.release(self.own);
        self.budget.used.set(self.budget.used.get() - self.kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_never_exceed_the_limit_together_and_are_released_on_drop() {
        let budget = MemoryBudget::new(100);
        let mut one = budget.reservation();
        let mut other = one.empty_sibling();
        assert!(one.resize(60));
        assert!(!other.resize(41));
        assert_eq!(other.bytes(), 0);
        assert!(other.resize(40));
        assert!(!one.resize(usize::MAX));
        assert!(!one.grow(usize::MAX));
        one.shrink(50);
        assert!(other.grow(50));
        assert!(!other.grow(1));
        drop(one);
        assert!(other.resize(100));
        assert_eq!(budget.used(), 100);
        other.shrink(101);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_reservation_in_a_part_counts_in_the_whole_budget() {
        let budget = MemoryBudget::new(100);
        let part = budget.part(25);
        let mut of_part = part.reservation();
        assert!(of_part.resize(40));
        assert_eq!((part.used(), budget.used()), (40, 40));
        let mut other = budget.reservation();
        assert!(!other.resize(61));
        assert!(other.resize(60));
        of_part.shrink(10);
        assert_eq!((part.used(), budget.used()), (30, 90));
        drop(of_part);
        assert_eq!((part.used(), budget.used()), (0, 60));
    }

    #[test]
    fn a_part_gets_more_than_its_share_only_while_half_of_the_budget_is_free() {
        let budget = MemoryBudget::new(100);
        let (one, other) = (budget.part(25), budget.part(25));
        let mut of_one = one.reservation();
        assert!(of_one.resize(50));
        assert!(!of_one.can_resize(51) && !of_one.resize(51));
        // It limits neither another part nor the whole.
        let mut of_other = other.reservation();
        assert!(of_other.resize(24));
        let mut of_whole = budget.reservation();
        assert!(of_whole.resize(1));
        // The other part still gets its share, and a reservation may exceed that.
        assert!(of_other.resize(49));
        assert!(!of_other.grow(1));
        assert!(of_other.resize(20));
        drop(of_one);
        assert!(of_whole.resize(45));
        assert!(of_other.resize(26));
        assert!(!of_other.grow(1));
    }

    #[test]
    fn a_reservation_that_joins_the_whole_budget_frees_its_part() {
        let budget = MemoryBudget::new(100);
        let part = budget.part(12);
        let mut reservation = part.reservation();
        assert!(reservation.resize(30));
        reservation.join_whole();
        reservation.join_whole();
        assert_eq!((part.used(), budget.used()), (0, 30));
        assert!(reservation.resize(100));
        drop(reservation);
        assert_eq!((part.used(), budget.used()), (0, 0));
    }

    #[test]
    fn a_busy_worker_gets_what_others_do_not_use_and_the_rule_of_halves_is_that_of_the_process() {
        let shared = SharedMemory::new(6400, 2);
        let (busy, other) = (
            MemoryBudget::of_worker(Arc::clone(&shared)),
            MemoryBudget::of_worker(shared),
        );
        let mut of_busy = busy.reservation();
        assert!(of_busy.resize(6200));
        assert!(!of_busy.resize(6201));
        // Its floor is left to the other worker.
        let mut of_other = other.reservation();
        assert!(of_other.resize(200) && !of_other.resize(201));
        let (busy_part, other_part) = (busy.part(800), other.part(800));
        assert!(of_busy.resize(3000));
        busy.return_freed_memory();
        // More than half is free until the shares are used up.
        let (mut one, mut two) = (busy_part.reservation(), other_part.reservation());
        assert!(one.resize(800) && two.resize(800));
        assert!(!one.grow(1) && !two.grow(1));
        drop(of_busy);
        busy.return_freed_memory();
        assert!(one.resize(1900) && two.grow(100));
        drop((one, two, of_other));
        assert_eq!((busy.used(), other.used()), (0, 0));
    }

    #[test]
    fn bodies_that_deliveries_keep_alive_count_for_their_origins_and_once_in_the_whole() {
        let budget = MemoryBudget::new(100);
        let (slow, fast) = (budget.part(25), budget.part(25));
        let mut body = budget.reservation();
        assert!(body.resize(48));
        let first = slow.admit(2, 48);
        assert!(first.is_some());
        assert_eq!((slow.used(), budget.used()), (50, 50));
        // The share is used up, and less than half of the budget is free.
        assert!(slow.admit(1, 0).is_none());
        assert!(fast.admit(1, 48).is_some());
        assert!(fast.admit(51, 0).is_none());
        drop(first);
        assert_eq!((slow.used(), budget.used()), (0, 48));
        assert!(slow.admit(1, 48).is_some());
        drop(body);
        assert_eq!((slow.used(), fast.used(), budget.used()), (0, 0, 0));
    }
}
