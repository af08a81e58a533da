//! The spans or logs of an OTLP request, each with the trace that it belongs to.
//!
//! An exporter sends what it has of many traces in one request: an object for each resource, in it one for
//! each scope, and in that the records, as protobuf or as JSON (opentelemetry-proto,
//! `ExportTraceServiceRequest` and `ExportLogsServiceRequest`). A [`Batch`] knows where they are, so that
//! those of some traces can be taken out. What stays keeps its bytes, but for the lengths in front of
//! protobuf messages that have become shorter. A scope or a resource of which no record stays goes, too.
//!
//! The walk over a body is linear, goes no deeper than the records and holds no more than [`NODES_MAX`] places.
//! A body that is not well-formed is no batch, since nobody knows what is in it.

mod json;
mod protobuf;

use super::endpoint::Endpoint;
use super::envelope::EnvelopeError;
use super::inventory::ENTRIES_MAX;
use super::places::SEARCHED_BYTES_MAX;
use super::sampling::{Chance, SamplingKey};
use super::selection::Refused;
use crate::span::Span;

/// How long a body may be to be taken apart. To walk over a longer one would keep the core from everything
/// else.
pub(crate) const BODY_BYTES_MAX: usize = SEARCHED_BYTES_MAX;

/// How many records, scopes and resources a body may have to be taken apart. Exporters send 512 records at
/// a time, and collectors 8,192.
pub(crate) const NODES_MAX: usize = ENTRIES_MAX;

/// What the records of a request are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Logs.
    Logs,
}

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/x-protobuf`.
    Protobuf,
    /// `application/json`.
    Json,
}

/// Where the records of a body are.
#[derive(Debug)]
pub struct Batch {
    format: Format,
    /// Each resource and scope stands in front of what is in it.
    nodes: Vec<Node>,
}

/// A record, or what has records in it.
#[derive(Debug)]
struct Node {
    /// The element of the array or the field of the message that it is.
    whole: Span,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Record(SamplingKey),
    Group {
        /// Its length, as protobuf has it in front of its content; empty in JSON.
        length: Span,
        /// Its content.
        content: Span,
        /// The node behind its last one.
        end: usize,
    },
}

/// A place of a body at which something else stands when records have gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// What is replaced.
    pub span: Span,
    /// The length of a protobuf message, which is written there; nothing where there is none.
    pub length: Option<usize>,
}

impl Change {
    /// What is written in the place.
    pub fn text(&self) -> Vec<u8> {
        self.length.map(protobuf::varint).unwrap_or_default()
    }
}

impl Signal {
    /// What requests to `endpoint` carry, if it takes OTLP.
    pub fn of(endpoint: Endpoint) -> Option<Signal> {
        match endpoint {
            Endpoint::OtlpTraces => Some(Signal::Traces),
            Endpoint::OtlpLogs => Some(Signal::Logs),
            _ => None,
        }
    }
}

impl Format {
    /// The format of a body with this `Content-Type`. Relay refuses all but these two.
    pub fn of(content_type: Option<&[u8]>) -> Format {
        match content_type {
            Some(value) if super::endpoint::is_json(value) => Format::Json,
            Some(_) | None => Format::Protobuf,
        }
    }
}

impl Batch {
    /// Finds the records of `body`; those without a trace have sampling keys by `chance`. `None` where it is not
    /// to be taken apart: it is not well-formed or too long, or it has too many records or none at all.
    pub fn of(body: &[u8], format: Format, signal: Signal, chance: Chance) -> Option<Batch> {
        if body.len() > BODY_BYTES_MAX {
            return None;
        }
        let mut finder = Finder {
            chance,
            nodes: Vec::new(),
        };
        let found = match format {
            Format::Protobuf => protobuf::find(body, signal, &mut finder),
            Format::Json => json::find(body, signal, &mut finder),
        };
        let nodes = finder.nodes;
        let is_record = |node: &Node| matches!(node.kind, Kind::Record(_));
        (found.is_ok() && nodes.iter().any(is_record)).then_some(Batch { format, nodes })
    }

    /// What it takes in memory.
    pub fn held_bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>()
    }

    /// What changes in the body where `take` takes only some of the records, in order of position and
    /// without overlap; nothing where it takes all of them.
    ///
    /// # Errors
    /// It takes none of them.
    pub fn cut(
        &self,
        take: impl Fn(SamplingKey) -> Result<(), Refused>,
    ) -> Result<Vec<Change>, Refused> {
        let mut cut = Cut {
            batch: self,
            take,
            changes: Vec::new(),
            refused: Refused::Filtered,
        };
        let left = cut.siblings(0, self.nodes.len());
        match left.is_gone() {
            true => Err(cut.refused),
            false => Ok(cut.changes),
        }
    }
}

/// What is left of the nodes in a group.
#[derive(Default)]
struct Left {
    /// How many records there were, and how many of them stay.
    records: usize,
    kept: usize,
    /// By how many bytes they have become shorter.
    removed_bytes: usize,
}

impl Left {
    fn is_gone(&self) -> bool {
        self.records > 0 && self.kept == 0
    }
}

/// A batch from which records are taken out.
struct Cut<'b, T> {
    batch: &'b Batch,
    take: T,
    changes: Vec<Change>,
    /// Why the last one is not taken.
    refused: Refused,
}

impl<T: Fn(SamplingKey) -> Result<(), Refused>> Cut<'_, T> {
    /// Cuts what stands side by side from `start` to `end`. A group in a group is the deepest there is.
    fn siblings(&mut self, start: usize, end: usize) -> Left {
        let mut left = Left::default();
        let mut at = start;
        // The end of the sibling before, and whether any before stays.
        let mut before = None;
        let mut is_any_kept = false;
        while let Some(node) = self.batch.nodes.get(at).filter(|_| at < end) {
            let next = node.next(at);
            let mark = self.changes.len();
            let inside = self.node(node, at);
            left.records += inside.records;
            left.kept += inside.kept;
            if inside.is_gone() {
                self.changes.truncate(mark);
                let span = match (self.batch.format, before) {
                    (Format::Protobuf, _) => node.whole,
                    // With the comma in front of it, or else with that behind it.
                    (Format::Json, Some(before)) if is_any_kept => {
                        Span::new(before, node.whole.end)
                    }
                    (Format::Json, _) => {
                        let after = self.batch.nodes.get(next).filter(|_| next < end);
                        let end = after.map_or(node.whole.end, |after| after.whole.start);
                        Span::new(node.whole.start, end)
                    }
                };
                left.removed_bytes += span.len();
                self.changes.push(Change { span, length: None });
            } else {
                left.removed_bytes += inside.removed_bytes;
                is_any_kept = true;
            }
            before = Some(node.whole.end);
            at = next;
        }
        left
    }

    /// Cuts what is in the node at `index`.
    fn node(&mut self, node: &Node, index: usize) -> Left {
        match node.kind {
            Kind::Record(key) => {
                let taken = (self.take)(key);
                if let Err(refused) = taken {
                    self.refused = refused;
                }
                Left {
                    records: 1,
                    kept: usize::from(taken.is_ok()),
                    removed_bytes: 0,
                }
            }
            Kind::Group {
                length,
                content,
                end,
            } => {
                let mark = self.changes.len();
                if !length.is_empty() {
                    self.changes.push(Change {
                        span: length,
                        length: None,
                    });
                }
                let mut left = self.siblings(index + 1, end);
                if length.is_empty() {
                    return left;
                }
                if left.removed_bytes == 0 {
                    self.changes.truncate(mark);
                } else if let Some(change) = self.changes.get_mut(mark) {
                    let bytes = content.len().saturating_sub(left.removed_bytes);
                    change.length = Some(bytes);
                    left.removed_bytes += length.len().saturating_sub(change.text().len());
                }
                left
            }
        }
    }
}

impl Node {
    /// The node behind this one at `index` and what is in it.
    fn next(&self, index: usize) -> usize {
        match self.kind {
            Kind::Record(_) => index + 1,
            // Never back, so that a walk ends.
            Kind::Group { end, .. } => end.max(index + 1),
        }
    }
}

/// A batch that is being made.
struct Finder {
    chance: Chance,
    nodes: Vec<Node>,
}

impl Finder {
    /// Notes a record.
    fn record(&mut self, whole: Span, key: Option<SamplingKey>) -> Result<(), EnvelopeError> {
        let key = key.unwrap_or_else(|| self.chance.sampling_key(whole.start));
        self.push(Node {
            whole,
            kind: Kind::Record(key),
        })
    }

    /// Begins a group; [`Finder::end`] ends it.
    fn begin(&mut self, whole: Span, length: Span, content: Span) -> Result<usize, EnvelopeError> {
        let index = self.nodes.len();
        self.push(Node {
            whole,
            kind: Kind::Group {
                length,
                content,
                end: index + 1,
            },
        })?;
        Ok(index)
    }

    /// Ends the group at `index`, which ends at `at`.
    fn end(&mut self, index: usize, at: usize) {
        let next = self.nodes.len();
        if let Some(node) = self.nodes.get_mut(index) {
            node.whole.end = at;
            if let Kind::Group { end, .. } = &mut node.kind {
                *end = next;
            }
        }
    }

    fn push(&mut self, node: Node) -> Result<(), EnvelopeError> {
        if self.nodes.len() >= NODES_MAX {
            return Err(EnvelopeError::TooMany);
        }
        self.nodes.push(node);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
