//! TUN devices: network interfaces whose packets this process reads and writes.
//!
//! They are set up with requests of netdevice(7) and rtnetlink(7), so that nothing has to be installed.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use super::link;
use crate::engine::said;

/// Where the kernel makes them.
const DEVICE: &str = "/dev/net/tun";

/// What fits into one packet, as on most lines.
const MTU: i32 = 1500;

/// How many packets may wait for this process: more than a second's.
const QUEUE: u32 = 200_000;

const UP: i32 = libc::IFF_UP | libc::IFF_RUNNING;

/// `struct ifreq` of netdevice(7): a name, and a value that depends on the request.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    value: [u8; 24],
}

impl Request {
    fn new(name: &str, value: &[u8]) -> Request {
        let mut request = Request {
            name: [0; libc::IFNAMSIZ],
            value: [0; 24],
        };
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        request.value[..value.len()].copy_from_slice(value);
        request
    }

    fn number(name: &str, value: i32) -> Request {
        Request::new(name, &value.to_ne_bytes())
    }

    fn flags(name: &str, flags: i32) -> Request {
        Request::new(name, &(flags as i16).to_ne_bytes())
    }

    /// With a `struct sockaddr_in`: family, port and address.
    fn address(name: &str, address: Ipv4Addr) -> Request {
        let mut value = [0; 8];
        value[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
        value[4..].copy_from_slice(&address.octets());
        Request::new(name, &value)
    }
}

/// Whether devices can be made at all, as far as that shows without making one.
pub fn is_there() -> Result<(), String> {
    open().map(drop)
}

/// Makes a device in the network namespace of this thread, and brings it up.
pub fn create(name: &str, address: Ipv4Addr, netmask: Ipv4Addr) -> Result<File, String> {
    let device = open()?;
    let kind = libc::IFF_TUN | libc::IFF_NO_PI;
    let made = ask(
        device.as_raw_fd(),
        libc::TUNSETIFF,
        &mut Request::flags(name, kind),
    );
    made.map_err(said("cannot make a TUN device"))?;
    link::set_queue(name, QUEUE).map_err(said("the queue of a TUN device"))?;
    set_up([
        (libc::SIOCSIFMTU, Request::number(name, MTU)),
        (libc::SIOCSIFADDR, Request::address(name, address)),
        (libc::SIOCSIFNETMASK, Request::address(name, netmask)),
        (libc::SIOCSIFFLAGS, Request::flags(name, UP)),
    ])?;
    Ok(device)
}

/// Brings the loopback up; in a new namespace it is down.
pub fn loopback_up() -> Result<(), String> {
    set_up([(libc::SIOCSIFFLAGS, Request::flags("lo", UP))])
}

fn open() -> Result<File, String> {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(DEVICE);
    opened.map_err(|error| format!("{DEVICE}: {error}"))
}

fn set_up(requests: impl IntoIterator<Item = (libc::Ioctl, Request)>) -> Result<(), String> {
    // Any socket takes requests about interfaces.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(said("a socket"))?;
    for (code, mut request) in requests {
        let done = ask(socket.as_raw_fd(), code, &mut request);
        done.map_err(said("cannot set up a network interface"))?;
    }
    Ok(())
}

#[expect(unsafe_code, reason = "no crate wraps these requests")]
fn ask(descriptor: RawFd, code: libc::Ioctl, request: &mut Request) -> io::Result<()> {
    // SAFETY: each of these requests reads and writes at most a `struct ifreq`, which `Request` is.
    match unsafe { libc::ioctl(descriptor, code, request) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
