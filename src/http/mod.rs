//! HTTP/1.1, without any I/O.
//!
//! [`head`] parses a request head into spans of the buffer that it was read into. [`reparse`] decides when to parse
//! one that arrives in pieces.
//! [`framing`] determines the length of the body, [`chunked`] decodes a chunked body in place, and [`encoding`]
//! decodes a `Content-Encoding`, which [`compress`] encodes. [`response`] parses the head of an upstream's response,
//! and [`header_writer`] writes header lines. A head that comes again is not parsed again ([`known_head`]).
//! [`forwarded`] reads what proxies say of the client's address.
//!
//! Parsing is strict wherever two parsers could disagree on the end of a request (RFC 9112 §11.2): an upstream might
//! then see another request than we do. It is lenient towards everything that SDKs are known to send. What a request
//! means to Sentry is not a concern of this module.

pub(crate) mod chunked;
pub(crate) mod compress;
pub(crate) mod encoding;
pub(crate) mod forwarded;
pub(crate) mod framing;
pub(crate) mod head;
pub(crate) mod header_writer;
pub(crate) mod reparse;
pub(crate) mod response;

mod header;
pub(crate) mod known_head;
