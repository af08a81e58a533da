//! The pages for operators: their contents, and that clients cannot block them.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::bufread::GzDecoder;

use crate::support::process::{ask, file, run};
use crate::support::{
    Action, Client, IN_KEY, KEY_A, KEY_B, PATIENCE, Process, Upstream, config, deaf, envelope,
    envelope_request, wait_until,
};

fn with_admin(outbounds: &[String], extra: &str) -> Process {
    Process::start(&config(outbounds, &format!("admin: {{port: 0}}\n{extra}")))
}

fn good() -> Vec<u8> {
    envelope_request(envelope("00").as_bytes())
}

/// The text between two words, and what comes after.
fn between<'t>(text: &'t str, begin: &str, end: &str) -> (&'t str, &'t str) {
    let (_, rest) = text.split_once(begin).unwrap();
    rest.split_once(end).unwrap()
}

#[test]
fn the_page_may_run_its_own_script_and_nothing_else() {
    let upstream = Upstream::ok();
    let mirror = with_admin(&[upstream.dsn(KEY_A, 11)], "");
    let page = mirror.page("/");
    let policy = page.field("Content-Security-Policy").unwrap();
    let html = String::from_utf8(page.body.clone()).unwrap();
    let (style, rest) = between(&html, "<style>", "</style>");
    let (script, rest) = between(rest, "<script>", "</script>");
    assert!(!rest.contains("<script"), "{rest}");
    let hash = |text: &str| STANDARD.encode(digest(&SHA256, text.as_bytes()));
    assert_eq!(
        policy,
        format!(
            "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'",
            hash(style),
            hash(script)
        )
    );
    for path in ["/status", "/metrics", "/config", "/health", "/unknown"] {
        let policy = mirror.page(path);
        let policy = policy.field("Content-Security-Policy");
        assert_eq!(policy, Some("default-src 'none'"), "{path}");
    }
}

#[test]
fn every_page_has_its_content_type() {
    let upstream = Upstream::ok();
    let mirror = with_admin(&[upstream.dsn(KEY_A, 11)], "");
    for (path, content_type, begin) in [
        ("/", "text/html; charset=utf-8", "<!doctype html>"),
        ("/health", "text/plain; charset=utf-8", "ok\n"),
        ("/ready", "text/plain; charset=utf-8", "ready\n"),
        ("/ready?verbose", "text/plain; charset=utf-8", "ready\n"),
        ("/status", "application/json", "{"),
        ("/config", "text/plain; charset=utf-8", "ip: 127.0.0.1\n"),
        (
            "/metrics",
            "text/plain; version=0.0.4; charset=utf-8",
            "# HELP sentry_mirror_build_info ",
        ),
    ] {
        let page = mirror.page(path);
        assert_eq!(page.status, 200, "{path}");
        assert_eq!(page.field("Content-Type"), Some(content_type), "{path}");
        assert!(page.text().starts_with(begin), "{path}: {}", page.text());
    }
    let page = mirror.page("http://elsewhere.example/ready?verbose");
    assert_eq!((page.status, page.text()), (200, "ready\n"));
    assert_eq!(mirror.page("/nothing").status, 404);
    let accept = "Accept: application/openmetrics-text;version=1.0.0\r\n";
    let request = format!("GET /metrics HTTP/1.1\r\nHost: m\r\n{accept}\r\n");
    let page = ask(mirror.admin_address(), &request);
    assert!(
        page.field("Content-Type")
            .unwrap()
            .starts_with("application/openmetrics-text")
    );
    assert!(page.text().ends_with("# EOF\n"));
    let refused = ask(mirror.admin_address(), "POST / HTTP/1.1\r\nHost: m\r\n\r\n");
    assert_eq!(
        (refused.status, refused.field("Allow")),
        (405, Some("GET, HEAD"))
    );
    let mut client = Client::connect(mirror.admin_address());
    client.send(b"HEAD /status HTTP/1.1\r\nHost: m\r\n\r\n");
    assert_ne!(client.response_head().field("Content-Length"), Some("0"));
    assert!(client.is_closed());
    // The port for SDKs serves none of these.
    for path in ["/metrics", "/status", "/config", "/ready", "/"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: m\r\n\r\n");
        assert_eq!(
            mirror.client().ask(request.as_bytes()).status,
            404,
            "{path}"
        );
    }
}

#[test]
fn long_pages_are_compressed_for_clients_that_take_it() {
    let upstream = Upstream::ok();
    let mirror = with_admin(&[upstream.dsn(KEY_A, 11)], "");
    for (path, begin, end) in [
        ("/metrics", "# HELP sentry_mirror_build_info ", "\n"),
        ("/status", "{", "}"),
        ("/hours", "{", "}"),
    ] {
        let plain = mirror.page(path);
        assert_eq!(plain.field("Content-Encoding"), None, "{path}");
        let coding = "Accept-Encoding: deflate, gzip;q=0.5\r\n";
        let request = format!("GET {path} HTTP/1.1\r\nHost: m\r\n{coding}\r\n");
        let page = ask(mirror.admin_address(), &request);
        assert_eq!(page.field("Content-Encoding"), Some("gzip"), "{path}");
        let mut text = String::new();
        GzDecoder::new(&page.body[..])
            .read_to_string(&mut text)
            .unwrap();
        assert!(text.starts_with(begin) && text.ends_with(end), "{text}");
        // Numbers differ, so the lengths do.
        let ratio = text.len() as f64 / plain.body.len() as f64;
        assert!((0.9..1.1).contains(&ratio), "{path}: {ratio}");
    }
}

#[test]
fn the_status_shows_each_outbound_and_its_last_error() {
    let (a, b) = (
        Upstream::ok(),
        Upstream::start(|_, _| Action::Answer(403, r#"{"detail":"ProjectId"}"#)),
    );
    let mirror = with_admin(&[a.dsn(KEY_A, 11), b.dsn(KEY_B, 22)], "workers: 1");
    assert_eq!(mirror.client().ask(&good()).status, 200);
    b.wait_for(1);
    mirror.wait_for_metrics(|metrics| metrics.sum("sentry_mirror_deliveries_total", &[]) == 2.0);
    let status: serde_json::Value = serde_json::from_str(mirror.page("/status").text()).unwrap();
    assert_eq!(status["stage"], "ready");
    assert_eq!(status["answers"], serde_json::json!({"accepted": 1}));
    let route = &status["routes"][0];
    assert_eq!(route["name"], "http://0123…@mirror.example.com/42");
    assert_eq!(route["requests"], 1);
    let [good, bad] = [&route["outbounds"][0], &route["outbounds"][1]];
    assert_eq!((&good["delivered"], &good["lost"]), (&1.into(), &0.into()));
    assert_eq!(good["last_error"], serde_json::Value::Null);
    assert!(good["latency_seconds"]["p99"].as_f64().unwrap() > 0.0);
    assert_eq!(good["upstream"]["breaker"], "closed");
    assert_eq!(bad["outcomes"], serde_json::json!({"4xx": 1}));
    assert_eq!(bad["success"], 0.0);
    assert_eq!(
        bad["last_error"]["message"],
        r#"answered 403: {"detail":"ProjectId"}"#
    );
    let steps = bad["steps"].as_array().unwrap();
    let lost: u64 = steps.iter().map(|step| step[2].as_u64().unwrap()).sum();
    assert_eq!(lost, 1);
}

#[test]
fn no_page_shows_a_key() {
    let upstream = Upstream::ok();
    let secret = "5ec2e75ec2e75ec2e75ec2e75ec2e75e";
    let dsn = upstream.dsn(&format!("{KEY_A}:{secret}"), 11);
    let report = format!("sentry_dsn: {}", upstream.dsn(KEY_B, 1));
    let mirror = with_admin(&[dsn], &report);
    mirror.client().ask(&good());
    for path in ["/", "/status", "/config", "/metrics"] {
        let page = mirror.page(path);
        for key in [IN_KEY, KEY_A, KEY_B, secret] {
            assert!(!page.text().contains(&key[..6]), "{path}: {}", page.text());
        }
    }
}

#[test]
fn a_draining_mirror_is_not_ready_but_serves_its_pages() {
    let (answer, held) = channel();
    let held = Mutex::new(held);
    let upstream = Upstream::start(move |_, _| {
        let held = held.lock().unwrap();
        held.recv_timeout(PATIENCE).expect("the test says when");
        Action::ok()
    });
    let mirror = with_admin(&[upstream.dsn(KEY_A, 11)], "");
    assert_eq!(mirror.page("/ready").status, 200);
    let mut client = mirror.client();
    client.send(&good());
    upstream.wait_for(1);
    mirror.signal("TERM");
    mirror.wait_for_line("stopping");
    wait_until(
        || mirror.page("/ready").status != 200,
        || "it stays ready".to_owned(),
    );
    let draining = mirror.page("/ready");
    assert_eq!((draining.status, draining.text()), (503, "draining\n"));
    assert_eq!(mirror.page("/health").status, 200);
    assert_eq!(mirror.metrics().value("sentry_mirror_ready"), 0.0);
    answer.send(()).unwrap();
    assert_eq!(client.response().status, 200);
    assert_eq!(mirror.wait().0.code(), Some(0));
}

#[test]
fn an_admin_port_in_use_is_an_error_with_a_hint() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let dsn = format!("http://{KEY_A}@127.0.0.1:9/1");
    let text = config(&[dsn], &format!("admin: {{port: {port}}}"));
    let ended = run(&["-c", file("config.yml", &text).to_str().unwrap()]);
    assert_eq!(ended.code, Some(1));
    let expected = format!("cannot listen on 127.0.0.1:{port} for metrics and the status page");
    assert!(ended.stderr.contains(&expected), "{ended:?}");
    assert!(ended.stderr.contains("`admin: off`"), "{ended:?}");
}

#[test]
fn more_silent_clients_than_slots_do_not_delay_health_checks() {
    let upstream = Upstream::ok();
    let mirror = with_admin(&[upstream.dsn(KEY_A, 11)], "");
    let mut silent = Vec::new();
    for round in 0..3 {
        for number in 0..40 {
            let mut stream = TcpStream::connect(mirror.admin_address()).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            if number % 2 == 0 {
                // Some begin a request. The mirror may have closed the first ones already.
                let _ = stream.write_all(b"GET /health HTTP/1.1\r\n");
            }
            silent.push(stream);
        }
        let started = Instant::now();
        assert_eq!(mirror.page("/health").status, 200, "{round}");
        assert_eq!(mirror.page("/ready").status, 200, "{round}");
        assert!(started.elapsed() < Duration::from_secs(2), "{round}");
    }
    // None of them got a response.
    for stream in &mut silent {
        assert!(!matches!(stream.read(&mut [0; 1]), Ok(1)));
    }
}

#[test]
fn dns_rebinding_cannot_read_the_pages() {
    let upstream = Upstream::ok();
    let mirror = with_admin(&[upstream.dsn(KEY_A, 11)], "");
    let ask = |fields: &str| {
        let request = format!("GET /status HTTP/1.1\r\n{fields}\r\n");
        ask(mirror.admin_address(), &request).status
    };
    assert_eq!(mirror.page("/status").status, 200);
    assert_eq!(ask(""), 200);
    assert_eq!(ask("Host: localhost:3001\r\n"), 200);
    assert_eq!(ask("Host: rebound.example:3001\r\n"), 421);
}

#[test]
fn the_config_page_shows_the_configuration_in_force_after_a_reload() {
    let upstream = Upstream::ok();
    let text = |extra: &str| config(&[upstream.dsn(KEY_A, 11)], extra);
    let path = file(
        "config.yml",
        &text("admin: {port: 0}\nworkers: 1\nreply_timeout: 2s"),
    );
    let mirror = Process::start_at(&path);
    let in_force = mirror.page("/config").text().to_owned();
    let other = text(
        "admin: {ip: 127.0.0.9, port: 9}\nworkers: 2\ndriver: epoll\nreuse_port: true\nlog_filter: warn\nlog_format: json\naccess_log: json\nstatsd_addr: 127.0.0.1:9\ndefault_metrics_tags: {a: b}\nsentry_dsn: http://a@127.0.0.9/1\nsentry_env: e\nreply_timeout: 3s",
    );
    let other = other.replace("ip: 127.0.0.1\nport: 0", "ip: 127.0.0.9\nport: 9000");
    std::fs::write(&path, other).unwrap();
    mirror.signal("HUP");
    mirror.wait_for_line("take effect only after a restart");
    mirror.wait_for_line("configuration reloaded");
    let expected = in_force.replace("reply_timeout: 2s", "reply_timeout: 3s");
    wait_until(
        || mirror.page("/config").text() == expected,
        || mirror.page("/config").text().to_owned(),
    );
}

#[test]
fn an_open_breaker_is_shown_for_all_workers_until_a_probe_connects() {
    let (socket, address) = deaf();
    let dsn = format!("http://{KEY_A}@{address}/11");
    let breaker = "workers: 2\nbreaker: {failures: 1, pause: 50ms}";
    let mirror = with_admin(&[dsn], breaker);
    assert_eq!(mirror.client().ask(&good()).status, 503);
    let upstream = || -> serde_json::Value {
        let status = mirror.page("/status");
        let status: serde_json::Value = serde_json::from_str(status.text()).unwrap();
        status["routes"][0]["outbounds"][0]["upstream"].clone()
    };
    let is_so = |upstream: &serde_json::Value| {
        upstream["breaker"] == "open" && upstream["probes"]["failed"].as_u64() > Some(1)
    };
    wait_until(|| is_so(&upstream()), || upstream().to_string());
    let open = || mirror.metrics().sum("sentry_mirror_breakers_open", &[]);
    assert_eq!(open(), 1.0);
    // No further request is needed.
    socket.listen(8).unwrap();
    let is_so = |upstream: &serde_json::Value| {
        upstream["breaker"] == "closed" && upstream["probes"]["connected"] == 1
    };
    wait_until(|| is_so(&upstream()), || upstream().to_string());
    assert_eq!(open(), 0.0);
}

#[test]
fn silent_clients_are_closed_and_do_not_block_the_pages() {
    let upstream = Upstream::ok();
    let mirror = with_admin(&[upstream.dsn(KEY_A, 11)], "");
    let address = mirror.admin_address();
    let connect = || {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let mut silent: Vec<TcpStream> = (0..10).map(|_| connect()).collect();
    let started = Instant::now();
    assert_eq!(mirror.page("/health").status, 200);
    assert!(started.elapsed() < Duration::from_secs(2));
    for stream in &mut silent {
        let end = stream.read(&mut [0; 1]);
        assert!(matches!(end, Ok(0)), "{end:?}");
    }
    // Connections that close free their slots.
    let crowd: Vec<TcpStream> = (0..60).map(|_| connect()).collect();
    drop(crowd);
    let large = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    let mut stream = connect();
    stream.write_all(large.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let healthy = || {
        let mut stream = connect();
        let _ = stream.write_all(b"GET /health HTTP/1.1\r\n\r\n");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).is_ok() && answer.ends_with("\r\n\r\nok\n")
    };
    wait_until(healthy, || "no slot is free again".to_owned());
}
