//! Memory that the connections of a worker lend each other.
//!
//! A connection takes a read buffer when there is something to read, and gives it back once it has the whole
//! request. So a connection that waits, for a client or for upstreams, holds none, and what is used next is
//! what was used last. One buffer holds the requests of several connections: what is given back is its free
//! rest. Its memory is used again once no request holds a part of it.
//!
//! A buffer that grew for a large message is freed instead: the memory budget counts what is beyond [`READ_BYTES`]
//! only for the request that needed it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::BytesMut;

use crate::mirror::request::Request;
use crate::net::socket::READ_BYTES;

/// How much of each kind is kept. A burst may use more, which is freed.
const KEPT_MAX: usize = 64;

/// The least free space of a buffer that is worth a read.
const FREE_BYTES_MIN: usize = READ_BYTES / 4;

/// The most memory of a reply that is kept. Most replies have 300 bytes.
const REPLY_BYTES_MAX: usize = 1024;

#[derive(Default)]
pub(super) struct Spares {
    /// Empty buffers with free space. The last one was used last.
    buffers: RefCell<Vec<BytesMut>>,
    /// Buffers without free space. The first one is the most likely to be free of requests by now.
    used_up: RefCell<VecDeque<BytesMut>>,
    requests: RefCell<Vec<Rc<Request>>>,
    /// Empty buffers for what is sent.
    replies: RefCell<Vec<Vec<u8>>>,
}

impl Spares {
    /// An empty buffer with at least a quarter of [`READ_BYTES`] of space, and at most all of it.
    pub(super) fn buffer(&self) -> BytesMut {
        if let Some(buffer) = self.buffers.borrow_mut().pop() {
            return buffer;
        }
        let mut used_up = self.used_up.borrow_mut();
        if let Some(mut oldest) = used_up.pop_front() {
            if !oldest.try_reclaim(READ_BYTES) {
                // The next one is tried next time.
                used_up.push_back(oldest);
            } else if oldest.capacity() <= READ_BYTES {
                return oldest;
            }
        }
        BytesMut::with_capacity(READ_BYTES)
    }

    /// Takes a buffer back. It must be empty.
    pub(super) fn return_buffer(&self, buffer: BytesMut) {
        // Without capacity, it is what a connection has that took none.
        if buffer.capacity() == 0 || buffer.capacity() > READ_BYTES {
            return;
        }
        if buffer.capacity() >= FREE_BYTES_MIN {
            let mut buffers = self.buffers.borrow_mut();
            if buffers.len() < KEPT_MAX {
                buffers.push(buffer);
            }
            return;
        }
        let mut used_up = self.used_up.borrow_mut();
        if used_up.len() == KEPT_MAX {
            used_up.pop_front();
        }
        used_up.push_back(buffer);
    }

    /// A request without content.
    pub(super) fn request(&self) -> Rc<Request> {
        self.requests.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes a request back, unless a task still holds it.
    pub(super) fn return_request(&self, mut request: Rc<Request>) {
        let Some(unshared) = Rc::get_mut(&mut request) else {
            return;
        };
        unshared.clear();
        let mut requests = self.requests.borrow_mut();
        if requests.len() < KEPT_MAX {
            requests.push(request);
        }
    }

    /// An empty buffer for a reply.
    pub(super) fn reply(&self) -> Vec<u8> {
        self.replies.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes the buffer of a reply back.
    pub(super) fn return_reply(&self, mut reply: Vec<u8>) {
        let mut replies = self.replies.borrow_mut();
        if replies.len() < KEPT_MAX {
            reply.clear();
            reply.shrink_to(REPLY_BYTES_MAX);
            replies.push(reply);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// The length of a message that leaves too little space for another one.
    const FULL: usize = READ_BYTES - 1;

    /// Receives a message of `length` bytes, as a connection does.
    fn receive(spares: &Spares, length: usize) -> Bytes {
        let mut buffer = spares.buffer();
        assert!(buffer.is_empty());
        assert!((FREE_BYTES_MIN..=READ_BYTES).contains(&buffer.capacity()));
        buffer.resize(length, b'x');
        let message = buffer.split_to(length).freeze();
        spares.return_buffer(buffer);
        message
    }

    #[test]
    fn small_messages_share_a_buffer() {
        let spares = Spares::default();
        let first = receive(&spares, 2000);
        let second = receive(&spares, 2000);
        let distance = second.as_ptr() as usize - first.as_ptr() as usize;
        assert_eq!(distance, 2000);
        assert_eq!(first, second);
    }

    #[test]
    fn the_memory_of_a_buffer_is_used_again_once_no_message_holds_it() {
        let spares = Spares::default();
        let first = receive(&spares, FULL);
        let address = first.as_ptr();
        let second = receive(&spares, FULL);
        assert_ne!(second.as_ptr(), address);
        drop(first);
        assert_eq!(receive(&spares, FULL).as_ptr(), address);
        // The other one, which is held, does not keep this one from being used.
        let again = [(); 2].map(|()| receive(&spares, FULL).as_ptr() == address);
        assert!(again.contains(&true));
        assert_eq!(second.len(), FULL);
    }

    #[test]
    fn a_buffer_that_grew_is_not_lent_to_others() {
        let spares = Spares::default();
        spares.return_buffer(BytesMut::with_capacity(READ_BYTES + 1));
        // Its free rest is small, and all of its memory would be reclaimed.
        let mut grown = BytesMut::with_capacity(2 * READ_BYTES);
        grown.resize(2 * READ_BYTES - 1, b'x');
        drop(grown.split().freeze());
        spares.return_buffer(grown);
        assert_eq!(spares.used_up.borrow().len(), 1);
        assert_eq!(spares.buffer().capacity(), READ_BYTES);
        assert_eq!(spares.used_up.borrow().len(), 0);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        const COUNT: usize = 3 * KEPT_MAX;
        let spares = Spares::default();
        spares.return_buffer(BytesMut::new());
        assert_eq!(spares.used_up.borrow().len(), 0);
        let messages: Vec<Bytes> = (0..COUNT).map(|_| receive(&spares, FULL)).collect();
        assert_eq!(spares.used_up.borrow().len(), KEPT_MAX);
        let buffers: Vec<BytesMut> = (0..COUNT).map(|_| spares.buffer()).collect();
        for buffer in buffers {
            spares.return_buffer(buffer);
        }
        assert_eq!(spares.buffers.borrow().len(), KEPT_MAX);
        drop(messages);
        let requests: Vec<Rc<Request>> = (0..COUNT).map(|_| spares.request()).collect();
        let held = Rc::clone(&requests[0]);
        for request in requests {
            spares.return_request(request);
        }
        assert_eq!(spares.requests.borrow().len(), KEPT_MAX);
        assert_eq!(Rc::strong_count(&held), 1);
        for _ in 0..COUNT {
            spares.return_reply(vec![b'x'; 100_000]);
        }
        let replies = spares.replies.borrow();
        let is_kept = |reply: &Vec<u8>| reply.is_empty() && reply.capacity() == REPLY_BYTES_MAX;
        assert!(replies.len() == KEPT_MAX && replies.iter().all(is_kept));
    }
}
