//! The client side of HTTP/2 (RFC 9113), as pure as `http`: bytes go in, events and bytes come out.
//!
//! A [`connection`] takes what has arrived, and returns the frames to be sent in one buffer, so that its caller sends
//! all that is made in one turn of the event loop with one write. It knows neither sockets nor the clock. [`frame`]
//! is the layer of frames, [`settings`] what each side announces, [`window`] the flow control, and [`flood`] limits
//! frames that bring nothing. [`hpack`] codes header blocks (RFC 7541); [`request_head`] makes one from a request
//! that was rendered for HTTP/1.1, and [`response_head`] checks what a server sends. Most heads of a connection are
//! alike, so each is compared with the one before: [`known_request`], [`known_block`].
//!
//! The mirror announces that it has no dynamic table, and uses none of the server's: to compare heads is cheaper. Some
//! servers do not listen, so their table is kept all the same ([`hpack`]).

pub(crate) mod connection;
pub(crate) mod error;
pub(crate) mod mode;
pub(crate) mod response_head;

mod common_prefix;
mod flood;
mod frame;
pub(crate) mod hpack;
mod known_block;
mod known_request;
mod request_head;
mod settings;
mod streams;
mod window;
