use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::http::head::HeaderName;
use crate::http2::frame::{HEADER_BYTES, PADDED, PAYLOAD_BYTES_MAX};

const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &[u8] = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n";

/// `:status: 200` from the static table.
const OK: &[u8] = b"\x88";

/// A connection, and what a server sends on it.
struct Peer {
    connection: Connection,
    now: Instant,
}

fn frame(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::append_header(&mut out, payload.len(), kind, flags, stream);
    out.extend_from_slice(payload);
    out
}

/// A SETTINGS frame of the server.
fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    let entry =
        |(name, value): &(u16, u32)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat();
    let payload: Vec<u8> = settings.iter().flat_map(entry).collect();
    frame(Kind::Settings, 0, 0, &payload)
}

fn window_update(stream: u32, bytes: u32) -> Vec<u8> {
    frame(Kind::WindowUpdate, 0, stream, &bytes.to_be_bytes())
}

fn go_away(last: u32, code: u32) -> Vec<u8> {
    frame(
        Kind::GoAway,
        0,
        0,
        &[last.to_be_bytes(), code.to_be_bytes()].concat(),
    )
}

fn reset(stream: u32, code: ErrorCode) -> Vec<u8> {
    frame(Kind::RstStream, 0, stream, &code.0.to_be_bytes())
}

fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut block = Vec::new();
    encoder::append(
        &mut block,
        name.as_bytes(),
        value.as_bytes(),
        encoder::Secrecy::Plain,
    );
    block
}

/// An event in one line.
fn describe(event: &Event<'_>) -> String {
    match event {
        Event::Head { token, head } => {
            let fields: Vec<String> = head
                .fields()
                .map(|(name, value)| format!(" {name:?}={}", value.escape_ascii()))
                .collect();
            format!("head {token}: {}{}", head.status, fields.concat())
        }
        Event::Data { token, bytes } => format!("data {token}: {}", bytes.escape_ascii()),
        Event::End { token, is_sent } => format!("end {token} {is_sent}"),
        Event::Failed { token, failure } => format!("failed {token}: {failure:?}"),
        other => format!("{other:?}"),
    }
}

impl Peer {
    /// A connection whose settings were exchanged and whose output was sent.
    fn ready() -> Peer {
        let mut peer = Peer::new();
        assert_eq!(peer.events(&settings(&[])), ["Ready"]);
        peer.sent();
        peer
    }

    fn new() -> Peer {
        let now = Instant::now();
        Peer {
            connection: Connection::new(true, now),
            now,
        }
    }

    /// What a server causes with `bytes`, all of which are processed.
    fn events(&mut self, bytes: &[u8]) -> Vec<String> {
        let (events, result) = self.receive(bytes);
        assert_eq!(result, Ok(bytes.len()));
        events
    }

    fn receive(&mut self, bytes: &[u8]) -> (Vec<String>, Result<usize, Violation>) {
        let mut events = Vec::new();
        let result = self
            .connection
            .receive(bytes, self.now, |event| events.push(describe(&event)));
        (events, result)
    }

    fn violation(&mut self, bytes: &[u8]) -> Violation {
        self.receive(bytes).1.expect_err("the server broke a rule")
    }

    fn open(&mut self, token: usize) -> u32 {
        self.connection.open(token, GET, |_| false).unwrap().id
    }

    /// Opens a stream whose body follows.
    fn open_with_body(&mut self, token: usize) -> u32 {
        let opened = self.connection.open(token, POST, |head_bytes| {
            assert_eq!(head_bytes, POST.len());
            true
        });
        opened.unwrap().id
    }

    /// The frames that were made since the last call.
    fn sent(&mut self) -> Vec<(Kind, u8, u32, Vec<u8>)> {
        let output = self.connection.take_output(Vec::new());
        let mut rest = output.strip_prefix(frame::PREFACE).unwrap_or(&output);
        let mut frames = Vec::new();
        while let Some(header) = FrameHeader::parse(rest).unwrap() {
            let end = HEADER_BYTES + header.len;
            let payload = rest[HEADER_BYTES..end].to_vec();
            frames.push((header.kind, header.flags, header.stream, payload));
            rest = &rest[end..];
        }
        assert!(rest.is_empty());
        frames
    }

    /// The kinds, streams and lengths of the frames that were made since the last call.
    fn sent_lengths(&mut self) -> Vec<(Kind, u32, usize)> {
        let frames = self.sent().into_iter();
        frames
            .map(|(kind, _, stream, payload)| (kind, stream, payload.len()))
            .collect()
    }
}

#[test]
fn a_connection_begins_with_its_settings_and_opens_streams_after_those_of_the_server() {
    let mut peer = Peer::new();
    assert_eq!(peer.connection.free_streams(), 0);
    assert_eq!(
        peer.connection.open(0, GET, |_| false),
        Err(OpenError::NoStream)
    );
    let lengths = peer.sent_lengths();
    assert_eq!(
        lengths,
        [(Kind::Settings, 0, 18), (Kind::WindowUpdate, 0, 4)]
    );
    assert_eq!(peer.events(&settings(&[(3, 5)])), ["Ready"]);
    assert_eq!(peer.connection.free_streams(), 5);
    assert_eq!(peer.sent(), [(Kind::Settings, ACK, 0, Vec::new())]);
    assert_eq!(peer.events(&settings(&[(3, 0)])), Vec::<String>::new());
    assert_eq!(peer.connection.free_streams(), 0);
    let mut other = Peer::new();
    let ack_first = frame(Kind::Settings, ACK, 0, b"");
    assert!(matches!(
        other.violation(&ack_first),
        Violation::Protocol(_)
    ));
}

#[test]
fn a_request_and_its_response() {
    let mut peer = Peer::ready();
    let id = peer.open_with_body(7);
    assert_eq!(peer.connection.send(id, b"{\"a\":", false), 5);
    assert_eq!(peer.connection.send(id, b"1.0}", true), 4);
    let sent = peer.sent();
    let shape: Vec<_> = sent
        .iter()
        .map(|frame| (frame.0, frame.1, frame.2))
        .collect();
    let expected = [
        (Kind::Headers, END_HEADERS, 1),
        (Kind::Data, 0, 1),
        (Kind::Data, END_STREAM, 1),
    ];
    assert_eq!(shape, expected);
    assert_eq!(sent[0].3[..3], [0x20, 0x83, 0x87]);
    let head = [
        OK,
        &literal("content-type", "application/json"),
        &literal("content-length", "4"),
    ];
    let response = [
        frame(Kind::Headers, END_HEADERS, id, b"\x08\x03103"),
        frame(Kind::Headers, END_HEADERS, id, &head.concat()),
        frame(Kind::Data, PADDED, id, b"\x02{}\0\0"),
        frame(Kind::Data, END_STREAM, id, b"\r\n"),
    ];
    let expected = [
        "head 7: 200 ContentType=application/json",
        "data 7: {}",
        "data 7: \\r\\n",
        "end 7 true",
    ];
    assert_eq!(peer.events(&response.concat()), expected);
    assert_eq!(peer.connection.open_streams(), 0);
    assert_eq!(peer.open(8), 3);
    let block = &peer.sent()[0].3;
    assert_eq!(block[..2], [0x82, 0x87], "the table size is said once");
}

#[test]
fn a_response_may_have_continuations_and_trailers() {
    let mut peer = Peer::ready();
    let id = peer.open(1);
    let block = [OK, &literal("retry-after", "7")].concat();
    let response = [
        frame(Kind::Headers, 0, id, &block[..3]),
        frame(Kind::Continuation, 0, id, b""),
        frame(Kind::Continuation, END_HEADERS, id, &block[3..]),
        frame(Kind::Data, 0, id, b"x"),
        frame(
            Kind::Headers,
            END_HEADERS | END_STREAM,
            id,
            &literal("a", "b"),
        ),
    ];
    let expected = ["head 1: 200 RetryAfter=7", "data 1: x", "end 1 true"];
    assert_eq!(peer.events(&response.concat()), expected);
}

#[test]
fn a_response_without_body_needs_none() {
    for (head, status, length) in [
        (GET, &b"\x89"[..], "9"),
        (GET, b"\x8b", "9"),
        (b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", OK, "9"),
        (GET, OK, "0"),
    ] {
        let mut peer = Peer::ready();
        let id = peer.connection.open(0, head, |_| false).unwrap().id;
        let block = [status, &literal("content-length", length)].concat();
        let events = peer.events(&frame(Kind::Headers, END_HEADERS | END_STREAM, id, &block));
        assert_eq!(events.last().map(String::as_str), Some("end 0 true"));
    }
}

#[test]
fn a_malformed_response_ends_its_stream_only() {
    let length = [OK, &literal("content-length", "3")].concat();
    let data = |flags, bytes: &[u8]| frame(Kind::Data, flags, 1, bytes);
    let head = |flags, block: &[u8]| frame(Kind::Headers, END_HEADERS | flags, 1, block);
    let long = [head(0, &length), data(0, b"abcd")].concat();
    let short = [head(0, &length), data(END_STREAM, b"ab")].concat();
    let twice = [head(0, OK), head(0, OK)].concat();
    let window = [head(0, OK), vec![]].concat();
    let flooded = (0..5).fold(window, |sent, _| {
        [sent, data(0, &[0; PAYLOAD_BYTES_MAX])].concat()
    });
    for (bytes, what) in [
        (data(0, b"x"), "a body before its head"),
        (long, "longer"),
        (short, "shorter"),
        (head(END_STREAM, &length), "shorter"),
        (twice, "within a body"),
        (head(0, b"\x08\x03101"), "101"),
        (
            head(END_STREAM, b"\x08\x03100"),
            "interim response that ends",
        ),
        (
            head(0, &[OK, &literal("connection", "x")].concat()),
            "HTTP/1.1",
        ),
        (window_update(1, 0), "window update of 0"),
        (window_update(1, 0x7fff_ffff), "too large"),
    ] {
        let mut peer = Peer::ready();
        peer.open(1);
        let other = peer.open(2);
        let events = peer.events(&bytes);
        let last = events.last().unwrap();
        assert!(
            last.starts_with("failed 1: Malformed(") && last.contains(what),
            "{last}"
        );
        let resets = peer.sent();
        let is_reset = resets
            .iter()
            .any(|(kind, _, stream, _)| (*kind, *stream) == (Kind::RstStream, 1));
        assert!(is_reset, "{what}");
        let answered = peer.events(&frame(Kind::Headers, END_HEADERS | END_STREAM, other, OK));
        assert_eq!(answered, ["head 2: 200", "end 2 true"]);
    }
    // The windows of streams that are read at once never close.
    let mut peer = Peer::ready();
    peer.open(1);
    assert_eq!(peer.events(&flooded).len(), 6);
}

#[test]
fn a_header_list_that_is_too_long_ends_its_stream_only() {
    let mut peer = Peer::ready();
    let id = peer.open(1);
    let field = literal("a", &"b".repeat(10_000));
    let mut block = OK.to_vec();
    (0..7).for_each(|_| block.extend_from_slice(&field));
    let mut frames = Vec::new();
    let parts: Vec<&[u8]> = block.chunks(PAYLOAD_BYTES_MAX).collect();
    for (index, part) in parts.iter().enumerate() {
        let kind = if index == 0 {
            Kind::Headers
        } else {
            Kind::Continuation
        };
        let flags = if index + 1 == parts.len() {
            END_HEADERS
        } else {
            0
        };
        frames.extend(frame(kind, flags, id, part));
    }
    assert_eq!(peer.events(&frames), ["failed 1: TooLarge"]);
    assert_eq!(peer.events(&window_update(0, 1)), Vec::<String>::new());
}

#[test]
fn too_many_interim_responses_end_a_stream() {
    let mut peer = Peer::ready();
    let id = peer.open(1);
    let hint = [&b"\x08\x03103"[..], &literal("link", &"x".repeat(1000))].concat();
    let hint = frame(Kind::Headers, END_HEADERS, id, &hint);
    let mut count = 0;
    let events = loop {
        count += 1;
        let events = peer.events(&hint);
        if !events.is_empty() {
            break events;
        }
    };
    assert_eq!(
        events,
        ["failed 1: Malformed(\"too many interim responses\")"]
    );
    assert_eq!(count, 32 * 1024 / hint.len() + 1);
}

#[test]
fn a_body_waits_for_its_windows() {
    let mut peer = Peer::new();
    peer.events(&settings(&[(4, 10)]));
    let id = peer.open_with_body(1);
    peer.sent();
    assert_eq!(peer.connection.free_window(), 10);
    let body = [b'x'; 40_000];
    assert_eq!(peer.connection.send(id, &body, true), 10);
    assert_eq!(peer.connection.send(id, &body[10..], true), 0);
    assert_eq!(peer.sent_lengths(), [(Kind::Data, 1, 10)]);
    assert_eq!(peer.events(&window_update(id, 5)), ["CanSend { token: 1 }"]);
    assert_eq!(peer.connection.send(id, &body[10..], true), 5);
    // A smaller initial window makes that of the stream negative.
    assert_eq!(peer.events(&settings(&[(4, 0)])), Vec::<String>::new());
    assert_eq!(peer.events(&window_update(id, 10)), Vec::<String>::new());
    assert_eq!(
        peer.events(&settings(&[(4, 40_000)])),
        ["CanSend { token: 1 }"]
    );
    peer.sent();
    assert_eq!(peer.connection.send(id, &body[15..], true), 39_985);
    let lengths = peer.sent_lengths();
    let full = PAYLOAD_BYTES_MAX;
    let expected = [full, full, 39_985 - 2 * full].map(|length| (Kind::Data, 1, length));
    assert_eq!(lengths, expected);
    assert_eq!(
        peer.connection.send(id, b"more", true),
        0,
        "the stream has ended"
    );
}

#[test]
fn the_window_of_the_connection_is_shared() {
    let mut peer = Peer::new();
    peer.events(&settings(&[(4, 1 << 20)]));
    let (first, second) = (peer.open_with_body(1), peer.open_with_body(2));
    let body = vec![0; 100_000];
    assert_eq!(peer.connection.send(first, &body, true), 65_535);
    assert_eq!(peer.connection.send(second, &body, true), 0);
    assert_eq!(peer.connection.free_window(), 0);
    let unblocked = ["CanSend { token: 1 }", "CanSend { token: 2 }"];
    assert_eq!(peer.events(&window_update(0, 50_000)), unblocked);
    assert_eq!(peer.connection.send(first, &body[65_535..], true), 34_465);
    assert_eq!(peer.connection.send(second, &body, true), 15_535);
}

#[test]
fn an_early_answer_ends_the_request() {
    let mut peer = Peer::ready();
    let id = peer.open_with_body(1);
    peer.sent();
    let events = peer.events(&frame(
        Kind::Headers,
        END_HEADERS | END_STREAM,
        id,
        b"\x08\x03413",
    ));
    assert_eq!(events, ["head 1: 413", "end 1 false"]);
    let cancelled = ErrorCode::CANCEL.0.to_be_bytes().to_vec();
    assert_eq!(peer.sent(), [(Kind::RstStream, 0, id, cancelled)]);
    assert_eq!(peer.connection.send(id, b"x", true), 0);
    assert_eq!(
        peer.events(&reset(id, ErrorCode::NO_ERROR)),
        Vec::<String>::new()
    );
}

#[test]
fn data_of_a_stream_that_was_given_up_counts_for_the_connection() {
    let mut peer = Peer::ready();
    let id = peer.open(1);
    peer.connection.reset(id, ErrorCode::CANCEL);
    peer.sent();
    let response = [
        frame(Kind::Headers, END_HEADERS, id, OK),
        frame(Kind::Data, 0, id, &[0; PAYLOAD_BYTES_MAX]),
    ];
    assert_eq!(peer.events(&response.concat()), Vec::<String>::new());
    let half = CONNECTION_WINDOW as usize / 2;
    for _ in 1..half / PAYLOAD_BYTES_MAX {
        assert_eq!(peer.sent(), []);
        peer.events(&frame(Kind::Data, 0, id, &[0; PAYLOAD_BYTES_MAX]));
    }
    assert_eq!(peer.sent_lengths(), [(Kind::WindowUpdate, 0, 4)]);
}

#[test]
fn streams_above_the_last_of_go_away_can_be_sent_again() {
    let mut peer = Peer::ready();
    let ids = [1, 2, 3].map(|token| peer.open(token));
    let expected = [
        "GoingAway(ErrorCode(0))",
        "failed 2: LeftBehind",
        "failed 3: LeftBehind",
    ];
    assert_eq!(peer.events(&go_away(ids[0], 0)), expected);
    assert_eq!(
        (peer.connection.free_streams(), peer.connection.is_ending()),
        (0, true)
    );
    let events = peer.events(&frame(Kind::Headers, END_HEADERS | END_STREAM, ids[0], OK));
    assert_eq!(events, ["head 1: 200", "end 1 true"]);
    assert_eq!(
        peer.events(&reset(ids[1], ErrorCode::CANCEL)),
        Vec::<String>::new()
    );
}

#[test]
fn a_reset_says_whether_the_stream_can_be_sent_again() {
    let mut peer = Peer::ready();
    let (refused, broken) = (peer.open(1), peer.open(2));
    let resets = [
        reset(refused, ErrorCode::REFUSED_STREAM),
        reset(broken, ErrorCode::INTERNAL_ERROR),
        reset(broken, ErrorCode::INTERNAL_ERROR),
    ];
    let expected = ["failed 1: Refused", "failed 2: Reset(ErrorCode(2))"];
    assert_eq!(peer.events(&resets.concat()), expected);
}

#[test]
fn pings_are_answered_and_ours_are_recognised() {
    let mut peer = Peer::ready();
    assert_eq!(
        peer.events(&frame(Kind::Ping, 0, 0, b"abcdefgh")),
        Vec::<String>::new()
    );
    assert_eq!(peer.sent(), [(Kind::Ping, ACK, 0, b"abcdefgh".to_vec())]);
    peer.connection.ping([1; 8]);
    assert_eq!(peer.sent(), [(Kind::Ping, 0, 0, vec![1; 8])]);
    let pong = peer.events(&frame(Kind::Ping, ACK, 0, &[1; 8]));
    assert_eq!(pong, [format!("Pong({:?})", [1_u8; 8])]);
}

#[test]
fn a_server_that_breaks_the_protocol_loses_the_connection() {
    let head = frame(Kind::Headers, 0, 1, OK);
    for bytes in [
        frame(Kind::Data, 0, 0, b""),
        frame(Kind::Data, 0, 2, b""),
        frame(Kind::Data, 0, 3, b""),
        frame(Kind::Headers, END_HEADERS, 3, OK),
        frame(Kind::RstStream, 0, 0, &[0; 4]),
        frame(Kind::RstStream, 0, 3, &[0; 4]),
        frame(Kind::Settings, 0, 1, b""),
        frame(Kind::Ping, 0, 1, &[0; 8]),
        frame(Kind::GoAway, 0, 1, &[0; 8]),
        frame(Kind::PushPromise, 0, 1, &[0; 8]),
        frame(Kind::Priority, 0, 0, &[0; 5]),
        frame(Kind::Continuation, 0, 1, b""),
        frame(Kind::Data, PADDED, 1, b"\x02\0"),
        window_update(0, 0),
        window_update(3, 1),
        [head.clone(), frame(Kind::Data, 0, 1, b"")].concat(),
        [head.clone(), frame(Kind::Ping, 0, 0, &[0; 8])].concat(),
        [head, frame(Kind::Continuation, END_HEADERS, 3, b"")].concat(),
    ] {
        let mut peer = Peer::ready();
        // Its request waits to be sent, and is not sent any more.
        peer.open(1);
        let violation = peer.violation(&bytes);
        assert!(
            matches!(violation, Violation::Protocol(_)),
            "{bytes:?}: {violation:?}"
        );
        let sent = peer.sent();
        let expected = [0, 0, 0, 0, 0, 0, 0, 1].to_vec();
        assert_eq!(sent, [(Kind::GoAway, 0, 0, expected)]);
        assert_eq!(peer.receive(b"x").1, Err(violation), "it stays ended");
        peer.connection.ping([0; 8]);
        assert_eq!(peer.sent(), []);
    }
}

#[test]
fn the_other_violations() {
    let opened = || {
        let mut peer = Peer::ready();
        peer.open(1);
        peer
    };
    let update = window_update(0, 0x7fff_ffff);
    assert_eq!(opened().violation(&update), Violation::FlowControl);
    let settings = settings(&[(4, 0x7fff_ffff)]);
    let update = [window_update(1, 1), settings].concat();
    assert_eq!(opened().violation(&update), Violation::FlowControl);
    let block = frame(Kind::Headers, END_HEADERS, 1, b"\xff");
    assert_eq!(opened().violation(&block), Violation::Compression);
    let large = frame(Kind::Data, 0, 1, &[0; PAYLOAD_BYTES_MAX + 1]);
    assert_eq!(opened().violation(&large), Violation::FrameSize);
    let mut endless = frame(Kind::Headers, 0, 1, OK);
    (0..CONTINUATIONS_MAX).for_each(|_| endless.extend(frame(Kind::Continuation, 0, 1, b"")));
    assert_eq!(opened().events(&endless), Vec::<String>::new());
    endless.extend(frame(Kind::Continuation, 0, 1, b""));
    assert_eq!(opened().violation(&endless), Violation::HeaderBlock);
    let mut long = frame(Kind::Headers, 0, 1, OK);
    for _ in 0..HEADER_BLOCK_BYTES_MAX / PAYLOAD_BYTES_MAX {
        long.extend(frame(Kind::Continuation, 0, 1, &[0; PAYLOAD_BYTES_MAX]));
    }
    assert_eq!(opened().violation(&long), Violation::HeaderBlock);
}

#[test]
fn floods_end_the_connection_and_take_no_memory() {
    let ping = frame(Kind::Ping, 0, 0, &[0; 8]);
    let head = frame(Kind::Headers, END_HEADERS, 1, OK);
    for (bytes, expected) in [
        (settings(&[]), Violation::SettingsFlood),
        (frame(Kind::Settings, ACK, 0, b""), Violation::SettingsFlood),
        (ping.clone(), Violation::PingFlood),
        (
            frame(Kind::Priority, 0, 1, &[0; 5]),
            Violation::UselessFrames,
        ),
        (frame(Kind::Unknown, 0, 1, b"x"), Violation::UselessFrames),
        (frame(Kind::Data, 0, 1, b""), Violation::UselessFrames),
        (window_update(0, 1), Violation::UselessFrames),
        (window_update(1, 1), Violation::UselessFrames),
        (reset(3, ErrorCode::CANCEL), Violation::ResetFlood),
        (
            frame(Kind::Headers, END_HEADERS, 3, OK),
            Violation::UselessFrames,
        ),
    ] {
        let mut peer = Peer::ready();
        peer.open(1);
        let gone = peer.open(2);
        peer.connection.reset(gone, ErrorCode::CANCEL);
        peer.events(&head);
        let flood = bytes.repeat(2000);
        assert_eq!(peer.violation(&flood), expected);
        assert!(peer.connection.output_bytes() < 4096);
    }
    // At a rate that a server may have, and with its answers read, nothing happens.
    let mut peer = Peer::ready();
    for _ in 0..100 {
        peer.now += Duration::from_secs(1);
        peer.events(&ping.repeat(50));
        peer.events(&settings(&[]).repeat(50));
        peer.sent();
    }
}

#[test]
fn a_server_that_resets_every_tenth_stream_is_kept_and_one_that_resets_all_is_not() {
    for (every, is_kept) in [(10, true), (1, false)] {
        let mut peer = Peer::ready();
        let kept = (0..9000).all(|number| {
            let id = peer.open(number);
            let bytes = match number % every {
                0 => reset(id, ErrorCode::CANCEL),
                _ => frame(Kind::Headers, END_HEADERS | END_STREAM, id, OK),
            };
            peer.receive(&bytes).1.is_ok()
        });
        assert_eq!(kept, is_kept);
    }
}

#[test]
fn a_request_with_a_head_that_the_server_does_not_take_is_not_sent() {
    let mut peer = Peer::new();
    peer.events(&settings(&[(6, 180)]));
    peer.sent();
    let long = b"GET /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa HTTP/1.1\r\nHost: a\r\n\r\n";
    let no_host = b"GET / HTTP/1.0\r\n\r\n";
    for head in [&long[..], no_host] {
        assert_eq!(
            peer.connection.open(1, head, |_| false),
            Err(OpenError::Head)
        );
    }
    assert_eq!(
        (peer.sent(), peer.connection.open_streams()),
        (Vec::new(), 0)
    );
    peer.open(1);
    assert_eq!(peer.sent()[0].3[..2], [0x20, 0x82]);
}

#[test]
fn identifiers_run_out() {
    let mut peer = Peer::ready();
    peer.connection.next_id = frame::STREAM_MAX;
    assert_eq!(peer.open(1), frame::STREAM_MAX);
    assert_eq!(peer.connection.free_streams(), 0);
}

#[test]
fn after_our_go_away_open_streams_go_on() {
    let mut peer = Peer::ready();
    let id = peer.open(1);
    peer.connection.go_away();
    peer.connection.go_away();
    let kinds: Vec<Kind> = peer.sent().into_iter().map(|frame| frame.0).collect();
    assert_eq!(kinds, [Kind::Headers, Kind::GoAway]);
    assert_eq!(
        peer.connection.open(2, GET, |_| false),
        Err(OpenError::NoStream)
    );
    let events = peer.events(&frame(Kind::Headers, END_HEADERS | END_STREAM, id, OK));
    assert_eq!(events, ["head 1: 200", "end 1 true"]);
}

#[test]
fn every_field_that_has_a_meaning_is_passed_on() {
    let mut peer = Peer::ready();
    let id = peer.open(1);
    let mut seen = Vec::new();
    let block = [
        OK,
        &literal("x-sentry-error", "y"),
        &literal("content-encoding", "gzip"),
    ];
    let bytes = frame(Kind::Headers, END_HEADERS | END_STREAM, id, &block.concat());
    let received = peer.connection.receive(&bytes, peer.now, |event| {
        if let Event::Head { head, .. } = event {
            seen.extend(head.fields().map(|(name, value)| (name, value.to_vec())));
        }
    });
    assert_eq!(received, Ok(bytes.len()));
    let expected = [
        (HeaderName::XSentryError, b"y".to_vec()),
        (HeaderName::ContentEncoding, b"gzip".to_vec()),
    ];
    assert_eq!(seen, expected);
}

/// A frame as a server may send it, whether or not it is right there.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let streams =
        prop_oneof![8 => Just(1_u32), 4 => Just(3), 2 => Just(5), 2 => Just(0), 1 => Just(7)];
    let blocks = prop_oneof![
        Just(OK.to_vec()),
        Just(b"\x08\x03100".to_vec()),
        Just([OK, &literal("content-length", "3")].concat()),
        Just(literal("a", "b")),
        Just(Vec::new()),
    ];
    let numbers = prop_oneof![Just(0_u32), Just(1), Just(7), Just(0x7fff_ffff)];
    (streams, blocks, numbers, 0..12_u8, any::<u8>(), ".{0,6}").prop_map(
        |(stream, block, number, kind, flags, text)| match kind {
            0..=2 => frame(
                Kind::Headers,
                flags & (END_HEADERS | END_STREAM),
                stream,
                &block,
            ),
            3..=5 => frame(Kind::Data, flags & END_STREAM, stream, text.as_bytes()),
            6 => frame(Kind::Data, PADDED, stream, text.as_bytes()),
            7 => frame(Kind::Continuation, flags & END_HEADERS, stream, &block),
            8 => reset(stream, ErrorCode(number)),
            9 => window_update(stream, number),
            10 => settings(&[(u16::from(flags % 7), number)]),
            _ => go_away(stream, number),
        },
    )
}

/// Feeds `bytes` in pieces that end at `cuts`, with the unprocessed rest before each, as a driver does.
fn run(bytes: &[u8], cuts: &[usize]) -> (Vec<String>, Result<usize, Violation>, Vec<u8>) {
    let mut peer = Peer::new();
    let (mut events, result) = peer.receive(&settings(&[(4, 4)]));
    assert!(result.is_ok());
    peer.open(1);
    let id = peer.open_with_body(2);
    peer.connection.send(id, b"body body", true);
    peer.open(3);
    let (mut processed, mut result) = (0, Ok(0));
    for end in cuts
        .iter()
        .map(|cut| cut % (bytes.len() + 1))
        .chain([bytes.len()])
    {
        if end < processed {
            continue;
        }
        let (more, received) = peer.receive(&bytes[processed..end]);
        events.extend(more);
        match received {
            Ok(count) => processed += count,
            Err(violation) => {
                result = Err(violation);
                break;
            }
        }
    }
    (
        events,
        result.map(|_| processed),
        peer.connection.take_output(Vec::new()),
    )
}

proptest! {
    #[test]
    fn how_the_input_is_split_makes_no_difference(
        frames in prop::collection::vec(any_frame(), 0..20),
        mut cuts in prop::collection::vec(any::<usize>(), 0..20),
        garbage in prop::collection::vec(any::<u8>(), 0..12),
    ) {
        let bytes = [frames.concat(), garbage].concat();
        cuts.iter_mut().for_each(|cut| *cut %= bytes.len() + 1);
        cuts.sort_unstable();
        let every_byte: Vec<usize> = (0..bytes.len()).collect();
        let whole = run(&bytes, &[]);
        prop_assert_eq!(&run(&bytes, &cuts), &whole);
        prop_assert_eq!(&run(&bytes, &every_byte), &whole);
    }

    #[test]
    fn a_stream_ends_once_and_nothing_follows(
        frames in prop::collection::vec(any_frame(), 0..40),
    ) {
        let (events, ..) = run(&frames.concat(), &[]);
        for token in 1..=3 {
            let of_token: Vec<&String> = events
                .iter()
                .filter(|event| event.split([' ', ':']).nth(1) == Some(&token.to_string()))
                .collect();
            let is_end = |event: &&&String| event.starts_with("end") || event.starts_with("failed");
            let end = of_token.iter().position(|event| is_end(&event));
            prop_assert!(end.is_none_or(|end| end + 1 == of_token.len()), "{:?}", of_token);
            let heads = of_token.iter().filter(|event| event.starts_with("head"));
            prop_assert!(heads.count() <= 1);
        }
    }
}

/// h2o 2.2 uses a dynamic table of the size that it was not allowed.
#[test]
fn a_dynamic_table_is_kept_in_step_whatever_becomes_of_a_block() {
    let head =
        |flags, stream, block: &[u8]| frame(Kind::Headers, END_HEADERS | flags, stream, block);
    let add = |value: &str| {
        let literal = [&[0x5f], &[value.len() as u8][..], value.as_bytes()];
        [OK, &literal.concat()].concat()
    };
    // The newest entry.
    let newest = [OK, b"\xbe"].concat();
    let mut peer = Peer::ready();
    let ids: Vec<u32> = (0..6).map(|token| peer.open(token)).collect();
    let mut expect = |bytes: &[u8], expected: &[&str]| assert_eq!(peer.events(bytes), expected);
    let one = "head 0: 200 ContentType=one";
    expect(&head(0, ids[0], &add("one")), &[one]);
    // Again, but nothing is added now.
    expect(
        &head(END_STREAM, ids[1], &newest),
        &["head 1: 200 ContentType=one", "end 1 true"],
    );
    // Trailers.
    expect(&head(END_STREAM, ids[0], &add("two")[1..]), &["end 0 true"]);
    expect(
        &head(END_STREAM, ids[2], &newest),
        &["head 2: 200 ContentType=two", "end 2 true"],
    );
    // A stream that is gone.
    expect(&head(END_STREAM, ids[2], &add("three")), &[]);
    expect(
        &head(0, ids[3], &newest),
        &["head 3: 200 ContentType=three"],
    );
    // Fields within a body, and a head that is malformed.
    let failed = "failed 3: Malformed(\"fields within a body\")";
    expect(&head(0, ids[3], &add("four")), &[failed]);
    let malformed = [&add("five")[..], OK].concat();
    let failed = "failed 4: Malformed(\"a second :status\")";
    expect(&head(0, ids[4], &malformed), &[failed]);
    expect(
        &head(END_STREAM, ids[5], &newest),
        &["head 5: 200 ContentType=five", "end 5 true"],
    );
}
