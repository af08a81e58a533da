//! Whole responses of upstreams, the interim ones in front and the body behind: what is taken for the
//! answer does not depend on the pieces in which it comes. The first byte says into what pieces the rest
//! is cut, and whether the request was one to HEAD.

#![no_main]

use bytes::{Buf, BytesMut};
use libfuzzer_sys::fuzz_target;
use sentry_mirror::http::chunked::{Chunked, Progress};
use sentry_mirror::http::framing::{self, Framing};
use sentry_mirror::http::head::{Method, Parsed};
use sentry_mirror::http::response::ResponseHead;
use sentry_mirror::limits::Limits;

const BYTES_MAX: usize = 1024;

fuzz_target!(|data: &[u8]| {
    let Some((first, data)) = data.split_first() else {
        return;
    };
    let method = if first & 1 == 0 {
        Method::Post
    } else {
        Method::Head
    };
    let whole = read(data, data.len().max(1), method);
    let in_pieces = read(data, usize::from(first >> 1).max(1), method);
    assert_eq!(whole, in_pieces);
    if let Ok(Some(answer)) = whole {
        assert!(answer.body.len() <= data.len() && answer.status >= 200);
        assert!(method == Method::Post || answer.body.is_empty());
    }
});

#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    body: Vec<u8>,
    /// What follows it, where it ends before the connection does.
    rest: Option<Vec<u8>>,
}

/// The response is none.
#[derive(Debug, PartialEq)]
struct Malformed;

/// Reads as `upstream::exchange` does. `None` where the end is missing.
fn read(data: &[u8], piece_bytes: usize, method: Method) -> Result<Option<Answer>, Malformed> {
    let limits = Limits {
        response_bytes: BYTES_MAX,
        ..Limits::default()
    };
    let mut pieces = data.chunks(piece_bytes);
    let mut buffer = BytesMut::new();
    let mut head = ResponseHead::default();
    let framing = loop {
        match head.parse(&buffer, &limits).map_err(|_| Malformed)? {
            Parsed::Complete if head.status == 101 => return Err(Malformed),
            Parsed::Complete if head.status < 200 => buffer.advance(head.len),
            Parsed::Complete => {
                let text = buffer.split_to(head.len);
                break framing::of_response(&head, &text, method).map_err(|_| Malformed)?;
            }
            Parsed::Partial => match pieces.next() {
                Some(piece) => buffer.extend_from_slice(piece),
                None => return Ok(None),
            },
        }
    };
    let mut chunked = Chunked::new(BYTES_MAX);
    let body = loop {
        match framing {
            Framing::Empty => break Vec::new(),
            Framing::Length(length) if length > BYTES_MAX => return Err(Malformed),
            Framing::Length(length) if buffer.len() >= length => {
                break buffer.split_to(length).to_vec();
            }
            Framing::Chunked => {
                let progress = chunked.decode(&mut buffer).map_err(|_| Malformed)?;
                if let Progress::Done { body, consumed } = progress {
                    break body.of(&buffer.split_to(consumed)).to_vec();
                }
            }
            Framing::UntilClose | Framing::Length(_) => {}
        }
        match pieces.next() {
            Some(piece) => buffer.extend_from_slice(piece),
            None if framing == Framing::UntilClose => {
                let body = buffer.to_vec();
                return Ok(Some(Answer {
                    status: head.status,
                    body,
                    rest: None,
                }));
            }
            None => return Ok(None),
        }
    };
    pieces.for_each(|piece| buffer.extend_from_slice(piece));
    Ok(Some(Answer {
        status: head.status,
        body,
        rest: Some(buffer.to_vec()),
    }))
}
