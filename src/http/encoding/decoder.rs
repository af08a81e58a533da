//! Decodes a body a slice at a time.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use flate2::Decompress;

use super::advance::{Advance, DecodeError};
use super::brotli::Brotli;
use super::gzip::{self, Gzip};
use super::name::Encoding;
use super::zlib;
use super::zstd::Zstd;

/// The longest time that a step takes with a whole slice of the slowest input.
const STEP_NANOS_MAX: usize = 500_000;

/// The longest header of a coding that is read. The file name in a gzip header may have any length.
const HEADER_BYTES_MAX: usize = 64 * 1024;

/// The first allocation for the output of a step, if its size is unknown.
const OUTPUT_BYTES_MIN: usize = 64 * 1024;

/// The first allocation for the output of a body, in multiples of the input, if its size is unknown. It is the
/// usual compression ratio of such JSON.
const USUAL_RATIO: usize = 4;

/// The size stated by gzip is believed up to this multiple of the input. Event payloads compress by up to ten.
/// Beyond, the output grows as it is decoded, so that a body of 20 bytes cannot reserve a gibibyte.
const BELIEVED_RATIO_MAX: usize = 16;

/// The idle inflate states of one worker, for reuse. With a new state, a typical body costs 1.4 times as much.
#[derive(Debug, Default)]
pub struct Decompressors {
    idle: Vec<Decompress>,
}

impl Decompressors {
    /// The approximate size of one state.
    const STATE_BYTES: usize = 48 * 1024;

    /// More than one state is in use only while bodies of more than a slice are being decoded.
    const IDLE_COUNT_MAX: usize = 4;

    fn take(&mut self, zlib_header: bool) -> Decompress {
        match self.idle.pop() {
            Some(mut state) => {
                state.reset(zlib_header);
                state
            }
            None => Decompress::new(zlib_header),
        }
    }

    fn put(&mut self, state: Decompress) {
        if self.idle.len() < Decompressors::IDLE_COUNT_MAX {
            self.idle.push(state);
        }
    }
}

/// A body that is being decoded.
pub struct Decoder {
    coding: Coding,
    input: Bytes,
    /// How much of the input is decoded.
    read_bytes: usize,
    /// At most `limit_bytes`, unless the last step failed.
    output: Vec<u8>,
    /// The likely length of the decoded body.
    likely_bytes: usize,
    limit_bytes: usize,
}

enum Coding {
    Identity,
    Gzip(Gzip),
    Deflate(Decompress),
    Brotli(Brotli),
    Zstd(Zstd),
}

/// The progress of a [`Decoder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    More,
    /// The body is decoded; [`Decoder::finish`] returns it.
    Done,
}

impl Decoder {
    /// Begins to decode `input` to at most `limit_bytes`. An empty input is invalid in every coding: a request
    /// without a body needs no decoder.
    pub fn new(
        encoding: Encoding,
        input: Bytes,
        limit_bytes: usize,
        pool: &mut Decompressors,
    ) -> Decoder {
        let mut decoder = Decoder::without_reserve(encoding, input, limit_bytes, pool);
        decoder.reserve_all();
        decoder
    }

    /// The same if perhaps only the start of the body is needed: reserves no memory for the rest until
    /// [`Decoder::reserve_all`].
    pub fn without_reserve(
        encoding: Encoding,
        input: Bytes,
        limit_bytes: usize,
        pool: &mut Decompressors,
    ) -> Decoder {
        let usual_bytes = input.len().saturating_mul(USUAL_RATIO);
        let (coding, likely_bytes) = match encoding {
            Encoding::Identity => (Coding::Identity, input.len()),
            Encoding::Gzip => {
                let believed_bytes = input.len().saturating_mul(BELIEVED_RATIO_MAX);
                let likely_bytes = gzip::stated_size(&input).min(believed_bytes);
                (Coding::Gzip(Gzip::new(pool.take(false))), likely_bytes)
            }
            Encoding::Deflate => {
                let state = pool.take(zlib::has_header(&input));
                (Coding::Deflate(state), usual_bytes)
            }
            Encoding::Brotli => (Coding::Brotli(Brotli::new()), usual_bytes),
            Encoding::Zstd => (Coding::Zstd(Zstd::new()), usual_bytes),
        };
        Decoder {
            coding,
            input,
            read_bytes: 0,
            output: Vec::new(),
            likely_bytes: likely_bytes.min(limit_bytes),
            limit_bytes,
        }
    }

    /// Reserves memory for the likely length of the body.
    pub fn reserve_all(&mut self) {
        let missing_bytes = self.likely_bytes.saturating_sub(self.output.len());
        self.output.reserve_exact(missing_bytes);
    }

    /// Decodes a few kilobytes of input to at most `slice_bytes` of output, so that the caller can yield to other
    /// tasks in between. After an error the decoder must not be used again.
    pub fn step(&mut self, slice_bytes: usize) -> Result<Step, DecodeError> {
        // Zeroing the output first avoids unsafe code and costs a few percent of decoding.
        let start = self.output.len();
        let room_bytes = self.prepare_output(slice_bytes);
        self.output.resize(start + room_bytes, 0);
        let room = self.output.get_mut(start..).unwrap_or_default();

        let input = self.input.get(self.read_bytes..).unwrap_or_default();
        let mut input_slice_bytes = self.coding.input_slice_bytes();
        let (advance, is_last) = loop {
            let (slice, rest) = input.split_at(input_slice_bytes.min(input.len()));
            let advance = self.coding.run(slice, rest.is_empty(), room)?;
            let is_stuck = advance.read_bytes == 0 && advance.written_bytes == 0;
            // A header goes on beyond the slice.
            if is_stuck && !advance.done && !rest.is_empty() && input_slice_bytes < HEADER_BYTES_MAX
            {
                input_slice_bytes = (4 * input_slice_bytes).min(HEADER_BYTES_MAX);
                continue;
            }
            break (advance, rest.is_empty());
        };
        self.output.truncate(start + advance.written_bytes);
        self.read_bytes += advance.read_bytes;

        if self.output.len() > self.limit_bytes {
            Err(DecodeError::TooLarge)
        } else if advance.done {
            Ok(Step::Done)
        } else if advance.read_bytes > 0 || advance.written_bytes > 0 {
            Ok(Step::More)
        } else if is_last {
            Err(DecodeError::Truncated)
        } else {
            Err(DecodeError::Corrupt)
        }
    }

    /// The longest time that the next step may take.
    pub fn next_step_time(&self) -> Duration {
        let slice_bytes = self.coding.input_slice_bytes();
        let left_bytes = self.input.len().saturating_sub(self.read_bytes);
        let nanos = STEP_NANOS_MAX * left_bytes.min(slice_bytes) / slice_bytes;
        Duration::from_nanos(nanos as u64)
    }

    /// The memory held for the output.
    pub fn output_bytes(&self) -> usize {
        self.output.capacity()
    }

    /// The memory held by the coding, most of it for its window: 32 KiB in gzip and deflate, and what the body
    /// asks for in brotli (16 MiB at most) and zstd (8 MiB at most).
    pub fn state_bytes(&self) -> usize {
        match &self.coding {
            Coding::Identity => 0,
            Coding::Gzip(_) | Coding::Deflate(_) => Decompressors::STATE_BYTES,
            Coding::Brotli(brotli) => brotli.held_bytes(),
            Coding::Zstd(zstd) => zstd.held_bytes(),
        }
    }

    /// The body as far as it is decoded.
    pub fn output(&self) -> &[u8] {
        &self.output
    }

    /// The decoded body, after [`Step::Done`].
    pub fn finish(self, pool: &mut Decompressors) -> Bytes {
        let mut output = self.output;
        // The stated size may have been too large.
        if output.capacity() / 2 > output.len() {
            output.shrink_to_fit();
        }
        match self.coding {
            Coding::Gzip(gzip) => pool.put(gzip.into_state()),
            Coding::Deflate(state) => pool.put(state),
            Coding::Identity | Coding::Brotli(_) | Coding::Zstd(_) => {}
        }
        Bytes::from(output)
    }

    /// Makes sure that the output has capacity, and returns how much may be decoded next: up to one byte over the
    /// limit, by which too large an output is recognised.
    fn prepare_output(&mut self, slice_bytes: usize) -> usize {
        let decoded_bytes = self.output.len();
        let allowed_bytes = self.limit_bytes.saturating_add(1) - decoded_bytes;
        if self.output.capacity() == decoded_bytes {
            let growth_bytes = decoded_bytes.max(slice_bytes.min(OUTPUT_BYTES_MIN));
            self.output
                .reserve_exact(growth_bytes.min(allowed_bytes).max(1));
        }
        let spare_bytes = self.output.capacity() - decoded_bytes;
        slice_bytes.max(1).min(allowed_bytes).min(spare_bytes)
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder")
            .field("input_bytes", &self.input.len())
            .field("read_bytes", &self.read_bytes)
            .field("output_bytes", &self.output.len())
            .field("limit_bytes", &self.limit_bytes)
            .finish_non_exhaustive()
    }
}

impl Coding {
    /// The input for one step. Crafted input takes more time than its output suggests: 256 prefix codes before
    /// each byte in brotli, three tables for each block in zstd, a table for each empty block in deflate. This
    /// much takes about half a millisecond.
    const fn input_slice_bytes(&self) -> usize {
        match self {
            Coding::Brotli(_) => 512,
            Coding::Zstd(_) => 2 * 1024,
            Coding::Identity | Coding::Gzip(_) | Coding::Deflate(_) => 4 * 1024,
        }
    }

    /// Decodes from `input` to `output`, which is not empty, until one of them ends or the body is complete.
    /// No input follows if it `is_last`. The caller passes unread input again, and more of it if nothing was read.
    fn run(
        &mut self,
        input: &[u8],
        is_last: bool,
        output: &mut [u8],
    ) -> Result<Advance, DecodeError> {
        match self {
            Coding::Identity => Ok(copy(input, is_last, output)),
            Coding::Gzip(gzip) => gzip.run(input, is_last, output),
            Coding::Deflate(state) => zlib::inflate(state, input, output),
            Coding::Brotli(brotli) => brotli.run(input, output),
            Coding::Zstd(zstd) => zstd.run(input, is_last, output),
        }
    }
}

/// The identity coding.
fn copy(input: &[u8], is_last: bool, output: &mut [u8]) -> Advance {
    let bytes = input.len().min(output.len());
    output
        .iter_mut()
        .zip(input)
        .for_each(|(to, from)| *to = *from);
    Advance {
        read_bytes: bytes,
        written_bytes: bytes,
        done: is_last && bytes == input.len(),
    }
}

#[cfg(test)]
mod tests;
