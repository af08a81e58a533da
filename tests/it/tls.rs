//! Upstreams over TLS: a private certificate authority is trusted where it is named, and only there.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::support::{KEY_A, Process, config, envelope, envelope_request};

const ID: &str = "9ec79c33ec9942ab8353589fcb2e04dc";

/// A certificate authority of the test's own.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Authority {
            issuer: CertifiedIssuer::self_signed(params, key).unwrap(),
        }
    }

    fn server_config(&self, name: &str) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()])
            .unwrap()
            .signed_by(&key, &self.issuer)
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .unwrap()
    }
}

/// An https server that answers every request with the number of bytes of its body.
struct Server {
    address: SocketAddr,
    handshakes: Arc<AtomicUsize>,
}

impl Server {
    fn start(authority: &Authority, name: &str) -> Server {
        let config = Arc::new(authority.server_config(name));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let handshakes = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&handshakes);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, counted) = (Arc::clone(&config), Arc::clone(&counted));
                thread::spawn(move || serve(stream, config, &counted));
            }
        });
        Server {
            address,
            handshakes,
        }
    }

    fn config(&self, host: &str, extra: &str) -> String {
        let outbound = format!("https://{KEY_A}@{host}:{}/11", self.address.port());
        config(&[outbound], extra)
    }
}

/// Serves one connection until it ends in any way; a refused certificate is one of them.
fn serve(stream: TcpStream, config: Arc<ServerConfig>, handshakes: &AtomicUsize) -> Option<()> {
    let session = ServerConnection::new(config).ok()?;
    let mut reader = BufReader::new(StreamOwned::new(session, stream));
    for number in 0.. {
        let mut length = 0;
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().ok()?;
            }
        }
        if number == 0 {
            handshakes.fetch_add(1, Ordering::SeqCst);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let answer = format!(r#"{{"bytes":{length}}}"#);
        let response = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}",
            answer.len()
        );
        reader.get_mut().write_all(response.as_bytes()).ok()?;
    }
    Some(())
}

fn ca_file(authority: &Authority) -> String {
    let path = crate::support::process::file("ca.pem", &authority.issuer.pem());
    format!("tls: {{ca_file: {}}}", path.display())
}

#[test]
fn a_private_authority_is_trusted_where_it_is_named() {
    let authority = Authority::new();
    for name in ["localhost", "127.0.0.1"] {
        let server = Server::start(&authority, name);
        let mirror =
            Process::start(&server.config(name, &format!("workers: 1\n{}", ca_file(&authority))));
        let mut client = mirror.client();
        for size in [300, 5_000, 40_000, 3_000_000] {
            let mut body = envelope(ID).into_bytes();
            body.resize(size, b'x');
            let response = client.ask(&envelope_request(&body));
            assert_eq!(response.status, 200, "{}", response.text());
            let sent = response.text().strip_prefix(r#"{"bytes":"#).unwrap();
            let sent: usize = sent.strip_suffix('}').unwrap().parse().unwrap();
            // Only the length of the DSN in the envelope header may make a difference.
            assert!(sent.abs_diff(size) < 50, "{sent} of {size}");
        }
        assert_eq!(server.handshakes.load(Ordering::SeqCst), 1);
    }
}

#[test]
fn another_authority_or_another_name_is_refused() {
    let authority = Authority::new();
    let server = Server::start(&authority, "localhost");
    let mirrors = [
        server.config("localhost", ""),
        server.config("localhost", &ca_file(&Authority::new())),
        server.config("127.0.0.1", &ca_file(&authority)),
    ];
    for config in mirrors {
        let mirror = Process::start(&config);
        let response = mirror
            .client()
            .ask(&envelope_request(envelope(ID).as_bytes()));
        assert_eq!(response.status, 503);
        let line = mirror.wait_for_line("upstream does not answer");
        assert!(line.contains("TLS: invalid peer certificate"), "{line}");
    }
    assert_eq!(server.handshakes.load(Ordering::SeqCst), 0);
}

#[test]
fn an_answer_is_heard_although_the_upstream_neither_reads_on_nor_closes() {
    let authority = Authority::new();
    let tls = Arc::new(authority.server_config("localhost"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answering = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut stream = StreamOwned::new(ServerConnection::new(tls).unwrap(), stream);
        // Session tickets come right after the handshake and must not be taken for an answer: this
        // one reads long enough for them to arrive first.
        stream.read_exact(&mut vec![0; 1_000_000]).unwrap();
        stream
            .write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
        stream
    });
    let outbound = format!("https://{KEY_A}@localhost:{port}/11");
    let extra = format!("reply_timeout: 15s\n{}", ca_file(&authority));
    let mirror = Process::start(&config(&[outbound], &extra));
    let mut body = envelope(ID).into_bytes();
    body.resize(20_000_000, b'x');
    let response = mirror.client().ask(&envelope_request(&body));
    assert_eq!(response.status, 413, "{}", response.text());
    answering.join().unwrap();
}
