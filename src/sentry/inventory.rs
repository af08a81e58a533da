//! What an envelope holds, as far as a selection has to know: of each item its category and what it
//! belongs to.
//!
//! An attachment goes where the event goes that it comes with, so it has that event's category and
//! sampling key. That event may be an attachment itself, of which Sentry makes one: a crash report. An
//! attachment that comes without an event is one by itself, whatever else is in the envelope, and a
//! trace attachment belongs to its trace, whatever it comes with. Logs, metrics and spans come many in one item and from several traces, so each of these entries has a
//! sampling key of its own. What else decides is chosen so that what only makes sense as a whole stays whole:
//! all parts of a replay, all updates of a session, all chunks of a profiler's run, all check-ins of a
//! monitor, and of everything else a trace.

use std::cell::OnceCell;

use super::category::Category;
use super::envelope::{EnvelopeError, unescape};
use super::items::{Item, Items, items};
use super::monitor;
use super::places::{self, IdKind, IdSpan};
use super::sampling::{Chance, SamplingKey};
use crate::span::Span;

/// How many entries of an envelope have sampling keys of their own. SDKs send 100 logs, or 1,000 metrics or
/// spans, at a time. An item with which there would be more is not taken apart: it has one sampling key.
pub(crate) const ENTRIES_MAX: usize = 10_000;

/// The parts of an envelope.
#[derive(Debug)]
pub struct EnvelopeIndex {
    /// The items, in their order.
    pub items: Vec<IndexedItem>,
    /// The rate in the header that the trace was sampled with.
    pub sample_rate: Option<Span>,
}

/// An item.
#[derive(Debug)]
pub struct IndexedItem {
    /// All of it, its line end included.
    pub whole: Span,
    /// Its payload.
    pub payload: Span,
    /// The numbers in its header that depend on the payload.
    pub length: Option<Span>,
    /// The number of entries in its header.
    pub item_count: Option<Span>,
    /// What it counts as.
    pub category: Option<Category>,
    /// What decides on it.
    pub sampling_key: SamplingKey,
    /// What decides on each of its entries, where it has some.
    pub entries: Vec<(Span, SamplingKey)>,
}

impl EnvelopeIndex {
    /// The items of `body`, whose envelope header ends at `header_end`, all at once; see [`Indexer`].
    ///
    /// # Errors
    /// An item is not well-formed, so that nobody knows where it ends.
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

/// An inventory that is being made, an item at a time: to walk over all payloads of a large envelope
/// takes longer than a core should be kept from everything else.
pub(crate) struct Indexer<'b> {
    body: &'b [u8],
    unread: Items<'b>,
    header: Header,
    is_sampling: bool,
    items: Vec<IndexedItem>,
    /// The parts that belong to the event.
    followers: Vec<usize>,
    /// The first event, and the first attachment that becomes one.
    event: Option<(Option<Category>, SamplingKey)>,
    crash: Option<(Option<Category>, SamplingKey)>,
    /// How many more entries may have sampling keys of their own.
    entries_left: usize,
    /// What the entries so far take in memory.
    entries_bytes: usize,
}

impl<'b> Indexer<'b> {
    /// Begins the index of `body`, whose envelope header ends at `header_end`. Sampling keys are only found
    /// out where there is `sampling`, with the chance of the request.
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
            entries_left: ENTRIES_MAX,
            entries_bytes: 0,
        }
    }

    /// Takes the next item, and gives how many bytes there were to walk over at most; `None` behind the
    /// last one.
    ///
    /// # Errors
    /// The item is not well-formed, so that nobody knows where it ends.
    pub(crate) fn step(&mut self) -> Result<Option<usize>, EnvelopeError> {
        let Some(item) = self.unread.next().transpose()? else {
            return Ok(None);
        };
        let mut part = IndexedItem {
            whole: item.whole,
            payload: item.payload,
            length: item.length,
            item_count: item.item_count,
            category: category(self.body, &item),
            sampling_key: SamplingKey::new(b""),
            entries: Vec::new(),
        };
        if self.is_sampling {
            self.decide(&item, &mut part);
        }
        let as_event = (part.category, part.sampling_key);
        if is_event(&item.kind) {
            self.event.get_or_insert(as_event);
        } else if becomes_event(self.body, &item) {
            self.crash.get_or_insert(as_event);
        }
        if goes_along(self.body, &item) {
            self.followers.push(self.items.len());
        }
        self.items.push(part);
        Ok(Some(item.whole.len().min(places::SEARCHED_BYTES_MAX)))
    }

    /// Finds out what decides on an item, in one walk over its payload.
    fn decide(&mut self, item: &Item<'_>, part: &mut IndexedItem) {
        let found = OnceCell::new();
        if has_entries(item, part) {
            let (body, header) = (self.body, &self.header);
            let (mut ids, mut entries) = (Vec::new(), Vec::new());
            let entry = |span, found: &[IdSpan]| {
                entries.push((span, header.entry_sampling_key(body, span, found)));
            };
            let walked = places::entries(body, part.payload, self.entries_left, &mut ids, entry);
            if walked.is_ok() && !entries.is_empty() {
                self.entries_left = self.entries_left.saturating_sub(entries.len());
                self.entries_bytes += entries.capacity() * size_of::<(Span, SamplingKey)>();
                part.entries = entries;
                return;
            }
            let _ = found.set(ids);
        }
        part.sampling_key = self
            .header
            .sampling_key(self.body, item, part.category, &found);
    }

    /// What the index takes in memory so far.
    pub(crate) fn held_bytes(&self) -> usize {
        self.items.capacity() * size_of::<IndexedItem>() + self.entries_bytes
    }

    /// What each item counts as: an attachment as the event that it comes with. What could not be read,
    /// unless it `is_whole`, counts as one more item, which is not known.
    pub(crate) fn categories(self, is_whole: bool) -> Vec<Option<Category>> {
        let items = self.finish().items;
        let read = items.iter().map(|item| item.category);
        read.chain((!is_whole).then_some(None)).collect()
    }

    /// The inventory of the items so far.
    pub(crate) fn finish(mut self) -> EnvelopeIndex {
        if let Some((category, key)) = self.event.or(self.crash) {
            for index in self.followers {
                if let Some(part) = self.items.get_mut(index) {
                    part.category = category;
                    part.sampling_key = key;
                }
            }
        }
        EnvelopeIndex {
            items: self.items,
            sample_rate: self.header.sample_rate,
        }
    }
}

/// What each item of `body` counts as, whose envelope header ends at `header_end`, all at once; see
/// [`Indexer::categories`].
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

/// Whether an item is of a kind that has entries, and short enough to be walked over.
fn has_entries(item: &Item<'_>, part: &IndexedItem) -> bool {
    let may_have_some = matches!(
        part.category,
        Some(Category::LogItem | Category::TraceMetric | Category::Span)
    );
    may_have_some
        && *item.kind != *b"attachment"
        && part.payload.len() <= places::SEARCHED_BYTES_MAX
}

/// What an item counts as by itself.
fn category(body: &[u8], item: &Item<'_>) -> Option<Category> {
    match &*item.kind {
        b"attachment" if item.is_trace_attachment(body) => Some(match item.has_span_id {
            true => Category::Span,
            false => Category::Attachment,
        }),
        b"attachment" if becomes_event(body, item) => Some(Category::Error),
        kind if is_profile_chunk(kind) => {
            let platform = item.platform.map(|platform| unescape(platform.slice(body)));
            Category::from_profile_platform(platform.as_deref())
        }
        kind => Category::from_item_type(kind),
    }
}

/// Whether an item of this type is a chunk of a profiler's run. Some versions of the SDK for Android send
/// the name of a category.
fn is_profile_chunk(kind: &[u8]) -> bool {
    matches!(kind, b"profile_chunk" | b"profile_chunk_ui")
}

/// Whether an item belongs to the event that it comes with.
fn goes_along(body: &[u8], item: &Item<'_>) -> bool {
    match &*item.kind {
        b"attachment" => !item.is_trace_attachment(body),
        kind => kind == b"form_data",
    }
}

/// Whether an item of this type is an event. A `user_report` is none: it speaks of one that was sent
/// before.
fn is_event(kind: &[u8]) -> bool {
    let events: [&[u8]; 6] = [
        b"event",
        b"transaction",
        b"security",
        b"raw_security",
        b"unreal_report",
        b"feedback",
    ];
    events.contains(&kind)
}

/// Whether Relay makes an event of an attachment that comes without one: by its type, or where it is what
/// a Nintendo Switch sends, by its name and the first bytes of it (Relay 26.9, `Item::creates_event` and
/// `errors/nswitch.rs`).
fn becomes_event(body: &[u8], item: &Item<'_>) -> bool {
    if *item.kind != *b"attachment" || item.is_trace_attachment(body) {
        return false;
    }
    let is = |member: Option<Span>, names: &[&[u8]]| {
        member.is_some_and(|text| names.contains(&&*unescape(text.slice(body))))
    };
    let events: [&[u8]; 7] = [
        b"event.minidump",
        b"event.applecrashreport",
        b"event.payload",
        b"event.breadcrumbs",
        b"event.nv_gpudmp",
        b"nswitch.dying_message",
        b"playstation.prosperodump",
    ];
    is(item.attachment_type, &events)
        || (is(item.filename, &[b"dying_message.dat"])
            && item.payload.slice(body).starts_with(b"sntr"))
}

/// The ids in the header of an envelope.
#[derive(Default)]
struct Header {
    trace: Option<SamplingKey>,
    replay: Option<SamplingKey>,
    event: Option<SamplingKey>,
    sample_rate: Option<Span>,
    /// What decides where there is no id.
    chance: Chance,
}

impl Header {
    fn read(text: &[u8], chance: Chance) -> Header {
        let mut found = Vec::new();
        // It was read once already; what could not be read has no ids.
        let _ = places::find(text, 0, &places::HEADER, &mut found);
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

    /// The sampling key of an item: that of what it is a part of, as far as that is told. The ids in its payload
    /// are looked for if they are asked for and were not `found` before.
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
            // The recording itself names no replay, the envelope does.
            Some(Category::Replay) => self.event.or_else(|| own(IdKind::ReplayId)),
            Some(Category::ClientReport | Category::MetricBucket) => Some(by_chance()),
            _ if is_profile_chunk(&item.kind) => own(IdKind::ProfilerId),
            // As with the entries of a log: the envelope may have more than one trace.
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

    /// The sampling key of an entry at `span`, in which the ids `found` are.
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

/// What a body without an envelope around it belongs to: a JSON event, as the store endpoint takes it.
pub(crate) fn event_sampling_key(body: &[u8], chance: Chance) -> SamplingKey {
    let found = ids(body, Span::new(0, body.len()));
    let own = |kind| sampling_key(body, &found, kind);
    own(IdKind::TraceId)
        .or_else(|| own(IdKind::ReplayId))
        .or_else(|| own(IdKind::EventId))
        .unwrap_or_else(|| chance.sampling_key(0))
}

/// The ids in an item, as far as it is JSON. A file is somebody's, whatever it looks like: only in front of
/// that of a trace attachment are some.
fn ids_of_item(body: &[u8], item: &Item<'_>) -> Vec<IdSpan> {
    let mut found = Vec::new();
    match &*item.kind {
        b"attachment" if item.is_trace_attachment(body) => {
            places::search_trace_attachment(body, item.meta(), &mut found);
        }
        b"attachment" => {}
        _ => places::search(body, item.payload, &mut found),
    }
    found
}

/// The ids in a payload, as far as it is JSON.
fn ids(body: &[u8], payload: Span) -> Vec<IdSpan> {
    let mut found = Vec::new();
    places::search(body, payload, &mut found);
    found
}

/// The sampling key of the first value with this meaning that is an id.
fn sampling_key(text: &[u8], found: &[IdSpan], kind: IdKind) -> Option<SamplingKey> {
    let mut values = found.iter().filter(|found| found.kind == kind);
    values.find_map(|value| match (kind, unescape(value.span.slice(text))) {
        (IdKind::MonitorSlug, slug) => (!slug.is_empty()).then(|| monitor::sampling_key(&slug)),
        (_, id) => SamplingKey::from_id(&id),
    })
}

#[cfg(test)]
mod tests;
