//! Error codes, and why a connection has to end.

use std::fmt;

/// The reason in RST_STREAM and GOAWAY (RFC 9113 §7). Unknown codes are kept as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCode(pub u32);

impl ErrorCode {
    pub const NO_ERROR: ErrorCode = ErrorCode(0);
    pub const PROTOCOL_ERROR: ErrorCode = ErrorCode(1);
    pub const INTERNAL_ERROR: ErrorCode = ErrorCode(2);
    pub const FLOW_CONTROL_ERROR: ErrorCode = ErrorCode(3);
    pub const STREAM_CLOSED: ErrorCode = ErrorCode(5);
    pub const FRAME_SIZE_ERROR: ErrorCode = ErrorCode(6);
    pub const REFUSED_STREAM: ErrorCode = ErrorCode(7);
    pub const CANCEL: ErrorCode = ErrorCode(8);
    pub const COMPRESSION_ERROR: ErrorCode = ErrorCode(9);
    pub const ENHANCE_YOUR_CALM: ErrorCode = ErrorCode(11);
    pub const HTTP_1_1_REQUIRED: ErrorCode = ErrorCode(13);
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0 => "NO_ERROR",
            1 => "PROTOCOL_ERROR",
            2 => "INTERNAL_ERROR",
            3 => "FLOW_CONTROL_ERROR",
            4 => "SETTINGS_TIMEOUT",
            5 => "STREAM_CLOSED",
            6 => "FRAME_SIZE_ERROR",
            7 => "REFUSED_STREAM",
            8 => "CANCEL",
            9 => "COMPRESSION_ERROR",
            10 => "CONNECT_ERROR",
            11 => "ENHANCE_YOUR_CALM",
            12 => "INADEQUATE_SECURITY",
            13 => "HTTP_1_1_REQUIRED",
            code => return write!(f, "error code {code}"),
        })
    }
}

/// What a server did for which its connection has to end (RFC 9113 §5.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// It broke this rule of the protocol.
    Protocol(&'static str),
    /// A frame that is longer than announced, or has not the length of its type.
    FrameSize,
    /// More data than a window allows, or a window over 2^31 - 1.
    FlowControl,
    /// A header block that is not HPACK.
    Compression,
    /// A header block over `HEADER_BLOCK_BYTES_MAX`, or in too many frames.
    HeaderBlock,
    /// Too many SETTINGS frames.
    SettingsFlood,
    /// Too many PING frames.
    PingFlood,
    /// Too many streams reset in a second.
    ResetFlood,
    /// Too many frames that bring nothing.
    UselessFrames,
}

impl Violation {
    /// The code that GOAWAY gives.
    pub fn code(self) -> ErrorCode {
        match self {
            Violation::Protocol(_) => ErrorCode::PROTOCOL_ERROR,
            Violation::FrameSize => ErrorCode::FRAME_SIZE_ERROR,
            Violation::FlowControl => ErrorCode::FLOW_CONTROL_ERROR,
            Violation::Compression => ErrorCode::COMPRESSION_ERROR,
            Violation::HeaderBlock
            | Violation::SettingsFlood
            | Violation::PingFlood
            | Violation::ResetFlood
            | Violation::UselessFrames => ErrorCode::ENHANCE_YOUR_CALM,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Violation::Protocol(rule) => rule,
            Violation::FrameSize => "a frame of the wrong size",
            Violation::FlowControl => "more data than its window allows",
            Violation::Compression => "a malformed header block",
            Violation::HeaderBlock => "an endless header block",
            Violation::SettingsFlood => "a flood of SETTINGS",
            Violation::PingFlood => "a flood of PING",
            Violation::ResetFlood => "a flood of RST_STREAM",
            Violation::UselessFrames => "a flood of frames that bring nothing",
        })
    }
}
