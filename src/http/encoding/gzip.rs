//! `gzip` (RFC 1952): a sequence of members, each a header, a deflate stream and a checksum.
//!
//! All members are decoded, since all bytes have to be forwarded; Relay reads the first only. Like Relay, this
//! decoder ignores bytes after the last member that do not begin another one. It parses the header itself: flate2
//! cannot reset a gzip state, and a new state would be about a third of the cost of a typical body.

use flate2::{Crc, Decompress};

use super::advance::{Advance, DecodeError};
use super::zlib::inflate;

/// The start of a member. Deflate (8) is the only method.
const MAGIC: &[u8] = &[0x1f, 0x8b, 8];
/// A header without its optional parts.
const HEADER_BYTES: usize = 10;
const TRAILER_BYTES: usize = 8;

/// The flags of a header (RFC 1952 §2.3.1). The text flag has no effect.
const FLAG_HEADER_CRC: u8 = 2;
const FLAG_EXTRA: u8 = 4;
const FLAG_NAME: u8 = 8;
const FLAG_COMMENT: u8 = 16;
const FLAGS_RESERVED: u8 = 0xe0;

pub(super) struct Gzip {
    state: Decompress,
    /// The checksum of the output of this member.
    crc: Crc,
    next: Next,
}

/// The next part of the input.
enum Next {
    Header,
    Body,
    Trailer,
    /// Another member, or the end.
    Member,
}

/// The size in the last trailer, modulo 2³². It is that of the whole body if there is one member and nothing
/// behind it, so it is only a hint.
pub(super) fn stated_size(input: &[u8]) -> usize {
    let size = input
        .last_chunk()
        .map_or(0, |size| u32::from_le_bytes(*size));
    size as usize
}

impl Gzip {
    /// `state` has to be set to raw deflate.
    pub(super) fn new(state: Decompress) -> Gzip {
        Gzip {
            state,
            crc: Crc::new(),
            next: Next::Header,
        }
    }

    pub(super) fn into_state(self) -> Decompress {
        self.state
    }

    pub(super) fn run(
        &mut self,
        input: &[u8],
        is_last: bool,
        output: &mut [u8],
    ) -> Result<Advance, DecodeError> {
        let mut advance = Advance::default();
        loop {
            let input = input.get(advance.read_bytes..).unwrap_or_default();
            match self.next {
                Next::Header => {
                    let Some(header_bytes) = header(input)? else {
                        return Ok(advance);
                    };
                    advance.read_bytes += header_bytes;
                    self.next = Next::Body;
                }
                Next::Body => {
                    let room = output.get_mut(advance.written_bytes..).unwrap_or_default();
                    let inflated = inflate(&mut self.state, input, room)?;
                    let written = room.get(..inflated.written_bytes).unwrap_or_default();
                    self.crc.update(written);
                    advance.read_bytes += inflated.read_bytes;
                    advance.written_bytes += inflated.written_bytes;
                    if !inflated.done {
                        return Ok(advance);
                    }
                    self.next = Next::Trailer;
                }
                Next::Trailer => {
                    let Some(trailer) = input.first_chunk() else {
                        return Ok(advance);
                    };
                    self.check(trailer)?;
                    advance.read_bytes += TRAILER_BYTES;
                    self.next = Next::Member;
                }
                Next::Member => {
                    if input.len() < MAGIC.len() && !is_last {
                        return Ok(advance);
                    }
                    if !input.starts_with(MAGIC) {
                        advance.done = true;
                        return Ok(advance);
                    }
                    self.crc.reset();
                    self.state.reset(false);
                    self.next = Next::Header;
                }
            }
        }
    }

    /// Checks a member against its trailer: checksum and length (RFC 1952 §2.3.1).
    fn check(&self, trailer: &[u8; TRAILER_BYTES]) -> Result<(), DecodeError> {
        let stated = u64::from_le_bytes(*trailer);
        let actual = u64::from(self.crc.amount()) << 32 | u64::from(self.crc.sum());
        if stated == actual {
            Ok(())
        } else {
            Err(DecodeError::Corrupt)
        }
    }
}

/// The length of the header at the start of `input`, if it is complete.
fn header(input: &[u8]) -> Result<Option<usize>, DecodeError> {
    if !input.iter().zip(MAGIC).all(|(byte, magic)| byte == magic) {
        return Err(DecodeError::Corrupt);
    }
    let Some(flags) = input.get(MAGIC.len()) else {
        return Ok(None);
    };
    if flags & FLAGS_RESERVED != 0 {
        return Err(DecodeError::Corrupt);
    }
    Ok(header_end(input, *flags))
}

/// The end of a header with these flags. The header's own checksum is not checked, since none of its contents
/// are used.
fn header_end(input: &[u8], flags: u8) -> Option<usize> {
    let mut end = HEADER_BYTES;
    if flags & FLAG_EXTRA != 0 {
        let length = input.get(end..)?.first_chunk()?;
        end += length.len() + usize::from(u16::from_le_bytes(*length));
    }
    for text in [FLAG_NAME, FLAG_COMMENT] {
        if flags & text != 0 {
            end += memchr::memchr(0, input.get(end..)?)? + 1;
        }
    }
    if flags & FLAG_HEADER_CRC != 0 {
        end += 2;
    }
    (end <= input.len()).then_some(end)
}
