//! Opening a connection: tries every known address of the origin, then TLS for `https`.
//!
//! The next connection begins with the address that worked. Names are not resolved here, because that
//! would block the worker.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::{Duration, Instant};

use monoio::net::TcpStream;

use crate::net::stream::Stream;
use crate::net::tls::TlsStream;
use crate::runtime::deadline::in_time;
use crate::upstream::exchange::Failure;
use crate::upstream::origin::SharedOrigin;

/// Connects to `shared`, with `timeout` for each address. Later connections do not begin with an address
/// that failed.
///
/// # Errors
/// The failure of the last address tried, or [`Failure::Dns`] if no address is known.
pub(crate) async fn connect(shared: &SharedOrigin, timeout: Duration) -> Result<Stream, Failure> {
    let addresses = shared.addresses();
    let first = shared.first_address();
    let mut last_failure = Failure::Dns;
    for offset in 0..addresses.len() {
        let Some(address) = addresses.get(first.wrapping_add(offset) % addresses.len()) else {
            continue;
        };
        let connecting = pin!(connect_address(shared, *address));
        match in_time(Instant::now() + timeout, connecting).await {
            Some(Ok(stream)) => return Ok(stream),
            Some(Err(failure)) => last_failure = failure,
            None => last_failure = Failure::ConnectTimeout,
        }
        shared.skip_address(first.wrapping_add(offset));
    }
    Err(last_failure)
}

async fn connect_address(shared: &SharedOrigin, address: SocketAddr) -> Result<Stream, Failure> {
    let stream = dial(address).await.map_err(Failure::Connect)?;
    match &shared.tls {
        None => Ok(Stream::Plain(stream)),
        Some(identity) => {
            let stream = TlsStream::handshake(stream, address, identity)
                .await
                .map_err(Failure::Tls)?;
            Ok(Stream::Tls(Box::new(stream)))
        }
    }
}

async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_addr(address).await?;
    // Requests are written as a whole, so Nagle's algorithm would only delay them.
    stream.set_nodelay(true)?;
    Ok(stream)
}
