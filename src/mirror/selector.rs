//! What a selection takes of a request, each answer worked out once.
//!
//! An envelope is indexed, the records of an OTLP request are parsed, and anything else is one whole. Large
//! bodies are walked over in slices, and what is made counts in the memory budget.

use std::cell::OnceCell;
use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;

use crate::http::head::HeaderName;
use crate::mirror::classify::classify;
use crate::mirror::filter::{self, PartialBody, Segments};
use crate::mirror::outcome::Outcome;
use crate::mirror::request::Request;
use crate::runtime::memory_budget::MemoryReservation;
use crate::runtime::slices::{Slices, concat};
use crate::sentry::category::Category;
use crate::sentry::envelope::EnvelopeError;
use crate::sentry::envelope_index::{EnvelopeIndex, Indexer};
use crate::sentry::otlp::{Batch, Format, Signal};
use crate::sentry::sampling::{Chance, Digest, SamplingKey};
use crate::sentry::selection::{Refused, Selection};
use crate::upstream::exchange::Failure;

/// How much of a body is hashed in a slice.
const DIGESTED_BYTES: usize = 256 * 1024;

/// Why there is nothing to deliver.
#[derive(Clone, Copy)]
pub(super) enum Nothing {
    /// The outbounds want none of it.
    Refused(Refused),
    /// `limits.memory_bytes` has no room to make it.
    Memory,
}

impl From<Nothing> for Outcome {
    fn from(nothing: Nothing) -> Outcome {
        match nothing {
            Nothing::Refused(refused) => Outcome::Skipped(refused.into()),
            Nothing::Memory => Outcome::Failed(Failure::Overloaded),
        }
    }
}

/// What a selection takes of the request.
#[derive(Clone, Default)]
pub(super) struct Filtered {
    pub(super) partial: PartialBody,
    /// What its items count as; `None` where it is all of the request.
    pub(super) categories: Option<Vec<Option<Category>>>,
    pub(super) left_out: Vec<Refused>,
}

impl Filtered {
    /// The categories that rate limits can be about.
    pub(super) async fn categories(&self, request: &Request) -> Vec<Option<Category>> {
        match &self.categories {
            Some(categories) => categories.clone(),
            None => Box::pin(request.categories()).await,
        }
    }
}

/// What decides on the records of an OTLP request.
enum Records {
    /// The trace of each.
    Apart(Batch),
    /// All of its bytes.
    Whole(SamplingKey),
}

/// What is known of a request, and what each selection takes of it.
pub(super) struct Selector<'t> {
    request: &'t Request,
    /// What decides on that which has no id, if a share is wanted.
    sampling: Option<Chance>,
    /// What it is if it is no envelope.
    whole: OnceCell<(Option<Category>, SamplingKey)>,
    /// The items of an envelope.
    index: Option<Result<EnvelopeIndex, EnvelopeError>>,
    /// The records of an OTLP request.
    records: Option<Records>,
    /// What each selection takes that was asked for already.
    filtered: Vec<(Selection, Result<Filtered, Nothing>)>,
    /// The memory of all that was made of the request.
    pub(super) memory: MemoryReservation,
}

impl<'t> Selector<'t> {
    /// A selector for `request`, of which some outbound wants a share if `is_sampled`.
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

    /// What `selection` takes of the request, or all of it.
    pub(super) async fn filter(
        &mut self,
        selection: Option<Selection>,
    ) -> Result<Filtered, Nothing> {
        let Some(selection) = selection else {
            return Ok(self.everything());
        };
        let known = self.filtered.iter().find(|(known, _)| *known == selection);
        if let Some((_, taken)) = known {
            return taken.clone();
        }
        let taken = self.select(&selection).await;
        self.filtered.push((selection, taken.clone()));
        taken
    }

    /// All of the request: what is not each outbound's own is shared with everybody.
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

    async fn select(&mut self, selection: &Selection) -> Result<Filtered, Nothing> {
        let Some(envelope) = &self.request.envelope else {
            let signal = Signal::from_endpoint(self.request.target.endpoint);
            if let Some(signal) = signal.filter(|_| !&self.request.body.decoded.is_empty()) {
                return self.select_records(selection, signal).await;
            }
            let chance = self.sampling.unwrap_or_default();
            let (category, key) = self.whole.get_or_init(|| classify(self.request, chance));
            let taken = selection.take(*category, *key);
            return taken.map(|()| self.everything()).map_err(Nothing::Refused);
        };
        let body = &self.request.body.decoded;
        if self.index.is_none() {
            self.index = Some(self.index(envelope.end).await?);
        }
        let Some(Ok(index)) = &self.index else {
            // What cannot be taken apart might hold anything.
            let key = self.sampling.unwrap_or_default().sampling_key(0);
            let taken = selection.take(None, key);
            return taken.map(|()| self.everything()).map_err(Nothing::Refused);
        };
        let cut = filter::filter_envelope(selection, index, body, &self.request.body_edits);
        match cut.map_err(Nothing::Refused)? {
            None => Ok(self.everything()),
            Some(cut) => {
                self.reserve(cut.front.len())?;
                let rest = self.assemble(&cut.segments).await?;
                Ok(Filtered {
                    partial: PartialBody {
                        front: Bytes::from(cut.front),
                        edits: cut.edits,
                        rest,
                    },
                    categories: Some(cut.categories),
                    left_out: cut.left_out,
                })
            }
        }
    }

    /// What is taken of an OTLP request with a body.
    async fn select_records(
        &mut self,
        selection: &Selection,
        signal: Signal,
    ) -> Result<Filtered, Nothing> {
        let category = Category::from_endpoint(self.request.target.endpoint);
        let any = selection.take(category, SamplingKey::new(b""));
        if any == Err(Refused::Filtered) || selection.rate(category) >= 1.0 {
            return any.map(|()| self.everything()).map_err(Nothing::Refused);
        }
        if self.records.is_none() {
            self.records = Some(self.find_records(signal).await?);
        }
        let segments = match &self.records {
            Some(Records::Apart(batch)) => {
                filter::filter_batch(selection, category, batch, &self.request.body.decoded)
            }
            Some(Records::Whole(key)) => selection.take(category, *key).map(|()| None),
            None => Ok(None),
        };
        match segments.map_err(Nothing::Refused)? {
            None => Ok(self.everything()),
            Some(segments) => Ok(Filtered {
                partial: PartialBody {
                    rest: self.assemble(&segments).await?,
                    ..PartialBody::default()
                },
                categories: Some(vec![category]),
                left_out: Vec::new(),
            }),
        }
    }

    /// What decides on the records of an OTLP request.
    async fn find_records(&mut self, signal: Signal) -> Result<Records, Nothing> {
        let body = &self.request.body.decoded;
        let chance = self.sampling.unwrap_or_default();
        let format = Format::from_content_type(self.request.header(HeaderName::ContentType));
        let mut slices = Slices::of_walks();
        if let Some(batch) = Batch::parse(body, format, signal, chance) {
            self.reserve(batch.held_bytes())?;
            slices.spend(body.len()).await;
            return Ok(Records::Apart(batch));
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
    ) -> Result<Result<EnvelopeIndex, EnvelopeError>, Nothing> {
        let reserved_bytes = self.memory.bytes();
        let index = self.walk(header_end).await;
        // Nothing is left of an index that was not finished.
        if !matches!(index, Ok(Ok(_))) {
            self.memory.shrink(self.memory.bytes() - reserved_bytes);
        }
        index
    }

    async fn walk(
        &mut self,
        header_end: usize,
    ) -> Result<Result<EnvelopeIndex, EnvelopeError>, Nothing> {
        let mut indexer = Indexer::new(&self.request.body.decoded, header_end, self.sampling);
        let mut slices = Slices::of_walks();
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

    /// What `segments` make; a part of the body if it is one segment of that.
    async fn assemble(&mut self, segments: &Segments) -> Result<Bytes, Nothing> {
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

    pub(super) fn reserve(&mut self, bytes: usize) -> Result<(), Nothing> {
        match self.memory.grow(bytes) {
            true => Ok(()),
            false => Err(Nothing::Memory),
        }
    }
}

/// A chance that no other request has: each hasher has keys of its own.
fn chance() -> Chance {
    Chance::new(RandomState::new().hash_one(()))
}
