//! Accepted and rejected bodies, and a naive reference decoder for every way to cut the reads.

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;

/// Decodes `wire`, which arrives in reads that end at `cuts`. Returns the body, the number of bytes
/// consumed, and the largest size of the buffer.
fn decode(
    wire: &[u8],
    limit_bytes: usize,
    cuts: impl IntoIterator<Item = usize>,
) -> Result<Option<(Vec<u8>, usize, usize)>, ChunkError> {
    decode_by(Chunked::new(limit_bytes), wire, cuts)
}

/// The same with a given decoder.
fn decode_by(
    mut chunked: Chunked,
    wire: &[u8],
    cuts: impl IntoIterator<Item = usize>,
) -> Result<Option<(Vec<u8>, usize, usize)>, ChunkError> {
    let mut buffer = BytesMut::new();
    let (mut start, mut dropped_bytes, mut held_bytes_max) = (0, 0, 0);
    for end in cuts.into_iter().chain([wire.len()]) {
        buffer.extend_from_slice(&wire[start..end]);
        start = end;
        let held_bytes = buffer.len();
        held_bytes_max = held_bytes_max.max(held_bytes);
        match chunked.decode(&mut buffer)? {
            Progress::More => dropped_bytes += held_bytes - buffer.len(),
            Progress::Done { body, consumed } => {
                let body = body.slice(&buffer).to_vec();
                return Ok(Some((body, consumed + dropped_bytes, held_bytes_max)));
            }
        }
    }
    Ok(None)
}

/// Decodes `wire` in one read.
fn at_once(wire: &[u8]) -> Result<Option<(Vec<u8>, usize)>, ChunkError> {
    decode(wire, 1 << 20, []).map(|done| done.map(|(body, consumed, _)| (body, consumed)))
}

/// Decodes `wire` in reads of one byte.
fn byte_by_byte(wire: &[u8]) -> Result<Option<(Vec<u8>, usize)>, ChunkError> {
    decode(wire, 1 << 20, 1..wire.len())
        .map(|done| done.map(|(body, consumed, _)| (body, consumed)))
}

#[test]
fn bodies_are_decoded() {
    for (wire, body, rest) in [
        ("0\r\n\r\n", "", ""),
        ("000\r\n\r\nGET", "", "GET"),
        ("5\r\nhello\r\n0\r\n\r\n", "hello", ""),
        ("5\r\nhello\r\n0\r\n\r\nPOST /", "hello", "POST /"),
        (
            "5\r\nhello\r\n1\r\n \r\n6\r\nworld\n\r\n0\r\n\r\n",
            "hello world\n",
            "",
        ),
        ("a\r\n0123456789\r\n0\r\n\r\n", "0123456789", ""),
        ("A\r\n0\r\n\r\n45678\r\n0\r\n\r\n", "0\r\n\r\n45678", ""),
        ("0000000000000003\r\nabc\r\n0\r\n\r\n", "abc", ""),
        ("3;a\r\nabc\r\n0;b=\"c d\";\u{e9}\t\r\n\r\n", "abc", ""),
        ("3;\r\nabc\r\n0\r\nX-Sum: 1\r\ny:\r\n\r\n!", "abc", "!"),
    ] {
        let done = Ok(Some((body.as_bytes().to_vec(), wire.len() - rest.len())));
        assert_eq!(at_once(wire.as_bytes()), done, "{wire:?}");
        assert_eq!(byte_by_byte(wire.as_bytes()), done, "{wire:?}");
    }
}

#[test]
fn ambiguous_bodies_are_rejected() {
    let size = "invalid chunk size";
    let extension = "invalid chunk extension";
    let bare_lf = "a chunk line ends in a bare LF";
    let data_end = "no CRLF after a chunk";
    let trailer = "invalid trailer field";
    for (wire, text) in [
        ("\r\n", size),
        (";a\r\n", size),
        (" 5\r\nhello\r\n", size),
        ("+5\r\nhello\r\n", size),
        ("-5\r\nhello\r\n", size),
        ("0x5\r\nhello\r\n", extension),
        ("5 \r\nhello\r\n", extension),
        ("5 ;a\r\nhello\r\n", extension),
        ("5\t\r\nhello\r\n", extension),
        ("5_0\r\nhello\r\n", extension),
        ("\u{665}\r\nhello\r\n", size),
        ("00000000000000003\r\nabc\r\n", size),
        ("10000000000000000\r\nabc\r\n", size),
        ("5\nhello\r\n", bare_lf),
        ("5\r\r\nhello\r\n", extension),
        ("5\rhello\r\n", extension),
        ("5;a\rb\r\nhello\r\n", extension),
        ("5;a\0b\r\nhello\r\n", extension),
        ("5;a\x7f\r\nhello\r\n", extension),
        ("5\r\nhello\n0\r\n\r\n", data_end),
        ("5\r\nhello\r0\r\n\r\n", data_end),
        ("5\r\nhello0\r\n\r\n", data_end),
        ("5\r\nhello world", data_end),
        ("5\r\nhello\r\n\r\n0\r\n\r\n", size),
        ("0\r\n\n", bare_lf),
        ("0\r\nnot a field\r\n\r\n", trailer),
        ("0\r\n: empty\r\n\r\n", trailer),
        ("0\r\na : b\r\n\r\n", trailer),
        ("0\r\n a: b\r\n\r\n", trailer),
        ("0\r\na: b\x01\r\n\r\n", trailer),
        ("0\r\na: b\rc: d\r\n\r\n", trailer),
    ] {
        let error = Err(ChunkError::Malformed(text));
        assert_eq!(at_once(wire.as_bytes()), error, "{wire:?}");
        assert_eq!(byte_by_byte(wire.as_bytes()), error, "{wire:?}");
    }
}

#[test]
fn white_space_of_old_servers_is_accepted_only_in_responses() {
    for wire in [
        "3  \r\nabc\r\n0\r\n\r\n",
        "3\t\r\nabc\r\n0 \r\n\r\n",
        "3 ;a=b\r\nabc\r\n0\t ;c\r\n\r\n",
        "3\r\nabc\r\n0\r\nX-Sum : 1\r\n\r\n",
    ] {
        let wire = wire.as_bytes();
        for cuts in [0..0, 1..wire.len()] {
            let decoded = decode_by(Chunked::for_response(100), wire, cuts.clone());
            let (body, consumed, _) = decoded.unwrap().unwrap();
            assert_eq!((body.as_slice(), consumed > 0), (&b"abc"[..], true));
            assert!(decode(wire, 100, cuts).is_err());
        }
    }
    for wire in [
        " 3\r\nabc\r\n",
        "3 3\r\nabc\r\n",
        "3 a\r\nabc\r\n",
        "3\x0c\r\nabc\r\n",
        "3 \x0b;a\r\nabc\r\n",
        "0\r\n : 1\r\n\r\n",
        "0\r\nX Y : 1\r\n\r\n",
    ] {
        let decoded = decode_by(Chunked::for_response(100), wire.as_bytes(), []);
        assert!(decoded.is_err(), "{wire:?}");
    }
    let padded = format!("3{}\r\nabc\r\n0\r\n\r\n", " ".repeat(IGNORED_BYTES_MAX + 1));
    let decoded = decode_by(Chunked::for_response(100), padded.as_bytes(), []);
    assert_eq!(decoded, Err(TOO_MUCH_IGNORED));
}

#[test]
fn a_truncated_body_is_never_done() {
    let wire = b"3;x\r\nabc\r\n2\r\nde\r\n0\r\nA: b\r\n\r\n";
    for end in 0..wire.len() {
        assert_eq!(at_once(&wire[..end]), Ok(None), "{end}");
        assert_eq!(byte_by_byte(&wire[..end]), Ok(None), "{end}");
    }
}

#[test]
fn the_limit_counts_decoded_bytes_and_applies_before_they_arrive() {
    let wire = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    assert!(decode(wire, 5, []).unwrap().is_some());
    assert_eq!(decode(wire, 4, []), Err(ChunkError::TooLarge));
    assert_eq!(decode(b"5\r\n", 4, []), Err(ChunkError::TooLarge));
    assert_eq!(
        decode(b"1\r\na\r\nffffffffffffffff\r\n", usize::MAX, []),
        Err(ChunkError::TooLarge)
    );
}

#[test]
fn extensions_and_trailers_are_bounded_together() {
    let extensions = |count: usize| format!("1;{}\r\na\r\n", "x".repeat(1023)).repeat(count);
    let fits = format!("{}0\r\n\r\n", extensions(16));
    assert!(at_once(fits.as_bytes()).unwrap().is_some());
    let too_many = format!("{}0;\r\n\r\n", extensions(16));
    assert_eq!(at_once(too_many.as_bytes()), Err(TOO_MUCH_IGNORED));
    let one_trailer = format!("{}0\r\na:\r\n\r\n", extensions(16));
    assert_eq!(at_once(one_trailer.as_bytes()), Err(TOO_MUCH_IGNORED));
    // A line that is too long is rejected before its end.
    let endless = format!("1;{}", "x".repeat(IGNORED_BYTES_MAX + SIZE_DIGITS_MAX + 1));
    assert_eq!(at_once(endless.as_bytes()), Err(TOO_MUCH_IGNORED));
    let endless = "1".repeat(2 * IGNORED_BYTES_MAX);
    assert_eq!(byte_by_byte(endless.as_bytes()), Err(TOO_MUCH_IGNORED));
}

#[test]
fn the_data_of_the_first_chunk_stays_where_it_was_read() {
    let mut chunked = Chunked::new(100);
    let mut buffer = BytesMut::with_capacity(100);
    buffer.extend_from_slice(b"b\r\nhello");
    assert_eq!(chunked.decode(&mut buffer), Ok(Progress::More));
    assert_eq!(&buffer[..], b"b\r\nhello");
    buffer.extend_from_slice(b" world\r\n0\r\n\r\nnext");
    let done = chunked.decode(&mut buffer);
    let (body, consumed) = (Span::new(3, 14), 21);
    assert_eq!(done, Ok(Progress::Done { body, consumed }));
    assert_eq!(&buffer[..], b"b\r\nhello world\r\n0\r\n\r\nnext");
}

#[test]
fn chunks_of_one_byte_take_only_the_memory_of_their_data() {
    let count = 20_000;
    let wire = format!("{}0\r\n\r\n", "1\r\nx\r\n".repeat(count));
    let cuts = 1..wire.len();
    let (body, consumed, held_bytes_max) = decode(wire.as_bytes(), count, cuts).unwrap().unwrap();
    assert_eq!(body, "x".repeat(count).into_bytes());
    assert_eq!(consumed, wire.len());
    assert!(held_bytes_max <= count + 8, "{held_bytes_max}");
}

/// The reference: no state, no cuts, a new vector.
fn naive(mut wire: &[u8]) -> (Vec<u8>, usize) {
    let all_bytes = wire.len();
    let mut body = Vec::new();
    loop {
        let line_end = wire.windows(2).position(|pair| pair == b"\r\n").unwrap();
        let line = std::str::from_utf8(&wire[..line_end]).unwrap();
        let digits = line.split(';').next().unwrap();
        let size = usize::from_str_radix(digits, 16).unwrap();
        wire = &wire[line_end + 2..];
        if size == 0 {
            break;
        }
        body.extend_from_slice(&wire[..size]);
        wire = &wire[size + 2..];
    }
    while !wire.starts_with(b"\r\n") {
        let line_end = wire.windows(2).position(|pair| pair == b"\r\n").unwrap();
        wire = &wire[line_end + 2..];
    }
    (body, all_bytes - wire.len() + 2)
}

/// A valid body, and the bytes that follow it on the connection.
fn any_wire() -> impl Strategy<Value = Vec<u8>> {
    let data = prop::collection::vec(any::<u8>(), 1..40);
    let chunk = (data, 0_usize..3, "(;[a-z]{1,5}(=[a-z]{1,5})?){0,2}");
    let chunks = prop::collection::vec(chunk, 0..12);
    let trailers = "([a-z-]{1,8}: ?[a-z ]{0,8}\r\n){0,2}";
    (chunks, trailers, "[ -~]{0,20}").prop_map(|(chunks, trailers, next)| {
        let mut wire = Vec::new();
        for (data, zeros, extension) in chunks {
            let size = format!("{}{:x}{extension}\r\n", "0".repeat(zeros), data.len());
            wire.extend_from_slice(size.as_bytes());
            wire.extend_from_slice(&data);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(format!("0\r\n{trailers}\r\n{next}").as_bytes());
        wire
    })
}

/// Ascending places to cut a wire of `bytes` bytes.
fn any_cuts(bytes: usize) -> impl Strategy<Value = Vec<usize>> {
    prop::collection::btree_set(0..=bytes, 0..20).prop_map(|cuts| cuts.into_iter().collect())
}

proptest! {
    #[test]
    fn the_result_equals_that_of_the_reference_however_reads_are_cut(
        (wire, cuts) in any_wire().prop_flat_map(|wire| {
            let cuts = any_cuts(wire.len());
            (Just(wire), cuts)
        }),
    ) {
        let (body, consumed) = naive(&wire);
        prop_assert_eq!(at_once(&wire), Ok(Some((body.clone(), consumed))));
        prop_assert_eq!(byte_by_byte(&wire), Ok(Some((body.clone(), consumed))));
        let (cut_body, cut_consumed, _) = decode(&wire, 1 << 20, cuts).unwrap().unwrap();
        prop_assert_eq!((cut_body, cut_consumed), (body, consumed));
    }

    #[test]
    fn a_corrupted_byte_never_panics_and_cuts_do_not_matter(
        wire in any_wire(),
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut wire = wire;
        let place = place.index(wire.len());
        wire[place] = byte;
        prop_assert_eq!(at_once(&wire), byte_by_byte(&wire));
    }
}

#[test]
fn missing_bytes_are_those_of_the_current_chunk() {
    let mut chunked = Chunked::new(1 << 20);
    let mut buffer = BytesMut::new();
    for (piece, missing_bytes) in [
        (&b""[..], 0),
        (b"5;", 0),
        (b"a\r\n", 7),
        (b"hel", 4),
        (b"lo\r", 0),
        (b"\n100\r\nx", 257),
    ] {
        buffer.extend_from_slice(piece);
        assert_eq!(chunked.decode(&mut buffer), Ok(Progress::More));
        assert_eq!(chunked.missing_bytes(), missing_bytes, "{piece:?}");
    }
}
