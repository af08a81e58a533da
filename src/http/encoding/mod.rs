//! Undoes a `Content-Encoding`: the whole body, within a bound, a slice at a time.
//!
//! A body is decoded because an envelope's header has to be read and rewritten. It is in memory as a
//! whole before, and as a whole after; in between a [`Decoder`] works in slices, so that one large
//! body does not keep a worker's other connections waiting. Neither the input nor the output of a
//! slice is unbounded, for there are inputs of many bytes that stand for none. A bomb ends at the
//! limit, having cost what an honest body of that size costs.
//!
//! What is accepted is what Relay accepts, plus all members of a gzip body instead of the first only,
//! and raw deflate. Decoding of several codings on top of each other is left out: no SDK sends it.

mod brotli;
mod gzip;
mod zlib;
mod zstd;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use flate2::Decompress;

use self::brotli::Brotli;
use self::gzip::Gzip;
use self::zstd::Zstd;

/// How long a step takes that has all the input it is given at most, and what makes it slow.
const STEP_NANOS_MAX: usize = 500_000;

/// The longest header of a coding that is read; the name of a file in gzip's may have any length.
const HEADER_BYTES_MAX: usize = 64 * 1024;

/// The first allocation of a step's output, where nothing tells the size.
const OUTPUT_BYTES_MIN: usize = 64 * 1024;

/// The first allocation where nothing tells the size: that many times the input, which is what JSON
/// of this kind is compressed by.
const USUAL_RATIO: usize = 4;

/// How far the size that gzip states is believed: that many times the input. Event payloads compress by
/// up to ten; what is more grows as it is decoded, so that a body of 20 bytes reserves no gibibyte.
const BELIEVED_RATIO_MAX: usize = 16;

/// What was done to a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Nothing.
    Identity,
    /// RFC 1952, any number of members.
    Gzip,
    /// RFC 1950, or RFC 1951 without the frame, which some call deflate as well.
    Deflate,
    /// RFC 7932.
    Brotli,
    /// RFC 8878, any number of frames.
    Zstd,
}

impl Encoding {
    /// The encoding that the values of `Content-Encoding` name, ignoring case (RFC 9110 §8.4.1).
    /// Ruby's SDK (6.6) sends an empty value and old Android SDKs `UTF-8`, both meaning none.
    pub fn of<'v>(values: impl Iterator<Item = &'v [u8]>) -> Result<Encoding, Unsupported> {
        let mut encoding = Encoding::Identity;
        for value in values {
            let named = Encoding::named(value)?;
            if named == Encoding::Identity {
                continue;
            }
            if encoding != Encoding::Identity {
                return Err(Unsupported);
            }
            encoding = named;
        }
        Ok(encoding)
    }

    /// Its name in `Content-Encoding`.
    pub const fn name(self) -> &'static str {
        match self {
            Encoding::Identity => "identity",
            Encoding::Gzip => "gzip",
            Encoding::Deflate => "deflate",
            Encoding::Brotli => "br",
            Encoding::Zstd => "zstd",
        }
    }

    fn named(value: &[u8]) -> Result<Encoding, Unsupported> {
        [
            ("gzip", Encoding::Gzip),
            ("", Encoding::Identity),
            ("br", Encoding::Brotli),
            ("zstd", Encoding::Zstd),
            ("deflate", Encoding::Deflate),
            ("identity", Encoding::Identity),
            ("utf-8", Encoding::Identity),
            // To be taken for gzip (RFC 9110 §8.4.1.3).
            ("x-gzip", Encoding::Gzip),
        ]
        .iter()
        .find(|(name, _)| value.eq_ignore_ascii_case(name.as_bytes()))
        .map(|(_, encoding)| *encoding)
        .ok_or(Unsupported)
    }
}

/// A `Content-Encoding` that is not accepted: an unknown one, or several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsupported;

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Content-Encoding must be one of gzip, deflate, br, zstd, identity")
    }
}

impl std::error::Error for Unsupported {}

/// The inflate states of one worker that are not in use. They are used again, for with a fresh one a
/// typical body costs 1.4 times as much.
#[derive(Debug, Default)]
pub struct Decompressors {
    idle: Vec<Decompress>,
}

impl Decompressors {
    /// What one state takes, about.
    const STATE_BYTES: usize = 48 * 1024;

    /// The states kept at most. More than one is in use at a time only while bodies of more than a
    /// slice are being decoded.
    const IDLE_COUNT_MAX: usize = 4;

    /// A state for a new stream, with a zlib header or without.
    fn take(&mut self, zlib_header: bool) -> Decompress {
        match self.idle.pop() {
            Some(mut state) => {
                state.reset(zlib_header);
                state
            }
            None => Decompress::new(zlib_header),
        }
    }

    /// Keeps a state for later.
    fn put(&mut self, state: Decompress) {
        if self.idle.len() < Decompressors::IDLE_COUNT_MAX {
            self.idle.push(state);
        }
    }
}

/// A body that is being decoded.
pub struct Decoder {
    coding: Coding,
    /// The body as it came, and how much of it is read.
    input: Bytes,
    read_bytes: usize,
    /// The body so far: at most `limit_bytes`, unless the last step failed.
    output: Vec<u8>,
    /// How long the body is likely to become.
    likely_bytes: usize,
    limit_bytes: usize,
}

/// The decoder of one stream.
enum Coding {
    Identity,
    Gzip(Gzip),
    Deflate(Decompress),
    Brotli(Brotli),
    Zstd(Zstd),
}

/// What a coding did with the slices it was given.
#[derive(Clone, Copy, Debug, Default)]
struct Advance {
    /// How much input it read.
    read_bytes: usize,
    /// How much output it wrote.
    written_bytes: usize,
    /// Whether the body is complete; what input is left is ignored.
    done: bool,
}

/// How far a body got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is more to decode.
    More,
    /// It is all decoded: [`Decoder::finish`] has it.
    Done,
}

impl Decoder {
    /// Begins to decode `input`, which may become at most `limit_bytes` long. No coding makes an
    /// empty input valid: a request without a body needs no decoder.
    pub fn new(
        encoding: Encoding,
        input: Bytes,
        limit_bytes: usize,
        pool: &mut Decompressors,
    ) -> Decoder {
        let mut decoder = Decoder::of_front(encoding, input, limit_bytes, pool);
        decoder.expect_all();
        decoder
    }

    /// The same where the rest of the body may not be wanted: no room is made for it until
    /// [`Decoder::expect_all`].
    pub fn of_front(
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

    /// Makes room for as much as the body is likely to become.
    pub fn expect_all(&mut self) {
        let missing_bytes = self.likely_bytes.saturating_sub(self.output.len());
        self.output.reserve_exact(missing_bytes);
    }

    /// Decodes on, up to `slice_bytes` more of output and from a few kilobytes of input, so that a caller
    /// can let other tasks run in between. After an error the decoder is of no more use.
    pub fn step(&mut self, slice_bytes: usize) -> Result<Step, DecodeError> {
        // Clearing the room first keeps this free of unsafe code and costs a few percent of decoding.
        let start = self.output.len();
        let room_bytes = self.room(slice_bytes);
        self.output.resize(start + room_bytes, 0);
        let room = self.output.get_mut(start..).unwrap_or_default();

        let input = self.input.get(self.read_bytes..).unwrap_or_default();
        let mut input_slice_bytes = self.coding.input_slice_bytes();
        let (advance, is_last) = loop {
            let (slice, rest) = input.split_at(input_slice_bytes.min(input.len()));
            let advance = self.coding.run(slice, rest.is_empty(), room)?;
            let is_stuck = advance.read_bytes == 0 && advance.written_bytes == 0;
            // A header that does not end within the slice.
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

    /// How long the next step may take, in the worst case.
    pub fn next_step_time(&self) -> Duration {
        let slice_bytes = self.coding.input_slice_bytes();
        let left_bytes = self.input.len().saturating_sub(self.read_bytes);
        let nanos = STEP_NANOS_MAX * left_bytes.min(slice_bytes) / slice_bytes;
        Duration::from_nanos(nanos as u64)
    }

    /// The memory the output takes.
    pub fn output_bytes(&self) -> usize {
        self.output.capacity()
    }

    /// The memory the coding takes while it decodes, most of which is its window: 32 KiB for gzip and
    /// deflate, what the body asks for in brotli (16 MiB at most) and zstd (8 MiB).
    pub fn state_bytes(&self) -> usize {
        match &self.coding {
            Coding::Identity => 0,
            Coding::Gzip(_) | Coding::Deflate(_) => Decompressors::STATE_BYTES,
            Coding::Brotli(brotli) => brotli.held_bytes(),
            Coding::Zstd(zstd) => zstd.held_bytes(),
        }
    }

    /// What is decoded so far.
    pub fn output(&self) -> &[u8] {
        &self.output
    }

    /// The decoded body, after [`Step::Done`].
    pub fn finish(self, pool: &mut Decompressors) -> Bytes {
        let mut output = self.output;
        // What was stated and did not come is not kept.
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

    /// How much may be decoded next, for which there is capacity then. One byte more than allowed is
    /// how an output that is too large is told from one that just fits.
    fn room(&mut self, slice_bytes: usize) -> usize {
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
    /// How much input a step is given. Crafted input costs more time than what it decodes to: 256 prefix
    /// codes before each byte in brotli, a table for each block of no bytes in deflate. So much of it takes
    /// about half a millisecond.
    const fn input_slice_bytes(&self) -> usize {
        match self {
            Coding::Brotli(_) => 512,
            Coding::Identity | Coding::Gzip(_) | Coding::Deflate(_) | Coding::Zstd(_) => 8 * 1024,
        }
    }

    /// Decodes from `input` to `output`, which is not empty, until one of them ends or the body is
    /// complete. `is_last` tells that no input follows this one; what of it is not read is offered again,
    /// with more where nothing was.
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

/// Decodes what is not encoded.
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

/// Why a body cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// It is not what its `Content-Encoding` says, or a checksum is wrong.
    Corrupt,
    /// It ends too early.
    Truncated,
    /// It becomes longer than allowed.
    TooLarge,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DecodeError::Corrupt => "the body is not valid in its Content-Encoding",
            DecodeError::Truncated => "the compressed body ends too early",
            DecodeError::TooLarge => "the decompressed body is too large",
        })
    }
}

impl std::error::Error for DecodeError {}

#[cfg(test)]
mod tests;
