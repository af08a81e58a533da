//! `deflate`: a zlib stream (RFC 1950), or a deflate stream without the zlib frame (RFC 1951).
//!
//! RFC 9110 §8.4.1.2 means zlib and notes that some clients send the other. The first two bytes decide: in zlib
//! they name method 8 and are a multiple of 31. A raw stream that begins like that would be a stored block with
//! garbage in its padding, which no encoder writes. Bytes after the end of the stream are ignored.

use flate2::{Decompress, FlushDecompress, Status};

use super::advance::{Advance, DecodeError};

/// Whether `input` begins with a zlib header (RFC 1950 §2.2).
pub(super) fn has_header(input: &[u8]) -> bool {
    match input {
        [method, flags, ..] => {
            method & 0x0f == 8 && u16::from_be_bytes([*method, *flags]).is_multiple_of(31)
        }
        [] | [_] => true,
    }
}

/// Inflates until the input, the output or the stream ends.
pub(super) fn inflate(
    state: &mut Decompress,
    input: &[u8],
    output: &mut [u8],
) -> Result<Advance, DecodeError> {
    let (read_before, written_before) = (state.total_in(), state.total_out());
    let status = state
        .decompress(input, output, FlushDecompress::None)
        .map_err(|_| DecodeError::Corrupt)?;
    Ok(Advance {
        // Neither difference exceeds the length of a slice.
        read_bytes: (state.total_in() - read_before) as usize,
        written_bytes: (state.total_out() - written_before) as usize,
        done: match status {
            Status::StreamEnd => true,
            Status::Ok | Status::BufError => false,
        },
    })
}
