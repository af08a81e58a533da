//! Whole HTTP/1.1 messages from a blocking stream.
//!
//! The reader is independent of the mirror's parser, so that it would notice a fault of that. It takes
//! what SDKs and the mirror send. The content codings are decoded by the mirror's code.

use std::io::{self, BufRead, ErrorKind, Read};

use bytes::Bytes;

use crate::http::encoding::{Decoder, Decompressors, Encoding, Step};
use crate::telemetry::words::is_unsafe;

const LINE_BYTES_MAX: u64 = 64 * 1024;
const BODY_BYTES_MAX: usize = 256 * 1024 * 1024;
const DECODE_SLICE_BYTES: usize = 1024 * 1024;

/// A request or a response.
pub(crate) struct Message {
    /// The request line or status line, then the header lines.
    pub(crate) lines: Vec<String>,
    /// How the body was sent, for example `as 796 bytes of gzip, with Content-Length`.
    pub(crate) form: String,
    /// The decoded body.
    pub(crate) body: Bytes,
}

impl Message {
    /// Reads a message; `None` at the end of the stream.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] if it is malformed, or an error of the stream.
    pub(crate) fn read(stream: &mut impl BufRead) -> io::Result<Option<Message>> {
        let mut message = Message {
            lines: Vec::new(),
            form: "without a body".to_owned(),
            body: Bytes::new(),
        };
        loop {
            match line(stream)? {
                None if message.lines.is_empty() => return Ok(None),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(line) if message.lines.is_empty() && !line.contains("HTTP/1.") => {
                    return Err(malformed("the first line is not HTTP/1.1"));
                }
                Some(line) if line.is_empty() => break,
                Some(line) => message.lines.push(line),
            }
        }
        let Some((coded, framing)) = framed(&message, stream)? else {
            return Ok(Some(message));
        };
        message.set_body(coded, framing)?;
        Ok(Some(message))
    }

    /// Reads a response after the interim ones; `None` at the end of the stream. Without another framing the
    /// body ends with the stream.
    ///
    /// # Errors
    /// As [`Message::read`].
    pub(crate) fn read_response(stream: &mut impl BufRead) -> io::Result<Option<Message>> {
        loop {
            let Some(mut response) = Message::read(stream)? else {
                return Ok(None);
            };
            let status = response.part(1);
            if status.starts_with('1') {
                continue;
            }
            let is_framed = response.field("transfer-encoding").is_some()
                || response.field("content-length").is_some();
            if !is_framed && !matches!(status, "204" | "304") {
                let body = to_end(stream)?;
                response.set_body(body, "up to the end of the connection")?;
            }
            return Ok(Some(response));
        }
    }

    /// Decodes a body that was sent with this framing.
    fn set_body(&mut self, coded: Vec<u8>, framing: &str) -> io::Result<()> {
        let coding = self.field("content-encoding").unwrap_or_default();
        let coding = Encoding::parse([coding.as_bytes()].into_iter()).map_err(malformed)?;
        self.form = match coding {
            Encoding::Identity => format!("plain, {framing}"),
            _ => format!("as {} bytes of {}, {framing}", coded.len(), coding.name()),
        };
        self.body = decoded(coding, coded.into())?;
        Ok(())
    }

    /// The value of the first header field with this name.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.lines.iter().skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// A part of the first line by its index: method, target, version of a request.
    pub(crate) fn part(&self, index: usize) -> &str {
        let first = self.lines.first().map_or("", String::as_str);
        first.split(' ').nth(index).unwrap_or_default()
    }
}

fn malformed(reason: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_string())
}

/// The next line without its end; `None` at the end of the stream.
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
    // Memory is taken as bytes arrive, because the length is not to be trusted.
    let mut body = Vec::new();
    if stream.take(length as u64).read_to_end(&mut body)? < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(body)
}

/// The body and the name of its framing; `None` if the head announces none.
fn framed(
    message: &Message,
    stream: &mut impl BufRead,
) -> io::Result<Option<(Vec<u8>, &'static str)>> {
    if message.field("transfer-encoding").is_some() {
        return Ok(Some((chunks(stream)?, "in chunks")));
    }
    let Some(length) = message.field("content-length") else {
        return Ok(None);
    };
    let length = length.parse();
    let length = length.map_err(|_| malformed("Content-Length is not a number"))?;
    Ok(Some((exactly(stream, length)?, "with Content-Length")))
}

/// Everything up to the end of the stream. A TLS session that is cut off counts as ended, too, and so does a reset,
/// with which a proxy ends that has not read the whole request: what reads the body notices if it is not whole.
fn to_end(stream: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    let read = stream.take(BODY_BYTES_MAX as u64).read_to_end(&mut body);
    let is_end = |kind| matches!(kind, ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset);
    match read {
        Err(error) if !is_end(error.kind()) => Err(error),
        _ => Ok(body),
    }
}

fn chunks(stream: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = line(stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let size =
            usize::from_str_radix(&size, 16).map_err(|_| malformed("a chunk has no size"))?;
        if size > BODY_BYTES_MAX - body.len() {
            return Err(malformed("the body is too large"));
        }
        body.extend(exactly(stream, size)?);
        if line(stream)?.as_deref() != Some("") {
            return Err(malformed("a chunk is longer than its size"));
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

/// Text that is safe to print: characters that are not UTF-8, or that control the terminal or the writing
/// direction, are replaced.
pub(crate) fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace(is_unsafe, "·")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consecutive_messages_are_read_with_both_framings() {
        let mut stream = &b"POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc\
            POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n1\r\nf\r\n0\r\n\r\n"[..];
        for (target, body) in [("/a", "abc"), ("/b", "def")] {
            let message = Message::read(&mut stream).unwrap().unwrap();
            assert_eq!((message.part(1), &*message.body), (target, body.as_bytes()));
        }
        assert!(Message::read(&mut stream).unwrap().is_none());
    }

    #[test]
    fn a_malformed_message_is_an_error() {
        for text in [
            "hello\r\n\r\n",
            "POST / HTTP/1.1\nHost: a\n\n",
            "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab",
            "POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Le",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
            "POST / HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
            "POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
        ] {
            assert!(Message::read(&mut text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
