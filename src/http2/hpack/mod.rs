//! HPACK (RFC 7541) without a dynamic table.
//!
//! A [`decoder`] reads header blocks of a server, which was told that there is no dynamic table. The [`encoder`] uses the
//! [`static_table`] and literals, and codes no text with [`huffman`]: that would save a third of a head's bytes, and
//! cost more than all the rest of it.

pub(crate) mod decoder;
pub(crate) mod encoder;

mod huffman;
mod integer;
mod static_table;
