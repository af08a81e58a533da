//! One connection to an upstream, plain or TLS, as four operations.
//!
//! A connection whose operation failed or was dropped is in an unknown state: bytes may be lost in
//! either direction. The owner must drop it then, never use it again.

use std::io;
use std::pin::pin;

use bytes::{Bytes, BytesMut};
use monoio::buf::{IoBuf, SliceMut};
use monoio::io::{AsyncReadRent, AsyncWriteRent};
use monoio::net::TcpStream;
use monoio::time::sleep;

use crate::http::head::Parsed;
use crate::http::response::ResponseHead;
use crate::sys::{self, Gather, MOVED_BYTES_MAX};
use crate::upstream::probe::{EarlyReader, EarlyResponseWatch, read_plain};
use crate::upstream::tls::TlsStream;
use crate::upstream::turn::{CoopBudget, YIELD_INTERVAL};

/// How much room a read is given at least. Most messages of this protocol fit one such read.
pub(crate) const READ_BYTES: usize = 16 * 1024;

/// A connection to an upstream. What only TLS needs room for is on the heap, so that deliveries without
/// it do not carry it.
pub enum Stream {
    /// `http`.
    Plain(TcpStream),
    /// `https`.
    Tls(Box<TlsStream>),
}

/// How sending a request ended. Its parts come back where they can be, to be sent again elsewhere.
pub enum Sent {
    /// All of it is sent.
    Whole(Vec<u8>, Bytes),
    /// The connection broke.
    Broken(io::Error, Vec<u8>, Bytes),
    /// The upstream has refused the request before it was there. The rest is not sent, so all that can
    /// follow is to read the answer.
    Refused,
}

impl Stream {
    /// Sends `head` and then `body`, and lets `watch` see what the upstream says meanwhile.
    pub async fn send(
        &mut self,
        head: Vec<u8>,
        body: Bytes,
        watch: &mut EarlyResponseWatch<'_>,
    ) -> Sent {
        match self {
            Stream::Plain(stream) if body.is_empty() => {
                match write_unless_refused(stream, head, watch, read_plain).await {
                    Some((result, head)) => Sent::of(result, head, body),
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

    /// The socket, to be watched.
    pub fn socket(&self) -> &TcpStream {
        match self {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream.socket(),
        }
    }

    /// Appends what has arrived to `buffer`; zero bytes mean that the upstream has closed.
    pub async fn receive(&mut self, buffer: BytesMut) -> (io::Result<usize>, BytesMut) {
        match self {
            Stream::Plain(stream) => read_into(stream, buffer).await,
            Stream::Tls(stream) => Box::pin(stream.receive(buffer)).await,
        }
    }

    /// What has arrived on an idle connection.
    pub fn look(&mut self) -> IdleState {
        match self {
            Stream::Plain(stream) if !sys::has_input(stream) => IdleState::Quiet,
            Stream::Plain(stream) => {
                let mut bytes = [0; GOODBYE_BYTES];
                let count = sys::peek(stream, &mut bytes).unwrap_or(0);
                IdleState::from_bytes(bytes.get(..count).unwrap_or_default())
            }
            Stream::Tls(stream) => stream.look(),
        }
    }

    /// Lets the connection end without the minute for which the system keeps its port back otherwise
    /// (TIME-WAIT). Only for one over which all has come that is wanted.
    pub fn end_at_once(&self) {
        sys::reset_on_close(self.socket());
    }
}

/// How much is read of what came over an idle connection: enough for the head of a farewell.
const GOODBYE_BYTES: usize = 1024;

/// What has arrived on an idle connection.
#[derive(Debug, PartialEq, Eq)]
pub enum IdleState {
    /// Nothing: it may be used.
    Quiet,
    /// Its end.
    Closed,
    /// Bytes that nobody has asked for, of which these are the first.
    Unsolicited(Vec<u8>),
}

impl IdleState {
    /// What an idle connection has brought with these bytes, or with none.
    pub fn from_bytes(bytes: &[u8]) -> IdleState {
        match bytes.is_empty() || is_farewell(bytes) {
            true => IdleState::Closed,
            false => IdleState::Unsolicited(bytes.to_vec()),
        }
    }
}

/// Whether this is what some servers say before they close an idle connection (RFC 9110 §15.5.9).
fn is_farewell(bytes: &[u8]) -> bool {
    let mut head = ResponseHead::default();
    let parsed = head.parse(bytes, usize::MAX);
    parsed == Ok(Parsed::Complete) && head.status == 408 && !head.keep_alive(bytes)
}

impl Sent {
    fn of(result: io::Result<()>, head: Vec<u8>, body: Bytes) -> Sent {
        match result {
            Ok(()) => Sent::Whole(head, body),
            Err(error) => Sent::Broken(error, head, body),
        }
    }
}

/// Reads once into the free room of `buffer`, which is grown to a useful size first.
pub async fn read_into(stream: &mut TcpStream, buffer: BytesMut) -> (io::Result<usize>, BytesMut) {
    read_some(stream, buffer, usize::MAX).await
}

/// The same, of `bytes_max` bytes at most.
pub(crate) async fn read_some(
    stream: &mut TcpStream,
    mut buffer: BytesMut,
    bytes_max: usize,
) -> (io::Result<usize>, BytesMut) {
    let filled = buffer.len();
    let room_bytes = buffer.capacity() - filled;
    if room_bytes < bytes_max.min(READ_BYTES / 4) {
        buffer.reserve(READ_BYTES.min(bytes_max));
    }
    let bytes_max = bytes_max.min(MOVED_BYTES_MAX);
    let end = buffer.capacity().min(filled.saturating_add(bytes_max));
    let room = SliceMut::new(buffer, filled, end);
    let (result, room) = stream.read(room).await;
    (result, room.into_inner())
}

/// Writes all of `buffer`, which comes back to be used again.
pub(crate) async fn write_all<B: IoBuf>(
    stream: &mut TcpStream,
    mut buffer: B,
) -> (io::Result<()>, B) {
    let mut sent = 0;
    while sent < buffer.bytes_init() {
        let end = buffer.bytes_init().min(sent + MOVED_BYTES_MAX);
        let rest = buffer.slice(sent..end);
        let (result, rest) = stream.write(rest).await;
        buffer = rest.into_inner();
        match result {
            Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), buffer),
            Ok(count) => sent += count,
            Err(error) => return (Err(error), buffer),
        }
        if sent == end && sent < buffer.bytes_init() {
            // Where the kernel takes all at once, nobody else would have a turn. On the heap because
            // it is rare.
            Box::pin(sleep(YIELD_INTERVAL)).await;
        }
    }
    (Ok(()), buffer)
}

/// The same, for what an upstream may not want to read to its end: `None`, with the rest given up,
/// where the write stalls and the upstream has refused the request, see [`EarlyResponseWatch::unless_refused`]. It
/// is watched once the first write was not enough.
pub(crate) async fn write_unless_refused(
    stream: &mut TcpStream,
    mut buffer: Vec<u8>,
    watch: &mut EarlyResponseWatch<'_>,
    mut read: impl FnMut(&EarlyReader, &mut BytesMut) -> bool,
) -> Option<(io::Result<()>, Vec<u8>)> {
    let mut sent = 0;
    while sent < buffer.len() {
        let end = buffer.len().min(sent + MOVED_BYTES_MAX);
        let writing = stream.write(buffer.slice(sent..end));
        let (result, rest) = watch.unless_refused(pin!(writing), &mut read).await?;
        buffer = rest.into_inner();
        match result {
            Ok(0) => return Some((Err(io::ErrorKind::WriteZero.into()), buffer)),
            Ok(count) => sent += count,
            Err(error) => return Some((Err(error), buffer)),
        }
        if sent < buffer.len() {
            watch.begin(stream);
        }
    }
    Some((Ok(()), buffer))
}

/// Writes all of `gather`.
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
    Sent::of(result, head, body)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream as StdStream};
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_farewell_of_a_server_is_the_end_of_a_connection_and_no_answer() {
        let closing = "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n";
        for end in [
            "",
            closing,
            &format!("{closing}too slow"),
            "HTTP/1.0 408 X\r\n\r\n",
        ] {
            assert_eq!(
                IdleState::from_bytes(end.as_bytes()),
                IdleState::Closed,
                "{end}"
            );
        }
        for unasked in [
            "x",
            "HTTP/1.1 408 Request Timeout\r\n\r\n",
            "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n",
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        ] {
            let bytes = unasked.as_bytes();
            assert_eq!(
                IdleState::from_bytes(bytes),
                IdleState::Unsolicited(bytes.to_vec()),
                "{unasked}"
            );
        }
    }

    #[test]
    fn no_more_is_read_than_was_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut peer = StdStream::connect_timeout(&address, Duration::from_secs(20)).unwrap();
        peer.write_all(&[b'x'; 50_000]).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        accepted.set_nonblocking(true).unwrap();
        let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut stream = TcpStream::from_std(accepted).unwrap();
            let mut buffer = BytesMut::with_capacity(64 * 1024);
            for bytes_max in [1, 10, 10_000] {
                let filled = buffer.len();
                let (count, read) = read_some(&mut stream, buffer, bytes_max).await;
                buffer = read;
                assert_eq!(count.unwrap(), bytes_max);
                assert_eq!(buffer.len(), filled + bytes_max);
            }
        });
    }
}
