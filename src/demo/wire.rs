//! Whole HTTP messages from a blocking stream.
//!
//! A sink reads requests with it and the tour reads the mirror's answers. The syntax is left to the
//! crate's own [`http`](crate::http) room; this file adds the reading, and a body in one piece, which
//! is all that a demonstration needs. It sets no time limits: a caller that wants one sets it on its
//! socket. What is not HTTP is a [`Fault`], never a panic.

use std::fmt::Display;
use std::io::{self, Read};

use bytes::{Bytes, BytesMut};

use crate::http::chunked::{Chunked, Progress};
use crate::http::encoding::{Decoder, Decompressors, Encoding, Step};
use crate::http::framing::{self, Framing};
use crate::http::head::{FieldName, HeadError, Method, Parsed, RequestHead};
use crate::http::response::ResponseHead;
use crate::limits::Limits;

/// How much is asked of the stream at a time.
const READ_BYTES: usize = 16 * 1024;

/// How much is decoded at a time; nobody else waits meanwhile.
const DECODE_SLICE_BYTES: usize = 1024 * 1024;

/// The head of a request and where everything is in it.
pub(super) struct Head {
    /// Request line and header lines, as they came.
    pub(super) bytes: Bytes,
    /// Where they are in `bytes`.
    pub(super) parsed: RequestHead,
}

/// A request that is there as a whole.
pub(super) struct Request {
    pub(super) head: Head,
    pub(super) framing: Framing,
    pub(super) encoding: Encoding,
    /// The length of the body before it was decoded, chunk sizes not counted.
    pub(super) encoded_bytes: usize,
    /// The decoded body.
    pub(super) body: Bytes,
}

/// An answer that is there as a whole.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Bytes,
}

/// Why a message cannot be had.
#[derive(Debug)]
pub(super) enum Fault {
    /// The connection is gone.
    Io(io::Error),
    /// What came is not a message; the text says why.
    Malformed(String),
}

impl Fault {
    fn malformed(reason: impl Display) -> Fault {
        Fault::Malformed(reason.to_string())
    }
}

/// A stream, and what was read from it beyond the last message.
pub(super) struct Wire<R> {
    stream: R,
    buffer: BytesMut,
    limits: Limits,
}

impl<R: Read> Wire<R> {
    pub(super) fn new(stream: R) -> Wire<R> {
        Wire {
            stream,
            buffer: BytesMut::new(),
            limits: Limits::default(),
        }
    }

    /// The head of the next request; `None` where the stream ends instead.
    pub(super) fn request_head(&mut self) -> Result<Option<Head>, Fault> {
        let mut parsed = RequestHead::default();
        if !self.read_head(|buffer, limits| parsed.parse(buffer, limits))? {
            return Ok(None);
        }
        let bytes = self.buffer.split_to(parsed.len).freeze();
        Ok(Some(Head { bytes, parsed }))
    }

    /// The request that began with `head`.
    pub(super) fn request(&mut self, head: Head) -> Result<Request, Fault> {
        let framing = framing::of_request(&head.parsed, &head.bytes).map_err(Fault::malformed)?;
        let values = head.parsed.values(FieldName::ContentEncoding, &head.bytes);
        let encoding = Encoding::of(values).map_err(Fault::malformed)?;
        let encoded = self.read_body(framing)?;
        Ok(Request {
            framing,
            encoding,
            encoded_bytes: encoded.len(),
            body: decode(encoding, encoded, self.limits.decoded_bytes)?,
            head,
        })
    }

    /// The answer to a POST.
    pub(super) fn answer(&mut self) -> Result<Answer, Fault> {
        let mut head = ResponseHead::default();
        if !self.read_head(|buffer, limits| head.parse(buffer, limits))? {
            return Err(Fault::malformed(
                "the connection was closed without an answer",
            ));
        }
        let bytes = self.buffer.split_to(head.len).freeze();
        let framing =
            framing::of_response(&head, &bytes, Method::Post).map_err(Fault::malformed)?;
        Ok(Answer {
            status: head.status,
            body: self.read_body(framing)?,
        })
    }

    /// Reads until `parse` has a whole head; `false` where the stream ends before its first byte.
    fn read_head(
        &mut self,
        mut parse: impl FnMut(&[u8], &Limits) -> Result<Parsed, HeadError>,
    ) -> Result<bool, Fault> {
        loop {
            let parsed = parse(&self.buffer, &self.limits).map_err(Fault::malformed)?;
            if parsed == Parsed::Complete {
                return Ok(true);
            }
            if self.buffer.is_empty() {
                if self.fill()? == 0 {
                    return Ok(false);
                }
            } else {
                self.fill_more()?;
            }
        }
    }

    fn read_body(&mut self, framing: Framing) -> Result<Bytes, Fault> {
        match framing {
            Framing::Empty => Ok(Bytes::new()),
            Framing::Length(length) if length > self.limits.body_bytes => {
                Err(Fault::malformed("the body is too large"))
            }
            Framing::Length(length) => {
                while self.buffer.len() < length {
                    self.fill_more()?;
                }
                Ok(self.buffer.split_to(length).freeze())
            }
            Framing::Chunked => self.read_chunks(),
            Framing::UntilClose => {
                while self.fill()? > 0 {}
                Ok(self.buffer.split().freeze())
            }
        }
    }

    fn read_chunks(&mut self) -> Result<Bytes, Fault> {
        let mut chunked = Chunked::new(self.limits.body_bytes);
        loop {
            let progress = chunked.decode(&mut self.buffer).map_err(Fault::malformed)?;
            if let Progress::Done { body, consumed } = progress {
                let whole = self.buffer.split_to(consumed).freeze();
                return Ok(whole.slice(body.start..body.end));
            }
            self.fill_more()?;
        }
    }

    /// Reads on in the middle of a message, where the stream must not end.
    fn fill_more(&mut self) -> Result<(), Fault> {
        match self.fill()? {
            0 => Err(Fault::malformed(
                "the connection was closed within a message",
            )),
            _ => Ok(()),
        }
    }

    fn fill(&mut self) -> Result<usize, Fault> {
        let mut room = [0; READ_BYTES];
        let count = self.stream.read(&mut room).map_err(Fault::Io)?;
        self.buffer
            .extend_from_slice(room.get(..count).unwrap_or_default());
        Ok(count)
    }
}

fn decode(encoding: Encoding, encoded: Bytes, limit_bytes: usize) -> Result<Bytes, Fault> {
    if encoding == Encoding::Identity || encoded.is_empty() {
        return Ok(encoded);
    }
    let mut pool = Decompressors::default();
    let mut decoder = Decoder::new(encoding, encoded, limit_bytes, &mut pool);
    while decoder.step(DECODE_SLICE_BYTES).map_err(Fault::malformed)? == Step::More {}
    Ok(decoder.finish(&mut pool))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Result<Option<Request>, Fault> {
        let mut wire = Wire::new(text);
        match wire.request_head()? {
            Some(head) => wire.request(head).map(Some),
            None => Ok(None),
        }
    }

    #[test]
    fn requests_follow_each_other_on_a_stream() {
        let text = b"POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc\
            POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n1\r\nf\r\n0\r\n\r\n";
        let mut wire = Wire::new(&text[..]);
        for (target, body) in [("/a", "abc"), ("/b", "def")] {
            let head = wire.request_head().unwrap().unwrap();
            let request = wire.request(head).unwrap();
            let written = request.head.parsed.target.of(&request.head.bytes);
            assert_eq!(
                (written, &*request.body),
                (target.as_bytes(), body.as_bytes())
            );
        }
        assert!(wire.request_head().unwrap().is_none());
    }

    #[test]
    fn what_is_no_request_is_a_fault() {
        for text in [
            "hello\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab",
            "POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Le",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n",
            "POST / HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
            "POST / HTTP/1.1\r\nContent-Encoding: lzma\r\nContent-Length: 3\r\n\r\nabc",
            "POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
        ] {
            let fault = read(text.as_bytes()).err();
            assert!(
                matches!(fault, Some(Fault::Malformed(_))),
                "{text:?}: {fault:?}"
            );
        }
    }
}
