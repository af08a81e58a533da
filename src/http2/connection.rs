//! A connection to a server, as a state machine: bytes in, events out, and frames into one buffer.
//!
//! Its caller passes what has arrived to [`Connection::receive`], and sends what [`Connection::take_output`] returns.
//! Every frame is processed as a whole, so how its bytes are split over reads makes no difference.

use std::time::Instant;

use super::error::{ErrorCode, Violation};
use super::flood::Flood;
use super::frame::{self, ACK, END_HEADERS, END_STREAM, FrameHeader, Kind};
use super::hpack::decoder::Decoder;
use super::hpack::encoder;
use super::request_head::RequestEncoder;
use super::response_head::{HeadError, LIST_BYTES_MAX, ResponseHead};
use super::settings::{self, PeerSettings};
use super::streams::{Awaits, Stream, Streams};
use super::window::{INITIAL_WINDOW, ReceiveWindow, SendWindow};

/// The most streams of one connection at a time, whatever the server allows. Most allow 100 to 250.
pub(crate) const STREAMS_MAX: usize = 256;

/// What all streams together may receive before the mirror allows more: enough that many responses never wait for it.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// The longest header block: twice the longest header list, which is far more than the overhead of its coding.
pub(crate) const HEADER_BLOCK_BYTES_MAX: usize = 2 * LIST_BYTES_MAX;

/// The most CONTINUATION frames of one header block (CVE-2024-27316 and others).
const CONTINUATIONS_MAX: usize = 64;

/// The most bytes that the interim heads (1xx) of one response may have in all, as over HTTP/1.1.
const INTERIM_BYTES_MAX: usize = 32 * 1024;

/// What happened on a connection. A `token` is what the caller gave to [`Connection::open`].
#[derive(Debug)]
pub enum Event<'c> {
    /// The server sent its first SETTINGS: it does speak HTTP/2, and streams may be opened.
    Ready,
    /// The final head of a response.
    Head {
        token: usize,
        head: &'c ResponseHead,
    },
    /// A part of a body.
    Data { token: usize, bytes: &'c [u8] },
    /// A response is complete, and its stream is gone. If the request was not sent completely, the server does not want
    /// the rest.
    End { token: usize, is_sent: bool },
    /// A stream ended without a complete response.
    Failed {
        token: usize,
        failure: StreamFailure,
    },
    /// More of a request can be sent, after [`Connection::send`] did not take all.
    CanSend { token: usize },
    /// The server will process no more streams than those still open.
    GoingAway(ErrorCode),
    /// The answer to [`Connection::ping`].
    Pong([u8; 8]),
}

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamFailure {
    /// The server refused it without having processed it, so it can be sent again, but hardly at once.
    Refused,
    /// The server leaves without having processed it, so it can be sent again.
    LeftBehind,
    /// The server reset it.
    Reset(ErrorCode),
    /// Its response broke this rule.
    Malformed(&'static str),
    /// The header list of its response is too long.
    TooLarge,
}

/// Why a stream cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// As many streams are open as may be, or the connection ends.
    NoStream,
    /// The request has a head that HTTP/2 or this server does not take.
    Head,
}

/// A stream that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    pub id: u32,
    /// The length of the head; the rest is body, to be sent with [`Connection::send`].
    pub head_bytes: usize,
}

#[derive(Debug)]
pub struct Connection {
    is_https: bool,
    out: Vec<u8>,
    peer: PeerSettings,
    has_settings: bool,
    streams: Streams,
    /// The identifier of the next stream.
    next_id: u32,
    send: SendWindow,
    receive: ReceiveWindow,
    /// A header block that is not complete.
    block: Option<Block>,
    is_going_away: bool,
    /// Why it has ended. Nothing is read or sent after that.
    violation: Option<Violation>,
    flood: Flood,
    decoder: Decoder,
    /// Reused for their memory.
    head: ResponseHead,
    request: RequestEncoder,
}

#[derive(Debug)]
struct Block {
    stream: u32,
    is_end: bool,
    bytes: Vec<u8>,
    continuations: usize,
}

impl Connection {
    /// A connection that has just been opened. Its output begins with the preface.
    pub fn new(is_https: bool, now: Instant) -> Connection {
        let mut out = frame::PREFACE.to_vec();
        settings::append_own(&mut out, u32::try_from(LIST_BYTES_MAX).unwrap_or(u32::MAX));
        frame::append_window_update(&mut out, 0, CONNECTION_WINDOW - INITIAL_WINDOW);
        Connection {
            is_https,
            out,
            peer: PeerSettings::default(),
            has_settings: false,
            streams: Streams::default(),
            next_id: 1,
            send: SendWindow::new(INITIAL_WINDOW),
            receive: ReceiveWindow::new(CONNECTION_WINDOW),
            block: None,
            is_going_away: false,
            violation: None,
            flood: Flood::new(now),
            decoder: Decoder::default(),
            head: ResponseHead::default(),
            request: RequestEncoder::default(),
        }
    }

    /// How many bytes wait to be sent.
    pub fn output_bytes(&self) -> usize {
        self.out.len()
    }

    /// Takes what has to be sent, and leaves `buffer`, which is empty, to be filled next.
    pub fn take_output(&mut self, buffer: Vec<u8>) -> Vec<u8> {
        debug_assert!(buffer.is_empty());
        self.flood.sent();
        std::mem::replace(&mut self.out, buffer)
    }

    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// How many streams may be opened now.
    pub fn free_streams(&self) -> usize {
        if !self.has_settings || self.is_ending() || self.next_id > frame::STREAM_MAX {
            return 0;
        }
        self.streams_max().saturating_sub(self.streams.len())
    }

    /// How many streams may be open at the same time.
    pub fn streams_max(&self) -> usize {
        let allowed = usize::try_from(self.peer.streams_max).unwrap_or(usize::MAX);
        allowed.min(STREAMS_MAX)
    }

    /// How much of a body a new stream could send at once.
    pub fn free_window(&self) -> usize {
        let stream = SendWindow::new(self.peer.initial_window);
        self.send.free().min(stream.free())
    }

    /// Whether the server broke a rule.
    pub fn is_broken(&self) -> bool {
        self.violation.is_some()
    }

    /// Whether no stream can be opened any more.
    pub fn is_ending(&self) -> bool {
        self.is_going_away || self.violation.is_some()
    }

    /// Opens a stream for the request at the start of `rendered`, an HTTP/1.1 head with what follows it. If `has_body`,
    /// the body has to be sent afterwards.
    ///
    /// # Errors
    /// Why not. Nothing is sent then.
    pub fn open(
        &mut self,
        token: usize,
        rendered: &[u8],
        has_body: impl FnOnce(usize) -> bool,
    ) -> Result<Opened, OpenError> {
        if self.free_streams() == 0 {
            return Err(OpenError::NoStream);
        }
        let id = self.next_id;
        let encoded = self.request.encode(rendered, self.is_https);
        let list_bytes_max = usize::try_from(self.peer.header_list_max).unwrap_or(usize::MAX);
        let encoded = encoded
            .filter(|encoded| encoded.list_bytes <= list_bytes_max)
            .ok_or(OpenError::Head)?;
        let is_sent = !has_body(encoded.head_bytes);
        let flags = if is_sent { END_STREAM } else { 0 };
        if id == 1 {
            let mut block = Vec::new();
            encoder::append_no_table(&mut block);
            block.extend_from_slice(&encoded.block);
            frame::append_header_block(&mut self.out, &block, flags, id);
        } else {
            frame::append_header_block(&mut self.out, &encoded.block, flags, id);
        }
        let (head_bytes, is_head) = (encoded.head_bytes, encoded.is_head);
        self.next_id = id + 2;
        self.flood.progress();
        self.streams.add(Stream {
            id,
            token,
            send: SendWindow::new(self.peer.initial_window),
            receive: ReceiveWindow::new(INITIAL_WINDOW),
            is_sent,
            is_blocked: false,
            awaits: Awaits::Head,
            is_head,
            interim_bytes: 0,
        });
        Ok(Opened { id, head_bytes })
    }

    /// Sends as much of `body` as the windows allow, and returns how much that is. With `is_last` the stream ends
    /// behind it. If it does not take all, an event tells when it may take more.
    pub fn send(&mut self, id: u32, body: &[u8], is_last: bool) -> usize {
        if self.violation.is_some() {
            return 0;
        }
        let Some(stream) = self.streams.get_mut(id).filter(|stream| !stream.is_sent) else {
            return 0;
        };
        let free = stream.send.free().min(self.send.free());
        let (now, later) = body.split_at(body.len().min(free));
        stream.is_blocked = !later.is_empty();
        stream.is_sent = is_last && later.is_empty();
        stream.send.take(now.len());
        self.send.take(now.len());
        let mut rest = now;
        while !rest.is_empty() || (stream.is_sent && now.is_empty()) {
            let (part, after) = rest.split_at(rest.len().min(frame::PAYLOAD_BYTES_MAX));
            let is_end = stream.is_sent && after.is_empty();
            let flags = if is_end { END_STREAM } else { 0 };
            frame::append_header(&mut self.out, part.len(), Kind::Data, flags, id);
            self.out.extend_from_slice(part);
            self.flood.progress();
            rest = after;
            if is_end {
                break;
            }
        }
        now.len()
    }

    /// Gives up a stream.
    pub fn reset(&mut self, id: u32, code: ErrorCode) {
        if self.streams.remove(id).is_some() && self.violation.is_none() {
            frame::append_reset(&mut self.out, id, code);
        }
    }

    /// Asks the server for a sign of life.
    pub fn ping(&mut self, payload: [u8; 8]) {
        if self.violation.is_none() {
            frame::append_ping(&mut self.out, 0, payload);
        }
    }

    /// Says that no stream will be opened any more. Those that are open go on.
    pub fn go_away(&mut self) {
        if !self.is_ending() {
            self.is_going_away = true;
            frame::append_go_away(&mut self.out, ErrorCode::NO_ERROR);
        }
    }

    /// Processes the whole frames at the start of `input`, which is what has arrived and was not processed yet. Passes
    /// what happened to `on_event`, and returns how much was processed.
    ///
    /// # Errors
    /// The server broke a rule, and the connection has ended. What waited to be sent is not sent any more, but only
    /// what tells the server why (RFC 9113 §5.4.1).
    pub fn receive(
        &mut self,
        input: &[u8],
        now: Instant,
        mut on_event: impl FnMut(Event<'_>),
    ) -> Result<usize, Violation> {
        if let Some(violation) = self.violation {
            return Err(violation);
        }
        let received = self.receive_frames(input, now, &mut on_event);
        if let Err(violation) = received {
            self.violation = Some(violation);
            self.out.clear();
            frame::append_go_away(&mut self.out, violation.code());
        }
        received
    }

    fn receive_frames(
        &mut self,
        input: &[u8],
        now: Instant,
        on_event: &mut impl FnMut(Event<'_>),
    ) -> Result<usize, Violation> {
        let mut rest = input;
        while let Some(header) = FrameHeader::parse(rest)? {
            let after = rest.get(frame::HEADER_BYTES..).unwrap_or_default();
            let Some((payload, after)) = after.split_at_checked(header.len) else {
                break;
            };
            self.receive_frame(header, payload, now, on_event)?;
            rest = after;
        }
        Ok(input.len() - rest.len())
    }

    fn receive_frame(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        now: Instant,
        on_event: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Violation> {
        if !self.has_settings && (header.kind != Kind::Settings || header.has(ACK)) {
            return Err(Violation::Protocol("a connection begins with SETTINGS"));
        }
        if self.block.is_some() != (header.kind == Kind::Continuation) {
            return Err(Violation::Protocol("a header block in other frames"));
        }
        let is_on_connection = header.stream == 0;
        if header
            .kind
            .is_about_connection()
            .is_some_and(|expected| expected != is_on_connection)
        {
            return Err(Violation::Protocol(match is_on_connection {
                true => "a frame of a stream without one",
                false => "a frame of the connection on a stream",
            }));
        }
        match header.kind {
            Kind::Data => self.receive_data(header, payload, now, on_event),
            Kind::Headers => self.receive_headers(header, payload, now, on_event),
            Kind::Continuation => self.receive_continuation(header, payload, now, on_event),
            Kind::RstStream => self.receive_reset(header, payload, now, on_event),
            Kind::WindowUpdate => self.receive_window_update(header, payload, now, on_event),
            Kind::Settings => self.receive_settings(header, payload, now, on_event),
            Kind::Ping if header.has(ACK) => {
                self.flood.useless(now, Violation::PingFlood)?;
                on_event(Event::Pong(
                    payload.first_chunk().copied().unwrap_or_default(),
                ));
                Ok(())
            }
            Kind::Ping => {
                self.flood.acknowledged(now, Violation::PingFlood)?;
                let payload = payload.first_chunk().copied().unwrap_or_default();
                frame::append_ping(&mut self.out, ACK, payload);
                Ok(())
            }
            Kind::GoAway => self.receive_go_away(payload, now, on_event),
            Kind::PushPromise => Err(Violation::Protocol("PUSH_PROMISE without push")),
            Kind::Priority | Kind::Unknown => self.flood.useless(now, Violation::UselessFrames),
        }
    }

    fn receive_data(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        now: Instant,
        on_event: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Violation> {
        self.check_opened(header.stream)?;
        let bytes = header.content(payload)?;
        // Padding counts as well (RFC 9113 §6.1), also on streams that are gone.
        let update = self.receive.receive(payload.len())?;
        if update > 0 {
            frame::append_window_update(&mut self.out, 0, update);
        }
        let is_end = header.has(END_STREAM);
        match bytes.is_empty() && !is_end {
            true => self.flood.useless(now, Violation::UselessFrames)?,
            false => self.flood.progress(),
        }
        let Some(stream) = self.streams.get_mut(header.stream) else {
            return self.flood.useless(now, Violation::UselessFrames);
        };
        let Ok(update) = stream.receive.receive(payload.len()) else {
            let failure = StreamFailure::Malformed("more data than its window allows");
            self.fail(
                header.stream,
                ErrorCode::FLOW_CONTROL_ERROR,
                failure,
                on_event,
            );
            return Ok(());
        };
        let token = stream.token;
        if let Err(rule) = stream.count_data(bytes.len()) {
            let failure = StreamFailure::Malformed(rule);
            self.fail(header.stream, ErrorCode::PROTOCOL_ERROR, failure, on_event);
            return Ok(());
        }
        if update > 0 && !is_end {
            frame::append_window_update(&mut self.out, header.stream, update);
        }
        if !bytes.is_empty() {
            on_event(Event::Data { token, bytes });
        }
        if is_end {
            self.end(header.stream, on_event);
        }
        Ok(())
    }

    fn receive_headers(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        now: Instant,
        on_event: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Violation> {
        self.check_opened(header.stream)?;
        let fragment = header.content(payload)?;
        let is_end = header.has(END_STREAM);
        if header.has(END_HEADERS) {
            return self.receive_block(header.stream, fragment, is_end, now, on_event);
        }
        self.block = Some(Block {
            stream: header.stream,
            is_end,
            bytes: fragment.to_vec(),
            continuations: 0,
        });
        Ok(())
    }

    fn receive_continuation(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        now: Instant,
        on_event: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Violation> {
        let Some(mut block) = self.block.take() else {
            return Err(Violation::Protocol("CONTINUATION of nothing"));
        };
        if block.stream != header.stream {
            return Err(Violation::Protocol("CONTINUATION of another stream"));
        }
        block.continuations += 1;
        if block.continuations > CONTINUATIONS_MAX
            || block.bytes.len() + payload.len() > HEADER_BLOCK_BYTES_MAX
        {
            return Err(Violation::HeaderBlock);
        }
        block.bytes.extend_from_slice(payload);
        if header.has(END_HEADERS) {
            return self.receive_block(block.stream, &block.bytes, block.is_end, now, on_event);
        }
        self.block = Some(block);
        Ok(())
    }

    /// A whole header block.
    fn receive_block(
        &mut self,
        id: u32,
        block: &[u8],
        is_end: bool,
        now: Instant,
        on_event: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Violation> {
        let (head, decoder) = (&mut self.head, &mut self.decoder);
        let Some(stream) = self.streams.get_mut(id) else {
            let skipped = head.skip(block, decoder);
            skipped.map_err(|_| Violation::Compression)?;
            return self.flood.useless(now, Violation::UselessFrames);
        };
        let read = match stream.awaits {
            Awaits::Head => {
                let read = head.read(block, decoder);
                read.and_then(|()| stream.begin(head, is_end).map_err(HeadError::Malformed))
            }
            Awaits::Body(_) if is_end => head.read_trailers(block, decoder).map(|()| false),
            Awaits::Body(_) => {
                let skipped = head.skip(block, decoder);
                skipped.and(Err(HeadError::Malformed("fields within a body")))
            }
        };
        let token = stream.token;
        let (code, failure) = match read {
            Ok(is_final) => {
                match is_final || is_end {
                    true => self.flood.progress(),
                    false => self.flood.useless(now, Violation::UselessFrames)?,
                }
                if is_final {
                    on_event(Event::Head {
                        token,
                        head: &self.head,
                    });
                }
                if is_end {
                    self.end(id, on_event);
                }
                return Ok(());
            }
            Err(HeadError::Compression) => return Err(Violation::Compression),
            Err(HeadError::TooLarge) => (ErrorCode::CANCEL, StreamFailure::TooLarge),
            Err(HeadError::Malformed(rule)) => {
                (ErrorCode::PROTOCOL_ERROR, StreamFailure::Malformed(rule))
            }
        };
        self.fail(id, code, failure, on_event);
        Ok(())
    }

    fn receive_reset(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        now: Instant,
        on_event: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Violation> {
        self.check_opened(header.stream)?;
        let Some(stream) = self.streams.remove(header.stream) else {
            return self.flood.useless(now, Violation::ResetFlood);
        };
        let code = ErrorCode(frame::number(payload));
        let failure = match code {
            ErrorCode::REFUSED_STREAM => StreamFailure::Refused,
            code => StreamFailure::Reset(code),
        };
        on_event(Event::Failed {
            token: stream.token,
            failure,
        });
        self.flood.reset(now)
    }

    fn receive_window_update(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        now: Instant,
        on_event: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Violation> {
        let increment = i64::from(frame::number(payload) & frame::STREAM_MAX);
        self.flood.useless(now, Violation::UselessFrames)?;
        if header.stream == 0 {
            if increment == 0 {
                return Err(Violation::Protocol("a window update of 0"));
            }
            self.send.change(increment)?;
            self.unblock(on_event);
            return Ok(());
        }
        self.check_opened(header.stream)?;
        let Some(stream) = self.streams.get_mut(header.stream) else {
            return Ok(());
        };
        let (code, rule) = if increment == 0 {
            (ErrorCode::PROTOCOL_ERROR, "a window update of 0")
        } else if stream.send.change(increment).is_err() {
            (ErrorCode::FLOW_CONTROL_ERROR, "a window that is too large")
        } else {
            if stream.can_send(self.send) {
                on_event(Event::CanSend {
                    token: stream.token,
                });
            }
            return Ok(());
        };
        self.fail(
            header.stream,
            code,
            StreamFailure::Malformed(rule),
            on_event,
        );
        Ok(())
    }

    fn receive_settings(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        now: Instant,
        on_event: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Violation> {
        if header.has(ACK) {
            return self.flood.useless(now, Violation::SettingsFlood);
        }
        self.flood.acknowledged(now, Violation::SettingsFlood)?;
        let window_before = i64::from(self.peer.initial_window);
        self.peer.apply(payload)?;
        let difference = i64::from(self.peer.initial_window) - window_before;
        for stream in self.streams.iter_mut() {
            stream.send.change(difference)?;
        }
        frame::append_header(&mut self.out, 0, Kind::Settings, ACK, 0);
        if !std::mem::replace(&mut self.has_settings, true) {
            on_event(Event::Ready);
        }
        self.unblock(on_event);
        Ok(())
    }

    fn receive_go_away(
        &mut self,
        payload: &[u8],
        now: Instant,
        on_event: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Violation> {
        self.flood.useless(now, Violation::UselessFrames)?;
        self.is_going_away = true;
        let last = frame::number(payload) & frame::STREAM_MAX;
        let code = ErrorCode(frame::number(payload.get(4..).unwrap_or_default()));
        on_event(Event::GoingAway(code));
        for stream in self.streams.remove_above(last) {
            let failure = StreamFailure::LeftBehind;
            on_event(Event::Failed {
                token: stream.token,
                failure,
            });
        }
        Ok(())
    }

    /// Checks that a frame is for a stream that was opened, if it may be closed since.
    fn check_opened(&self, id: u32) -> Result<(), Violation> {
        match id < self.next_id && id % 2 == 1 {
            true => Ok(()),
            false => Err(Violation::Protocol(
                "a frame for a stream that was not opened",
            )),
        }
    }

    /// Tells which streams may send more, in the order in which they were opened. The windows may not be enough for
    /// all; those that come too late are blocked again.
    fn unblock(&mut self, on_event: &mut impl FnMut(Event<'_>)) {
        let window = self.send;
        for stream in self.streams.iter_mut() {
            if stream.can_send(window) {
                on_event(Event::CanSend {
                    token: stream.token,
                });
            }
        }
    }

    /// Ends a stream whose response is complete.
    fn end(&mut self, id: u32, on_event: &mut impl FnMut(Event<'_>)) {
        let Some(stream) = self.streams.remove(id) else {
            return;
        };
        let token = stream.token;
        if !stream.is_complete() {
            frame::append_reset(&mut self.out, id, ErrorCode::PROTOCOL_ERROR);
            let failure = StreamFailure::Malformed("a body shorter than its content-length");
            return on_event(Event::Failed { token, failure });
        }
        if !stream.is_sent {
            frame::append_reset(&mut self.out, id, ErrorCode::CANCEL);
        }
        on_event(Event::End {
            token,
            is_sent: stream.is_sent,
        });
    }

    /// Ends a stream because of what its response has.
    fn fail(
        &mut self,
        id: u32,
        code: ErrorCode,
        failure: StreamFailure,
        on_event: &mut impl FnMut(Event<'_>),
    ) {
        if let Some(stream) = self.streams.remove(id) {
            frame::append_reset(&mut self.out, id, code);
            on_event(Event::Failed {
                token: stream.token,
                failure,
            });
        }
    }
}

impl Stream {
    /// Whether something waits for a window, and both are open.
    fn can_send(&self, connection: SendWindow) -> bool {
        self.is_blocked && self.send.free().min(connection.free()) > 0
    }

    /// Begins the response with `head`. Returns whether it is the final one.
    fn begin(&mut self, head: &ResponseHead, is_end: bool) -> Result<bool, &'static str> {
        match head.status {
            // RFC 9113 §8.6.
            101 => return Err("unsolicited 101 response"),
            ..200 if is_end => return Err("an interim response that ends"),
            ..200 => {
                self.interim_bytes += head.block_bytes + frame::HEADER_BYTES;
                return match self.interim_bytes <= INTERIM_BYTES_MAX {
                    true => Ok(false),
                    false => Err("too many interim responses"),
                };
            }
            _ => {}
        }
        // No body, whatever the length says (RFC 9110 §6.4.1).
        let has_no_body = self.is_head || matches!(head.status, 204 | 304);
        self.awaits = Awaits::Body(if has_no_body {
            Some(0)
        } else {
            head.content_length
        });
        Ok(true)
    }

    fn count_data(&mut self, bytes: usize) -> Result<(), &'static str> {
        let Awaits::Body(length) = &mut self.awaits else {
            return Err("a body before its head");
        };
        if let Some(left) = length {
            *left = left
                .checked_sub(bytes)
                .ok_or("a body longer than its content-length")?;
        }
        Ok(())
    }

    /// Whether the response has all of its body.
    fn is_complete(&self) -> bool {
        matches!(self.awaits, Awaits::Body(None | Some(0)))
    }
}

#[cfg(test)]
mod tests;
