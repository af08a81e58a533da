//! The only unsafe code of the program.
//!
//! Six things need it: passing the kernel a list of pointers (`writev` of a head and a body in two
//! buffers), borrowing the descriptor of a monoio stream for a system call (monoio has no `AsFd`),
//! asking for the progress of a TCP connection, taking over a descriptor that was open before the program
//! started, the page size, and the settings of
//! the allocator. Each comes with its proof; elsewhere the lint table in `Cargo.toml` forbids `unsafe`.

#![allow(unsafe_code)]

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use monoio::buf::IoVecBuf;
use monoio::net::TcpStream;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};

/// The most bytes that one read or write moves: 0.02 to 0.06 ms of the kernel's work, during which the core
/// runs nothing else.
pub(crate) const MOVED_BYTES_MAX: usize = 64 * 1024;

/// A head and a body that are sent as one message.
///
/// It owns both buffers, and the write operation owns the `Gather`. So if the future of a write is dropped,
/// the buffers stay alive until the kernel is done. monoio's `write_vectored_all` keeps only the pointers,
/// which is why it is banned here.
pub(crate) struct Gather {
    /// The unsent part. Invariant: every entry points into `head` or `body`, whose heap memory neither moves
    /// nor changes while `self` lives: the fields are private and not accessible mutably before
    /// [`Gather::into_parts`].
    vectors: Box<[libc::iovec; 2]>,
    head: Vec<u8>,
    body: Bytes,
    sent: usize,
}

impl Gather {
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

    /// The unsent part.
    fn rest(&self) -> [&[u8]; 2] {
        let head = self.head.get(self.sent..).unwrap_or_default();
        let body = self
            .body
            .get(self.sent.saturating_sub(self.head.len())..)
            .unwrap_or_default();
        [head, body]
    }

    pub(crate) fn is_sent(&self) -> bool {
        self.sent >= self.head.len() + self.body.len()
    }

    /// Records that `count` more bytes were sent.
    pub(crate) fn advance(&mut self, count: usize) {
        self.sent += count;
        self.point();
    }

    /// Returns the two buffers, so that they can be sent over another connection.
    pub(crate) fn into_parts(self) -> (Vec<u8>, Bytes) {
        (self.head, self.body)
    }

    /// Points the vectors at the unsent part, up to [`MOVED_BYTES_MAX`].
    fn point(&mut self) {
        let mut bytes_left = MOVED_BYTES_MAX;
        let [head, body] = self.rest().map(|slice| {
            let iov_len = slice.len().min(bytes_left);
            bytes_left -= iov_len;
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
// valid `iovec`: it was made from a slice of `head` or `body`. `self` owns them, and they are heap or static
// memory behind private fields, so they do not move or change until `self` is dropped or taken apart.
// An entry of length zero may point one past the end, which `writev` does not read.
unsafe impl IoVecBuf for Gather {
    fn read_iovec_ptr(&self) -> *const libc::iovec {
        self.vectors.as_ptr()
    }

    fn read_iovec_len(&self) -> usize {
        self.vectors.len()
    }
}

/// Whether a connection has something to read: data, its end, or an error.
///
/// This is one system call (`recv` with `MSG_PEEK | MSG_DONTWAIT`, 0.2 to 0.4 µs) each time a pooled connection
/// is reused. Nothing else is both cheaper and correct: `poll` and `FIONREAD` take as long; on io_uring, a
/// pending poll would have to be cancelled for each delivery; on epoll, the driver knows only what was true at
/// its last wait.
pub(crate) fn has_input(stream: &TcpStream) -> bool {
    let mut byte = [0_u8; 1];
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let peeked = rustix::net::recv(descriptor(stream), &mut byte, flags);
    !matches!(
        peeked,
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR)
    )
}

/// Copies what has arrived into `target`, without waiting and without removing it from the socket.
///
/// # Errors
/// Nothing has arrived, or the connection is broken.
pub(crate) fn peek(stream: &TcpStream, target: &mut [u8]) -> io::Result<usize> {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let (count, _) = rustix::net::recv(descriptor(stream), target, flags)?;
    Ok(count)
}

/// Sends as much of `slices` as the kernel takes without waiting, possibly nothing.
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

/// Makes closing `stream` reset the connection, so that it does not stay in TIME-WAIT.
pub(crate) fn reset_on_close(stream: &TcpStream) {
    // If this fails, the connection ends in the usual way.
    let _ = rustix::net::sockopt::set_socket_linger(descriptor(stream), Some(Duration::ZERO));
}

/// A second descriptor of the socket of `stream`, for reading while the stream is lent to an operation.
///
/// # Errors
/// For example, the process has no descriptors left.
pub(crate) fn duplicate(stream: &TcpStream) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(descriptor(stream), 0)?)
}

/// What TCP knows of the progress of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TcpProgress {
    /// Bytes that the peer has acknowledged since the connection was opened.
    pub(crate) taken_bytes: u64,
    /// Whether the socket holds bytes that the peer has not acknowledged.
    pub(crate) has_untaken_bytes: bool,
    /// Bytes that have arrived since the connection was opened.
    pub(crate) received_bytes: u64,
    /// The time since data last arrived.
    pub(crate) since_received: Duration,
}

/// The progress of a connection, by its descriptor. `None` if the system does not know (it is from Linux 4.6 on), or
/// the descriptor belongs to no TCP connection.
pub(crate) fn tcp_progress(descriptor: RawFd) -> Option<TcpProgress> {
    // The beginning of `struct tcp_info` of linux/tcp.h. The one of libc ends before what is needed.
    let mut info = [0_u8; 152];
    let mut length = info.len() as libc::socklen_t;
    // SAFETY: the call writes at most `length` bytes to `info`, and to `length`, whatever the descriptor is.
    let failed = unsafe {
        let info = info.as_mut_ptr().cast();
        libc::getsockopt(
            descriptor,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info,
            &raw mut length,
        )
    };
    if failed != 0 || (length as usize) < info.len() {
        return None;
    }
    let u32_at = |at: usize| Some(u32::from_ne_bytes(*info.get(at..)?.first_chunk()?));
    let u64_at = |at: usize| Some(u64::from_ne_bytes(*info.get(at..)?.first_chunk()?));
    let in_flight_segments = u32_at(24)?;
    let not_sent_bytes = u32_at(144)?;
    let since_received_ms = u32_at(52)?;
    Some(TcpProgress {
        taken_bytes: u64_at(120)?,
        has_untaken_bytes: in_flight_segments > 0 || not_sent_bytes > 0,
        received_bytes: u64_at(128)?,
        since_received: Duration::from_millis(since_received_ms.into()),
    })
}

fn descriptor(stream: &TcpStream) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as `stream` lives, and the returned borrow keeps `stream`
    // borrowed.
    unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) }
}

/// The first descriptor of the `sd_listen_fds` protocol.
const FIRST_INHERITED: RawFd = 3;

/// The descriptors that a service manager passed to this process by the `sd_listen_fds` protocol: `LISTEN_PID`
/// names the process, `LISTEN_FDS` the number of open descriptors from 3 on. Empty if there are none, and after
/// the first call.
///
/// # Errors
/// There are not `expected` of them, or one is not open.
pub(crate) fn inherited_descriptors(expected: usize) -> io::Result<Vec<OwnedFd>> {
    static ARE_TAKEN: AtomicBool = AtomicBool::new(false);
    let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Ok(Vec::new());
    }
    let count = number("LISTEN_FDS").unwrap_or(0);
    if count == 0 || ARE_TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    if usize::try_from(count) != Ok(expected) {
        let what = match expected {
            1 => format!("the service manager passed {count} sockets; one is expected"),
            _ => format!(
                "the service manager passed {count} sockets; {expected} are expected: that of ip and port, then those of listen in their order"
            ),
        };
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let descriptors = (FIRST_INHERITED..).take(expected);
    let take_over = |descriptor| {
        // SAFETY: reading the flags of a descriptor accesses no memory, whatever its number.
        if unsafe { libc::fcntl(descriptor, libc::F_GETFD) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is open, as just checked. It has no other owner: the service manager opened it
        // for this process to take over, nothing else here takes it over, and this line is reached once for it.
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
    };
    descriptors.map(take_over).collect()
}

/// Makes glibc's allocator keep freed memory of bodies of up to 2 MiB, and up to 4 MiB for each thread.
///
/// By default glibc returns memory to the system as soon as 128 KiB at its end are free, and takes it again,
/// page by page, for the next body. That took 1.14 times the CPU for a body of 300 KB, and 1.3 times for
/// 200 KB to upstreams with TLS. glibc would adapt to larger bodies, but without a known bound: up to twice
/// the largest body so far. Must be called before there are threads. Does nothing with other allocators.
pub fn keep_freed_memory() {
    #[cfg(target_env = "gnu")]
    for (parameter, bytes) in [
        (libc::M_MMAP_THRESHOLD, 2 * 1024 * 1024),
        (libc::M_TRIM_THRESHOLD, 4 * 1024 * 1024),
    ] {
        // SAFETY: both parameters are numbers that the allocator reads when it is called next.
        unsafe { libc::mallopt(parameter, bytes) };
    }
}

/// The page size. Crates that read it from the auxiliary vector abort under valgrind, where that vector is not
/// the process's own.
pub(crate) fn page_bytes() -> Option<usize> {
    // SAFETY: it only reads a number that the C library knows.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).ok()
}

/// Returns all free pages to the system, also those between pages in use.
///
/// This takes 0.1 to 0.2 ms for each MiB, and about 0.5 µs for each hole. Meanwhile the allocator is locked for
/// the thread that used the memory.
pub(crate) fn return_freed_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it touches only free memory, under the allocator's own locks.
    unsafe {
        libc::malloc_trim(0)
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unsent_part_shrinks_from_the_head_into_the_body() {
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
    fn a_write_moves_a_bounded_part_of_the_message() {
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
    fn the_vectors_point_at_the_unsent_part_after_a_move() {
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
