//! Upstreams over TLS: a private certificate authority or a server's own certificate is trusted only if it is
//! configured, and failures are explained.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519,
    PKCS_RSA_SHA256, date_time_ymd,
};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::support::tls::{Authority, Certified, ca_file};
use crate::support::upstream::read_request;
use crate::support::{KEY_A, Process, Reloadable, config, envelope, envelope_request, wait_until};

const ID: &str = "9ec79c33ec9942ab8353589fcb2e04dc";

/// An https server that answers every request with the number of bytes of its body.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) handshakes: Arc<AtomicUsize>,
}

impl Server {
    pub(crate) fn start(authority: &Authority, name: &str) -> Server {
        Server::with(authority.server_config(name))
    }

    pub(crate) fn with(config: ServerConfig) -> Server {
        Server::on(TcpListener::bind("127.0.0.1:0").unwrap(), config)
    }

    fn on(listener: TcpListener, config: ServerConfig) -> Server {
        let config = Arc::new(config);
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

/// Serves one connection until it ends, for example because the mirror refuses the certificate.
fn serve(stream: TcpStream, config: Arc<ServerConfig>, handshakes: &AtomicUsize) -> Option<()> {
    let session = ServerConnection::new(config).ok()?;
    let mut reader = BufReader::new(StreamOwned::new(session, stream));
    for number in 0.. {
        let request = read_request(&mut reader)?;
        if number == 0 {
            handshakes.fetch_add(1, Ordering::SeqCst);
        }
        let answer = format!(r#"{{"bytes":{}}}"#, request.body.len());
        let response = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}",
            answer.len()
        );
        reader.get_mut().write_all(response.as_bytes()).ok()?;
    }
    Some(())
}

#[test]
fn a_configured_private_authority_is_trusted() {
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
            // Only the length of the DSN in the envelope header may differ.
            assert!(sent.abs_diff(size) < 50, "{sent} of {size}");
        }
        assert_eq!(server.handshakes.load(Ordering::SeqCst), 1);
    }
}

#[test]
fn keys_of_every_kind_are_accepted_from_servers_and_authorities() {
    for algorithm in [
        &PKCS_ECDSA_P256_SHA256,
        &PKCS_ECDSA_P384_SHA384,
        &PKCS_ECDSA_P521_SHA512,
        &PKCS_ED25519,
        &PKCS_RSA_SHA256,
    ] {
        let key = || KeyPair::generate_for(algorithm).unwrap();
        let authority = Authority::with_key(key());
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let server = Server::with(authority.signed_for(&params, key()).server_config());
        let mirror = Process::start(&server.config("localhost", &authority.ca_file()));
        let response = mirror
            .client()
            .ask(&envelope_request(envelope(ID).as_bytes()));
        assert_eq!(response.status, 200, "{algorithm:?}: {}", response.text());
    }
}

#[test]
fn a_probe_makes_the_handshake() {
    let authority = Authority::new();
    // Accepts connections and closes them.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let extra = format!(
        "workers: 1\nadmin: {{port: 0}}\nbreaker: {{failures: 1, pause: 20ms}}\n{}",
        authority.ca_file()
    );
    let outbound = format!("https://{KEY_A}@localhost:{port}/11");
    let mirror = Process::start(&config(&[outbound], &extra));
    let mut client = mirror.client();
    client.send(&envelope_request(envelope(ID).as_bytes()));
    drop(listener.accept().unwrap());
    assert_eq!(client.response().status, 503);
    for _ in 0..3 {
        drop(listener.accept().unwrap());
    }
    let is_open = || mirror.metrics().sum("sentry_mirror_breakers_open", &[]) == 1.0;
    assert!(is_open(), "a connection without a handshake closed it");
    let server = Server::on(listener, authority.server_config("localhost"));
    wait_until(|| !is_open(), || "still open".to_owned());
    let response = client.ask(&envelope_request(envelope(ID).as_bytes()));
    assert_eq!(response.status, 200);
    // The probe sent no request.
    assert_eq!(server.handshakes.load(Ordering::SeqCst), 1);
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
    // The same path, with another certificate in the file.
    std::fs::write(&path, authority.pem() + &Authority::new().pem()).unwrap();
    mirror.reload(&text(9));
    assert_eq!(ask(), 200);
    assert_eq!(server.handshakes.load(Ordering::SeqCst), 2);
}

#[test]
fn another_authority_or_another_name_is_refused() {
    let authority = Authority::new();
    let server = Server::start(&authority, "localhost");
    let another = "has a certificate whose signature is invalid";
    let mirrors = [
        (
            server.config("localhost", ""),
            "signed by an unknown authority",
        ),
        (
            server.config("localhost", &Authority::new().ca_file()),
            another,
        ),
        (
            server.config("127.0.0.1", &authority.ca_file()),
            "has a certificate for localhost, not for 127.0.0.1",
        ),
    ];
    for (config, words) in mirrors {
        let mirror = Process::start(&config);
        let response = mirror
            .client()
            .ask(&envelope_request(envelope(ID).as_bytes()));
        assert_eq!(response.status, 503);
        let line = mirror.wait_for_line("upstream does not answer");
        let server = format!("TLS: the server at {} ", server.address);
        assert!(line.contains(&server) && line.contains(words), "{line}");
    }
    assert_eq!(server.handshakes.load(Ordering::SeqCst), 0);
}

#[test]
fn a_response_over_tls_is_read_although_the_upstream_neither_reads_on_nor_closes() {
    let authority = Authority::new();
    let tls = Arc::new(authority.server_config("localhost"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answering = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut stream = StreamOwned::new(ServerConnection::new(tls).unwrap(), stream);
        // Session tickets follow the handshake and must not be taken for a response. This server reads long
        // enough for them to arrive first.
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

/// A certificate as made by `openssl req -x509 -subj /CN=localhost`, with `-addext subjectAltName=DNS:name`
/// for each name: it is marked as a certificate authority.
fn made_by_openssl(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let common_name = rcgen::DnType::CommonName;
    params.distinguished_name.push(common_name, "localhost");
    params
}

/// Delivers an event with this configuration; gives the status of the reply, and the log line of a failure.
fn told(config: &str) -> (u16, String) {
    let mirror = Process::start(config);
    let event = envelope_request(envelope(ID).as_bytes());
    match mirror.client().ask(&event).status {
        200 => (200, String::new()),
        status => (status, mirror.wait_for_line("upstream does not answer")),
    }
}

#[track_caller]
fn assert_refused(config: &str, words: &str) {
    let (status, line) = told(config);
    assert_eq!(status, 503, "{words}: {line}");
    assert!(line.contains(words), "{words}: {line}");
}

#[test]
fn a_configured_end_entity_certificate_is_trusted_without_a_chain() {
    let authority = made_by_openssl(&["localhost", "127.0.0.1"]);
    let mut server = authority.clone();
    server.is_ca = IsCa::ExplicitNoCa;
    let mut neither = authority.clone();
    neither.is_ca = IsCa::NoCa;
    let mut for_servers = authority.clone();
    for_servers.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for (what, certified) in [
        ("CA:TRUE", Certified::by_itself(&authority)),
        ("CA:FALSE", Certified::by_itself(&server)),
        ("no basicConstraints", Certified::by_itself(&neither)),
        ("serverAuth", Certified::by_itself(&for_servers)),
        ("signed by a stranger", Authority::new().signed(&server)),
    ] {
        let upstream = Server::with(certified.server_config());
        // The file may hold other certificates as well.
        let file = ca_file(&(Authority::new().pem() + &certified.pem()));
        for host in ["localhost", "127.0.0.1"] {
            assert_eq!(
                told(&upstream.config(host, &file)),
                (200, String::new()),
                "{what}"
            );
        }
    }
}

#[test]
fn a_configured_end_entity_certificate_is_trusted_only_for_its_names_and_validity() {
    let mut expired = made_by_openssl(&["localhost"]);
    expired.not_after = date_time_ymd(2020, 1, 1);
    let mut early = made_by_openssl(&["localhost"]);
    early.not_before = date_time_ymd(4000, 1, 1);
    let mut for_clients = made_by_openssl(&["localhost"]);
    for_clients.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let mut server = made_by_openssl(&["other.example"]);
    server.is_ca = IsCa::ExplicitNoCa;
    for (params, words) in [
        (
            made_by_openssl(&[]),
            "has a certificate without subjectAltName, and the common name does not count; make one with `-addext subjectAltName=DNS:localhost`",
        ),
        (
            made_by_openssl(&["other.example", "192.0.2.1"]),
            "has a certificate for other.example, 192.0.2.1, not for localhost, which is the host of the DSN",
        ),
        (
            server,
            "has a certificate for other.example, not for localhost",
        ),
        (expired, "has a certificate that expired "),
        (early, "has a certificate that becomes valid only in "),
        (for_clients, "has a certificate that is not for servers"),
    ] {
        let certified = Certified::by_itself(&params);
        let upstream = Server::with(certified.server_config());
        assert_refused(
            &upstream.config("localhost", &ca_file(&certified.pem())),
            words,
        );
    }
    // Trust in one certificate does not extend to another.
    let certified = Certified::by_itself(&made_by_openssl(&["localhost"]));
    let upstream = Server::with(certified.server_config());
    let words = "has an unknown self-signed certificate; to trust it, add it to tls.ca_file";
    assert_refused(&upstream.config("localhost", ""), words);
    let another = Certified::by_itself(&made_by_openssl(&["localhost"]));
    assert_refused(
        &upstream.config("localhost", &ca_file(&another.pem())),
        words,
    );
}

#[test]
fn a_renewed_certificate_of_the_same_key_is_trusted_after_a_reload() {
    let mut old = made_by_openssl(&["localhost"]);
    old.not_after = date_time_ymd(2020, 1, 1);
    let certified = Certified::by_itself(&old);
    let path = crate::support::process::file("trusted.pem", &certified.pem());
    let file = format!("tls: {{ca_file: {}}}", path.display());
    let upstream = Server::with(certified.server_config());
    let mut mirror = Reloadable::start(&upstream.config("localhost", &file));
    let ask = |mirror: &Reloadable| {
        let event = envelope_request(envelope(ID).as_bytes());
        mirror.process.client().ask(&event).status
    };
    assert_eq!(ask(&mirror), 503);
    let certified = certified.renewed(&made_by_openssl(&["localhost"]));
    std::fs::write(&path, certified.pem()).unwrap();
    let upstream = Server::with(certified.server_config());
    mirror.reload(&upstream.config("localhost", &file));
    assert_eq!(ask(&mirror), 200);
}

/// A server that reads the first bytes, answers with `bytes`, and then waits for the end.
fn raw_server(bytes: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut hello = [0; 16 << 10];
                let count = stream.read(&mut hello)?;
                assert!(count > 0, "the mirror speaks first");
                stream.write_all(bytes)?;
                stream.shutdown(std::net::Shutdown::Write)?;
                stream.read_to_end(&mut Vec::new())
            });
        }
    });
    address
}

#[test]
fn tls_failures_are_explained_to_the_operator() {
    // A record of TLS with a fatal alert in it (RFC 8446 section 6).
    for (bytes, words) in [
        (
            &b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"[..],
            "does not speak TLS on this port",
        ),
        (
            b"SSH-2.0-OpenSSH_9.6\r\n",
            "does not speak TLS on this port",
        ),
        (
            b"",
            "closed the connection during the TLS handshake; does it speak TLS on this port?",
        ),
        (
            b"\x15\x03\x01\0\x02\x02\x28",
            "refuses the TLS handshake: it accepts none of the cipher suites",
        ),
        (
            b"\x15\x03\x01\0\x02\x02\x46",
            "speaks neither TLS 1.2 nor TLS 1.3",
        ),
        (
            b"\x15\x03\x01\0\x02\x02\x70",
            "has no site with the host name of the DSN",
        ),
        (
            b"\x15\x03\x01\0\x02\x02\x74",
            "requires a client certificate, and the mirror has none",
        ),
        (
            b"\x15\x03\x01\0\x02\x02\x50",
            "ended TLS with the alert InternalError",
        ),
    ] {
        let address = raw_server(bytes);
        let outbound = format!("https://{KEY_A}@{address}/11");
        let words = format!("failure=TLS: the server at {address} {words}");
        assert_refused(&config(&[outbound], ""), &words);
    }
}
