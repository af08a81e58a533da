//! The dynamic table (RFC 7541 §2.3.2): fields of earlier header blocks, to which later ones refer.
//!
//! The mirror announces that there is none, and a server has to confirm that at its first header block (§4.2). Some
//! do not, and go on with the table that each connection begins with: h2o 2.2, old versions of HAProxy, Traffic
//! Server and Akka. For these it is kept.

use std::collections::VecDeque;

use crate::span::Span;

/// The size with which a connection begins (RFC 9113 §6.5.2), and the largest one.
pub(super) const SIZE_MAX: usize = 4096;

/// What RFC 7541 §4.1 adds to the length of each entry.
const ENTRY_OVERHEAD: usize = 32;

#[derive(Debug)]
pub(super) struct DynamicTable {
    /// Names and values in the order of the entries, and before them those of entries that are gone.
    text: Vec<u8>,
    /// From the oldest to the newest.
    entries: VecDeque<Entry>,
    size: usize,
    size_max: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    name: Span,
    value: Span,
}

impl Entry {
    fn size(self) -> usize {
        self.name.len() + self.value.len() + ENTRY_OVERHEAD
    }
}

impl Default for DynamicTable {
    fn default() -> DynamicTable {
        DynamicTable {
            text: Vec::new(),
            entries: VecDeque::new(),
            size: 0,
            size_max: SIZE_MAX,
        }
    }
}

impl DynamicTable {
    /// Whether it can have an entry.
    pub(super) fn is_possible(&self) -> bool {
        self.size_max > 0
    }

    pub(super) fn set_size_max(&mut self, size_max: usize) {
        self.size_max = size_max;
        self.evict(0);
    }

    /// The entry that was added so many entries ago.
    pub(super) fn get(&self, age: usize) -> Option<(&[u8], &[u8])> {
        let place = self.entries.len().checked_sub(age + 1)?;
        let entry = self.entries.get(place)?;
        Some((entry.name.slice(&self.text), entry.value.slice(&self.text)))
    }

    pub(super) fn add(&mut self, name: &[u8], value: &[u8]) {
        let size = name.len() + value.len() + ENTRY_OVERHEAD;
        self.evict(size);
        // One that is too large leaves the table empty (RFC 7541 §4.4).
        if size > self.size_max {
            return;
        }
        let start = self.text.len();
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(value);
        let name = Span::new(start, start + name.len());
        let value = Span::new(name.end, self.text.len());
        self.entries.push_back(Entry { name, value });
        self.size += size;
    }

    /// Removes the oldest entries until there is room for `size` more.
    fn evict(&mut self, size: usize) {
        while self.size + size > self.size_max
            && let Some(oldest) = self.entries.pop_front()
        {
            self.size -= oldest.size();
        }
        let gone = self
            .entries
            .front()
            .map_or(self.text.len(), |oldest| oldest.name.start);
        if gone > SIZE_MAX || self.entries.is_empty() {
            self.text.drain(..gone);
            for Entry { name, value } in &mut self.entries {
                *name = Span::new(name.start - gone, name.end - gone);
                *value = Span::new(value.start - gone, value.end - gone);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(table: &DynamicTable) -> Vec<(Vec<u8>, Vec<u8>)> {
        let entries = (0..).map_while(|age| table.get(age));
        entries
            .map(|(name, value)| (name.to_vec(), value.to_vec()))
            .collect()
    }

    #[test]
    fn the_oldest_entries_make_room_for_new_ones() {
        let mut table = DynamicTable::default();
        let mut all = Vec::new();
        for count in 0..2000_usize {
            let (name, value) = (vec![b'n'; count % 7], vec![b'v'; count * 31 % 200]);
            table.add(&name, &value);
            all.insert(0, (name, value));
            let mut size = 0;
            let fits = all.iter().take_while(|(name, value)| {
                size += name.len() + value.len() + ENTRY_OVERHEAD;
                size <= SIZE_MAX
            });
            assert_eq!(texts(&table), fits.cloned().collect::<Vec<_>>());
            assert!(table.text.len() <= 3 * SIZE_MAX);
        }
        table.set_size_max(100);
        assert!(table.size <= 100);
        table.set_size_max(0);
        assert!(texts(&table).is_empty() && !table.is_possible());
        table.add(b"", b"");
        assert!(texts(&table).is_empty());
    }

    #[test]
    fn an_entry_that_is_too_large_leaves_it_empty() {
        let mut table = DynamicTable::default();
        table.add(b"a", b"b");
        assert_eq!(table.get(0), Some((&b"a"[..], &b"b"[..])));
        table.add(b"", &[b'x'; SIZE_MAX - ENTRY_OVERHEAD + 1]);
        assert_eq!(table.get(0), None);
        table.add(b"", &[b'x'; SIZE_MAX - ENTRY_OVERHEAD]);
        assert!(table.get(0).is_some() && table.get(1).is_none());
    }
}
