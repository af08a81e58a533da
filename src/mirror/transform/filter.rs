//! Filters an envelope or an OTLP request by a selection.
//!
//! The result refers to the original body by spans, so that the bytes that stay do not change. It consists of a
//! front and a rest. The front is the header line, which contains the edits for each outbound. The rest is the
//! same for all outbounds with the selection. Usually it is one segment of the body and is not copied.
//!
//! The result for an OTLP request has no front.
//!
//! One item may contain logs, metrics or spans of several traces. If only some of these entries stay, the item
//! becomes shorter, and its header gets the new length and the new number of entries.

use std::borrow::Cow;

use bytes::Bytes;

use crate::mirror::cap::capping::Capped;
use crate::sentry::category::Category;
use crate::sentry::edit::Edit;
use crate::sentry::envelope_index::{EnvelopeIndex, IndexedItem};
use crate::sentry::otlp::Batch;
use crate::sentry::quantity::{Quantities, Quantity};
use crate::sentry::sampling;
use crate::sentry::selection::{Selection, Unwanted};
use crate::span::Span;

/// The body for all outbounds with the same selection, before the edits for each outbound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartialBody {
    /// The beginning of the body.
    pub front: Bytes,
    pub edits: Vec<Edit>,
    /// The end of the body, which is the same for all outbounds.
    pub rest: Bytes,
}

/// An envelope without the items that a selection drops.
#[derive(Debug)]
pub struct FilteredEnvelope {
    /// The header line.
    pub front: Vec<u8>,
    /// The edits in the header line.
    pub edits: Vec<Edit>,
    pub segments: Segments,
    pub categories: Vec<Option<Category>>,
    /// The reason for each item that was dropped.
    pub left_out: Vec<Unwanted>,
    pub split: Split,
}

/// What of an envelope stays and what does not, as Sentry counts items.
#[derive(Clone, Debug, Default)]
pub struct Split {
    pub(crate) kept: Quantities,
    pub(crate) filtered: Quantities,
    pub(crate) sampled: Quantities,
    pub(crate) capped: Quantities,
}

impl Split {
    fn drop(&mut self, quantity: Quantity, reason: Unwanted) {
        match reason {
            Unwanted::Filtered => self.filtered.add(quantity),
            Unwanted::Sampled => self.sampled.add(quantity),
            Unwanted::Capped => self.capped.add(quantity),
        }
    }
}

/// A text that consists of segments of a body and of new text.
#[derive(Debug, Default)]
pub struct Segments(Vec<Segment>);

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    /// Bytes of the body.
    Copy(Span),
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

    /// The span of the body that is equal to the text, if there is one.
    pub fn as_span(&self) -> Option<Span> {
        match self.0.as_slice() {
            [] => Some(Span::default()),
            [Segment::Copy(span)] => Some(*span),
            [_, ..] => None,
        }
    }

    pub fn len(&self) -> usize {
        let length = |segment: &Segment| match segment {
            Segment::Copy(span) => span.len(),
            Segment::Text(text) => text.len(),
        };
        self.0.iter().map(length).sum()
    }

    /// The memory of the list. The new texts are few and short, so they are not counted.
    pub fn held_bytes(&self) -> usize {
        self.0.capacity() * size_of::<Segment>()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The segments as slices, in order.
    pub fn slices<'p>(&'p self, body: &'p [u8]) -> impl Iterator<Item = &'p [u8]> {
        self.0.iter().map(|segment| match segment {
            Segment::Copy(span) => span.slice(body),
            Segment::Text(text) => text,
        })
    }
}

/// Filters the OTLP request `body`, whose records have `category`. Returns `None` if `selection` and `capped` leave
/// out nothing, else what stays, and the reason for each record that does not.
///
/// # Errors
/// No record stays.
pub(crate) fn filter_batch(
    selection: &Selection,
    capped: Option<&Capped<'_>>,
    category: Option<Category>,
    batch: &Batch,
    body: &[u8],
) -> Result<Option<(Segments, Vec<Unwanted>)>, Unwanted> {
    let take = |key| {
        selection.take(category, key)?;
        capped.map_or(Ok(()), |capped| capped.check(category, key))
    };
    let changes = batch.retain(take)?;
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
    let left_out = batch.keys().filter_map(|key| take(key).err());
    Ok(Some((segments, left_out.collect())))
}

/// Filters the envelope `body` with the `index` of its items and the `edits` in its header. Returns `None` if
/// `selection` and `capped` leave out nothing and change nothing.
///
/// # Errors
/// No item stays.
pub fn filter_envelope(
    selection: &Selection,
    capped: Option<&Capped<'_>>,
    index: &EnvelopeIndex,
    body: &[u8],
    edits: &[Edit],
) -> Result<Option<FilteredEnvelope>, Unwanted> {
    let Some(first) = index.items.first() else {
        return match selection.takes_unknown() {
            true => Ok(None),
            false => Err(Unwanted::Filtered),
        };
    };
    let mut segments = Segments::default();
    let mut categories = Vec::new();
    let mut left_out = Vec::new();
    let mut split = Split::default();
    for item in &index.items {
        match append_item(selection, capped, item, &mut segments, &mut split) {
            Ok(()) => categories.push(item.category),
            Err(unwanted) => left_out.push(unwanted),
        }
    }
    if categories.is_empty() {
        let first = [Unwanted::Capped, Unwanted::Sampled];
        let mut first = first.into_iter().filter(|reason| left_out.contains(reason));
        return Err(first.next().unwrap_or(Unwanted::Filtered));
    }
    let (front, edits, is_same) = scale_sample_rate(
        Span::new(0, first.whole.start).slice(body),
        edits,
        index.sample_rate,
        trace_rate(selection, &categories),
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
        split,
    }))
}

/// Appends `item`, or the part that `selection` and `capped` leave.
fn append_item(
    selection: &Selection,
    capped: Option<&Capped<'_>>,
    item: &IndexedItem,
    segments: &mut Segments,
    split: &mut Split,
) -> Result<(), Unwanted> {
    if item.entries.is_empty() {
        let taken = selection.take(item.category, item.sampling_key);
        let check = |capped: &Capped<'_>| capped.check_item(item);
        if let Err(reason) = taken.and_then(|()| capped.map_or(Ok(()), check)) {
            split.drop(item.quantity, reason);
            return Err(reason);
        }
        split.kept.add(item.quantity);
        segments.copy(item.whole);
        return Ok(());
    }
    let entry = Quantity::one(item.quantity.category);
    let mut kept = Vec::new();
    let mut unwanted = Unwanted::Filtered;
    for (index, (_, key)) in item.entries.iter().enumerate() {
        let taken = selection.take(item.category, *key);
        let check = |capped: &Capped<'_>| capped.check(item.category, *key);
        match taken.and_then(|()| capped.map_or(Ok(()), check)) {
            Ok(()) => {
                split.kept.add(entry);
                kept.push(index);
            }
            Err(reason) => {
                split.drop(entry, reason);
                unwanted = reason;
            }
        }
    }
    if kept.is_empty() {
        return Err(unwanted);
    }
    if kept.len() == item.entries.len() {
        segments.copy(item.whole);
    } else {
        append_entries(item, &kept, segments);
    }
    Ok(())
}

/// Appends `item` with only the entries at the indices `kept`.
fn append_entries(item: &IndexedItem, kept: &[usize], segments: &mut Segments) {
    let entry = |index: &usize| item.entries.get(*index).map(|(span, _)| *span);
    let spans: Vec<Span> = kept.iter().filter_map(entry).collect();
    let (Some((first, _)), Some((last, _))) = (item.entries.first(), item.entries.last()) else {
        return;
    };
    let opening = Span::new(item.payload.start, first.start);
    let closing = Span::new(last.end, item.payload.end);
    let commas = spans.len().saturating_sub(1);
    let inner: usize = spans.iter().map(|span| span.len()).sum();
    let length = opening.len() + inner + commas + closing.len();

    let mut numbers: Vec<(Span, usize)> = Vec::new();
    numbers.extend(item.length.map(|span| (span, length)));
    numbers.extend(item.item_count.map(|span| (span, spans.len())));
    numbers.sort_by_key(|(span, _)| span.start);
    let mut copied = item.whole.start;
    for (span, number) in numbers {
        segments.copy(Span::new(copied, span.start));
        segments.text(number.to_string().into_bytes());
        copied = span.end;
    }
    segments.copy(Span::new(copied, opening.end));
    for (index, span) in spans.into_iter().enumerate() {
        if index > 0 {
            segments.text(&b","[..]);
        }
        segments.copy(span);
    }
    segments.copy(Span::new(closing.start, item.whole.end));
}

/// The rate at which `selection` samples the trace of an envelope. It is the rate of the transaction or the
/// spans, because Sentry extrapolates their numbers by the sample rate; otherwise that of the first item.
fn trace_rate(selection: &Selection, categories: &[Option<Category>]) -> f64 {
    let is_trace = |category: &&Option<Category>| {
        matches!(category, Some(Category::Transaction | Category::Span))
    };
    let decisive = categories.iter().find(is_trace).or(categories.first());
    decisive.map_or(1.0, |category| selection.rate(*category))
}

/// Multiplies the sample rate in the header `line` by `factor`. Returns the line, the edits at their new
/// positions, and whether the line is unchanged.
fn scale_sample_rate(
    line: &[u8],
    edits: &[Edit],
    sample_rate: Option<Span>,
    factor: f64,
) -> (Vec<u8>, Vec<Edit>, bool) {
    let changed = sample_rate.filter(|_| factor < 1.0).and_then(|span| {
        let product = sampling::multiplied(span.slice(line), factor)?;
        Some((span, product))
    });
    let Some((rate, product)) = changed else {
        return (line.to_vec(), edits.to_vec(), true);
    };
    let (before, rest) = line.split_at_checked(rate.start).unwrap_or_default();
    let after = rest.get(rate.len()..).unwrap_or_default();
    let moved = |edit: &Edit| {
        let mut edit = *edit;
        if edit.span.start >= rate.end {
            // No underflow: the rate is before the edit.
            edit.span.start = edit.span.start - rate.len() + product.len();
            edit.span.end = edit.span.end - rate.len() + product.len();
        }
        edit
    };
    let front = [before, product.as_bytes(), after].concat();
    (front, edits.iter().map(moved).collect(), false)
}

#[cfg(test)]
mod tests;
