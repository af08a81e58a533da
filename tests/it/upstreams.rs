//! Upstreams that are pooled, stale, dead, slow or malformed.

use crate::support::{
    Action, KEY_A, KEY_B, Process, Upstream, config, deaf, envelope, envelope_request, wait_until,
};

const ID: &str = "9ec79c33ec9942ab8353589fcb2e04dc";

fn request() -> Vec<u8> {
    envelope_request(envelope(ID).as_bytes())
}

fn mirror(upstream: &Upstream, extra: &str) -> Process {
    Process::start(&config(&[upstream.dsn(KEY_A, 11)], extra))
}

fn raw(text: &str) -> Action {
    Action::Raw(text.as_bytes().to_vec())
}

#[test]
fn a_connection_is_reused() {
    let upstream = Upstream::ok();
    let mirror = mirror(&upstream, "workers: 1");
    let mut client = mirror.client();
    for _ in 0..20 {
        assert_eq!(client.ask(&request()).status, 200);
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_connection_with_a_doubtful_response_is_not_reused() {
    for response in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nleft over",
        "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
    ] {
        let upstream = Upstream::start(move |_, _| raw(response));
        let mirror = mirror(&upstream, "workers: 1");
        let mut client = mirror.client();
        for _ in 0..3 {
            assert_ne!(client.ask(&request()).text(), "poison");
        }
        assert_eq!(upstream.connections(), 3, "{response:?}");
    }
}

#[test]
fn a_connection_that_the_upstream_closed_is_replaced_without_loss() {
    // It closes after each response without notice, like a server after its idle timeout.
    let upstream = Upstream::start(|_, _| {
        Action::RawAndClose(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".to_vec())
    });
    let mirror = mirror(&upstream, "workers: 1");
    let mut client = mirror.client();
    for _ in 0..30 {
        assert_eq!(client.ask(&request()).text(), "{}");
    }
    assert_eq!(upstream.received().len(), 30);
}

#[test]
fn a_reused_connection_that_dies_before_a_byte_of_the_answer_is_retried_once() {
    let upstream = Upstream::start(|number, _| match number {
        1 => Action::Close,
        _ => Action::ok(),
    });
    let mirror = mirror(&upstream, "workers: 1");
    let mut client = mirror.client();
    assert_eq!(client.ask(&request()).status, 200);
    assert_eq!(client.ask(&request()).status, 200);
    assert_eq!(upstream.received().len(), 3);
    assert_eq!(upstream.connections(), 2);
}

const GIVES_UP: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

#[test]
fn a_request_that_races_the_close_of_an_idle_connection_is_sent_again() {
    let upstream = Upstream::start(|number, _| match number {
        1 => Action::RawAndClose(GIVES_UP.to_vec()),
        _ => Action::ok(),
    });
    let mirror = mirror(&upstream, "workers: 1\nadmin: {port: 0}");
    let mut client = mirror.client();
    assert_eq!(client.ask(&request()).status, 200);
    assert_eq!(client.ask(&request()).status, 200);
    assert_eq!(upstream.received().len(), 3);
    assert_eq!(upstream.connections(), 2);
    let retries = mirror
        .metrics()
        .sum("sentry_mirror_upstream_retries_total", &[]);
    assert_eq!(retries, 1.0);
}

#[test]
fn a_408_is_retried_once_and_only_when_it_closes_a_reused_connection() {
    let keeps = || raw("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n");
    let upstream = Upstream::start(move |number, _| match number {
        // The first, on a fresh connection.
        0 => Action::RawAndClose(GIVES_UP.to_vec()),
        1 => Action::ok(),
        // The next two are one delivery.
        2 | 3 => Action::RawAndClose(GIVES_UP.to_vec()),
        4 => Action::ok(),
        5 => keeps(),
        _ => Action::ok(),
    });
    let mirror = mirror(&upstream, "workers: 1");
    let mut client = mirror.client();
    for (status, received) in [(408, 1), (200, 2), (408, 4), (200, 5), (408, 6), (200, 7)] {
        assert_eq!(client.ask(&request()).status, status, "{received}");
        assert_eq!(upstream.received().len(), received);
    }
}

#[test]
fn the_rest_of_an_earlier_response_does_not_harm_a_later_request() {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for number in 0.. {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4000];
            assert!(stream.read(&mut request).unwrap() > 0);
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                .unwrap();
            if number == 0 {
                // After the whole response it sends more when the next request arrives.
                assert!(stream.read(&mut request).unwrap() > 0);
                stream.write_all(b"\r\n{\"more\":1}").unwrap();
            }
        }
    });
    let mirror = Process::start(&config(
        &[format!("http://{KEY_A}@{address}/11")],
        "workers: 1",
    ));
    let mut client = mirror.client();
    for _ in 0..2 {
        assert_eq!(client.ask(&request()).status, 200);
    }
}

#[test]
fn a_fresh_connection_that_dies_is_not_retried() {
    let upstream = Upstream::start(|_, _| Action::Close);
    let mirror = mirror(&upstream, "");
    assert_eq!(mirror.client().ask(&request()).status, 503);
    assert_eq!(upstream.received().len(), 1);
}

#[test]
fn a_truncated_response_is_not_retried() {
    let upstream = Upstream::start(|number, _| match number {
        0 => Action::ok(),
        _ => Action::RawAndClose(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf".to_vec()),
    });
    let mirror = mirror(&upstream, "workers: 1");
    let mut client = mirror.client();
    assert_eq!(client.ask(&request()).status, 200);
    assert_eq!(client.ask(&request()).status, 503);
    assert_eq!(upstream.received().len(), 2);
}

#[test]
fn every_form_of_a_response_is_parsed() {
    let cases = [
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=1\r\n{\"\r\n5\r\na\":1}\r\n0\r\nT: 1\r\n\r\n",
            r#"{"a":1}"#,
        ),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
            "{}",
        ),
        ("HTTP/1.1 200\r\nContent-Length: 2\r\n\r\n{}", "{}"),
    ];
    for (response, expected) in cases {
        let upstream = Upstream::start(move |_, _| raw(response));
        let mirror = mirror(&upstream, "");
        let mut client = mirror.client();
        for _ in 0..2 {
            let got = client.ask(&request());
            assert_eq!((got.status, got.text()), (200, expected), "{response:?}");
        }
    }
    let upstream =
        Upstream::start(|_, _| Action::RawAndClose(b"HTTP/1.1 200 OK\r\n\r\n{\"to\":1}".to_vec()));
    let got = mirror(&upstream, "").client().ask(&request());
    assert_eq!((got.status, got.text()), (200, r#"{"to":1}"#));
}

#[test]
fn an_invalid_response_counts_as_no_response() {
    let too_large = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
        100 * 1024 * 1024
    );
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (response, outcome) in [
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n", "malformed"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "malformed",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
            "malformed",
        ),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n", "malformed"),
        (&format!("{chunked}zz\r\n"), "malformed"),
        (&format!("{chunked}fffffff\r\n"), "too_large"),
        (&too_large, "too_large"),
    ] {
        let bytes = response.as_bytes().to_vec();
        let upstream = Upstream::start(move |_, _| Action::Raw(bytes.clone()));
        let mirror = mirror(&upstream, "");
        let got = mirror.client().ask(&request());
        assert_eq!(got.status, 503, "{response:?}");
        mirror.signal("TERM");
        let totals = mirror.wait_for_line("stopped: ");
        let counted = format!("delivered {outcome} 1");
        assert!(totals.contains(&counted), "{response:?}: {totals}");
    }
    // A body that ends with the connection, and arrives all at once.
    let long = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(2000));
    let upstream = Upstream::start(move |_, _| Action::RawAndClose(long.clone().into_bytes()));
    let got = mirror(&upstream, "limits: {response_bytes: 1KiB}")
        .client()
        .ask(&request());
    assert_eq!(got.status, 503);
}

#[test]
fn after_a_timeout_a_late_response_never_answers_another_request() {
    // The first request is answered after its timeout.
    let upstream = Upstream::start(|number, _| match number {
        0 => Action::Late(
            std::time::Duration::from_millis(400),
            200,
            r#"{"id":"of the first"}"#,
        ),
        _ => Action::Answer(200, r#"{"id":"of a later one"}"#),
    });
    let mirror = mirror(&upstream, "workers: 1\ntimeouts: {exchange: 150ms}");
    let mut client = mirror.client();
    assert_eq!(client.ask(&request()).status, 503);
    for _ in 0..5 {
        assert_eq!(client.ask(&request()).text(), r#"{"id":"of a later one"}"#);
    }
}

#[test]
fn a_refused_connection_is_logged_once_as_refused() {
    let (_socket, address) = deaf();
    let b = Upstream::ok();
    let mirror = Process::start(&config(
        &[format!("http://{KEY_A}@{address}/11"), b.dsn(KEY_B, 22)],
        "",
    ));
    let mut client = mirror.client();
    for _ in 0..10 {
        assert_eq!(client.ask(&request()).status, 200);
    }
    let line = mirror.wait_for_line("upstream does not answer");
    assert!(line.contains("refused"), "{line}");
    assert_eq!(b.wait_for(10).len(), 10);
    let lines = mirror.log();
    let told = lines
        .iter()
        .filter(|line| line.contains("upstream does not answer"));
    assert_eq!(told.count(), 1);
}

#[test]
fn an_upstream_that_comes_back_is_logged_and_used() {
    let upstream = Upstream::start(|number, _| match number {
        0 => Action::Close,
        _ => Action::ok(),
    });
    let mirror = mirror(&upstream, "");
    let mut client = mirror.client();
    assert_eq!(client.ask(&request()).status, 503);
    mirror.wait_for_line("upstream does not answer");
    // A change that follows too soon is logged later, if it still holds then.
    let is_logged = || {
        let log = mirror.log();
        log.iter()
            .any(|line| line.contains("upstream is answering again"))
    };
    wait_until(
        || {
            assert_eq!(client.ask(&request()).status, 200);
            is_logged()
        },
        || mirror.log().join("\n"),
    );
}

#[test]
fn a_response_before_the_end_of_the_body_is_read() {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; 1000];
        let read = stream.read(&mut head).unwrap();
        assert!(read > 0);
        stream
            .write_all(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        // Keep reading, so that no reset overtakes the response.
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let mirror = Process::start(&config(&[format!("http://{KEY_A}@{address}/11")], ""));
    let mut body = envelope(ID).into_bytes();
    body.resize(8_000_000, b'x');
    assert_eq!(mirror.client().ask(&envelope_request(&body)).status, 413);
}

#[test]
fn a_response_is_read_although_the_upstream_neither_reads_on_nor_closes() {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(&mut [0; 1000]).unwrap() > 0);
        stream
            .write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
        // The second request must not use the connection with the unfinished body.
        let (mut other, _) = listener.accept().unwrap();
        assert!(other.read(&mut [0; 1000]).unwrap() > 0);
        other
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            .unwrap();
        (stream, other)
    });
    let mirror = Process::start(&config(
        &[format!("http://{KEY_A}@{address}/11")],
        "workers: 1\nreply_timeout: 15s\n",
    ));
    let mut client = mirror.client();
    let mut body = envelope(ID).into_bytes();
    body.resize(20_000_000, b'x');
    assert_eq!(client.ask(&envelope_request(&body)).status, 413);
    assert_eq!(client.ask(&request()).status, 200);
    answering.join().unwrap();
}

#[test]
fn a_host_name_is_resolved_and_a_failure_is_logged() {
    let upstream = Upstream::ok();
    let port = upstream.address.port();
    let mirror = Process::start(&config(
        &[
            format!("http://{KEY_A}@localhost:{port}/11"),
            format!("http://{KEY_B}@does-not-exist.invalid:{port}/22"),
        ],
        "",
    ));
    mirror.wait_for_line("host cannot be resolved");
    assert_eq!(mirror.client().ask(&request()).status, 200);
    let got = upstream.wait_for(1).remove(0);
    assert_eq!(got.field("Host"), Some(&*format!("localhost:{port}")));
}

#[test]
fn deliveries_over_the_limit_are_dropped_and_counted_without_harm_to_other_outbounds() {
    let a = Upstream::start(|_, _| Action::Hang);
    let b = Upstream::ok();
    let mirror = Process::start(&config(
        &[a.dsn(KEY_A, 11), b.dsn(KEY_B, 22)],
        "workers: 1\nreply_timeout: 20ms\nlimits: {in_flight: 4}\ntimeouts: {drain: 100ms}",
    ));
    let mut client = mirror.client();
    for _ in 0..10 {
        assert_eq!(client.ask(&request()).status, 200);
    }
    assert_eq!(b.wait_for(10).len(), 10);
    assert_eq!(a.received().len(), 4);
    mirror.signal("TERM");
    let (status, log) = mirror.wait();
    assert!(status.success());
    let totals = log.iter().find(|line| line.contains("stopped: ")).unwrap();
    assert!(totals.contains("delivered 2xx 10"), "{totals}");
    assert!(totals.contains("delivered overloaded 6"), "{totals}");
}

#[test]
fn an_outbound_that_refuses_everything_is_logged_once() {
    let a = Upstream::ok();
    let b = Upstream::start(|_, _| {
        Action::Raw(
            b"HTTP/1.1 403 X\r\nX-Sentry-Error: unknown key\r\nContent-Length: 0\r\n\r\n".to_vec(),
        )
    });
    let mirror = Process::start(&config(&[a.dsn(KEY_A, 11), b.dsn(KEY_B, 22)], ""));
    let mut client = mirror.client();
    for _ in 0..10 {
        assert_eq!(client.ask(&request()).status, 200);
    }
    let line = mirror.wait_for_line("outbound is rejecting requests");
    assert!(
        line.contains("403") && line.contains("unknown key"),
        "{line}"
    );
    assert!(line.contains("bbbb…") && !line.contains(KEY_B), "{line}");
    b.wait_for(10);
    let lines = mirror.log();
    let logged = lines.iter().filter(|line| line.contains("is rejecting"));
    assert_eq!(logged.count(), 1);
}
