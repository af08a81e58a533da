//! One request to the kernel's routing socket, rtnetlink(7): the length of an interface's queue. The older request of
//! netdevice(7) for it is refused in user namespaces.

use std::io;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, send, socket};

/// `NLMSG_ERROR`: the answer, with 0 or an error.
const ERROR: u16 = 2;

/// `struct nlmsghdr` and `struct ifinfomsg`.
const HEAD_BYTES: usize = 32;

/// Sets how many packets may wait in an interface.
pub fn set_queue(interface: &str, packets: u32) -> io::Result<()> {
    // Its protocol is number 0, `NETLINK_ROUTE`.
    let socket = socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    send(&socket, &request(interface, packets), SendFlags::empty())?;
    let mut answer = [0; 512];
    let (_, count) = recv(&socket, &mut answer, RecvFlags::empty())?;
    outcome(&answer[..count.min(512)])
}

fn request(interface: &str, packets: u32) -> Vec<u8> {
    let mut message = vec![0; HEAD_BYTES];
    let name = [interface.as_bytes(), &[0]].concat();
    attribute(&mut message, libc::IFLA_IFNAME, &name);
    attribute(&mut message, libc::IFLA_TXQLEN, &packets.to_ne_bytes());
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
    let len = message.len() as u32;
    message[..4].copy_from_slice(&len.to_ne_bytes());
    message[4..6].copy_from_slice(&libc::RTM_NEWLINK.to_ne_bytes());
    message[6..8].copy_from_slice(&flags.to_ne_bytes());
    message
}

/// Adds a `struct rtattr`, which begins at a multiple of four.
fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let len = (4 + value.len()) as u16;
    message.extend_from_slice(&len.to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

/// `struct nlmsgerr`: after the header a negative number of an error, or 0.
fn outcome(answer: &[u8]) -> io::Result<()> {
    let number = |bytes: &[u8]| bytes.try_into().map(i32::from_ne_bytes).ok();
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok());
    match (
        kind.map(u16::from_ne_bytes),
        answer.get(16..20).and_then(number),
    ) {
        (Some(ERROR), Some(0)) => Ok(()),
        (Some(ERROR), Some(error)) => Err(io::Error::from_raw_os_error(-error)),
        _ => Err(io::Error::other(
            "an unexpected answer of the routing socket",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_what_the_kernel_reads() {
        let message = request("line", 7);
        assert_eq!(message.len(), 32 + 12 + 8);
        assert_eq!(message[0], 52);
        assert_eq!(message[32..42], [9, 0, 3, 0, b'l', b'i', b'n', b'e', 0, 0]);
        assert_eq!(message[44..], [8, 0, 13, 0, 7, 0, 0, 0]);
    }

    #[test]
    fn an_answer_tells_the_error() {
        let answer = |error: i32| {
            let mut answer = vec![0; 36];
            answer[4] = 2;
            answer[16..20].copy_from_slice(&error.to_ne_bytes());
            answer
        };
        assert!(outcome(&answer(0)).is_ok());
        let error = outcome(&answer(-1)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(outcome(&[]).is_err());
    }
}
