//! TLS to upstreams: rustls, driven directly over a monoio socket.
//!
//! rustls is handed the plaintext of head and body together, so that they share records, and all
//! ciphertext it makes goes out in as few writes as it has slices. A generic adapter would push
//! every record through a buffer of its own and wait for each. Certificates are always verified, see
//! `upstream::certificate`; there is no switch against it.

use std::fs;
use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;

use bytes::BytesMut;
use monoio::net::TcpStream;
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tracing::warn;

use crate::sys;
use crate::upstream::certificate::{Named, Trusted, Verifier};
use crate::upstream::origin::TlsIdentity;
use crate::upstream::probe::{EarlyReader, EarlyResponseWatch};
use crate::upstream::stream::{IdleState, READ_BYTES, read_into, write_all, write_unless_refused};
use crate::upstream::tls_failure;
use crate::upstream::turn::CoopBudget;

/// How much plaintext is encrypted before it is sent. It bounds the memory of a connection that
/// sends a large body; larger slices were not measurably faster.
const SLICE_BYTES: usize = 256 * 1024;

/// The most memory that a connection takes while it sends: a slice, and its ciphertext.
pub(crate) const SENDING_BYTES_MAX: usize = 2 * SLICE_BYTES;

/// From how much plaintext on ciphertext is sent from where it is. A system call of its own costs less than a
/// copy of 200 KB, and more than one of 2 KB.
const DIRECT_BYTES_MIN: usize = 32 * 1024;

/// How much memory for ciphertext a connection keeps between two requests: a record and what the next
/// one begins with.
const KEPT_BYTES: usize = 32 * 1024;

/// How many bytes of TLS may come for one answer, or in a handshake, above twice the plaintext in them. A
/// handshake has some thousand, and a session ticket a few hundred; a server that sends more is none to talk
/// to. Digesting so much takes some milliseconds.
const SILENT_BYTES_MAX: usize = 256 * 1024;

/// How many reads in a row may bring no plaintext before others have their turn. Those of a large answer end
/// within a record now and then.
const SILENT_READS_MAX: u32 = 2;

/// How many sessions are remembered to be resumed, over all origins and workers. A resumed
/// handshake costs less than half of a full one.
const RESUMED_SESSIONS: usize = 1024;

/// The TLS settings for all `https` origins, and the roots that they were made with.
#[derive(Clone)]
pub(crate) struct TlsClient {
    /// What a session is opened with.
    pub config: Arc<ClientConfig>,
    trusted: Arc<Trusted>,
}

/// The TLS settings with the built-in roots, those of the system where `system_roots` is set, and those
/// in `ca_file`. They are the `known` ones where these have the same roots.
///
/// # Errors
/// What is wrong with `ca_file`, in words for an operator.
pub(crate) fn client(
    ca_file: Option<&Path>,
    system_roots: bool,
    known: Option<&TlsClient>,
) -> Result<TlsClient, String> {
    let trusted = trusted(ca_file, system_roots)?;
    if let Some(known) = known
        && is_same_set(&known.trusted.roots.roots, &trusted.roots.roots)
        && is_same_set(&known.trusted.named, &trusted.named)
    {
        return Ok(known.clone());
    }
    let trusted = Arc::new(trusted);
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier::new(Arc::clone(&trusted), Arc::clone(&provider))?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::in_memory_sessions(RESUMED_SESSIONS);
    Ok(TlsClient {
        config: Arc::new(config),
        trusted,
    })
}

fn is_same_set<T: PartialEq>(one: &[T], other: &[T]) -> bool {
    one.len() == other.len() && one.iter().all(|root| other.contains(root))
}

fn trusted(ca_file: Option<&Path>, system_roots: bool) -> Result<Trusted, String> {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if system_roots {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            warn!(%error, "a system root certificate cannot be read");
        }
        roots.add_parsable_certificates(found.certs);
    }
    let mut named = Vec::new();
    if let Some(path) = ca_file {
        named = add_ca_file(&mut roots, path)?;
    }
    Ok(Trusted {
        roots: Arc::new(roots),
        named,
    })
}

/// Adds the certificates in a file to `roots`, and gives those that servers may also present themselves.
fn add_ca_file(roots: &mut RootCertStore, path: &Path) -> Result<Vec<Named>, String> {
    let named = |error: &dyn std::fmt::Display| format!("tls.ca_file {}: {error}", path.display());
    let pem = fs::read(path).map_err(|error| named(&error))?;
    let mut named_certificates = Vec::new();
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| named(&error))?;
        named_certificates.extend(Named::new(&certificate));
        roots.add(certificate).map_err(|error| named(&error))?;
        count += 1;
    }
    if count == 0 {
        return Err(named(
            &"holds no certificate; expected at least one PEM block `BEGIN CERTIFICATE`",
        ));
    }
    Ok(named_certificates)
}

/// A TLS session over a TCP connection.
pub struct TlsStream {
    tcp: TcpStream,
    session: ClientConnection,
    /// Ciphertext on its way out; kept between uses for its memory.
    outgoing: Vec<u8>,
    /// Ciphertext that came in; empty between uses, kept for its memory.
    incoming: BytesMut,
    coop: CoopBudget,
    /// How many bytes have come for the current answer above twice its plaintext.
    silent_bytes: usize,
    /// How many reads in a row have brought no plaintext.
    silent_reads: u32,
}

impl TlsStream {
    /// Opens a session over `tcp`.
    ///
    /// # Errors
    /// An I/O error, or a TLS error (of kind `InvalidData`) such as an untrusted certificate, in words about
    /// the server at `address`.
    pub async fn handshake(
        tcp: TcpStream,
        address: SocketAddr,
        identity: &TlsIdentity,
    ) -> io::Result<TlsStream> {
        let opening = TlsStream::open(tcp, identity).await;
        opening.map_err(|error| tls_failure::in_handshake(error, address))
    }

    async fn open(tcp: TcpStream, identity: &TlsIdentity) -> io::Result<TlsStream> {
        let config = Arc::clone(&identity.config);
        let mut session = ClientConnection::new(config, identity.server_name.clone())
            .map_err(io::Error::other)?;
        session.set_buffer_limit(Some(SLICE_BYTES));
        let mut stream = TlsStream {
            tcp,
            session,
            outgoing: Vec::new(),
            incoming: BytesMut::new(),
            coop: CoopBudget::default(),
            silent_bytes: 0,
            silent_reads: 0,
        };
        while stream.session.is_handshaking() {
            stream.flush().await?;
            if stream.session.is_handshaking() {
                stream.fill().await?;
            }
        }
        stream.flush().await?;
        Ok(stream)
    }

    /// Sends `head` and then `body`; `false` where the upstream has refused the request instead of
    /// reading on, after which nothing more can be sent.
    pub async fn send(
        &mut self,
        head: &[u8],
        body: &[u8],
        watch: &mut EarlyResponseWatch<'_>,
    ) -> io::Result<bool> {
        self.silent_bytes = 0;
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
            // Only the first slice: where the kernel takes all at once, nothing is waited for, and nobody else
            // would get a turn while a large body goes out.
            let outgoing = match (DIRECT_BYTES_MIN..=SLICE_BYTES).contains(&sent) {
                true => self.send_ciphertext()?,
                false => self.take_ciphertext()?,
            };
            // What is left did not fit into the socket, or is more than may fit.
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
            self.put_back(outgoing);
            result?;
            if sent < head.len() + body.len() {
                coop.spend(sent - sent_before).await;
            }
        }
        Ok(true)
    }

    /// Appends the plaintext that has arrived to `buffer`; zero bytes mean an orderly close.
    pub async fn receive(&mut self, mut buffer: BytesMut) -> (io::Result<usize>, BytesMut) {
        loop {
            match self.take_plaintext(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                taken => return (taken.map_err(tls_failure::later), buffer),
            }
            if let Err(error) = self.fill().await {
                return (Err(tls_failure::later(error)), buffer);
            }
            if let Err(error) = self.flush().await {
                return (Err(error), buffer);
            }
        }
    }

    /// The socket beneath.
    pub fn socket(&self) -> &TcpStream {
        &self.tcp
    }

    /// What has arrived on this idle session. A late session ticket is its end, as is anything that only
    /// TLS has a use for: giving up a connection now and then is cheaper than going on with a record of
    /// which a part is there.
    pub fn look(&mut self) -> IdleState {
        // It wants nothing where it has plaintext already, or was told that no more will come.
        if self.session.wants_read() && !sys::has_input(&self.tcp) {
            return IdleState::Quiet;
        }
        // Room for the largest record.
        let mut ciphertext = vec![0; 2 * READ_BYTES];
        let count = sys::peek(&self.tcp, &mut ciphertext).unwrap_or(0);
        let ciphertext = ciphertext.get(..count).unwrap_or_default();
        let mut plaintext = BytesMut::new();
        digest(&mut self.session, ciphertext, &mut plaintext);
        IdleState::from_bytes(&plaintext)
    }

    fn take_plaintext(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        let waiting = self
            .session
            .process_new_packets()
            .map_err(invalid)?
            .plaintext_bytes_to_read();
        let filled = buffer.len();
        // At least one byte of room, so that zero bytes read can only mean the end.
        buffer.resize(filled + waiting.max(1), 0);
        let room = buffer.get_mut(filled..).unwrap_or_default();
        let taken = self.session.reader().read(room);
        let count = taken.as_ref().copied().unwrap_or(0);
        buffer.truncate(filled + count);
        if count > 0 {
            self.silent_reads = 0;
            self.silent_bytes = self.silent_bytes.saturating_sub(2 * count);
        }
        taken
    }

    /// Reads ciphertext once and lets the session digest it. Messages without plaintext are a lot of work for
    /// their size, and where they come as fast as they are read no read has to wait: others get their turn, and
    /// there is an end.
    async fn fill(&mut self) -> io::Result<()> {
        if self.silent_reads >= SILENT_READS_MAX {
            self.coop.yield_now().await;
        }
        let incoming = std::mem::take(&mut self.incoming);
        let (result, mut incoming) = {
            let reading = pin!(read_into(&mut self.tcp, incoming));
            self.coop.run(reading).await
        };
        let count = result?;
        self.silent_reads = self.silent_reads.saturating_add(1);
        self.silent_bytes += count;
        if self.silent_bytes > SILENT_BYTES_MAX {
            return Err(tls_failure::endless());
        }
        let mut unread: &[u8] = &incoming;
        if count == 0 {
            // The session must see the end, to tell an orderly close from a cut connection.
            self.session.read_tls(&mut unread)?;
            if self.session.is_handshaking() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        while !unread.is_empty() {
            self.session.read_tls(&mut unread)?;
            if let Err(error) = self.session.process_new_packets() {
                // The alert that says why is a courtesy; the error is what counts.
                let _ = self.flush().await;
                return Err(invalid(error));
            }
        }
        incoming.clear();
        self.incoming = incoming;
        Ok(())
    }

    /// Sends all ciphertext that the session has ready.
    async fn flush(&mut self) -> io::Result<()> {
        let outgoing = self.take_ciphertext()?;
        if outgoing.is_empty() {
            self.put_back(outgoing);
            return Ok(());
        }
        let (result, outgoing) = write_all(&mut self.tcp, outgoing).await;
        self.put_back(outgoing);
        result
    }

    /// Sends of the ciphertext that the session has ready what the kernel takes at once, straight from where
    /// it is, and gives the rest.
    fn send_ciphertext(&mut self) -> io::Result<Vec<u8>> {
        let mut outlet = Outlet {
            tcp: &self.tcp,
            is_full: false,
            rest: std::mem::take(&mut self.outgoing),
        };
        while self.session.wants_write() {
            self.session.write_tls(&mut outlet)?;
        }
        Ok(outlet.rest)
    }

    /// All ciphertext that the session has ready.
    fn take_ciphertext(&mut self) -> io::Result<Vec<u8>> {
        let mut outgoing = std::mem::take(&mut self.outgoing);
        while self.session.wants_write() {
            self.session.write_tls(&mut outgoing)?;
        }
        Ok(outgoing)
    }

    /// Keeps the memory of what was sent, but not that of a large body.
    fn put_back(&mut self, mut outgoing: Vec<u8>) {
        outgoing.clear();
        outgoing.shrink_to(KEPT_BYTES);
        self.outgoing = outgoing;
    }
}

/// Takes bytes for a socket as long as the kernel takes them, and keeps all that come after that.
struct Outlet<'t> {
    tcp: &'t TcpStream,
    is_full: bool,
    rest: Vec<u8>,
}

impl Write for Outlet<'_> {
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

/// Lets `session` digest what has arrived and appends the plaintext to `buffer`. `true` where nothing more
/// can come: after a closing or an error, which reading will tell.
fn read_early(session: &mut ClientConnection, reader: &EarlyReader, buffer: &mut BytesMut) -> bool {
    let mut room = [0; 4096];
    let count = reader.take_bytes(&mut room);
    count > 0 && digest(session, room.get(..count).unwrap_or_default(), buffer)
}

/// The same with what has been read already. Plaintext that the session had before comes first.
fn digest(session: &mut ClientConnection, mut unread: &[u8], buffer: &mut BytesMut) -> bool {
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
