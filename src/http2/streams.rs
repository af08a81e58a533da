//! The open streams of a connection.

use std::collections::VecDeque;

use super::window::{ReceiveWindow, SendWindow};

/// A request in flight.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: u32,
    /// What the caller calls it.
    pub(super) token: usize,
    pub(super) send: SendWindow,
    pub(super) receive: ReceiveWindow,
    /// Whether the end of the request was sent.
    pub(super) is_sent: bool,
    /// Whether a window was too small for what was to be sent.
    pub(super) is_blocked: bool,
    pub(super) awaits: Awaits,
    /// Whether the request is a HEAD, so that the response has no body.
    pub(super) is_head: bool,
    /// The length of the interim heads.
    pub(super) interim_bytes: usize,
}

/// What of the response comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaits {
    Head,
    /// The rest of the body: this number of bytes, or an unknown one.
    Body(Option<usize>),
}

/// They are in the order of their identifiers, because that is the order in which they are opened.
#[derive(Debug, Default)]
pub(super) struct Streams(VecDeque<Stream>);

impl Streams {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn add(&mut self, stream: Stream) {
        debug_assert!(self.0.back().is_none_or(|last| last.id < stream.id));
        self.0.push_back(stream);
    }

    fn place(&self, id: u32) -> Option<usize> {
        self.0.binary_search_by_key(&id, |stream| stream.id).ok()
    }

    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut Stream> {
        self.0.get_mut(self.place(id)?)
    }

    pub(super) fn remove(&mut self, id: u32) -> Option<Stream> {
        self.0.remove(self.place(id)?)
    }

    /// Removes the streams above `id`.
    pub(super) fn remove_above(&mut self, id: u32) -> VecDeque<Stream> {
        let kept = self.0.partition_point(|stream| stream.id <= id);
        self.0.split_off(kept)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.0.iter_mut()
    }
}
