//! A connection that is read and written at the same time, as HTTP/2 needs it.
//!
//! Each half has a descriptor of its own, because an operation borrows its stream. A TLS session is shared by both:
//! it is borrowed only while bytes pass through it, never while an operation is in progress.

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::pin::pin;
use std::rc::Rc;

use bytes::BytesMut;
use monoio::net::TcpStream;
use rustls::ClientConnection;

use crate::net::socket::{read_some, write_all};
use crate::net::stream::Stream;
use crate::net::tls_failure;
use crate::net::tls_overhead::Overhead;
use crate::runtime::coop_budget::CoopBudget;
use crate::sys;

type Session = Rc<RefCell<ClientConnection>>;

/// The half that reads.
pub(crate) struct Receiver {
    tcp: TcpStream,
    meter: Meter,
    session: Option<Session>,
    /// For ciphertext. Kept for its memory.
    incoming: BytesMut,
    coop: CoopBudget,
    overhead: Overhead,
}

/// Tells how much the peer has taken, as long as the half that reads lives.
#[derive(Clone, Default)]
pub(crate) struct Meter(Rc<Cell<Option<RawFd>>>);

impl Meter {
    /// The bytes that the peer has acknowledged. 0 if that is not known.
    pub(crate) fn taken_bytes(&self) -> u64 {
        let progress = self.0.get().and_then(sys::tcp_progress);
        progress.map_or(0, |progress| progress.taken_bytes)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.meter.0.set(None);
    }
}

/// The half that writes.
pub(crate) struct Sender {
    tcp: TcpStream,
    session: Option<Session>,
    /// Ciphertext. Kept for its memory.
    outgoing: Vec<u8>,
}

/// Splits a connection, on which no operation is in progress.
///
/// # Errors
/// There is no second descriptor.
pub(crate) fn split(stream: Stream) -> io::Result<(Receiver, Sender)> {
    let (tcp, session) = match stream {
        Stream::Plain(tcp) => (tcp, None),
        Stream::Tls(tls) => {
            let (tcp, session) = tls.into_parts();
            (tcp, Some(Rc::new(RefCell::new(session))))
        }
    };
    let second = std::net::TcpStream::from(sys::duplicate(&tcp)?);
    let sender = Sender {
        tcp: TcpStream::from_std(second)?,
        session: session.clone(),
        outgoing: Vec::new(),
    };
    let receiver = Receiver {
        meter: Meter(Rc::new(Cell::new(Some(tcp.as_raw_fd())))),
        tcp,
        session,
        incoming: BytesMut::new(),
        coop: CoopBudget::default(),
        overhead: Overhead::of_responses(),
    };
    Ok((receiver, sender))
}

impl Receiver {
    pub(crate) fn meter(&self) -> Meter {
        self.meter.clone()
    }

    /// Waits until something has arrived, and appends it to `buffer`. `false` is the end. It may append nothing,
    /// because TLS has messages of its own; then [`Receiver::wants_write`] tells whether one has to be answered. The
    /// last bytes may come with the end or an error. It reads at most `bytes_max` bytes, and while nothing arrives it
    /// holds no more memory for them.
    pub(crate) async fn receive(
        &mut self,
        buffer: BytesMut,
        bytes_max: usize,
    ) -> (io::Result<bool>, BytesMut) {
        let buffer = unless_large(buffer, bytes_max);
        let Some(session) = &self.session else {
            let reading = pin!(read_some(&mut self.tcp, buffer, bytes_max));
            let (read, buffer) = self.coop.run(reading).await;
            return (read.map(|count| count > 0), buffer);
        };
        let session = Rc::clone(session);
        let mut buffer = buffer;
        let filled = buffer.len();
        // The handshake may have read beyond its end.
        if let Err(error) = take_plaintext(&mut session.borrow_mut(), &mut buffer) {
            return (Err(error), buffer);
        }
        if buffer.len() > filled {
            return (Ok(true), buffer);
        }
        let (read, mut ciphertext) = {
            let memory = unless_large(std::mem::take(&mut self.incoming), bytes_max);
            let reading = pin!(read_some(&mut self.tcp, memory, bytes_max));
            self.coop.run(reading).await
        };
        let decrypted = match read {
            Ok(_) => decrypt(&mut session.borrow_mut(), &ciphertext, &mut buffer),
            Err(error) => Err(error),
        };
        self.overhead.add(ciphertext.len());
        self.overhead.add_plaintext(buffer.len() - filled);
        if self.overhead.is_too_much() {
            return (Err(tls_failure::no_data()), buffer);
        }
        ciphertext.clear();
        self.incoming = ciphertext;
        (decrypted.map_err(tls_failure::after_handshake), buffer)
    }

    /// Whether the TLS session has something to send by itself.
    pub(crate) fn wants_write(&self) -> bool {
        let session = self.session.as_ref();
        session.is_some_and(|session| session.borrow().wants_write())
    }
}

/// The memory of `buffer`, unless it is empty and takes more than `bytes_max`.
fn unless_large(buffer: BytesMut, bytes_max: usize) -> BytesMut {
    match buffer.is_empty() && buffer.capacity() > bytes_max {
        true => BytesMut::new(),
        false => buffer,
    }
}

/// Passes `ciphertext` to the session and appends what it decrypts to. Returns `false` at the end of the stream.
fn decrypt(
    session: &mut ClientConnection,
    ciphertext: &[u8],
    buffer: &mut BytesMut,
) -> io::Result<bool> {
    let mut unread = ciphertext;
    if unread.is_empty() {
        session.read_tls(&mut unread)?;
    }
    loop {
        if !unread.is_empty() {
            session.read_tls(&mut unread)?;
        }
        let has_closed = take_plaintext(session, buffer)?;
        if has_closed || ciphertext.is_empty() {
            return Ok(false);
        }
        if unread.is_empty() {
            return Ok(true);
        }
    }
}

/// Appends what is decrypted. Returns whether the server has closed its side.
fn take_plaintext(session: &mut ClientConnection, buffer: &mut BytesMut) -> io::Result<bool> {
    let state = match session.process_new_packets() {
        Ok(state) => state,
        Err(error) => {
            // What is decrypted was sent before. Reading it ends with an error, as more could follow.
            let mut rest = Vec::new();
            let _ = session.reader().read_to_end(&mut rest);
            buffer.extend_from_slice(&rest);
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
    };
    let filled = buffer.len();
    buffer.resize(filled + state.plaintext_bytes_to_read(), 0);
    let plaintext = buffer.get_mut(filled..).unwrap_or_default();
    session.reader().read_exact(plaintext)?;
    Ok(state.peer_has_closed())
}

impl Sender {
    /// Sends `bytes`, and what the TLS session has to send by itself. Returns the memory of `bytes`.
    pub(crate) async fn send(&mut self, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        let Some(session) = &self.session else {
            return write_all(&mut self.tcp, bytes).await;
        };
        let session = Rc::clone(session);
        let mut sent = 0;
        loop {
            let mut outgoing = std::mem::take(&mut self.outgoing);
            outgoing.clear();
            let rest = bytes.get(sent..).unwrap_or_default();
            match encrypt(&mut session.borrow_mut(), rest, &mut outgoing) {
                Ok(count) => sent += count,
                Err(error) => return (Err(error), bytes),
            }
            let (written, outgoing) = write_all(&mut self.tcp, outgoing).await;
            self.outgoing = outgoing;
            if written.is_err() || sent == bytes.len() {
                return (written, bytes);
            }
        }
    }
}

/// Appends the ciphertext of as much of `plaintext` as the session takes at once. Returns how much that is.
fn encrypt(
    session: &mut ClientConnection,
    plaintext: &[u8],
    outgoing: &mut Vec<u8>,
) -> io::Result<usize> {
    let count = session.writer().write(plaintext)?;
    while session.wants_write() {
        session.write_tls(outgoing)?;
    }
    Ok(count)
}
