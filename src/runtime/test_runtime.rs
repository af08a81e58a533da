//! The runtime of unit tests: epoll, with timers; and an address that refuses connections.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Socket, Type};

use crate::runtime::deadline_queue;

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new()
        .enable_timer()
        .build()
        .unwrap();
    runtime.block_on(async {
        deadline_queue::start();
        future.await
    })
}

/// An address at which nothing listens, now and until the tests end: a socket that does not listen has its port.
pub(crate) fn refusing_address(ip: IpAddr) -> SocketAddr {
    let socket = Socket::new(Domain::for_address((ip, 0).into()), Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((ip, 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    std::mem::forget(socket);
    address
}
