//! A connection of a proxy that begins with a header of the PROXY protocol.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Instant;

use bytes::{Buf, BytesMut};
use monoio::net::TcpStream;
use tracing::debug;

use crate::inbound::beginning::as_idle;
use crate::inbound::connection::{Accepted, canonical};
use crate::inbound::idle::{IdleEntry, WaitEnd};
use crate::inbound::spares::Spares;
use crate::mirror::core::Core;
use crate::mirror::reporting::worker_metrics::Closing;
use crate::net::proxy_protocol::{self, HEADER_BYTES_MAX, Header, Malformed};
use crate::net::socket::read_some;

/// Reads the header until `deadline`. The connection is then one of the client that it names, if it names
/// one. Returns `None` if there is no header, which is counted unless the proxy has sent nothing at all: some
/// connect only to see that the port is open.
pub(super) async fn accept(
    core: &Core,
    spares: &Spares,
    accepted: Accepted<TcpStream>,
    idle: &IdleEntry,
    deadline: Instant,
) -> Option<Accepted<TcpStream>> {
    let Accepted {
        mut stream,
        peer: proxy,
        ..
    } = accepted;
    let read = {
        let reading = pin!(read_header(&mut stream, spares));
        as_idle(idle, deadline, reading).await
    };
    match read {
        Ok(Ok(Some((source, received)))) => {
            core.counters.received_bytes.add_bytes(received.len());
            Some(Accepted {
                stream,
                peer: source.map_or(proxy, canonical),
                received,
            })
        }
        Ok(Ok(None)) | Err(WaitEnd::ShutDown) => None,
        Err(WaitEnd::Evicted) => {
            core.counters.closings.inc(Closing::Evicted);
            None
        }
        Ok(Err(Malformed)) | Err(WaitEnd::Expired) => {
            core.counters.closings.inc(Closing::ProxyHeader);
            debug!(worker = core.counters.worker, peer = %proxy, "connection closed: no valid PROXY protocol header in time");
            None
        }
    }
}

/// Returns the address in the header and what follows it; `None` if the connection ends without a byte.
async fn read_header(
    stream: &mut TcpStream,
    spares: &Spares,
) -> Result<Option<(Option<SocketAddr>, BytesMut)>, Malformed> {
    // Waits without a buffer.
    if stream.readable(false).await.is_err() {
        return Ok(None);
    }
    let mut buffer = spares.buffer();
    loop {
        let (result, read) = read_some(stream, buffer, HEADER_BYTES_MAX).await;
        buffer = read;
        let count = result.unwrap_or(0);
        if count == 0 && buffer.is_empty() {
            spares.return_buffer(buffer);
            return Ok(None);
        }
        match proxy_protocol::parse(&buffer)? {
            Header::Complete { length, source } => {
                buffer.advance(length);
                if buffer.is_empty() {
                    spares.return_buffer(std::mem::take(&mut buffer));
                }
                return Ok(Some((source, buffer)));
            }
            Header::Partial if count == 0 => return Err(Malformed),
            Header::Partial => {}
        }
    }
}
