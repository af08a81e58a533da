//! How many bytes a worker may hold for its requests at a time.
//!
//! A share is taken before bytes are read or made, and lives as long as anything uses them: the body of
//! a request, what is decoded from it and by what, the bytes rendered for each outbound, the answers,
//! and all of that in the background too. So the worst case of a worker is one number of the
//! configuration, whatever clients send and however slow upstreams are. What a connection holds
//! besides is small and bounded by the number of connections.

use std::cell::Cell;
use std::rc::Rc;

use crate::resident::Granted;

/// The bytes one worker may hold.
pub struct Budget {
    limit: Cell<usize>,
    used: Cell<usize>,
    granted: Granted,
}

impl Budget {
    /// A budget of `limit` bytes, all free.
    pub fn new(limit: usize) -> Rc<Budget> {
        Rc::new(Budget {
            limit: Cell::new(limit),
            used: Cell::new(0),
            granted: Granted::new(),
        })
    }

    /// Changes the limit; what is reserved already stays so.
    pub fn set_limit(&self, limit: usize) {
        self.limit.set(limit);
    }

    /// Sees to it that the process keeps little more memory than is reserved; to be called now and then.
    pub fn look(&self) {
        self.granted.look(self.used.get());
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
}

/// A share of a [`Budget`], given back when dropped.
pub struct Reservation {
    budget: Rc<Budget>,
    bytes: usize,
}

impl Reservation {
    /// Makes the share `bytes` large; `false`, and no change, where the budget does not allow it.
    #[must_use]
    pub fn resize(&mut self, bytes: usize) -> bool {
        // A smaller share is always allowed.
        let is_allowed = bytes <= self.bytes || self.could_be(bytes);
        if is_allowed {
            let others = self.budget.used.get() - self.bytes;
            self.budget.used.set(others + bytes);
            let changed = bytes.abs_diff(self.bytes);
            self.bytes = bytes;
            self.budget.granted.change(changed, others + bytes);
        }
        is_allowed
    }

    /// Makes the share `bytes` larger; `false`, and no change, where the budget does not allow it.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        self.resize(self.bytes.saturating_add(bytes))
    }

    /// Makes the share `bytes` smaller.
    pub fn shrink(&mut self, bytes: usize) {
        // A smaller share is always granted.
        let _ = self.resize(self.bytes.saturating_sub(bytes));
    }

    /// Whether the share could be `bytes` large now.
    pub fn could_be(&self, bytes: usize) -> bool {
        let others = self.budget.used.get() - self.bytes;
        let total = others.checked_add(bytes);
        total.is_some_and(|total| total <= self.budget.limit.get())
    }

    /// How large the share is.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Another share of the same budget, of no bytes yet.
    pub fn sibling(&self) -> Reservation {
        self.budget.reservation()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let others = self.budget.used.get() - self.bytes;
        self.budget.used.set(others);
        self.budget.granted.change(self.bytes, others);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_together_never_exceed_the_limit_and_are_given_back() {
        let budget = Budget::new(100);
        let mut one = budget.reservation();
        let mut other = one.sibling();
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
}
