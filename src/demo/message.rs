//! Whole HTTP/1.1 messages from a blocking stream.
//!
//! The reader is the demo's own and a plain one, so that it would notice a fault of the mirror's parser.
//! It takes what SDKs and the mirror send; the content codings are the mirror's.

use std::io::{self, BufRead, Read};

use bytes::Bytes;

use crate::http::encoding::{Decoder, Decompressors, Encoding, Step};
use crate::observe::words::is_unsafe;

/// The longest line and the largest body that are read.
const LINE_BYTES_MAX: u64 = 64 * 1024;
const BODY_BYTES_MAX: usize = 256 * 1024 * 1024;

/// How much is decoded at a time; nobody else waits meanwhile.
const DECODE_SLICE_BYTES: usize = 1024 * 1024;

/// A request or a response.
pub(super) struct Message {
    /// The request or status line, then the header lines, all without their ends.
    pub(super) lines: Vec<String>,
    /// How the body came: `796 bytes of gzip, with Content-Length`.
    pub(super) form: String,
    /// The body, decoded.
    pub(super) body: Bytes,
}

impl Message {
    /// Reads a message; `None` where the stream ends instead.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for what is no message, or what the stream said.
    pub(super) fn read(stream: &mut impl BufRead) -> io::Result<Option<Message>> {
        let head = Message::head(stream)?;
        head.map(|head| head.with_body(stream)).transpose()
    }

    fn head(stream: &mut impl BufRead) -> io::Result<Option<Message>> {
        let mut lines = Vec::new();
        loop {
            let line = line(stream)?;
            match (line, lines.is_empty()) {
                (None, true) => return Ok(None),
                (None, false) => return Err(io::ErrorKind::UnexpectedEof.into()),
                (Some(line), true)
                    if !line.contains(" HTTP/1.") && !line.starts_with("HTTP/1.") =>
                {
                    return Err(malformed("the first line is not that of HTTP/1.1"));
                }
                (Some(line), _) if line.is_empty() => break,
                (Some(line), _) => lines.push(line),
            }
        }
        Ok(Some(Message {
            lines,
            form: String::new(),
            body: Bytes::new(),
        }))
    }

    fn with_body(mut self, stream: &mut impl BufRead) -> io::Result<Message> {
        let chunked = self.field("transfer-encoding").is_some();
        let (coded, framing) = match self.field("content-length") {
            _ if chunked => (chunks(stream)?, "in chunks"),
            Some(length) => {
                let length = length.parse();
                let length = length.map_err(|_| malformed("Content-Length is no number"))?;
                (exactly(stream, length)?, "with Content-Length")
            }
            None => {
                "without a body".clone_into(&mut self.form);
                return Ok(self);
            }
        };
        let coding = self.field("content-encoding").unwrap_or_default();
        let coding = Encoding::parse([coding.as_bytes()].into_iter()).map_err(malformed)?;
        self.form = match coding {
            Encoding::Identity => format!("plain, {framing}"),
            _ => format!("as {} bytes of {}, {framing}", coded.len(), coding.name()),
        };
        self.body = decoded(coding, coded.into())?;
        Ok(self)
    }

    /// The value of the first header field with this name, in lower case.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.lines.iter().skip(1).find_map(|line| {
            let (written, value) = line.split_once(':')?;
            written.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// The part of the first line with this number: method, target, version of a request.
    pub(super) fn part(&self, index: usize) -> &str {
        let first = self.lines.first().map_or("", String::as_str);
        first.split(' ').nth(index).unwrap_or_default()
    }
}

fn malformed(reason: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_string())
}

/// The next line, without its end; `None` at the end of the stream.
fn line(stream: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let count = stream.take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    match line.strip_suffix(b"\r\n") {
        Some(text) => Ok(Some(printable(text))),
        None if count == 0 => Ok(None),
        None => Err(malformed("a line does not end with CRLF")),
    }
}

fn exactly(stream: &mut impl BufRead, length: usize) -> io::Result<Vec<u8>> {
    if length > BODY_BYTES_MAX {
        return Err(malformed("the body is too large"));
    }
    let mut body = Vec::new();
    // No room before the bytes are there: the length is the sender's word.
    let limit = u64::try_from(length).unwrap_or(u64::MAX);
    if stream.take(limit).read_to_end(&mut body)? < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(body)
}

fn chunks(stream: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = line(stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let size = size.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| malformed("a chunk has no size"))?;
        if body.len() + size.min(BODY_BYTES_MAX) > BODY_BYTES_MAX {
            return Err(malformed("the body is too large"));
        }
        body.extend(exactly(stream, size)?);
        if line(stream)?.as_deref() != Some("") {
            return Err(malformed("a chunk is longer than it says"));
        }
        if size == 0 {
            return Ok(body);
        }
    }
}

fn decoded(coding: Encoding, coded: Bytes) -> io::Result<Bytes> {
    if coding == Encoding::Identity || coded.is_empty() {
        return Ok(coded);
    }
    let mut pool = Decompressors::default();
    let mut decoder = Decoder::new(coding, coded, BODY_BYTES_MAX, &mut pool);
    while decoder.step(DECODE_SLICE_BYTES).map_err(malformed)? == Step::More {}
    Ok(decoder.finish(&mut pool))
}

/// Text that is safe to print: what is not UTF-8 or would control the terminal or the direction of
/// writing is replaced.
pub(super) fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace(is_unsafe, "·")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_follow_each_other_on_a_stream() {
        let mut stream = &b"POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc\
            POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n1\r\nf\r\n0\r\n\r\n"[..];
        for (target, body) in [("/a", "abc"), ("/b", "def")] {
            let message = Message::read(&mut stream).unwrap().unwrap();
            assert_eq!((message.part(1), &*message.body), (target, body.as_bytes()));
        }
        assert!(Message::read(&mut stream).unwrap().is_none());
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        for text in [
            "hello\r\n\r\n",
            "\x16\x03\x01 not http\r\n\r\n",
            "POST / HTTP/1.1\nHost: a\n\n",
            "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab",
            "POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Le",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
            "POST / HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
            "POST / HTTP/1.1\r\nContent-Encoding: lzma\r\nContent-Length: 3\r\n\r\nabc",
            "POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
        ] {
            assert!(Message::read(&mut text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
