//! Small read buffers that the upstream connections of a worker lend each other.
//!
//! A connection takes one while it waits for a response. They are a stack: what is used next is what was used last.

use std::cell::RefCell;

use bytes::BytesMut;

/// Their size: that of the first read of a response. Sentry's have some 700 bytes.
pub(crate) const SPARE_BYTES: usize = 2 * 1024;

/// How many a worker keeps.
const SPARES_MAX: usize = 256;

thread_local! {
    static SPARES: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer.
pub(crate) fn take() -> BytesMut {
    let spare = SPARES.with_borrow_mut(Vec::pop);
    spare.unwrap_or_else(|| BytesMut::with_capacity(SPARE_BYTES))
}

/// Takes back an empty buffer. One that has become large is freed.
pub(crate) fn give_back(buffer: BytesMut) {
    SPARES.with_borrow_mut(|spares| {
        if (1..=SPARE_BYTES).contains(&buffer.capacity()) && spares.len() < SPARES_MAX {
            spares.push(buffer);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_that_was_used_last_is_used_next() {
        let (first, second) = (take(), take());
        let addresses = [first.as_ptr(), second.as_ptr()];
        give_back(first);
        give_back(second);
        assert_eq!(take().as_ptr(), addresses[1]);
        assert_eq!(take().as_ptr(), addresses[0]);
    }

    #[test]
    fn large_buffers_and_those_over_the_limit_are_freed() {
        give_back(BytesMut::new());
        give_back(BytesMut::with_capacity(SPARE_BYTES + 1));
        assert_eq!(SPARES.with_borrow(Vec::len), 0);
        let taken: Vec<BytesMut> = (0..2 * SPARES_MAX).map(|_| take()).collect();
        taken.into_iter().for_each(give_back);
        assert_eq!(SPARES.with_borrow(Vec::len), SPARES_MAX);
    }
}
