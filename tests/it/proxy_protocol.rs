//! Listeners whose connections begin with a header of the PROXY protocol.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Stdio;
use std::sync::mpsc::Receiver;

use serde_json::Value;

use crate::support::{Client, IN_KEY, KEY_A, PATIENCE, Process, Upstream, config, wait_until};

/// A mirror with a second listener that speaks the protocol, and its access log.
struct Proxied {
    mirror: Process,
    address: SocketAddr,
    lines: Receiver<String>,
    upstream: Upstream,
}

impl Proxied {
    fn start(trusted: &str, extra: &str) -> Proxied {
        let upstream = Upstream::ok();
        let extra = format!(
            "{extra}\naccess_log: json\nadmin: {{port: 0}}\nforward_client_ip: true\nclient_address: {{trusted_proxies: []}}\nlisten: [{{address: '127.0.0.1:0', proxy_protocol: [{trusted}]}}]"
        );
        let text = config(&[upstream.dsn(KEY_A, 11)], &extra);
        let mut mirror = Process::start_with_stdout(&text, Stdio::piped());
        let lines = crate::access_log::lines(mirror.take_stdout());
        let line = mirror.wait_for_line(", too");
        let address = line.split("listening on ").nth(1).unwrap();
        let address = address.split(',').next().unwrap().parse().unwrap();
        Proxied {
            mirror,
            address,
            lines,
            upstream,
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// The number of connections closed for a reason.
    fn closed(&self, reason: &str) -> f64 {
        let name = format!("sentry_mirror_sdk_connections_closed_total{{reason=\"{reason}\"}}");
        self.mirror.metrics().value(&name)
    }

    /// The peer of the next request in the access log.
    fn next_peer(&self) -> String {
        let line: Value = serde_json::from_str(&crate::access_log::next(&self.lines)).unwrap();
        line["peer"].as_str().unwrap().to_owned()
    }
}

fn request() -> Vec<u8> {
    format!(
        "POST /api/42/store/?sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\nX-Forwarded-For: 198.51.100.1\r\nContent-Length: 2\r\n\r\n{{}}"
    )
    .into_bytes()
}

/// A header of version 2 for a client at 203.0.113.9:4711, with an extension.
fn version_2(command: u8) -> Vec<u8> {
    let addresses = [203, 0, 113, 9, 10, 0, 0, 1, 0x12, 0x67, 0x01, 0xbb];
    let extension = [0x05, 0, 2, b'i', b'd'];
    let fixed = [command, 0x11, 0, 17];
    [
        b"\r\n\r\n\0\r\nQUIT\n".as_slice(),
        &fixed,
        &addresses,
        &extension,
    ]
    .concat()
}

#[test]
fn the_header_names_the_client_of_all_requests_that_follow() {
    let proxied = Proxied::start("127.0.0.0/8", "");
    let own = "127.0.0.1:";
    for (header, peer, sent) in [
        (version_2(0x21), "203.0.113.9:4711", "203.0.113.9"),
        (
            b"PROXY TCP6 2001:db8::9 ::1 4711 443\r\n".to_vec(),
            "[2001:db8::9]:4711",
            "2001:db8::9",
        ),
        (
            b"PROXY TCP6 ::ffff:203.0.113.9 ::1 4711 443\r\n".to_vec(),
            "203.0.113.9:4711",
            "203.0.113.9",
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), own, "127.0.0.1"),
        (version_2(0x20), own, "127.0.0.1"),
    ] {
        // The header alone, together with a request, and in single bytes.
        for piece in [header.len(), header.len() + 20, 1] {
            let mut stream = proxied.connect();
            stream.set_nodelay(true).unwrap();
            let before = proxied.upstream.received().len();
            for bytes in [&header[..], &request()].concat().chunks(piece) {
                stream.write_all(bytes).unwrap();
            }
            let mut client = Client::over(stream);
            assert_eq!(client.response().status, 200);
            assert_eq!(client.ask(&request()).status, 200);
            for got in &proxied.upstream.wait_for(before + 2)[before..] {
                assert_eq!(got.field("X-Forwarded-For"), Some(sent));
            }
            for _ in 0..2 {
                let found = proxied.next_peer();
                assert!(found.starts_with(peer), "{found} {peer}");
            }
        }
    }
    assert_eq!(proxied.closed("proxy_header"), 0.0);
    // The first listener does not speak it.
    let mut plain = proxied.mirror.client();
    assert_eq!(plain.ask(b"PROXY UNKNOWN\r\n\r\n").status, 400);
}

#[test]
fn what_is_no_header_is_closed_and_counted() {
    let proxied = Proxied::start("127.0.0.1", "timeouts: {head: 100ms}");
    let too_long = [&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat();
    let starts: [&[u8]; 5] = [
        &request(),
        b"PROXY TCP4 1\r\n",
        &too_long,
        b"PROXY TCP4 ",
        b"",
    ];
    let mut count = 0.0;
    for start in starts {
        let mut stream = proxied.connect();
        stream.write_all(start).unwrap();
        // Closed, with or without a reset.
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply);
        assert_eq!(reply, b"");
        count += 1.0;
        wait_until(
            || proxied.closed("proxy_header") == count,
            || "not counted".to_owned(),
        );
    }
    // Half a header and the end, and a connection that sends nothing.
    for (start, more) in [(&b"PROXY"[..], 1.0), (b"", 0.0)] {
        let mut stream = proxied.connect();
        stream.write_all(start).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
        count += more;
        wait_until(
            || proxied.closed("proxy_header") == count,
            || "not counted".to_owned(),
        );
    }
    assert_eq!(proxied.upstream.received().len(), 0);
}

#[test]
fn connections_from_elsewhere_are_closed_and_counted() {
    let proxied = Proxied::start("10.0.0.0/8", "");
    let mut stream = proxied.connect();
    // It may be closed already.
    let _ = stream.write_all(&version_2(0x21));
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply);
    assert_eq!(reply, b"");
    wait_until(
        || proxied.closed("untrusted_proxy") == 1.0,
        || "not counted".to_owned(),
    );
}

#[test]
fn the_limit_per_peer_counts_clients_and_not_their_proxy() {
    let proxied = Proxied::start("127.0.0.1", "limits: {connections_per_peer: 1}\nworkers: 1");
    let connect = |client: u8| {
        let mut stream = proxied.connect();
        let header = format!("PROXY TCP4 203.0.113.{client} 10.0.0.1 1 443\r\n");
        stream.write_all(header.as_bytes()).unwrap();
        stream.write_all(&request()).unwrap();
        stream
    };
    let mut first = Client::over(connect(1));
    let mut second = Client::over(connect(2));
    assert_eq!(first.response().status, 200);
    assert_eq!(second.response().status, 200);
    let mut reply = Vec::new();
    let _ = connect(1).read_to_end(&mut reply);
    assert_eq!(reply, b"");
    wait_until(
        || proxied.closed("connections_per_peer") == 1.0,
        || "not counted".to_owned(),
    );
    drop(first);
    let is_served = || {
        let mut reply = [0; 12];
        let read = connect(1).read_exact(&mut reply);
        read.is_ok() && reply == *b"HTTP/1.1 200"
    };
    wait_until(is_served, || "the place is not free".to_owned());
}
