//! The part of an envelope that a selection takes.
//!
//! An envelope is cut by spans: what stays keeps its bytes. It falls into a front, its header line, in
//! which each outbound's own texts are put later, and a rest that is the same for all outbounds with
//! this selection. Usually the rest is one segment of the body that came, and then nothing is copied.
//!
//! An OTLP request is cut like that, too; it has no front.
//!
//! Logs, metrics and spans of several traces come in one item. Where only some of them stay, the item
//! is made shorter, and the two numbers in its header that depend on that are written anew.

use std::borrow::Cow;

use bytes::Bytes;

use crate::sentry::category::Category;
use crate::sentry::edit::Edit;
use crate::sentry::envelope_index::{EnvelopeIndex, IndexedItem};
use crate::sentry::otlp::Batch;
use crate::sentry::sampling;
use crate::sentry::selection::{Refused, Selection};
use crate::span::Span;

/// What goes to the outbounds with one selection, without what is each outbound's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartialBody {
    /// The beginning of the body.
    pub front: Bytes,
    /// What changes in the front for each outbound.
    pub edits: Vec<Edit>,
    /// What follows it.
    pub rest: Bytes,
}

/// What stays of an envelope.
#[derive(Debug)]
pub struct FilteredEnvelope {
    /// The header line.
    pub front: Vec<u8>,
    /// What changes in it for each outbound.
    pub edits: Vec<Edit>,
    /// What follows it.
    pub segments: Segments,
    /// What the items that stay count as.
    pub categories: Vec<Option<Category>>,
    /// How many items were left out, each with the reason.
    pub left_out: Vec<Refused>,
}

/// A text made of segments of a body.
#[derive(Debug, Default)]
pub struct Segments(Vec<Segment>);

/// A part of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    /// Bytes of the body.
    Copy(Span),
    /// Other bytes.
    Text(Cow<'static, [u8]>),
}

impl Segments {
    fn copy(&mut self, span: Span) {
        match self.0.last_mut() {
            _ if span.is_empty() => {}
            Some(Segment::Copy(last)) if last.end == span.start => last.end = span.end,
            Some(Segment::Copy(_) | Segment::Text(_)) | None => self.0.push(Segment::Copy(span)),
        }
    }

    fn text(&mut self, text: impl Into<Cow<'static, [u8]>>) {
        self.0.push(Segment::Text(text.into()));
    }

    /// The one span that it is, if nothing has to be copied to make it.
    pub fn as_span(&self) -> Option<Span> {
        match self.0.as_slice() {
            [] => Some(Span::default()),
            [Segment::Copy(span)] => Some(*span),
            [_, ..] => None,
        }
    }

    /// How long it is.
    pub fn len(&self) -> usize {
        let length = |segment: &Segment| match segment {
            Segment::Copy(span) => span.len(),
            Segment::Text(text) => text.len(),
        };
        self.0.iter().map(length).sum()
    }

    /// What the list of them takes in memory; the few texts that are numbers are not worth counting.
    pub fn held_bytes(&self) -> usize {
        self.0.capacity() * size_of::<Segment>()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its parts as slices, in order.
    pub fn slices<'p>(&'p self, body: &'p [u8]) -> impl Iterator<Item = &'p [u8]> {
        self.0.iter().map(|segment| match segment {
            Segment::Copy(span) => span.slice(body),
            Segment::Text(text) => text,
        })
    }
}

/// What `selection` takes of the OTLP request `body`, whose records are of `category`; `None` for all of it.
///
/// # Errors
/// It takes nothing of it.
pub(crate) fn filter_batch(
    selection: &Selection,
    category: Option<Category>,
    batch: &Batch,
    body: &[u8],
) -> Result<Option<Segments>, Refused> {
    let changes = batch.retain(|key| selection.take(category, key))?;
    if changes.is_empty() {
        return Ok(None);
    }
    let mut segments = Segments::default();
    let mut copied = 0;
    for change in changes {
        segments.copy(Span::new(copied, change.span.start));
        if change.length.is_some() {
            segments.text(change.text());
        }
        copied = change.span.end;
    }
    segments.copy(Span::new(copied, body.len()));
    Ok(Some(segments))
}

/// What `selection` takes of the envelope `body`, in whose header `edits` are to be made; `None` for
/// all of it, as it is.
///
/// # Errors
/// It takes nothing of it.
pub fn filter_envelope(
    selection: &Selection,
    inventory: &EnvelopeIndex,
    body: &[u8],
    edits: &[Edit],
) -> Result<Option<FilteredEnvelope>, Refused> {
    let Some(first) = inventory.items.first() else {
        return match selection.takes_unknown() {
            true => Ok(None),
            false => Err(Refused::Filtered),
        };
    };
    let mut segments = Segments::default();
    let mut categories = Vec::new();
    let mut left_out = Vec::new();
    for part in &inventory.items {
        match take(selection, part, &mut segments) {
            Ok(()) => categories.push(part.category),
            Err(refused) => left_out.push(refused),
        }
    }
    if categories.is_empty() {
        let is_sampled = left_out.contains(&Refused::Sampled);
        return Err(if is_sampled {
            Refused::Sampled
        } else {
            Refused::Filtered
        });
    }
    let (front, edits, is_same) = front(
        Span::new(0, first.whole.start).slice(body),
        edits,
        inventory.sample_rate,
        rate_of_trace(selection, &categories),
    );
    let all = Span::new(first.whole.start, body.len());
    if is_same && segments.as_span() == Some(all) {
        return Ok(None);
    }
    Ok(Some(FilteredEnvelope {
        front,
        edits,
        segments,
        categories,
        left_out,
    }))
}

/// Appends what is taken of an item.
fn take(selection: &Selection, part: &IndexedItem, segments: &mut Segments) -> Result<(), Refused> {
    if part.entries.is_empty() {
        selection.take(part.category, part.sampling_key)?;
        segments.copy(part.whole);
        return Ok(());
    }
    let mut kept = Vec::new();
    let mut refused = Refused::Filtered;
    for (index, (_, key)) in part.entries.iter().enumerate() {
        match selection.take(part.category, *key) {
            Ok(()) => kept.push(index),
            Err(reason) => refused = reason,
        }
    }
    if kept.is_empty() {
        return Err(refused);
    }
    if kept.len() == part.entries.len() {
        segments.copy(part.whole);
    } else {
        shorten(part, &kept, segments);
    }
    Ok(())
}

/// Appends an item with some of its entries only.
fn shorten(part: &IndexedItem, kept: &[usize], segments: &mut Segments) {
    let entry = |index: &usize| part.entries.get(*index).map(|(span, _)| *span);
    let spans: Vec<Span> = kept.iter().filter_map(entry).collect();
    let (Some((first, _)), Some((last, _))) = (part.entries.first(), part.entries.last()) else {
        return;
    };
    let opening = Span::new(part.payload.start, first.start);
    let closing = Span::new(last.end, part.payload.end);
    let commas = spans.len().saturating_sub(1);
    let inner: usize = spans.iter().map(|span| span.len()).sum();
    let length = opening.len() + inner + commas + closing.len();

    let mut numbers: Vec<(Span, usize)> = Vec::new();
    numbers.extend(part.length.map(|place| (place, length)));
    numbers.extend(part.item_count.map(|place| (place, spans.len())));
    numbers.sort_by_key(|(place, _)| place.start);
    let mut copied = part.whole.start;
    for (place, number) in numbers {
        segments.copy(Span::new(copied, place.start));
        segments.text(number.to_string().into_bytes());
        copied = place.end;
    }
    segments.copy(Span::new(copied, opening.end));
    for (index, span) in spans.into_iter().enumerate() {
        if index > 0 {
            segments.text(&b","[..]);
        }
        segments.copy(span);
    }
    segments.copy(Span::new(closing.start, part.whole.end));
}

/// The rate that the trace in an envelope was sampled with here: that of its transaction or spans, whose
/// numbers are extrapolated by it, or else that of the first item.
fn rate_of_trace(selection: &Selection, categories: &[Option<Category>]) -> f64 {
    let is_trace = |category: &&Option<Category>| {
        matches!(category, Some(Category::Transaction | Category::Span))
    };
    let decisive = categories.iter().find(is_trace).or(categories.first());
    decisive.map_or(1.0, |category| selection.rate(*category))
}

/// The header line with its sample rate multiplied, the edits moved accordingly, and whether it is still
/// the same.
fn front(
    line: &[u8],
    edits: &[Edit],
    sample_rate: Option<Span>,
    factor: f64,
) -> (Vec<u8>, Vec<Edit>, bool) {
    let changed = sample_rate.filter(|_| factor < 1.0).and_then(|place| {
        let product = sampling::multiplied(place.slice(line), factor)?;
        Some((place, product))
    });
    let Some((place, product)) = changed else {
        return (line.to_vec(), edits.to_vec(), true);
    };
    let (before, rest) = line.split_at_checked(place.start).unwrap_or_default();
    let after = rest.get(place.len()..).unwrap_or_default();
    let moved = |edit: &Edit| {
        let mut edit = *edit;
        if edit.span.start >= place.end {
            // The rate stands before it, so that neither can become negative.
            edit.span.start = edit.span.start - place.len() + product.len();
            edit.span.end = edit.span.end - place.len() + product.len();
        }
        edit
    };
    let front = [before, product.as_bytes(), after].concat();
    (front, edits.iter().map(moved).collect(), false)
}

#[cfg(test)]
mod tests;
