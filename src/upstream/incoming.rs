//! What has come over an upstream connection, within the memory budget.
//!
//! Usual responses have 500 bytes. They are copied out of the buffer, which stays with its connection:
//! an answer that is kept until the slowest delivery of its request has ended must not keep 16 KiB
//! alive. Large ones are handed over with their memory, and with the share of the budget it takes.

use std::pin::pin;

use bytes::{Buf, Bytes, BytesMut};

use crate::budget::Reservation;
use crate::span::Span;
use crate::upstream::exchange::Failure;
use crate::upstream::response::MemoryPermit;
use crate::upstream::stream::{READ_BYTES, Stream};
use crate::upstream::turn::CoopBudget;

/// Responses up to this size, head included, are not counted by themselves: each request has room for one
/// from every outbound.
pub(crate) const SMALL_BYTES: usize = 4 * 1024;

/// The read side of a connection.
pub(crate) struct ReadBuffer {
    buffer: BytesMut,
    /// Where small messages are copied to, many of them into one piece of memory.
    copies: BytesMut,
    share: Reservation,
    coop: CoopBudget,
}

impl ReadBuffer {
    /// Nothing yet, with the share that large responses will take.
    pub(crate) fn new(share: Reservation) -> ReadBuffer {
        ReadBuffer {
            buffer: BytesMut::new(),
            copies: BytesMut::new(),
            share,
            coop: CoopBudget::default(),
        }
    }

    /// What has come and was not taken.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// The same, to be decoded in place.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Makes room for a read of a message of `length` bytes: for as much as has come so far. A length
    /// that is only declared takes nothing.
    ///
    /// # Errors
    /// [`Failure::TooLarge`] where the memory budget has no room.
    pub(crate) fn make_room(&mut self, length: usize) -> Result<(), Failure> {
        let have = self.buffer.len();
        let missing = length.saturating_sub(have);
        if have < READ_BYTES / 2 || self.buffer.capacity() - have >= missing.min(READ_BYTES / 4) {
            // A buffer of the usual size is enough so far.
            return Ok(());
        }
        let room = have.min(missing);
        self.cover(have + room)?;
        self.buffer.reserve(room);
        Ok(())
    }

    /// Counts a message of `length` bytes that has come.
    ///
    /// # Errors
    /// [`Failure::TooLarge`] where the memory budget has no room.
    pub(crate) fn count(&mut self, length: usize) -> Result<(), Failure> {
        match length > SMALL_BYTES {
            true => self.cover(length),
            false => Ok(()),
        }
    }

    /// Reads once.
    ///
    /// # Errors
    /// Why nothing came, or [`Failure::TooLarge`] where the memory budget has no room for it.
    pub(crate) async fn read(&mut self, stream: &mut Stream) -> Result<(), Failure> {
        let buffer = std::mem::take(&mut self.buffer);
        let receiving = pin!(stream.receive(buffer));
        let (result, buffer) = self.coop.run(receiving).await;
        self.buffer = buffer;
        match result {
            Ok(0) => Err(Failure::Closed),
            // A buffer of the usual size belongs to what any connection may take.
            Ok(_) if self.buffer.capacity() <= READ_BYTES => Ok(()),
            Ok(_) => self.cover(self.buffer.capacity()),
            Err(error) => Err(Failure::Receive(error)),
        }
    }

    /// Throws the first `length` bytes away.
    pub(crate) fn skip(&mut self, length: usize) {
        self.buffer.advance(length.min(self.buffer.len()));
    }

    /// The first `length` bytes, which must have come.
    ///
    /// # Errors
    /// [`Failure::TooLarge`] where the memory budget has no room for them.
    pub(crate) fn take(&mut self, length: usize) -> Result<Bytes, Failure> {
        if length > READ_BYTES {
            self.cover(length)?;
            return Ok(self.buffer.split_to(length).freeze());
        }
        let copy = self.copy(Span::new(0, length));
        self.skip(length);
        copy
    }

    /// A copy of what stands at `span`.
    ///
    /// # Errors
    /// [`Failure::TooLarge`] where the memory budget has no room for all up to there.
    pub(crate) fn copy(&mut self, span: Span) -> Result<Bytes, Failure> {
        self.count(span.end)?;
        if self.copies.capacity() < span.len() {
            self.copies.reserve(SMALL_BYTES.max(span.len()));
        }
        self.copies.extend_from_slice(span.slice(&self.buffer));
        Ok(self.copies.split().freeze())
    }

    /// The share that what was taken needs, for as long as that lives.
    pub(crate) fn give_share(&mut self) -> MemoryPermit {
        if self.share.bytes() == 0 {
            return MemoryPermit::default();
        }
        // The buffer goes with the response that made it large.
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        let empty = self.share.empty_sibling();
        MemoryPermit::new(std::mem::replace(&mut self.share, empty))
    }

    /// Makes sure that the memory budget covers `bytes`.
    fn cover(&mut self, bytes: usize) -> Result<(), Failure> {
        if bytes <= self.share.bytes() || self.share.resize(bytes) {
            Ok(())
        } else {
            Err(Failure::TooLarge)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;

    #[test]
    fn what_is_larger_than_a_small_response_counts_as_a_whole() {
        let mut buffer = ReadBuffer::new(Budget::new(1 << 20).reservation());
        buffer.count(SMALL_BYTES).unwrap();
        assert_eq!(buffer.share.bytes(), 0);
        buffer.count(SMALL_BYTES + 1).unwrap();
        assert_eq!(buffer.share.bytes(), SMALL_BYTES + 1);
    }

    #[test]
    fn what_is_declared_takes_nothing_and_what_has_come_is_doubled() {
        const MIB: usize = 1 << 20;
        let mut buffer = ReadBuffer::new(Budget::new(MIB + 1024).reservation());
        buffer.make_room(MIB).unwrap();
        assert_eq!(buffer.share.bytes(), 0);
        let text = vec![b'x'; MIB];
        buffer.buffer = BytesMut::from(&text[..READ_BYTES]);
        buffer.make_room(MIB).unwrap();
        assert_eq!(buffer.share.bytes(), 2 * READ_BYTES);
        buffer.buffer = BytesMut::from(&text[..MIB - 1]);
        buffer.make_room(MIB).unwrap();
        assert_eq!(buffer.share.bytes(), MIB);
        buffer.buffer = BytesMut::from(&text[..]);
        assert!(buffer.make_room(2 * MIB).is_err());
    }
}
