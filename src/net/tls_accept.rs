//! The TLS handshake with an SDK.
//!
//! Only the processing of what a client has sent costs time, up to a millisecond with an RSA key. So the caller
//! schedules it: [`Handshake::read`] waits for the client, [`Handshake::process`] works, and
//! [`Handshake::answer`] sends.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use monoio::net::TcpStream;
use rustls::{Error, ServerConfig, ServerConnection};

use crate::net::server_stream::ServerStream;
use crate::net::spare_buffers;
use crate::net::tls::TlsStream;
use crate::net::tls_overhead::Overhead;
use crate::telemetry::label::labels;

/// The most plaintext that is encrypted before it is sent.
const SLICE_BYTES: usize = 64 * 1024;

/// The type of the records of a handshake, with which every TLS connection begins (RFC 8446 section 5.1).
const HANDSHAKE_RECORD: u8 = 22;

labels! {
    /// How the TLS handshake of an SDK ended.
    pub enum HandshakeResult {
        /// The connection is open.
        Done => "done",
        /// It took longer than `timeouts.head`, with the time before its first byte.
        Timeout => "timeout",
        /// The client closed the connection, or a stopping worker did.
        Gone => "gone",
        /// It waited longest for its client when a new connection needed its place.
        Evicted => "evicted",
        /// `limits.tls_handshakes` clients were waiting for the mirror.
        Overloaded => "overloaded",
        /// The client sent a request without TLS, and got a 400.
        PlainHttp => "plain_http",
        /// What the client sent is neither TLS nor HTTP.
        NotTls => "not_tls",
        /// The client has no TLS version or cipher suite in common with the mirror.
        Incompatible => "incompatible",
        /// The client offers only protocols other than HTTP/1.1 in ALPN.
        Alpn => "alpn",
        /// The client has no certificate, and has to have one.
        NoCertificate => "no_certificate",
        /// The client's certificate is not accepted.
        BadCertificate => "bad_certificate",
        /// The client ended the handshake by an alert, for example since it does not trust the mirror's certificate.
        Alert => "alert",
        /// The client violated the protocol.
        Protocol => "protocol",
    }
}

/// What a connection begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beginning {
    Tls,
    /// The method of a request.
    PlainHttp,
    Other,
}

impl Beginning {
    pub(crate) fn of(first: u8) -> Beginning {
        match first {
            HANDSHAKE_RECORD => Beginning::Tls,
            b'A'..=b'Z' | b'a'..=b'z' => Beginning::PlainHttp,
            _ => Beginning::Other,
        }
    }
}

/// A handshake in progress.
pub(crate) struct Handshake {
    stream: Box<TlsStream<ServerConnection>>,
    /// What was received behind its end: a client may send its request at once.
    plaintext: BytesMut,
}

impl Handshake {
    /// # Errors
    /// The configuration cannot be used.
    pub(crate) fn new(tcp: TcpStream, config: Arc<ServerConfig>) -> Result<Handshake, Error> {
        let mut session = ServerConnection::new(config)?;
        session.set_buffer_limit(Some(SLICE_BYTES));
        let mut stream = TlsStream::over(tcp, session);
        // A ClientHello fits into a small buffer.
        stream.has_more = false;
        Ok(Handshake {
            stream: Box::new(stream),
            plaintext: BytesMut::new(),
        })
    }

    /// Reads once. Nothing means the end.
    ///
    /// # Errors
    /// The connection is broken, or the client sends too much.
    pub(crate) async fn read(&mut self) -> io::Result<BytesMut> {
        self.stream.read_ciphertext().await
    }

    /// Processes what was read.
    ///
    /// # Errors
    /// The handshake has failed. There may be an alert to be sent.
    pub(crate) fn process(&mut self, mut received: BytesMut) -> Result<(), HandshakeResult> {
        let processed = self.stream.process(&received, &mut self.plaintext);
        received.clear();
        spare_buffers::give_back(received);
        processed.map_err(|error| failure(&error))
    }

    /// Sends what the session has to say.
    ///
    /// # Errors
    /// The connection is broken.
    pub(crate) async fn answer(&mut self) -> io::Result<()> {
        self.stream.flush().await
    }

    pub(crate) fn is_done(&self) -> bool {
        !self.stream.session.is_handshaking()
    }

    /// Waits for the client, without a buffer.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.stream.tcp.readable(false).await
    }

    /// The connection without TLS, to discard what the client still sends.
    pub(crate) fn into_plain(self) -> ServerStream {
        ServerStream::Plain(self.stream.tcp)
    }

    /// The connection, and what was received over it already.
    pub(crate) fn finish(mut self) -> (ServerStream, BytesMut) {
        // The certificates are sent.
        self.stream.outgoing = Vec::new();
        self.stream.overhead = Overhead::of_requests();
        (ServerStream::Tls(self.stream), self.plaintext)
    }
}

/// Why a handshake has failed.
pub(crate) fn failure(error: &io::Error) -> HandshakeResult {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
    match tls {
        // Longer than any handshake.
        None if error.kind() == io::ErrorKind::InvalidData => HandshakeResult::Protocol,
        None => HandshakeResult::Gone,
        Some(Error::PeerIncompatible(_)) => HandshakeResult::Incompatible,
        Some(Error::NoApplicationProtocol) => HandshakeResult::Alpn,
        Some(Error::NoCertificatesPresented) => HandshakeResult::NoCertificate,
        Some(Error::InvalidCertificate(_)) => HandshakeResult::BadCertificate,
        Some(Error::AlertReceived(_)) => HandshakeResult::Alert,
        Some(Error::InvalidMessage(_)) => HandshakeResult::NotTls,
        Some(_) => HandshakeResult::Protocol,
    }
}
