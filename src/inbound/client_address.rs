//! The address of the client that sent a request.

use std::net::{IpAddr, SocketAddr};

/// The address of the client whose connection comes from `peer`.
pub(super) fn client_address(peer: SocketAddr) -> IpAddr {
    peer.ip()
}
