//! `zstd` (RFC 8878), which a Relay in front of the mirror sends.
//!
//! The decoder is safe Rust: its input is untrusted and its output is sent to upstreams, so a read beyond a
//! buffer would publish memory. All frames are decoded, except skippable ones. The window is limited to 8 MiB,
//! which RFC 9659 allows for this encoding and RFC 8878 §3.1.1.1.2 asks decoders to support. By the format's own
//! limit, a few bytes could ask for gigabytes.

use mzstd::{
    DecodeError as Fault, DecodeLimits, DecodeOperation, DecoderConfig, DecoderSessionOwned,
    DecoderStatus, Decompressor,
};

use super::advance::{Advance, DecodeError};

/// The binary logarithm of 8 MiB.
const WINDOW_LOG_MAX: u8 = 23;

/// The largest decoded block (RFC 8878 §3.1.1.2.3).
const BLOCK_BYTES_MAX: usize = 128 * 1024;

/// The approximate size of the decoding tables, of an encoded block and of its literals.
const TABLES_BYTES: usize = 3 * BLOCK_BYTES_MAX;

pub(super) struct Zstd {
    /// Boxed, since it is several kilobytes and the decoder is moved.
    session: Box<DecoderSessionOwned>,
}

impl Zstd {
    pub(super) fn new() -> Zstd {
        let limits = DecodeLimits::default().with_max_window_log(WINDOW_LOG_MAX);
        debug_assert!(limits.is_ok(), "the format knows windows of this size");
        let config = DecoderConfig::default().with_limits(limits.unwrap_or_default());
        Zstd {
            session: Box::new(Decompressor::new(config).into_session()),
        }
    }

    /// An upper bound of the memory that the decoder has allocated. It keeps two windows and a block of its
    /// output, in a buffer that grows by doubling.
    pub(super) fn held_bytes(&self) -> usize {
        let window_bytes = usize::try_from(self.session.window_size().unwrap_or(0));
        let decoded_bytes = usize::try_from(self.session.total_out()).unwrap_or(usize::MAX);
        let windows_bytes = window_bytes.unwrap_or(usize::MAX).saturating_mul(2);
        let kept_bytes = windows_bytes.min(decoded_bytes.saturating_add(BLOCK_BYTES_MAX));
        kept_bytes
            .saturating_add(2 * BLOCK_BYTES_MAX)
            .saturating_mul(2)
            .saturating_add(TABLES_BYTES)
    }

    pub(super) fn run(
        &mut self,
        input: &[u8],
        is_last: bool,
        output: &mut [u8],
    ) -> Result<Advance, DecodeError> {
        let operation = match is_last {
            true => DecodeOperation::Finish,
            false => DecodeOperation::Process,
        };
        let progress = self.session.process(input, output, operation);
        let progress = progress.map_err(|failure| match failure.error {
            Fault::UnexpectedEndOfInput => DecodeError::Truncated,
            _ => DecodeError::Corrupt,
        })?;
        Ok(Advance {
            read_bytes: progress.consumed,
            written_bytes: progress.produced,
            done: progress.status == DecoderStatus::Finished,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_bytes_is_an_upper_bound() {
        let frame = |data: &[u8], window_log: u32| {
            let mut encoder = ::zstd::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(window_log).unwrap();
            std::io::Write::write_all(&mut encoder, data).unwrap();
            encoder.finish().unwrap()
        };
        let mut state = 1_u32;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        });
        let noise: Vec<u8> = noise.take(5 * 1024 * 1024).collect();
        for data in [&[b'x'; 100][..], &vec![b'x'; 3 << 20], &noise] {
            for (window_log, slice_bytes) in
                [(10, 1 << 20), (17, 4096), (20, 1 << 16), (23, 1 << 20)]
            {
                let input = frame(data, window_log);
                let mut output = vec![0; slice_bytes];
                let mut read = 0;
                let mut zstd = Zstd::new();
                loop {
                    let advance = zstd.run(&input[read..], true, &mut output).unwrap();
                    read += advance.read_bytes;
                    if advance.done {
                        break;
                    }
                }
                let said = zstd.held_bytes();
                let held = zstd.session.into_decompressor().retained_bytes();
                assert!(
                    held <= said,
                    "{held} of {said}, {} at 2^{window_log}",
                    data.len()
                );
                assert!(said <= 8 * held + 2 * 1024 * 1024, "{held} of {said}");
            }
        }
    }
}
