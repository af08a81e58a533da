//! Requests one after the other on one connection: where each ends does not depend on the pieces in
//! which they come, and no byte belongs to two of them. The first byte says into what pieces the rest is
//! cut.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use sentry_mirror::http::chunked::{Chunked, Progress};
use sentry_mirror::http::framing::{self, Framing};
use sentry_mirror::http::head::{FieldName, Parsed, RequestHead};
use sentry_mirror::limits::Limits;

const BODY_BYTES_MAX: usize = 1024;

fuzz_target!(|data: &[u8]| {
    let Some((piece_bytes, data)) = data.split_first() else {
        return;
    };
    let whole = Pipeline::read(data, data.len().max(1));
    let in_pieces = Pipeline::read(data, usize::from(*piece_bytes).max(1));
    assert_eq!(whole, in_pieces);
    let known: usize = whole
        .requests
        .iter()
        .map(|request| request.head.len() + request.body.len())
        .sum();
    assert!(known <= data.len(), "a byte belongs to one request");
});

#[derive(Debug, PartialEq)]
struct Request {
    head: Vec<u8>,
    body: Vec<u8>,
}

/// What was read of a connection.
#[derive(Debug, Default, PartialEq)]
struct Pipeline {
    requests: Vec<Request>,
    /// Whether it ended with something that is no request.
    is_broken: bool,
}

/// Where a request is broken; the connection ends there.
struct Broken;

impl Pipeline {
    /// Reads as `server` does, a piece at a time.
    fn read(data: &[u8], piece_bytes: usize) -> Pipeline {
        let mut pipeline = Pipeline::default();
        let mut reader = Reader::default();
        for piece in data.chunks(piece_bytes) {
            reader.buffer.extend_from_slice(piece);
            loop {
                match reader.next() {
                    Ok(Some(request)) => pipeline.requests.push(request),
                    Ok(None) => break,
                    Err(Broken) => {
                        pipeline.is_broken = true;
                        return pipeline;
                    }
                }
            }
        }
        pipeline
    }
}

/// The state between two pieces.
#[derive(Default)]
struct Reader {
    buffer: BytesMut,
    /// A head whose body is still to come.
    awaiting: Option<(Vec<u8>, Framing, Chunked)>,
}

impl Reader {
    fn next(&mut self) -> Result<Option<Request>, Broken> {
        if self.awaiting.is_none() {
            if self.buffer.is_empty() {
                return Ok(None);
            }
            let Some((head, framing)) = self.head()? else {
                return Ok(None);
            };
            self.awaiting = Some((head, framing, Chunked::new(BODY_BYTES_MAX)));
        }
        let Some((head, framing, chunked)) = &mut self.awaiting else {
            return Ok(None);
        };
        let body = match *framing {
            Framing::Empty => Vec::new(),
            Framing::Length(length) if length > BODY_BYTES_MAX => return Err(Broken),
            Framing::Length(length) if self.buffer.len() < length => return Ok(None),
            Framing::Length(length) => self.buffer.split_to(length).to_vec(),
            Framing::Chunked => match chunked.decode(&mut self.buffer).map_err(|_| Broken)? {
                Progress::More => return Ok(None),
                Progress::Done { body, consumed } => {
                    let whole = self.buffer.split_to(consumed);
                    body.of(&whole).to_vec()
                }
            },
            Framing::UntilClose => panic!("a request ends before its connection"),
        };
        let head = std::mem::take(head);
        self.awaiting = None;
        Ok(Some(Request { head, body }))
    }

    /// The next head, and what frames its body.
    fn head(&mut self) -> Result<Option<(Vec<u8>, Framing)>, Broken> {
        let limits = Limits {
            head_bytes: 1024,
            header_count: 16,
            ..Limits::default()
        };
        let mut head = RequestHead::default();
        if head.parse(&self.buffer, &limits).map_err(|_| Broken)? == Parsed::Partial {
            return Ok(None);
        }
        let text = self.buffer.split_to(head.len).to_vec();
        let framing = framing::of_request(&head, &text).map_err(|_| Broken)?;
        let count = |name| head.values(name, &text).count();
        let declared = (
            count(FieldName::ContentLength),
            count(FieldName::TransferEncoding),
        );
        let expected = match framing {
            Framing::Empty => (0, 0),
            Framing::Length(_) => (1, 0),
            Framing::Chunked | Framing::UntilClose => (0, 1),
        };
        assert_eq!(declared, expected, "whatever frames it is said once");
        Ok(Some((text, framing)))
    }
}
