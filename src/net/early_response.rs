//! Early responses: those that arrive while the request is still being sent.
//!
//! A server that refuses a large body (413, 401) may respond at once and stop reading. The write would
//! then stall until the deadline, with the response unread in the socket. So a write that stalls for a
//! moment reads what has arrived. Only a final response of 300 and above ends the sending: a server may
//! send 100 or 103 at any time (RFC 9110 section 15.2), and after an early 200 it still has to get the rest.

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

/// How long a write may stall before it looks for an early response.
const STALL_TIMEOUT: Duration = Duration::from_millis(50);

/// The most bytes of an early response that are read before its head is complete. A longer head is read only after
/// the sending.
const EARLY_BYTES_MAX: usize = 16 * 1024;

/// The most readers of a worker at a time. Each takes a descriptor beside that of its connection, so clients that
/// send large bodies to a slow upstream could otherwise double the number of descriptors.
pub(crate) const READERS_MAX: usize = 256;

thread_local! {
    static READERS: Cell<usize> = const { Cell::new(0) };
}

/// Reads from a socket whose stream is lent to a write, through a second descriptor.
///
/// It is made only for a request that was not sent with one write.
pub struct EarlyReader {
    /// `None` at the limit of readers, or if the process has no descriptors left. Then early responses go
    /// unnoticed, and the deadline of the exchange ends a stall.
    socket: Option<OwnedFd>,
}

impl EarlyReader {
    fn new(stream: &TcpStream) -> EarlyReader {
        EarlyReader::with_socket(|| sys::duplicate(stream).ok())
    }

    fn with_socket(duplicate: impl FnOnce() -> Option<OwnedFd>) -> EarlyReader {
        let is_below_limit = READERS.get() < READERS_MAX;
        let socket = is_below_limit.then(duplicate).flatten();
        READERS.set(READERS.get() + usize::from(socket.is_some()));
        EarlyReader { socket }
    }

    /// Reads what has arrived into `target`, without waiting. Returns 0 also at the end of the stream and
    /// after an error, which the write reports.
    pub fn read(&self, target: &mut [u8]) -> usize {
        let Some(socket) = &self.socket else {
            return 0;
        };
        match rustix::net::recv(socket, target, RecvFlags::DONTWAIT) {
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

/// What an upstream sent before it had the whole request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EarlyResponse {
    /// No final response.
    NoneYet,
    /// A final response below 300: the upstream accepts what it does not have yet.
    Success,
    /// A final response of 300 and above, or a malformed one. Sending more is useless.
    Refusal,
}

/// Classifies what has arrived, and removes interim responses from it.
pub(crate) type Classify<'c> = dyn FnMut(&mut BytesMut) -> EarlyResponse + 'c;

/// Looks for an early response while one request is sent.
pub struct EarlyResponseWatch<'c> {
    reader: Option<EarlyReader>,
    /// Early bytes go here, because they are the beginning of the response.
    buffer: &'c mut BytesMut,
    classify: &'c mut Classify<'c>,
    has_success: bool,
}

impl<'c> EarlyResponseWatch<'c> {
    /// A watch that does nothing before [`EarlyResponseWatch::begin`].
    pub fn new(buffer: &'c mut BytesMut, classify: &'c mut Classify<'c>) -> EarlyResponseWatch<'c> {
        EarlyResponseWatch {
            reader: None,
            buffer,
            classify,
            has_success: false,
        }
    }

    pub fn begin(&mut self, stream: &TcpStream) {
        self.reader.get_or_insert_with(|| EarlyReader::new(stream));
    }

    /// Runs `writing`. Returns `None` and gives up the write if it stalls and the upstream has refused the
    /// request. `read` appends what has arrived to the buffer; if it returns `true`, nothing more can
    /// arrive, and sending ends, too.
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
        if self.has_success {
            return false;
        }
        let has_ended = self.buffer.len() < EARLY_BYTES_MAX && read(reader, self.buffer);
        match (self.classify)(self.buffer) {
            EarlyResponse::NoneYet => has_ended,
            EarlyResponse::Success => {
                self.has_success = true;
                false
            }
            EarlyResponse::Refusal => true,
        }
    }
}

/// Appends what has arrived on a plain socket to `buffer`. The write reports its end.
pub(crate) fn read_plain(reader: &EarlyReader, buffer: &mut BytesMut) -> bool {
    let filled = buffer.len();
    buffer.resize(EARLY_BYTES_MAX.max(filled), 0);
    let count = reader.read(buffer.get_mut(filled..).unwrap_or_default());
    buffer.truncate(filled + count);
    false
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn the_number_of_second_descriptors_of_a_worker_is_bounded() {
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
