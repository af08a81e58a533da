//! The index of an envelope: the category and the sampling key of each item.
//!
//! An attachment has the category and the sampling key of the event in its envelope. That event may be an attachment
//! itself, a crash report, of which Sentry makes an event. An attachment without an event stands alone, and a trace
//! attachment belongs to its trace in any envelope. An item of logs, metrics or spans has many entries from several
//! traces, each with a sampling key of its own. Sampling keys are chosen so that data which makes sense only as a whole
//! is kept or dropped as a whole: all parts of a replay, all updates of a session, all chunks of a profiler's run, all
//! check-ins of a monitor, and otherwise a trace.

use std::cell::OnceCell;

use super::category::Category;
use super::envelope::{EnvelopeError, unescape};
use super::item_kind::{becomes_event, belongs_to_event, category, is_event, is_profile_chunk};
use super::items::{Item, Items, items};
use super::json_ids::{self, IdKind, IdSpan};
use super::monitor;
use super::quantity::Quantity;
use super::sampling::{Chance, SamplingKey};
use crate::span::Span;

/// The number of entries in an envelope that get sampling keys of their own. SDKs send 100 logs, or 1,000 metrics or
/// spans, at a time. An item with which there would be more gets a single sampling key.
pub(crate) const ENTRIES_MAX: usize = 10_000;

#[derive(Debug)]
pub struct EnvelopeIndex {
    /// The items, in their order.
    pub items: Vec<IndexedItem>,
    /// The `trace.sample_rate` in the envelope header.
    pub sample_rate: Option<Span>,
}

#[derive(Debug)]
pub struct IndexedItem {
    /// The item with its header and its line end.
    pub whole: Span,
    pub payload: Span,
    /// The digits of `length` in the item header.
    pub length: Option<Span>,
    /// The digits of `item_count` in the item header.
    pub item_count: Option<Span>,
    /// `None` if unknown.
    pub category: Option<Category>,
    /// What it counts as, which for an attachment is not the category of its event.
    pub quantity: Quantity,
    pub sampling_key: SamplingKey,
    /// The entries, if they are sampled one by one, each with its sampling key.
    pub entries: Vec<(Span, SamplingKey)>,
}

impl EnvelopeIndex {
    /// Indexes all of `body` at once; `Indexer` does it in steps. The envelope header ends at `header_end`.
    ///
    /// # Errors
    /// An item is malformed, so that its end is unknown.
    pub fn build(
        body: &[u8],
        header_end: usize,
        sampling: Option<Chance>,
    ) -> Result<EnvelopeIndex, EnvelopeError> {
        let mut indexer = Indexer::new(body, header_end, sampling);
        while indexer.step()?.is_some() {}
        Ok(indexer.finish())
    }
}

/// Indexes an envelope an item at a time: a walk over all payloads of a large envelope would keep the core from
/// everything else for too long.
pub(crate) struct Indexer<'b> {
    body: &'b [u8],
    unread: Items<'b>,
    header: Header,
    is_sampling: bool,
    items: Vec<IndexedItem>,
    /// The indices of the items that get the category and the sampling key of the event.
    followers: Vec<usize>,
    /// The first event, and the first attachment that becomes one.
    event: Option<(Option<Category>, SamplingKey)>,
    crash: Option<(Option<Category>, SamplingKey)>,
    /// The index of that attachment.
    crash_index: usize,
    /// How many more entries may get sampling keys of their own.
    entries_left: usize,
    /// The memory held for the entries.
    entries_bytes: usize,
}

impl<'b> Indexer<'b> {
    /// Begins to index `body`, of which the envelope header ends at `header_end`. Sampling keys are determined only
    /// with `sampling`, the chance of the request.
    pub(crate) fn new(body: &'b [u8], header_end: usize, sampling: Option<Chance>) -> Indexer<'b> {
        Indexer {
            body,
            unread: items(body, header_end),
            header: Header::read(
                body.get(..header_end).unwrap_or_default(),
                sampling.unwrap_or_default(),
            ),
            is_sampling: sampling.is_some(),
            items: Vec::new(),
            followers: Vec::new(),
            event: None,
            crash: None,
            crash_index: 0,
            entries_left: ENTRIES_MAX,
            entries_bytes: 0,
        }
    }

    /// Indexes the next item. Returns an upper bound of the bytes walked over, or `None` after the last item.
    ///
    /// # Errors
    /// The item is malformed, so that its end is unknown.
    pub(crate) fn step(&mut self) -> Result<Option<usize>, EnvelopeError> {
        let Some(item) = self.unread.next().transpose()? else {
            return Ok(None);
        };
        let mut indexed = IndexedItem {
            whole: item.whole,
            payload: item.payload,
            length: item.length,
            item_count: item.item_count,
            category: category(self.body, &item),
            quantity: Quantity::of_item(self.body, &item),
            sampling_key: SamplingKey::new(b""),
            entries: Vec::new(),
        };
        if self.is_sampling {
            self.find_sampling_keys(&item, &mut indexed);
        }
        let as_event = (indexed.category, indexed.sampling_key);
        if is_event(&item.kind) {
            self.event.get_or_insert(as_event);
        } else if self.crash.is_none() && becomes_event(self.body, &item) {
            self.crash = Some(as_event);
            self.crash_index = self.items.len();
        }
        if belongs_to_event(self.body, &item) {
            self.followers.push(self.items.len());
        }
        self.items.push(indexed);
        Ok(Some(item.whole.len().min(json_ids::SEARCHED_BYTES_MAX)))
    }

    /// Determines the sampling keys of an item, in one walk over its payload.
    fn find_sampling_keys(&mut self, item: &Item<'_>, indexed: &mut IndexedItem) {
        let found = OnceCell::new();
        if has_entries(item, indexed) {
            let (body, header) = (self.body, &self.header);
            let (mut ids, mut entries) = (Vec::new(), Vec::new());
            let entry = |span, found: &[IdSpan]| {
                entries.push((span, header.entry_sampling_key(body, span, found)));
            };
            let walked =
                json_ids::entries(body, indexed.payload, self.entries_left, &mut ids, entry);
            if walked.is_ok() && !entries.is_empty() {
                self.entries_left = self.entries_left.saturating_sub(entries.len());
                self.entries_bytes += entries.capacity() * size_of::<(Span, SamplingKey)>();
                indexed.entries = entries;
                return;
            }
            let _ = found.set(ids);
        }
        indexed.sampling_key = self
            .header
            .sampling_key(self.body, item, indexed.category, &found);
    }

    /// The memory held by the index so far.
    pub(crate) fn held_bytes(&self) -> usize {
        self.items.capacity() * size_of::<IndexedItem>() + self.entries_bytes
    }

    /// The category of each item so far. Unless the envelope `is_whole`, the unread rest counts as one more item of an
    /// unknown category.
    pub(crate) fn categories(self, is_whole: bool) -> Vec<Option<Category>> {
        let items = self.finish().items;
        let read = items.iter().map(|item| item.category);
        read.chain((!is_whole).then_some(None)).collect()
    }

    /// The index of the items so far.
    pub(crate) fn finish(mut self) -> EnvelopeIndex {
        if self.event.is_none()
            && self.crash.is_some()
            && let Some(crash) = self.items.get_mut(self.crash_index)
        {
            crash.quantity.category = Some(Category::Error);
        }
        if let Some((category, key)) = self.event.or(self.crash) {
            for index in self.followers {
                if let Some(indexed) = self.items.get_mut(index) {
                    indexed.category = category;
                    indexed.sampling_key = key;
                }
            }
        }
        EnvelopeIndex {
            items: self.items,
            sample_rate: self.header.sample_rate,
        }
    }
}

/// [`Indexer::categories`] of `body`, of which the envelope header ends at `header_end`, all at once.
#[cfg(test)]
fn categories(body: &[u8], header_end: usize) -> Vec<Option<Category>> {
    let mut indexer = Indexer::new(body, header_end, None);
    let is_whole = loop {
        match indexer.step() {
            Ok(Some(_)) => {}
            Ok(None) => break true,
            Err(_) => break false,
        }
    };
    indexer.categories(is_whole)
}

/// Whether an item is of a type with entries, and short enough to be walked over.
fn has_entries(item: &Item<'_>, indexed: &IndexedItem) -> bool {
    let may_have_some = matches!(
        indexed.category,
        Some(Category::LogItem | Category::TraceMetric | Category::Span)
    );
    may_have_some
        && *item.kind != *b"attachment"
        && indexed.payload.len() <= json_ids::SEARCHED_BYTES_MAX
}

/// The sampling keys of the ids in the header of an envelope.
#[derive(Default)]
struct Header {
    trace: Option<SamplingKey>,
    replay: Option<SamplingKey>,
    event: Option<SamplingKey>,
    sample_rate: Option<Span>,
    /// Decides if there is no id.
    chance: Chance,
}

impl Header {
    fn read(text: &[u8], chance: Chance) -> Header {
        let mut found = Vec::new();
        // The header was parsed before, so an error does not matter here.
        let _ = json_ids::find(text, 0, &json_ids::HEADER, &mut found);
        let key = |kind| sampling_key(text, &found, kind);
        let rate = found.iter().find(|f| f.kind == IdKind::SampleRate);
        Header {
            trace: key(IdKind::TraceId),
            replay: key(IdKind::ReplayId),
            event: key(IdKind::EventId),
            sample_rate: rate.map(|rate| rate.span),
            chance,
        }
    }

    /// The sampling key of an item, by the ids in its payload or in the header. The payload is searched only if needed,
    /// and if its ids were not `found` before.
    fn sampling_key(
        &self,
        body: &[u8],
        item: &Item<'_>,
        category: Option<Category>,
        found: &OnceCell<Vec<IdSpan>>,
    ) -> SamplingKey {
        let own = |kind| {
            let found = found.get_or_init(|| ids_of_item(body, item));
            sampling_key(body, found, kind)
        };
        let by_chance = || self.chance.sampling_key(item.payload.start);
        let special = match category {
            Some(Category::Session) => own(IdKind::DistinctId)
                .or_else(|| own(IdKind::SessionId))
                .or_else(|| Some(by_chance())),
            Some(Category::Monitor) => own(IdKind::MonitorSlug),
            // A recording contains no replay id; its envelope does.
            Some(Category::Replay) => self.event.or_else(|| own(IdKind::ReplayId)),
            Some(Category::ClientReport | Category::MetricBucket) => Some(by_chance()),
            _ if is_profile_chunk(&item.kind) => own(IdKind::ProfilerId),
            // An envelope may have attachments of several traces.
            _ if item.is_trace_attachment(body) => own(IdKind::TraceId),
            _ => None,
        };
        special
            .or(self.trace)
            .or_else(|| own(IdKind::TraceId))
            .or(self.replay)
            .or_else(|| own(IdKind::ReplayId))
            .or(self.event)
            .or_else(|| own(IdKind::EventId))
            .unwrap_or_else(by_chance)
    }

    /// The sampling key of the entry at `span`, with the ids `found` in it.
    fn entry_sampling_key(&self, body: &[u8], span: Span, found: &[IdSpan]) -> SamplingKey {
        let own = |kind| sampling_key(body, found, kind);
        own(IdKind::PartTraceId)
            .or(self.trace)
            .or(self.replay)
            .or_else(|| own(IdKind::ReplayId))
            .or(self.event)
            .unwrap_or_else(|| self.chance.sampling_key(span.start))
    }
}

/// The sampling key of a body that is a JSON event, as at the store endpoint.
pub(crate) fn event_sampling_key(body: &[u8], chance: Chance) -> SamplingKey {
    let found = ids(body, Span::new(0, body.len()));
    let own = |kind| sampling_key(body, &found, kind);
    own(IdKind::TraceId)
        .or_else(|| own(IdKind::ReplayId))
        .or_else(|| own(IdKind::EventId))
        .unwrap_or_else(|| chance.sampling_key(0))
}

/// The ids in an item, as far as it is JSON. Attachments are the user's own files and have no ids, except for the JSON
/// in front of a trace attachment.
fn ids_of_item(body: &[u8], item: &Item<'_>) -> Vec<IdSpan> {
    let mut found = Vec::new();
    match &*item.kind {
        b"attachment" if item.is_trace_attachment(body) => {
            json_ids::search_trace_attachment(body, item.meta(), &mut found);
        }
        b"attachment" => {}
        _ => json_ids::search(body, item.payload, &mut found),
    }
    found
}

/// The ids in a payload, as far as it is JSON.
fn ids(body: &[u8], payload: Span) -> Vec<IdSpan> {
    let mut found = Vec::new();
    json_ids::search(body, payload, &mut found);
    found
}

/// The sampling key of the first value of this kind that is a valid id.
fn sampling_key(text: &[u8], found: &[IdSpan], kind: IdKind) -> Option<SamplingKey> {
    let mut values = found.iter().filter(|found| found.kind == kind);
    values.find_map(|value| match (kind, unescape(value.span.slice(text))) {
        (IdKind::MonitorSlug, slug) => (!slug.is_empty()).then(|| monitor::sampling_key(&slug)),
        (_, id) => SamplingKey::from_id(&id),
    })
}

#[cfg(test)]
mod tests;
