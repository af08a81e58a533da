//! A TLS session with an upstream over a blocking socket, for commands that ask a server once.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::UnixTime;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::net::certificate;
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

/// The time until the certificate of the server expires, in words.
pub(crate) fn certificate_left(session: &BlockingTls) -> Option<String> {
    let own = session.conn.peer_certificates()?.first()?;
    let not_after = certificate::not_after(own)?;
    Some(tls_failure::distance(UnixTime::now(), not_after))
}

/// Explains an error of a session after its handshake.
pub(crate) fn explained(error: io::Error) -> io::Error {
    tls_failure::after_handshake(error)
}
