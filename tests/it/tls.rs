//! Upstreams over TLS: a private certificate authority is trusted where it is named, and only there.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::support::tls::Authority;
use crate::support::{KEY_A, Process, Reloadable, config, envelope, envelope_request};

const ID: &str = "9ec79c33ec9942ab8353589fcb2e04dc";

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

#[test]
fn a_private_authority_is_trusted_where_it_is_named() {
    let authority = Authority::new();
    for name in ["localhost", "127.0.0.1"] {
        let server = Server::start(&authority, name);
        let mirror =
            Process::start(&server.config(name, &format!("workers: 1\n{}", authority.ca_file())));
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
fn connections_outlive_a_reload_unless_other_certificates_are_trusted() {
    let authority = Authority::new();
    let server = Server::start(&authority, "localhost");
    let path = crate::support::process::file("trusted.pem", &authority.pem());
    let text = |idle: u32| {
        let extra = format!(
            "workers: 1\ntls: {{ca_file: {}}}\npool: {{idle_connections: {idle}}}",
            path.display()
        );
        server.config("localhost", &extra)
    };
    let mut mirror = Reloadable::start(&text(8));
    let mut client = mirror.process.client();
    let mut ask = || {
        client
            .ask(&envelope_request(envelope(ID).as_bytes()))
            .status
    };
    assert_eq!(ask(), 200);
    for idle in [8, 9] {
        mirror.reload(&text(idle));
        assert_eq!(ask(), 200);
    }
    assert_eq!(server.handshakes.load(Ordering::SeqCst), 1);
    // The same path, with more in it.
    std::fs::write(&path, authority.pem() + &Authority::new().pem()).unwrap();
    mirror.reload(&text(9));
    assert_eq!(ask(), 200);
    assert_eq!(server.handshakes.load(Ordering::SeqCst), 2);
}

#[test]
fn another_authority_or_another_name_is_refused() {
    let authority = Authority::new();
    let server = Server::start(&authority, "localhost");
    let mirrors = [
        server.config("localhost", ""),
        server.config("localhost", &Authority::new().ca_file()),
        server.config("127.0.0.1", &authority.ca_file()),
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
    let extra = format!("reply_timeout: 15s\n{}", authority.ca_file());
    let mirror = Process::start(&config(&[outbound], &extra));
    let mut body = envelope(ID).into_bytes();
    body.resize(20_000_000, b'x');
    let response = mirror.client().ask(&envelope_request(&body));
    assert_eq!(response.status, 413, "{}", response.text());
    answering.join().unwrap();
}
