//! Compresses the bodies of a request: a shared rest once, with a front of its own for each outbound.
//!
//! The bodies of one request differ between outbounds only in their first line. So the rest is compressed once
//! for all of them. Each outbound's front goes before it, uncompressed but in the same stream: as a stored block
//! of one gzip member, or as a frame of raw blocks before a zstd frame. Relay decodes both in full. Of two gzip
//! members it would decode only the first.

use bytes::Bytes;
use flate2::{Compress, Compression, Crc, FlushCompress, Status};
use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd::zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, ResetDirective};

/// The compression levels. For such text, a higher level of deflate costs more than it saves.
const GZIP_LEVEL: u32 = 4;
const ZSTD_LEVEL: i32 = 3;

/// The largest stored block of deflate and raw block of zstd.
const STORED_BYTES_MAX: usize = 65_535;
const RAW_BYTES_MAX: usize = 128 * 1024;

/// How much the output is grown at a time.
const OUTPUT_BYTES: usize = 16 * 1024;

/// The memory of a compressor's state: the window, the chains and the buffers of deflate, and what zstd takes
/// for a large input, approximately. Both at the levels above.
const GZIP_STATE_BYTES: usize = 300 * 1024;
const ZSTD_STATE_BYTES: usize = 1_400 * 1024;

/// A content coding for compressed requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Codec {
    /// The name in `Content-Encoding`.
    pub const fn name(self) -> &'static str {
        match self {
            Codec::Gzip => "gzip",
            Codec::Zstd => "zstd",
        }
    }
}

/// The idle compressor states of one worker, for reuse. A new state costs more than to compress a typical body.
#[derive(Default)]
pub struct Compressors {
    deflate: Vec<Compress>,
    zstd: Vec<CCtx<'static>>,
}

impl Compressors {
    /// For each codec; see [`Decompressors`](super::encoding::Decompressors).
    const IDLE_COUNT_MAX: usize = 2;

    fn take(&mut self, codec: Codec) -> State {
        match codec {
            Codec::Gzip => State::Gzip(match self.deflate.pop() {
                Some(mut state) => {
                    state.reset();
                    state
                }
                None => Compress::new(Compression::new(GZIP_LEVEL), false),
            }),
            Codec::Zstd => State::Zstd(self.zstd.pop().unwrap_or_else(|| {
                let mut context = CCtx::create();
                let set = context.set_parameter(CParameter::CompressionLevel(ZSTD_LEVEL));
                debug_assert!(set.is_ok(), "the level exists");
                context
            })),
        }
    }

    fn put(&mut self, state: State) {
        match state {
            State::Gzip(state) if self.deflate.len() < Compressors::IDLE_COUNT_MAX => {
                self.deflate.push(state);
            }
            State::Zstd(mut state) if self.zstd.len() < Compressors::IDLE_COUNT_MAX => {
                if state.reset(ResetDirective::SessionOnly).is_ok() {
                    self.zstd.push(state);
                }
            }
            State::Gzip(_) | State::Zstd(_) => {}
        }
    }
}

enum State {
    Gzip(Compress),
    Zstd(CCtx<'static>),
}

/// The compression of a rest, in progress.
pub struct Compressor {
    state: State,
    input: Bytes,
    read_bytes: usize,
    output: Vec<u8>,
    crc: Crc,
}

/// A compressed rest.
pub struct Compressed {
    /// A deflate stream, or a zstd frame.
    pub bytes: Bytes,
    pub codec: Codec,
    /// The checksum of the uncompressed rest.
    crc: Crc,
}

/// The library failed, which it does only if it has no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotCompressed;

impl Compressor {
    /// Begins to compress `input`.
    pub fn new(codec: Codec, input: Bytes, pool: &mut Compressors) -> Compressor {
        let mut state = pool.take(codec);
        if let State::Zstd(context) = &mut state {
            // If zstd knows the size, it uses small tables for small inputs.
            let known = context.set_pledged_src_size(Some(input.len() as u64));
            debug_assert!(known.is_ok(), "the session has not begun");
        }
        Compressor {
            state,
            input,
            read_bytes: 0,
            output: Vec::new(),
            crc: Crc::new(),
        }
    }

    /// Compresses up to `slice_bytes` more of the input, so that the caller can yield to other tasks in between.
    /// Returns `true` at the end.
    pub fn step(&mut self, slice_bytes: usize) -> Result<bool, NotCompressed> {
        let rest = self.input.get(self.read_bytes..).unwrap_or_default();
        let slice = rest.get(..slice_bytes).unwrap_or(rest);
        let is_last = slice.len() == rest.len();
        self.crc.update(slice);
        let mut read_bytes = 0;
        loop {
            self.output.reserve(OUTPUT_BYTES);
            let input = slice.get(read_bytes..).unwrap_or_default();
            let (read, is_complete) = run(&mut self.state, input, is_last, &mut self.output)?;
            read_bytes += read;
            if is_complete || (!is_last && read_bytes == slice.len()) {
                self.read_bytes += read_bytes;
                return Ok(is_complete);
            }
        }
    }

    /// The memory held besides the input.
    pub fn held_bytes(&self) -> usize {
        let state_bytes = match self.state {
            State::Gzip(_) => GZIP_STATE_BYTES,
            State::Zstd(_) => ZSTD_STATE_BYTES,
        };
        self.output.capacity() + state_bytes
    }

    /// The compressed rest, after [`Compressor::step`] returned `true`.
    pub fn finish(self, pool: &mut Compressors) -> Compressed {
        let codec = match self.state {
            State::Gzip(_) => Codec::Gzip,
            State::Zstd(_) => Codec::Zstd,
        };
        pool.put(self.state);
        let mut output = self.output;
        output.shrink_to_fit();
        Compressed {
            bytes: Bytes::from(output),
            codec,
            crc: self.crc,
        }
    }
}

/// Compresses some of `input` into the spare capacity of `output`. Returns how much it read, and whether the stream
/// is complete, which it ends if this input `is_last`.
fn run(
    state: &mut State,
    input: &[u8],
    is_last: bool,
    output: &mut Vec<u8>,
) -> Result<(usize, bool), NotCompressed> {
    match state {
        State::Gzip(state) => {
            let flush = match is_last {
                true => FlushCompress::Finish,
                false => FlushCompress::None,
            };
            let read_before = state.total_in();
            let status = state.compress_vec(input, output, flush);
            let status = status.map_err(|_| NotCompressed)?;
            let read_bytes = (state.total_in() - read_before) as usize;
            Ok((read_bytes, status == Status::StreamEnd))
        }
        State::Zstd(context) => {
            let end = match is_last {
                true => ZSTD_EndDirective::ZSTD_e_end,
                false => ZSTD_EndDirective::ZSTD_e_continue,
            };
            let mut input = InBuffer::around(input);
            let filled = output.len();
            let mut output = OutBuffer::around_pos(output, filled);
            let left = context.compress_stream2(&mut output, &mut input, end);
            let left = left.map_err(|_| NotCompressed)?;
            Ok((input.pos(), is_last && left == 0))
        }
    }
}

impl Compressed {
    /// Appends the start of the body, with `front`, to `out`, and returns the end of the body.
    pub fn wrap(&self, front: &[u8], out: &mut Vec<u8>) -> Vec<u8> {
        match self.codec {
            Codec::Gzip => {
                // A header without name or time, of an unknown system.
                out.extend_from_slice(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff]);
                for block in front.chunks(STORED_BYTES_MAX) {
                    let length = block.len() as u16;
                    out.push(0);
                    out.extend_from_slice(&length.to_le_bytes());
                    out.extend_from_slice(&(!length).to_le_bytes());
                    out.extend_from_slice(block);
                }
                let mut crc = Crc::new();
                crc.update(front);
                crc.combine(&self.crc);
                [crc.sum().to_le_bytes(), crc.amount().to_le_bytes()].concat()
            }
            Codec::Zstd => {
                wrap_raw(front, out);
                Vec::new()
            }
        }
    }
}

/// Appends a zstd frame of raw blocks (RFC 8878 §3.1.1): a single segment, its size in four bytes.
fn wrap_raw(front: &[u8], out: &mut Vec<u8>) {
    if front.is_empty() {
        return;
    }
    out.extend_from_slice(&[0x28, 0xb5, 0x2f, 0xfd, 0xa0]);
    out.extend_from_slice(&(front.len() as u32).to_le_bytes());
    let mut blocks = front.chunks(RAW_BYTES_MAX).peekable();
    while let Some(block) = blocks.next() {
        let is_last = u32::from(blocks.peek().is_none());
        let header = is_last | (block.len() as u32) << 3;
        let [low, middle, high, _] = header.to_le_bytes();
        out.extend_from_slice(&[low, middle, high]);
        out.extend_from_slice(block);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::http::encoding::{Decoder, Decompressors, Encoding, Step};

    fn compress(codec: Codec, rest: &[u8], slice: usize, pool: &mut Compressors) -> Compressed {
        let mut compressor = Compressor::new(codec, Bytes::copy_from_slice(rest), pool);
        while !compressor.step(slice).unwrap() {}
        compressor.finish(pool)
    }

    fn body(compressed: &Compressed, front: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let end = compressed.wrap(front, &mut out);
        [&out, &compressed.bytes[..], &end].concat()
    }

    fn decoded(encoding: Encoding, body: Vec<u8>) -> Vec<u8> {
        let mut pool = Decompressors::default();
        let mut decoder = Decoder::new(encoding, Bytes::from(body), 1 << 30, &mut pool);
        while decoder.step(1 << 20).unwrap() == Step::More {}
        decoder.finish(&mut pool).to_vec()
    }

    /// Text and noise.
    fn rest(bytes: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let noise = (0..bytes).map(|at| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if at % 7 < 5 {
                b'a'
            } else {
                (state >> 24) as u8
            }
        });
        noise.collect()
    }

    #[test]
    fn any_front_and_the_shared_rest_decode_as_one_body() {
        let mut pool = Compressors::default();
        for size in [0, 1, 100, 5_000, 300_000] {
            let rest = rest(size);
            for (codec, encoding) in [(Codec::Gzip, Encoding::Gzip), (Codec::Zstd, Encoding::Zstd)]
            {
                for slice in [1_000, 1 << 20] {
                    let compressed = compress(codec, &rest, slice, &mut pool);
                    for front in [0, 1, 300, 65_535, 65_536, 140_000, 1 << 20] {
                        let front = vec![b'f'; front];
                        let body = body(&compressed, &front);
                        assert_eq!(decoded(encoding, body), [&front[..], &rest].concat());
                    }
                }
            }
        }
    }

    /// Relay reads only the first member.
    #[test]
    fn a_compressed_body_is_valid_for_other_decoders_and_has_one_gzip_member() {
        let mut pool = Compressors::default();
        let rest = rest(100_000);
        let compressed = compress(Codec::Gzip, &rest, 10_000, &mut pool);
        let body = body(&compressed, b"{\"dsn\":1}\n");
        let mut text = Vec::new();
        let mut decoder = flate2::bufread::GzDecoder::new(&body[..]);
        decoder.read_to_end(&mut text).unwrap();
        assert_eq!(text, [b"{\"dsn\":1}\n", &rest[..]].concat());
        assert!(decoder.into_inner().is_empty());
        let compressed = compress(Codec::Zstd, &rest, 10_000, &mut pool);
        let whole = self::body(&compressed, b"front");
        let text = zstd::decode_all(&whole[..]).unwrap();
        assert_eq!(text, [b"front", &rest[..]].concat());
    }
}
