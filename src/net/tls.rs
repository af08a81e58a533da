//! A TLS session with an upstream or an SDK: rustls, driven directly over a monoio socket.
//!
//! rustls gets the plaintext of head and body together, so that they share records, and its ciphertext
//! is sent in as few writes as it has slices. A generic adapter would copy every record through its own
//! buffer and wait for each write.

use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::ops::DerefMut;
use std::pin::pin;
use std::sync::Arc;

use bytes::BytesMut;
use monoio::net::TcpStream;
use rustls::{ClientConnection, ConnectionCommon, SideData};

use crate::net::early_response::{EarlyReader, EarlyResponseWatch};
use crate::net::socket::{IdleState, READ_BYTES, read_some, write_all, write_unless_refused};
use crate::net::spare_buffers::{self, SPARE_BYTES};
use crate::net::tls_client::TlsIdentity;
use crate::net::tls_failure;
use crate::net::tls_overhead::Overhead;
use crate::runtime::coop_budget::CoopBudget;
use crate::sys;

/// How much plaintext is encrypted before it is sent. This bounds the memory of a connection that
/// sends a large body. Larger slices were not measurably faster.
const SLICE_BYTES: usize = 256 * 1024;

/// The most memory that a connection takes while it sends: a slice and its ciphertext.
pub(crate) const SENDING_BYTES_MAX: usize = 2 * SLICE_BYTES;

/// From this much plaintext on, ciphertext is sent directly from rustls's buffers. A system call of its own
/// costs less than a copy of 200 KB, and more than a copy of 2 KB.
const DIRECT_BYTES_MIN: usize = 32 * 1024;

/// How much memory for ciphertext a connection keeps between two requests: a record, and the beginning
/// of the next one.
const KEPT_BYTES: usize = 32 * 1024;

/// How many reads in a row may bring no plaintext before other tasks run. A read of a large response
/// sometimes ends within a record.
const EMPTY_READS_MAX: u32 = 2;

/// A TLS session over a TCP connection: that of a client, unless `S` is another side.
pub struct TlsStream<S = ClientConnection> {
    pub(super) tcp: TcpStream,
    pub(super) session: S,
    /// Ciphertext to be sent. Kept between uses for its memory.
    pub(super) outgoing: Vec<u8>,
    /// Whether the last read filled its buffer, so that the next one gets a large one.
    pub(super) has_more: bool,
    coop: CoopBudget,
    pub(super) overhead: Overhead,
    /// How many reads in a row have brought no plaintext.
    empty_reads: u32,
    /// Whether the session may have kept a buffer for the largest record.
    is_swollen: bool,
}

impl TlsStream {
    /// Opens a session over `tcp`, and offers `protocols` in ALPN.
    ///
    /// # Errors
    /// An I/O error, or a TLS error (of kind `InvalidData`) such as an untrusted certificate. The message
    /// names the server at `address`.
    pub async fn handshake(
        tcp: TcpStream,
        address: SocketAddr,
        identity: &TlsIdentity,
        protocols: &[&[u8]],
    ) -> io::Result<TlsStream> {
        let opening = TlsStream::open(tcp, identity, protocols).await;
        opening.map_err(|error| tls_failure::in_handshake(error, address))
    }

    async fn open(
        tcp: TcpStream,
        identity: &TlsIdentity,
        protocols: &[&[u8]],
    ) -> io::Result<TlsStream> {
        let config = Arc::clone(&identity.config);
        let server_name = identity.server_name.clone();
        let protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let mut session = ClientConnection::new_with_alpn(config, server_name, protocols)
            .map_err(io::Error::other)?;
        session.set_buffer_limit(Some(SLICE_BYTES));
        let mut stream = TlsStream::over(tcp, session);
        while stream.session.is_handshaking() {
            stream.flush().await?;
            if stream.session.is_handshaking() {
                stream.fill(&mut BytesMut::new()).await?;
            }
        }
        stream.flush().await?;
        Ok(stream)
    }

    /// Sends `head` and then `body`. Returns `false` if the upstream refused the request before it was sent
    /// completely; nothing more can be sent then.
    pub async fn send(
        &mut self,
        head: &[u8],
        body: &[u8],
        watch: &mut EarlyResponseWatch<'_>,
    ) -> io::Result<bool> {
        self.overhead.restart();
        let (mut sent, mut coop) = (0, CoopBudget::default());
        while sent < head.len() + body.len() {
            let sent_before = sent;
            let slices = [
                IoSlice::new(head.get(sent..).unwrap_or_default()),
                IoSlice::new(
                    body.get(sent.saturating_sub(head.len())..)
                        .unwrap_or_default(),
                ),
            ];
            sent += self.session.writer().write_vectored(&slices)?;
            // Only for the first slice: while the kernel takes everything at once, no other task would run
            // until a large body is sent.
            let outgoing = match (DIRECT_BYTES_MIN..=SLICE_BYTES).contains(&sent) {
                true => self.send_ciphertext()?,
                false => self.take_ciphertext()?,
            };
            // The rest did not fit into the socket buffer, or may not fit.
            if sent > DIRECT_BYTES_MIN && !outgoing.is_empty() {
                watch.begin(&self.tcp);
            }
            let written = {
                let (tcp, session) = (&mut self.tcp, &mut self.session);
                let read = |reader: &EarlyReader, buffer: &mut BytesMut| {
                    read_early(session, reader, buffer)
                };
                let writing = pin!(write_unless_refused(tcp, outgoing, watch, read));
                coop.run(writing).await
            };
            let Some((result, outgoing)) = written else {
                return Ok(false);
            };
            self.reuse_memory(outgoing);
            result?;
            if sent < head.len() + body.len() {
                coop.spend(sent - sent_before).await;
            }
        }
        Ok(true)
    }

    /// The protocol that the server chose of those offered.
    pub(crate) fn protocol(&self) -> Option<&[u8]> {
        self.session.alpn_protocol()
    }

    /// The connection without what it needs for one exchange after another.
    pub(crate) fn into_parts(self) -> (TcpStream, ClientConnection) {
        (self.tcp, self.session)
    }

    /// Checks an idle session without waiting. Data without plaintext, such as a late session ticket, also
    /// counts as closed: giving up a connection now and then is cheaper than keeping track of a partial
    /// record.
    pub(crate) fn idle_state(&mut self) -> IdleState {
        // The session wants no data if it has plaintext already, or has seen the end.
        if self.session.wants_read() && !sys::has_input(&self.tcp) {
            return IdleState::Quiet;
        }
        // Space for the largest record.
        let mut ciphertext = vec![0; 2 * READ_BYTES];
        let count = sys::peek(&self.tcp, &mut ciphertext).unwrap_or(0);
        let ciphertext = ciphertext.get(..count).unwrap_or_default();
        let mut plaintext = BytesMut::new();
        decrypt(&mut self.session, ciphertext, &mut plaintext);
        IdleState::from_bytes(&plaintext)
    }

    /// Sends as much of the pending ciphertext as the kernel takes at once, directly from the session's
    /// buffers. Returns the rest.
    fn send_ciphertext(&mut self) -> io::Result<Vec<u8>> {
        let mut outlet = DirectWriter {
            tcp: &self.tcp,
            is_full: false,
            rest: std::mem::take(&mut self.outgoing),
        };
        while self.session.wants_write() {
            self.session.write_tls(&mut outlet)?;
        }
        Ok(outlet.rest)
    }
}

impl<S, D> TlsStream<S>
where
    S: DerefMut<Target = ConnectionCommon<D>>,
    D: SideData,
{
    /// A session whose handshake has not begun.
    pub(super) fn over(tcp: TcpStream, session: S) -> TlsStream<S> {
        TlsStream {
            tcp,
            session,
            outgoing: Vec::new(),
            // A handshake has some thousand bytes.
            has_more: true,
            coop: CoopBudget::default(),
            overhead: Overhead::of_responses(),
            empty_reads: 0,
            is_swollen: false,
        }
    }

    pub fn socket(&self) -> &TcpStream {
        &self.tcp
    }

    /// Appends the plaintext that has arrived to `buffer`, of what is decrypted already at most `bytes_max`. Zero bytes
    /// mean an orderly close.
    pub(crate) async fn receive(
        &mut self,
        mut buffer: BytesMut,
        bytes_max: usize,
    ) -> (io::Result<usize>, BytesMut) {
        let filled = buffer.len();
        loop {
            match self.take_plaintext(&mut buffer, bytes_max) {
                // What came before is whole: the next read tells of the end or the error.
                _ if buffer.len() > filled => return (Ok(buffer.len() - filled), buffer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                taken => return (taken.map_err(tls_failure::after_handshake), buffer),
            }
            if let Err(error) = self.fill(&mut buffer).await {
                return (Err(tls_failure::after_handshake(error)), buffer);
            }
            if let Err(error) = self.flush().await {
                return (Err(error), buffer);
            }
        }
    }

    fn take_plaintext(&mut self, buffer: &mut BytesMut, bytes_max: usize) -> io::Result<usize> {
        let waiting = self
            .session
            .process_new_packets()
            .map_err(invalid)?
            .plaintext_bytes_to_read();
        let filled = buffer.len();
        // At least one byte of space, so that zero bytes read can only mean the end.
        buffer.resize(filled + waiting.clamp(1, bytes_max.max(1)), 0);
        let free = buffer.get_mut(filled..).unwrap_or_default();
        let taken = self.session.reader().read(free);
        let count = taken.as_ref().copied().unwrap_or(0);
        buffer.truncate(filled + count);
        if count > 0 {
            self.empty_reads = 0;
            self.overhead.add_plaintext(count);
        }
        taken
    }

    /// Reads ciphertext once and passes it to the session. Messages without plaintext take much work for
    /// their size, and no read waits if they arrive as fast as they are read. So other tasks run in between,
    /// and the number of such bytes is limited.
    async fn fill(&mut self, buffer: &mut BytesMut) -> io::Result<()> {
        let mut incoming = self.read_ciphertext().await?;
        if let Err(error) = self.process(&incoming, buffer) {
            // Try to send the alert; only the error matters.
            let _ = self.flush().await;
            return Err(error);
        }
        incoming.clear();
        spare_buffers::give_back(incoming);
        Ok(())
    }

    /// Reads ciphertext once. Nothing means the end.
    pub(super) async fn read_ciphertext(&mut self) -> io::Result<BytesMut> {
        if self.overhead.is_too_much() {
            return Err(tls_failure::no_data());
        }
        if self.empty_reads >= EMPTY_READS_MAX {
            self.coop.yield_now().await;
        }
        let (incoming, bytes_max) = match self.has_more {
            false => (spare_buffers::take(), SPARE_BYTES),
            true => (BytesMut::new(), READ_BYTES),
        };
        let (result, incoming) = {
            let reading = pin!(read_some(&mut self.tcp, incoming, bytes_max));
            self.coop.run(reading).await
        };
        let count = result?;
        self.has_more = count == bytes_max;
        self.empty_reads = self.empty_reads.saturating_add(1);
        self.overhead.add(count);
        self.is_swollen |= count > SPARE_BYTES;
        Ok(incoming)
    }

    /// Passes what was read to the session. The session takes no more while it holds 16 KiB of plaintext, so what it
    /// has is appended to `buffer` in between. After an error there may be an alert to be sent.
    pub(super) fn process(&mut self, incoming: &[u8], buffer: &mut BytesMut) -> io::Result<()> {
        let mut unread = incoming;
        if unread.is_empty() {
            // The session must see the end to distinguish an orderly close from a truncated connection.
            self.session.read_tls(&mut unread)?;
            if self.session.is_handshaking() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        while !unread.is_empty() {
            // What follows the end of the session counts for nothing (RFC 8446 section 6.1).
            if self.session.read_tls(&mut unread)? == 0 {
                return Ok(());
            }
            self.session.process_new_packets().map_err(invalid)?;
            if !unread.is_empty()
                && let Err(error) = self.take_plaintext(buffer, usize::MAX)
                && error.kind() != io::ErrorKind::WouldBlock
            {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Frees the session's buffer for large records, unless a part of one is in it.
    pub(super) fn shrink(&mut self) {
        if std::mem::take(&mut self.is_swollen) {
            // Before each read the session adapts the size of its buffer.
            let _ = self.session.read_tls(&mut NothingYet);
        }
    }

    /// Sends all pending ciphertext.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        let outgoing = self.take_ciphertext()?;
        if outgoing.is_empty() {
            self.reuse_memory(outgoing);
            return Ok(());
        }
        let (result, outgoing) = write_all(&mut self.tcp, outgoing).await;
        self.reuse_memory(outgoing);
        result
    }

    /// Takes all pending ciphertext out of the session.
    pub(super) fn take_ciphertext(&mut self) -> io::Result<Vec<u8>> {
        let mut outgoing = std::mem::take(&mut self.outgoing);
        while self.session.wants_write() {
            self.session.write_tls(&mut outgoing)?;
        }
        Ok(outgoing)
    }

    /// Keeps the memory of sent ciphertext to be reused, but not that of a large body.
    fn reuse_memory(&mut self, mut outgoing: Vec<u8>) {
        outgoing.clear();
        outgoing.shrink_to(KEPT_BYTES);
        self.outgoing = outgoing;
    }
}

/// Writes to a socket as long as the kernel takes everything at once, then collects the rest.
struct DirectWriter<'t> {
    tcp: &'t TcpStream,
    is_full: bool,
    rest: Vec<u8>,
}

impl Write for DirectWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let count = slices.iter().map(|slice| slice.len()).sum();
        if !self.is_full {
            let sent = sys::send_now(self.tcp, slices)?;
            self.is_full = sent < count;
            if sent > 0 {
                return Ok(sent);
            }
        }
        for slice in slices {
            self.rest.extend_from_slice(slice);
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Has neither data nor an end.
struct NothingYet;

impl Read for NothingYet {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

/// Passes what has arrived to `session` and appends the plaintext to `buffer`. Returns `true` if nothing
/// more can follow: after a close or an error, which the next read reports.
fn read_early(session: &mut ClientConnection, reader: &EarlyReader, buffer: &mut BytesMut) -> bool {
    let mut ciphertext = [0; 4096];
    let count = reader.read(&mut ciphertext);
    count > 0 && decrypt(session, ciphertext.get(..count).unwrap_or_default(), buffer)
}

/// Passes `unread` to `session`. Plaintext that the session had before comes first.
fn decrypt(session: &mut ClientConnection, mut unread: &[u8], buffer: &mut BytesMut) -> bool {
    loop {
        if session.read_tls(&mut unread).is_err() {
            return true;
        }
        let Ok(state) = session.process_new_packets() else {
            return true;
        };
        let filled = buffer.len();
        buffer.resize(filled + state.plaintext_bytes_to_read(), 0);
        let plaintext = buffer.get_mut(filled..).unwrap_or_default();
        if session.reader().read_exact(plaintext).is_err() || state.peer_has_closed() {
            return true;
        }
        if unread.is_empty() {
            return false;
        }
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
