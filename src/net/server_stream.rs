//! One connection of an SDK, plain or TLS.
//!
//! A connection whose operation failed or was dropped can only be closed, as in [`stream`](crate::net::stream).

use std::io::{self, Write};
use std::time::Duration;

use bytes::BytesMut;
use monoio::buf::IoBuf;
use monoio::io::AsyncWriteRent;
use monoio::net::TcpStream;
use monoio::time::timeout;
use rustls::ServerConnection;

use crate::net::socket::{READ_BYTES, read_some, write_all};
use crate::net::tls::TlsStream;
use crate::net::tls_failure;
use crate::sys;

/// How long the end of a TLS session may take to be sent. Usually the socket takes it at once.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How much plaintext a read may bring: of what was read, and of the record that it ends.
const TLS_READ_BYTES: usize = 2 * READ_BYTES;

/// How much memory for ciphertext a connection keeps between two replies: that of most of them.
const KEPT_BYTES: usize = 512;

/// A connection of an SDK. The TLS variant is boxed, so that plain connections do not carry its size.
pub(crate) enum ServerStream {
    Plain(TcpStream),
    Tls(Box<TlsStream<ServerConnection>>),
}

impl ServerStream {
    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            ServerStream::Plain(stream) => stream,
            ServerStream::Tls(stream) => stream.socket(),
        }
    }

    /// The space in a buffer with which no read grows it. A plain socket is read into what there is, if that is worth a
    /// system call.
    pub(crate) fn read_bytes(&self) -> usize {
        match self {
            ServerStream::Plain(_) => READ_BYTES / 4,
            ServerStream::Tls(_) => TLS_READ_BYTES,
        }
    }

    /// Whether something can be read without the socket.
    pub(crate) fn has_plaintext(&self) -> bool {
        match self {
            ServerStream::Plain(_) => false,
            // With plaintext, or after the end.
            ServerStream::Tls(stream) => !stream.session.wants_read(),
        }
    }

    /// Whether something has arrived.
    pub(crate) fn has_input(&self) -> bool {
        self.has_plaintext() || sys::has_input(self.socket())
    }

    /// Reads at most `bytes_max` once, of TLS a record more. Zero bytes mean that the client has closed.
    pub(crate) async fn read(
        &mut self,
        buffer: BytesMut,
        bytes_max: usize,
    ) -> (io::Result<usize>, BytesMut) {
        match self {
            ServerStream::Plain(stream) => read_some(stream, buffer, bytes_max).await,
            ServerStream::Tls(stream) => Box::pin(stream.receive(buffer, bytes_max)).await,
        }
    }

    /// Whether a read has failed because of what the client sent, and not because it has closed or sent an alert.
    pub(crate) fn is_violation(read: &io::Result<usize>) -> bool {
        let error = read.as_ref().err();
        error.is_some_and(|error| {
            error.kind() == io::ErrorKind::InvalidData && !tls_failure::is_refusal(error)
        })
    }

    /// Writes all of `buffer`, and returns it so that its memory can be reused.
    pub(crate) async fn write<B: IoBuf + AsRef<[u8]>>(&mut self, buffer: B) -> (io::Result<()>, B) {
        match self {
            ServerStream::Plain(stream) => write_all(stream, buffer).await,
            ServerStream::Tls(stream) => {
                let written = Box::pin(stream.write(buffer.as_ref())).await;
                (written, buffer)
            }
        }
    }

    /// Ends the sending side.
    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        match self {
            ServerStream::Plain(stream) => stream.shutdown().await,
            ServerStream::Tls(stream) => {
                let closing = Box::pin(async {
                    stream.session.send_close_notify();
                    stream.flush().await?;
                    stream.tcp.shutdown().await
                });
                let closed = timeout(CLOSE_TIMEOUT, closing).await;
                closed.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }

    /// Frees the memory that an idle connection does not need.
    pub(crate) fn shrink(&mut self) {
        if let ServerStream::Tls(stream) = self {
            stream.shrink();
        }
    }

    /// Answers the end of a TLS session that the client has ended, as TLS 1.2 demands (RFC 5246 section 7.2.1). No
    /// operation may be in progress.
    pub(crate) fn answer_end(&mut self) {
        if let ServerStream::Tls(stream) = self
            && let Ok(state) = stream.session.process_new_packets()
            && state.peer_has_closed()
        {
            self.announce_end();
        }
    }

    /// Tells the client of an idle TLS session that it ends, if the socket takes that at once: without it, the end
    /// could be an attacker's (RFC 8446 section 6.1). No operation may be in progress.
    pub(crate) fn announce_end(&mut self) {
        if let ServerStream::Tls(stream) = self {
            stream.session.send_close_notify();
            if let Ok(ciphertext) = stream.take_ciphertext() {
                let _ = sys::send_now(&stream.tcp, &[io::IoSlice::new(&ciphertext)]);
            }
        }
    }
}

impl TlsStream<ServerConnection> {
    /// Encrypts and sends `bytes`.
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut sent = 0;
        while sent < bytes.len() {
            let rest = bytes.get(sent..).unwrap_or_default();
            sent += self.session.writer().write(rest)?;
            self.flush().await?;
            self.outgoing.shrink_to(KEPT_BYTES);
        }
        Ok(())
    }
}
