//! Telling a service manager how far the process is, by the protocol of `sd_notify`.
//!
//! With it `systemctl start` returns when the mirror listens, and not before, so that the old process
//! can be stopped then. Where no manager asks for it (`NOTIFY_SOCKET`), nothing is sent. A message
//! that cannot be sent is dropped: the manager has a time-out of its own.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use tracing::debug;

/// Says that the mirror listens.
pub(crate) fn ready() {
    tell("READY=1");
}

/// Says that it takes no more connections and finishes what is in flight.
pub(crate) fn stopping() {
    tell("STOPPING=1");
}

fn tell(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(error) = send(&socket, state) {
        debug!(%error, state, "the service manager is not told");
    }
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    // An @ stands for the zero byte with which a name that is no file begins.
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_is_told_at_a_path_and_at_an_abstract_name() {
        let name = format!("sentry-mirror-notify-{}", std::process::id());
        let path = std::env::temp_dir().join(&name);
        let at_path = UnixDatagram::bind(&path).unwrap();
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        let at_name = UnixDatagram::bind_addr(&abstract_name).unwrap();
        for (place, listener) in [
            (path.clone().into_os_string(), at_path),
            (format!("@{name}").into(), at_name),
        ] {
            send(&place, "READY=1").unwrap();
            let mut told = [0; 32];
            let length = listener.recv(&mut told).unwrap();
            assert_eq!(&told[..length], b"READY=1");
        }
        std::fs::remove_file(path).unwrap();
    }
}
