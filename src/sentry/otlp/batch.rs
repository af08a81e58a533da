//! Takes records out of a body.

use super::nodes::{Node, NodeKind, NodeList, Signal};
use super::{json, protobuf};
use crate::sentry::endpoint;
use crate::sentry::json_ids::SEARCHED_BYTES_MAX;
use crate::sentry::sampling::{Chance, SamplingKey};
use crate::sentry::selection::Unwanted;
use crate::span::Span;

/// The longest body that is parsed. A walk over a longer one would keep the core from everything else.
pub(super) const BODY_BYTES_MAX: usize = SEARCHED_BYTES_MAX;

/// The encoding of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/x-protobuf`.
    Protobuf,
    /// `application/json`.
    Json,
}

impl Format {
    /// The format of a body with this `Content-Type`. Relay rejects all but these two.
    pub fn from_content_type(content_type: Option<&[u8]>) -> Format {
        match content_type {
            Some(value) if endpoint::is_json(value) => Format::Json,
            Some(_) | None => Format::Protobuf,
        }
    }
}

/// Where the records of a body are.
#[derive(Debug)]
pub struct Batch {
    format: Format,
    pub(super) nodes: Vec<Node>,
}

/// A change to the body that removes records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The bytes to replace.
    pub span: Span,
    /// The new length of a protobuf message; `None` to leave the bytes out.
    pub length: Option<usize>,
}

impl Change {
    /// What replaces the bytes.
    pub fn text(&self) -> Vec<u8> {
        self.length.map(protobuf::varint).unwrap_or_default()
    }
}

impl Batch {
    /// Finds the records of `body`. `chance` decides on those without a trace.
    ///
    /// `None` if the body is malformed, longer than 2 MiB, or has no records or too many.
    pub fn parse(body: &[u8], format: Format, signal: Signal, chance: Chance) -> Option<Batch> {
        if body.len() > BODY_BYTES_MAX {
            return None;
        }
        let mut list = NodeList {
            chance,
            nodes: Vec::new(),
        };
        let parsed = match format {
            Format::Protobuf => protobuf::parse(body, signal, &mut list),
            Format::Json => json::parse(body, signal, &mut list),
        };
        let nodes = list.nodes;
        let is_record = |node: &Node| matches!(node.kind, NodeKind::Record(_));
        (parsed.is_ok() && nodes.iter().any(is_record)).then_some(Batch { format, nodes })
    }

    /// The memory it takes.
    pub fn held_bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>()
    }

    /// The sampling key of each record.
    pub(crate) fn keys(&self) -> impl Iterator<Item = SamplingKey> {
        self.nodes.iter().filter_map(|node| match node.kind {
            NodeKind::Record(key) => Some(key),
            _ => None,
        })
    }

    /// The changes to the body that remove the records which `take` refuses, in order and without overlap.
    ///
    /// # Errors
    /// `take` refuses every record.
    pub fn retain(
        &self,
        take: impl Fn(SamplingKey) -> Result<(), Unwanted>,
    ) -> Result<Vec<Change>, Unwanted> {
        let mut removal = Removal {
            batch: self,
            take,
            changes: Vec::new(),
            refused: Unwanted::Filtered,
        };
        let left = removal.siblings(0, self.nodes.len());
        match left.is_gone() {
            true => Err(removal.refused),
            false => Ok(removal.changes),
        }
    }
}

/// The outcome for the nodes of a group.
#[derive(Default)]
struct Left {
    /// The number of records before, and of those that stay.
    records: usize,
    kept: usize,
    removed_bytes: usize,
}

impl Left {
    fn is_gone(&self) -> bool {
        self.records > 0 && self.kept == 0
    }
}

/// The removal of records from a batch.
struct Removal<'b, T> {
    batch: &'b Batch,
    take: T,
    changes: Vec<Change>,
    /// Why the last record was refused.
    refused: Unwanted,
}

impl<T: Fn(SamplingKey) -> Result<(), Unwanted>> Removal<'_, T> {
    /// Visits the siblings from index `start` to `end`. Recursion ends at the records, in a group of a group.
    fn siblings(&mut self, start: usize, end: usize) -> Left {
        let mut left = Left::default();
        let mut at = start;
        // Where the previous sibling ends, and whether any of them stays.
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
                    // With the comma in front, or else the comma behind.
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

    /// Visits the node at `index`.
    fn node(&mut self, node: &Node, index: usize) -> Left {
        match node.kind {
            NodeKind::Record(key) => {
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
            NodeKind::Group {
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
