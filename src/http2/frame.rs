//! Frames: their header, the parts of their payload, and how they are written.

use super::error::{ErrorCode, Violation};

/// What a client sends first (RFC 9113 §3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) const HEADER_BYTES: usize = 9;

/// The longest payload in either direction. Every server takes as much (RFC 9113 §4.2), and the mirror announces no
/// more.
pub(super) const PAYLOAD_BYTES_MAX: usize = 16 * 1024;

pub(super) const END_STREAM: u8 = 0x1;
pub(super) const ACK: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
pub(super) const PADDED: u8 = 0x8;
pub(super) const PRIORITY: u8 = 0x20;

/// The highest stream identifier (RFC 9113 §5.1.1), and the mask of its reserved bit.
pub(super) const STREAM_MAX: u32 = 0x7fff_ffff;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Headers,
    Priority,
    RstStream,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    /// A type that is not known must be ignored (RFC 9113 §5.5).
    Unknown,
}

impl Kind {
    fn from_byte(byte: u8) -> Kind {
        match byte {
            0 => Kind::Data,
            1 => Kind::Headers,
            2 => Kind::Priority,
            3 => Kind::RstStream,
            4 => Kind::Settings,
            5 => Kind::PushPromise,
            6 => Kind::Ping,
            7 => Kind::GoAway,
            8 => Kind::WindowUpdate,
            9 => Kind::Continuation,
            _ => Kind::Unknown,
        }
    }

    /// Whether its frames are about the connection, and so on stream 0, or about a stream. `None`: about either.
    pub(super) fn is_about_connection(self) -> Option<bool> {
        match self {
            Kind::Settings | Kind::Ping | Kind::GoAway => Some(true),
            Kind::Data
            | Kind::Headers
            | Kind::Priority
            | Kind::RstStream
            | Kind::PushPromise
            | Kind::Continuation => Some(false),
            Kind::WindowUpdate | Kind::Unknown => None,
        }
    }

    fn byte(self) -> u8 {
        match self {
            Kind::Data => 0,
            Kind::Headers => 1,
            Kind::Priority => 2,
            Kind::RstStream => 3,
            Kind::Settings => 4,
            Kind::PushPromise => 5,
            Kind::Ping => 6,
            Kind::GoAway => 7,
            Kind::WindowUpdate => 8,
            Kind::Continuation => 9,
            Kind::Unknown => u8::MAX,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    /// The length of the payload.
    pub(super) len: usize,
    pub(super) kind: Kind,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl FrameHeader {
    /// The header at the start of `bytes`. `None` if it is not complete.
    ///
    /// # Errors
    /// The frame is too long, or its length is not that of its type, which is known before its payload.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<FrameHeader>, Violation> {
        let Some(&[a, b, c, kind, flags, d, e, f, g]) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes([0, a, b, c]) as usize;
        let kind = Kind::from_byte(kind);
        let is_right = match kind {
            Kind::Priority => len == 5,
            Kind::RstStream | Kind::WindowUpdate => len == 4,
            Kind::Ping => len == 8,
            Kind::GoAway => (8..=PAYLOAD_BYTES_MAX).contains(&len),
            Kind::Settings if flags & ACK != 0 => len == 0,
            Kind::Settings => len.is_multiple_of(6) && len <= PAYLOAD_BYTES_MAX,
            Kind::Data | Kind::Headers | Kind::PushPromise | Kind::Continuation | Kind::Unknown => {
                len <= PAYLOAD_BYTES_MAX
            }
        };
        if !is_right {
            return Err(Violation::FrameSize);
        }
        Ok(Some(FrameHeader {
            len,
            kind,
            flags,
            stream: u32::from_be_bytes([d, e, f, g]) & STREAM_MAX,
        }))
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The payload of DATA or HEADERS without its padding and priority.
    pub(super) fn content<'p>(&self, payload: &'p [u8]) -> Result<&'p [u8], Violation> {
        let (mut content, mut padding) = (payload, 0);
        if self.has(PADDED) {
            let (length, rest) = payload.split_first().ok_or(Violation::FrameSize)?;
            (content, padding) = (rest, usize::from(*length));
        }
        if self.kind == Kind::Headers && self.has(PRIORITY) {
            content = content.get(5..).ok_or(Violation::FrameSize)?;
        }
        let end = content.len().checked_sub(padding);
        end.and_then(|end| content.get(..end))
            .ok_or(Violation::Protocol("padding longer than its frame"))
    }
}

/// A number at the start of a payload. 0 if it is too short, which [`FrameHeader::parse`] excludes.
pub(super) fn number(payload: &[u8]) -> u32 {
    payload
        .first_chunk::<4>()
        .map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// Appends the header of a frame whose payload of `len` bytes follows.
pub(super) fn append_header(out: &mut Vec<u8>, len: usize, kind: Kind, flags: u8, stream: u32) {
    let [_, _, _, _, _, a, b, c] = (len as u64).to_be_bytes();
    let [d, e, f, g] = stream.to_be_bytes();
    out.extend_from_slice(&[a, b, c, kind.byte(), flags, d, e, f, g]);
}

/// Appends a header block of a stream as HEADERS, and CONTINUATION if it is long.
pub(super) fn append_header_block(out: &mut Vec<u8>, block: &[u8], flags: u8, stream: u32) {
    let mut kind = Kind::Headers;
    let mut flags = flags;
    let mut rest = block;
    loop {
        let (part, after) = rest.split_at(rest.len().min(PAYLOAD_BYTES_MAX));
        let end = if after.is_empty() { END_HEADERS } else { 0 };
        append_header(out, part.len(), kind, flags | end, stream);
        out.extend_from_slice(part);
        if after.is_empty() {
            return;
        }
        (kind, flags, rest) = (Kind::Continuation, 0, after);
    }
}

pub(super) fn append_reset(out: &mut Vec<u8>, stream: u32, code: ErrorCode) {
    append_header(out, 4, Kind::RstStream, 0, stream);
    out.extend_from_slice(&code.0.to_be_bytes());
}

pub(super) fn append_window_update(out: &mut Vec<u8>, stream: u32, bytes: u32) {
    append_header(out, 4, Kind::WindowUpdate, 0, stream);
    out.extend_from_slice(&bytes.to_be_bytes());
}

pub(super) fn append_ping(out: &mut Vec<u8>, flags: u8, payload: [u8; 8]) {
    append_header(out, 8, Kind::Ping, flags, 0);
    out.extend_from_slice(&payload);
}

/// A client has received no streams, so the last one is 0.
pub(super) fn append_go_away(out: &mut Vec<u8>, code: ErrorCode) {
    append_header(out, 8, Kind::GoAway, 0, 0);
    out.extend_from_slice(&0_u32.to_be_bytes());
    out.extend_from_slice(&code.0.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(len: usize, kind: Kind, flags: u8) -> FrameHeader {
        FrameHeader {
            len,
            kind,
            flags,
            stream: 1,
        }
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        for kind in 0..=10 {
            let header = FrameHeader {
                len: if kind == 6 { 8 } else { 4 },
                kind: Kind::from_byte(kind),
                flags: 0x40,
                stream: STREAM_MAX,
            };
            let mut bytes = Vec::new();
            append_header(&mut bytes, header.len, header.kind, 0x40, header.stream);
            let parsed = FrameHeader::parse(&bytes);
            let is_fixed = matches!(kind, 2 | 4 | 7);
            let expected = if is_fixed {
                Err(Violation::FrameSize)
            } else {
                Ok(Some(header))
            };
            assert_eq!(parsed, expected, "{kind}");
            assert_eq!(FrameHeader::parse(&bytes[..8]), Ok(None));
        }
    }

    #[test]
    fn the_reserved_bit_of_a_stream_is_ignored() {
        let parsed = FrameHeader::parse(&[0, 0, 0, 0, 1, 0x80, 0, 0, 3]);
        assert_eq!(parsed.unwrap().unwrap().stream, 3);
    }

    #[test]
    fn a_frame_longer_than_announced_is_refused_at_its_header() {
        for (len, is_accepted) in [(PAYLOAD_BYTES_MAX, true), (PAYLOAD_BYTES_MAX + 1, false)] {
            let mut bytes = Vec::new();
            append_header(&mut bytes, len, Kind::Data, 0, 1);
            assert_eq!(FrameHeader::parse(&bytes).is_ok(), is_accepted);
        }
    }

    #[test]
    fn padding_and_priority_are_removed() {
        let padded = header(0, Kind::Data, PADDED);
        assert_eq!(padded.content(b"\x02ab\0\0"), Ok(&b"ab"[..]));
        assert_eq!(padded.content(b"\x02\0\0"), Ok(&b""[..]));
        assert_eq!(padded.content(b""), Err(Violation::FrameSize));
        assert!(matches!(
            padded.content(b"\x03ab"),
            Err(Violation::Protocol(_))
        ));
        let both = header(0, Kind::Headers, PADDED | PRIORITY);
        assert_eq!(both.content(b"\x0112345ab\0"), Ok(&b"ab"[..]));
        assert!(matches!(
            both.content(b"\x0312345ab"),
            Err(Violation::Protocol(_))
        ));
        assert_eq!(both.content(b"\x001234"), Err(Violation::FrameSize));
    }

    #[test]
    fn a_long_header_block_continues_in_other_frames() {
        let block = vec![7; 2 * PAYLOAD_BYTES_MAX + 1];
        let mut out = Vec::new();
        append_header_block(&mut out, &block, END_STREAM, 5);
        let mut rest = &out[..];
        let mut seen = Vec::new();
        while let Some(frame) = FrameHeader::parse(rest).unwrap() {
            seen.push((frame.kind, frame.flags, frame.len, frame.stream));
            rest = &rest[HEADER_BYTES + frame.len..];
        }
        let full = PAYLOAD_BYTES_MAX;
        let expected = [
            (Kind::Headers, END_STREAM, full, 5),
            (Kind::Continuation, 0, full, 5),
            (Kind::Continuation, END_HEADERS, 1, 5),
        ];
        assert_eq!(seen, expected);
    }
}
