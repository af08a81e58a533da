//! What the caps of an outbound leave out of one request.
//!
//! The items of a category with the same sampling key, which is that of their trace where they have one, are a group.
//! It is let through or left out as a whole. What belongs to an event, such as an attachment, goes with it.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use crate::mirror::cap::Caps;
use crate::sentry::category::Category;
use crate::sentry::envelope_index::{EnvelopeIndex, IndexedItem};
use crate::sentry::sampling::SamplingKey;
use crate::sentry::selection::{Selection, Unwanted};

/// The caps of an outbound, and who asks them.
#[derive(Clone, Copy)]
pub(crate) struct CapRequest<'c> {
    pub(crate) caps: &'c Caps,
    pub(crate) worker: usize,
    /// Each copy of an item takes a token.
    pub(crate) copies: u32,
    pub(crate) now: Instant,
}

/// The index of the cap, and the sampling key.
type Group = (usize, SamplingKey);

/// The groups of a request that are left out.
pub struct Capped<'c> {
    caps: &'c Caps,
    groups: HashSet<Group>,
}

impl<'c> CapRequest<'c> {
    /// Asks for the items of an envelope that `selection` takes.
    pub(crate) fn envelope(self, selection: &Selection, index: &EnvelopeIndex) -> Capped<'c> {
        let mut capped = self.nothing();
        let (followers, own): (Vec<_>, Vec<_>) =
            index.items.iter().partition(|item| is_follower(item));
        let mut groups = HashMap::new();
        for item in own {
            for (key, count) in keys(item) {
                if selection.take(item.category, key).is_ok() {
                    self.add(&mut groups, item.quantity.category, key, count);
                }
            }
        }
        self.decide(groups, &mut capped);
        let mut groups = HashMap::new();
        for item in followers {
            let (category, key) = (item.category, item.sampling_key);
            if selection.take(category, key).is_ok() && capped.check(category, key).is_ok() {
                let count = item.quantity.count.into();
                self.add(&mut groups, item.quantity.category, key, count);
            }
        }
        self.decide(groups, &mut capped);
        capped
    }

    /// Asks for items of one category with these sampling keys.
    pub(crate) fn items(
        self,
        category: Option<Category>,
        keys: impl Iterator<Item = SamplingKey>,
    ) -> Capped<'c> {
        let mut groups = HashMap::new();
        for key in keys {
            self.add(&mut groups, category, key, 1);
        }
        let mut capped = self.nothing();
        self.decide(groups, &mut capped);
        capped
    }

    fn nothing(self) -> Capped<'c> {
        Capped {
            caps: self.caps,
            groups: HashSet::new(),
        }
    }

    fn add(
        self,
        groups: &mut HashMap<Group, u64>,
        category: Option<Category>,
        key: SamplingKey,
        count: u64,
    ) {
        if let Some(index) = self.caps.index_of(category) {
            let tokens = groups.entry((index, key)).or_default();
            *tokens = tokens.saturating_add(count.saturating_mul(self.copies.into()));
        }
    }

    fn decide(self, groups: HashMap<Group, u64>, capped: &mut Capped<'_>) {
        let is_refused = |((index, key), count): &(Group, u64)| {
            !self.caps.take(*index, *key, *count, self.worker, self.now)
        };
        let refused = groups.into_iter().filter(is_refused);
        capped.groups.extend(refused.map(|(group, _)| group));
    }
}

impl Capped<'_> {
    /// Whether items of `category` with this sampling key go out.
    pub(crate) fn check(
        &self,
        category: Option<Category>,
        key: SamplingKey,
    ) -> Result<(), Unwanted> {
        if self.groups.is_empty() {
            return Ok(());
        }
        let index = self.caps.index_of(category);
        match index.is_some_and(|index| self.groups.contains(&(index, key))) {
            true => Err(Unwanted::Capped),
            false => Ok(()),
        }
    }

    /// Whether an item that is not divided goes out.
    pub(crate) fn check_item(&self, item: &IndexedItem) -> Result<(), Unwanted> {
        self.check(item.category, item.sampling_key)?;
        self.check(item.quantity.category, item.sampling_key)
    }
}

/// Whether an item has the category of the event that it belongs to, and counts as something else.
fn is_follower(item: &IndexedItem) -> bool {
    item.entries.is_empty() && item.category != item.quantity.category
}

/// The sampling keys of an item, each with its number of items.
fn keys(item: &IndexedItem) -> impl Iterator<Item = (SamplingKey, u64)> {
    let whole = item.entries.is_empty();
    let whole = whole.then_some((item.sampling_key, item.quantity.count.into()));
    let entries = item.entries.iter().map(|(_, key)| (*key, 1));
    whole.into_iter().chain(entries)
}

#[cfg(test)]
mod tests;
