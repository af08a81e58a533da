//! A TLS session with an upstream over a blocking socket, for commands that ask a server once.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::net::tls_client::TlsIdentity;
use crate::net::tls_failure;

pub(crate) type BlockingTls = StreamOwned<ClientConnection, TcpStream>;

/// Does the handshake with the server at `address`, with the trust of `identity` and for HTTP/1.1.
///
/// # Errors
/// Why it failed, with advice for the operator.
pub(crate) fn handshake(
    mut tcp: TcpStream,
    identity: &TlsIdentity,
    address: SocketAddr,
) -> io::Result<BlockingTls> {
    let mut config = ClientConfig::clone(&identity.config);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = identity.server_name.clone();
    let mut session = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let done = session.complete_io(&mut tcp);
    done.map_err(|error| tls_failure::in_handshake(error, address))?;
    Ok(StreamOwned::new(session, tcp))
}

/// Explains an error of a session after its handshake.
pub(crate) fn explained(error: io::Error) -> io::Error {
    tls_failure::after_handshake(error)
}
