//! What is made of a request for the outbounds that do not get it whole, once and decoded.
//!
//! The others are on their way already. For each handling of the route the request is cut, copied and
//! compressed as it says, once for all outbounds that have it. Large bodies are worked on in slices with
//! pauses between them, so that the core's other connections are served meanwhile, and everything that is
//! made counts in the memory budget: where that does not allow it, these deliveries fail and no other.

use std::cell::OnceCell;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;

use crate::budget::Reservation;
use crate::http::head::{HeaderName, Method};
use crate::mirror::copies::{self, Template};
use crate::mirror::deliver::FanOut;
use crate::mirror::handling::{Form, Handling};
use crate::mirror::limited::withheld_seconds;
use crate::mirror::outcome::{Outcome, SkipReason};
use crate::mirror::portion::{self, Pieces, Portion};
use crate::mirror::rewrite::{self, Original, Parcel};
use crate::mirror::routes::Route;
use crate::sentry::category::Category;
use crate::sentry::endpoint::Endpoint;
use crate::sentry::envelope::EnvelopeError;
use crate::sentry::inventory::{EnvelopeIndex, Indexer};
use crate::sentry::otlp::{Batch, Format, Signal};
use crate::sentry::sampling::{Chance, Digest, SamplingKey};
use crate::sentry::selection::{Refused, Selection};
use crate::server::compression::{Compressions, compress};
use crate::server::core::{Core, Routing};
use crate::server::gate::Pass;
use crate::server::part::part;
use crate::server::request::Sent;
use crate::server::turns::{Turns, joined};
use crate::upstream::exchange::Failure;

/// How much of a body is hashed at a time.
const DIGESTED_BYTES: usize = 256 * 1024;

/// What a delivery keeps alive.
type Kept = (Reservation, Pass);

/// Delivers a request to the outbounds of `route` that have a handling.
pub(super) async fn deliver_handled(
    core: &Rc<Core>,
    routing: &Routing,
    fan_out: &Rc<FanOut<Kept>>,
    route: &Route,
    original: &Original<'_>,
    sent: &Sent<'_>,
) {
    let mut preparation = Preparation {
        core,
        original,
        sent,
        sampling: route.samples.then(chance),
        part: OnceCell::new(),
        inventory: None,
        records: None,
        taken: Vec::new(),
        compressions: Compressions::default(),
        share: core.budget.reservation(),
    };
    for (index, handling) in route.handlings.iter().enumerate() {
        let taken = match preparation.take(handling).await {
            Ok(taken) => taken,
            Err(missing) => {
                for (outbound, _) in route.handled(index) {
                    fan_out.record(outbound, missing.into());
                }
                continue;
            }
        };
        let now = Instant::now();
        let mut items = None;
        let mut open = Vec::new();
        for (place, outbound) in route.handled(index) {
            let withheld = match outbound.limits.closed(now) {
                Some(closed) => {
                    if items.is_none() {
                        items = Some(taken.items(sent).await);
                    }
                    withheld_seconds(&closed, items.as_deref().unwrap_or_default(), now)
                }
                None => None,
            };
            if let Some(pause) = withheld {
                fan_out.record(place, Outcome::Skipped(SkipReason::RateLimited(pause)));
            } else if let Some(upstream) = routing.upstreams.get(outbound.origin) {
                taken.count_left_out(core);
                open.push((place, outbound, upstream));
            }
        }
        if open.is_empty() {
            continue;
        }
        let mut template = None;
        for copy in 1..=preparation.copy_count(handling) {
            let is_first = copy == 1;
            let parcel = preparation
                .parcel(handling, &taken, copy, &mut template)
                .await;
            for (place, outbound, upstream) in &open {
                let made = match &parcel {
                    Ok(parcel) => {
                        let request = original.render_parcel(outbound, parcel);
                        let own = rewrite::held_bytes(outbound, &request);
                        let kept = fan_out.kept_bytes() + preparation.share.bytes();
                        let room = upstream.admit(own, kept).ok_or(Missing::Memory);
                        room.map(|room| (request, room))
                    }
                    Err(missing) => Err(*missing),
                };
                match made {
                    Ok(admitted) => {
                        fan_out.send(&core.lanes, *place, upstream, admitted, is_first);
                    }
                    Err(missing) if is_first => fan_out.record(*place, missing.into()),
                    Err(missing) => fan_out.note(*place, &missing.into()),
                }
            }
        }
    }
    fan_out.keep((preparation.share, core.gate.enter()));
}

/// A chance that no other request has: each hasher has keys of its own.
fn chance() -> Chance {
    Chance::new(RandomState::new().hash_one(()))
}

/// Why there is nothing to deliver.
#[derive(Clone, Copy)]
enum Missing {
    /// The outbounds do not want any of it.
    Refused(Refused),
    /// There is no memory left to make it.
    Memory,
}

impl From<Missing> for Outcome {
    fn from(missing: Missing) -> Outcome {
        match missing {
            Missing::Refused(refused) => Outcome::Skipped(refused.into()),
            Missing::Memory => Outcome::Failed(Failure::Overloaded),
        }
    }
}

/// What a selection takes of the request.
#[derive(Clone, Default)]
struct Taken {
    portion: Portion,
    /// What its items count as; `None` where it is all of the request.
    categories: Option<Vec<Option<Category>>>,
    left_out: Vec<Refused>,
}

impl Taken {
    /// What rate limits can be about.
    async fn items(&self, sent: &Sent<'_>) -> Vec<Option<Category>> {
        match &self.categories {
            Some(categories) => categories.clone(),
            None => Box::pin(sent.items()).await,
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

/// A request that is being prepared.
struct Preparation<'p> {
    core: &'p Core,
    original: &'p Original<'p>,
    sent: &'p Sent<'p>,
    /// What decides on that which has no id, where a share is wanted.
    sampling: Option<Chance>,
    /// What it is where it is no envelope.
    part: OnceCell<(Option<Category>, SamplingKey)>,
    inventory: Option<Result<EnvelopeIndex, EnvelopeError>>,
    /// The same of an OTLP request.
    records: Option<Records>,
    /// What the selections took that were asked already.
    taken: Vec<(Selection, Result<Taken, Missing>)>,
    compressions: Compressions,
    /// The memory of what is made.
    share: Reservation,
}

impl Preparation<'_> {
    /// What `handling` selects.
    async fn take(&mut self, handling: &Handling) -> Result<Taken, Missing> {
        let Some(selection) = handling.selection else {
            return Ok(self.everything());
        };
        let known = self.taken.iter().find(|(known, _)| *known == selection);
        if let Some((_, taken)) = known {
            return taken.clone();
        }
        let taken = self.select(&selection).await;
        self.taken.push((selection, taken.clone()));
        taken
    }

    /// All of the request: what is not each outbound's own is shared with everybody.
    fn everything(&self) -> Taken {
        let (body, edits) = (self.original.body, self.original.body_edits);
        let edited_end = edits.last().map_or(0, |edit| edit.span.end);
        let front_bytes = edited_end.min(body.len());
        Taken {
            portion: Portion {
                front: body.slice(..front_bytes),
                edits: edits.to_vec(),
                rest: body.slice(front_bytes..),
            },
            ..Taken::default()
        }
    }

    async fn select(&mut self, selection: &Selection) -> Result<Taken, Missing> {
        let Some(envelope) = &self.sent.envelope else {
            let signal = Signal::from_endpoint(self.sent.target.endpoint);
            if let Some(signal) = signal.filter(|_| !self.original.body.is_empty()) {
                return self.select_records(selection, signal).await;
            }
            let chance = self.sampling.unwrap_or_default();
            let part = || part(self.sent, self.original.head_edits, chance);
            let (category, key) = self.part.get_or_init(part);
            let taken = selection.take(*category, *key);
            return taken.map(|()| self.everything()).map_err(Missing::Refused);
        };
        let body = self.original.body;
        if self.inventory.is_none() {
            self.inventory = Some(self.survey(envelope.end).await?);
        }
        let Some(Ok(inventory)) = &self.inventory else {
            // What cannot be taken apart might hold anything.
            let key = self.sampling.unwrap_or_default().sampling_key(0);
            let taken = selection.take(None, key);
            return taken.map(|()| self.everything()).map_err(Missing::Refused);
        };
        let cut = portion::cut(selection, inventory, body, self.original.body_edits);
        match cut.map_err(Missing::Refused)? {
            None => Ok(self.everything()),
            Some(cut) => {
                self.reserve(cut.front.len())?;
                let rest = self.assemble(&cut.pieces).await?;
                Ok(Taken {
                    portion: Portion {
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
    ) -> Result<Taken, Missing> {
        let category = Category::from_endpoint(self.sent.target.endpoint);
        let any = selection.take(category, SamplingKey::new(b""));
        if any == Err(Refused::Filtered) || selection.rate(category) >= 1.0 {
            return any.map(|()| self.everything()).map_err(Missing::Refused);
        }
        if self.records.is_none() {
            self.records = Some(self.find_records(signal).await?);
        }
        let pieces = match &self.records {
            Some(Records::Apart(batch)) => {
                portion::cut_batch(selection, category, batch, self.original.body)
            }
            Some(Records::Whole(key)) => selection.take(category, *key).map(|()| None),
            None => Ok(None),
        };
        match pieces.map_err(Missing::Refused)? {
            None => Ok(self.everything()),
            Some(pieces) => Ok(Taken {
                portion: Portion {
                    rest: self.assemble(&pieces).await?,
                    ..Portion::default()
                },
                categories: Some(vec![category]),
                left_out: Vec::new(),
            }),
        }
    }

    /// What decides on the records of an OTLP request.
    async fn find_records(&mut self, signal: Signal) -> Result<Records, Missing> {
        let Original {
            head, parsed, body, ..
        } = self.original;
        let chance = self.sampling.unwrap_or_default();
        let format = Format::from_content_type(parsed.values(HeaderName::ContentType, head).next());
        let mut turns = Turns::of_walks();
        if let Some(batch) = Batch::parse(body, format, signal, chance) {
            self.reserve(batch.held_bytes())?;
            turns.pass(body.len()).await;
            return Ok(Records::Apart(batch));
        }
        let mut digest = Digest::default();
        for slice in body.chunks(DIGESTED_BYTES) {
            digest.update(slice);
            turns.pass(slice.len()).await;
        }
        Ok(Records::Whole(digest.finish()))
    }

    /// The inventory of an envelope, whose header ends at `header_end`.
    async fn survey(
        &mut self,
        header_end: usize,
    ) -> Result<Result<EnvelopeIndex, EnvelopeError>, Missing> {
        let reserved_bytes = self.share.bytes();
        let surveyed = self.walk(header_end).await;
        // Of a survey that did not come to its end nothing is left.
        if !matches!(surveyed, Ok(Ok(_))) {
            self.share.shrink(self.share.bytes() - reserved_bytes);
        }
        surveyed
    }

    async fn walk(
        &mut self,
        header_end: usize,
    ) -> Result<Result<EnvelopeIndex, EnvelopeError>, Missing> {
        let mut survey = Indexer::new(self.original.body, header_end, self.sampling);
        let mut turns = Turns::of_walks();
        loop {
            let held_bytes = survey.held_bytes();
            let walked_bytes = match survey.step() {
                Ok(Some(walked_bytes)) => walked_bytes,
                Ok(None) => return Ok(Ok(survey.finish())),
                Err(error) => return Ok(Err(error)),
            };
            self.reserve(survey.held_bytes() - held_bytes)?;
            turns.pass(walked_bytes).await;
        }
    }

    /// What `pieces` make; a part of the body if it is one piece of that.
    async fn assemble(&mut self, pieces: &Pieces) -> Result<Bytes, Missing> {
        let body = self.original.body;
        if let Some(span) = pieces.as_span() {
            return Ok(body.slice(span.start..span.end));
        }
        let (length, list_bytes) = (pieces.len(), pieces.held_bytes());
        self.reserve(length + list_bytes)?;
        let rest = joined(pieces.slices(body), length).await;
        self.share.shrink(list_bytes);
        Ok(Bytes::from(rest))
    }

    /// How many copies there are to be: only what has ids that are known here is copied.
    fn copy_count(&self, handling: &Handling) -> u32 {
        let is_event = self.sent.target.endpoint == Endpoint::Store
            && self.original.parsed.method == Method::Post;
        match self.sent.envelope.is_some() || is_event {
            true => handling.copies,
            false => 1,
        }
    }

    /// Copy number `copy` of what was taken, in the form that `handling` asks for.
    async fn parcel(
        &mut self,
        handling: &Handling,
        taken: &Taken,
        copy: u32,
        template: &mut Option<Template>,
    ) -> Result<Parcel, Missing> {
        let encoding = self.sent.body.encoding;
        let form = handling.form(encoding);
        let is_unchanged =
            copy == 1 && taken.categories.is_none() && taken.portion.edits.is_empty();
        let target = match (form, &self.sent.body.coded) {
            (Form::AsItCame(_), Some(coded)) if is_unchanged => {
                return Ok(Parcel::AsItCame(coded.clone(), encoding.name()));
            }
            (Form::Plain, _) => None,
            (Form::AsItCame(target), _) => target,
            (Form::Compressed(target), _) => Some(target),
        };
        let portion = match copy {
            1 => taken.portion.clone(),
            _ => self.copy(&taken.portion, copy, template).await?,
        };
        match target {
            Some(target) if !(portion.front.is_empty() && portion.rest.is_empty()) => {
                let (core, share) = (self.core, &mut self.share);
                let compressed = match copy {
                    1 => {
                        self.compressions
                            .of(&portion.rest, target, core, share)
                            .await
                    }
                    // Each further copy has bytes of its own.
                    _ => compress(&portion.rest, target, core, share)
                        .await
                        .map(Rc::new),
                };
                let compressed = compressed.ok_or(Missing::Memory)?;
                Ok(Parcel::Compressed(portion, compressed))
            }
            Some(_) | None => Ok(Parcel::Plain(portion)),
        }
    }

    async fn copy(
        &mut self,
        portion: &Portion,
        copy: u32,
        template: &mut Option<Template>,
    ) -> Result<Portion, Missing> {
        let template = match template {
            Some(template) => template,
            None => template.insert(self.template(portion).await?),
        };
        let length = template.text().len();
        self.reserve(length)?;
        let mut text = joined([template.text()], length).await;
        let mut turns = Turns::of(copies::RENAMED_MAX);
        for ids in template.ids() {
            copies::rename(&mut text, ids, copy);
            turns.pass(ids.len()).await;
        }
        Ok(template.portion(text))
    }

    /// What copies of `portion` are made from.
    async fn template(&mut self, portion: &Portion) -> Result<Template, Missing> {
        let pieces = [&portion.front[..], &portion.rest];
        let length = pieces.iter().map(|piece| piece.len()).sum();
        self.reserve(length)?;
        let text = Bytes::from(joined(pieces, length).await);
        let mut found = Vec::new();
        let mut turns = Turns::of_walks();
        for ids in copies::ids(&text, self.sent.envelope.is_some()) {
            self.reserve(size_of_val(&*ids.spans))?;
            found.push(ids.spans);
            turns.pass(ids.walked_bytes).await;
        }
        Ok(Template::new(portion, text, found))
    }

    fn reserve(&mut self, bytes: usize) -> Result<(), Missing> {
        match self.share.grow(bytes) {
            true => Ok(()),
            false => Err(Missing::Memory),
        }
    }
}
