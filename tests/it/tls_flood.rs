//! Servers that send TLS messages without application data, without end and as fast as they can: the connection
//! is closed with an error that names the cause, and other routes are not delayed.
//!
//! A rustls server would send all tickets in one flight, which a rustls client refuses itself. This server has
//! its own cipher, which turns a certain word into a session ticket, in a record by itself.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use rustls::crypto::cipher::{
    AeadKey, Iv, MessageDecrypter, MessageEncrypter, OutboundChunks, OutboundOpaqueMessage,
    OutboundPlainMessage, Tls13AeadAlgorithm, UnsupportedOperationError,
};
use rustls::crypto::{CipherSuiteCommon, CryptoProvider, aws_lc_rs};
use rustls::{
    ConnectionTrafficSecrets, ContentType, ServerConfig, ServerConnection, StreamOwned,
    SupportedCipherSuite, Tls13CipherSuite,
};

use crate::support::tls::Authority;
use crate::support::upstream::read_request;
use crate::support::{
    Config, IN_KEY, KEY_A, KEY_B, PATIENCE, Process, Upstream, envelope, envelope_request,
};

/// The word that the cipher turns into a ticket.
const WORD: &[u8] = b"a session ticket, please";

/// A NewSessionTicket (RFC 8446 section 4.6.1) for a minute, without a nonce, of a thousand bytes.
fn ticket() -> Vec<u8> {
    let mut ticket = vec![4, 0, 3, 245, 0, 0, 0, 60, 0, 0, 0, 1, 0, 3, 232];
    ticket.resize(ticket.len() + 1000, 7);
    // No extensions.
    ticket.extend([0, 0]);
    ticket
}

struct Algorithm(&'static dyn Tls13AeadAlgorithm);

impl Tls13AeadAlgorithm for Algorithm {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        Box::new(Encrypter(self.0.encrypter(key, iv)))
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        self.0.decrypter(key, iv)
    }

    fn key_len(&self) -> usize {
        self.0.key_len()
    }

    fn extract_keys(
        &self,
        key: AeadKey,
        iv: Iv,
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.0.extract_keys(key, iv)
    }
}

struct Encrypter(Box<dyn MessageEncrypter>);

impl MessageEncrypter for Encrypter {
    fn encrypt(
        &mut self,
        message: OutboundPlainMessage<'_>,
        number: u64,
    ) -> Result<OutboundOpaqueMessage, rustls::Error> {
        if message.payload.to_vec() != WORD {
            return self.0.encrypt(message, number);
        }
        let ticket = OutboundPlainMessage {
            typ: ContentType::Handshake,
            version: message.version,
            payload: OutboundChunks::Single(&ticket()),
        };
        self.0.encrypt(ticket, number)
    }

    fn encrypted_payload_len(&self, payload_len: usize) -> usize {
        self.0.encrypted_payload_len(payload_len)
    }
}

/// A provider with this cipher.
fn provider() -> CryptoProvider {
    let SupportedCipherSuite::Tls13(suite) = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256
    else {
        panic!("a suite of TLS 1.3");
    };
    let suite = Tls13CipherSuite {
        common: CipherSuiteCommon {
            suite: suite.common.suite,
            hash_provider: suite.common.hash_provider,
            confidentiality_limit: suite.common.confidentiality_limit,
        },
        hkdf_provider: suite.hkdf_provider,
        aead_alg: Box::leak(Box::new(Algorithm(suite.aead_alg))),
        quic: None,
    };
    CryptoProvider {
        cipher_suites: vec![SupportedCipherSuite::Tls13(Box::leak(Box::new(suite)))],
        ..aws_lc_rs::default_provider()
    }
}

/// A server that answers each request with this many tickets, and then with 200. `ended` gets a message
/// for each connection that ends.
fn server(config: ServerConfig, tickets: usize, ended: Sender<()>) -> SocketAddr {
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            stream.set_nodelay(true).unwrap();
            let session = ServerConnection::new(Arc::clone(&config)).unwrap();
            let ended = ended.clone();
            thread::spawn(move || {
                let _ = serve(StreamOwned::new(session, stream), tickets);
                ended.send(())
            });
        }
    });
    address
}

fn serve(stream: StreamOwned<ServerConnection, TcpStream>, tickets: usize) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        if read_request(&mut reader).is_none() {
            return Ok(());
        }
        let stream = reader.get_mut();
        for _ in 0..tickets {
            stream.write_all(WORD)?;
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")?;
    }
}

/// The inbound key of the other route.
const OTHER_KEY: &str = "fedcba9876543210fedcba9876543210";

/// A mirror with a route to the server at `address`, and another route to `other`.
fn mirror(authority: &Authority, address: SocketAddr, other: &Upstream, driver: &str) -> Process {
    Config::new([format!("https://{KEY_A}@localhost:{}/11", address.port())])
        .route(OTHER_KEY, 43, [other.dsn(KEY_B, 12)])
        .with_metrics()
        .set("driver", driver)
        .set("reply_timeout", "15s")
        .trust(authority)
        .start()
}

fn request() -> Vec<u8> {
    envelope_request(envelope("9ec79c33ec9942ab8353589fcb2e04dc").as_bytes())
}

/// The other route answers while the flood comes, and the flooded one fails.
fn assert_no_other_route_is_delayed(mirror: &Process) {
    let mut client = mirror.client();
    client.send(&request());
    let text = String::from_utf8(request()).unwrap();
    let another = text.replace(IN_KEY, OTHER_KEY);
    assert_eq!(mirror.client().ask(another.as_bytes()).status, 200);
    assert_eq!(client.response().status, 503);
}

#[test]
fn endless_session_tickets_close_the_connection_and_delay_no_other_route() {
    for driver in ["auto", "epoll"] {
        let authority = Authority::new();
        let config = authority.server_config_with("localhost", provider());
        let (ends, ended) = channel();
        let address = server(config, usize::MAX, ends);
        let other = Upstream::ok();
        let mirror = mirror(&authority, address, &other, driver);
        assert_no_other_route_is_delayed(&mirror);
        let line = mirror.wait_for_line("upstream does not answer");
        let words = "keeps sending TLS messages without data, such as session tickets";
        assert!(line.contains(words), "{line}");
        ended.recv_timeout(PATIENCE).unwrap();
        let outcome = [r#"outcome="receive""#];
        let metrics = mirror.metrics();
        assert_eq!(metrics.sum("sentry_mirror_deliveries_total", &outcome), 1.0);
    }
}

#[test]
fn a_few_session_tickets_before_a_response_are_accepted() {
    for driver in ["auto", "epoll"] {
        let authority = Authority::new();
        let config = authority.server_config_with("localhost", provider());
        let (ends, _ended) = channel();
        let address = server(config, 10, ends);
        let other = Upstream::ok();
        let mirror = mirror(&authority, address, &other, driver);
        let mut client = mirror.client();
        // More bytes of tickets over one connection than are allowed for one answer.
        for _ in 0..40 {
            assert_eq!(client.ask(&request()).status, 200);
        }
        let opened = "sentry_mirror_upstream_connections_opened_total";
        assert_eq!(mirror.metrics().sum(opened, &[]), 1.0);
    }
}

/// A server that repeats these bytes, as fast as they are taken, instead of its side of the handshake.
fn handshake_flood(bytes: Vec<u8>, ended: Sender<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (bytes, ended) = (bytes.clone(), ended.clone());
            thread::spawn(move || {
                // The client's first message has come, in part at least.
                let _ = stream.read(&mut [0; 64]);
                while stream.write_all(&bytes).is_ok() {}
                ended.send(())
            });
        }
    });
    address
}

/// A record (RFC 8446 section 5.1), many times.
fn records(content_type: u8, payload: &[u8]) -> Vec<u8> {
    let mut record = vec![content_type, 3, 3];
    record.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    record.extend(payload);
    record.repeat(64 * 1024 / record.len())
}

#[test]
fn endless_messages_instead_of_a_handshake_close_the_connection_and_delay_no_other_route() {
    let (change_cipher_spec, alert, handshake) = (20, 21, 22);
    let mut server_hello = vec![2, 0xff, 0xff, 0xff];
    server_hello.resize(16 * 1024, 0);
    let mut certificate = vec![11, 0, 0xff, 0xff];
    certificate.resize(16 * 1024, 0);
    let floods = [
        records(change_cipher_spec, &[1]),
        // A warning: the user has cancelled.
        records(alert, &[1, 90]),
        records(handshake, &[]),
        // A HelloRequest.
        records(handshake, &[0, 0, 0, 0]),
        records(handshake, &server_hello),
        records(handshake, &certificate),
        records(handshake, &[2, 0xff]),
    ];
    let authority = Authority::new();
    for (number, flood) in floods.into_iter().enumerate() {
        let driver = ["auto", "epoll"][number % 2];
        let (ends, ended) = channel();
        let address = handshake_flood(flood, ends);
        let other = Upstream::ok();
        let mirror = mirror(&authority, address, &other, driver);
        assert_no_other_route_is_delayed(&mirror);
        ended.recv_timeout(PATIENCE).unwrap();
        let deliveries = "sentry_mirror_deliveries_total";
        let metrics = mirror.metrics();
        assert_eq!(
            metrics.sum(deliveries, &[r#"outcome="tls""#]),
            1.0,
            "{number}"
        );
    }
}
