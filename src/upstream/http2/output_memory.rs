//! The memory of what a session has to send: within the budget of its origin, and bounded.
//!
//! A delivery has reserved memory for its own request; this is for the copy that waits for the socket.

use crate::runtime::memory_budget::MemoryReservation;

/// While as much waits to be sent, nothing is added: the socket takes less than the deliveries give.
const BYTES_MAX: usize = 256 * 1024;

/// So many bytes are within no budget, so that a session goes on when that is used up. The deliveries of one turn of
/// the event loop have less.
pub(super) const BYTES_FREE: usize = 64 * 1024;

pub(super) struct OutputMemory {
    /// For what is above [`BYTES_FREE`].
    memory: MemoryReservation,
    /// How many bytes the socket is being given. What waits is not among them.
    sending: usize,
}

impl OutputMemory {
    pub(super) fn new(memory: MemoryReservation) -> OutputMemory {
        OutputMemory { memory, sending: 0 }
    }

    /// Whether something may be added to `waiting` bytes.
    pub(super) fn has_room(&mut self, waiting: usize) -> bool {
        waiting < BYTES_MAX && self.may_hold(waiting + 1)
    }

    /// The part of `bytes` that may be added to `waiting` bytes.
    pub(super) fn part<'b>(&mut self, bytes: &'b [u8], waiting: usize) -> &'b [u8] {
        let room = BYTES_MAX.saturating_sub(waiting);
        let part = bytes.get(..room).unwrap_or(bytes);
        if self.may_hold(waiting + part.len()) {
            return part;
        }
        let room = BYTES_FREE.saturating_sub(self.sending + waiting);
        part.get(..room).unwrap_or(part)
    }

    /// What has waited is given to the socket.
    pub(super) fn begin_sending(&mut self, bytes: usize) {
        self.sending = bytes;
    }

    /// That was sent, and `waiting` bytes are left.
    pub(super) fn end_sending(&mut self, waiting: usize) {
        self.sending = 0;
        let reserved = waiting.saturating_sub(BYTES_FREE);
        if self.memory.bytes() > reserved {
            self.memory.shrink(self.memory.bytes() - reserved);
        }
    }

    /// Whether so many bytes may wait beside what is being sent. Reserves memory for them.
    fn may_hold(&mut self, waiting: usize) -> bool {
        let reserved = (self.sending + waiting).saturating_sub(BYTES_FREE);
        reserved <= self.memory.bytes() || self.memory.resize(reserved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::memory_budget::MemoryBudget;

    const BODY: &[u8] = &[0; 4 * BYTES_MAX];

    #[test]
    fn what_waits_is_bounded_and_reserved() {
        let budget = MemoryBudget::new(1 << 20);
        let mut output = OutputMemory::new(budget.reservation());
        assert_eq!(output.part(&BODY[..BYTES_FREE], 0).len(), BYTES_FREE);
        assert_eq!(budget.used(), 0);
        assert_eq!(output.part(BODY, BYTES_FREE).len(), BYTES_MAX - BYTES_FREE);
        assert_eq!(budget.used(), BYTES_MAX - BYTES_FREE);
        assert!(!output.has_room(BYTES_MAX) && output.part(BODY, BYTES_MAX).is_empty());
        output.begin_sending(BYTES_MAX);
        assert_eq!(output.part(BODY, 0).len(), BYTES_MAX);
        assert_eq!(budget.used(), 2 * BYTES_MAX - BYTES_FREE);
        output.end_sending(BYTES_MAX);
        assert_eq!(budget.used(), BYTES_MAX - BYTES_FREE);
        output.begin_sending(BYTES_MAX);
        output.end_sending(0);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_session_goes_on_without_a_budget() {
        let budget = MemoryBudget::new(1000);
        let mut output = OutputMemory::new(budget.reservation());
        assert!(output.has_room(0));
        assert_eq!(output.part(BODY, 0).len(), BYTES_FREE);
        assert_eq!(
            output.part(&BODY[..BYTES_FREE + 1000], 0).len(),
            BYTES_FREE + 1000
        );
        output.begin_sending(BYTES_FREE + 1000);
        assert!(!output.has_room(0) && output.part(BODY, 0).is_empty());
        output.end_sending(0);
        assert!(output.has_room(0));
        assert_eq!(budget.used(), 0);
    }
}
