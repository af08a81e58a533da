//! The read buffer of an upstream connection, within the memory budget.
//!
//! Usual responses have 500 bytes, so a connection that waits for one has a small buffer, and takes a large one only
//! when that is full. Between exchanges it has none: the buffers of a worker are a stack, and what is used next is what
//! was used last. A small response is copied out: one that is kept until the slowest delivery of its request has
//! ended must not keep a whole buffer alive. A large response takes the buffer's memory along, and the reservation
//! that covers it.

use std::cell::RefCell;
use std::io;
use std::pin::pin;

use bytes::{Buf, Bytes, BytesMut};

use crate::net::socket::READ_BYTES;
use crate::net::spare_buffers::{self, SPARE_BYTES};
use crate::net::stream::Stream;
use crate::runtime::coop_budget::CoopBudget;
use crate::runtime::memory_budget::MemoryReservation;
use crate::span::Span;
use crate::upstream::response::MemoryPermit;

/// Responses up to this size, head included, are not reserved: each request reserves memory for one such
/// response from every outbound.
pub(crate) const SMALL_BYTES: usize = 4 * 1024;

/// The least space for the first read of a response. Sentry's have some 700 bytes.
const FIRST_BYTES_MIN: usize = SPARE_BYTES / 2;

thread_local! {
    static COPIES: RefCell<Copies> = RefCell::default();
}

/// Small messages of all connections of a worker are copied to here, many of them into one piece of memory.
#[derive(Default)]
struct Copies {
    piece: BytesMut,
    /// The piece before. Once its messages are dropped, it is used again.
    previous: BytesMut,
}

impl Copies {
    fn copy(&mut self, message: &[u8]) -> Bytes {
        if self.piece.capacity() < message.len() {
            std::mem::swap(&mut self.piece, &mut self.previous);
            let bytes = SMALL_BYTES.max(message.len());
            if !self.piece.try_reclaim(bytes) {
                self.piece = BytesMut::with_capacity(bytes);
            }
        }
        self.piece.extend_from_slice(message);
        self.piece.split().freeze()
    }
}

/// Copies a small message to where those of all connections of this worker are.
pub(crate) fn copy_small(message: &[u8]) -> Bytes {
    COPIES.with_borrow_mut(|copies| copies.copy(message))
}

/// Why nothing could be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The upstream has closed.
    Closed,
    Io(io::Error),
    /// The memory budget has no space for the message.
    OutOfMemory,
}

pub(crate) struct ReadBuffer {
    buffer: BytesMut,
    memory: MemoryReservation,
    coop: CoopBudget,
}

impl ReadBuffer {
    /// An empty buffer. Large responses grow `memory`, which is empty, too.
    pub(crate) fn new(memory: MemoryReservation) -> ReadBuffer {
        ReadBuffer {
            buffer: BytesMut::new(),
            memory,
            coop: CoopBudget::default(),
        }
    }

    /// The received bytes that were not taken yet.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// Like [`ReadBuffer::bytes`], for decoding in place.
    pub(crate) fn buffer_mut(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Makes space for a read of a message of `length` bytes: as much again as was received so far. A
    /// length that is only declared takes no memory.
    pub(crate) fn make_room(&mut self, length: usize) -> Result<(), ReadError> {
        let have = self.buffer.len();
        let missing = length.saturating_sub(have);
        if have < READ_BYTES / 2 || self.buffer.capacity() - have >= missing.min(READ_BYTES / 4) {
            // A buffer of the usual size is enough so far.
            return Ok(());
        }
        let room = have.min(missing);
        self.reserve(have + room)?;
        self.buffer.reserve(room);
        Ok(())
    }

    /// Reserves memory for a received message of `length` bytes, unless it is small.
    pub(crate) fn reserve_large(&mut self, length: usize) -> Result<(), ReadError> {
        if length > SMALL_BYTES {
            self.reserve(length)
        } else {
            Ok(())
        }
    }

    /// Reads from `stream` once, and appends what it got.
    pub(crate) async fn read(&mut self, stream: &mut Stream) -> Result<(), ReadError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let bytes_max = if buffer.is_empty() {
            if buffer.capacity() == 0 {
                buffer = spare_buffers::take();
            }
            // What earlier responses left of it is enough for a usual one, and need not be moved.
            match buffer.capacity() {
                left @ FIRST_BYTES_MIN.. => left.min(SPARE_BYTES),
                _ => SPARE_BYTES,
            }
        } else {
            usize::MAX
        };
        let receiving = pin!(stream.receive(buffer, bytes_max));
        let (result, buffer) = self.coop.run(receiving).await;
        self.buffer = buffer;
        match result {
            Ok(0) => Err(ReadError::Closed),
            // The limit on connections accounts for a buffer of the usual size.
            Ok(_) if self.buffer.capacity() <= READ_BYTES => Ok(()),
            Ok(_) => self.reserve(self.buffer.capacity()),
            Err(error) => Err(ReadError::Io(error)),
        }
    }

    /// Discards the first `length` bytes.
    pub(crate) fn skip(&mut self, length: usize) {
        self.buffer.advance(length.min(self.buffer.len()));
    }

    /// Takes the first `length` bytes, which must have been received.
    pub(crate) fn take(&mut self, length: usize) -> Result<Bytes, ReadError> {
        if length > READ_BYTES {
            self.reserve(length)?;
            return Ok(self.buffer.split_to(length).freeze());
        }
        let copy = self.copy(Span::new(0, length));
        self.skip(length);
        copy
    }

    /// Copies the bytes at `span`. Reserves memory for everything up to its end.
    pub(crate) fn copy(&mut self, span: Span) -> Result<Bytes, ReadError> {
        self.reserve_large(span.end)?;
        let message = span.slice(&self.buffer);
        Ok(copy_small(message))
    }

    /// Ends a response. Gives back the buffer, and hands over the reservation for what was taken; the response holds
    /// it for as long as it lives.
    pub(crate) fn end_response(&mut self) -> MemoryPermit {
        if self.buffer.is_empty() {
            spare_buffers::give_back(std::mem::take(&mut self.buffer));
        }
        if self.memory.bytes() == 0 {
            return MemoryPermit::default();
        }
        let empty = self.memory.empty_sibling();
        MemoryPermit::new(std::mem::replace(&mut self.memory, empty))
    }

    /// Makes sure that at least `bytes` are reserved.
    fn reserve(&mut self, bytes: usize) -> Result<(), ReadError> {
        if bytes <= self.memory.bytes() || self.memory.resize(bytes) {
            Ok(())
        } else {
            Err(ReadError::OutOfMemory)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::memory_budget::MemoryBudget;

    #[test]
    fn a_message_above_the_small_size_is_reserved_as_a_whole() {
        let mut buffer = ReadBuffer::new(MemoryBudget::new(1 << 20).reservation());
        buffer.reserve_large(SMALL_BYTES).unwrap();
        assert_eq!(buffer.memory.bytes(), 0);
        buffer.reserve_large(SMALL_BYTES + 1).unwrap();
        assert_eq!(buffer.memory.bytes(), SMALL_BYTES + 1);
    }

    #[test]
    fn a_declared_length_takes_no_memory_and_received_bytes_are_doubled() {
        const MIB: usize = 1 << 20;
        let mut buffer = ReadBuffer::new(MemoryBudget::new(MIB + 1024).reservation());
        buffer.make_room(MIB).unwrap();
        assert_eq!(buffer.memory.bytes(), 0);
        let text = vec![b'x'; MIB];
        buffer.buffer = BytesMut::from(&text[..READ_BYTES]);
        buffer.make_room(MIB).unwrap();
        assert_eq!(buffer.memory.bytes(), 2 * READ_BYTES);
        buffer.buffer = BytesMut::from(&text[..MIB - 1]);
        buffer.make_room(MIB).unwrap();
        assert_eq!(buffer.memory.bytes(), MIB);
        buffer.buffer = BytesMut::from(&text[..]);
        assert!(buffer.make_room(2 * MIB).is_err());
    }

    #[test]
    fn copies_reuse_two_pieces_of_memory_while_their_messages_are_dropped_in_time() {
        let mut copies = Copies::default();
        let message = [b'x'; 100];
        let mut pieces = std::collections::BTreeSet::new();
        let mut held = Vec::new();
        for _ in 0..1000 {
            // As the deliveries of one request hold their responses until the last has ended.
            held.push(copies.copy(&message));
            if held.len() == 8 {
                held.clear();
            }
            pieces.insert(copies.piece.as_ptr().addr() / SMALL_BYTES);
        }
        assert!(pieces.len() <= 4, "{pieces:?}");
    }
}
