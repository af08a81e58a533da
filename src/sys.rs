//! The only unsafe code of the program.
//!
//! Five things cannot be said in safe Rust: handing the kernel a list of pointers (`writev` of a head
//! and a body that live in two buffers), borrowing the descriptor of a monoio stream for a plain
//! system call (monoio has no `AsFd`), taking over a descriptor that was open before the program
//! began, asking how large a page is, and telling the allocator what to keep and when to give back. All
//! are small and carry their proof; everything else forbids `unsafe` through the lint table in
//! `Cargo.toml`.

#![allow(unsafe_code)]

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use monoio::buf::IoVecBuf;
use monoio::net::TcpStream;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};

/// How much one read or write moves at most: some 0.15 ms of copying by the kernel, while the core serves
/// nobody else.
pub(crate) const MOVED_BYTES_MAX: usize = 512 * 1024;

/// A head and a body to be sent as one message, and how much of it is sent already.
///
/// It owns both buffers, so a write whose future is dropped keeps them alive until the kernel is
/// done: the operation owns the `Gather`. This is why monoio's `write_vectored_all` is banned here,
/// which keeps only the pointers.
pub(crate) struct Gather {
    /// What is left to send. Invariant: every entry lies inside `head` or `body`, whose heap memory
    /// neither moves nor changes while `self` lives: the fields are private and never handed out
    /// mutably before [`Gather::into_parts`].
    vectors: Box<[libc::iovec; 2]>,
    head: Vec<u8>,
    body: Bytes,
    sent: usize,
}

impl Gather {
    /// A message of `head` followed by `body`.
    pub(crate) fn new(head: Vec<u8>, body: Bytes) -> Gather {
        let empty = libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        };
        let mut gather = Gather {
            vectors: Box::new([empty, empty]),
            head,
            body,
            sent: 0,
        };
        gather.point();
        gather
    }

    /// The part of the message that is not sent yet.
    fn rest(&self) -> [&[u8]; 2] {
        let head = self.head.get(self.sent..).unwrap_or_default();
        let body = self
            .body
            .get(self.sent.saturating_sub(self.head.len())..)
            .unwrap_or_default();
        [head, body]
    }

    /// Whether all of it is sent.
    pub(crate) fn is_sent(&self) -> bool {
        self.sent >= self.head.len() + self.body.len()
    }

    /// Takes note that `count` more bytes are sent.
    pub(crate) fn advance(&mut self, count: usize) {
        self.sent += count;
        self.point();
    }

    /// The two buffers again, to send them anew over another connection.
    pub(crate) fn into_parts(self) -> (Vec<u8>, Bytes) {
        (self.head, self.body)
    }

    /// Points the vectors at what is left, or at as much of it as one write may move.
    fn point(&mut self) {
        let mut room_bytes = MOVED_BYTES_MAX;
        let [head, body] = self.rest().map(|slice| {
            let iov_len = slice.len().min(room_bytes);
            room_bytes -= iov_len;
            libc::iovec {
                iov_base: slice.as_ptr().cast_mut().cast(),
                iov_len,
            }
        });
        *self.vectors = [head, body];
    }
}

// SAFETY: `read_iovec_ptr` points into a boxed array, so it does not change when the `Gather` is
// moved into the operation, and `read_iovec_len` is the length of that array. Each entry is a
// valid `iovec`: it was made from a slice of `head` or `body`, which `self` owns and which, being
// heap or static memory behind private fields, stays where it is and unchanged until `self` is
// dropped or taken apart. An entry of length zero may point one past the end, which `writev`
// does not read.
unsafe impl IoVecBuf for Gather {
    fn read_iovec_ptr(&self) -> *const libc::iovec {
        self.vectors.as_ptr()
    }

    fn read_iovec_len(&self) -> usize {
        self.vectors.len()
    }
}

/// Whether an idle connection has something to read: bytes nobody asked for, its end, or an error.
///
/// One system call (`recv` with `MSG_PEEK | MSG_DONTWAIT`, 0.2 to 0.4 µs), made each time that a pooled
/// connection is taken. Nothing cheaper is right: `poll` and `FIONREAD` take as long, a poll that is left
/// pending on io_uring has to be taken back for each delivery, and what the driver knows of a socket on
/// epoll is as old as its last wait.
pub(crate) fn has_input(stream: &TcpStream) -> bool {
    let mut byte = [0_u8; 1];
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let peeked = rustix::net::recv(descriptor(stream), &mut byte, flags);
    !matches!(
        peeked,
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR)
    )
}

/// Copies into `room` what has arrived, as far as it fits, without waiting and without taking it.
///
/// # Errors
/// Nothing is there, or the connection is broken.
pub(crate) fn peek(stream: &TcpStream, room: &mut [u8]) -> io::Result<usize> {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let (count, _) = rustix::net::recv(descriptor(stream), room, flags)?;
    Ok(count)
}

/// Sends as much of `slices` as the kernel takes without waiting, which may be nothing.
///
/// # Errors
/// The connection is broken.
pub(crate) fn send_now(stream: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let mut nothing = SendAncillaryBuffer::default();
    match rustix::net::sendmsg(descriptor(stream), slices, &mut nothing, flags) {
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(0),
        sent => Ok(sent?),
    }
}

/// Lets closing `stream` reset the connection, so that the system keeps nothing of it.
pub(crate) fn reset_on_close(stream: &TcpStream) {
    // Where it fails the connection ends in the usual way.
    let _ = rustix::net::sockopt::set_socket_linger(descriptor(stream), Some(Duration::ZERO));
}

/// A second descriptor of the socket behind `stream`, to look at it while the stream is lent to an
/// operation.
///
/// # Errors
/// The system's, for example that the process has no descriptors left.
pub(crate) fn duplicate(stream: &TcpStream) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(descriptor(stream), 0)?)
}

/// The stream's descriptor, for a plain system call.
fn descriptor(stream: &TcpStream) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open for as long as `stream` lives, and the borrow of it that is
    // returned keeps `stream` borrowed.
    unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) }
}

/// The first descriptor that a service manager passes.
const FIRST_INHERITED: RawFd = 3;

/// The descriptor that a service manager has passed to this process by the protocol of
/// `sd_listen_fds`: `LISTEN_PID` names the process, `LISTEN_FDS` says how many descriptors are open
/// from 3 on. `None` where none was passed, and after the first call.
///
/// # Errors
/// There are more, or what is said to be open is not.
pub(crate) fn inherited_descriptor() -> io::Result<Option<OwnedFd>> {
    static IS_TAKEN: AtomicBool = AtomicBool::new(false);
    let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Ok(None);
    }
    let count = number("LISTEN_FDS").unwrap_or(0);
    if count == 0 || IS_TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(None);
    }
    if count > 1 {
        let what = format!("the service manager passed {count} sockets; one is expected");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    // SAFETY: asking for the flags of a descriptor touches no memory, whatever the number is.
    if unsafe { libc::fcntl(FIRST_INHERITED, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, as was just seen. It has no other owner: who started this very
    // process says that it was opened for it to take over, nothing else here takes it over, and this
    // line is reached once.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(FIRST_INHERITED) }))
}

/// Lets the allocator keep what bodies of up to 2 MiB have taken, up to 4 MiB for each thread.
///
/// glibc gives memory back to the system as soon as 128 KiB at the end of it are free, and takes it anew,
/// page by page, for the next body: without this a body of 300 KB took 1.14 times the CPU, one of 200 KB for
/// upstreams with TLS 1.3 times. Left alone it would learn to keep more, but then without a bound that is
/// known: twice the largest body that ever came. To be called before there are threads. Other allocators do
/// as they like.
pub fn keep_freed_memory() {
    #[cfg(target_env = "gnu")]
    for (parameter, bytes) in [
        (libc::M_MMAP_THRESHOLD, 2 * 1024 * 1024),
        (libc::M_TRIM_THRESHOLD, 4 * 1024 * 1024),
    ] {
        // SAFETY: both parameters are numbers that the allocator looks at when it is called next.
        unsafe { libc::mallopt(parameter, bytes) };
    }
}

/// How many bytes the kernel hands out at a time. Crates that read it from the auxiliary vector end under
/// valgrind, which shows them one that is not the process's.
pub(crate) fn page_bytes() -> Option<usize> {
    // SAFETY: it reads a number that the C library knows.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).ok()
}

/// Gives the system all pages that nothing uses, wherever they are between pages in use.
///
/// It takes 0.1 to 0.2 ms for each MiB that is given back, and some 0.5 µs for each hole. Meanwhile the
/// allocator is locked for the thread that has used the memory.
pub(crate) fn give_back_freed_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it touches only what is free, and takes the allocator's own locks for that.
    unsafe {
        libc::malloc_trim(0)
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_shrinks_across_the_border_of_head_and_body() {
        let mut gather = Gather::new(b"head".to_vec(), Bytes::from_static(b"body!"));
        assert_eq!(gather.rest(), [&b"head"[..], b"body!"]);
        gather.advance(3);
        assert_eq!(gather.rest(), [&b"d"[..], b"body!"]);
        gather.advance(3);
        assert_eq!(gather.rest(), [&b""[..], b"dy!"]);
        assert!(!gather.is_sent());
        gather.advance(3);
        assert!(gather.is_sent());
        assert_eq!(
            gather.into_parts(),
            (b"head".to_vec(), Bytes::from_static(b"body!"))
        );
    }

    #[test]
    fn a_write_moves_a_bounded_part_of_what_is_left() {
        let body = Bytes::from(vec![0; 3 * MOVED_BYTES_MAX]);
        let mut gather = Gather::new(b"head".to_vec(), body);
        let mut moved = Vec::new();
        while !gather.is_sent() {
            let count = gather.vectors.iter().map(|vector| vector.iov_len).sum();
            moved.push(count);
            gather.advance(count);
        }
        let max = MOVED_BYTES_MAX;
        assert_eq!(moved, [max, max, max, b"head".len()]);
    }

    #[test]
    fn the_vectors_describe_what_is_left() {
        let mut gather = Gather::new(b"ab".to_vec(), Bytes::from_static(b"cde"));
        gather.advance(1);
        let moved = Box::new(gather);
        let lengths: Vec<usize> = moved.vectors.iter().map(|vector| vector.iov_len).collect();
        assert_eq!(lengths, [1, 3]);
        assert_eq!(
            moved.vectors[0].iov_base as *const u8,
            moved.rest()[0].as_ptr()
        );
        assert_eq!(
            moved.vectors[1].iov_base as *const u8,
            moved.rest()[1].as_ptr()
        );
    }
}
