//! The access log: one line for each request.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::documented_limits::*;
use crate::support::{
    Action, IN_KEY, KEY_A, KEY_B, PATIENCE, Process, Upstream, config, envelope, envelope_request,
    is_skipped, wait_until,
};

/// A mirror and the lines of its standard output.
fn start(outbounds: &[String], extra: &str) -> (Process, Receiver<String>) {
    let mut mirror = Process::start_with_stdout(&config(outbounds, extra), Stdio::piped());
    let stdout = mirror.take_stdout();
    (mirror, lines(stdout))
}

pub(crate) fn lines(stdout: ChildStdout) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    lines
}

pub(crate) fn next(lines: &Receiver<String>) -> String {
    lines.recv_timeout(PATIENCE).expect("a line in time")
}

/// The next line as JSON, without what differs from run to run.
fn next_json(lines: &Receiver<String>) -> Value {
    let mut line: Value = serde_json::from_str(&next(lines)).expect("JSON");
    let fields = line.as_object_mut().unwrap();
    assert!(
        fields
            .remove("at")
            .unwrap()
            .as_str()
            .unwrap()
            .ends_with('Z')
    );
    assert!(
        fields
            .remove("peer")
            .unwrap()
            .as_str()
            .unwrap()
            .starts_with("127.0.0.1:")
    );
    assert_eq!(fields.remove("client").unwrap(), "127.0.0.1");
    assert!(fields.remove("ms").unwrap().as_f64().unwrap() >= 0.0);
    fields.remove("reply_bytes");
    let request = fields.remove("request").unwrap();
    assert!(request.as_str().unwrap().contains('-'), "{request}");
    for delivery in fields["deliveries"].as_array_mut().unwrap() {
        assert!(
            delivery
                .as_object_mut()
                .unwrap()
                .remove("ms")
                .unwrap()
                .is_number()
        );
    }
    line
}

#[test]
fn a_line_is_written_when_the_last_delivery_has_ended() {
    let late = Upstream::start(|_, _| Action::Late(Duration::from_millis(300), 500, "{}"));
    let a = Upstream::ok();
    let outbounds = [a.dsn(KEY_A, 11), late.dsn(KEY_B, 22)];
    let (mirror, lines) = start(&outbounds, "access_log: json");
    let request = envelope_request(envelope("00").as_bytes());
    let mut client = mirror.client();
    assert_eq!(client.ask(&request).status, 200);
    assert_eq!(
        next_json(&lines),
        json!({
            "method": "POST", "endpoint": "envelope",
            "route": "http://0123…@mirror.example.com/42", "project": "42", "sdk": null,
            "event_id": "00", "categories": ["error"],
            "received_bytes": request.len(), "answer": "accepted", "reason": null, "status": 200,
            "deliveries": [
                {"outbound": format!("http://aaaa…@{}/11", a.address), "outcome": "2xx"},
                {"outbound": format!("http://bbbb…@{}/22", late.address), "outcome": "5xx"},
            ],
        })
    );
    client.ask(b"POST /api/42/store/ HTTP/1.1\r\nHost: m\r\nContent-Length: 0\r\n\r\n");
    let refused = next_json(&lines);
    assert_eq!(
        (&refused["answer"], &refused["reason"]),
        (&json!("rejected"), &json!("no_key"))
    );
    assert_eq!(
        (&refused["endpoint"], &refused["status"]),
        (&json!("store"), &json!(401))
    );
    client.ask(b"GET /health HTTP/1.1\r\nHost: m\r\n\r\n");
    assert_eq!(next_json(&lines)["answer"], "local");
    client.ask(b"nonsense\r\n\r\n");
    let refused = next_json(&lines);
    assert_eq!(
        (&refused["reason"], &refused["method"]),
        (&json!("head"), &Value::Null)
    );
}

#[test]
fn lines_can_be_text() {
    let a = Upstream::ok();
    let (mirror, lines) = start(&[a.dsn(KEY_A, 11)], "access_log: text");
    assert_eq!(
        mirror
            .client()
            .ask(&envelope_request(envelope("00").as_bytes()))
            .status,
        200
    );
    let line = next(&lines);
    for part in [
        "Z request=",
        " peer=127.0.0.1:",
        " client=127.0.0.1 method=POST endpoint=envelope route=http://0123…@mirror.example.com/42 project=42 event_id=00 categories=error received_bytes=",
        " answer=accepted status=200 reply_bytes=22 ms=",
        &format!(" delivery=\"http://aaaa…@{}/11 2xx ", a.address),
    ] {
        assert!(line.contains(part), "no {part:?} in {line}");
    }
}

const EVENT_ID: &str = "9ec79c33ec9942ab8353589fcb2e04dc";

/// A request whose sender calls itself `client`.
fn request_from(client: &str, path: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: m\r\nX-Sentry-Auth: Sentry sentry_key={IN_KEY}, sentry_version=7, sentry_client={client}\r\n{fields}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[test]
fn an_event_can_be_followed_by_its_id_sdk_project_and_categories() {
    let a = Upstream::ok();
    let (mirror, lines) = start(&[a.dsn(KEY_A, 11)], "access_log: json");
    let several = format!(
        "{{\"event_id\":\"{EVENT_ID}\"}}\n{{\"type\":\"transaction\"}}\n{{}}\n{{\"type\":\"session\",\"length\":2}}\n{{}}\n{{\"type\":\"transaction\"}}\n{{}}\n"
    );
    let store = format!(
        "{{\"message\":\"{}\",\"event_id\":\"{EVENT_ID}\"}}",
        "m".repeat(1000)
    );
    let attachments = format!("/api/42/events/{EVENT_ID}/attachments/");
    let mut compressed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    compressed.write_all(envelope(EVENT_ID).as_bytes()).unwrap();
    let compressed = compressed.finish().unwrap();
    let bad_id = envelope("no id \\u001b");
    for (path, fields, body, event_id, categories) in [
        (
            "/api/42/envelope/",
            "",
            several.as_bytes(),
            Some(EVENT_ID),
            json!(["transaction", "session"]),
        ),
        (
            "/api/42/store/",
            "",
            store.as_bytes(),
            Some(EVENT_ID),
            json!(["error"]),
        ),
        (
            attachments.as_str(),
            "Content-Type: multipart/form-data; boundary=b\r\n",
            b"--b--",
            Some(EVENT_ID),
            json!(["attachment"]),
        ),
        (
            "/api/42/envelope/",
            "Content-Encoding: gzip\r\n",
            &compressed,
            Some(EVENT_ID),
            json!(["error"]),
        ),
        (
            "/api/42/envelope/",
            "",
            bad_id.as_bytes(),
            None,
            json!(["error"]),
        ),
    ] {
        let request = request_from("sentry.python/2.75.0", path, fields, body);
        assert_eq!(mirror.client().ask(&request).status, 200, "{path}");
        let line = next_json(&lines);
        assert_eq!(line["event_id"].as_str(), event_id, "{line}");
        assert_eq!(line["categories"], categories, "{line}");
        assert_eq!(
            (&line["project"], &line["sdk"]),
            (&json!("42"), &json!("sentry.python/2.75.0"))
        );
    }
    // A rejected request has what is known of it.
    let request = request_from(
        "sentry.go/0.1",
        "/api/7/envelope/",
        "Content-Encoding: none\r\n",
        b"{}",
    );
    assert_eq!(mirror.client().ask(&request).status, 415);
    let line = next_json(&lines);
    assert_eq!(
        (&line["project"], &line["sdk"]),
        (&json!("7"), &json!("sentry.go/0.1"))
    );
    assert_eq!(line["event_id"], Value::Null);
}

#[test]
fn a_text_of_a_client_cannot_forge_a_field() {
    let a = Upstream::ok();
    let (mirror, lines) = start(&[a.dsn(KEY_A, 11)], "access_log: text");
    let evil = "a\\ \" status=500 event_id=00";
    let request = request_from(evil, "/api/42/envelope/", "", envelope("00").as_bytes());
    assert_eq!(mirror.client().ask(&request).status, 200);
    let line = next(&lines);
    let quoted = r#" sdk="a\\ \" status=500 event_id=00" event_id=00 categories=error "#;
    assert!(line.contains(&quoted.replace(r"\\\\", r"\\")), "{line}");
}

#[test]
fn the_id_of_a_request_ties_its_lines_together() {
    let a = Upstream::ok();
    let late = Upstream::start(|_, _| Action::Late(Duration::from_millis(100), 503, "{}"));
    let outbounds = [a.dsn(KEY_A, 11), late.dsn(KEY_B, 22)];
    let (mirror, lines) = start(
        &outbounds,
        "access_log: json\nlog_filter: debug\nworkers: 2",
    );
    let request = envelope_request(envelope("00").as_bytes());
    let mut ids = Vec::new();
    for _ in 0..3 {
        assert_eq!(mirror.client().ask(&request).status, 200);
        let line: Value = serde_json::from_str(&next(&lines)).expect("JSON");
        ids.push(line["request"].as_str().unwrap().to_owned());
    }
    mirror.signal("TERM");
    let (_, log) = mirror.wait();
    for id in ids {
        let tied = |event: &str, part: &str| {
            let of_request = log
                .iter()
                .filter(|line| line.contains(&format!("request={id} ")));
            let found = of_request.filter(|line| line.contains(event) && line.contains(part));
            assert_eq!(found.count(), 1, "{event} {part} of {id}: {log:#?}");
        };
        tied("request answered", " status=200 result=\"accepted\" ms=");
        tied("delivery ended", " outcome=\"2xx\" status=200 ms=");
        tied("delivery ended", " outcome=\"5xx\" status=503 ms=");
        tied(
            "delivery ended",
            &format!(
                " route=\"http://0123…@mirror.example.com/42\" outbound=\"http://bbbb…@{}/22\"",
                late.address
            ),
        );
    }
}

#[test]
fn the_access_log_is_off_by_default() {
    let a = Upstream::ok();
    let (mirror, lines) = start(&[a.dsn(KEY_A, 11)], "");
    assert_eq!(
        mirror
            .client()
            .ask(&envelope_request(envelope("00").as_bytes()))
            .status,
        200
    );
    mirror.signal("TERM");
    assert_eq!(mirror.wait().0.code(), Some(0));
    assert!(
        lines.recv_timeout(PATIENCE).is_err(),
        "standard output is empty and at its end"
    );
}

#[test]
fn a_full_pipe_delays_no_request_and_dropped_lines_are_counted() {
    // More than the queue and the pipe hold.
    const REQUESTS: usize = 132_000;
    let a = Upstream::ok();
    let text = config(
        &[a.dsn(KEY_A, 11)],
        "access_log: text\nadmin: {port: 0}\nworkers: 1",
    );
    // Nobody reads the other end, which stays open.
    let (_unread, writer) = std::io::pipe().unwrap();
    let mirror = Process::start_with_stdout(&text, Stdio::from(writer));
    let mut client = mirror.client();
    let mut sending = client.another_handle();
    let sent = thread::spawn(move || {
        let requests = "GET /health HTTP/1.1\r\nHost: m\r\n\r\n".repeat(1000);
        for _ in 0..REQUESTS / 1000 {
            sending.write_all(requests.as_bytes()).unwrap();
        }
    });
    for _ in 0..REQUESTS {
        assert_eq!(client.response().status, 200);
    }
    sent.join().unwrap();
    let good = envelope_request(envelope("00").as_bytes());
    assert_eq!(client.ask(&good).status, 200);
    let metrics = mirror.metrics();
    let dropped = metrics.value("sentry_mirror_access_log_dropped_total{reason=\"queue\"}");
    assert!(dropped > 1000.0 && dropped < REQUESTS as f64, "{dropped}");
}

#[test]
fn an_ipv4_client_of_a_dual_stack_port_is_logged_with_its_ipv4_address() {
    let can_run = std::net::TcpListener::bind("[::]:0").is_ok();
    if is_skipped(can_run, "IPv6") {
        return;
    }
    let a = Upstream::ok();
    let extra = "access_log: json\nlog_filter: debug\nforward_client_ip: true";
    let config = config(&[a.dsn(KEY_A, 11)], extra).replace("ip: 127.0.0.1", "ip: '::'");
    let mut mirror = Process::start_with_stdout(&config, Stdio::piped());
    let lines = lines(mirror.take_stdout());
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, mirror.address.port())).unwrap();
    let peer = stream.local_addr().unwrap().to_string();
    let body = "{}";
    let request = format!(
        "POST /api/42/store/?sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\nX-Forwarded-For: ::ffff:203.0.113.7\r\nContent-Length: {}\r\n\r\n{body}GET /nothing HTTP/1.1\r\n\r\n",
        body.len()
    );
    (&stream).write_all(request.as_bytes()).unwrap();
    let got = a.wait_for(1).remove(0);
    let addresses: Vec<_> = got
        .fields
        .iter()
        .filter(|(name, _)| name == "X-Forwarded-For")
        .map(|(_, value)| value.as_str())
        .collect();
    // What a proxy has written stays as it is.
    assert_eq!(addresses, ["::ffff:203.0.113.7", "127.0.0.1"]);
    for _ in 0..2 {
        let line: Value = serde_json::from_str(&next(&lines)).expect("JSON");
        assert_eq!(line["peer"], peer.as_str());
    }
    for event in ["connection accepted", "request rejected"] {
        let line = mirror.wait_for_line(event);
        assert!(line.contains(&format!("peer={peer}")), "{line}");
    }
}

#[test]
fn the_queue_of_lines_is_bounded_in_bytes() {
    // A line holds the name of its route, which may be long.
    const NAME_BYTES: usize = 8 * KIB;
    const REQUESTS: usize = 16_000;
    let a = Upstream::ok();
    let text = config(
        &[a.dsn(KEY_A, 11)],
        "access_log: json\nadmin: {port: 0}\nworkers: 1\nlimits: {memory_bytes: 4MiB}",
    );
    let path = "a".repeat(NAME_BYTES);
    let text = text.replace(
        "@mirror.example.com/",
        &format!("@mirror.example.com/{path}/"),
    );
    let (_unread, writer) = std::io::pipe().unwrap();
    let mirror = Process::start_with_stdout(&text, Stdio::from(writer));
    let mut client = mirror.client();
    let mut sending = client.another_handle();
    let sent = thread::spawn(move || {
        // It is rejected after its route was found, so that the line has the name of the route.
        let request = format!(
            "POST /api/42/envelope/?sentry_key={IN_KEY} HTTP/1.1\r\nHost: m\r\nContent-Encoding: none\r\nContent-Length: 0\r\n\r\n"
        );
        for _ in 0..REQUESTS / 100 {
            sending.write_all(request.repeat(100).as_bytes()).unwrap();
        }
    });
    for _ in 0..REQUESTS {
        assert_eq!(client.response().status, 415);
    }
    sent.join().unwrap();
    let bound = PROCESS_BYTES + WORKER_BYTES + ACCESS_LOG_BYTES + 4 * MIB;
    let lines_bytes = REQUESTS * NAME_BYTES;
    assert!(lines_bytes > bound, "the test shows nothing");
    let peak = mirror.peak_bytes();
    assert!(peak < bound, "{peak} of {bound} bytes");
    let metrics = mirror.metrics();
    let dropped = metrics.value("sentry_mirror_access_log_dropped_total{reason=\"queue\"}");
    assert!(dropped > 0.0 && dropped < REQUESTS as f64, "{dropped}");
}

#[test]
fn every_line_of_every_worker_is_written_by_the_end_of_the_process() {
    const CLIENTS: usize = 8;
    const REQUESTS: usize = 200;
    let a = Upstream::ok();
    let (mirror, lines) = start(&[a.dsn(KEY_A, 11)], "access_log: json\nworkers: 4");
    let health = b"GET /health HTTP/1.1\r\nHost: m\r\n\r\n";
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| mirror.client()).collect();
    for client in &mut clients {
        client.send(&health.repeat(REQUESTS));
    }
    for client in &mut clients {
        for _ in 0..REQUESTS {
            assert_eq!(client.response().status, 200);
        }
    }
    mirror.signal("TERM");
    let (status, _) = mirror.wait();
    assert_eq!(status.code(), Some(0));
    let written = lines.iter().inspect(|line| {
        let line: Value = serde_json::from_str(line).expect("a whole line");
        assert_eq!(line["answer"], "local");
    });
    assert_eq!(written.count(), CLIENTS * REQUESTS);
}

#[test]
fn lines_that_cannot_be_written_are_counted_and_logged_once() {
    let a = Upstream::ok();
    let text = config(
        &[a.dsn(KEY_A, 11)],
        "access_log: text\nadmin: {port: 0}\nworkers: 1",
    );
    let (reader, writer) = std::io::pipe().unwrap();
    let mirror = Process::start_with_stdout(&text, Stdio::from(writer));
    drop(reader);
    let lost = || {
        let metrics = mirror.metrics();
        metrics.value("sentry_mirror_access_log_dropped_total{reason=\"write\"}")
    };
    for sent in 1..=5 {
        let health = b"GET /health HTTP/1.1\r\nHost: m\r\n\r\n";
        assert_eq!(mirror.client().ask(health).status, 200);
        wait_until(|| lost() == f64::from(sent), || lost().to_string());
    }
    mirror.wait_for_line("cannot write the access log");
    mirror.signal("TERM");
    let (status, log) = mirror.wait();
    assert_eq!(status.code(), Some(0));
    let logged: Vec<_> = log
        .iter()
        .filter(|line| line.contains("cannot write the access log"))
        .collect();
    assert_eq!(logged.len(), 1, "{log:?}");
    assert!(logged[0].contains("Broken pipe"), "{logged:?}");
}
