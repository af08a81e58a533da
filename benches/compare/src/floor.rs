//! The floor: the same work on sockets, on the mirror's own runtime, and hardly anything else.
//!
//! It finds the end of a head and `Content-Length`, forwards every request unchanged to all upstreams at once
//! over pooled connections, and returns the first upstream's response. With `inflate` it also decodes bodies,
//! which any contender that rewrites them has to do. It has no deadlines, limits or error handling, and is
//! useless for real work.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use flate2::{Decompress, FlushDecompress};
use monoio::buf::{IoBufMut, SliceMut};
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use sentry_mirror::internals::config::DriverChoice;
use sentry_mirror::internals::runtime::driver::Driver;

use crate::sink::content_length;

/// The least buffer space of a read.
const READ_BYTES: usize = 16 * 1024;

/// The header of a gzip member without name and comment.
const GZIP_HEADER_BYTES: usize = 10;

/// What all connections share.
struct Floor {
    upstreams: Vec<SocketAddr>,
    idle: RefCell<Vec<Vec<Peer>>>,
    inflater: Option<RefCell<Decompress>>,
}

/// A connection with its read buffer.
struct Peer {
    stream: TcpStream,
    buffer: BytesMut,
}

/// A request as it is forwarded; small ones are all in `head`.
#[derive(Clone)]
struct Message {
    head: Bytes,
    body: Bytes,
}

/// Serves until the process is ended.
pub fn run(listen: SocketAddr, upstreams: Vec<SocketAddr>, inflate: bool) -> Result<(), String> {
    sentry_mirror::internals::sys::keep_freed_memory();
    let mut runtime = Driver::build(DriverChoice::Auto)?;
    let floor = Rc::new(Floor {
        idle: RefCell::new(upstreams.iter().map(|_| Vec::new()).collect()),
        upstreams,
        inflater: inflate.then(|| RefCell::new(Decompress::new(false))),
    });
    let served: io::Result<()> = runtime.block_on(async {
        let listener = TcpListener::bind(listen)?;
        loop {
            #[expect(clippy::disallowed_methods, reason = "it is never given up")]
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            // An error only closes the connection.
            let floor = Rc::clone(&floor);
            monoio::spawn(async move { floor.serve(Peer::new(stream)).await.ok() });
        }
    });
    served.map_err(|error| error.to_string())
}

impl Floor {
    async fn serve(self: Rc<Floor>, mut client: Peer) -> io::Result<()> {
        loop {
            // An idle connection holds no buffer, as in the mirror.
            client.stream.readable(false).await?;
            let Some((head_len, whole)) = client.read_message().await? else {
                return Ok(());
            };
            let message = self.message(&whole, head_len)?;
            for upstream in 1..self.upstreams.len() {
                let (floor, message) = (Rc::clone(&self), message.clone());
                monoio::spawn(async move { floor.exchange(upstream, message).await.ok() });
            }
            let response = self.exchange(0, message).await?;
            client.stream.write_all(response).await.0?;
            client.buffer = BytesMut::new();
        }
    }

    fn message(&self, whole: &Bytes, head_len: usize) -> io::Result<Message> {
        if let Some(inflater) = &self.inflater {
            return inflated(&mut inflater.borrow_mut(), whole, head_len);
        }
        Ok(Message {
            head: whole.clone(),
            body: Bytes::new(),
        })
    }

    async fn exchange(&self, upstream: usize, message: Message) -> io::Result<Bytes> {
        let idle = self.idle.borrow_mut()[upstream].pop();
        let mut peer = match idle {
            Some(peer) => peer,
            None => {
                let stream = TcpStream::connect_addr(self.upstreams[upstream]).await?;
                stream.set_nodelay(true)?;
                Peer::new(stream)
            }
        };
        peer.stream.write_all(message.head).await.0?;
        if !message.body.is_empty() {
            peer.stream.write_all(message.body).await.0?;
        }
        let response = peer.read_message().await?;
        let (_, response) = response.ok_or(io::ErrorKind::UnexpectedEof)?;
        self.idle.borrow_mut()[upstream].push(peer);
        Ok(response)
    }
}

impl Peer {
    fn new(stream: TcpStream) -> Peer {
        Peer {
            stream,
            buffer: BytesMut::new(),
        }
    }

    /// Reads to the end of a message; gives the length of its head. `None` at the end of the stream.
    async fn read_message(&mut self) -> io::Result<Option<(usize, Bytes)>> {
        let mut whole_len = None;
        loop {
            let have = self.buffer.len();
            let room = whole_len.map_or(READ_BYTES, |(_, len): (usize, usize)| len - have);
            self.buffer.reserve(room);
            let buffer = std::mem::take(&mut self.buffer);
            let capacity = buffer.capacity();
            let slice = buffer.slice_mut(have..capacity);
            let (result, slice): (io::Result<usize>, SliceMut<BytesMut>) =
                self.stream.read(slice).await;
            self.buffer = slice.into_inner();
            if result? == 0 {
                return Ok(None);
            }
            whole_len = whole_len.or_else(|| find_end(&self.buffer));
            if let Some((head_len, len)) = whole_len
                && self.buffer.len() >= len
            {
                return Ok(Some((head_len, self.buffer.split_to(len).freeze())));
            }
        }
    }
}

/// The lengths of the head and the message at the start of `buffer`; a chunked message is passed on as it is.
fn find_end(buffer: &[u8]) -> Option<(usize, usize)> {
    let head_len = memchr::memmem::find(buffer, b"\r\n\r\n")? + 4;
    match content_length(&buffer[..head_len]) {
        Some(length) => Some((head_len, head_len + length)),
        None => buffer
            .ends_with(b"\r\n0\r\n\r\n")
            .then_some((head_len, buffer.len())),
    }
}

/// The same request with a plain body and its length.
fn inflated(inflater: &mut Decompress, whole: &Bytes, head_len: usize) -> io::Result<Message> {
    inflater.reset(false);
    let coded = whole.get(head_len + GZIP_HEADER_BYTES..).unwrap_or(&[]);
    let mut body = Vec::with_capacity(coded.len() * 8);
    loop {
        let used = inflater.total_in() as usize;
        let status = inflater
            .decompress_vec(&coded[used..], &mut body, FlushDecompress::None)
            .map_err(io::Error::other)?;
        match status {
            flate2::Status::StreamEnd => break,
            _ => body.reserve(body.capacity()),
        }
    }
    let mut head = Vec::with_capacity(head_len + 32);
    let lines = whole[..head_len - 2].split_inclusive(|byte| *byte == b'\n');
    for line in lines.filter(|line| !line.starts_with(b"content-")) {
        head.extend_from_slice(line);
    }
    head.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    Ok(Message {
        head: head.into(),
        body: body.into(),
    })
}
