//! Hearing what an upstream says while it is still being sent the request.
//!
//! A server that refuses a large body (413, 401) may answer at once and read no further. Sending
//! would then wait until the deadline for room that never comes, with the answer lying there unread.
//! So a write that makes no progress for a moment looks at what has arrived. Only a final answer of
//! 300 and above ends the sending: a server may say 100 or 103 at any time (RFC 9110 §15.2), and one
//! that says 200 too early has to be sent the rest all the same.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use monoio::net::TcpStream;
use monoio::time::sleep;
use rustix::net::RecvFlags;

use crate::sys;

/// How long a write makes no progress before one looks for an answer.
const STALL_TIMEOUT: Duration = Duration::from_millis(50);

/// How much of an early answer is read before it is whole. A head that is longer is read only when
/// sending has ended.
const EARLY_BYTES_MAX: usize = 16 * 1024;

/// How many readers a worker has at a time: so many descriptors more than it has connections. Clients that send
/// large bodies for an upstream that does not read on could otherwise take twice as many.
const READERS_MAX: usize = 256;

thread_local! {
    /// How many readers this worker has.
    static READERS: Cell<usize> = const { Cell::new(0) };
}

/// A look at a socket that is lent to a write.
///
/// It is made only for a request that did not go out with one write, because it takes a descriptor.
pub struct EarlyReader {
    /// `None` where the worker has enough of them, or the process no descriptor left: nothing is noticed
    /// then, and the deadline of the exchange has to end a stall.
    socket: Option<OwnedFd>,
}

impl EarlyReader {
    /// A reader for `stream`.
    fn new(stream: &TcpStream) -> EarlyReader {
        EarlyReader::with_socket(|| sys::duplicate(stream).ok())
    }

    fn with_socket(duplicate: impl FnOnce() -> Option<OwnedFd>) -> EarlyReader {
        let may_be_one_more = READERS.get() < READERS_MAX;
        let socket = may_be_one_more.then(duplicate).flatten();
        READERS.set(READERS.get() + usize::from(socket.is_some()));
        EarlyReader { socket }
    }

    /// Takes the bytes that have arrived, as many as fit into `room`. The end of the stream is none:
    /// the write will tell of it.
    pub fn take_bytes(&self, room: &mut [u8]) -> usize {
        let Some(socket) = &self.socket else {
            return 0;
        };
        match rustix::net::recv(socket, room, RecvFlags::DONTWAIT) {
            Ok((count, _)) => count,
            Err(_) => 0,
        }
    }
}

impl Drop for EarlyReader {
    fn drop(&mut self) {
        READERS.set(READERS.get() - usize::from(self.socket.is_some()));
    }
}

/// What an upstream has said so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EarlyResponse {
    /// No final answer.
    NoneYet,
    /// A final answer below 300: it has accepted what it does not have yet.
    Success,
    /// A final answer of 300 and above, or none that could be read: it needs nothing more.
    Refusal,
}

/// Judges what has arrived, and takes the interim responses out of it.
pub(crate) type Classify<'c> = dyn FnMut(&mut BytesMut) -> EarlyResponse + 'c;

/// What watches the upstream while it is sent one request.
pub struct EarlyResponseWatch<'c> {
    reader: Option<EarlyReader>,
    /// Where early bytes go: they are the first of the response.
    buffer: &'c mut BytesMut,
    classify: &'c mut Classify<'c>,
    is_accepted: bool,
}

impl<'c> EarlyResponseWatch<'c> {
    /// Nothing is watched before [`EarlyResponseWatch::begin`].
    pub fn new(buffer: &'c mut BytesMut, classify: &'c mut Classify<'c>) -> EarlyResponseWatch<'c> {
        EarlyResponseWatch {
            reader: None,
            buffer,
            classify,
            is_accepted: false,
        }
    }

    /// Watches `stream` from now on.
    pub fn begin(&mut self, stream: &TcpStream) {
        self.reader.get_or_insert_with(|| EarlyReader::new(stream));
    }

    /// The output of `writing`; or `None`, with the write given up, where it stalls and the upstream
    /// has refused the request. `read` appends what has arrived to the buffer; where it says that
    /// nothing more can come, sending ends as well.
    pub async fn unless_refused<T>(
        &mut self,
        mut writing: Pin<&mut impl Future<Output = T>>,
        mut read: impl FnMut(&EarlyReader, &mut BytesMut) -> bool,
    ) -> Option<T> {
        if self.reader.is_none() {
            return Some(writing.await);
        }
        loop {
            let mut stall = Box::pin(sleep(STALL_TIMEOUT));
            let written = poll_fn(|context| match writing.as_mut().poll(context) {
                Poll::Ready(output) => Poll::Ready(Some(output)),
                Poll::Pending => stall.as_mut().poll(context).map(|()| None),
            });
            match written.await {
                Some(output) => return Some(output),
                None if self.is_refused(&mut read) => return None,
                None => {}
            }
        }
    }

    fn is_refused(&mut self, read: &mut impl FnMut(&EarlyReader, &mut BytesMut) -> bool) -> bool {
        let Some(reader) = &self.reader else {
            return false;
        };
        if self.is_accepted {
            return false;
        }
        let has_ended = self.buffer.len() < EARLY_BYTES_MAX && read(reader, self.buffer);
        match (self.classify)(self.buffer) {
            EarlyResponse::NoneYet => has_ended,
            EarlyResponse::Success => {
                self.is_accepted = true;
                false
            }
            EarlyResponse::Refusal => true,
        }
    }
}

/// Appends what has arrived on a socket without TLS to `buffer`; its end will be told by the write.
pub(crate) fn read_plain(reader: &EarlyReader, buffer: &mut BytesMut) -> bool {
    let filled = buffer.len();
    buffer.resize(EARLY_BYTES_MAX.max(filled), 0);
    let count = reader.take_bytes(buffer.get_mut(filled..).unwrap_or_default());
    buffer.truncate(filled + count);
    false
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_worker_has_a_bounded_number_of_second_descriptors() {
        let duplicate = || File::open("/dev/null").ok().map(OwnedFd::from);
        let count = |readers: &[EarlyReader]| {
            let taken = readers.iter().filter(|reader| reader.socket.is_some());
            taken.count()
        };
        let mut readers: Vec<EarlyReader> = (0..READERS_MAX + 10)
            .map(|_| EarlyReader::with_socket(duplicate))
            .collect();
        assert_eq!(count(&readers), READERS_MAX);
        readers.truncate(READERS_MAX - 1);
        readers.push(EarlyReader::with_socket(|| None));
        readers.push(EarlyReader::with_socket(duplicate));
        readers.push(EarlyReader::with_socket(duplicate));
        assert_eq!(count(&readers), READERS_MAX);
        drop(readers);
        assert_eq!(READERS.get(), 0);
    }
}
