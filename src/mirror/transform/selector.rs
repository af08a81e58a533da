//! Filters a request by selections, once for each selection.
//!
//! The items of an envelope are indexed, and the records of an OTLP request are parsed. Any other request is
//! taken or dropped as a whole. Large bodies are processed in slices, and the results count against the memory
//! budget.

use std::cell::OnceCell;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;

use bytes::Bytes;

use crate::http::head::HeaderName;
use crate::mirror::cap::capping::{CapRequest, Capped};
use crate::mirror::fan_out::outcome::Outcome;
use crate::mirror::request::Request;
use crate::mirror::request::classify::classify;
use crate::mirror::transform::filter::{self, PartialBody, Segments, Split};
use crate::runtime::memory_budget::MemoryReservation;
use crate::runtime::slices::{Slices, concat};
use crate::sentry::category::Category;
use crate::sentry::envelope::EnvelopeError;
use crate::sentry::envelope_index::{EnvelopeIndex, Indexer};
use crate::sentry::otlp::{Batch, Format, Signal};
use crate::sentry::sampling::{Chance, Digest, SamplingKey};
use crate::sentry::selection::{Selection, Unwanted};
use crate::upstream::exchange::Failure;

/// The number of bytes of a body that are hashed in a slice.
const DIGESTED_BYTES: usize = 256 * 1024;

/// Why there is no body to deliver.
#[derive(Clone, Copy)]
pub(super) enum NoBody {
    /// The selection takes no part of the request.
    Unwanted(Unwanted),
    /// The memory budget is exhausted.
    OutOfMemory,
}

impl From<NoBody> for Outcome {
    fn from(cause: NoBody) -> Outcome {
        match cause {
            NoBody::Unwanted(unwanted) => Outcome::Skipped(unwanted.into()),
            NoBody::OutOfMemory => Outcome::Failed(Failure::Overloaded),
        }
    }
}

/// The part of a request that a selection takes.
#[derive(Clone, Default)]
pub(super) struct Filtered {
    pub(super) partial: PartialBody,
    /// The categories of its items; `None` if it is the whole request.
    pub(super) categories: Option<Vec<Option<Category>>>,
    /// The reason for each item that was dropped.
    pub(super) left_out: Vec<Unwanted>,
    /// How many items stay and are dropped, as Sentry counts them; `None` if all of them stay.
    pub(super) split: Option<Rc<Split>>,
}

impl Filtered {
    /// The categories for rate limits.
    pub(super) async fn categories(&self, request: &Request) -> Vec<Option<Category>> {
        match &self.categories {
            Some(categories) => categories.clone(),
            None => Box::pin(request.categories()).await,
        }
    }
}

/// The sampling keys of the records of an OTLP request.
enum Records {
    /// Each record has its own key.
    Separate(Batch),
    /// One key for the whole request.
    Whole(SamplingKey),
}

/// Filters one request, and caches the results.
pub(super) struct Selector<'t> {
    request: &'t Request,
    /// The randomness for data without an id, if some outbound takes a sample.
    sampling: Option<Chance>,
    /// The classification of a request that is not an envelope.
    whole: OnceCell<(Option<Category>, SamplingKey)>,
    /// The items of an envelope.
    index: Option<Result<EnvelopeIndex, EnvelopeError>>,
    /// The records of an OTLP request.
    records: Option<Records>,
    filtered: Vec<(Selection, Result<Filtered, NoBody>)>,
    /// The memory of all results and indexes.
    pub(super) memory: MemoryReservation,
}

impl<'t> Selector<'t> {
    /// `is_sampled` states whether some outbound takes only a sample.
    pub(super) fn new(
        request: &'t Request,
        is_sampled: bool,
        memory: MemoryReservation,
    ) -> Selector<'t> {
        Selector {
            request,
            sampling: is_sampled.then(chance),
            whole: OnceCell::new(),
            index: None,
            records: None,
            filtered: Vec::new(),
            memory,
        }
    }

    /// The part of the request that `selection` takes and the caps let through; everything without both.
    pub(super) async fn filter(
        &mut self,
        selection: Option<Selection>,
        asking: Option<CapRequest<'_>>,
    ) -> Result<Filtered, NoBody> {
        if asking.is_some() {
            // Each time another share may be let through, so it is not cached.
            let selection = selection.unwrap_or(Selection::ALL);
            return self.select(&selection, asking).await;
        }
        let Some(selection) = selection else {
            return Ok(self.everything());
        };
        let known = self.filtered.iter().find(|(known, _)| *known == selection);
        if let Some((_, filtered)) = known {
            return filtered.clone();
        }
        let filtered = self.select(&selection, None).await;
        self.filtered.push((selection, filtered.clone()));
        filtered
    }

    /// The whole request. The part without edits is shared with the received body.
    fn everything(&self) -> Filtered {
        let (body, edits) = (&self.request.body.decoded, &self.request.body_edits);
        let edited_end = edits.last().map_or(0, |edit| edit.span.end);
        let front_bytes = edited_end.min(body.len());
        Filtered {
            partial: PartialBody {
                front: body.slice(..front_bytes),
                edits: edits.to_vec(),
                rest: body.slice(front_bytes..),
            },
            ..Filtered::default()
        }
    }

    async fn select(
        &mut self,
        selection: &Selection,
        asking: Option<CapRequest<'_>>,
    ) -> Result<Filtered, NoBody> {
        let Some(envelope) = &self.request.envelope else {
            let signal = Signal::from_endpoint(self.request.target.endpoint);
            if let Some(signal) = signal.filter(|_| !&self.request.body.decoded.is_empty()) {
                return self.select_records(selection, asking, signal).await;
            }
            let chance = self.sampling.unwrap_or_default();
            let (category, key) = self.whole.get_or_init(|| classify(self.request, chance));
            let taken = selection.take(*category, *key);
            let taken = taken.and_then(|()| ask(asking, *category, *key));
            return taken.map(|()| self.everything()).map_err(NoBody::Unwanted);
        };
        let body = &self.request.body.decoded;
        if self.index.is_none() {
            self.index = Some(self.index(envelope.end).await?);
        }
        let Some(Ok(index)) = &self.index else {
            // The items of a malformed envelope are unknown, so it is taken or dropped as one item of unknown
            // category.
            let key = self.sampling.unwrap_or_default().sampling_key(0);
            let taken = selection.take(None, key);
            return taken.map(|()| self.everything()).map_err(NoBody::Unwanted);
        };
        let capped = asking.map(|asking| asking.envelope(selection, index));
        let edits = &self.request.body_edits;
        let filtered = filter::filter_envelope(selection, capped.as_ref(), index, body, edits);
        match filtered.map_err(NoBody::Unwanted)? {
            None => Ok(self.everything()),
            Some(filtered) => {
                self.reserve(filtered.front.len())?;
                let rest = self.assemble(&filtered.segments).await?;
                Ok(Filtered {
                    partial: PartialBody {
                        front: Bytes::from(filtered.front),
                        edits: filtered.edits,
                        rest,
                    },
                    categories: Some(filtered.categories),
                    left_out: filtered.left_out,
                    split: Some(Rc::new(filtered.split)),
                })
            }
        }
    }

    /// Filters an OTLP request with a body.
    async fn select_records(
        &mut self,
        selection: &Selection,
        asking: Option<CapRequest<'_>>,
        signal: Signal,
    ) -> Result<Filtered, NoBody> {
        let category = Category::from_endpoint(self.request.target.endpoint);
        let any = selection.take(category, SamplingKey::new(b""));
        let is_capped = asking.is_some_and(|asking| asking.caps.index_of(category).is_some());
        let is_whole = selection.rate(category) >= 1.0 && !is_capped;
        if any == Err(Unwanted::Filtered) || is_whole {
            return any.map(|()| self.everything()).map_err(NoBody::Unwanted);
        }
        if self.records.is_none() {
            self.records = Some(self.find_records(signal).await?);
        }
        let segments = match &self.records {
            Some(Records::Separate(batch)) => {
                let is_taken = |key: &SamplingKey| selection.take(category, *key).is_ok();
                let keys = batch.keys().filter(is_taken);
                let capped = asking.map(|asking| asking.items(category, keys));
                let body = &self.request.body.decoded;
                filter::filter_batch(selection, capped.as_ref(), category, batch, body)
            }
            Some(Records::Whole(key)) => selection
                .take(category, *key)
                .and_then(|()| ask(asking, category, *key))
                .map(|()| None),
            None => Ok(None),
        };
        match segments.map_err(NoBody::Unwanted)? {
            None => Ok(self.everything()),
            Some((segments, left_out)) => Ok(Filtered {
                partial: PartialBody {
                    rest: self.assemble(&segments).await?,
                    ..PartialBody::default()
                },
                categories: Some(vec![category]),
                left_out,
                split: None,
            }),
        }
    }

    /// The sampling keys of the records of an OTLP request: one of the whole body if it cannot be parsed.
    async fn find_records(&mut self, signal: Signal) -> Result<Records, NoBody> {
        let body = &self.request.body.decoded;
        let chance = self.sampling.unwrap_or_default();
        let format = Format::from_content_type(self.request.header(HeaderName::ContentType));
        let mut slices = Slices::for_scans();
        if let Some(batch) = Batch::parse(body, format, signal, chance) {
            self.reserve(batch.held_bytes())?;
            slices.spend(body.len()).await;
            return Ok(Records::Separate(batch));
        }
        let mut digest = Digest::default();
        for slice in body.chunks(DIGESTED_BYTES) {
            digest.update(slice);
            slices.spend(slice.len()).await;
        }
        Ok(Records::Whole(digest.finish()))
    }

    /// The index of an envelope, whose header ends at `header_end`.
    async fn index(
        &mut self,
        header_end: usize,
    ) -> Result<Result<EnvelopeIndex, EnvelopeError>, NoBody> {
        let reserved_bytes = self.memory.bytes();
        let index = self.walk(header_end).await;
        // An unfinished index is dropped.
        if !matches!(index, Ok(Ok(_))) {
            self.memory.shrink(self.memory.bytes() - reserved_bytes);
        }
        index
    }

    async fn walk(
        &mut self,
        header_end: usize,
    ) -> Result<Result<EnvelopeIndex, EnvelopeError>, NoBody> {
        let mut indexer = Indexer::new(&self.request.body.decoded, header_end, self.sampling);
        let mut slices = Slices::for_scans();
        loop {
            let held_bytes = indexer.held_bytes();
            let walked_bytes = match indexer.step() {
                Ok(Some(walked_bytes)) => walked_bytes,
                Ok(None) => return Ok(Ok(indexer.finish())),
                Err(error) => return Ok(Err(error)),
            };
            self.reserve(indexer.held_bytes() - held_bytes)?;
            slices.spend(walked_bytes).await;
        }
    }

    /// The text of `segments`, which is not copied if it is a span of the body.
    async fn assemble(&mut self, segments: &Segments) -> Result<Bytes, NoBody> {
        let body = &self.request.body.decoded;
        if let Some(span) = segments.as_span() {
            return Ok(body.slice(span.start..span.end));
        }
        let (length, list_bytes) = (segments.len(), segments.held_bytes());
        self.reserve(length + list_bytes)?;
        let rest = concat(segments.slices(body), length).await;
        self.memory.shrink(list_bytes);
        Ok(Bytes::from(rest))
    }

    pub(super) fn reserve(&mut self, bytes: usize) -> Result<(), NoBody> {
        match self.memory.grow(bytes) {
            true => Ok(()),
            false => Err(NoBody::OutOfMemory),
        }
    }
}

/// Asks for one item.
fn ask(
    asking: Option<CapRequest<'_>>,
    category: Option<Category>,
    key: SamplingKey,
) -> Result<(), Unwanted> {
    let capped = asking.map(|asking| asking.items(category, std::iter::once(key)));
    capped.map_or(Ok(()), |capped: Capped<'_>| capped.check(category, key))
}

/// Random for each request: every hasher has its own keys.
fn chance() -> Chance {
    Chance::new(RandomState::new().hash_one(()))
}
