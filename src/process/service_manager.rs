//! Notifies a service manager of the state of the process, with the protocol of `sd_notify`.
//!
//! `systemctl start` then returns only when the mirror listens, so that the old process can be stopped
//! afterwards. Without a manager (`NOTIFY_SOCKET`) nothing is sent. A message that cannot be sent is
//! dropped: the manager has its own timeout.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use tracing::debug;

/// Reports that the mirror listens.
pub(crate) fn ready() {
    notify("READY=1");
}

/// Reports that the mirror accepts no more connections and finishes what is in flight.
pub(crate) fn stopping() {
    notify("STOPPING=1");
}

fn notify(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(error) = send(&socket, state) {
        debug!(%error, state, "sd_notify failed");
    }
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    // A leading @ stands for the zero byte with which an abstract name begins.
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
    fn messages_are_sent_to_a_path_and_to_an_abstract_name() {
        let name = format!("sentry-mirror-notify-{}", std::process::id());
        let path = std::env::temp_dir().join(&name);
        let at_path = UnixDatagram::bind(&path).unwrap();
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        let at_name = UnixDatagram::bind_addr(&abstract_name).unwrap();
        for (address, receiver) in [
            (path.clone().into_os_string(), at_path),
            (format!("@{name}").into(), at_name),
        ] {
            send(&address, "READY=1").unwrap();
            let mut message = [0; 32];
            let length = receiver.recv(&mut message).unwrap();
            assert_eq!(&message[..length], b"READY=1");
        }
        std::fs::remove_file(path).unwrap();
    }
}
