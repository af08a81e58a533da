//! Records of all sizes and kinds after the handshake.

use std::io::{Read, Write};

use rustls::version::{TLS12, TLS13};

use super::{Secured, TlsClient, request, trusting};
use crate::support::documented_limits::CONNECTION_BYTES;
use crate::support::tls::Authority;
use crate::support::wait_until;

/// Some clients write a JSON text token by token. A record of one byte has 22 bytes around it.
#[test]
fn records_of_one_byte_are_served() {
    let authority = Authority::new();
    let body = vec![b'x'; 40_000];
    for driver in ["auto", "epoll"] {
        let secured = Secured::for_localhost(&authority, &format!("driver: {driver}"));
        let mut count = 0;
        for version in [&TLS12, &TLS13] {
            let config = trusting(&authority, &[version]);
            let mut client = TlsClient::open(&config, "localhost", secured.connect()).unwrap();
            for part in request(&body).chunks(1000) {
                for byte in part.chunks(1) {
                    client.0.conn.writer().write_all(byte).unwrap();
                }
                client.0.flush().unwrap();
            }
            assert_eq!(client.response().unwrap(), 200, "{driver}");
            count += 1;
            let received = secured.upstream.wait_for(count);
            assert!(received[count - 1].body == body, "{driver}");
        }
    }
}

/// Records end elsewhere than reads, so a buffer may have to grow in the midst of one.
#[test]
fn the_memory_of_a_body_is_counted() {
    const BODY_BYTES: usize = 3_000_000;
    const STEP_BYTES: usize = 250_000;
    let authority = Authority::new();
    for driver in ["auto", "epoll"] {
        let secured = Secured::for_localhost(&authority, &format!("driver: {driver}"));
        let config = trusting(&authority, &[&TLS13]);
        let mut client = TlsClient::open(&config, "localhost", secured.connect()).unwrap();
        let request = request(&vec![b'x'; BODY_BYTES]);
        let mut sent_bytes = 0.0;
        for part in request[..BODY_BYTES].chunks(STEP_BYTES) {
            client.0.write_all(part).unwrap();
            client.0.flush().unwrap();
            sent_bytes += part.len() as f64;
            let received = || {
                let metrics = secured.mirror.metrics();
                let received_bytes = metrics.value("sentry_mirror_received_bytes_total");
                let held_bytes = metrics.value("sentry_mirror_request_memory_bytes");
                (received_bytes, held_bytes)
            };
            let is_counted = || received().0 == sent_bytes && received().1 >= sent_bytes;
            wait_until(is_counted, || format!("{:?} of {sent_bytes}", received()));
        }
        client.0.write_all(&request[BODY_BYTES..]).unwrap();
        assert_eq!(client.response().unwrap(), 200);
    }
}

/// The session keeps the buffer for a record of 16 KiB until it reads again.
#[test]
fn a_large_request_leaves_no_large_buffer_behind() {
    const CONNECTIONS: usize = 300;
    let authority = Authority::new();
    for driver in ["auto", "epoll"] {
        let extra = format!("driver: {driver}\nworkers: 1");
        let secured = Secured::for_localhost(&authority, &extra);
        let config = trusting(&authority, &[&TLS13]);
        let body = vec![b'x'; 100_000];
        let idle = |count: usize| {
            let clients = (0..count).map(|_| {
                let mut client = TlsClient::open(&config, "localhost", secured.connect()).unwrap();
                assert_eq!(client.ask(&body).unwrap(), 200);
                client
            });
            clients.collect::<Vec<_>>()
        };
        let _first = idle(20);
        let bytes_before = secured.mirror.resident_bytes();
        let _rest = idle(CONNECTIONS);
        let bytes = secured.mirror.resident_bytes().saturating_sub(bytes_before) / CONNECTIONS;
        assert!(bytes < CONNECTION_BYTES, "{driver}: {bytes} each");
    }
}

#[test]
fn the_end_of_a_session_is_answered() {
    let authority = Authority::new();
    for driver in ["auto", "epoll"] {
        let secured = Secured::for_localhost(&authority, &format!("driver: {driver}"));
        for version in [&TLS12, &TLS13] {
            let config = trusting(&authority, &[version]);
            let mut client = TlsClient::open(&config, "localhost", secured.connect()).unwrap();
            assert_eq!(client.ask(b"{}").unwrap(), 200);
            // A response may still be on its way.
            client.0.write_all(&request(b"{}")).unwrap();
            client.0.conn.send_close_notify();
            client.0.flush().unwrap();
            assert_eq!(client.response().unwrap(), 200);
            // Without the end of the session, this would be an error.
            assert_eq!(client.0.read(&mut [0]).unwrap(), 0, "{driver}");
        }
        assert_eq!(violations(&secured), 0.0);
    }
}

fn violations(secured: &Secured) -> f64 {
    let name = "sentry_mirror_sdk_connections_closed_total{reason=\"tls\"}";
    secured.mirror.metrics().value(name)
}

#[test]
fn violations_after_the_handshake_are_counted() {
    let authority = Authority::new();
    for driver in ["auto", "epoll"] {
        let secured = Secured::for_localhost(&authority, &format!("driver: {driver}"));
        let mut count = 0.0;
        for version in [&TLS12, &TLS13] {
            let config = trusting(&authority, &[version]);
            let open = || TlsClient::open(&config, "localhost", secured.connect()).unwrap();
            // A record with the wrong key, between two requests and in a body.
            let record = [&[23, 3, 3, 0, 32][..], &[0xff; 32]].concat();
            for sent in [&b""[..], &request(&[b'x'; 1000])[..500]] {
                let mut client = open();
                assert_eq!(client.ask(b"{}").unwrap(), 200);
                client.0.write_all(sent).unwrap();
                client.0.flush().unwrap();
                client.0.sock.write_all(&record).unwrap();
                let error = client.0.read(&mut [0]).unwrap_err();
                assert!(error.to_string().contains("alert: BadRecordMac"), "{error}");
                count += 1.0;
            }
            // A client that breaks off is none.
            let mut client = open();
            client.0.write_all(&request(&[b'x'; 1000])[..500]).unwrap();
            client.0.flush().unwrap();
        }
        let is_counted = || violations(&secured) == count;
        wait_until(is_counted, || {
            format!("{} of {count}", violations(&secured))
        });
    }
}

/// An update of a key costs the mirror as much as some hundred bytes, and an answer.
#[test]
fn keys_may_be_updated_often_but_not_in_a_row() {
    let authority = Authority::new();
    for driver in ["auto", "epoll"] {
        let secured = Secured::for_localhost(&authority, &format!("driver: {driver}"));
        let config = trusting(&authority, &[&TLS13]);
        let mut client = TlsClient::open(&config, "localhost", secured.connect()).unwrap();
        let body = vec![b'x'; 3000];
        for part in request(&body).chunks(10) {
            client.0.conn.refresh_traffic_keys().unwrap();
            client.0.write_all(part).unwrap();
            client.0.flush().unwrap();
        }
        assert_eq!(client.response().unwrap(), 200);
        assert!(secured.upstream.wait_for(1)[0].body == body);
        // When idle they do no harm.
        for _ in 0..30 {
            client.0.conn.refresh_traffic_keys().unwrap();
        }
        assert_eq!(client.ask(b"{}").unwrap(), 200);
        for _ in 0..50 {
            client.0.conn.refresh_traffic_keys().unwrap();
        }
        let _ = client.0.flush();
        let error = client.ask(b"{}");
        assert!(error.is_err(), "{error:?}");
        wait_until(|| violations(&secured) == 1.0, || "not counted".to_owned());
    }
}
