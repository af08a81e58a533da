//! HPACK (RFC 7541).
//!
//! A [`decoder`] reads header blocks of a server. It was told that there is no dynamic table, but has a
//! [`dynamic_table`] for those that do not listen. The [`encoder`] uses the [`static_table`] and literals, and codes
//! no text with [`huffman`]: that would save a third of a head's bytes, and cost more than all the rest of it.

pub(crate) mod decoder;
pub(crate) mod encoder;

mod dynamic_table;
mod huffman;
mod integer;
mod static_table;
