//! One connection to an upstream, plain or TLS, as four operations.
//!
//! A connection whose operation failed or was dropped is in an unknown state: bytes may be lost in
//! either direction. The owner must drop it then, never use it again.

use std::io;

use bytes::{Bytes, BytesMut};
use monoio::buf::SliceMut;
use monoio::io::{AsyncReadRent, AsyncWriteRent};
use monoio::net::TcpStream;

use crate::sys::{self, Gather};
use crate::upstream::tls::TlsStream;

/// How much room a read is given at least. Most messages of this protocol fit one such read.
const READ_BYTES: usize = 16 * 1024;

/// A connection to an upstream.
pub enum Stream {
    /// `http`.
    Plain(TcpStream),
    /// `https`.
    Tls(Box<TlsStream>),
}

impl Stream {
    /// Sends `head` and then `body`; gives both back, to be sent again elsewhere if this failed.
    pub async fn send(&mut self, head: Vec<u8>, body: Bytes) -> (io::Result<()>, Vec<u8>, Bytes) {
        match self {
            Stream::Plain(stream) if body.is_empty() => {
                let (result, head) = write_all(stream, head).await;
                (result, head, body)
            }
            Stream::Plain(stream) => {
                let (result, gather) = write_gather(stream, Gather::new(head, body)).await;
                let (head, body) = gather.into_parts();
                (result, head, body)
            }
            Stream::Tls(stream) => {
                let result = stream.send(&head, &body).await;
                (result, head, body)
            }
        }
    }

    /// Appends what has arrived to `buffer`; zero bytes mean that the upstream has closed.
    pub async fn receive(&mut self, buffer: BytesMut) -> (io::Result<usize>, BytesMut) {
        match self {
            Stream::Plain(stream) => read_into(stream, buffer).await,
            Stream::Tls(stream) => stream.receive(buffer).await,
        }
    }

    /// Whether an idle connection may be used again: nothing arrived on it, and it is not closed.
    pub fn is_quiet(&self) -> bool {
        match self {
            Stream::Plain(stream) => !sys::has_input(stream),
            Stream::Tls(stream) => stream.is_quiet(),
        }
    }
}

/// Reads once into the free room of `buffer`, which is grown to a useful size first.
pub async fn read_into(
    stream: &mut TcpStream,
    mut buffer: BytesMut,
) -> (io::Result<usize>, BytesMut) {
    let filled = buffer.len();
    if buffer.capacity() - filled < READ_BYTES / 4 {
        buffer.reserve(READ_BYTES);
    }
    let capacity = buffer.capacity();
    let room = SliceMut::new(buffer, filled, capacity);
    let (result, room) = stream.read(room).await;
    (result, room.into_inner())
}

/// Writes all of `buffer`, which comes back to be used again.
pub async fn write_all(stream: &mut TcpStream, mut buffer: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
    let mut sent = 0;
    while sent < buffer.len() {
        let rest = monoio::buf::IoBuf::slice(buffer, sent..);
        let (result, rest) = stream.write(rest).await;
        buffer = rest.into_inner();
        match result {
            Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), buffer),
            Ok(count) => sent += count,
            Err(error) => return (Err(error), buffer),
        }
    }
    (Ok(()), buffer)
}

/// Writes all of `gather`.
async fn write_gather(stream: &mut TcpStream, mut gather: Gather) -> (io::Result<()>, Gather) {
    while !gather.is_sent() {
        let (result, rest) = stream.writev(gather).await;
        gather = rest;
        match result {
            Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), gather),
            Ok(count) => gather.advance(count),
            Err(error) => return (Err(error), gather),
        }
    }
    (Ok(()), gather)
}
