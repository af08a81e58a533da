//! Making what outbounds get that do not take the whole request, once and decoded.
//!
//! For each transform of the route the request is filtered, copied and compressed, once for all outbounds
//! that have it. Large bodies are worked on in slices, with pauses in which the core's other connections
//! are served. All that is made counts in the memory budget: if there is no room for it, these deliveries
//! fail and no other.

use std::cell::OnceCell;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;

use crate::http::head::{HeaderName, Method};
use crate::mirror::classify::classify;
use crate::mirror::compression::{Compressions, compress};
use crate::mirror::copies::{self, Template};
use crate::mirror::core::Core;
use crate::mirror::fan_out::FanOut;
use crate::mirror::filter::{self, PartialBody, Segments};
use crate::mirror::outcome::{Outcome, SkipReason};
use crate::mirror::rate_limit_store::limited_seconds;
use crate::mirror::render::OutboundBody;
use crate::mirror::request::Request;
use crate::mirror::transform::{Form, Transform};
use crate::runtime::memory_budget::MemoryReservation;
use crate::runtime::slices::{Slices, concat};
use crate::sentry::category::Category;
use crate::sentry::endpoint::Endpoint;
use crate::sentry::envelope::EnvelopeError;
use crate::sentry::envelope_index::{EnvelopeIndex, Indexer};
use crate::sentry::otlp::{Batch, Format, Signal};
use crate::sentry::sampling::{Chance, Digest, SamplingKey};
use crate::sentry::selection::{Refused, Selection};
use crate::upstream::exchange::Failure;

/// How much of a body is hashed in a slice.
const DIGESTED_BYTES: usize = 256 * 1024;

/// A body that was made for an outbound.
pub(crate) struct Transformed<'t> {
    /// Which outbound of the route it is for.
    pub(crate) index: usize,
    pub(crate) body: &'t OutboundBody,
    /// How much memory all that was made takes so far.
    pub(crate) memory_bytes: usize,
    /// Whether it is a further copy.
    pub(crate) is_copy: bool,
}

/// Transforms a request for those outbounds of `fan_out` that ask for it, and calls `deliver` for each
/// body. What has no delivery is recorded in `fan_out`.
pub(crate) async fn run(
    core: &Core,
    request: &Request,
    fan_out: &FanOut,
    deliver: impl Fn(Transformed<'_>),
) {
    let route = fan_out.route();
    let mut transformer = Transformer {
        core,
        request,
        sampling: route.samples.then(chance),
        whole: OnceCell::new(),
        index: None,
        records: None,
        filtered: Vec::new(),
        compressions: Compressions::default(),
        memory: core.budget.reservation(),
    };
    for (number, transform) in route.transforms.iter().enumerate() {
        let filtered = match transformer.filter(transform).await {
            Ok(filtered) => filtered,
            Err(nothing) => {
                for (index, _) in route.with_transform(number) {
                    fan_out.skip(index, nothing.into());
                }
                continue;
            }
        };
        let indices = transformer.unlimited(number, fan_out, &filtered).await;
        if indices.is_empty() {
            continue;
        }
        let mut template = None;
        for copy in 1..=transformer.copy_count(transform) {
            let is_copy = copy > 1;
            let body = transformer
                .body(transform, &filtered, copy, &mut template)
                .await;
            for index in &indices {
                match &body {
                    Ok(body) => deliver(Transformed {
                        index: *index,
                        body,
                        memory_bytes: transformer.memory.bytes(),
                        is_copy,
                    }),
                    Err(nothing) if is_copy => fan_out.skip_copy(*index, &(*nothing).into()),
                    Err(nothing) => fan_out.skip(*index, (*nothing).into()),
                }
            }
        }
    }
    fan_out.keep(transformer.memory);
}

/// A chance that no other request has: each hasher has keys of its own.
fn chance() -> Chance {
    Chance::new(RandomState::new().hash_one(()))
}

/// Why there is nothing to deliver.
#[derive(Clone, Copy)]
enum Nothing {
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
struct Filtered {
    partial: PartialBody,
    /// What its items count as; `None` where it is all of the request.
    categories: Option<Vec<Option<Category>>>,
    left_out: Vec<Refused>,
}

impl Filtered {
    /// The categories that rate limits can be about.
    async fn categories(&self, request: &Request) -> Vec<Option<Category>> {
        match &self.categories {
            Some(categories) => categories.clone(),
            None => Box::pin(request.categories()).await,
        }
    }

    fn count_left_out(&self, core: &Core) {
        for refused in &self.left_out {
            core.counters.items.inc((*refused).into());
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

/// What is known of a request, and was made of it, so far.
struct Transformer<'t> {
    core: &'t Core,
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
    compressions: Compressions,
    /// The memory of what was made.
    memory: MemoryReservation,
}

impl Transformer<'_> {
    /// The outbounds with a transform, by its number, that take what was filtered. The others have limited
    /// all of it.
    async fn unlimited(&self, number: usize, fan_out: &FanOut, filtered: &Filtered) -> Vec<usize> {
        let now = Instant::now();
        let mut categories = None;
        let mut indices = Vec::new();
        for (index, outbound) in fan_out.route().with_transform(number) {
            if categories.is_none() && outbound.rate_limits.may_limit() {
                categories = Some(filtered.categories(self.request).await);
            }
            let categories = categories.as_deref().unwrap_or_default();
            match limited_seconds(&outbound.rate_limits, categories, now) {
                Some(seconds) => {
                    let reason = SkipReason::RateLimited(seconds);
                    fan_out.skip(index, Outcome::Skipped(reason));
                }
                None => {
                    filtered.count_left_out(self.core);
                    indices.push(index);
                }
            }
        }
        indices
    }

    /// What `transform` selects.
    async fn filter(&mut self, transform: &Transform) -> Result<Filtered, Nothing> {
        let Some(selection) = transform.selection else {
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

    /// How many copies there are to be: only what has ids that are known here is copied.
    fn copy_count(&self, transform: &Transform) -> u32 {
        let is_event = self.request.target.endpoint == Endpoint::Store
            && self.request.parsed.method == Method::Post;
        match self.request.envelope.is_some() || is_event {
            true => transform.copies,
            false => 1,
        }
    }

    /// Copy number `copy` of what was taken, in the form that `transform` asks for.
    async fn body(
        &mut self,
        transform: &Transform,
        filtered: &Filtered,
        copy: u32,
        template: &mut Option<Template>,
    ) -> Result<OutboundBody, Nothing> {
        let encoding = self.request.body.encoding;
        let form = transform.form(encoding);
        let is_unchanged =
            copy == 1 && filtered.categories.is_none() && filtered.partial.edits.is_empty();
        let target = match (form, &self.request.body.encoded) {
            (Form::AsReceived(_), Some(encoded)) if is_unchanged => {
                return Ok(OutboundBody::AsReceived(encoded.clone(), encoding.name()));
            }
            (Form::Plain, _) => None,
            (Form::AsReceived(target), _) => target,
            (Form::Compressed(target), _) => Some(target),
        };
        let partial = match copy {
            1 => filtered.partial.clone(),
            _ => self.copy(&filtered.partial, copy, template).await?,
        };
        match target {
            Some(target) if !(partial.front.is_empty() && partial.rest.is_empty()) => {
                let (core, memory) = (self.core, &mut self.memory);
                let compressed = match copy {
                    1 => {
                        self.compressions
                            .compress(&partial.rest, target, core, memory)
                            .await
                    }
                    // Each further copy has bytes of its own.
                    _ => compress(&partial.rest, target, core, memory)
                        .await
                        .map(Rc::new),
                };
                let compressed = compressed.ok_or(Nothing::Memory)?;
                Ok(OutboundBody::Compressed(partial, compressed))
            }
            Some(_) | None => Ok(OutboundBody::Plain(partial)),
        }
    }

    async fn copy(
        &mut self,
        partial: &PartialBody,
        copy: u32,
        template: &mut Option<Template>,
    ) -> Result<PartialBody, Nothing> {
        let template = match template {
            Some(template) => template,
            None => template.insert(self.template(partial).await?),
        };
        let length = template.text().len();
        self.reserve(length)?;
        let mut text = concat([template.text()], length).await;
        let mut slices = Slices::new(copies::RENAMED_MAX);
        for ids in template.ids() {
            copies::rename(&mut text, ids, copy);
            slices.spend(ids.len()).await;
        }
        Ok(template.partial(text))
    }

    /// What copies of `partial` are made from.
    async fn template(&mut self, partial: &PartialBody) -> Result<Template, Nothing> {
        let segments = [&partial.front[..], &partial.rest];
        let length = segments.iter().map(|segment| segment.len()).sum();
        self.reserve(length)?;
        let text = Bytes::from(concat(segments, length).await);
        let mut found = Vec::new();
        let mut slices = Slices::of_walks();
        for ids in copies::ids(&text, self.request.envelope.is_some()) {
            self.reserve(size_of_val(&*ids.spans))?;
            found.push(ids.spans);
            slices.spend(ids.walked_bytes).await;
        }
        Ok(Template::new(partial, text, found))
    }

    fn reserve(&mut self, bytes: usize) -> Result<(), Nothing> {
        match self.memory.grow(bytes) {
            true => Ok(()),
            false => Err(Nothing::Memory),
        }
    }
}
