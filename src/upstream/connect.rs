//! Opening a connection: every known address of the origin in turn, then TLS where it is `https`.
//!
//! The first address that answers is the first to be tried the next time. Names are not resolved
//! here, since that would block the worker.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::{Duration, Instant};

use monoio::net::TcpStream;

use crate::deadline::in_time;
use crate::upstream::exchange::Failure;
use crate::upstream::origin::SharedOrigin;
use crate::upstream::stream::Stream;
use crate::upstream::tls::TlsStream;

/// Connects to `shared`, giving each of its addresses at most `patience`. An address that fails is
/// no longer the first to be tried.
///
/// # Errors
/// The failure of the last address tried, or [`Failure::Dns`] where none is known.
pub(crate) async fn connect(shared: &SharedOrigin, patience: Duration) -> Result<Stream, Failure> {
    let addresses = shared.addresses();
    let first = shared.first_address();
    let mut last_failure = Failure::Dns;
    for turn in 0..addresses.len() {
        let Some(address) = addresses.get(first.wrapping_add(turn) % addresses.len()) else {
            continue;
        };
        let connecting = pin!(connect_address(shared, *address));
        match in_time(Instant::now() + patience, connecting).await {
            Some(Ok(stream)) => return Ok(stream),
            Some(Err(failure)) => last_failure = failure,
            None => last_failure = Failure::ConnectTimeout,
        }
        shared.skip_address(first.wrapping_add(turn));
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
    // Requests are written whole; waiting to merge them with later ones would only delay them.
    stream.set_nodelay(true)?;
    Ok(stream)
}
