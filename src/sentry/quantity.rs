//! How many items of which category Sentry counts in an envelope.
//!
//! Relay counts a container of logs, metrics or spans by its `item_count`, and any other item as one (Relay 26.9,
//! `Item::quantities`). An attachment counts as an attachment, but a crash report without an event as the error that
//! Sentry makes of it. Spans inside of a transaction are not counted: that would take a walk over its payload.

use memchr::memchr;

use super::category::Category;
use super::item_kind::{becomes_event, category, is_event};
use super::items::Item;

/// A number of items of a category.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quantity {
    /// `None` for items that Sentry does not count, or that are unknown.
    pub category: Option<Category>,
    pub count: u32,
}

impl Quantity {
    pub(crate) const fn one(category: Option<Category>) -> Quantity {
        Quantity { category, count: 1 }
    }

    /// What `item` counts as in the envelope `body`.
    pub(crate) fn of_item(body: &[u8], item: &Item<'_>) -> Quantity {
        match &*item.kind {
            b"attachment" => Quantity::one(Some(Category::Attachment)),
            _ => Quantity {
                category: category(body, item),
                count: count(body, item),
            },
        }
    }
}

/// The number of entries in a container, otherwise 1. Relay rejects a container with another number of entries than it
/// says. Each entry takes at least a byte, so that a wrong number cannot be absurd.
fn count(body: &[u8], item: &Item<'_>) -> u32 {
    let is_container = matches!(&*item.kind, b"log" | b"span" | b"trace_metric");
    let digits = item.item_count.filter(|_| is_container);
    let declared = digits.and_then(|digits| str::from_utf8(digits.slice(body)).ok()?.parse().ok());
    let entries_max = u32::try_from(item.payload.len()).unwrap_or(u32::MAX);
    declared.map_or(1, |count: u32| count.min(entries_max))
}

/// How many items of each category there are. Most requests have items of one category, which take no allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Quantities {
    first: Quantity,
    more: Vec<Quantity>,
}

impl Quantities {
    pub(crate) fn add(&mut self, quantity: Quantity) {
        if quantity.count == 0 {
            return;
        }
        if self.first.count == 0 {
            self.first = quantity;
            return;
        }
        let mut known = std::iter::once(&mut self.first).chain(&mut self.more);
        match known.find(|known| known.category == quantity.category) {
            Some(known) => known.count = known.count.saturating_add(quantity.count),
            None => self.more.push(quantity),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.count == 0
    }

    /// Each category once.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Quantity> {
        let first = (!self.is_empty()).then_some(self.first);
        first.into_iter().chain(self.more.iter().copied())
    }
}

impl From<Quantity> for Quantities {
    fn from(first: Quantity) -> Quantities {
        Quantities {
            first,
            more: Vec::new(),
        }
    }
}

/// Counts an envelope, an item at a time.
#[derive(Default)]
pub(crate) struct Count {
    quantities: Quantities,
    has_event: bool,
    crash_reports: u32,
}

impl Count {
    pub(crate) fn add(&mut self, body: &[u8], item: &Item<'_>) {
        if is_event(&item.kind) {
            self.has_event = true;
        } else if self.crash_reports == 0 && becomes_event(body, item) {
            self.crash_reports = 1;
            return;
        }
        self.quantities.add(Quantity::of_item(body, item));
    }

    /// The sums. Unless the envelope `is_whole`, the unread rest counts as one more item.
    pub(crate) fn finish(mut self, is_whole: bool) -> Quantities {
        let category = match self.has_event {
            true => Category::Attachment,
            false => Category::Error,
        };
        self.quantities.add(Quantity {
            category: Some(category),
            count: self.crash_reports,
        });
        if !is_whole {
            self.quantities.add(Quantity::one(None));
        }
        self.quantities
    }
}

/// What precedes the type in the header of an item that [`single`] recognises.
const START: &[u8] = b"\n{\"type\":\"";

/// More than the longest type has.
const KIND_BYTES_MAX: usize = 32;

/// The members that may follow the type in that header: those that SDKs write for events, transactions, check-ins,
/// sessions and the like.
const MEMBERS: [&[u8]; 2] = [
    br#"","length":"#,
    br#"","content_type":"application/json","length":"#,
];

/// The quantity of an envelope with a single item whose header looks as SDKs write it, which most have. `None` for any
/// other envelope, whose items have to be walked over.
pub(crate) fn single(body: &[u8], header_end: usize) -> Option<Quantity> {
    let item = body.get(header_end..)?.strip_prefix(START)?;
    let mut start = item.iter().take(KIND_BYTES_MAX);
    let kind_end = start.position(|byte| *byte == b'"')?;
    let (kind, members) = item.split_at_checked(kind_end)?;
    let (payload, end) = match members.strip_prefix(b"\"}\n") {
        Some(payload) => (payload, memchr(b'\n', payload).unwrap_or(payload.len())),
        None => {
            let mut starts = MEMBERS.iter();
            let digits = starts.find_map(|start| members.strip_prefix(*start))?;
            let (length, rest) = number(digits)?;
            (rest.strip_prefix(b"}\n")?, length)
        }
    };
    let is_last = matches!(payload.get(end..)?, b"" | b"\n");
    let category = Category::from_item_type(kind)?;
    is_last.then_some(Quantity::one(Some(category)))
}

/// The number of at most nine digits at the start of `text`, and the rest.
fn number(text: &[u8]) -> Option<(usize, &[u8])> {
    let mut number = 0;
    for (index, byte) in text.iter().enumerate().take(10) {
        if !byte.is_ascii_digit() {
            return (index > 0).then_some((number, text.get(index..)?));
        }
        number = number * 10 + usize::from(byte - b'0');
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sentry::envelope_index::EnvelopeIndex;
    use crate::sentry::items::items;

    fn counted(body: &[u8], header_end: usize) -> Quantities {
        let mut count = Count::default();
        let mut is_whole = true;
        for item in items(body, header_end) {
            match item {
                Ok(item) => count.add(body, &item),
                Err(_) => is_whole = false,
            }
        }
        count.finish(is_whole)
    }

    /// The quantities of items that follow an empty envelope header, as text.
    fn text(items: &str) -> String {
        let body = format!("{{}}\n{items}");
        let counted = counted(body.as_bytes(), 2);
        if let Ok(index) = EnvelopeIndex::build(body.as_bytes(), 2, None) {
            let mut indexed = Quantities::default();
            let items = index.items.iter();
            items.for_each(|item| indexed.add(item.quantity));
            assert_eq!(
                sorted(&indexed),
                sorted(&counted),
                "{items:?}",
                items = body
            );
        }
        sorted(&counted).join(" ")
    }

    fn sorted(quantities: &Quantities) -> Vec<String> {
        let word = |category: Option<Category>| category.map_or("other", Category::name);
        let each = quantities.iter();
        let mut words: Vec<String> = each
            .map(|one| format!("{}:{}", word(one.category), one.count))
            .collect();
        words.sort();
        words
    }

    #[test]
    fn items_count_as_relay_counts_them() {
        for (items, expected) in [
            ("", ""),
            ("{\"type\":\"event\"}\n{}", "error:1"),
            (
                "{\"type\":\"event\"}\n{}\n{\"type\":\"attachment\"}\nx\n{\"type\":\"attachment\"}\ny\n",
                "attachment:2 error:1",
            ),
            // A container counts by its entries, anything else does not.
            (
                "{\"type\":\"log\",\"item_count\":3}\n{\"items\":[{},{},{}]}\n",
                "log_item:3",
            ),
            ("{\"type\":\"log\"}\n{}\n", "log_item:1"),
            (
                "{\"item_count\":2,\"type\":\"span\"}\n{\"items\":[{},{}]}\n{\"type\":\"trace_metric\",\"item_count\":1}\n{\"items\":[{}]}",
                "span:2 trace_metric:1",
            ),
            ("{\"type\":\"event\",\"item_count\":9}\n{}", "error:1"),
            ("{\"type\":\"log\",\"item_count\":0}\n{}", ""),
            // An absurd number.
            (
                "{\"type\":\"log\",\"item_count\":4000000000}\n{}\n",
                "log_item:2",
            ),
            (
                "{\"type\":\"log\",\"item_count\":99999999999}\n{}\n",
                "log_item:1",
            ),
            // A crash report is the error that Sentry makes of it, unless there is an event.
            (
                "{\"type\":\"attachment\",\"attachment_type\":\"event.minidump\"}\nMDMP\n{\"type\":\"attachment\"}\nx\n",
                "attachment:1 error:1",
            ),
            (
                "{\"type\":\"attachment\",\"attachment_type\":\"event.minidump\"}\nMDMP\n{\"type\":\"event\"}\n{}\n",
                "attachment:1 error:1",
            ),
            (
                "{\"type\":\"session\"}\n{}\n{\"type\":\"sessions\"}\n{}\n{\"type\":\"client_report\"}\n{}\n",
                "client_report:1 session:2",
            ),
            (
                "{\"type\":\"replay_event\"}\n{}\n{\"type\":\"replay_recording\",\"length\":3}\nabc\n",
                "replay:2",
            ),
            (
                "{\"type\":\"profile_chunk\",\"platform\":\"python\"}\n{}\n",
                "profile_chunk:1",
            ),
            (
                "{\"type\":\"user_report\"}\n{}\n{\"type\":\"check_in\"}\n{}\n",
                "feedback:1 monitor:1",
            ),
            (
                "{\"type\":\"form_data\"}\n{}\n{\"type\":\"new\"}\n{}\n",
                "other:2",
            ),
            // What cannot be read is one more.
            ("{\"type\":\"event\"}\n{}\nnonsense", "error:1 other:1"),
        ] {
            assert_eq!(text(items), expected, "{items}");
        }
    }

    #[test]
    fn an_ordinary_single_item_is_recognised_at_once() {
        for (items, category) in [
            ("{\"type\":\"event\"}\n{}", Some(Category::Error)),
            ("{\"type\":\"event\"}\n{}\n", Some(Category::Error)),
            (
                "{\"type\":\"transaction\",\"length\":2}\n{}\n",
                Some(Category::Transaction),
            ),
            (
                "{\"type\":\"session\",\"content_type\":\"application/json\",\"length\":3}\n{\n}",
                Some(Category::Session),
            ),
            // Another item follows.
            ("{\"type\":\"event\"}\n{}\n{\"type\":\"session\"}\n{}", None),
            ("{\"type\":\"event\",\"length\":1}\n{}\n", None),
            // A header that is to be read in full.
            (
                "{\"type\":\"event\",\"length\":2,\"type\":\"session\"}\n{}\n",
                None,
            ),
            ("{\"type\":\"log\",\"item_count\":2}\n{}\n", None),
            ("{\"type\": \"event\"}\n{}\n", None),
            ("{\"type\":\"unknown\"}\n{}\n", None),
            ("{\"type\":\"event\",\"length\":3}\n{}", None),
            ("{\"type\":\"event\",\"length\":}\n{}", None),
            ("{\"type\":\"event\"}", None),
            ("", None),
        ] {
            let body = format!("{{}}\n{items}");
            let found = single(body.as_bytes(), 2);
            assert_eq!(
                found,
                category.map(|one| Quantity::one(Some(one))),
                "{items}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_recognised_at_once_is_what_a_walk_finds(
            parts in proptest::collection::vec(proptest::sample::select(vec![
                "{\"type\":\"", "event", "attachment", "session", "log", "nel", "\"}", "\",\"length\":", "0", "1", "2", "}",
                "\",\"content_type\":\"application/json\",\"length\":", "\n", "{}", "\"", "\\", "x",
            ]), 0..14)
        ) {
            let body = format!("{{}}\n{}", parts.concat());
            if let Some(quantity) = single(body.as_bytes(), 2) {
                prop_assert_eq!(counted(body.as_bytes(), 2), Quantities::from(quantity));
            }
        }
    }
}
