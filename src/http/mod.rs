//! What HTTP/1.1 means, without any I/O: bytes in, facts about bytes out.
//!
//! A [`head`] is parsed into spans of the buffer it was read into, when that is [`due`], [`framing`]
//! tells from it how long the body is, [`chunked`] takes a chunked body apart in place, and [`encoding`]
//! undoes a `Content-Encoding`, which [`compress`] makes. [`response`] is the head of what an upstream answers, and
//! [`line`](mod@line) writes lines of heads.
//!
//! The room is strict where two parsers could disagree on where a request ends (RFC 9112 §11.2), for
//! such a request would be seen differently by us and by an upstream, and lenient on everything that
//! SDKs are known to send. It never looks at what a request means to Sentry.

pub(crate) mod chunked;
pub(crate) mod compress;
pub(crate) mod due;
pub(crate) mod encoding;
pub(crate) mod framing;
pub(crate) mod head;
pub(crate) mod line;
pub(crate) mod response;

mod fields;
