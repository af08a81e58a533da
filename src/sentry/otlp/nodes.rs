//! The list of records that the parsers of both formats fill.

use crate::sentry::endpoint::Endpoint;
use crate::sentry::envelope::EnvelopeError;
use crate::sentry::envelope_index::ENTRIES_MAX;
use crate::sentry::sampling::{Chance, SamplingKey};
use crate::span::Span;

/// The number of records, scopes and resources that are listed at most. Exporters send 512 records at a time,
/// collectors 8,192.
pub(super) const NODES_MAX: usize = ENTRIES_MAX;

/// The kind of record in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Spans.
    Traces,
    Logs,
}

impl Signal {
    /// The records that `endpoint` accepts, if it is one of OTLP.
    pub fn from_endpoint(endpoint: Endpoint) -> Option<Signal> {
        match endpoint {
            Endpoint::OtlpTraces => Some(Signal::Traces),
            Endpoint::OtlpLogs => Some(Signal::Logs),
            _ => None,
        }
    }
}

/// A record, or a group of records: a resource or a scope.
#[derive(Debug)]
pub(super) struct Node {
    /// The element of the JSON array, or the field of the protobuf message.
    pub(super) whole: Span,
    pub(super) kind: NodeKind,
}

#[derive(Debug)]
pub(super) enum NodeKind {
    Record(SamplingKey),
    Group {
        /// The length in front of the content in protobuf; empty in JSON.
        length: Span,
        content: Span,
        /// The index of the first node after this group.
        end: usize,
    },
}

impl Node {
    /// The index of the node after this one, which is at `index`, and after its content.
    pub(super) fn next(&self, index: usize) -> usize {
        match self.kind {
            NodeKind::Record(_) => index + 1,
            // Never back, so that every walk ends.
            NodeKind::Group { end, .. } => end.max(index + 1),
        }
    }
}

/// The nodes of a body that is being parsed. A group stands in front of its content.
pub(super) struct NodeList {
    pub(super) chance: Chance,
    pub(super) nodes: Vec<Node>,
}

impl NodeList {
    /// Appends a record. Without a `key`, it gets a sampling key from the chance of the request.
    pub(super) fn record(
        &mut self,
        whole: Span,
        key: Option<SamplingKey>,
    ) -> Result<(), EnvelopeError> {
        let key = key.unwrap_or_else(|| self.chance.sampling_key(whole.start));
        self.push(Node {
            whole,
            kind: NodeKind::Record(key),
        })
    }

    /// Begins a group, and returns its index for [`NodeList::end`].
    pub(super) fn begin(
        &mut self,
        whole: Span,
        length: Span,
        content: Span,
    ) -> Result<usize, EnvelopeError> {
        let index = self.nodes.len();
        self.push(Node {
            whole,
            kind: NodeKind::Group {
                length,
                content,
                end: index + 1,
            },
        })?;
        Ok(index)
    }

    /// Ends the group of this `index` at the position `at`.
    pub(super) fn end(&mut self, index: usize, at: usize) {
        let next = self.nodes.len();
        if let Some(node) = self.nodes.get_mut(index) {
            node.whole.end = at;
            if let NodeKind::Group { end, .. } = &mut node.kind {
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
