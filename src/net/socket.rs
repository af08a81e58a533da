//! Reading from and writing to a TCP socket, for connections to upstreams and from clients.
//!
//! One read or write moves at most [`MOVED_BYTES_MAX`], so that a large message does not hold the core.

use std::io;
use std::pin::pin;

use bytes::BytesMut;
use monoio::buf::{IoBuf, SliceMut};
use monoio::io::{AsyncReadRent, AsyncWriteRent};
use monoio::net::TcpStream;
use monoio::time::sleep;

use crate::http::head::Parsed;
use crate::http::response::ResponseHead;
use crate::net::early_response::{EarlyReader, EarlyResponseWatch};
use crate::runtime::coop_budget::YIELD_INTERVAL;
use crate::sys::MOVED_BYTES_MAX;

/// The least free space that a read gets. Most messages of this protocol fit into one such read.
pub(crate) const READ_BYTES: usize = 16 * 1024;

/// How much of the data on an idle connection is read: enough for the head of a 408 response.
pub(crate) const IDLE_BYTES_MAX: usize = 1024;

/// What has arrived on an idle connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum IdleState {
    /// Nothing: the connection may be used.
    Quiet,
    /// The upstream has closed it.
    Closed,
    /// Data that no request asked for. These are the first bytes of it.
    Unsolicited(Vec<u8>),
}

impl IdleState {
    /// The state of an idle connection that is readable and has delivered `bytes`, or its end.
    pub(crate) fn from_bytes(bytes: &[u8]) -> IdleState {
        if bytes.is_empty() || is_closing_response(bytes) {
            IdleState::Closed
        } else {
            IdleState::Unsolicited(bytes.to_vec())
        }
    }
}

/// Whether this is the 408 response that some servers send before they close an idle connection
/// (RFC 9110 section 15.5.9).
fn is_closing_response(bytes: &[u8]) -> bool {
    let mut head = ResponseHead::default();
    let parsed = head.parse(bytes, usize::MAX);
    parsed == Ok(Parsed::Complete) && head.status == 408 && !head.keep_alive(bytes)
}

/// Reads at most `bytes_max` bytes once into the free space of `buffer`, which is grown to a useful size first.
pub async fn read_some(
    stream: &mut TcpStream,
    mut buffer: BytesMut,
    bytes_max: usize,
) -> (io::Result<usize>, BytesMut) {
    let filled = buffer.len();
    let free_bytes = buffer.capacity() - filled;
    if free_bytes < bytes_max.min(READ_BYTES / 4) {
        buffer.reserve(READ_BYTES.min(bytes_max));
    }
    let bytes_max = bytes_max.min(MOVED_BYTES_MAX);
    let end = buffer.capacity().min(filled.saturating_add(bytes_max));
    let free = SliceMut::new(buffer, filled, end);
    let (result, free) = stream.read(free).await;
    (result, free.into_inner())
}

/// Writes all of `buffer`, and returns it so that its memory can be reused.
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
            // While the kernel takes everything at once, no other task would run. Boxed because it is
            // rare: every write would carry the space for it.
            Box::pin(sleep(YIELD_INTERVAL)).await;
        }
    }
    (Ok(()), buffer)
}

/// Like [`write_all`], but gives up and returns `None` when the write stalls and the upstream has
/// refused the request, see [`EarlyResponseWatch::unless_refused`]. The watch begins once the first write did
/// not send everything.
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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream as StdStream};
    use std::time::Duration;

    use super::*;
    use crate::runtime::test_runtime::block_on;

    #[test]
    fn a_408_response_on_an_idle_connection_means_that_it_is_closed() {
        let closing = "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n";
        for end in [
            "",
            closing,
            &format!("{closing}too slow"),
            "HTTP/1.0 408 X\r\n\r\n",
        ] {
            let state = IdleState::from_bytes(end.as_bytes());
            assert_eq!(state, IdleState::Closed, "{end}");
        }
        for unsolicited in [
            "x",
            "HTTP/1.1 408 Request Timeout\r\n\r\n",
            "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n",
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        ] {
            let bytes = unsolicited.as_bytes();
            let state = IdleState::from_bytes(bytes);
            assert_eq!(
                state,
                IdleState::Unsolicited(bytes.to_vec()),
                "{unsolicited}"
            );
        }
    }

    #[test]
    fn a_read_takes_at_most_the_given_number_of_bytes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut peer = StdStream::connect_timeout(&address, Duration::from_secs(20)).unwrap();
        peer.write_all(&[b'x'; 50_000]).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        accepted.set_nonblocking(true).unwrap();
        block_on(async {
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
