//! One connection to an upstream, plain or TLS.
//!
//! A connection whose operation failed or was dropped is in an unknown state: bytes may be lost in
//! either direction. Its owner must drop it and never use it again.

use std::io;
use std::pin::pin;

use bytes::{Bytes, BytesMut};
use monoio::io::AsyncWriteRent;
use monoio::net::TcpStream;

use crate::net::early_response::{EarlyResponseWatch, read_plain};
use crate::net::socket::{IDLE_BYTES_MAX, IdleState, read_some, write_unless_refused};
use crate::net::tls::TlsStream;
use crate::runtime::coop_budget::CoopBudget;
use crate::sys::{self, Gather};

/// A connection to an upstream. The TLS variant is boxed, so that deliveries over plain connections do
/// not carry its size.
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
}

/// How sending a request ended. The variants return its parts where they can be sent over another
/// connection.
pub enum Sent {
    Whole(Vec<u8>, Bytes),
    /// The connection failed.
    Broken(io::Error, Vec<u8>, Bytes),
    /// The upstream refused the request before it was sent completely. Only its response can still be
    /// read.
    Refused,
}

impl Stream {
    /// Sends `head` and then `body`, while `watch` looks for an early response.
    pub async fn send(
        &mut self,
        head: Vec<u8>,
        body: Bytes,
        watch: &mut EarlyResponseWatch<'_>,
    ) -> Sent {
        match self {
            Stream::Plain(stream) if body.is_empty() => {
                match write_unless_refused(stream, head, watch, read_plain).await {
                    Some((result, head)) => Sent::new(result, head, body),
                    None => Sent::Refused,
                }
            }
            Stream::Plain(stream) => write_gather(stream, Gather::new(head, body), watch).await,
            Stream::Tls(stream) => match Box::pin(stream.send(&head, &body, watch)).await {
                Ok(true) => Sent::Whole(head, body),
                Ok(false) => Sent::Refused,
                Err(error) => Sent::Broken(error, head, body),
            },
        }
    }

    pub fn socket(&self) -> &TcpStream {
        match self {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream.socket(),
        }
    }

    /// Appends what has arrived to `buffer`, of a plain connection at most `bytes_max`. Zero bytes mean that the
    /// upstream has closed.
    pub(crate) async fn receive(
        &mut self,
        buffer: BytesMut,
        bytes_max: usize,
    ) -> (io::Result<usize>, BytesMut) {
        match self {
            Stream::Plain(stream) => read_some(stream, buffer, bytes_max).await,
            Stream::Tls(stream) => Box::pin(stream.receive(buffer, usize::MAX)).await,
        }
    }

    /// Checks an idle connection without waiting.
    pub(crate) fn idle_state(&mut self) -> IdleState {
        match self {
            Stream::Plain(stream) if !sys::has_input(stream) => IdleState::Quiet,
            Stream::Plain(stream) => {
                let mut bytes = [0; IDLE_BYTES_MAX];
                let count = sys::peek(stream, &mut bytes).unwrap_or(0);
                IdleState::from_bytes(bytes.get(..count).unwrap_or_default())
            }
            Stream::Tls(stream) => stream.idle_state(),
        }
    }

    /// Makes the connection end with a reset when it is dropped, so that its port does not stay in
    /// TIME-WAIT for a minute. Only for a connection from which everything wanted has been read.
    pub fn reset_on_close(&self) {
        sys::reset_on_close(self.socket());
    }
}

impl Sent {
    fn new(result: io::Result<()>, head: Vec<u8>, body: Bytes) -> Sent {
        match result {
            Ok(()) => Sent::Whole(head, body),
            Err(error) => Sent::Broken(error, head, body),
        }
    }
}

async fn write_gather(
    stream: &mut TcpStream,
    mut gather: Gather,
    watch: &mut EarlyResponseWatch<'_>,
) -> Sent {
    let mut result = Ok(());
    let mut coop = CoopBudget::default();
    while result.is_ok() && !gather.is_sent() {
        let written = {
            let writing = pin!(stream.writev(gather));
            let writing = pin!(watch.unless_refused(writing, read_plain));
            coop.run(writing).await
        };
        let Some((count, rest)) = written else {
            return Sent::Refused;
        };
        gather = rest;
        match count {
            Ok(0) => result = Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                gather.advance(count);
                if !gather.is_sent() {
                    watch.begin(stream);
                    coop.spend(count).await;
                }
            }
            Err(error) => result = Err(error),
        }
    }
    let (head, body) = gather.into_parts();
    Sent::new(result, head, body)
}
