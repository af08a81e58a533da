//! Decodes a chunked body in the buffer it is read into (RFC 9112 §7.1).
//!
//! Decoded data is contiguous. The data of the first chunk stays where it was read, so a body of one chunk, which
//! Node's SDK always sends, is never copied: it is the span after the first size line. Data of later chunks is moved
//! to follow it, and so is what cannot be decoded yet, at most a part of a line. So the buffer holds the decoded data,
//! one size line in front of it and one partial line behind it, however small the chunks are, and each byte is moved
//! at most once.
//!
//! The decoder is strict where two parsers could disagree: sizes are only hex digits, and lines end only in CRLF.
//! Extensions and trailer fields are checked, bounded and dropped; Sentry and its SDKs give them no meaning. In a
//! response, white space is allowed where old servers write it: after a size, before an extension (RFC 9112 §7.1.1)
//! and before the colon of a trailer field (§5.1). The response is not forwarded as it is, so it cannot smuggle
//! anything.

use std::fmt;

use bytes::BytesMut;
use memchr::memchr;

use crate::span::Span;

/// The bytes of extensions and trailer fields that one body may have. They make a receiver work for nothing. Clients
/// that use them, for signatures, need about a hundred bytes for each chunk of 64 KiB or more.
const IGNORED_BYTES_MAX: usize = 16 * 1024;

/// The digits of a chunk size of 64 bits.
const SIZE_DIGITS_MAX: usize = 16;

/// The decoder of a chunked body.
#[derive(Debug)]
pub struct Chunked {
    /// The decoded data. Undecoded bytes follow it, except for the first size line.
    body: Span,
    limit_bytes: usize,
    /// How many more bytes of extensions and trailer fields are allowed.
    ignored_bytes_left: usize,
    /// Whether to allow the white space of old servers.
    is_response: bool,
    next: Next,
}

/// The next part of the body.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// The line with the size of a chunk.
    Size,
    /// This many bytes of data, at least one.
    Data(usize),
    /// The line end after the data.
    DataEnd,
    /// A trailer field, or the blank line at the end of the body.
    Trailer,
}

/// The result of [`Chunked::decode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The body is incomplete: read more.
    More,
    /// The body is complete. The decoder must not be called again.
    Done {
        body: Span,
        /// Where the next message begins.
        consumed: usize,
    },
}

impl Chunked {
    /// A decoder for the body of a request, of at most `limit_bytes` after decoding.
    pub fn new(limit_bytes: usize) -> Chunked {
        Chunked {
            body: Span::default(),
            limit_bytes,
            ignored_bytes_left: IGNORED_BYTES_MAX,
            is_response: false,
            next: Next::Size,
        }
    }

    /// The same for the body of a response.
    pub fn for_response(limit_bytes: usize) -> Chunked {
        Chunked {
            is_response: true,
            ..Chunked::new(limit_bytes)
        }
    }

    /// Decodes what was appended to `buffer`, which begins with the body. Between two calls the caller may only append
    /// to it. After an error the connection cannot be used any more.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Progress, ChunkError> {
        let mut at = self.body.end;
        loop {
            let rest = buffer.get(at..).unwrap_or_default();
            match self.next {
                Next::Size => {
                    let Some(line) = self.line(rest)? else { break };
                    let size = self.size(line)?;
                    at += line.len() + CRLF.len();
                    self.start_chunk(size, at)?;
                }
                Next::Data(left) => {
                    let taken = left.min(rest.len());
                    if taken == 0 {
                        break;
                    }
                    if at != self.body.end {
                        buffer.copy_within(at..at + taken, self.body.end);
                    }
                    self.body.end += taken;
                    at += taken;
                    self.next = match left - taken {
                        0 => Next::DataEnd,
                        left => Next::Data(left),
                    };
                }
                Next::DataEnd => {
                    match rest.get(..CRLF.len()) {
                        Some(CRLF) => at += CRLF.len(),
                        Some(_) => return Err(ChunkError::Malformed("no CRLF after a chunk")),
                        None => break,
                    }
                    self.next = Next::Size;
                }
                Next::Trailer => {
                    let Some(line) = self.line(rest)? else { break };
                    at += line.len() + CRLF.len();
                    if line.is_empty() {
                        return Ok(Progress::Done {
                            body: self.body,
                            consumed: at,
                        });
                    }
                    check_trailer(line, self.is_response)?;
                    self.ignore(line.len())?;
                }
            }
        }
        let undecoded_bytes = buffer.len() - at;
        if at != self.body.end {
            buffer.copy_within(at.., self.body.end);
        }
        buffer.truncate(self.body.end + undecoded_bytes);
        Ok(Progress::More)
    }

    /// How many more bytes are certain to come: the rest of the current chunk and its line end.
    pub fn missing_bytes(&self) -> usize {
        match self.next {
            Next::Data(left) => left.saturating_add(CRLF.len()),
            Next::Size | Next::DataEnd | Next::Trailer => 0,
        }
    }

    /// The line at the start of `rest`, without its line end, if it is complete.
    fn line<'b>(&self, rest: &'b [u8]) -> Result<Option<&'b [u8]>, ChunkError> {
        match memchr(b'\n', rest) {
            Some(end) => {
                let line = rest.get(..end).and_then(|line| line.strip_suffix(b"\r"));
                line.map(Some)
                    .ok_or(ChunkError::Malformed("a chunk line ends in a bare LF"))
            }
            None if rest.len() > SIZE_DIGITS_MAX + self.ignored_bytes_left + CRLF.len() => {
                Err(TOO_MUCH_IGNORED)
            }
            None => Ok(None),
        }
    }

    /// Parses the line with the size of a chunk.
    fn size(&mut self, line: &[u8]) -> Result<usize, ChunkError> {
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit());
        let (digits, extensions) = line.split_at(digits.count());
        if digits.is_empty() || digits.len() > SIZE_DIGITS_MAX {
            return Err(ChunkError::Malformed("invalid chunk size"));
        }
        if !extensions.is_empty() {
            let unpadded = match self.is_response {
                true => extensions.trim_ascii_start(),
                false => extensions,
            };
            let is_padding = self.is_response && unpadded.is_empty();
            if !(is_padding || unpadded.starts_with(b";")) || extensions.iter().any(is_control) {
                return Err(ChunkError::Malformed("invalid chunk extension"));
            }
            self.ignore(extensions.len())?;
        }
        let text = str::from_utf8(digits).unwrap_or_default();
        // The digits are valid, so this fails only on overflow.
        usize::from_str_radix(text, 16).map_err(|_| ChunkError::TooLarge)
    }

    /// Begins the chunk with data at `at`.
    fn start_chunk(&mut self, size: usize, at: usize) -> Result<(), ChunkError> {
        if size > self.limit_bytes - self.body.len() {
            return Err(ChunkError::TooLarge);
        }
        if size == 0 {
            self.next = Next::Trailer;
            return Ok(());
        }
        if self.body.is_empty() {
            self.body = Span::new(at, at);
        }
        self.next = Next::Data(size);
        Ok(())
    }

    /// Counts bytes of extensions and trailer fields.
    fn ignore(&mut self, bytes: usize) -> Result<(), ChunkError> {
        self.ignored_bytes_left = self
            .ignored_bytes_left
            .checked_sub(bytes)
            .ok_or(TOO_MUCH_IGNORED)?;
        Ok(())
    }
}

const CRLF: &[u8] = b"\r\n";

const TOO_MUCH_IGNORED: ChunkError =
    ChunkError::Malformed("chunk extensions and trailer fields over 16 KiB");

/// Whether a byte is not allowed in a line. A tab is.
fn is_control(byte: &u8) -> bool {
    byte.is_ascii_control() && *byte != b'\t'
}

/// Checks that a line looks like a header field: a token, a colon, text.
fn check_trailer(line: &[u8], is_response: bool) -> Result<(), ChunkError> {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
    let has_colon = name.len() < line.len();
    let name = match is_response {
        true => name.trim_ascii_end(),
        false => name,
    };
    if !has_colon || name.is_empty() || !name.iter().all(is_token) || line.iter().any(is_control) {
        return Err(ChunkError::Malformed("invalid trailer field"));
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkError {
    /// A syntax error by RFC 9112 §7.1, and where it is.
    Malformed(&'static str),
    /// Over the limit after decoding.
    TooLarge,
}

impl fmt::Display for ChunkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ChunkError::Malformed(text) => text,
            ChunkError::TooLarge => "the chunked body is too large",
        })
    }
}

impl std::error::Error for ChunkError {}

#[cfg(test)]
mod tests;
