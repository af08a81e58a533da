//! Round trips through each coding, its limits, and corrupted bodies.

use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use flate2::{GzBuilder, write};
use proptest::prelude::*;

use super::*;
use crate::http::encoding::name::Unsupported;

const CODINGS: [Encoding; 5] = [
    Encoding::Identity,
    Encoding::Gzip,
    Encoding::Deflate,
    Encoding::Brotli,
    Encoding::Zstd,
];

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn zlib(data: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn raw_deflate(data: &[u8], level: Compression) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), level);
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn brotli(data: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    let mut writer = ::brotli::CompressorWriter::new(&mut encoded, 4096, 4, 22);
    writer.write_all(data).unwrap();
    drop(writer);
    encoded
}

fn zstd(data: &[u8]) -> Vec<u8> {
    ::zstd::encode_all(data, 3).unwrap()
}

fn encode(encoding: Encoding, data: &[u8]) -> Vec<u8> {
    match encoding {
        Encoding::Identity => data.to_vec(),
        Encoding::Gzip => gzip(data),
        Encoding::Deflate => zlib(data),
        Encoding::Brotli => brotli(data),
        Encoding::Zstd => zstd(data),
    }
}

/// Text that compresses about as well as an envelope.
fn text(bytes: usize) -> Vec<u8> {
    let mut text = Vec::new();
    let mut number = 1_u32;
    while text.len() < bytes {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        write!(text, "{{\"function\":\"handler\",\"lineno\":{number}}},").unwrap();
    }
    text.truncate(bytes);
    text
}

/// Decodes with a pool of its own.
fn decode(
    encoding: Encoding,
    input: &[u8],
    limit_bytes: usize,
    slice_bytes: usize,
) -> Result<Vec<u8>, DecodeError> {
    decode_with(
        &mut Decompressors::default(),
        encoding,
        input,
        limit_bytes,
        slice_bytes,
    )
}

fn decode_with(
    pool: &mut Decompressors,
    encoding: Encoding,
    input: &[u8],
    limit_bytes: usize,
    slice_bytes: usize,
) -> Result<Vec<u8>, DecodeError> {
    let input = Bytes::copy_from_slice(input);
    let mut decoder = Decoder::new(encoding, input, limit_bytes, pool);
    let mut decoded_bytes = 0_usize;
    loop {
        let step = decoder.step(slice_bytes);
        assert!(decoder.output.len() <= decoded_bytes.saturating_add(slice_bytes.max(1)));
        assert!(decoder.output_bytes() <= limit_bytes.saturating_add(1));
        decoded_bytes = decoder.output.len();
        if step? == Step::Done {
            return Ok(decoder.finish(pool).to_vec());
        }
    }
}

#[test]
fn content_encoding_values_of_sdks_are_parsed() {
    let of = |values: &[&str]| Encoding::parse(values.iter().map(|value| value.as_bytes()));
    for (values, encoding) in [
        (&[][..], Ok(Encoding::Identity)),
        (&[""], Ok(Encoding::Identity)),
        (&["identity"], Ok(Encoding::Identity)),
        (&["UTF-8"], Ok(Encoding::Identity)),
        (&["utf-8"], Ok(Encoding::Identity)),
        (&["gzip"], Ok(Encoding::Gzip)),
        (&["GZip"], Ok(Encoding::Gzip)),
        (&["deflate"], Ok(Encoding::Deflate)),
        (&["br"], Ok(Encoding::Brotli)),
        (&["zstd"], Ok(Encoding::Zstd)),
        (&["", "gzip"], Ok(Encoding::Gzip)),
        (&["gzip", "identity"], Ok(Encoding::Gzip)),
        (&["gzip", "gzip"], Err(Unsupported)),
        (&["gzip", "br"], Err(Unsupported)),
        (&["gzip, br"], Err(Unsupported)),
        (&["gzip, identity"], Err(Unsupported)),
        (&["X-gzip"], Ok(Encoding::Gzip)),
        (&["x-gzip", "gzip"], Err(Unsupported)),
        (&["x-compress"], Err(Unsupported)),
        (&["compress"], Err(Unsupported)),
        (&["gzip;q=1"], Err(Unsupported)),
        (&["\"gzip\""], Err(Unsupported)),
    ] {
        assert_eq!(of(values), encoding, "{values:?}");
    }
}

#[test]
fn encoded_bodies_are_decoded_in_slices_of_any_size() {
    for data in [
        text(0),
        text(1),
        text(4096),
        text(300_000),
        vec![0; 300_000],
    ] {
        for encoding in CODINGS {
            let encoded = encode(encoding, &data);
            if encoded.is_empty() {
                continue;
            }
            for slice_bytes in [1000, 65_536, 1 << 20, usize::MAX] {
                let decoded = decode(encoding, &encoded, data.len(), slice_bytes);
                assert!(decoded == Ok(data.clone()), "{encoding:?} {slice_bytes}");
            }
        }
    }
    let data = text(3000);
    for encoding in CODINGS {
        let encoded = encode(encoding, &data);
        for slice_bytes in [0, 1, 2] {
            let decoded = decode(encoding, &encoded, data.len(), slice_bytes);
            assert!(decoded == Ok(data.clone()), "{encoding:?} {slice_bytes}");
        }
    }
}

#[test]
fn incompressible_bodies_are_decoded() {
    let data: Vec<u8> = text(400_000)
        .chunks(7)
        .map(|c| c.iter().fold(0, |a, b| a ^ b))
        .collect();
    let stored = {
        let mut encoder = write::GzEncoder::new(Vec::new(), Compression::none());
        encoder.write_all(&data).unwrap();
        encoder.finish().unwrap()
    };
    assert!(stored.len() > data.len());
    for slice_bytes in [4096, 65_536, 1 << 20] {
        assert_eq!(
            decode(Encoding::Gzip, &stored, data.len(), slice_bytes),
            Ok(data.clone())
        );
    }
}

#[test]
fn all_members_of_a_gzip_body_are_decoded() {
    let parts = [text(5000), Vec::new(), text(70_000), text(1)];
    let encoded: Vec<u8> = parts.iter().flat_map(|part| gzip(part)).collect();
    for slice_bytes in [100, 1 << 20] {
        assert_eq!(
            decode(Encoding::Gzip, &encoded, 1 << 20, slice_bytes),
            Ok(parts.concat())
        );
    }
    // Members without output do not prolong a step.
    let empty = gzip(b"").repeat(50_000);
    let mut pool = Decompressors::default();
    let mut decoder = Decoder::new(Encoding::Gzip, Bytes::from(empty.clone()), 10, &mut pool);
    let mut step_count = 0;
    while decoder.step(1) == Ok(Step::More) {
        step_count += 1;
    }
    assert_eq!(step_count, empty.len() / (4 * 1024));
    assert!(decoder.finish(&mut pool).is_empty());
}

#[test]
fn all_optional_parts_of_a_gzip_header_are_accepted() {
    let data = text(2000);
    let mut encoder = GzBuilder::new()
        .extra(vec![7; 300])
        .filename("dump.dmp")
        .comment("a comment")
        .mtime(1_700_000_000)
        .write(Vec::new(), Compression::fast());
    encoder.write_all(&data).unwrap();
    let mut encoded = encoder.finish().unwrap();
    assert_eq!(
        decode(Encoding::Gzip, &encoded, 2000, 1 << 20),
        Ok(data.clone())
    );
    for end in 0..encoded.len() {
        let decoded = decode(Encoding::Gzip, &encoded[..end], 2000, 1 << 20);
        assert_eq!(decoded, Err(DecodeError::Truncated), "{end}");
    }
    // A checksum of the header, after its other parts.
    let header_bytes = 10 + 2 + 300 + "dump.dmp".len() + 1 + "a comment".len() + 1;
    encoded[3] |= 2;
    encoded.splice(header_bytes..header_bytes, [0xaa, 0xbb]);
    assert_eq!(decode(Encoding::Gzip, &encoded, 2000, 1 << 20), Ok(data));
    // Flags of a later version.
    encoded[3] |= 0x20;
    assert_eq!(
        decode(Encoding::Gzip, &encoded, 2000, 1 << 20),
        Err(DecodeError::Corrupt)
    );
    // A name that is longer than a slice.
    let endless = [&[0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 0][..], &[b'x'; 100_000]].concat();
    assert_eq!(
        decode(Encoding::Gzip, &endless, 2000, 1000),
        Err(DecodeError::Corrupt)
    );
}

#[test]
fn bytes_after_a_complete_body_are_ignored() {
    let data = text(3000);
    for garbage in [&b"\n"[..], b"\0\0\0\0", b"garbage", &[0x1f], &[0x1f, 0x8b]] {
        for encoding in [Encoding::Gzip, Encoding::Deflate, Encoding::Brotli] {
            let encoded = [encode(encoding, &data), garbage.to_vec()].concat();
            let decoded = decode(encoding, &encoded, 3000, 1 << 20);
            assert_eq!(decoded, Ok(data.clone()), "{encoding:?} {garbage:?}");
        }
    }
    // To zstd, garbage is a broken frame.
    let encoded = [zstd(&data), b"garbage".to_vec()].concat();
    assert_eq!(
        decode(Encoding::Zstd, &encoded, 3000, 1 << 20),
        Err(DecodeError::Corrupt)
    );
}

#[test]
fn deflate_without_a_zlib_frame_is_accepted() {
    for data in [text(0), text(1), text(5000)] {
        for level in 0..=9 {
            let encoded = raw_deflate(&data, Compression::new(level));
            let decoded = decode(Encoding::Deflate, &encoded, data.len(), 1 << 20);
            assert_eq!(decoded, Ok(data.clone()), "level {level}");
        }
    }
}

#[test]
fn all_frames_of_a_zstd_body_are_decoded() {
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
    let parts = [text(5000), Vec::new(), text(200_000)];
    let mut encoded = skippable.to_vec();
    for part in &parts {
        encoded.extend(zstd(part));
        encoded.extend(skippable);
    }
    for slice_bytes in [1000, 1 << 20] {
        assert_eq!(
            decode(Encoding::Zstd, &encoded, 1 << 20, slice_bytes),
            Ok(parts.concat())
        );
    }
}

#[test]
fn a_broken_zstd_frame_is_rejected_or_decodes_as_in_the_reference_decoder() {
    let whole = zstd(&text(3000));
    for at in 0..whole.len() {
        for flip in [0x01, 0x10, 0x80] {
            let mut broken = whole.clone();
            broken[at] ^= flip;
            // The reference decoder accepts some invalid streams.
            if let Ok(decoded) = decode(Encoding::Zstd, &broken, 1 << 20, 1 << 20) {
                let expected = ::zstd::decode_all(&broken[..]).unwrap_or_default();
                assert!(decoded == expected, "byte {at} ^ {flip:#x}");
            }
        }
    }
}

#[test]
fn zstd_windows_over_8_mib_are_rejected() {
    let compress = |window_log: u32| {
        let mut encoder = ::zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(window_log).unwrap();
        encoder.write_all(&text(1000)).unwrap();
        encoder.finish().unwrap()
    };
    assert_eq!(
        decode(Encoding::Zstd, &compress(23), 1000, 100),
        Ok(text(1000))
    );
    assert_eq!(
        decode(Encoding::Zstd, &compress(24), 1000, 100),
        Err(DecodeError::Corrupt)
    );
}

#[test]
fn large_windows_of_brotli_are_rejected() {
    let params = ::brotli::enc::BrotliEncoderParams {
        large_window: true,
        lgwin: 28,
        quality: 4,
        ..Default::default()
    };
    let mut encoded = Vec::new();
    let mut writer = ::brotli::CompressorWriter::with_params(&mut encoded, 4096, &params);
    writer.write_all(&text(1000)).unwrap();
    drop(writer);
    assert_eq!(
        decode(Encoding::Brotli, &encoded, 1000, 1000),
        Err(DecodeError::Corrupt)
    );
}

#[test]
fn decompression_bombs_end_at_the_limit() {
    let bomb = vec![0; 4 << 20];
    for encoding in CODINGS {
        let encoded = encode(encoding, &bomb);
        for limit_bytes in [0, 1000, 1 << 20] {
            // The bound on memory holds after each step.
            let decoded = decode(encoding, &encoded, limit_bytes, 65_536);
            assert_eq!(decoded, Err(DecodeError::TooLarge), "{encoding:?}");
        }
    }
}

#[test]
fn a_body_of_exactly_the_limit_is_accepted() {
    for encoding in CODINGS {
        let encoded = encode(encoding, &text(10_000));
        assert_eq!(decode(encoding, &encoded, 10_000, 4096), Ok(text(10_000)));
        assert_eq!(
            decode(encoding, &encoded, 9999, 4096),
            Err(DecodeError::TooLarge)
        );
    }
}

#[test]
fn a_body_cut_anywhere_is_truncated() {
    let data = text(600);
    for encoding in [
        Encoding::Gzip,
        Encoding::Deflate,
        Encoding::Brotli,
        Encoding::Zstd,
    ] {
        let encoded = encode(encoding, &data);
        for end in 0..encoded.len() {
            for slice_bytes in [1, 1 << 20] {
                let decoded = decode(encoding, &encoded[..end], 1 << 20, slice_bytes);
                assert_eq!(decoded, Err(DecodeError::Truncated), "{encoding:?} {end}");
            }
        }
    }
    let encoded = raw_deflate(&data, Compression::default());
    for end in 0..encoded.len() {
        let decoded = decode(Encoding::Deflate, &encoded[..end], 1 << 20, 1 << 20);
        assert_eq!(decoded, Err(DecodeError::Truncated), "{end}");
    }
}

#[test]
fn a_step_reads_little_of_input_that_is_slow_to_decode() {
    // Noise is as long encoded as decoded, so the end of the input slice ends the step.
    let mut number = 1_u32;
    let noise = std::iter::repeat_with(|| {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        number.to_be_bytes()[0]
    });
    let noise: Vec<u8> = noise.take(100_000).collect();
    for (encoding, bytes_max) in [
        (Encoding::Gzip, 8192),
        (Encoding::Deflate, 8192),
        (Encoding::Zstd, 8192),
        (Encoding::Brotli, 512),
    ] {
        let input = Bytes::from(encode(encoding, &noise));
        let mut pool = Decompressors::default();
        let mut decoder = Decoder::new(encoding, input, 1 << 20, &mut pool);
        loop {
            let before = decoder.read_bytes;
            let step = decoder.step(1 << 20).unwrap();
            let read_bytes = decoder.read_bytes - before;
            assert!(read_bytes <= bytes_max, "{encoding:?}: {read_bytes}");
            if step == Step::Done {
                break;
            }
        }
        assert!(decoder.finish(&mut pool) == noise);
    }
}

#[test]
fn a_decoded_body_holds_no_unused_memory() {
    // The stated size is believed up to sixteen times the input, but is false.
    let data = text(100);
    let lie = 1_000_000_u32.to_le_bytes();
    let input = [gzip(&data), lie.to_vec()].concat();
    let mut pool = Decompressors::default();
    let mut decoder = Decoder::new(Encoding::Gzip, Bytes::from(input), 1 << 20, &mut pool);
    assert!(decoder.output_bytes() > 1000);
    while decoder.step(1 << 20).unwrap() == Step::More {}
    let body = decoder.finish(&mut pool).try_into_mut().unwrap();
    assert!(body == data && body.capacity() < 200, "{}", body.capacity());
}

#[test]
fn a_stated_size_is_only_a_hint() {
    let data = text(5000);
    let (member, lies) = (gzip(&data), [0, 1, 4999, 5001, u32::MAX]);
    for lie in lies {
        // The false size is behind the member, where garbage is ignored.
        let encoded = [member.clone(), lie.to_le_bytes().to_vec()].concat();
        let input = Bytes::from(encoded.clone());
        let decoder = Decoder::new(
            Encoding::Gzip,
            input,
            1 << 30,
            &mut Decompressors::default(),
        );
        assert!(decoder.output_bytes() <= encoded.len() * BELIEVED_RATIO_MAX);
        for slice_bytes in [64, 1 << 20] {
            assert_eq!(
                decode(Encoding::Gzip, &encoded, 6000, slice_bytes),
                Ok(data.clone())
            );
        }
    }
    // In the member itself it is an error.
    let mut encoded = member;
    *encoded.last_mut().unwrap() = 1;
    assert_eq!(
        decode(Encoding::Gzip, &encoded, 6000, 1 << 20),
        Err(DecodeError::Corrupt)
    );
}

#[test]
fn a_small_gzip_body_takes_one_step_and_one_exact_allocation() {
    let mut pool = Decompressors::default();
    let input = Bytes::from(gzip(&text(2656)));
    let mut decoder = Decoder::new(Encoding::Gzip, input, 1 << 20, &mut pool);
    assert_eq!(decoder.step(65_536), Ok(Step::Done));
    assert_eq!(decoder.output_bytes(), 2656);
}

#[test]
fn inflate_states_are_reused_across_codings() {
    let data = text(4000);
    let mut pool = Decompressors::default();
    let mut decode = |encoding: Encoding, encoded: &[u8], idle_count: usize| {
        let decoded = decode_with(&mut pool, encoding, encoded, 1 << 20, 1000);
        assert_eq!(pool.idle.len(), idle_count);
        decoded
    };
    let raw = raw_deflate(&data, Compression::default());
    for _ in 0..3 {
        for encoding in [Encoding::Gzip, Encoding::Deflate, Encoding::Gzip] {
            let encoded = encode(encoding, &data);
            assert_eq!(decode(encoding, &encoded, 1), Ok(data.clone()));
        }
        assert_eq!(decode(Encoding::Deflate, &raw, 1), Ok(data.clone()));
        // The state of a body that fails is not used again.
        let cut = decode(Encoding::Deflate, &raw[..100], 0);
        assert_eq!(cut, Err(DecodeError::Truncated));
    }

    let input = Bytes::from(gzip(&data));
    let decoders = [(); 6].map(|()| {
        let mut decoder = Decoder::new(Encoding::Gzip, input.clone(), 1 << 20, &mut pool);
        assert_eq!(decoder.step(1 << 20), Ok(Step::Done));
        decoder
    });
    for decoder in decoders {
        assert_eq!(decoder.finish(&mut pool), data);
    }
    assert_eq!(pool.idle.len(), Decompressors::IDLE_COUNT_MAX);
}

proptest! {
    #[test]
    fn a_corrupted_body_never_panics_or_decodes_to_other_bytes(
        encoding in prop::sample::select(&CODINGS[1..]),
        data in prop::collection::vec(any::<u8>(), 1..400),
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        slice_bytes in 1_usize..500,
    ) {
        let mut encoded = encode(encoding, &data);
        let place = place.index(encoded.len());
        encoded[place] = byte;
        let decoded = decode(encoding, &encoded, 1 << 16, slice_bytes);
        // Only these two have a checksum, which does not cover all of the header.
        let has_checksum = matches!(encoding, Encoding::Gzip | Encoding::Deflate) && place >= 10;
        if let Ok(decoded) = decoded && has_checksum {
            prop_assert_eq!(decoded, data);
        }
    }

    #[test]
    fn random_bytes_never_panic(
        encoding in prop::sample::select(&CODINGS[..]),
        input in prop::collection::vec(any::<u8>(), 0..300),
        slice_bytes in 1_usize..500,
    ) {
        if let Ok(decoded) = decode(encoding, &input, 1 << 16, slice_bytes) {
            prop_assert!(decoded.len() <= 1 << 16);
        }
    }
}
