//! How much a peer may send over TLS without data: messages such as session tickets and updates of keys, parts of
//! records, and what is around the data of each record. It costs work, or memory outside the budget.

/// How many bytes of TLS one response, or a handshake, may have above twice its plaintext. A handshake has
/// some thousand, and a session ticket a few hundred. Processing as much as this takes some
/// milliseconds.
const RESPONSE_BYTES_MAX: usize = 256 * 1024;

/// How many bytes an SDK may send after each byte of plaintext: the largest record (RFC 8446 section 5.2), and a few
/// messages. The session holds them until the record is whole.
const REQUEST_BYTES_MAX: usize = 18 * 1024;

/// The bytes without data.
pub(super) struct Overhead {
    bytes: usize,
    is_of_sdk: bool,
}

impl Overhead {
    /// In a handshake, and in the responses of an upstream.
    pub(super) fn of_responses() -> Overhead {
        Overhead {
            bytes: 0,
            is_of_sdk: false,
        }
    }

    /// In the requests of an SDK. Some write a text word by word, and each in a record of its own, so the number of
    /// records is not limited.
    pub(super) fn of_requests() -> Overhead {
        Overhead {
            bytes: 0,
            is_of_sdk: true,
        }
    }

    /// Another response begins.
    pub(super) fn restart(&mut self) {
        self.bytes = 0;
    }

    /// So many bytes have been received.
    pub(super) fn add(&mut self, count: usize) {
        self.bytes = self.bytes.saturating_add(count);
    }

    /// So many bytes of plaintext were in them.
    pub(super) fn add_plaintext(&mut self, count: usize) {
        self.bytes = match self.is_of_sdk {
            true if count > 0 => 0,
            _ => self.bytes.saturating_sub(count.saturating_mul(2)),
        };
    }

    /// Whether no more may be read.
    pub(super) fn is_too_much(&self) -> bool {
        let bytes_max = match self.is_of_sdk {
            true => REQUEST_BYTES_MAX,
            false => RESPONSE_BYTES_MAX,
        };
        self.bytes > bytes_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest record with its head: 2^14 bytes of plaintext and 256 more.
    const RECORD_BYTES_MAX: usize = 5 + 16_384 + 256;

    /// How many rounds of so many bytes with so much plaintext are allowed, up to a million.
    fn rounds(mut overhead: Overhead, bytes: usize, plaintext: usize) -> usize {
        let round = |_: &usize| {
            overhead.add(bytes);
            overhead.add_plaintext(plaintext);
            !overhead.is_too_much()
        };
        (0..1_000_000).take_while(round).count()
    }

    #[test]
    fn an_sdk_may_send_as_many_records_as_it_likes_but_none_without_end() {
        for (bytes, plaintext) in [(23, 1), (RECORD_BYTES_MAX, 16_384), (RECORD_BYTES_MAX, 1)] {
            assert_eq!(rounds(Overhead::of_requests(), bytes, plaintext), 1_000_000);
        }
        assert_eq!(rounds(Overhead::of_requests(), RECORD_BYTES_MAX, 0), 1);
        assert_eq!(rounds(Overhead::of_requests(), 1024, 0), 18);
    }

    #[test]
    fn a_response_may_have_little_besides_its_plaintext() {
        assert_eq!(rounds(Overhead::of_responses(), 1024, 0), 256);
        assert_eq!(rounds(Overhead::of_responses(), 1024, 512), 1_000_000);
        assert_eq!(rounds(Overhead::of_responses(), 23, 1), 256 * 1024 / 21);
        let mut overhead = Overhead::of_responses();
        overhead.add(RESPONSE_BYTES_MAX + 1);
        assert!(overhead.is_too_much());
        overhead.restart();
        assert!(!overhead.is_too_much());
    }
}
