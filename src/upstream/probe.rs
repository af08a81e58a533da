//! Noticing that an upstream answers while it is still being sent the request.
//!
//! A server that refuses a large body (413, 401) may answer at once and read no further. Sending
//! would then wait until the deadline for room that never comes, with the answer lying there unread.
//! So a write that makes no progress for a moment looks whether there is an answer.

use std::future::{Future, poll_fn};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use monoio::net::TcpStream;
use monoio::time::sleep;
use rustix::net::RecvFlags;

use crate::sys;

/// How long a write makes no progress before one looks for an answer.
const STALL: Duration = Duration::from_millis(50);

/// A look at a socket that is lent to a write.
///
/// It is made only for a request that did not go out with one write, because it takes a descriptor.
pub struct Probe {
    /// `None` where the process has no descriptor left: nothing is noticed then, and the deadline of
    /// the exchange has to end a stall.
    socket: Option<OwnedFd>,
}

impl Probe {
    /// A probe for `stream`.
    pub fn new(stream: &TcpStream) -> Probe {
        Probe {
            socket: sys::duplicate(stream).ok(),
        }
    }

    /// Whether bytes have arrived. The end of the stream is none: the write will tell of it.
    pub fn has_bytes(&self) -> bool {
        self.receive(&mut [0], RecvFlags::PEEK) > 0
    }

    /// Takes the bytes that have arrived, as many as fit into `room`.
    pub fn take_bytes(&self, room: &mut [u8]) -> usize {
        self.receive(room, RecvFlags::empty())
    }

    fn receive(&self, room: &mut [u8], flags: RecvFlags) -> usize {
        let Some(socket) = &self.socket else {
            return 0;
        };
        match rustix::net::recv(socket, room, flags | RecvFlags::DONTWAIT) {
            Ok((count, _)) => count,
            Err(_) => 0,
        }
    }
}

/// The output of `writing`; or `None`, with the write given up, where it stalls and `is_answered`.
pub async fn unless_answered<T>(
    mut writing: Pin<&mut impl Future<Output = T>>,
    mut is_answered: impl FnMut() -> bool,
) -> Option<T> {
    loop {
        let mut stall = Box::pin(sleep(STALL));
        let written = poll_fn(|context| match writing.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => stall.as_mut().poll(context).map(|()| None),
        });
        match written.await {
            Some(output) => return Some(output),
            None if is_answered() => return None,
            None => {}
        }
    }
}
