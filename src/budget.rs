//! How many bytes a worker may hold for its requests at a time.
//!
//! They are taken before bytes are read or made, and for as long as anything uses them: the body of a
//! request, what is decoded from it and by what, the bytes rendered for each outbound, the answers, and
//! all of that in the background too. So the worst case of a worker is one number of the configuration,
//! whatever clients send and however slow upstreams are. What a connection holds besides is small and
//! bounded by the number of connections.
//!
//! Nobody takes what the others need. Each origin has a part of the budget, and so have the requests
//! without a key: what a part takes, the budget takes as well. A part that holds its share gets more only
//! while half of the budget is free. The share of an origin counts the bodies, too, that its deliveries
//! keep alive, though the budget has them already.

use std::cell::Cell;
use std::rc::Rc;

use crate::resident::Granted;

/// The bytes one worker may hold, or a part of them.
pub struct Budget {
    /// How many there are; of a part, how many are sure.
    limit: Cell<usize>,
    used: Cell<usize>,
    kind: Kind,
}

enum Kind {
    /// All bytes that a worker may hold.
    Whole(Granted),
    /// A part of them.
    PartOf(Rc<Budget>),
}

impl Budget {
    /// A budget of `limit` bytes, all free.
    pub fn new(limit: usize) -> Rc<Budget> {
        Rc::new(Budget {
            limit: Cell::new(limit),
            used: Cell::new(0),
            kind: Kind::Whole(Granted::new()),
        })
    }

    /// A part of it, with a share of `limit` bytes.
    pub fn part(self: &Rc<Budget>, limit: usize) -> Rc<Budget> {
        Rc::new(Budget {
            limit: Cell::new(limit),
            used: Cell::new(0),
            kind: Kind::PartOf(Rc::clone(self)),
        })
    }

    /// Changes the limit; what is reserved already stays so.
    pub fn set_limit(&self, limit: usize) {
        self.limit.set(limit);
    }

    /// Sees to it that the process keeps little more memory than is reserved; to be called now and then.
    pub fn look(&self) {
        match &self.kind {
            Kind::Whole(granted) => granted.look(self.used.get()),
            Kind::PartOf(whole) => whole.look(),
        }
    }

    /// The bytes that are reserved.
    pub fn used(&self) -> usize {
        self.used.get()
    }

    /// A reservation of no bytes yet.
    pub fn reservation(self: &Rc<Budget>) -> Reservation {
        Reservation {
            budget: Rc::clone(self),
            bytes: 0,
        }
    }

    /// Lets a delivery begin that takes `own` bytes, and keeps alive `kept` bytes that the whole budget
    /// has already. `None` where there is no room, or the share is used up.
    pub fn admit(self: &Rc<Budget>, own: usize, kept: usize) -> Option<Admission> {
        if !self.has_room(own) {
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

    /// Whether `bytes` more can be reserved. What a part has room for may be more than its share: the
    /// largest body is larger than the share of a small budget.
    fn has_room(&self, bytes: usize) -> bool {
        let fits = |limit: usize| {
            let total = self.used.get().checked_add(bytes);
            total.is_some_and(|total| total <= limit)
        };
        match &self.kind {
            Kind::Whole(_) => fits(self.limit.get()),
            Kind::PartOf(whole) => {
                let is_sure = self.used.get() < self.limit.get();
                whole.has_room(bytes) && (is_sure || whole.is_half_free(bytes))
            }
        }
    }

    /// Whether half of it is free with `bytes` more.
    fn is_half_free(&self, bytes: usize) -> bool {
        self.used.get().saturating_add(bytes) <= self.limit.get() / 2
    }

    fn add(&self, bytes: usize) {
        self.used.set(self.used.get() + bytes);
        match &self.kind {
            Kind::Whole(granted) => granted.change(bytes, self.used.get()),
            Kind::PartOf(whole) => whole.add(bytes),
        }
    }

    fn give_back(&self, bytes: usize) {
        self.used.set(self.used.get() - bytes);
        match &self.kind {
            Kind::Whole(granted) => granted.change(bytes, self.used.get()),
            Kind::PartOf(whole) => whole.give_back(bytes),
        }
    }
}

/// Bytes of a [`Budget`], given back when dropped.
pub struct Reservation {
    budget: Rc<Budget>,
    bytes: usize,
}

impl Reservation {
    /// Makes it `bytes` large; `false`, and no change, where the budget does not allow it.
    #[must_use]
    pub fn resize(&mut self, bytes: usize) -> bool {
        if !self.can_resize(bytes) {
            return false;
        }
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.budget.add(more),
            None => self.budget.give_back(self.bytes - bytes),
        }
        self.bytes = bytes;
        true
    }

    /// Makes it `bytes` larger; `false`, and no change, where the budget does not allow it.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        self.resize(self.bytes.saturating_add(bytes))
    }

    /// Makes it `bytes` smaller.
    pub fn shrink(&mut self, bytes: usize) {
        // Less is always granted.
        let _ = self.resize(self.bytes.saturating_sub(bytes));
    }

    /// Whether it could be `bytes` large now.
    pub fn can_resize(&self, bytes: usize) -> bool {
        match bytes.checked_sub(self.bytes) {
            None | Some(0) => true,
            Some(more) => self.budget.has_room(more),
        }
    }

    /// How large it is.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Another one of the same budget, of no bytes yet.
    pub fn empty_sibling(&self) -> Reservation {
        self.budget.reservation()
    }

    /// Goes over from a part to the whole budget, which has these bytes already.
    pub fn join_whole(&mut self) {
        if let Kind::PartOf(whole) = &self.budget.kind {
            let whole = Rc::clone(whole);
            self.budget.used.set(self.budget.used.get() - self.bytes);
            self.budget = whole;
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

/// What a delivery under way takes of the share of its origin.
pub struct Admission {
    budget: Rc<Budget>,
    own: usize,
    kept: usize,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.budget.give_back(self.own);
        self.budget.used.set(self.budget.used.get() - self.kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_together_never_exceed_the_limit_and_are_given_back() {
        let budget = Budget::new(100);
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
    fn what_a_part_takes_the_whole_takes_as_well() {
        let budget = Budget::new(100);
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
    fn a_part_that_holds_its_share_gets_more_only_while_half_of_the_budget_is_free() {
        let budget = Budget::new(100);
        let (one, other) = (budget.part(25), budget.part(25));
        let mut of_one = one.reservation();
        assert!(of_one.resize(50));
        assert!(!of_one.can_resize(51) && !of_one.resize(51));
        // It hinders neither another part nor the whole.
        let mut of_other = other.reservation();
        assert!(of_other.resize(24));
        let mut of_whole = budget.reservation();
        assert!(of_whole.resize(1));
        // Its share is sure even then, and what that has room for may be larger.
        assert!(of_other.resize(49));
        assert!(!of_other.grow(1));
        assert!(of_other.resize(20));
        drop(of_one);
        assert!(of_whole.resize(45));
        assert!(of_other.resize(26));
        assert!(!of_other.grow(1));
    }

    #[test]
    fn one_that_goes_over_to_the_whole_leaves_its_part_free() {
        let budget = Budget::new(100);
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
    fn deliveries_that_keep_bodies_alive_count_for_their_origin_and_not_twice() {
        let budget = Budget::new(100);
        let (slow, fast) = (budget.part(25), budget.part(25));
        let mut body = budget.reservation();
        assert!(body.resize(48));
        let first = slow.admit(2, 48);
        assert!(first.is_some());
        assert_eq!((slow.used(), budget.used()), (50, 50));
        // Its share is used up, and half of the budget is not free.
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
