//! Listeners with TLS.

mod records;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, date_time_ymd};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, StreamOwned, SupportedProtocolVersion,
};

use crate::support::process::{file, run};
use crate::support::tls::Authority;
use crate::support::{
    Client, IN_KEY, KEY_A, PATIENCE, Process, Reloadable, Upstream, config, wait_until,
};

/// A mirror whose second listener has TLS.
struct Secured {
    mirror: Process,
    address: SocketAddr,
    upstream: Upstream,
}

/// The `tls` of a listener with this certificate.
fn with_files((cert_file, key_file): &(impl AsRef<Path>, impl AsRef<Path>)) -> String {
    format!(
        "cert_file: {}, key_file: {}",
        cert_file.as_ref().display(),
        key_file.as_ref().display()
    )
}

fn text(upstream: &Upstream, tls: &str, extra: &str) -> String {
    let listen = match extra.contains("listen:") {
        true => extra.replace("TLS", &format!("tls: {{{tls}}}")),
        false => format!("{extra}\nlisten: [{{address: '127.0.0.1:0', tls: {{{tls}}}}}]"),
    };
    let extra = format!("admin: {{port: 0}}\n{listen}");
    config(&[upstream.dsn(KEY_A, 11)], &extra)
}

/// The address of the second listener.
fn second_address(mirror: &Process) -> SocketAddr {
    let line = mirror.wait_for_line(", too");
    let address = line.split("listening on ").nth(1).unwrap();
    address.split(',').next().unwrap().parse().unwrap()
}

impl Secured {
    fn start(tls: &str, extra: &str) -> Secured {
        let upstream = Upstream::ok();
        let mirror = Process::start(&text(&upstream, tls, extra));
        Secured {
            address: second_address(&mirror),
            mirror,
            upstream,
        }
    }

    /// A mirror with a certificate for localhost.
    fn for_localhost(authority: &Authority, extra: &str) -> Secured {
        let files = authority.server_files(&["localhost"]);
        Secured::start(&with_files(&files), extra)
    }

    fn connect(&self) -> TcpStream {
        connect(self.address)
    }

    fn handshakes(&self, result: &str) -> f64 {
        let name = format!("sentry_mirror_sdk_tls_handshakes_total{{result=\"{result}\"}}");
        self.mirror.metrics().value(&name)
    }

    fn wait_for_handshakes(&self, result: &str, count: f64) {
        wait_until(
            || self.handshakes(result) >= count,
            || format!("{result}: {}", self.handshakes(result)),
        );
        assert_eq!(self.handshakes(result), count, "{result}");
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A client over TLS.
struct TlsClient(StreamOwned<ClientConnection, TcpStream>);

impl TlsClient {
    /// Does the handshake over `stream`. With TLS 1.3 the server may refuse it later.
    fn open(config: &ClientConfig, name: &str, mut stream: TcpStream) -> io::Result<TlsClient> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut session = ClientConnection::new(Arc::new(config.clone()), name).unwrap();
        session.complete_io(&mut stream)?;
        Ok(TlsClient(StreamOwned::new(session, stream)))
    }

    /// The status of the response to a request, whose body must have arrived whole.
    fn ask(&mut self, body: &[u8]) -> io::Result<u16> {
        self.0.write_all(&request(body))?;
        self.response()
    }

    fn response(&mut self) -> io::Result<u16> {
        let mut response = Vec::new();
        let mut byte = [0];
        while !response.ends_with(b"\r\n\r\n") {
            self.0.read_exact(&mut byte)?;
            response.push(byte[0]);
        }
        let head = String::from_utf8(response).unwrap().to_lowercase();
        let length = head.split("content-length: ").nth(1).unwrap();
        let length = length.split('\r').next().unwrap().parse().unwrap();
        self.0.read_exact(&mut vec![0; length])?;
        Ok(head[9..12].parse().unwrap())
    }

    /// The certificate of the mirror.
    fn certificate(&self) -> CertificateDer<'static> {
        self.0.conn.peer_certificates().unwrap()[0].clone()
    }
}

fn request(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /api/42/store/?sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// The settings of a client without a certificate.
fn trusting(authority: &Authority, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let config = authority.client_config(versions);
    config.with_no_client_auth()
}

fn read_certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

/// The first flight of a client.
fn client_hello(config: &ClientConfig) -> Vec<u8> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut session = ClientConnection::new(Arc::new(config.clone()), name).unwrap();
    let mut hello = Vec::new();
    session.write_tls(&mut hello).unwrap();
    hello
}

#[test]
fn both_versions_are_served_by_both_drivers() {
    let authority = Authority::new();
    for driver in ["auto", "epoll"] {
        let secured = Secured::for_localhost(&authority, &format!("driver: {driver}"));
        let mut count = 0;
        for version in [&TLS12, &TLS13] {
            let mut config = trusting(&authority, &[version]);
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            let mut client = TlsClient::open(&config, "localhost", secured.connect()).unwrap();
            assert_eq!(client.0.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
            assert_eq!(client.0.conn.protocol_version(), Some(version.version));
            // Less than a record, several of them, and more than the memory of a connection.
            for size in [0, 2, 20_000, 3_000_000] {
                let body = vec![b'x'; size];
                assert_eq!(client.ask(&body).unwrap(), 200, "{driver} {size}");
                count += 1;
                let received = secured.upstream.wait_for(count);
                assert!(received[count - 1].body == body, "{driver} {size}");
            }
            // Records of all sizes, whose borders are not those of the reads.
            let body = vec![b'y'; 300_000];
            let mut rest = &request(&body)[..];
            let mut unsent_bytes = 0;
            for round in 1.. {
                let (record, more) = rest.split_at((round * 7919 % 16_384 + 1).min(rest.len()));
                client.0.conn.writer().write_all(record).unwrap();
                rest = more;
                unsent_bytes += record.len();
                if unsent_bytes > 40_000 || rest.is_empty() {
                    client.0.flush().unwrap();
                    unsent_bytes = 0;
                }
                if rest.is_empty() {
                    break;
                }
            }
            assert_eq!(client.response().unwrap(), 200);
            count += 1;
            let received = secured.upstream.wait_for(count);
            assert!(received[count - 1].body == body, "{driver}");
        }
        secured.wait_for_handshakes("done", 2.0);
    }
}

#[test]
fn the_certificate_is_that_of_the_name() {
    let authority = Authority::new();
    let sets = [
        &["localhost"][..],
        &["a.example"],
        &["*.b.example", "B.example"],
    ];
    let files = sets.map(|names| authority.server_files(names));
    let entries = files
        .each_ref()
        .map(|files| format!("{{{}}}", with_files(files)));
    let tls = format!("certificates: [{}]", entries.join(", "));
    let secured = Secured::start(&tls, "");
    let certificates = files.each_ref().map(|(cert, _)| read_certificate(cert));
    for (name, expected) in [
        ("localhost", Some(0)),
        ("a.example", Some(1)),
        ("A.EXAMPLE", Some(1)),
        ("x.b.example", Some(2)),
        ("b.example", Some(2)),
        // The client itself refuses the first one for other names.
        ("x.y.b.example", None),
        ("127.0.0.1", None),
    ] {
        let config = trusting(&authority, &[&TLS13]);
        let opened = TlsClient::open(&config, name, secured.connect());
        let found = opened.as_ref().ok().map(TlsClient::certificate);
        let expected = expected.map(|index: usize| certificates[index].clone());
        assert!(found == expected, "{name}");
    }
    secured.wait_for_handshakes("alert", 2.0);
}

#[test]
fn clients_have_to_have_a_certificate_where_it_is_required() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let files = authority.server_files(&["localhost"]);
    let client_ca = file("clients.pem", &clients.pem());
    let tls = format!(
        "{}, client_ca_file: {}",
        with_files(&files),
        client_ca.display()
    );
    let secured = Secured::start(&tls, "");
    let (mut done, mut refused, mut missing) = (0.0, 0.0, 0.0);
    for version in [&TLS12, &TLS13] {
        let with = |(cert, key): (std::path::PathBuf, std::path::PathBuf)| {
            let key = PrivateKeyDer::from_pem_file(key).unwrap();
            let config = authority.client_config(&[version]);
            let chain = vec![read_certificate(&cert)];
            config.with_client_auth_cert(chain, key).unwrap()
        };
        let ask = |config: &ClientConfig| {
            let mut client = TlsClient::open(config, "localhost", secured.connect())?;
            client.ask(b"{}")
        };
        assert_eq!(ask(&with(clients.client_files())).unwrap(), 200);
        done += 1.0;
        let error = ask(&with(Authority::new().client_files())).unwrap_err();
        assert!(
            error.to_string().contains("received fatal alert"),
            "{error}"
        );
        refused += 1.0;
        let error = ask(&trusting(&authority, &[version])).unwrap_err();
        assert!(
            error.to_string().contains("received fatal alert"),
            "{error}"
        );
        missing += 1.0;
        secured.wait_for_handshakes("done", done);
        secured.wait_for_handshakes("bad_certificate", refused);
        secured.wait_for_handshakes("no_certificate", missing);
    }
    assert_eq!(secured.upstream.received().len(), 2);
}

/// A client sends its request with the end of its handshake. Its certificates fill a small buffer, so the mirror reads
/// the rest of them, and the request, into a large one.
#[test]
fn a_request_that_comes_with_the_end_of_a_handshake_is_received_whole() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let files = with_files(&authority.server_files(&["localhost"]));
    let client_ca = file("clients-of-large-chains.pem", &clients.pem());
    let tls = format!("{files}, client_ca_file: {}", client_ca.display());
    let body = vec![b'x'; 9000];
    let request = request(&body);
    for driver in ["auto", "epoll"] {
        let secured = Secured::start(&tls, &format!("driver: {driver}"));
        let mut count = 0;
        for certificates in 1..=12 {
            let (cert, key) = clients.client_files();
            let chain = vec![read_certificate(&cert); certificates];
            let key = PrivateKeyDer::from_pem_file(key).unwrap();
            let config = authority.client_config(&[&TLS13]);
            let config = config.with_client_auth_cert(chain, key).unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            let mut session = ClientConnection::new(Arc::new(config), name).unwrap();
            let mut stream = secured.connect();
            // Kept until the handshake is done, and sent in records of their own.
            for part in request.chunks(700) {
                session.writer().write_all(part).unwrap();
            }
            session.complete_io(&mut stream).unwrap();
            let mut client = TlsClient(StreamOwned::new(session, stream));
            assert_eq!(client.response().unwrap(), 200, "{driver} {certificates}");
            count += 1;
            let received = secured.upstream.wait_for(count);
            assert!(received[count - 1].body == body, "{driver} {certificates}");
        }
    }
}

#[test]
fn what_is_no_handshake_ends_with_an_alert_and_is_counted() {
    let authority = Authority::new();
    let files = authority.server_files(&["localhost"]);
    let tls = format!("{}, min_version: 1.3", with_files(&files));
    let secured = Secured::start(&tls, "timeouts: {head: 300ms}");
    let mut h2 = trusting(&authority, &[&TLS13]);
    h2.alpn_protocols = vec![b"h2".to_vec()];
    for (config, result) in [
        (h2, "alpn"),
        (trusting(&authority, &[&TLS12]), "incompatible"),
        (trusting(&Authority::new(), &[&TLS13]), "alert"),
    ] {
        let opened = TlsClient::open(&config, "localhost", secured.connect());
        assert!(opened.is_err(), "{result}");
        secured.wait_for_handshakes(result, 1.0);
    }
    let hello = client_hello(&trusting(&authority, &[&TLS13]));
    let half = &hello[..hello.len() / 2];
    // A record of a handshake with garbage in it, and no record at all.
    let garbage = [&[22, 3, 1, 0, 8][..], &[0xff; 8]].concat();
    // Parts of a ClientHello that would have 16 MiB, and of one that has a little less than the session takes.
    let part = |length: &[u8]| [&[22, 3, 1, 64, 0, 1][..], length, &[0; 16_380]].concat();
    let huge = part(&[0xff, 0xff, 0xff]);
    let rest = [&[22, 3, 1, 64, 0][..], &[0; 16_384]].concat();
    let large = [part(&[0, 0xff, 0xf0]), rest.repeat(4)].concat();
    let mut count = 0.0;
    for (sent, is_ended, result) in [
        (&huge[..], false, "not_tls"),
        (&large[..], false, "protocol"),
        (&garbage[..], false, "not_tls"),
        (&[0, 1, 2, 3][..], false, "not_tls"),
        (half, true, "gone"),
        (half, false, "timeout"),
        (b"", false, "timeout"),
    ] {
        count = secured.handshakes(result) + 1.0;
        let mut stream = secured.connect();
        // The end may come before all is sent.
        let _ = stream.write_all(sent);
        if is_ended {
            stream.shutdown(Shutdown::Write).unwrap();
        }
        // Closed, with or without an alert or a reset.
        let _ = stream.read_to_end(&mut Vec::new());
        secured.wait_for_handshakes(result, count);
    }
    assert_eq!(count, 2.0);
    // A check that the port is open counts for nothing.
    let mut stream = secured.connect();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    secured.wait_for_handshakes("gone", 1.0);
    secured.wait_for_handshakes("done", 0.0);
    assert_eq!(secured.upstream.received().len(), 0);
}

#[test]
fn a_request_without_tls_gets_a_400() {
    let authority = Authority::new();
    let secured = Secured::for_localhost(&authority, "");
    let mut client = Client::over(secured.connect());
    let response = client.ask(&request(b"{}"));
    assert_eq!(response.status, 400);
    let expected = "plain HTTP request sent to a port for HTTPS";
    assert!(response.text().contains(expected), "{}", response.text());
    assert!(client.is_closed());
    secured.wait_for_handshakes("plain_http", 1.0);
    let rejected = "sentry_mirror_rejections_total{reason=\"plain_http\"}";
    assert_eq!(secured.mirror.metrics().value(rejected), 1.0);
    assert_eq!(secured.mirror.client().ask(&request(b"{}")).status, 200);
}

#[test]
fn a_session_is_resumed_without_early_data() {
    let authority = Authority::new();
    let secured = Secured::for_localhost(&authority, "workers: 2");
    for version in [&TLS12, &TLS13] {
        let mut config = trusting(&authority, &[version]);
        config.enable_early_data = true;
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let name = ServerName::try_from("localhost").unwrap();
            let mut session = ClientConnection::new(Arc::new(config.clone()), name).unwrap();
            assert!(session.early_data().is_none());
            let mut stream = secured.connect();
            session.complete_io(&mut stream).unwrap();
            assert_eq!(session.handshake_kind(), Some(kind));
            let mut client = TlsClient(StreamOwned::new(session, stream));
            assert_eq!(client.ask(b"{}").unwrap(), 200);
        }
    }
}

#[test]
fn other_certificates_are_used_once_their_files_are_replaced() {
    let authority = Authority::new();
    let files = authority.server_files(&["localhost"]);
    let (other_cert, other_key) = authority.server_files(&["localhost"]);
    let (third_cert, third_key) = authority.server_files(&["localhost"]);
    let upstream = Upstream::ok();
    let mut mirror = Reloadable::start(&text(&upstream, &with_files(&files), ""));
    let address = second_address(&mirror.process);
    let config = trusting(&authority, &[&TLS13]);
    let certificate = || {
        let client = TlsClient::open(&config, "localhost", connect(address));
        client.unwrap().certificate()
    };
    let mut open = TlsClient::open(&config, "localhost", connect(address)).unwrap();
    assert_eq!(certificate(), read_certificate(&files.0));
    let count = |mirror: &Process, result: &str| {
        let name =
            format!("sentry_mirror_listener_certificate_reloads_total{{result=\"{result}\"}}");
        mirror.metrics().value(&name)
    };
    // Only one of the two files: the old certificate stays.
    let old = read_certificate(&files.0);
    fs::copy(&other_cert, &files.0).unwrap();
    let line = mirror
        .process
        .wait_for_line("cannot be read again, the old ones stay in force");
    assert!(line.contains("is not the key of the certificate"), "{line}");
    assert_eq!(count(&mirror.process, "refused"), 1.0);
    assert_eq!(certificate(), old);
    // The other, by a rename: noticed without a signal.
    let renamed = files.1.with_extension("new");
    fs::copy(&other_key, &renamed).unwrap();
    fs::rename(&renamed, &files.1).unwrap();
    let new = read_certificate(&other_cert);
    wait_until(|| certificate() == new, || "not replaced".to_owned());
    assert_eq!(count(&mirror.process, "done"), 1.0);
    // At once with a signal.
    fs::copy(&third_key, &files.1).unwrap();
    fs::copy(&third_cert, &files.0).unwrap();
    let text = fs::read_to_string(&mirror.path).unwrap();
    mirror.reload(&text);
    assert_eq!(certificate(), read_certificate(&third_cert));
    assert_eq!(open.ask(b"{}").unwrap(), 200);
}

#[test]
fn half_open_handshakes_shut_nobody_out() {
    const PLACES: usize = 4;
    const FLOOD: usize = 40;
    let authority = Authority::new();
    for driver in ["auto", "epoll"] {
        let extra = format!("driver: {driver}\nworkers: 1\nlimits: {{tls_handshakes: {PLACES}}}");
        let secured = Secured::for_localhost(&authority, &extra);
        let config = trusting(&authority, &[&TLS13]);
        let mut open = TlsClient::open(&config, "localhost", secured.connect()).unwrap();
        let mut plain = secured.mirror.client();
        let hello = client_hello(&config);
        let mut flood = Vec::new();
        for index in 0..FLOOD {
            let mut stream = secured.connect();
            // A part of a ClientHello, or all of it and then nothing.
            let part = if index % 2 == 0 { hello.len() } else { 100 };
            stream.write_all(&hello[..part]).unwrap();
            flood.push(stream);
            if index % 8 == 0 {
                assert_eq!(plain.ask(&request(b"{}")).status, 200);
                assert_eq!(open.ask(b"{}").unwrap(), 200);
            }
        }
        // Those that come while all places are at work are refused.
        let given_up = || secured.handshakes("evicted") + secured.handshakes("overloaded");
        let expected = (FLOOD - PLACES) as f64;
        wait_until(
            || given_up() == expected,
            || format!("{} of {expected}", given_up()),
        );
        let evicted = secured.handshakes("evicted");
        assert!(evicted > 0.0);
        let mut new = TlsClient::open(&config, "localhost", secured.connect()).unwrap();
        assert_eq!(new.ask(b"{}").unwrap(), 200);
        secured.wait_for_handshakes("evicted", evicted + 1.0);
        secured.wait_for_handshakes("done", 2.0);
    }
}

#[test]
fn a_silent_connection_gives_its_place_to_another() {
    let authority = Authority::new();
    let secured = Secured::for_localhost(&authority, "workers: 1\nlimits: {connections: 1}");
    let mut silent = secured.connect();
    let config = trusting(&authority, &[&TLS13]);
    let mut client = TlsClient::open(&config, "localhost", secured.connect()).unwrap();
    assert_eq!(client.ask(b"{}").unwrap(), 200);
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    secured.wait_for_handshakes("evicted", 1.0);
}

#[test]
fn a_header_of_the_proxy_protocol_comes_before_the_handshake() {
    let authority = Authority::new();
    let files = authority.server_files(&["localhost"]);
    let extra = "forward_client_ip: true\nclient_address: {trusted_proxies: []}\nlisten: [{address: '127.0.0.1:0', proxy_protocol: [127.0.0.1], TLS}]";
    let secured = Secured::start(&with_files(&files), extra);
    let config = trusting(&authority, &[&TLS13]);
    let mut stream = secured.connect();
    stream
        .write_all(b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\r\n")
        .unwrap();
    let mut client = TlsClient::open(&config, "localhost", stream).unwrap();
    assert_eq!(client.ask(b"{}").unwrap(), 200);
    let received = secured.upstream.wait_for(1);
    assert_eq!(received[0].field("X-Forwarded-For"), Some("203.0.113.9"));
    // Both in one piece.
    let header = b"PROXY TCP4 203.0.113.8 10.0.0.1 4711 443\r\n";
    let mut stream = secured.connect();
    stream
        .write_all(&[header, &client_hello(&config)[..]].concat())
        .unwrap();
    let mut answer = [0];
    stream.read_exact(&mut answer).unwrap();
    // A ServerHello, in a record of a handshake.
    assert_eq!(answer, [22]);
}

#[test]
fn a_shutdown_ends_sessions_in_order_and_waits_for_no_handshake() {
    let authority = Authority::new();
    let files = authority.server_files(&["localhost"]);
    let extra = "timeouts: {head: 1h}\nlisten: [{address: '127.0.0.1:0', TLS}]";
    let secured = Secured::start(&with_files(&files), extra);
    let config = trusting(&authority, &[&TLS13]);
    let mut idle = TlsClient::open(&config, "localhost", secured.connect()).unwrap();
    assert_eq!(idle.ask(b"{}").unwrap(), 200);
    let silent = secured.connect();
    let mut half = secured.connect();
    half.write_all(&client_hello(&config)[..50]).unwrap();
    secured.mirror.signal("TERM");
    // Without the end of the session, this would be an error.
    assert_eq!(idle.0.read(&mut [0]).unwrap(), 0);
    assert!(secured.mirror.wait().0.success());
    drop(silent);
}

#[test]
fn check_shows_for_whom_and_how_long_a_certificate_is_valid() {
    let authority = Authority::new();
    let mut params =
        CertificateParams::new(vec!["a.example".to_owned(), "192.0.2.1".to_owned()]).unwrap();
    params.not_after = date_time_ymd(2100, 1, 2);
    let valid = authority.signed(&params).files();
    params.not_after = date_time_ymd(2020, 1, 2);
    let expired = authority.signed(&params).files();
    let other = authority.server_files(&["x.example"]);
    let upstream = Upstream::ok();
    for (files, is_strict, code, words) in [
        (
            &valid,
            true,
            0,
            &["for a.example, 192.0.2.1, valid until 2100-01-02T00:00:00Z\n"][..],
        ),
        (
            &expired,
            false,
            0,
            &[
                "warning: the certificate ",
                " expired at 2020-01-02T00:00:00Z",
            ],
        ),
        (&expired, true, 2, &[" expired at 2020-01-02T00:00:00Z"]),
        (
            &(valid.0.clone(), other.1.clone()),
            false,
            2,
            &[
                "listen on 127.0.0.1:0: tls.key_file ",
                "is not the key of the certificate",
            ],
        ),
        (
            &("/nowhere".into(), other.1.clone()),
            false,
            2,
            &["tls.cert_file /nowhere: "],
        ),
    ] {
        let path = file("config.yml", &text(&upstream, &with_files(files), ""));
        let mut arguments = vec!["--check", "-c", path.to_str().unwrap()];
        arguments.extend(is_strict.then_some("--strict"));
        let ended = run(&arguments);
        assert_eq!(ended.code, Some(code), "{ended:?}");
        let told = ended.stdout + &ended.stderr;
        for words in words {
            assert!(told.contains(words), "{words}: {told}");
        }
    }
    let secured = Secured::start(&with_files(&valid), "");
    let name = format!(
        "sentry_mirror_listener_certificate_expiry_timestamp_seconds{{listener=\"127.0.0.1:0\",certificate=\"{}\"}}",
        valid.0.display()
    );
    // 2100-01-02T00:00:00Z.
    assert_eq!(secured.mirror.metrics().value(&name), 4_102_531_200.0);
}
